"""One way into settings."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.settings import file_names, fill, given, read_settings_file, setting


@dataclass(frozen=True, kw_only=True)
class Inner:
    layers: int = 2


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    share: float = 0.5
    counts: tuple[int, ...] = ()
    fast: bool = False
    file: Path = Path("a")
    inner: Inner = field(default_factory=Inner)


def test_values_are_converted_to_the_types_of_their_fields():
    got = fill(Outer, {"name": "a", "share": "0.25", "counts": "1,2", "fast": "yes", "inner": {"layers": "3"}}, "job")
    assert got == Outer(name="a", share=0.25, counts=(1, 2), fast=True, inner=Inner(layers=3))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nam": "a"}, "no setting named 'nam'"),
        ({}, "'name' is missing"),
        ({"name": "a", "share": "much"}, "'much' is not a number"),
        ({"name": "a", "counts": "1,2.5"}, "not a whole number"),
        ({"name": "a", "counts": "inf"}, "not a whole number"),
        ({"name": "a", "counts": "nan"}, "not a number"),
        ({"name": "a", "share": "nan"}, "not a number"),
        ({"name": "a", "counts": "1,,2"}, "an entry is empty"),
        ({"name": "a", "file": " "}, "file or folder is empty"),
        ({"name": "a", "fast": "perhaps"}, "neither true nor false"),
        ({"name": "a", "inner": {"layer": 3}}, "no setting named 'layer'"),
    ],
)
def test_a_wrong_setting_is_named(values, says):
    with pytest.raises(UserError, match=says):
        fill(Outer, values, "job")


def test_all_missing_settings_are_named_at_once():
    @dataclass(frozen=True, kw_only=True)
    class Sizes:
        layers: int
        heads: int
        d_ff: int = 0

    with pytest.raises(UserError, match="shape: 'layers', 'heads' are missing"):
        fill(Sizes, {"d_ff": "1"}, "shape")


@dataclass(frozen=True, kw_only=True)
class Some:
    name: str
    size: int = setting(3)
    parts: dict = setting(factory=dict)


def test_what_is_given_is_not_at_its_default():
    assert given(Some(name="a")) == ["name"]
    assert given(Some(name="a", size=3, parts={})) == ["name"]
    assert given(Some(name="a", size=4, parts={"b": 1})) == ["name", "size", "parts"]


def test_a_file_whose_name_has_a_comma_is_one_text_and_other_names_are_split(tmp_path: Path):
    whole = tmp_path / "a,b.txt"
    assert file_names(str(whole)) == (f"{tmp_path}/a", "b.txt")
    whole.write_text("x")
    assert file_names(str(whole)) == (str(whole),)
    assert file_names([whole, "c,d"]) == (str(whole), "c", "d")
    assert file_names(whole) == (str(whole),)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "time: 30m\n"), ("a.toml", 'time = "30m"\n')])
def test_settings_come_from_yaml_or_toml(tmp_path: Path, name, text):
    (tmp_path / name).write_text(text)
    assert read_settings_file(tmp_path / name) == {"time": "30m"}


def test_a_file_that_is_no_table_is_refused(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="not a table of names and values"):
        read_settings_file(tmp_path / "a.yaml")
