"""The reference model's loss tells documents apart, by windows of their own, and its cost is counted."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import polars
import pytest
import torch

import sparsedial
from sparsedial.errors import UserError
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.transformer import initialise
from sparsedial.selection import reference
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.text.manifest import read_manifest
from sparsedial.text.prepare import Text, prepare

CONTEXT = reference.CONTEXT


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety documents of a few words again and again, and thirty of random letters."""
    folder = tmp_path_factory.mktemp("mixed") / "text"
    folder.mkdir()
    for number in range(120):
        draw = random.Random(number)
        easy = " ".join(draw.choices(["the", "ship", "came", "home", "again"], k=300))
        hard = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=1500))
        name, text = ("hard", hard) if number % 4 == 0 else ("easy", easy)
        (folder / f"{name}{number:03}.txt").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference model of a few seconds."""
    monkeypatch.setattr(reference, "STEPS", 60)


def test_random_letters_have_the_highest_loss(mixed, tmp_path):
    answers = {
        side: sparsedial.select(mixed, out=tmp_path / side, keep=0.5, score="reference-loss", side=side, workers=1)
        for side in ("low", "high")
    }
    rows = {side: read_manifest(tmp_path / side / "documents.parquet").collect() for side in answers}
    hard = polars.col("id").str.starts_with("hard")
    for side, wanted in (("low", 0), ("high", 1)):
        train = rows[side].filter(polars.col("split") == "train")
        assert train.filter(hard)["loss"].min() > train.filter(~hard)["loss"].max()
        kept = train.filter(hard)["kept"]
        assert kept.all() if wanted else not kept.any()
        assert set(train["reason"].drop_nulls()) == {"reference-loss"}
        assert answers[side].side == side
    held_out = rows["low"].filter(polars.col("split") != "train")
    assert held_out["loss"].is_null().all()
    assert held_out["kept"].all()


def test_the_page_shows_the_documents_nearest_to_the_edge(mixed, tmp_path):
    sparsedial.select(mixed, out=tmp_path / "kept", keep=0.5, score="reference-loss", side="high", workers=1)
    page = (tmp_path / "kept" / "examples.html").read_text()
    section = page.partition('id="reference-loss"')[2].partition("<h2")[0]
    left_out, stays = (
        sorted(float(value) for value in re.findall(r"It measures ([\d.]+)\.", part))
        for part in section.partition("<h3>Stay</h3>")[::2]
    )
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").filter(polars.col("split") == "train").collect()
    for shown, losses in (
        (left_out, rows.filter(reason="reference-loss")["loss"].sort()[-5:]),
        (stays, rows.filter("kept")["loss"].sort()[:5]),
    ):
        assert shown == pytest.approx(losses.to_list(), rel=1e-3)


def test_the_cost_is_counted(mixed, tmp_path):
    answer = sparsedial.select(mixed, out=tmp_path / "kept", keep=0.5, score="reference-loss", workers=1)
    model = answer.reference
    assert model is not None
    assert answer.side == "low"
    assert model.tokens == 60 * reference.BATCH * CONTEXT
    assert model.training_flops == model.tokens * training_flops_per_token(model.shape, CONTEXT)
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").collect()
    assert model.documents_scored == rows.filter(polars.col("split") == "train").height
    assert 3 * model.scoring_flops >= model.tokens_scored * training_flops_per_token(model.shape, CONTEXT)
    assert model.flops == model.training_flops + model.scoring_flops
    assert model.seconds > 0
    assert not [path for path in (tmp_path / "kept").iterdir() if path.is_dir()], "the model's files are gone"


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """Documents of all lengths around one and several windows."""
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "text").mkdir()
    sizes = [1, 2, CONTEXT - 2, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT + 5, 10 * CONTEXT, *[400] * 70]
    for number, size in enumerate(sizes):
        text = "".join(random.Random(number).choices("abcdef", k=size))
        (folder / "text" / f"{number:02}.txt").write_text(text)
    return prepare((str(folder / "text"),), folder=folder / "prepared")


def test_windows_belong_to_their_document(lengths):
    windows = reference._windows(lengths)
    rows = lengths.manifest.filter(polars.col("split") == "train").collect()
    assert set(windows.documents_W) == set(range(rows.height))
    for at, (first, tokens) in enumerate(rows.select("first_token", "tokens").iter_rows()):
        mine = windows.documents_W == at
        begins, scored = windows.starts_W[mine], windows.scored_W[mine]
        assert len(begins) == min(reference.SCORED_WINDOWS, max(1, tokens // CONTEXT))
        assert begins[0] == first - 1, "the token before the document is only read"
        assert (np.diff(begins) >= CONTEXT).all(), "no token is scored twice"
        assert (begins + scored <= first + tokens).all(), "the end token is the last that is scored"
        assert (scored >= 1).all()


def test_a_document_s_loss_is_the_mean_over_its_scored_tokens(lengths):
    model = initialise(Ladder(vocab_size=lengths.tokenizer.vocab_size, context=CONTEXT).shape(12, 0), 0)
    scorer, windows = Scorer(model), reference._windows(lengths)
    found = reference._means(scorer, lengths, windows)
    tokens = lengths.tokens("train")
    for at in range(len(found)):
        nats = []
        for begin, scored in zip(
            windows.starts_W[windows.documents_W == at], windows.scored_W[windows.documents_W == at], strict=True
        ):
            ids = torch.from_numpy(tokens[begin : begin + scored + 1].astype(np.int64))
            nats.append(scorer.losses(ids.unsqueeze(0), int(scored))[1].flatten())
        assert found[at] == pytest.approx(float(torch.cat(nats).double().mean()), rel=1e-4)


def test_a_text_too_small_for_a_reference_model_is_refused(tmp_path):
    (tmp_path / "text").mkdir()
    for number in range(60):
        (tmp_path / "text" / f"{number}.txt").write_text("".join(random.Random(number).choices("abc ", k=300)))
    with pytest.raises(UserError, match="train tokens are too few for a reference model"):
        sparsedial.select(tmp_path / "text", out=tmp_path / "kept", keep=0.5, score="reference-loss")
    assert not (tmp_path / "kept").exists()
