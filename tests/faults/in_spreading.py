"""Faults of a study on several machines."""

from __future__ import annotations

from tests.faults.fault import Fault

SPREAD = "tests/runs/test_spread.py::"
DOOR = "tests/runs/test_door.py::"

FAULTS = (
    Fault(
        what="the group of a worker that is gone is not repeated",
        file="runs/machines/spread.py",
        line="return [Lost(group=worker.group, host=worker.host)] if worker.group else []",
        becomes="return []",
        tests=SPREAD + "test_the_group_of_a_worker_that_is_gone_is_lost_and_no_other_machine_gets_it_again",
    ),
    Fault(
        what="a group that another machine gave back goes to the next one, and so on",
        file="runs/machines/spread.py",
        line="self._given_back |= {task.job.hash for task in worker.group}",
        becomes="self._given_back |= set()",
        tests=SPREAD + "test_the_group_of_a_worker_that_is_gone_is_lost_and_no_other_machine_gets_it_again",
    ),
    Fault(
        what="workers of other machines that are gone end the study",
        file="runs/policy.py",
        line="self.tries[task.job.hash] += event.host is None",
        becomes="self.tries[task.job.hash] += MOST_TRIES",
        tests=SPREAD + "test_a_group_that_another_machine_gives_back_is_trained_on_this_one",
    ),
    Fault(
        what="a timed run goes to another machine",
        file="runs/machines/spread.py",
        line="return not any(task.alone or task.job.hash",
        becomes="return not any(task.job.hash",
        tests=SPREAD + "test_timed_runs_stay_on_this_machine",
    ),
    Fault(
        what="a worker of another version is let in",
        file="runs/machines/setup.py",
        line="*((name, study.versions.get(name), worker.versions.get(name)) for name in names),",
        becomes="*((name, None, None) for name in names),",
        tests=SPREAD + "test_a_worker_whose_losses_would_differ_is_not_let_in",
    ),
    Fault(
        what="a worker with other kernels is let in",
        file="runs/machines/setup.py",
        line='("kernels", study.kernels, worker.kernels),',
        becomes="",
        tests=SPREAD + "test_a_worker_whose_losses_would_differ_is_not_let_in",
    ),
    Fault(
        what="the key of a study is read by everybody",
        file="runs/machines/site.py",
        line="write(self.folder / JOIN_FILE, meeting, private=True)",
        becomes="write(self.folder / JOIN_FILE, meeting)",
        tests=DOOR + "test_who_does_not_know_the_key_is_not_let_in",
    ),
    Fault(
        what="a machine that says nothing any more is waited for",
        file="runs/machines/site.py",
        line="if time.monotonic() - worker.heard > SILENT_SECONDS and not worker.connection.poll()",
        becomes="if worker.connection.closed",
        tests=SPREAD + "test_workers_that_say_nothing_for_too_long_are_silent",
    ),
    Fault(
        what="who says nothing at the door keeps all others waiting",
        file="runs/machines/site.py",
        line="threading.Thread(target=self._greet_in_place, args=(found,), daemon=True).start()",
        becomes="self._greet_in_place(found)",
        tests=DOOR + "test_who_does_not_know_the_key_is_not_let_in",
    ),
    Fault(
        what="a stranger at the study's port lets one worker answer for another, and is believed",
        file="runs/machines/channel.py",
        line='of_worker, of_study = f"worker {key}".encode(), f"study {key}".encode()',
        becomes="of_worker = of_study = key.encode()",
        tests=DOOR + "test_a_stranger_cannot_let_one_worker_answer_for_another",
    ),
    Fault(
        what="who says one letter now and then stays at the door",
        file="runs/machines/channel.py",
        line="late.start()",
        becomes="",
        tests=DOOR + "test_strangers_that_fill_the_door_are_hung_up_after_a_while",
    ),
    Fault(
        what="srun's workers share the cores of the first node with its own",
        file="runs/machines/slurm.py",
        line='*([f"--exclude={found.own}"] if found.own else []),',
        becomes="",
        tests="tests/runs/test_slurm.py::test_the_first_node_is_left_to_its_own_workers",
    ),
    Fault(
        what="a grid is laid for this machine's workers alone",
        file="sweep/design.py",
        line="AtOnce(numbers=[number + elsewhere() for number in question.at_once], room=room)",
        becomes="AtOnce(numbers=question.at_once, room=room)",
        tests="tests/sweep/test_elsewhere.py::test_a_grid_is_planned_with_the_workers_that_have_joined",
    ),
    Fault(
        what="the workers of other machines are forgotten once the grid is laid",
        file="sweep/lab.py",
        line="return self.workers + self.elsewhere()",
        becomes="return self.workers",
        tests="tests/sweep/test_elsewhere.py::test_what_a_run_adds_to_the_time_is_shared_by_all_workers_that_are_there",
    ),
    Fault(
        what="what other machines trained is written down as this one's",
        file="runs/machines/machines.py",
        line="name = event.host or self.here",
        becomes="name = self.here",
        tests=SPREAD + "test_the_losses_of_several_machines_are_those_of_one",
    ),
    Fault(
        what="a run that is none of the grid's counts as a cell",
        file="sweep/launched.py",
        line="cells=sum(not cell.isdisjoint(host.runs) for cell in names),",
        becomes="cells=len(host.runs),",
        tests="tests/sweep/test_launched.py::test_a_machine_has_its_cells_and_only_the_first_one_a_profile",
    ),
    Fault(
        what="a worker that is kept goes on with the text of its first run",
        file="runs/worker.py",
        line="text = lru_cache(maxsize=1)(open_text)",
        becomes="text = lambda folder, first=[]: first[0] if first else first.append(open_text(folder)) or first[0]",
        tests="tests/runs/test_pool.py::test_one_worker_serves_all_phases_and_all_texts_as_new_ones_do",
    ),
    Fault(
        what="a worker whose run was left goes back to the others",
        file="runs/local.py",
        line="if self._gives_back and not worker.group]",
        becomes="if self._gives_back]",
        tests="tests/runs/test_pool.py::test_a_busy_worker_is_not_kept",
    ),
)
