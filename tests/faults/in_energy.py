"""Faults of energy: what is metered, of which device, and what is said without a meter."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="the timed steps of a profile are not metered",
        file="machine/energy.py",
        line="    power.joules(time.perf_counter() - began)",
        becomes="",
        tests="tests/machine/test_profile.py::test_a_profile_meters_the_steps_that_it_times",
    ),
    Fault(
        what="a counter says 0 W before it is read",
        file="machine/energy.py",
        line="if self._joules and self._seconds else None",
        becomes="if self._joules and self._seconds else 0.0",
        tests="tests/machine/test_energy.py::test_a_counter_has_no_watts_before_it_is_read",
    ),
    Fault(
        what="psys is counted beside the processor that it holds",
        file="machine/energy.py",
        line='.read_text().startswith("package")',
        becomes=".exists()",
        tests="tests/machine/test_energy.py::test_only_whole_processors_are_counted",
    ),
    Fault(
        what="processors that are not readable are left out of the sum",
        file="machine/energy.py",
        line="zone for zone in sorted(RAPL.glob",
        becomes="zone for zone in filter(_counts, RAPL.glob",
        tests="tests/machine/test_energy.py::test_a_machine_with_one_unreadable_processor_is_not_metered",
    ),
    Fault(
        what="turns of a counter are lost in a long period",
        file="machine/energy.py",
        line="            power.look()",
        becomes="            pass",
        tests="tests/machine/test_energy.py::test_a_long_period_counts_every_turn_of_a_counter",
    ),
    Fault(
        what="the first GPU is metered, whichever PyTorch uses",
        file="machine/energy.py",
        line="nvmlDeviceGetHandleByUUID(name)",
        becomes="nvmlDeviceGetHandleByIndex(0)",
        tests="tests/machine/test_energy.py::test_the_gpu_that_is_metered_is_the_one_that_pytorch_uses",
    ),
    Fault(
        what="a profile of 0 W plans 0 J",
        file="planning/costs.py",
        line="if seconds is None or no_joules else",
        becomes="if seconds is None else",
        tests="tests/verbs/test_profile.py::"
        "test_a_profile_of_0_watts_plans_without_energy_and_refuses_a_budget_in_joules",
    ),
    Fault(
        what="metered runs are compared by seconds times watts",
        file="sweep/judge.py",
        line="if timed is None or budget is None:",
        becomes="if True:",
        tests="tests/sweep/test_simulated_verdicts.py::"
        "test_metered_runs_are_compared_at_equal_joules_by_what_they_used",
    ),
    Fault(
        what="a millijoule is a megajoule",
        file="units.py",
        line='"mj": 1e-3',
        becomes='"mj": 1e6',
        tests="tests/test_units.py::test_human_numbers_are_read_with_their_units",
    ),
)
