"""Parse, call the verb, print."""

from __future__ import annotations

import json
import os
import sys

from sparsedial import __version__
from sparsedial.cli.arguments import Request, read_arguments
from sparsedial.errors import UserError, nearest
from sparsedial.records.record import Record, plain
from sparsedial.records.run import Run
from sparsedial.verbs import VERBS

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
AGAIN = "run the same command again to continue"
KEPT = {"study": AGAIN, "train": AGAIN, "generate": "what was written is all there is"}  # of a stopped command's work


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The result goes to standard output, everything else to standard error.

    Returns 0 when done, 1 where a training run diverged, 2 for bad input, 130 after Ctrl-C. Our own bugs keep their
    traceback, and Python then exits with 1.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(words)
    except UserError as error:
        problem, hint = error.on_command_line()
        print(f"error: {problem}", file=sys.stderr)
        if hint:
            print(f"hint: {hint}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"stopped; {KEPT.get(words[0], 'nothing was kept')}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE
    if words[0] in ("-V", "--version"):
        print(f"sparsedial {__version__}")
        return DONE
    if words[0] not in VERBS:
        raise UserError(
            f"no command named '{words[0]}'", hint=nearest(words[0], VERBS) or "`sparsedial --help` lists them"
        )
    verb = VERBS[words[0]]
    request = read_arguments(verb, words[1:])
    if request.help is not None:
        print(request.help)
        return DONE
    result = verb.function(request.settings, *([_say] if verb.streams and not request.json else []))
    _print(request, result)
    return FAILED if isinstance(result, Run) and not result.finished else DONE


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _print(request: Request, result: Record) -> None:
    if request.json:
        print(json.dumps(plain(result), indent=1, allow_nan=False))
        return
    from sparsedial.cli.tables import table_of

    print(table_of(result))
    sys.stdout.flush()


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
            "`sparsedial COMMAND --help` explains a command.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
