"""Faults of serving several requests at once."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="a prompt that was stopped while it was read leaves values that are no numbers",
        file="serving/lanes.py",
        line="sound = last < 0 or all(",
        becomes="sound = True or all(",
        tests="tests/serving/test_engine_failures.py::"
        "test_a_prompt_that_is_forgotten_before_its_end_leaves_nothing_that_is_no_number",
    ),
    Fault(
        what="a short request waits for all of a long prompt that came before it",
        file="serving/engine.py",
        line="Scheduler(slots, ALONE)",
        becomes="Scheduler(slots, 8 * ALONE)",
        tests="tests/serving/test_engine.py::test_who_comes_while_a_long_prompt_is_read_does_not_wait_for_all_of_it",
    ),
    Fault(
        what="a prompt that is being tokenized stops every other thread",
        file="text/prompts.py",
        line="(encoding,) = self.backend.encode_batch_fast([prompt], add_special_tokens=not whole)",
        becomes="encoding = self.backend.encode(prompt, add_special_tokens=not whole)",
        tests="tests/text/test_prompts.py::test_other_threads_go_on_while_a_long_prompt_is_read",
    ),
    Fault(
        what="a prompt takes over what was read with another number of experts",
        file="serving/slots.py",
        line="if slot.visits == answer.visits else 0",
        becomes="if slot.visits or True else 0",
        tests="tests/serving/test_engine.py::test_a_continued_text_is_what_it_is_without_a_slot_that_holds_it",
    ),
    Fault(
        what="a freed slot keeps its fill",
        file="serving/lanes.py",
        line="cache.shrink(beginning.slot, beginning.shared)",
        becomes="cache.shrink(beginning.slot, cache.length)",
        tests="tests/serving/test_engine.py::test_each_request_gets_the_text_that_it_gets_alone",
    ),
    Fault(
        what="the last id of a prompt is taken over too, and gives no token",
        file="serving/slots.py",
        line="min(common(slot.ids, answer.ids), answer.spared)",
        becomes="common(slot.ids, answer.ids)",
        tests="tests/serving/test_slots.py::test_at_least_the_last_id_is_read",
    ),
    Fault(
        what="the seed of a request depends on how many others there are",
        file="serving/engine.py",
        line="draws = draws_of(ask.sampling)",
        becomes="draws = draws_of(ask.sampling); draws.chance.manual_seed(ask.sampling.seed + len(self._open))",
        tests="tests/serving/test_engine.py::test_each_request_gets_the_text_that_it_gets_alone",
    ),
    Fault(
        what="joules of a call are counted for each of its answers",
        file="serving/engine.py",
        line="share = joules / sum(counts)",
        becomes="share = joules / max(counts)",
        tests="tests/serving/test_engine.py::test_joules_of_all_answers_are_those_that_the_meter_counted",
    ),
    Fault(
        what="a prompt's first piece is read in place of each later one",
        file="serving/lanes.py",
        line="piece.answer.ids[piece.answer.read :][: piece.count]",
        becomes="piece.answer.ids[: piece.count]",
        tests="tests/serving/test_engine.py::test_each_request_gets_the_text_that_it_gets_alone",
    ),
    Fault(
        what="an answer that fails leaves values that are no numbers in its slot",
        file="serving/engine.py",
        line="lane.wipe(open_.answer.slot)",
        becomes="lane.decoder.cache.free(open_.answer.slot)",
        tests="tests/serving/test_engine_failures.py::test_logits_that_are_no_numbers_fail_that_answer_alone_and_leave_nothing",
    ),
    Fault(
        what="an error's other answers go on in its cache",
        file="serving/engine.py",
        line="self._lanes.pop(key, None)",
        becomes="self._lanes.get(key, None)",
        tests="tests/serving/test_engine_failures.py::test_an_error_fails_those_that_took_part_and_the_others_go_on",
    ),
    Fault(
        what="an answer whose lane finds no room waits for ever, while others pass",
        file="serving/scheduler.py",
        line="if answer.lane in closing | missing:",
        becomes="if answer.lane in missing:",
        tests="tests/serving/test_scheduler.py::test_an_answer_whose_lane_finds_no_room_lets_others_pass_but_not_for_ever",
    ),
    Fault(
        what="those that write wait while a long prompt is read",
        file="serving/scheduler.py",
        line="left = min(self._alone, self._piece * max(1, len(reading) // writing)) if writing else self._alone",
        becomes="left = self._alone",
        tests="tests/serving/test_scheduler.py::test_a_long_prompt_is_read_by_pieces_while_others_write_each_turn",
    ),
    Fault(
        what="a long prompt waits as long as shorter ones come",
        file="serving/scheduler.py",
        line="counts[first] = min(first.unread, (left + 1) // 2)",
        becomes="counts[first] = 0",
        tests="tests/serving/test_scheduler.py::test_a_short_prompt_does_not_wait_for_a_long_one_nor_a_long_one_for_short_ones",
    ),
    Fault(
        what="steps of the engine's thread keep what gradients need",
        file="serving/engine.py",
        line="@torch.no_grad()",
        becomes="",
        tests="tests/serving/test_engine.py::test_the_engines_thread_computes_as_the_main_one_does",
    ),
    Fault(
        what="products of few rows keep the last part of a sum alone",
        file="kernels/csrc/weights.h",
        line="                         add || k0 > 0);\n            }",
        becomes="                         add);\n            }",
        tests="tests/kernels/test_layers.py::test_few_rows_are_the_rows_of_many_bit_for_bit",
    ),
)
