"""Faults of the page on which one talks with a served checkpoint."""

from __future__ import annotations

from tests.faults.fault import Fault

PAGE, FAULTY = "tests/showing/test_chat_page.py", "tests/showing/test_chat_faults.py"
BESIDE = f"{PAGE}::test_asking_again_puts_two_answers_beside_each_other_with_their_difference"

FAULTS = (
    Fault(
        what="the dial begins at the fewest parameters",
        file="showing/assets/chat_dial.js",
        line="other.dial.active_parameters - one.dial.active_parameters",
        becomes="one.dial.active_parameters - other.dial.active_parameters",
        tests=f"{PAGE}::test_the_dial_has_a_stop_for_each_setting_from_all_parameters_to_the_fewest",
    ),
    Fault(
        what="a message is asked again with other chance",
        file="showing/assets/chat.js",
        line="seed: turn.seed,",
        becomes="seed: Math.floor(Math.random() * 2 ** 31),",
        tests=BESIDE,
    ),
    Fault(
        what="the page takes a half word for one that two answers share",
        file="showing/assets/chat_compare.js",
        line="return first.slice(0, end).search(/\\S*$/);",
        becomes="return end;",
        tests=BESIDE,
    ),
    Fault(
        what="the reading of the prompt counts as writing",
        file="showing/assets/chat_compare.js",
        line="(tokens - 1) / ((last - first) / 1000)",
        becomes="tokens / usage.dial.seconds",
        tests=f"{PAGE}::test_an_answer_streams_and_what_it_took_stands_under_it",
    ),
    Fault(
        what="an answer is shown when it is complete",
        file="showing/assets/chat.js",
        line="following(() => { receive(answer, part); drawTexts(turn); });",
        becomes="receive(answer, part);",
        tests=f"{PAGE}::test_an_answer_streams_and_what_it_took_stands_under_it",
    ),
    Fault(
        what="a stopped answer goes on being written",
        file="showing/assets/chat_server.js",
        line='{ method: "POST", signal,',
        becomes='{ method: "POST",',
        tests=f"{PAGE}::test_stopping_keeps_what_was_written_and_ends_the_request",
    ),
    Fault(
        what="a chat goes on from its newest answer, whichever is chosen",
        file="showing/assets/chat_turn.js",
        line="picked ?? answers.findLast",
        becomes="answers.findLast",
        tests=f"{PAGE}::test_the_chat_goes_on_from_the_answer_that_is_chosen",
    ),
    Fault(
        what="what a model writes is read as markup",
        file="showing/assets/chat_answer.js",
        line="parts.own.textContent = text.slice(same);",
        becomes="parts.own.innerHTML = text.slice(same);",
        tests=f"{FAULTY}::test_text_of_the_model_and_of_the_user_is_text",
    ),
    Fault(
        what="an answer that broke off passes for a whole one",
        file="showing/assets/chat_server.js",
        line='throw new Problem("The answer broke off: the server ended it early.");',
        becomes="return;",
        tests=f"{FAULTY}::test_a_fault_is_one_line_with_a_way_on",
    ),
    Fault(
        what="a key that was given is not sent",
        file="showing/assets/chat_server.js",
        line="return hasKey() ?",
        becomes="return false ?",
        tests=f"{FAULTY}::test_a_key_is_asked_for_once_and_kept_in_the_tab",
    ),
)
