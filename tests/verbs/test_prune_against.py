"""`prune --against` as a user runs it: a checkpoint of `train`, and a study of the same text with its law."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.checkpoint import load
from sparsedial.model.turned import at_setting
from sparsedial.records.prune import Pruned
from sparsedial.records.record import read, write
from sparsedial.records.study import Study
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.turned import Turned
from sparsedial.text.prepare import open_text
from sparsedial.text.windows import evaluation_windows
from sparsedial.verbs.prune import against_text
from sparsedial.verbs.prune.against import opened_study
from sparsedial.verbs.prune.choice import opened
from sparsedial.verbs.prune.settings import PruneSettings
from tests.records.held import of_file
from tests.showing.synthetic import spread_law, study_record

SIZES = {
    "layers": 3, "d_model": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "d_ff": 48, "vocab_size": 256, "context": 32,
    "experts": 16, "top_k": 8, "d_expert": 8, "shared_experts": 2, "dense_layers": 1,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint that was trained on a text, and the folder of a study of it."""
    folder = tmp_path_factory.mktemp("against")
    recipe = {"learning_rate": 0.01, "batch": 8, "context": 32}
    sparsedial.train(text=str(corpus), shape=SIZES, recipe=recipe, tokens=20_480, threads=1, out=folder / "run")
    study = folder / "study"
    shutil.copytree(folder / "run" / "text", study / "text")
    text, known = open_text(study / "text"), study_record()
    layout = replace(known.frozen.layout, ladder=Ladder(vocab_size=256, context=32), experts=(0, 8, 32))
    frozen = replace(known.frozen, layout=layout, evaluation_tokens=4096)
    write(study / "study.json", replace(known, text=text.summary(), frozen=frozen))
    write(study / "law.json", spread_law())
    return (folder / "run" / "checkpoint").resolve(), study


def prune(checkpoint: Path, study: Path, corpus: Path, out: Path, **settings) -> Pruned:
    settings = {"keep": 2 / 3, "method": "block-influence", "calibrate": str(corpus / "00.txt"), **settings}
    return sparsedial.prune(checkpoint, against=study, out=out, **settings)


def test_three_ways_to_as_many_active_parameters_are_compared(made, corpus, tmp_path):
    checkpoint, study = made
    answer = prune(checkpoint, study, corpus, tmp_path / "out")
    found, text = answer.equal_cost, open_text(study / "text")
    assert found.active_parameters == answer.after.active_parameters
    assert found.tokens == 20_480
    pruned = evaluate_text(load(tmp_path / "out"), text, "validation", context=32, max_tokens=4096)
    assert found.pruned.mean == pytest.approx(pruned.loss, rel=1e-5)
    whole = load(checkpoint)
    setting = Turned(top_k=tuple(map(int, found.lower_k_setting.removeprefix("k=").split("/"))))
    turned = at_setting(whole, setting)
    assert active_parameters(turned.shape) == pytest.approx(found.active_parameters, rel=0.03)
    lower = evaluate_text(turned, text, "validation", context=32, max_tokens=4096)
    assert found.lower_k.mean == pytest.approx(lower.loss, rel=1e-5)
    assert found.pruned.low < found.pruned.mean < found.pruned.high
    assert found.trained_shape.experts == 32
    assert active_parameters(found.trained_shape) == pytest.approx(found.active_parameters, rel=0.25)
    law = spread_law()
    assert found.trained_sparser.mean == law.loss(**law.variables(found.trained_shape, 20_480))
    assert "by the study's law" in found.basis
    assert of_file(tmp_path / "out" / "prune.json", Pruned) == answer


@pytest.mark.parametrize(("recover", "calibration_tokens"), [(None, 10**6), (1024, 64)])
def test_validation_text_that_decides_or_is_learned_is_not_scored(made, corpus, tmp_path, recover, calibration_tokens):
    """The calibration text holds half of the validation text; all of it calibrates, or most of it is learned."""
    checkpoint, study = made
    text = open_text(study / "text")
    held = text.tokens("validation")
    (tmp_path / "half.txt").write_bytes(held[: len(held) // 2].tobytes().strip(b"\0").replace(b"\0", b"\n"))
    settings = PruneSettings(
        checkpoint=checkpoint, keep=2 / 3, method="block-influence", calibrate=(str(tmp_path / "half.txt"),),
        out=tmp_path / "out", against=study, recover=recover, calibration_tokens=calibration_tokens,
        scored_tokens=32,
    )  # fmt: skip
    work = opened(settings, (settings.ask,), None if recover is None else tmp_path / "home")
    found = opened_study(study, checkpoint, work)
    ids = work.calibrating.ids_WS1 if work.text is None else work.text.tokens("train")
    read = ids.astype(np.uint8).tobytes() if work.text else bytes([ids[0, 0], *ids[:, 1:].astype(np.uint8).tobytes()])
    every = evaluation_windows(text, "validation", 32, 4096)
    fresh = [window for window in every if window.astype(np.uint8).tobytes() not in read]
    assert 0.3 * len(every) < len(fresh) < 0.7 * len(every)
    np.testing.assert_array_equal(found.windows.ids_WS1, fresh)
    assert found.left_out == len(every) - len(fresh)


def test_an_answer_says_what_was_left_out_and_a_study_of_which_nothing_is_left_is_refused(
    made, corpus, tmp_path, monkeypatch
):
    def none_but_first(ids, texts):
        return np.arange(len(ids)) < left

    left = 100
    monkeypatch.setattr(against_text, "unread", none_but_first)
    answer = prune(*made, corpus, tmp_path / "out")
    assert "3.2k validation tokens of the study, without 28 windows that the calibration text holds too" in (
        answer.equal_cost.basis
    )
    left = 0
    with pytest.raises(UserError, match=r"against: the calibration text holds all 128 windows"):
        prune(*made, corpus, tmp_path / "again")


def test_a_width_that_no_k_reaches_has_a_reason(made, corpus, tmp_path):
    answer = prune(*made, corpus, tmp_path / "out", method="activation", keep=0.97)
    assert answer.equal_cost.lower_k is None
    assert answer.equal_cost.lower_k_reason == "no k of the checkpoint has so many active parameters"
    assert answer.equal_cost.winner in ("pruned", "trained_sparser", "undecided")


def test_the_table_names_the_best(made, corpus, tmp_path, capsys):
    checkpoint, study = made
    words = ["prune", str(checkpoint), "--keep", "0.667", "--method", "block-influence", "--against", str(study)]
    assert main([*words, "--calibrate", str(corpus / "00.txt"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "loss at equal cost" in shown
    assert re.search(r"  trained with 32 experts +.*\], with [\d.]+k", shown), "of how many active parameters"
    assert any(line.startswith("  best") for line in shown.splitlines())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "reap", "keep": 0.5}, "against: turning experts off leaves active parameters as they are"),
        ({"method": "wanda", "keep": 0.5}, "against: turning weights off leaves active parameters as they are"),
    ],
)
def test_parts_that_save_no_active_parameters_are_refused(made, corpus, tmp_path, settings, says):
    with pytest.raises(UserError, match=says):
        prune(*made, corpus, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_study_of_another_text_or_tokenizer_is_refused(made, corpus, tmp_path):
    checkpoint, study = made
    known = study_record()
    frozen = replace(known.frozen, layout=replace(known.frozen.layout, ladder=Ladder(vocab_size=256, context=32)))
    summary = open_text(study / "text").summary()
    for tokenizer, what in ((summary.tokenizer, "another text"), (known.text.tokenizer, "another tokenizer")):
        other = tmp_path / what
        write(other / "study.json", replace(known, frozen=frozen, text=replace(known.text, tokenizer=tokenizer)))
        write(other / "law.json", spread_law())
        with pytest.raises(UserError, match=f"was trained on {what} than"):
            prune(checkpoint, other, corpus, tmp_path / "out")


def test_a_law_without_intervals_and_a_study_of_dense_models_alone_are_refused(made, corpus, tmp_path):
    checkpoint, study = made
    changed = shutil.copytree(study, tmp_path / "study")
    write(changed / "law.json", replace(spread_law(), samples=()))
    with pytest.raises(UserError, match=r"against: the law of .* has no intervals"):
        prune(checkpoint, changed, corpus, tmp_path / "out")
    write(changed / "law.json", spread_law())
    known = read(changed / "study.json", Study)
    dense = replace(known.frozen, layout=replace(known.frozen.layout, experts=(0,)))
    write(changed / "study.json", replace(known, frozen=dense))
    with pytest.raises(UserError, match=r"against: the study in .* tried no sparse model"):
        prune(checkpoint, changed, corpus, tmp_path / "out")


def test_what_is_needed_and_missing_is_named(made, corpus, tmp_path):
    checkpoint, study = made
    with pytest.raises(UserError, match=r"against: .*study.json: no such file"):
        prune(checkpoint, tmp_path, corpus, tmp_path / "out")
    shutil.copytree(checkpoint, tmp_path / "alone" / "checkpoint")
    with pytest.raises(UserError, match=r"there is no run.json beside it"):
        prune(tmp_path / "alone" / "checkpoint", study, corpus, tmp_path / "out")
    shutil.copytree(study, tmp_path / "bare", ignore=shutil.ignore_patterns("text"))
    with pytest.raises(UserError, match="its text is needed to score on"):
        prune(checkpoint, tmp_path / "bare", corpus, tmp_path / "out")
