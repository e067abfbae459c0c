"""A smaller share made from a larger one is the share that `select` makes at once."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.selection import reference
from sparsedial.selection.narrowing import narrowed
from sparsedial.text.manifest import MANIFEST, read_manifest
from tests.selection.planted import prose


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents of made-up prose; three come twice."""
    folder = tmp_path_factory.mktemp("narrowed") / "text"
    folder.mkdir()
    for at in range(60):
        (folder / f"{at:02}.txt").write_text(" ".join(prose(at, 150 + 20 * (at % 7))))
    for at in range(3):
        (folder / f"z{at}.txt").write_text((folder / f"{at:02}.txt").read_text())
    return folder


def manifest_of(text: Path, out: Path, **asked) -> polars.DataFrame:
    sparsedial.select(text, out=out, workers=1, device="cpu", **asked)
    return read_manifest(out / MANIFEST).collect()


@pytest.mark.parametrize("side", [None, "low", "middle", "high"])
def test_it_is_the_share_that_is_made_at_once(text, tmp_path, monkeypatch, side):
    for name, value in (("STEPS", 10), ("LEAST_STEPS", 10), ("SCORED_WINDOWS", 1), ("WIDTH", 12)):
        monkeypatch.setattr(reference, name, value)
    score = "random" if side is None else "reference-loss"
    asked = {"score": score, "side": side, "seed": 3}
    half, quarter = (manifest_of(text, tmp_path / f"{keep}", keep=keep, **asked) for keep in (0.5, 0.25))
    made = narrowed(half, share=0.25, score=score, seed=3, side=side)
    assert made.equals(quarter)
    assert 0.15 < made.filter(polars.col("kept") & (polars.col("split") == "train"))["bytes"].sum() / (
        half.filter(polars.col("split") == "train")["bytes"].sum()
    ) < 0.35  # fmt: skip


def test_held_out_documents_and_copies_stay_as_they_were(text, tmp_path):
    half = manifest_of(text, tmp_path / "half", keep=0.5)
    made = narrowed(half, share=0.1, score="random", seed=0, side=None)
    others = (polars.col("split") != "train") | ~polars.col("reason").fill_null("random").eq("random")
    assert half.filter(others).height > 0
    assert made.filter(others).equals(half.filter(others))
    kept = polars.col("kept") & (polars.col("split") == "train")
    assert set(made.filter(kept)["id"]) < set(half.filter(kept)["id"])
