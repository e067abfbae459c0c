"""Faults of a study that tries several optimizers."""

from __future__ import annotations

from tests.faults.fault import Fault

TESTS = "tests/sweep/test_optimizers.py"

FAULTS = (
    Fault(
        what="a rival is trained at the learning rate of the grid's optimizer",
        file="sweep/rivals.py",
        line="rate = rates[rival.optimizer].model.at(",
        becomes="rate = rates[lab.optimizers[0]].model.at(",
        tests=f"{TESTS}::test_each_optimizer_has_rates_of_its_own",
    ),
    Fault(
        what="a rival is trained with the grid's optimizer",
        file="sweep/rivals.py",
        line="rate, lab.seed + seed, rival.optimizer)",
        becomes="rate, lab.seed + seed)",
        tests=f"{TESTS}::test_the_verdict_is_about_the_better_models",
    ),
    Fault(
        what="the learning rates of another optimizer are those of the grid's",
        file="sweep/scan.py",
        line="rate, lab.seed, optimizer)",
        becomes="rate, lab.seed)",
        tests=f"{TESTS}::test_each_optimizer_has_rates_of_its_own",
    ),
    Fault(
        what="a model of equal seconds gets the steps that the grid's optimizer would take in them",
        file="sweep/equal_cost.py",
        line="timing.step_seconds[StepKind(shape, sent.optimizer)]",
        becomes="timing.step_seconds[StepKind(shape, lab.optimizers[0])]",
        tests=f"{TESTS}::test_an_optimizer_may_be_better_at_equal_flops_and_too_slow_at_equal_seconds",
    ),
    Fault(
        what="the dense model at equal seconds is the one at equal FLOPs, where only their optimizers differ",
        file="sweep/equal_cost.py",
        line="if rivals.dense.kind == winner.kind",
        becomes="if rivals.dense.shape == winner.shape",
        tests=f"{TESTS}::test_the_dense_model_of_equal_seconds_may_have_another_optimizer_than_the_one_that_sets_the_budget",
    ),
    Fault(
        what="a plan names the grid's optimizer for a model that was trained with another",
        file="sweep/findings.py",
        line="optimizer = _optimizer_of(findings, best)",
        becomes="optimizer = findings.rates.optimizer",
        tests=f"{TESTS}::test_the_plan_is_to_be_trained_as_the_best_model_was",
    ),
    Fault(
        what="the slower steps of another optimizer pass for a slower machine",
        file="sweep/pace.py",
        line=" and recipe.optimizer == self.profile.optimizer",
        becomes="",
        tests=f"{TESTS}::test_slower_steps_of_an_optimizer_are_no_slower_machine",
    ),
    Fault(
        what="a fit of a study's runs takes those by another optimizer for cells of its grid",
        file="law/grid_runs.py",
        line=" and run.optimizer == layout.optimizers[0]",
        becomes="",
        tests="tests/law/test_grid_runs.py::test_runs_by_another_optimizer_are_no_cells",
    ),
    Fault(
        what="without time to try both, the optimizer goes that was worse in the scans",
        file="sweep/rivals.py",
        line="key=lambda optimizer: -scanned_gain(",
        becomes="key=lambda optimizer: scanned_gain(",
        tests=f"{TESTS}::test_without_time_to_try_the_scans_and_the_law_choose",
    ),
    Fault(
        what="without time to try both, what an optimizer gained in the scans counts for nothing at equal seconds",
        file="sweep/equal_cost.py",
        line="return predicted_loss(law, nominees.law, lab.context) - gain",
        becomes="return predicted_loss(law, nominees.law, lab.context)",
        tests=f"{TESTS}::test_without_time_to_try_the_scans_and_the_law_choose",
    ),
    Fault(
        what="no time is kept for trying a second optimizer",
        file="sweep/budgets.py",
        line="if len(layout.optimizers) > 1:",
        becomes="if False:",
        tests=f"{TESTS}::test_a_second_optimizer_makes_the_grid_smaller_and_the_forecast_longer",
    ),
)
