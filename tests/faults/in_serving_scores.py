"""Faults of the log-probabilities that a server tells, and of penalties."""

from __future__ import annotations

from tests.faults.fault import Fault

SCORED, TEXT, DRAWING = (f"tests/serving/test_{name}.py" for name in ("scored", "answer_text", "drawing"))
ONE_PASS = f"{SCORED}::test_what_is_told_is_what_one_pass_over_the_text_gives"

FAULTS = (
    Fault(
        what="a token of a prompt has the probability of the one before it",
        file="serving/engine.py",
        line="answer.ids[first:last]",
        becomes="answer.ids[first - 1 : last - 1]",
        tests=ONE_PASS,
    ),
    Fault(
        what="probabilities are told after temperature",
        file="serving/engine.py",
        line="logits_BV[row].clone()",
        becomes="logits_BV[row] / (each.draws.sampling.temperature or 1.0)",
        tests=ONE_PASS,
    ),
    Fault(
        what="probabilities are told after the ids that are never drawn were left out",
        file="serving/engine.py",
        line="logits_BV[row].clone()",
        becomes="logits_BV[row]",
        tests=ONE_PASS,
    ),
    Fault(
        what="what a slot holds of a prompt is taken over though it has no probabilities",
        file="serving/slots.py",
        line="return len(self.ids) - 1 if self.scored >= self.prompt else self.scored - 1",
        becomes="return len(self.ids) - 1",
        tests=f"{SCORED}::test_a_prompt_that_a_slot_holds_is_read_again_where_it_is_scored",
    ),
    Fault(
        what="a prompt that begins again is scored twice",
        file="serving/engine.py",
        line="max(answer.scored, answer.read + 1)",
        becomes="answer.read + 1",
        tests=f"{SCORED}::test_a_prompt_that_begins_again_is_told_once_and_right",
    ),
    Fault(
        what="the token that ended a text has no probability, and programs that score leave out one of the prompt",
        file="serving/engine.py",
        line='self._end(open_, "stop", end_token=scored)',
        becomes='self._end(open_, "stop")',
        tests=f"{SCORED}::test_the_token_that_ends_a_text_is_scored_beside_it",
    ),
    Fault(
        what="a prompt that gives no number fails those beside it",
        file="serving/engine.py",
        line="except UserError as error:  # of this answer: the others go on",
        becomes="except ZeroDivisionError as error:",
        tests=f"{SCORED}::test_a_prompt_of_which_no_number_comes_fails_alone",
    ),
    Fault(
        what="what a stop string cut off is told all the same",
        file="serving/answer_text.py",
        line="rest = self.ended is not None and not self.stops.found",
        becomes="rest = self.ended is not None",
        tests=f"{TEXT}::test_what_a_stop_string_cuts_off_has_no_entries_and_what_is_held_back_sends_them_later",
    ),
    Fault(
        what="a stream tells a token before its text",
        file="serving/answer_text.py",
        line="self._held[0].offset < self._said",
        becomes="self._held[0].offset <= self._said",
        tests=f"{TEXT}::test_a_character_of_several_tokens_has_their_entries_in_its_piece",
    ),
    Fault(
        what="a token's place in the text leaves the prompt out",
        file="serving/answer_text.py",
        line="self._known = self._said = len(before.text)",
        becomes="self._known = self._said = 0",
        tests=f"{TEXT}::test_without_repeating_it_the_prompt_counts_in_the_offsets",
    ),
    Fault(
        what="the presence penalty counts each time",
        file="serving/adjusting.py",
        line="less = times * sampling.frequency_penalty + sampling.presence_penalty",
        becomes="less = times * (sampling.frequency_penalty + sampling.presence_penalty)",
        tests=f"{DRAWING}::test_a_token_that_was_written_gets_less_likely_each_time_and_a_bias_is_added",
    ),
    Fault(
        what="penalties and biases are forgotten where the likeliest token is taken",
        file="serving/drawing.py",
        line="return self.sampling.temperature == 0 and not self.sampling.adjusts and",
        becomes="return self.sampling.temperature == 0 and",
        tests=f"{DRAWING}::test_a_token_that_was_written_gets_less_likely_each_time_and_a_bias_is_added",
    ),
)
