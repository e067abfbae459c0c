"""Tiles are tuned outside any step: each kernel's candidates by a clock, which here is a table of times."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="installed without Triton")

import triton

from sparsedial.errors import UserError
from sparsedial.kernels import triton_sparse, triton_tiles, tuned
from sparsedial.kernels.triton_tiles import LARGE, NARROW, candidates
from sparsedial.records.record import write
from sparsedial.records.tiles import TilesFile
from sparsedial.runs import tuning
from sparsedial.runs.tuning import fastest
from tests.kernels.test_sparse import SHAPES, sparse_inputs


def test_the_fastest_candidate_of_each_kernel_is_kept_and_others_stay_as_they_are():
    asked = []

    def seconds_of(tiles):
        asked.append(tiles)
        assert sum(tiles[name] != own for name, own in LARGE[9].items()) <= 1
        return 1.0 + 0.1 * (tiles["down"] == NARROW) - 0.2 * (tiles["outer"] == NARROW)

    found, tried = fastest(LARGE[9], seconds_of)
    assert {name: tiles for name, (tiles, _) in found.items()} == {**LARGE[9], "outer": NARROW}
    assert found["outer"][1] == pytest.approx(0.8)
    assert tried + 1 == len(asked) <= 12
    assert all(tiles[name] in candidates(LARGE[9][name]) for tiles in asked for name in tiles)


@pytest.fixture
def card(monkeypatch):
    """A Hopper card that this process believes in; its tiles are read anew."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    tuned.tuned_tiles.cache_clear()
    yield
    tuned.tuned_tiles.cache_clear()


@pytest.mark.usefixtures("card")
def test_what_was_tuned_takes_the_tables_place_on_that_card_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "_layer", lambda _: lambda tiles: 2.0 - (tiles["down"] == NARROW))
    found = tuning.tune_here()
    assert found is not None
    monkeypatch.chdir(tmp_path)
    large = [torch.empty(size, device="meta", dtype=torch.bfloat16) for size in ((16384, 2048), (8, 1024, 2048))]
    small = [torch.empty(size, device="meta", dtype=torch.bfloat16) for size in ((64, 2048), (8, 1024, 2048))]
    chosen = [torch.empty(len(x), 2, device="meta") for x in (large[0], small[0])]
    for written, expected in (
        (None, LARGE[9]),
        (found, {**LARGE[9], "down": NARROW}),
        (TilesFile(gpu="A100", triton=found.triton, kernels=found.kernels, tried=1), LARGE[9]),
        (TilesFile(gpu=found.gpu, triton="0.0", kernels=found.kernels, tried=1), LARGE[9]),
    ):
        if written is not None:
            write(tmp_path / "tiles.json", written)
        tuned.tuned_tiles.cache_clear()
        assert triton_sparse._tiles(*large, chosen[0]) == expected
        assert triton_sparse._tiles(*small, chosen[1]) == triton_tiles.SMALL
    assert found.triton == triton.__version__
    monkeypatch.setenv("SPARSEDIAL_TILES", str(tmp_path / "elsewhere.json"))
    tuned.tuned_tiles.cache_clear()
    with pytest.raises(UserError, match="is no file"):
        triton_sparse._tiles(*large, chosen[0])


@pytest.mark.usefixtures("card")
def test_a_card_that_the_table_does_not_name_has_nothing_to_choose_from(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert tuning.tune_here() is None


def test_a_layer_runs_with_any_tiles():
    inputs = sparse_inputs(SHAPES[1])
    small, other = (triton_tiles.alike(triton_tiles.Tiles(16, columns, 16)) for columns in (16, 32))
    torch.testing.assert_close(
        triton_sparse.with_tiles(*inputs, None, small), triton_sparse.with_tiles(*inputs, None, other)
    )
