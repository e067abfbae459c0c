"""The questions of the dial page, answered from one law or from a published one that the page chose instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from sparsedial.errors import UserError, nearest
from sparsedial.law.law import Law
from sparsedial.law.literature import PUBLISHED
from sparsedial.machine.devices import DEVICES
from sparsedial.planning.costs import Costs
from sparsedial.planning.crossing import around, race
from sparsedial.planning.dial import positions
from sparsedial.planning.fitted import inside_flops
from sparsedial.records.dial import Choice, PageDial, PageRace, PageStart
from sparsedial.records.dial_file import DialFile
from sparsedial.records.plan import Plan
from sparsedial.records.record import Record
from sparsedial.settings import fill
from sparsedial.shape.shapes import Shapes
from sparsedial.showing.dial_words import ORIGIN, OWN, no_race, race_words, with_words
from sparsedial.showing.settings_words import page_settings
from sparsedial.units import bare_exponent, human_bytes
from sparsedial.verbs.plan.plan import BUDGETS, PlanSettings, plan
from sparsedial.verbs.plan.space import FoundLaw, find_law, space

NOT_FOR_PAGE = ("law", "out", "export")  # settings of a plan that a page may not set: they can name files
SETTINGS = tuple(field.name for field in fields(PlanSettings))
DEFAULT_STATE = {"flops": "1e21", "max_total_parameters": "30B", "device": "h100", "devices": "8", "price": "2.5"}

Ask = Callable[[Mapping[str, str]], Record]


def questions(
    law_name: str, begin: Mapping[str, str] | None = None, measured: DialFile | None = None
) -> dict[str, Ask]:
    """The questions that the page may ask, by name. Each takes the address's state: settings of `plan`.

    `begin` is the first state, `measured` the settings of the checkpoint that the page is opened for.
    """
    asked = Questions(law_name, begin, measured)
    return {"start": asked.start, "dial": asked.dial, "crossover": asked.crossover, "plan": asked.plan}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The law, the shapes and the costs that a question is about."""

    name: str
    settings: PlanSettings
    found: FoundLaw
    shapes: Shapes
    costs: Costs


class Questions:
    """Answers the page's questions from one law, or from a published law that the page chose instead."""

    def __init__(self, law_name: str, begin: Mapping[str, str] | None, measured: DialFile | None) -> None:
        self.law_name, self.begin, self.measured = law_name, begin, measured
        self._laws: dict[str, FoundLaw] = {law_name: find_law(law_name)}

    def start(self, state: Mapping[str, str]) -> PageStart:
        """What the page needs first: the laws and devices to choose from, and the first state."""
        found = self._laws[self.law_name]
        study = found.study is not None
        others = [] if study else [name for name in PUBLISHED if name != self.law_name]
        devices = [
            Choice(name=device.name, words=f"{device.name}, {human_bytes(device.memory_bytes)}")
            for device in DEVICES.values()
        ]
        return PageStart(
            law=self.law_name,
            laws=tuple(Choice(name=name, words=_law_words(name)) for name in (self.law_name, *others)),
            devices=tuple(devices),
            study=study,
            state=dict(self.begin or _first_state(found.law, study)),
            settings=self.measured and page_settings(self.measured),
        )

    def dial(self, state: Mapping[str, str]) -> PageDial:
        """Every position of the dial at a budget."""
        asked = self._parts(state)
        settings, found = asked.settings, asked.found
        answer = positions(found.law, asked.shapes, settings.budget, settings.constraints, asked.costs, found.misleads)
        return with_words(answer, asked.name, _law_words(asked.name), state)

    def crossover(self, state: Mapping[str, str]) -> PageRace:
        """The best sparse and the best dense loss over budgets around this one."""
        asked = self._parts(state)
        budget, found = asked.settings.budget, asked.found
        if budget.value is None:
            return no_race(budget.currency, "a target loss has no crossover")
        answer = race(
            found.law,
            asked.shapes,
            currency=budget.currency,
            budgets=around(budget.value),
            costs=asked.costs,
            constraints=asked.settings.constraints,
        )
        return race_words(answer)

    def plan(self, state: Mapping[str, str]) -> Plan:
        """The whole plan, as in `plan.json`."""
        name, settings = self._asked(state)
        return plan(replace(settings, law=name))

    def _asked(self, state: Mapping[str, str]) -> tuple[str, PlanSettings]:
        name = state.get("law", self.law_name)
        if name != self.law_name and name not in PUBLISHED:
            hint = nearest(name, PUBLISHED) or "choose one of the list"  # a page may not name a file
            raise UserError(f"no published law named '{name}'", hint=hint, field="law")
        values = {key: value for key, value in state.items() if value and key not in OWN}
        for key in values:
            if key in NOT_FOR_PAGE:
                raise UserError(f"'{key}' cannot be set on the page", field=key)
            if key not in SETTINGS:
                raise UserError(f"no setting named '{key}'", hint=nearest(key, SETTINGS), field=key)
        device = values.get("device")
        if device is not None and device not in DEVICES:
            raise UserError(f"no device named '{device}'", hint="choose one of the list", field="device")
        budgets = [f"<{name}>" for name in BUDGETS if name in values]
        if len(budgets) != 1:
            problem = f"{' and '.join(budgets)} contradict each other" if budgets else "no budget was given"
            raise UserError(problem, hint="empty all but one" if budgets else "write an amount, like 1e21")
        return name, fill(PlanSettings, values, ORIGIN)

    def _parts(self, state: Mapping[str, str]) -> _Parts:
        name, settings = self._asked(state)
        if name not in self._laws:
            self._laws[name] = find_law(name)
        found = self._laws[name]
        shapes, costs = space(settings, found)
        return _Parts(name=name, settings=settings, found=found, shapes=shapes, costs=costs)


def _first_state(law: Law, study: bool) -> dict[str, str]:
    """The first state of the page: a budget that the law was fitted on; for a study, the largest one."""
    if study:
        return {"flops": bare_exponent(f"{inside_flops(law, math.inf):.6g}")}
    return {**DEFAULT_STATE, "flops": bare_exponent(f"{inside_flops(law, float(DEFAULT_STATE['flops'])):.6g}")}


def _law_words(name: str) -> str:
    """A law's authors and year with its name; the name of a file or folder as it is."""
    return f"{PUBLISHED[name].source.partition(' (')[0]} ({name})" if name in PUBLISHED else name
