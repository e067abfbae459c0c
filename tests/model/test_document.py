"""docs/checkpoints.md: its table of names is the code's, and its two pieces of code do what it says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.shape import config
from sparsedial.shape.families import mistral
from sparsedial.shape.families.family import Family
from sparsedial.shape.rules import Rule
from sparsedial.shape.tensors import layer_parts, model_parts
from tests.model.shapes import FAMILIES as SHAPES
from tests.model.shapes import UNEQUAL, shaken
from tests.model.test_families import CLOSE, theirs_from

TEXT = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
SIZES = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", TEXT, re.MULTILINE))  # parts of names, and their sizes
DROPPING, MISTRAL = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ALL = [*SHAPES.values(), UNEQUAL, dataclasses.replace(SHAPES["olmoe"], attention_bias=True)]
IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


def test_the_table_has_every_part_with_its_size():
    seen = set()
    for shape in (dataclasses.replace(shape, mtp_layers=1) for shape in ALL):
        for number in (None, *range(shape.layers + 1)):
            parts = model_parts(shape) if number is None else layer_parts(shape, number)
            layer = {} if number is None else dataclasses.asdict(shape.layer(number))
            for part, size in parts.items():
                assert eval(f"{SIZES[part]},", {}, {**dataclasses.asdict(shape), **layer}) == size, part
            seen |= parts.keys()
    assert seen == SIZES.keys()


@pytest.mark.parametrize("cls", [Rule, Family])
def test_the_tables_have_every_field(cls):
    (table,) = re.findall(rf"\| field of a `{cls.__name__}` \|.*?\n\n", TEXT, re.DOTALL)
    rows = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    assert re.findall(r"`(\w+)`", "".join(rows)) == [field.name for field in dataclasses.fields(cls)]


def test_every_file_that_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    for link in links:
        assert (Path(__file__).parents[2] / "docs" / link).exists(), link


@torch.no_grad()
def test_its_code_drops_the_last_expert(tmp_path: Path):
    save_checkpoint(shaken(SHAPES["glm4_moe"]), tmp_path / "c")
    exec(DROPPING, {"folder": tmp_path / "c", "out": tmp_path / "d"})
    smaller = load(tmp_path / "d")
    assert smaller.shape == dataclasses.replace(SHAPES["glm4_moe"], experts=7)
    torch.testing.assert_close(smaller(IDS), theirs_from(tmp_path / "d")(IDS).logits, **CLOSE)


def test_its_family_is_the_one_in_the_code():
    code = (Path(mistral.__file__)).read_text()
    assert code[code.index("from sparsedial") :] == MISTRAL


def test_it_lists_every_family_that_is_read():
    (table,) = re.findall(r"\| `model_type` \|.*?\n\n", TEXT, re.DOTALL)
    rows = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(config.BY_MODEL_TYPE)
