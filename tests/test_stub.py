"""What an editor shows of the package."""

from __future__ import annotations

import inspect
import typing

import sparsedial
from sparsedial.records.plan import Plan
from sparsedial.verbs import VERBS
from tests.stub import STUB, stub


def test_the_stub_is_as_the_settings_are():
    assert STUB.read_text() == stub(), "run `python -m tests.stub`"


def test_dir_names_the_commands_and_nothing_that_was_only_imported():
    assert {name for name in dir(sparsedial) if not name.startswith("_")} == {*VERBS, "load", "lm_eval_model"}


def test_a_function_has_types_defaults_and_a_line_for_each_setting():
    found = inspect.signature(sparsedial.plan)
    assert found.return_annotation is Plan
    assert set(typing.get_args(found.parameters["seconds"].annotation)) == {str, float, type(None)}
    assert sparsedial.plan.__doc__ is not None
    assert "price: dollars per device-hour" in sparsedial.plan.__doc__
