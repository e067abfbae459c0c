"""Parse, call the verb, print."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from sparsedial import __version__
from sparsedial.cli.arguments import Request, read_arguments
from sparsedial.cli.exits import BAD_INPUT, DONE, FAILED, INTERRUPTED
from sparsedial.cli.followed import followed, place_of, status_of
from sparsedial.cli.streams import drop_output, print_answer, print_note, print_part, settle_streams
from sparsedial.errors import AGAIN, RankLost, UserError, nearest
from sparsedial.records.record import Record, plain
from sparsedial.units import human_bytes
from sparsedial.verbs import VERBS

KEPT = {  # of a stopped command's work; of `prune` and `evaluate` the Ctrl-C says it
    "study": AGAIN,
    "train": AGAIN,
    "select": AGAIN,
    "join": "the study goes on without these workers",
    "generate": "what was written is all there is",
    "dial": "the page is closed",
    "serve": "the server is closed",
}
NO_TEMPORARY = "No usable temporary directory"
# As PyTorch says it of a CPU, and as a worker's traceback says it of a compiled kernel.
NO_MEMORY = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes|^MemoryError\b", re.MULTILINE)
ONE_RANK = re.compile(r"rank \d+ on \S+(?= failed)")  # at the beginning of another rank's trace
LESS_MEMORY = {"prune": "add <layer_by_layer>, which holds one layer at a time"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The result goes to standard output, everything else to standard error.

    Returns 0 when done, 1 where a training run diverged, 2 for bad input, 130 after Ctrl-C. Our own bugs keep their
    traceback, and Python then exits with 1. An answer that cannot be printed is 1 too.
    """
    words = sys.argv[1:] if arguments is None else arguments
    settle_streams()
    if (place := place_of(words)) is not None:
        return followed(words, place, lambda error: _failed(error, BAD_INPUT))
    try:
        return _answered(words)
    except KeyboardInterrupt as stop:
        print_note(f"stopped; {_kept(words, stop) or 'nothing was kept'}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output closed it (`| head`)
        drop_output()
        return FAILED


def _kept(words: list[str], stop: KeyboardInterrupt) -> str | None:
    """What is kept of a stopped command's work, in words; None for nothing."""
    verb, notes = words[0] if words else "", getattr(stop, "__notes__", [])
    if notes or "--dry-run" in words:
        return notes[-1] if notes else None
    if "--measure" in words:
        return AGAIN if verb == "select" else None
    return KEPT.get(verb)


def _answered(words: list[str]) -> int:
    try:
        text, status, note = _run(words)
    except UserError as error:
        return _failed(error, FAILED if isinstance(error, RankLost) else BAD_INPUT)
    except FileNotFoundError as error:  # of `tempfile`, which some packages ask for when they are imported
        if NO_TEMPORARY not in str(error):
            raise
        problem = f"cannot write a temporary file: {error.strerror}"
        return _failed(UserError(problem, hint="free some space, or name another folder in TMPDIR"), BAD_INPUT)
    except (RuntimeError, MemoryError) as error:
        missing = NO_MEMORY.search(str(error))
        if missing is None and not isinstance(error, MemoryError):
            raise
        more = f"{human_bytes(int(missing[1]))} more" if missing and missing[1] else "what the next step takes"
        where = ONE_RANK.match(str(error))
        problem = f"{f'{where[0]}: ' if where else ''}memory ran out: {more} could not be had"
        hint = LESS_MEMORY.get(words[0], "close other programs, or choose a smaller model, batch or context")
        return _failed(UserError(problem, hint=hint), BAD_INPUT)
    try:
        print_answer(text)
    except UserError as error:
        return _failed(error, FAILED)
    print_note(*note)
    return status


def _failed(error: UserError, status: int) -> int:
    problem, hint = error.on_command_line()
    print_note(f"error: {problem}", *([f"hint: {hint}"] if hint else []))
    return status


def _run(words: list[str]) -> tuple[str, int, list[str]]:
    """What a command prints, its exit status, and lines about a text that was written as it came."""
    if not words or words[0] in ("-h", "--help", "help"):
        return overview(), DONE, []
    if words[0] in ("-V", "--version") or words[1:] == ["--version"]:
        return f"sparsedial {__version__}", DONE, []
    if words[0] not in VERBS:
        raise UserError(
            f"no command named '{words[0]}'", hint=nearest(words[0], VERBS) or "`sparsedial --help` lists them"
        )
    verb = VERBS[words[0]]
    request = read_arguments(verb, words[1:])
    if request.help is not None:
        return request.help, DONE, []
    result = verb.function(request.settings, *([print_part] if verb.streams and not request.json else []))
    return _text(request, result), status_of(result), _note(request, result) if verb.streams else []


def _text(request: Request, result: Record) -> str:
    if request.json:
        return json.dumps(plain(result), indent=1, allow_nan=False)
    from sparsedial.cli.tables import table_of

    return table_of(result)


def _note(request: Request, result: Any) -> list[str]:
    if request.json:
        return []
    from sparsedial.cli.tables import generate_note

    return [generate_note(result)]


def overview() -> str:
    """The commands, one per line."""
    width = max(map(len, VERBS))
    lines = [f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS.values()]
    return "\n".join(
        [
            "usage: sparsedial COMMAND …",
            "",
            "Find the sparsity of a language model that is best for your budget, by measurement.",
            "",
            *lines,
            "",
            "`sparsedial COMMAND --help` explains a command, `sparsedial --version` prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
