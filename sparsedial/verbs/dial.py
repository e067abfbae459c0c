"""`dial`: the page on which one turns sparsity and sees loss, size, time, energy and money move."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import PUBLISHED, Published
from sparsedial.machine.devices import DEVICES
from sparsedial.planning.crossing import around, race
from sparsedial.planning.dial import positions
from sparsedial.planning.fitted import inside_flops
from sparsedial.settings import fill
from sparsedial.showing.dial_words import race_words, with_words
from sparsedial.verbs.origin import law_behind
from sparsedial.verbs.plan import DEFAULT_LAW, PlanSettings, find_law, plan, space

OURS = ("law", "out", "export")  # of the plan's settings: not for a page to set, since they are or name files
DEFAULT_STATE = {"flops": "1e21", "max_total_parameters": "30B", "device": "h100", "devices": "8", "price": "2.5"}


@dataclass(frozen=True, kw_only=True)
class DialSettings:
    """Which law the page asks, and where it is served."""

    law: str = field(
        default=DEFAULT_LAW,
        metadata={
            "positional": True,
            "nargs": "?",
            "help": "a published law, a law.json, a study's or a checkpoint's folder",
        },
    )
    port: int = field(default=8765, metadata={"metavar": "N", "help": "on this machine alone; 0 takes any free one"})
    open: bool = field(default=False, metadata={"help": "open it in the browser"})

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"dial: --port {self.port} lies outside 0..65535", hint="--port 0 takes any that is free")


def dial(settings: DialSettings) -> dict[str, Any]:
    """Serve the dial page until Ctrl-C.

    Raises: UserError for an unknown law, a port that is taken, or where the page's libraries are missing.
    """
    try:
        from sparsedial.showing.dial_server import serve
    except ModuleNotFoundError as error:
        raise UserError(f"dial: {error.name} is not installed", hint="pip install 'sparsedial[dial]'") from error
    asks = questions(*_asked_for(settings.law))

    def ready(address: str) -> None:
        print(f"the dial is at {address} until Ctrl-C", file=sys.stderr, flush=True)
        if settings.open:
            import webbrowser

            webbrowser.open(address)

    serve(asks, settings.port, ready)
    return {"served": True}


def _asked_for(word: str) -> tuple[str, dict[str, str] | None]:
    """The law, and the state to begin with: a checkpoint's own budget and sparsity on the law behind it."""
    path = Path(word)
    checkpoint = path.is_dir() and (path / "config.json").exists() and not (path / "law.json").exists()
    return law_behind(path) if checkpoint else (word, None)


def _first_state(law: Law, study: bool) -> dict[str, str]:
    """Where the page opens: at a budget that the law was fitted on, of a study the largest."""
    if study:
        return {"flops": f"{inside_flops(law, math.inf):.6g}"}
    return {**DEFAULT_STATE, "flops": f"{inside_flops(law, float(DEFAULT_STATE['flops'])):.6g}"}


def questions(law_name: str, begin: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the page may ask, by name; each takes the address bar's state, which reads like `plan`'s flags."""
    asked = Questions(law_name, begin)
    return {"start": asked.start, "dial": asked.dial, "crossover": asked.crossover, "plan": asked.plan}


class Questions:
    """The page's questions of a law, and of the published ones beside it."""

    def __init__(self, law_name: str, begin: Mapping[str, str] | None = None) -> None:
        self.law_name, self.begin = law_name, begin
        self._laws: dict[str, tuple[Law, Published | None, Path | None]] = {law_name: find_law(law_name)}

    def start(self, state: Mapping[str, str]) -> dict[str, Any]:
        """What the page needs to know before it asks: laws and devices to choose from, and where to begin."""
        law, _, folder = self._laws[self.law_name]
        study = folder is not None
        others = [] if study else [name for name in PUBLISHED if name != self.law_name]
        return {
            "law": self.law_name,
            "laws": [self.law_name, *others],
            "devices": list(DEVICES),
            "study": study,
            "state": self.begin or _first_state(law, study),
        }

    def dial(self, state: Mapping[str, str]) -> dict[str, Any]:
        """Every position of the dial at a budget."""
        name, settings, law, speaks, shapes, costs = self._parts(state)
        found = positions(law, shapes, settings.budget, settings.constraints, costs, speaks)
        return with_words(found, name, state)

    def crossover(self, state: Mapping[str, str]) -> dict[str, Any]:
        """Sparse and dense over budgets around this one."""
        _, settings, law, speaks, shapes, costs = self._parts(state)
        budget = settings.budget
        if budget.value is None:
            return race_words({"crossover": None, "crossover_reason": "a target loss has no crossover", "budgets": []})
        found = race(
            law,
            shapes,
            currency=budget.currency,
            budgets=around(budget.value),
            costs=costs,
            constraints=settings.constraints,
            speaks=speaks,
        )
        return race_words(found)

    def plan(self, state: Mapping[str, str]) -> dict[str, Any]:
        """The whole answer, as `plan.json` holds it."""
        name, settings = self._asked(state)
        return plan(replace(settings, law=name))

    def _asked(self, state: Mapping[str, str]) -> tuple[str, PlanSettings]:
        name = state.get("law", self.law_name)
        if name != self.law_name and name not in PUBLISHED:
            raise UserError(f"dial: no published law named '{name}'")  # a page names no file
        values = {key: value for key, value in state.items() if value and key not in ("law", "position")}
        for key in values:
            if key in OURS:
                raise UserError(f"dial: '{key}' is not set here")
        device = values.get("device")
        if device is not None and device not in DEVICES:
            raise UserError(f"dial: no device named '{device}'")
        return name, fill(PlanSettings, values, "dial")

    def _parts(self, state: Mapping[str, str]) -> tuple[str, PlanSettings, Law, Published | None, Any, Any]:
        name, settings = self._asked(state)
        if name not in self._laws:
            self._laws[name] = find_law(name)
        law, speaks, study = self._laws[name]
        return name, settings, law, speaks, *space(settings, study)
