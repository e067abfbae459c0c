"""What `prune --compare` is asked for: methods and shares, and beside them the random choices, the control."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from sparsedial.errors import UserError
from sparsedial.pruning.methods import DEFAULT, METHODS, Ask, PartName, methods_of
from sparsedial.verbs.prune.settings import PruneSettings

EXAMPLE = "like `--compare reap,frequency --strengths .75,.5`"
NAMED = {"method": "compare", "keep": "strengths"}  # settings of a single choice, as a comparison calls them


def asks_of(settings: PruneSettings) -> tuple[Ask, ...]:
    """Each method at each share, and at each share the random choice of every part that they turn off.

    Raises: UserError for what a comparison cannot have, or a method or a share that cannot be.
    """
    single = {
        name: getattr(settings, name) for name in (*settings.targets, "recover", "against", "tasks", "layer_by_layer")
    }
    single["method"] = settings.method != DEFAULT
    for name, value in single.items():
        if value:
            raise UserError(f"goes without <{name}>: it keeps no checkpoint", hint=EXAMPLE, field="compare")
    if not settings.strengths:
        raise UserError("prune: 'strengths' is missing", hint=EXAMPLE)
    with in_words_of_a_comparison():
        asked = [
            replace(settings, compare=(), strengths=(), method=name, keep=share).ask
            for name in dict.fromkeys(settings.compare)
            for share in dict.fromkeys(settings.strengths)
        ]
    methods = {ask.method for ask in asked}
    parts: dict[PartName, None] = dict.fromkeys(ask.how.part for ask in asked)
    drawn = [name for part in parts for name in methods_of(part) if METHODS[name].drawn]
    controls = [
        replace(asked[0], method=name, keep=share, sequential=False)
        for name in drawn
        if name not in methods
        for share in dict.fromkeys(settings.strengths)
    ]
    return (*asked, *controls)


@contextlib.contextmanager
def in_words_of_a_comparison() -> Iterator[None]:
    """Errors within it name settings of a single choice; they leave it with those of a comparison."""
    try:
        yield
    except UserError as error:
        problem, hint = (text and _renamed(text) for text in error.marked)
        field = None if error.field is None else NAMED.get(error.field, error.field)
        raise UserError(problem or "", hint, field) from error


def _renamed(text: str) -> str:
    for one, other in NAMED.items():
        text = text.replace(f"<{one}>", f"<{other}>")
    return text
