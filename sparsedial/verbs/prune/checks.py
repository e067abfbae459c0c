"""What a method of `prune` can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from sparsedial.errors import UserError, require_known
from sparsedial.pruning.methods import METHODS, methods_of
from sparsedial.records.prune import RecoveryKind
from sparsedial.settings import given

NEED_MEMORY = ("speed", "max_loss_increase", "recover", "against", "tasks")  # settings that need all layers in memory


def check_method(method: str, budget: str, sequential: bool, pattern: str | None) -> None:
    """Raises: UserError for what a method of this name cannot be told."""
    how = METHODS[method]
    if budget not in how.budgets:
        others = [name for name in methods_of(how.part) if budget in METHODS[name].budgets]
        raise UserError(
            f"{method} has no scores by which layers could compete",
            hint=f"leave <budget> out{f', or choose {_or(others)}' if others else ''}",
            field="budget",
        )
    if sequential and (how.in_turn == "never" or budget == "global"):
        found = [name for name, one in METHODS.items() if one.in_turn != "never"]
        raise UserError(
            f"goes with {_or(found)} and the uniform budget, not with {method}, {budget}",
            field="sequential",
        )
    if pattern is not None and how.part != "weights":
        raise UserError(
            f"is for single weights, and {method} turns {how.part} off",
            hint=f"choose <method> {_or(methods_of('weights'))}, or leave <pattern> out",
            field="pattern",
        )


def check_recovery(recover: float | None, recover_by: str) -> None:
    """Raises: UserError for a way of learning that is not known, or one of which nothing is learned."""
    require_known(recover_by, get_args(RecoveryKind), "recover_by")
    if recover_by != "loss" and recover is None:
        raise UserError("without <recover> nothing is learned", field="recover_by")


def check_memory(needing: Sequence[str]) -> None:
    """Raises: UserError for given settings, which need all layers in memory."""
    for name in needing:
        raise UserError(f"goes without <{name}>, which needs the whole model in memory", field="layer_by_layer")


def check_alone(settings: Any, job: str) -> None:
    """Raises: UserError where more is asked for than a job which has no settings but where it reads and writes."""
    for name in given(settings):
        if name not in ("checkpoint", "out", job):
            raise UserError(f"goes without <{name}>: it does nothing else", field=job)


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
