"""Expressions over the columns of a table."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.law.expressions import assignments, matching, value

TABLE = {"flops": np.array([1e11, 1e12, 1e12]), "sparsity": np.array([0.0, 0.0, 0.75])}


@pytest.mark.parametrize(
    ("expression", "picked"),
    [
        ("flops > 1e11", [False, True, True]),
        ("flops > 1e11 and sparsity == 0", [False, True, False]),
        ("not (sparsity > 0.5) or flops < 2", [True, True, False]),
        ("1e10 < flops < 5 * 1e11", [True, False, False]),
    ],
)
def test_an_expression_picks_rows(expression, picked):
    assert matching(TABLE, expression).tolist() == picked


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('x')",
        "flops",
        "flop > 1",
        "flops >",
        "flops.max() > 1",
        "[1]",
        "1 > 0",
        "not flops",
        "flops and sparsity > 1",
        "flops > 'x'",
        "'x' * 10**9 == flops",
        "flops > x\x00",
        "(lambda: 1)()",
        "-" * 5000 + "flops > 1",
        "flops > " + "1+" * 3000 + "1",
    ],
)
def test_anything_but_a_condition_on_columns_is_refused(expression):
    with pytest.raises(UserError):
        matching(TABLE, expression)


def test_a_tower_of_powers_takes_no_time():
    """As whole numbers it would run for hours."""
    assert matching(TABLE, "flops < 9**9**9**9").tolist() == [True, True, True]


AWKWARD = {
    "Training FLOP": np.array([6e18, 1.2e19]),
    "Model Size": np.array([1e8, 2e8]),
    "val/loss": np.array([3.0, 2.5]),
    "lambda": np.array([1.0, 2.0]),
    "Loss (nats, mean)": np.array([3.0, 2.5]),
    "2nd": np.array([5.0, 7.0]),
    "router": np.array(["Hash", "S-Base"]),
    "mixed": np.array(["1.5", "diverged"]),
    "1": np.array([8.0, 9.0]),
    "": np.array([0.0, 1.0]),
}


@pytest.mark.parametrize(
    ("expression", "gives"),
    [
        ("Training FLOP/(6*Model Size)", [1e10, 1e10]),
        ("`Training FLOP` / (6 * `Model Size`)", [1e10, 1e10]),
        ("val/loss", [3.0, 2.5]),
        ("exp(val/loss)", [np.exp(3.0), np.exp(2.5)]),
        ("log(exp(val/loss))", [3.0, 2.5]),
        ("val/loss*2", [6.0, 5.0]),
        ("lambda + 1", [2.0, 3.0]),
        ("Loss (nats, mean)*1", [3.0, 2.5]),
        ("2nd - 1*2", [3.0, 5.0]),
        ("+`1`", [8.0, 9.0]),
        ("10**log10(lambda)", [1.0, 2.0]),
        ("sqrt(lambda**2) + abs(-lambda)", [2.0, 4.0]),
        ("max(lambda, 1.5)", [1.5, 2.0]),
        ("lambda / max(lambda)", [0.5, 1.0]),
    ],
)
def test_names_that_are_no_plain_words_stand_in_arithmetic(expression, gives):
    assert value(expression, AWKWARD) == pytest.approx(gives)


def test_a_word_in_quotes_is_a_word_and_no_column():
    assert matching(AWKWARD, "router == 'S-Base'").tolist() == [False, True]
    assert matching({**AWKWARD, "S-Base": np.zeros(2)}, "router == 'S-Base'").tolist() == [False, True]


def test_a_column_with_words_is_read_as_numbers_where_that_is_asked_for():
    assert matching(AWKWARD, "number(mixed) > 1").tolist() == [True, False]
    with pytest.raises(UserError, match="mixes words and numbers") as error:
        matching(AWKWARD, "mixed > 1")
    assert "number(NAME)" in str(error.value.hint)


@pytest.mark.parametrize(
    ("expression", "says", "hint"),
    [
        ("Training FLOP/(6*Model size)", "cannot read", "`Model Size`"),
        ("`Model size`*6", "no column 'Model size'", "Model Size"),
        ("router = 'Hash'", "cannot read", "=="),
        ("lambda^2 > 1", "more than comparisons", r"\*\*"),
        ("logg(lambda)", "no function 'logg'", "log"),
        ("log(lambda, 2)", "takes one value", None),
        ("a-b + 1", "'a-b' is a column, and also arithmetic", "`a-b` in backticks"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_way_out(expression, says, hint):
    table = {**AWKWARD, "a": np.ones(2), "b": np.ones(2), "a-b": np.zeros(2)}
    with pytest.raises(UserError, match=says) as error:
        value(expression, table)
    assert (hint or "").replace("\\", "") in str(error.value.hint or "")


def test_a_name_that_reads_as_arithmetic_is_what_one_says_it_is():
    table = {"a": np.array([3.0]), "b": np.array([1.0]), "a-b": np.array([7.0])}
    assert value("`a-b` + 1", table).tolist() == [8.0]
    assert value("a - b + 1", table).tolist() == [3.0]
    assert value("a-b", table).tolist() == [7.0]  # the whole is a column's name


def test_commas_in_brackets_and_backticks_part_no_assignments():
    assert assignments("loss=max(a,b), tokens=`D, all`,n=N", "columns") == {
        "loss": "max(a,b)",
        "tokens": "`D, all`",
        "n": "N",
    }
    with pytest.raises(UserError, match="cannot read"):
        assignments("(" * 5000, "columns")
