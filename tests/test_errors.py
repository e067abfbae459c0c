"""The user's error: its fields as Python and as the command line spell them, in this process and across two."""

from __future__ import annotations

import pickle

import pytest

from sparsedial.errors import UserError, about


def test_marked_fields_are_flags_on_the_command_line_alone():
    error = UserError("7 is too many for <max_experts>", hint="give a larger <recipe.batch>", field="top_k")
    assert (error.problem, error.hint) == ("7 is too many for max_experts", "give a larger recipe.batch")
    assert error.on_command_line() == (
        "--top-k: 7 is too many for --max-experts",
        "give a larger --recipe.batch",
    )


def test_an_error_crosses_to_another_process_whole():
    error = UserError("too little memory", hint="a bound on <max_total_parameters>", field="memory")
    assert pickle.loads(pickle.dumps(error)).on_command_line() == error.on_command_line()


def test_an_error_about_a_setting_names_it_once():
    with pytest.raises(UserError) as bare, about("setting"):
        raise UserError("k=9 is too many for <max_experts>", hint="fewer")
    assert bare.value.on_command_line() == ("--setting: k=9 is too many for --max-experts", "fewer")
    with pytest.raises(UserError) as named, about("setting"):
        raise UserError("is not there", field="text")
    assert named.value.field == "text"
