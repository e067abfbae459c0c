"""Faults of token selection: weights of positions in the training loss."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="a token's weight is that of the token before it",
        file="text/reference_losses.py",
        line="places_BS = starts[:, np.newaxis] + 1 + np.arange(context)",
        becomes="places_BS = starts[:, np.newaxis] + np.arange(context)",
        tests="tests/text/test_reference_losses.py"
        "::test_the_losses_of_windows_are_those_of_the_tokens_that_they_predict",
    ),
    Fault(
        what="a token's weight in multi-token prediction is that of the token before it",
        file="model/transformer.py",
        line="None if weight_BS is None else weight_BS[:, depth:]",
        becomes="None if weight_BS is None else weight_BS[:, depth - 1 : -1]",
        tests="tests/model/test_head.py::test_a_weighted_loss_and_its_gradients_are_those_by_hand",
    ),
    Fault(
        what="tokens that do not count are not read either",
        file="model/transformer.py",
        line="entropy = self.head.entropy(x_BSD, self.norm_D, ids_BS[:, 1:], weight_BS)",
        becomes="entropy = self.head.entropy(x_BSD if weight_BS is None else self.stream(ids_BS[:, :-1]"
        " * weight_BS.long(), place, routing), self.norm_D, ids_BS[:, 1:], weight_BS)",
        tests="tests/model/test_head.py::test_a_position_that_does_not_count_is_read_all_the_same",
    ),
    Fault(
        what="the compiled loss counts all positions alike",
        file="kernels/layers.py",
        line="weight_BS = None if weight_BS is None else weight_BS.contiguous()",
        becomes="weight_BS = None",
        tests="tests/kernels/test_layers.py::test_the_loss_equals_cross_entropy",
    ),
    Fault(
        what="the tokens with the lowest excess loss count",
        file="training/token_selection.py",
        line="chosen = excess_T.topk(count, sorted=False).indices",
        becomes="chosen = excess_T.topk(count, largest=False, sorted=False).indices",
        tests="tests/training/test_token_selection.py::test_the_share_with_the_highest_excess_counts_and_no_other",
    ),
    Fault(
        what="the reference model's cost is not counted in a run's record",
        file="runs/execute.py",
        line="reference_cost=selecting and selecting.losses.facts.cost,",
        becomes="reference_cost=None,",
        tests="tests/runs/test_token_selection.py::test_a_run_states_what_its_reference_cost_beside_its_own_cost",
    ),
    Fault(
        what="a dry run does not count the reference model's FLOPs",
        file="runs/costs.py",
        line="flops=job.flops + int(reference.flops if reference else 0),",
        becomes="flops=job.flops,",
        tests="tests/verbs/test_token_share.py::test_a_dry_run_counts_the_reference_model",
    ),
    Fault(
        what="the time of a study's reference model is not counted",
        file="verbs/study/study.py",
        line="clock.spend(cost.seconds)",
        becomes="clock.spend(0.0)",
        tests="tests/verbs/test_token_share.py::test_a_dry_run_of_a_study_counts_the_reference_model_in_its_time",
    ),
)
