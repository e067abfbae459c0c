"""Faults of training."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="curves of runs in one folder merge",
        file="runs/executor.py",
        line="""return f"{self.label}, {self.job.hash[:8]}\"""",
        becomes="return self.label",
        tests="tests/showing/test_logs.py::test_runs_of_one_folder_have_a_curve_each",
    ),
    Fault(
        what="the one pass of AdamW leaves the copies of weights as they were",
        file="kernels/triton_adamw.py",
        line="    if COPIED:",
        becomes="    if False:",
        tests="tests/training/test_one_pass.py",
    ),
    Fault(
        what="a parameter whose first gradient comes late counts the steps before",
        file="training/adamw.py",
        line="torch.stack(counts).tolist()",
        becomes="[float(counts[0])] * len(counts)",
        tests="tests/training/test_optimizer.py::test_compiled_adamw_equals_pytorchs",
    ),
    Fault(
        what="a step that is not finite still counts",
        file="training/adamw.py",
        line="[1 - found_inf] * len(steps)",
        becomes="[torch.ones_like(found_inf)] * len(steps)",
        tests="tests/training/test_one_pass.py",
    ),
    Fault(
        what="the gradient of the loss is that of its last piece alone",
        file="kernels/head.py",
        line="return total_VD.add_(product_VD)",
        becomes="return product_VD.float()",
        tests="tests/kernels/test_head.py",
    ),
    Fault(
        what="a cap on logits is left out of the kernel's gradient",
        file="kernels/triton_head.py",
        line="slope *= 1 - share_of_cap * share_of_cap",
        becomes="pass",
        tests="tests/kernels/test_head.py",
    ),
    Fault(
        what="the experts' operation leaves the gates out of its gradient",
        file="kernels/reference.py",
        line="da_nF = da_nF * gate_n1",
        becomes="pass",
        tests="tests/kernels/test_experts.py",
    ),
    Fault(
        what="the FLOP counter sees two of an expert's three matrices",
        file="kernels/experts.py",
        line="return 6 * chosen[0]",
        becomes="return 4 * chosen[0]",
        tests="tests/kernels/test_experts.py",
    ),
    Fault(
        what="a replayed step has the learning rate of the step that was captured",
        file="training/replayed.py",
        line="            rate,",
        becomes="            float(rate),",
        tests="tests/training/test_replayed.py",
    ),
    Fault(
        what="a replayed step reads its windows at a place that Python knows",
        file="training/replayed.py",
        line="self._windows(self._first_NB.index_select(0, place)[0])",
        becomes="self._windows(self._first_NB[int(place)])",
        tests="tests/training/test_replayed.py",
    ),
    Fault(
        what="Muon reads the learning rate from the device",
        file="training/muon_together.py",
        line="torch.where(finite, constants.rate * (",
        becomes="torch.where(finite, float(constants.rate) * (",
        tests="tests/training/test_replayed.py",
    ),
    Fault(
        what="a replayed step that is not finite is taken all the same by the compiled AdamW",
        file="training/adamw.py",
        line="if self.found_inf is not None and self.found_inf:",
        becomes="if False:",
        tests="tests/training/test_replayed.py",
    ),
    Fault(
        what="what a replayed step measured goes to the first place of the ring",
        file="training/replayed.py",
        line="self._figures_N2.index_copy_(0, place,",
        becomes="self._figures_N2.index_copy_(0, place * 0,",
        tests="tests/training/test_replayed.py",
    ),
    Fault(
        what="a run whose seconds are measured shares the GPU with others",
        file="runs/in_process.py",
        line="if self._open[0].timed or _timed(group):",
        becomes="if False:",
        tests="tests/runs/test_in_process.py",
    ),
    Fault(
        what="runs at once wait for each other instead of giving the GPU the work of all",
        file="training/loop.py",
        line="if pauses and not at_once:",
        becomes="if False:",
        tests="tests/runs/test_in_process.py",
    ),
    Fault(
        what="a study on a GPU has a laptop's batch",
        file="machine/card.py",
        line="return max(4, card.step_tokens // context)",
        becomes="return 16",
        tests="tests/machine/test_card.py",
    ),
    Fault(
        what="the profile of a GPU times a few sequences of the batch",
        file="sweep/design.py",
        line="draft.batch if question.on_gpu else min(draft.batch, PROFILE_BATCH)",
        becomes="min(draft.batch, PROFILE_BATCH)",
        tests="tests/machine/test_card.py",
    ),
    Fault(
        what="after a resume parameters are sorted by the steps that they had before it",
        file="training/adamw.py",
        line="if known is None or not known.of(counts):",
        becomes="if known is None or len(known.counts) != len(counts):",
        tests="tests/training/test_optimizer.py",
    ),
)
