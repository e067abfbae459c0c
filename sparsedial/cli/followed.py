"""A command in a process that is not the first of several: it says nothing, since rank 0 says it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.exits import BAD_INPUT, DONE, FAILED, INTERRUPTED
from sparsedial.errors import RankLost, UserError
from sparsedial.records.run import Run
from sparsedial.runs.ranks.place import Place, find_place
from sparsedial.verbs import VERBS

STREAMS = (1, 2)


def place_of(words: list[str]) -> Place | None:
    """This process's place, where the command is one that several processes carry out and this is not the first.

    What is wrong with the place is said later.
    """
    with contextlib.suppress(UserError):
        place = find_place(os.environ) if words[:1] == ["train"] else None
        return place if place and place.rank else None
    return None


def followed(words: list[str], place: Place, say: Callable[[UserError], object]) -> int:
    """Carry out a command as a rank other than the first; returns the exit status.

    `say` is for a process that does not reach the others.
    """
    from sparsedial.runs.ranks.board import NotJoined
    from sparsedial.runs.ranks.gathering import refuse

    unreached = None
    with silenced():
        verb = VERBS[words[0]]
        try:
            request = read_arguments(verb, words[1:])
        except UserError as error:
            refuse(place, error)
            return BAD_INPUT
        if request.help is not None:
            return DONE
        try:
            result = verb.function(request.settings)
            return status_of(result)
        except NotJoined as error:
            unreached = error
        except UserError as error:
            return FAILED if isinstance(error, RankLost) else BAD_INPUT
        except KeyboardInterrupt:
            return INTERRUPTED
        except RuntimeError:  # a bug, of this rank or another: rank 0 has its trace
            return FAILED
    say(unreached)
    return BAD_INPUT


def status_of(result: object) -> int:
    """The exit status of an answer: a run that diverged has failed."""
    return FAILED if isinstance(result, Run) and not result.finished else DONE


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within it nothing that this process writes to its streams is seen, whoever writes it."""
    nowhere, kept = os.open(os.devnull, os.O_RDWR), [os.dup(number) for number in STREAMS]
    for number in STREAMS:
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        for number, stream in zip(STREAMS, kept, strict=True):
            os.dup2(stream, number)
            os.close(stream)
        os.close(nowhere)
