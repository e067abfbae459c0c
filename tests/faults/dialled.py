"""Faults of training for the dial that a test must find."""

from __future__ import annotations

from tests.faults.planted import Fault

RUNS, STEPS = "tests/runs/test_dial.py", "tests/training/test_dial.py"

FAULTS = (
    Fault(
        what="the numbers of experts are drawn by a generator that goes on, not by the step",
        file="training/dial.py",
        line="key = mix(mix(mix(SALT + self.seed) + block) + layer)",
        becomes='key = __import__("random").getrandbits(64)',
        tests=f"{RUNS}::test_a_resumed_run_with_a_dial_equals_an_uninterrupted_one_bit_for_bit",
    ),
    Fault(
        what="a run with a dial counts its FLOPs at the highest number",
        file="runs/job.py",
        line="return full if self.dial is None else full - spared_flops(self.dial, self.shape, recipe)",
        becomes="return full",
        tests=f"{RUNS}::test_a_dial_and_how_it_is_drawn_are_inputs_of_a_run",
    ),
    Fault(
        what="gates of fewer experts are normalised over all that were chosen",
        file="model/router.py",
        line="gates_TK = gates_TK / (gates_TK.sum(1, keepdim=True) + 1e-20)",
        becomes="gates_TK = gates_TK / (scores_TE.gather(1, chosen_TK).sum(1, keepdim=True) + 1e-20)",
        tests=f"{STEPS}::test_a_step_at_a_number_learns_what_a_model_of_that_top_k_learns",
    ),
    Fault(
        what="a run ends on the highest number",
        file="training/dial.py",
        line="return (draws.dial.top_k_experts[0],) * draws.layers",
        becomes="return (draws.dial.top_k_experts[-1],) * draws.layers",
        tests=STEPS,
    ),
    Fault(
        what="the loss at each number of a dial is that at the highest",
        file="evaluation/loss.py",
        line="None if top_k is None else same_top_k(",
        becomes="None if True else same_top_k(",
        tests=f"{RUNS}::test_the_loss_at_each_number_is_that_of_the_checkpoint_with_an_edited_top_k",
    ),
    Fault(
        what="a step with few experts is compared with those that had many",
        file="training/dial.py",
        line="if sum(draws.at(index)) <= most]",
        becomes="if sum(draws.at(index)) <= most or True]",
        tests=f"{RUNS}::test_a_step_with_few_experts_is_no_spike_and_one_far_above_its_like_is",
    ),
)
