"""Faults of training on several ranks."""

from __future__ import annotations

from tests.faults.fault import Fault

COMMAND = "tests/verbs/test_train_ranks.py"
JOINED = "tests/runs/test_joined.py"

FAULTS = (
    Fault(
        what="each rank scores all held-out windows",
        file="evaluation/loss.py",
        line="windows_WS1[ranks.index :: ranks.count]",
        becomes="windows_WS1",
        tests=f"{COMMAND}::test_two_ranks_train_one_run_and_rank_0_alone_speaks",
    ),
    Fault(
        what="experts' loads are those of one rank's windows",
        file="evaluation/loss.py",
        line="ranks.add_up([layer.load_E for layer in model.sparse_feed_forwards])",
        becomes="pass",
        tests="tests/evaluation/test_loss.py::test_ranks_share_the_windows_and_what_they_add_up_is_the_whole",
    ),
    Fault(
        what="a rank that is asked to stop leaves by itself",
        file="runs/ranks/joined.py",
        line="return counted, dues > 0, stops > 0",
        becomes="return counted, dues > 0, self.stopping",
        tests=f"{JOINED}::test_rank_0s_clock_says_when_a_state_is_due_and_any_rank_may_ask_to_stop",
    ),
    Fault(
        what="a rank that waits for rank 0 is not stopped",
        file="runs/ranks/watch.py",
        line="if board.place.rank == 0 and board.asked_to_stop():",
        becomes="if False:",
        tests=f"{COMMAND}::test_a_rank_that_waits_for_rank_0s_text_may_be_asked_to_stop",
    ),
    Fault(
        what="each rank saves by its own clock",
        file="runs/ranks/joined.py",
        line="due and self.speaks",
        becomes="due",
        tests=f"{JOINED}::test_rank_0s_clock_says_when_a_state_is_due_and_any_rank_may_ask_to_stop",
    ),
    Fault(
        what="a rank that was killed is not missed",
        file="runs/ranks/watch.py",
        line="if process.exitcode is not None:",
        becomes="if False:",
        tests=f"{COMMAND}::test_a_killed_rank_ends_the_others_in_one_line_and_the_last_state_goes_on",
    ),
    Fault(
        what="a rank that hangs is waited for without end",
        file="runs/ranks/watch.py",
        line="elif now - self._moved[index] > most:",
        becomes="elif False:",
        tests=f"{JOINED}::test_a_rank_without_a_sign_of_life_is_given_up_after_a_minute",
    ),
    Fault(
        what="a rank trains on another text than the first",
        file="runs/ranks/follow.py",
        line="if found.digest != order.text_digest:",
        becomes="if False:",
        tests=f"{COMMAND}::test_an_error_of_one_rank_is_said_once_with_its_rank",
    ),
    Fault(
        what="each rank takes all threads of its machine",
        file="runs/ranks/joined.py",
        line="return max(1, threads // len(beside))",
        becomes="return threads",
        tests=f"{JOINED}::test_the_ranks_of_a_host_share_its_threads_and_each_has_one_at_least",
    ),
    Fault(
        what="the processors of a host are metered once for each of its ranks",
        file="runs/ranks/joined.py",
        line="return self.connection.here == self._at_home[0]",
        becomes="return True",
        tests=f"{JOINED}::test_processors_are_metered_once_on_each_host_and_every_gpu_by_its_rank",
    ),
    Fault(
        what="an error does not say which rank had it",
        file="runs/ranks/board.py",
        line='if self.kind == "lost" or self.rank == 0:',
        becomes="if True:",
        tests=f"{COMMAND}::test_an_error_of_one_rank_is_said_once_with_its_rank",
    ),
    Fault(
        what="a batch script of Slurm takes itself for one of several tasks",
        file="runs/ranks/place.py",
        line='if "SLURM_STEP_NODELIST" in environment else None',
        becomes='if "SLURM_NTASKS" in environment else None',
        tests="tests/runs/test_place.py::test_a_process_that_was_not_started_with_others_is_alone",
    ),
    Fault(
        what="a rank looks at saved states that the first one may be removing",
        file="runs/state.py",
        line="if live.joined.speaks and home.exists()",
        becomes="if home.exists()",
        tests=f"{JOINED}::test_only_the_rank_that_writes_looks_at_saved_states",
    ),
    Fault(
        what="a rank without held-out windows of its own ends the run",
        file="evaluation/loss.py",
        line="if len(own_WS1) else 0.0",
        becomes="",
        tests="tests/evaluation/test_loss.py::test_a_rank_without_a_window_of_its_own_adds_nothing",
    ),
    Fault(
        what="a second training of one script listens at a port that it listens at already",
        file="runs/ranks/board.py",
        line="_stores.get(place) or _met(",
        becomes="_met(",
        tests=f"{JOINED}::test_a_script_that_trains_twice_meets_twice_at_one_port",
    ),
    Fault(
        what="a rank that comes after the first was stopped waits for it",
        file="runs/ranks/board.py",
        line="self.raise_ended()  # of a rank that came before",
        becomes="# of a rank that came before",
        tests=f"{JOINED}::test_a_rank_that_comes_after_the_first_was_stopped_does_not_wait_for_it",
    ),
    Fault(
        what="after an error nccl's group waits for ranks that have gone",
        file="runs/ranks/gathering.py",
        line='if joined.ranks.device == "cuda":',
        becomes="if False:",
        tests=f"{JOINED}::test_after_an_error_the_group_is_left_without_the_others_while_the_watch_looks",
    ),
    Fault(
        what="after an error the group that a script has made itself is destroyed",
        file="runs/ranks/gathering.py",
        line="if isinstance(joined.ranks, Ranks) and distributed.is_initialized():",
        becomes="if distributed.is_initialized():",
        tests=f"{JOINED}::test_a_group_that_a_script_has_made_itself_is_left_to_it",
    ),
)
