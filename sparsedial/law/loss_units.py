"""Losses in other units than nats per token: bits, bits per byte, perplexity; told by a column's name or its values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.expressions import scaled
from sparsedial.law.literature import PUBLISHED
from sparsedial.law.table import Table

TYPICAL = "chinchilla/besiroglu"  # the law of a usual loss, to tell perplexities by
USUAL_TOKENS_PER_PARAMETER = 20.0
FAR_ABOVE = 2.5  # times the usual loss: more than any text, but less than a perplexity
FAR_BELOW = 0.5
NATS_PER_BIT = "0.693147"


@dataclass(frozen=True)
class Unit:
    """A unit of losses, the words of a column's name that tell it, and what makes it nats."""

    says: str
    words: tuple[frozenset[str], ...]  # a name holds all words of one of these
    convert: Callable[[str], str]
    then: str


def _logarithm(expression: str) -> str:
    return f"log({expression})"


def _nats(expression: str) -> str:
    return scaled(expression, f"*{NATS_PER_BIT}")


UNITS = (
    Unit(
        "bits per byte or character",
        tuple(
            frozenset(told.split())
            for told in (
                *("bpb", "bpc", "bitsperbyte", "bitsperchar", "bitperbyte", "bits byte", "bit byte", "bits bytes"),
                *("bits char", "bits character", "bit char", "bit character", "bits characters"),
            )
        ),
        _nats,
        "gives nats per byte; times the bytes per token of your tokenizer they are nats per token",
    ),
    Unit("bits", (frozenset({"bits"}), frozenset({"bit"}), frozenset({"bpt"})), _nats, "converts bits per token"),
    Unit(
        "perplexity",
        tuple(frozenset({word}) for word in ("ppl", "perplexity", "pplx", "perplexities")),
        _logarithm,
        "converts perplexities",
    ),
)
PERPLEXITY = UNITS[-1]


def require_nats(table: Table) -> None:
    """Refuse a column of losses that its name or its values show to be in another unit. Arithmetic is taken as it is.

    Raises: UserError that says how to convert it.
    """
    source = table.source("loss")
    name = re.sub(r"^number\((.*)\)$", r"\1", source).strip("`")
    if name not in table.words:
        return
    unit = _unit_of(name)
    if unit is not None:
        raise UserError(
            f"{table.path}: '{name}' looks like {unit.says}, and a law's loss is in nats per token",
            hint=f"{table.columns_hint({'loss': unit.convert(source)})} {unit.then}",
        )
    if _is_perplexity(table):
        middle = np.median(table.rows["loss"])
        raise UserError(
            f"{table.path}: '{name}' is {middle:.3g} in the median, more than models of this size have in nats per"
            " token, so it looks like perplexity",
            hint=f"{table.columns_hint({'loss': PERPLEXITY.convert(source)})} {PERPLEXITY.then}",
        )


def low_loss_note(table: Table) -> str | None:
    """A word on losses that are low for nats per token, as bits per byte are, and losses on code or answers."""
    usual = _usual(table)
    if (
        table.source("loss").strip("`") not in table.words
        or usual is None
        or np.median(table.rows["loss"] / usual) > FAR_BELOW
    ):
        return None
    return (
        f"the loss is {np.median(table.rows['loss']):.3g} in the median, low for nats per token of plain text: if it is"
        " in bits per byte, multiply it in <columns> by 0.693147 and by the bytes per token"
    )


def _unit_of(name: str) -> Unit | None:
    name = re.sub(r"\d+[-_ ]?bits?", "", name, flags=re.IGNORECASE)  # of weights, as in loss_8bit
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # evalBitsPerByte
    words = set(re.split(r"[\W_\d]+", apart.lower())) | set(re.split(r"[\W_\d]+", name.lower()))
    return next((unit for unit in UNITS if any(told <= words for told in unit.words)), None)


def _is_perplexity(table: Table) -> bool:
    """Whether losses are far above what such models have, and their logarithms are not."""
    usual, loss = _usual(table), table.rows["loss"]
    if usual is None or not (loss > 1).all():
        return False
    above, of_log = np.median(loss / usual), np.median(np.log(loss) / usual)
    return bool(above > FAR_ABOVE and abs(np.log(of_log)) < abs(np.log(above)))


def _usual(table: Table) -> np.ndarray | None:
    """The losses that dense models of these sizes and tokens have on web text, or None without sizes."""
    size = table.rows.get("active_parameters", table.rows.get("total_parameters"))
    if size is None:
        return None
    tokens = table.rows.get("tokens", USUAL_TOKENS_PER_PARAMETER * size)
    return PUBLISHED[TYPICAL].law.loss(total_parameters=size, tokens=tokens)
