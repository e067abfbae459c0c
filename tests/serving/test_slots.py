"""What a new prompt takes over of what slots hold; without a model."""

from __future__ import annotations

from sparsedial.model.beginnings import LEAST_SHARED
from tests.serving.pretended import alone
from tests.serving.test_scheduler import pretended, prompt, writes_long

TEXT = prompt(60, 7)


def told(played, ids: list[int], tokens: int = 3, **how):
    """An answer that has ended."""
    answer = played.ask(ids, tokens, **how)
    played.run()
    assert played.ended[answer.number] == alone(ids, tokens, visits=how.get("visits"))
    return answer


def test_a_text_that_is_continued_stays_in_its_slot_and_only_the_rest_is_read():
    played = pretended(places=3)
    first = told(played, TEXT)
    second = told(played, [*first.ids, 5, 6, 7])
    assert second.cached == len(first.ids) - 1, "the last token was written and not read"
    assert second.cached + sum(turn.get(2, 0) for turn in played.pieces) == len(first.ids) + 3
    assert (second.slot, played.copied) == (first.slot, [])


def test_a_text_that_goes_another_way_gets_a_copy_and_the_first_one_stays():
    played = pretended(places=3)
    first = told(played, TEXT)
    other = told(played, [*TEXT[:50], *prompt(20, 1)])
    assert (other.cached, other.slot != first.slot) == (50, True)
    assert played.copied == [(first.slot, other.slot, 50)]
    assert told(played, first.ids).cached == len(first.ids) - 1


def test_the_slot_that_would_be_overwritten_anyway_is_taken_itself():
    played = pretended(places=1)
    told(played, TEXT)
    assert told(played, [*TEXT[:50], *prompt(20, 1)]).cached == 50
    assert played.copied == []


def test_at_least_the_last_id_is_read():
    played = pretended()
    told(played, TEXT)
    again = told(played, TEXT)
    assert again.cached == len(TEXT) - 1


def test_few_ids_are_read_again():
    played = pretended()
    told(played, TEXT)
    assert told(played, [*TEXT[: LEAST_SHARED - 1], *prompt(20, 1)]).cached == 0
    assert told(played, [*TEXT[:LEAST_SHARED], *prompt(20, 2)]).cached == LEAST_SHARED


def test_what_was_read_with_another_number_of_experts_is_not_taken():
    played = pretended(places=3)
    told(played, TEXT)
    assert told(played, TEXT, visits=(1, 2)).cached == 0
    assert told(played, TEXT, visits=(2, 1)).cached == 0
    assert told(played, TEXT, visits=(1, 2)).cached == len(TEXT) - 1


def test_a_slot_that_is_being_written_gives_its_beginning():
    played = pretended()
    first = played.ask(writes_long(40), 40)
    for _ in range(5):
        played.turn()
    second = played.ask([*first.ids[:43], 3, 4], 4)
    played.turn()
    assert (second.cached, len(played.copied)) == (43, 1)
    played.run()
    assert played.ended[1] == alone(writes_long(40), 40)


def test_of_prompts_that_arrive_together_one_reads_what_they_begin_with():
    played = pretended(places=4, piece=10)
    writer = played.ask(writes_long(), 40)
    played.turn()
    prompts = [TEXT, [*TEXT, 1, 2], [*TEXT, 3]]
    asked = [played.ask(ids, 3) for ids in prompts]
    played.run()
    assert asked[0].cached == 0
    assert all(len(TEXT) - (each.cached or 0) < LEAST_SHARED for each in asked[1:])
    expected = {each.number: alone(ids, 3) for each, ids in zip(asked, prompts, strict=True)}
    assert played.ended == {writer.number: alone(writes_long(), 40), **expected}


def test_where_the_one_that_reads_is_forgotten_the_next_one_reads_on():
    played = pretended(places=4, piece=10)
    played.ask(writes_long(), 40)
    played.turn()
    first, second = played.ask(TEXT, 3), played.ask(TEXT, 3)
    for _ in range(4):
        played.turn()
    assert (first.read, second.slot) == (40, None)
    played.scheduler.end(first)
    played.run()
    assert second.cached == 40
    assert played.ended[second.number] == alone(TEXT, 3)


def test_a_slot_that_failed_keeps_nothing():
    played = pretended()
    first = played.ask(TEXT, 9)
    played.turn()
    played.scheduler.end(first, keep=False)
    assert told(played, TEXT).cached == 0
