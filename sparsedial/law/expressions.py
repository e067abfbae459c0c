"""Expressions over the columns of a table: comparisons, arithmetic, some functions, and nothing else."""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.entries import as_numbers

Columns = Mapping[str, np.ndarray]
COMPARE: dict[type, Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
SIGNS: dict[type, Callable[..., Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
JOINS: dict[type, Callable[..., Any]] = {ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": np.log,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "number": as_numbers,
}
EXTREMES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "min": (np.nanmin, np.minimum),
    "max": (np.nanmax, np.maximum),
}
JOINING_WORDS = {"and", "or", "not"}
EXAMPLE = "write one like flops>1e12"
QUOTED = r"'[^']*'|\"[^\"]*\"|`[^`]*`"


def quoted(name: str) -> str:
    """A column's name as an expression, in backticks where it is no plain word."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"`{name}`"


def in_quotes(word: str) -> str:
    """A word as an expression."""
    return f'"{word}"' if "'" in word else f"'{word}'"


def scaled(expression: str, by: str) -> str:
    """An expression with something behind it, like `*1e6`, in brackets where it needs them."""
    return f"{expression}{by}" if re.fullmatch(r"\w+|`[^`]*`", expression) else f"({expression}){by}"


def assignments(text: Any, field: str, example: str = "loss=final_loss,tokens=D") -> dict[str, str]:
    """Names and what they are, from `a=b,c=d` or a table; a comma in brackets, quotes or backticks parts nothing.

    Raises: UserError, for the setting `field`, where one is cut short or given twice.
    """
    if isinstance(text, Mapping):
        return {str(name): str(given) for name, given in cast("Mapping[object, object]", text).items()}
    pairs: dict[str, str] = {}
    for item in _items(str(text)):
        name, equals, given = (part.strip() for part in item.partition("="))
        if not (equals and name and given):
            raise UserError(f"cannot read '{item}'", hint=f"write it like {example}", field=field)
        if name in pairs:
            raise UserError(f"'{name}' is given twice, as {pairs[name]} and as {given}", field=field)
        pairs[name] = given
    return pairs


def _items(text: str) -> list[str]:
    """What commas part, but for those in brackets, quotes or backticks."""
    items, depth = [""], 0
    for part in re.findall(rf"{QUOTED}|.", text, flags=re.DOTALL):
        depth = max(0, depth + (part == "(") - (part == ")"))
        if part == "," and not depth:
            items.append("")
        else:
            items[-1] += part
    return items


def matching(table: Columns, expression: str) -> np.ndarray:
    """Which rows an expression like `flops > 1e12 and sparsity == 0` picks.

    Raises: UserError for anything but comparisons, arithmetic, functions, and/or/not over the table's columns.
    """
    result = value(expression, table)
    size = len(next(iter(table.values())))
    if np.shape(result) != (size,) or np.asarray(result).dtype != bool:
        raise UserError(f"'{_short(expression)}' is not a condition on rows", hint=EXAMPLE)
    return np.asarray(result)


def value(expression: str, table: Columns) -> Any:
    """The value of an expression over columns; numbers are floats, since powers of integers could take for ever.

    A column's name that is no plain word may stand in backticks, and as it is where its meaning is clear.

    Raises: UserError for anything but comparisons, arithmetic and functions over the table's columns.
    """
    whole = expression.strip()
    if whole in table:
        return table[whole]
    reader = _Reader(table=table, expression=expression, standing={})
    try:
        with np.errstate(all="ignore"):  # what is no number is dropped or refused later
            return reader.evaluate(ast.parse(reader.plain().strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a null byte, before 3.11.4
        raise UserError(f"cannot read the expression '{_short(expression)}'", hint=_syntax_hint(reader)) from error
    except (TypeError, OverflowError) as error:
        raise UserError(
            f"'{_short(expression)}' mixes words and numbers, or holds a number too large",
            hint="number(NAME) reads a column with words as numbers, and skips the words",
        ) from error


def _short(expression: str) -> str:
    return expression if len(expression) <= 60 else f"{expression[:57]}…"


def _syntax_hint(reader: _Reader) -> str:
    if re.search(r"(?<![=<>!])=(?!=)", reader.expression):
        return "write == to compare"
    unclear = [name for name in reader.table if not name.isidentifier() and name not in reader.standing.values()]
    first = reader.expression.lower()
    meant = [name for name in unclear if name.lower() in first] or unclear
    return f"names that are no plain words stand in backticks, like `{meant[0]}`" if meant else EXAMPLE


@dataclass(frozen=True)
class _Reader:
    """One expression over one table."""

    table: Columns
    expression: str
    standing: dict[str, str]  # plain words that stand for names which are none

    def plain(self) -> str:
        """The expression as Python can parse it, with plain words for such names."""
        names = sorted(filter(_awkward, self.table), key=len, reverse=True)
        pattern = re.compile("|".join([QUOTED, *(_bounded(name) for name in names)]))
        return pattern.sub(self._plain_word, self.expression)

    def _plain_word(self, match: re.Match[str]) -> str:
        text = match[0]
        if text[0] in "'\"" and text not in self.table:
            return text
        name = text[1:-1] if text[0] == "`" and text not in self.table else text
        if name not in self.table:
            raise UserError(f"'{_short(self.expression)}': no column '{name}'", hint=nearest(name, self.table))
        if text == name and _reads_as_arithmetic(name, self.table):
            apart = re.sub(r"([-+*/])", r" \1 ", name)
            raise UserError(
                f"'{_short(self.expression)}': '{name}' is a column, and also arithmetic over columns",
                hint=f"write `{name}` in backticks for the column, or '{apart}' with spaces for the arithmetic",
            )
        word = f"__{len(self.standing)}"
        self.standing[word] = name
        return f" {word} "

    def column(self, word: str) -> np.ndarray:
        """The column that a plain word names."""
        name = self.standing.get(word, word)
        if name not in self.table:
            raise UserError(
                f"'{_short(self.expression)}': no column '{name}'",
                hint=nearest(name, self.table) or f"it has {', '.join(map(quoted, sorted(self.table)))}",
            )
        return self.table[name]

    def condition(self, node: ast.AST) -> Any:
        """The value of a part that must be a condition."""
        found = self.evaluate(node)
        if np.asarray(found).dtype != bool:
            raise UserError(
                f"'{_short(self.expression)}' combines something that is not a condition",
                hint="`&` and `|` need brackets: (flops>1e12) & (sparsity==0); or use and, or, not",
            )
        return found

    def evaluate(self, node: ast.AST) -> Any:
        """The value of a part."""
        if isinstance(node, ast.Name):
            return self.column(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return np.float64(node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce([self.condition(part) for part in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return np.logical_not(self.condition(node.operand))
        if isinstance(node, ast.UnaryOp) and type(node.op) in SIGNS:
            return SIGNS[type(node.op)](self.evaluate(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in JOINS:
            return JOINS[type(node.op)](self.condition(node.left), self.condition(node.right))
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return ARITHMETIC[type(node.op)](self.evaluate(node.left), self.evaluate(node.right))
        if isinstance(node, ast.Compare) and all(type(op) in COMPARE for op in node.ops):
            sides = [self.evaluate(side) for side in (node.left, *node.comparators)]
            parts = [COMPARE[type(op)](sides[index], sides[index + 1]) for index, op in enumerate(node.ops)]
            return np.logical_and.reduce(parts)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._called(node.func.id, [self.evaluate(part) for part in node.args])
        raise UserError(
            f"'{_short(self.expression)}' holds more than comparisons and arithmetic over columns",
            hint="write ** for a power" if "^" in self.expression else EXAMPLE,
        )

    def _called(self, name: str, given: list[Any]) -> Any:
        """A function's value; `min` and `max` of one column are its least and largest entry."""
        if name in FUNCTIONS and len(given) == 1:
            return FUNCTIONS[name](np.asarray(given[0]))
        if name in EXTREMES and len(given) in (1, 2):
            return EXTREMES[name][len(given) - 1](*given)
        known = (*FUNCTIONS, *EXTREMES)
        if name in known:
            count = "one value" if name in FUNCTIONS else "one or two values"
            raise UserError(f"'{_short(self.expression)}': {name}() takes {count}")
        raise UserError(
            f"'{_short(self.expression)}': no function '{name}'",
            hint=nearest(name, known) or f"there are {', '.join(known)}",
        )


def _awkward(name: str) -> bool:
    """Whether a name is no plain word, but is clear where it stands in an expression as it is."""
    if (name.isidentifier() and not keyword.iskeyword(name)) or name in JOINING_WORDS or "`" in name:
        return False
    try:
        float(name)
    except ValueError:
        return any(letter.isalpha() for letter in name)
    return False


def _bounded(name: str) -> str:
    """A pattern for a name that is no part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w$", name) else ""
    return before + re.escape(name) + after


def _reads_as_arithmetic(name: str, table: Iterable[str]) -> bool:
    """Whether a name like `a-b` can also be read as arithmetic over the table's columns."""
    try:
        parts = list(ast.walk(ast.parse(name, mode="eval")))
    except (SyntaxError, ValueError):
        return False
    plain = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Name, ast.Load, ast.Constant)
    words = {part.id for part in parts if isinstance(part, ast.Name)}
    return all(isinstance(part, plain) for part in parts) and len(words) > 0 and words <= set(table)
