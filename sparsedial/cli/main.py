"""Parse, call the verb, print."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sparsedial import __version__
from sparsedial.cli.arguments import Request, read_arguments
from sparsedial.errors import UserError, nearest
from sparsedial.verbs import VERBS

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
GOES_ON = ("study", "train")  # commands that keep what they did when they are stopped


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the result on standard output, everything else on standard error.

    Returns 0 done, 1 where a training diverged, 2 bad input, 130 after Ctrl-C; our own bugs keep their traceback, which
    Python answers with 1.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(words)
    except UserError as error:
        print(f"error: {error.problem}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        kept = "the same command again goes on from what was kept" if words[0] in GOES_ON else "nothing was kept"
        print(f"stopped; {kept}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left (`| head`)
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
    request = read_arguments(VERBS[words[0]], words[1:])
    if request.help is not None:
        print(request.help)
        return DONE
    result = VERBS[words[0]].function(request.settings)
    _print(request, result)
    return FAILED if result.get("status") == "diverged" else DONE


def _print(request: Request, result: dict[str, Any]) -> None:
    if request.json:
        print(json.dumps(result, indent=1, allow_nan=False))
        return
    from sparsedial.cli.tables import TABLES

    print(TABLES[request.verb](result))
    sys.stdout.flush()


def overview() -> str:
    """The commands, a line each."""
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
            "`sparsedial COMMAND --help` explains one.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
