"""Faults of the server of a checkpoint, as its clients see it."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="the beginning of a stop string is sent before the string is whole",
        file="serving/stopping.py",
        line="kept = max((_begun(text, string) for string in self._strings), default=0)",
        becomes="kept = 0",
        tests="tests/serving/test_app.py::test_a_stop_string_ends_an_answer_before_it_and_nothing_of_it_is_sent",
    ),
    Fault(
        what="of stop strings that come together the one that is named first counts",
        file="serving/stopping.py",
        line="return text[: min(ends)[1]]",
        becomes="return text[: ends[0][1]]",
        tests="tests/serving/test_stopping.py::"
        "test_of_several_strings_in_one_piece_the_one_that_is_complete_first_counts",
    ),
    Fault(
        what="the last chunk of a stream says nothing of what the answer took at its setting",
        file="serving/forms.py",
        line="return ChatChunk(**head.fields, choices=(), usage=usage)",
        becomes="return ChatChunk(**head.fields, choices=(), usage=None)",
        tests="tests/serving/test_app.py::test_a_stream_adds_up_to_the_whole_and_ends_with_its_usage",
    ),
    Fault(
        what="the usage of a stream's last chunk lacks the dial",
        file="serving/service.py",
        line="setting=setting.name,",
        becomes='setting="",',
        tests="tests/serving/test_app.py::test_a_stream_adds_up_to_the_whole_and_ends_with_its_usage",
    ),
    Fault(
        what="a field of the dial that nobody knows is ignored",
        file="serving/requests.py",
        line="if name in known:",
        becomes="if name in known or within:",
        tests="tests/serving/test_refusals.py::test_a_bad_field_is_named_and_nothing_is_written",
    ),
    Fault(
        what="parts of a dial are checked together only, so that an error names none of them",
        file="serving/dial.py",
        line="for key in given:  # each by itself, so that an error names it",
        becomes="for key in ():",
        tests="tests/serving/test_refusals.py::test_a_bad_field_is_named_and_nothing_is_written",
    ),
    Fault(
        what="a name of another site that leads to this machine gets answers",
        file="serving/door.py",
        line="if self.loopback and not _is_own(host):",
        becomes="if False:",
        tests="tests/serving/test_refusals.py::test_a_name_of_another_site_that_leads_here_gets_no_answer",
    ),
    Fault(
        what="any key opens the server",
        file="serving/door.py",
        line="hmac.compare_digest(key.strip().encode(), (self.key or",
        becomes="hmac.compare_digest(key.strip().encode(), (key.strip() or",
        tests="tests/serving/test_refusals.py::test_a_key_is_asked_for_everywhere_but_for_the_page_and_health",
    ),
    Fault(
        what="a client that left keeps its slot",
        file="serving/answers.py",
        line="self._engine.forget(answer.number)",
        becomes="pass",
        tests="tests/serving/test_leaving.py::test_a_client_that_leaves_frees_its_slots",
    ),
    Fault(
        what="a client that left before the first event of its stream keeps its slot",
        file="serving/app.py",
        line="            self._answers.forget()",
        becomes="            pass",
        tests="tests/serving/test_leaving.py::test_a_client_that_leaves_frees_its_slots",
    ),
    Fault(
        what="the server waits for an answer without looking whether its client is there",
        file="serving/app.py",
        line="await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)",
        becomes="await asyncio.wait({doing})",
        tests="tests/serving/test_leaving.py::test_a_client_that_leaves_frees_its_slots",
    ),
    Fault(
        what="several answers of one prompt are drawn with one seed",
        file="serving/service.py",
        line="seed=(seed + number) % SEEDS",
        becomes="seed=seed % SEEDS",
        tests="tests/serving/test_app.py::test_a_text_goes_on_and_each_prompt_has_its_own_answers",
    ),
    Fault(
        what="an answer that a stop string ended is forgotten, so nobody says what it took",
        file="serving/answers.py",
        line="self._engine.finish(answer.number)",
        becomes="self._engine.forget(answer.number)",
        tests="tests/serving/test_app.py::test_a_stop_string_ends_an_answer_before_it_and_nothing_of_it_is_sent",
    ),
    Fault(
        what="Ctrl-C waits for open answers and then cuts them off without a word",
        file="serving/listening.py",
        line="await asyncio.to_thread(self._ending)",
        becomes="pass",
        tests="tests/verbs/test_serve.py::"
        "test_a_served_checkpoint_answers_as_generate_does_and_ends_its_answers_with_ctrl_c",
    ),
    Fault(
        what="the memory of a server is that of one setting's cache",
        file="verbs/serve/served.py",
        line="return MOST_LANES * cached_values_per_token(",
        becomes="return cached_values_per_token(",
        tests="tests/verbs/test_serve.py::test_a_dry_run_counts_before_anything_is_loaded",
    ),
    Fault(
        what="the request that is shown lacks the key",
        file="verbs/serve/serve.py",
        line='if key else ""',
        becomes='if not key else ""',
        tests="tests/verbs/test_serve.py::test_the_request_that_is_shown_works_when_it_is_copied",
    ),
    Fault(
        what="a setting in the name of the model is ignored",
        file="serving/dial.py",
        line="        return setting\n",
        becomes="        return None\n",
        tests="tests/serving/test_app.py::test_the_engine_is_asked_for_what_the_request_says",
    ),
)
