"""Each command on the file of the one before, with a tokenizer that is not the default, whatever the file is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.cli.main import main
from sparsedial.records.plan import TOKENIZER_FOLDER, Plan
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import write
from sparsedial.records.text import TokenizerWords
from sparsedial.shape.ladder import Ladder
from sparsedial.store import read_json
from sparsedial.sweep.findings import plan_at_top
from sparsedial.text.prepare import Text, prepare
from tests.showing.synthetic import bare_record, finished, study_record
from tests.verbs.test_train import words as train_words

NAME = "plan (1).json"  # as a browser names a second one


@pytest.fixture(scope="module")
def text(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Text:
    """The corpus as a study with a BPE leaves it."""
    return prepare([str(corpus)], tokenizer="bpe:300", folder=tmp_path_factory.mktemp("study") / "text")


@pytest.fixture(scope="module")
def plan(text: Text) -> Plan:
    """A study's plan for a tiny model; its tokenizer is the text's."""
    lab, findings, _ = finished()
    made = plan_at_top(lab, findings)
    assert made is not None
    assert made.origin is not None
    assert made.origin.tokenizer_folder == TOKENIZER_FOLDER
    assert made.origin.tokenizer == lab.text.tokenizer
    assert made.origin_reason is None
    words = TokenizerWords(name="bpe:300", vocab_size=text.tokenizer.vocab_size, digest=text.tokenizer.digest)
    recipe = Recipe(learning_rate=0.01, steps=3, batch=2, context=16)
    shape = Ladder(vocab_size=text.tokenizer.vocab_size, context=16).shape(8, 0)
    origin = replace(made.origin, tokenizer=words, text_digest=text.digest, context=16)
    return replace(made, origin=origin, shape=shape, recipe=recipe, tokens=recipe.tokens)


@pytest.fixture
def folder(text: Text, plan: Plan, tmp_path: Path) -> Path:
    """The folder of a study with its plan under another name and the study's files."""
    text.tokenizer.save(tmp_path / TOKENIZER_FOLDER)
    write(tmp_path / NAME, plan)
    return tmp_path


def trained(plan: Path, corpus: Path, capsys, *flags: str) -> tuple[int, str, Path]:
    """Status, standard error, and the folder of a training."""
    out = plan.parent / "model"
    status = main(["train", str(plan), "--text", str(corpus), "--threads", "1", "--out", str(out), *flags])
    return status, capsys.readouterr().err, out


def edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_train_uses_the_tokenizer_of_the_study_behind_the_plan(folder, corpus, text, capsys):
    status, said, out = trained(folder / NAME, corpus, capsys)
    assert (status, "not about this run" in said) == (0, False)
    assert read_json(out / "settings.json")["tokenizer"] == "bpe:300"
    assert read_json(out / "text" / "text.json")["digest"] == text.digest
    assert json.loads((out / "checkpoint" / "tokenizer_config.json").read_text())["sparsedial_name"] == "bpe:300"


def test_a_run_that_is_not_the_predicted_one_says_in_what_it_differs(folder, corpus, capsys, tmp_path_factory):
    status, said, _ = trained(folder / NAME, corpus, capsys, "--tokenizer", "bytes", "--recipe.context", "8")
    assert status == 0
    assert "this run has tokenizer bytes, context 8: the predicted loss is not about this run" in said
    status, said, _ = trained(folder / NAME, corpus / "00.txt", capsys)
    assert status == 0
    assert "this run has another text" in said


def test_a_tokenizer_that_is_gone_is_said(folder, corpus, capsys):
    (folder / TOKENIZER_FOLDER / "tokenizer.json").rename(folder / "moved.json")
    status, said, _ = trained(folder / NAME, corpus, capsys)
    assert status == 2
    assert "was made with the tokenizer bpe:300, but" in said
    assert "--tokenizer" in said
    status, said, _ = trained(folder / NAME, corpus, capsys, "--tokenizer", str(folder / "moved.json"))
    assert (status, "not about this run" in said) == (0, False)


def test_a_vocabulary_that_no_text_fills_is_said(corpus, tmp_path, capsys):
    assert main(["plan", "--flops", "2e14", "--max-total-parameters", "8M", "--out", str(tmp_path / "p")]) == 0
    assert read_json(tmp_path / "p")["origin_reason"]
    flags = ("--tokens", "16", "--recipe.batch", "1", "--recipe.context", "8")
    status, said, _ = trained(tmp_path / "p", corpus, capsys, *flags)
    assert status == 0
    assert "the model has 50.4k tokens and the tokenizer bytes only 256" in said


def test_an_edited_plan_is_a_plan_and_the_record_says_so(folder, corpus, capsys):
    edit(folder / NAME, lambda plan: plan["recipe"].update(learning_rate=0.02))
    status, said, out = trained(folder / NAME, corpus, capsys)
    assert status == 0
    assert f"{NAME} was edited by hand" in said
    assert read_json(out / "settings.json")["plan_edited"] is True
    assert main(["count", str(folder / NAME)]) == 0


def test_an_edit_that_would_be_ignored_is_refused(folder, corpus, capsys):
    edit(folder / NAME, lambda plan: plan.update(tokens=10**6))
    status, said, _ = trained(folder / NAME, corpus, capsys)
    assert status == 2
    assert "tokens=1000000 and recipe.steps=3 of 32 tokens each contradict" in said
    assert trained(folder / NAME, corpus, capsys, "--tokens", "64")[0] == 0


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_none_in_a_plan_is_one_line(folder, corpus, capsys, word):
    content = (folder / NAME).read_text()
    (folder / "plan.json").write_text(content.replace('"norm_eps": 1e-06', f'"norm_eps": {word}'))
    if word not in (folder / "plan.json").read_text():
        (folder / "plan.json").write_text(content.replace('"learning_rate": 0.01', f'"learning_rate": {word}'))
    for words in (["train", str(folder), "--text", str(corpus)], ["count", str(folder / "plan.json")]):
        assert main(words) == 2
        assert f"it holds {word}, which is not a number" in capsys.readouterr().err


def test_a_run_that_was_edited_is_still_refused(folder, corpus, capsys):
    _, _, out = trained(folder / NAME, corpus, capsys)
    run = next(out.glob("runs/*/run.json"))
    edit(run, lambda values: values.update(test_loss=1.0))
    assert main(["fit", str(out)]) == 2
    assert "does not match its digest" in capsys.readouterr().err


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's files under names of their own."""
    folder = tmp_path_factory.mktemp("renamed")
    lab, findings, _ = finished()
    assert findings.law.law is not None
    records = {"law": findings.law.law, "profile": lab.profile, "study": study_record()}
    for name, record in records.items():
        write(folder / f"my {name}", record)
        write(folder / f"{name}.json", record)
    return folder


def test_law_profile_and_study_are_known_by_their_content(study, plan, tmp_path, capsys):
    write(tmp_path / "a", plan)
    for words in (
        ["plan", "--flops", "1e12", "--law", str(study / "my law"), "--device", str(study / "my profile")],
        ["plan", "--flops", "1e12", "--law", str(study / "my study")],
        ["fit", str(study / "my study"), "--bootstrap", "0"],
        ["count", str(tmp_path / "a")],
    ):
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
    capsys.readouterr()


def test_a_file_of_another_kind_is_named(study, plan, tmp_path, capsys):
    write(tmp_path / "a", plan)
    for words, kind in (
        (["plan", "--flops", "1e12", "--law", str(tmp_path / "a")], "plan"),
        (["plan", "--flops", "1e12", "--law", str(study / "my profile")], "profile"),
        (["plan", "--flops", "1e12", "--device", str(study / "my law")], "law"),
    ):
        assert main(words) == 2
        assert f"hint: it is a {kind}" in capsys.readouterr().err


def test_a_plan_by_a_studys_law_names_its_text_and_where_its_tokenizer_is(study, tmp_path, capsys):
    assert main(["plan", "--flops", "1e12", "--law", str(study), "--out", str(tmp_path / "p.json")]) == 0
    origin, made = read_json(tmp_path / "p.json")["origin"], study_record()
    assert origin["text_digest"] == made.text.digest
    assert origin["tokenizer"]["digest"] == made.text.tokenizer.digest
    assert origin["tokenizer_folder"] == str(study.resolve() / TOKENIZER_FOLDER)
    assert len(origin["law_digest"]) == len(origin["profile_digest"]) == 64


def test_a_text_that_gives_fewer_tokens_than_asked_for_says_so(corpus, tmp_path, capsys):
    assert main(train_words(corpus / "00.txt", tmp_path / "run", "--tokens", "64", "--tokenizer", "bpe:60k")) == 0
    assert "of the 60,000 tokens of bpe:60000: no more pairs come twice" in capsys.readouterr().err


def test_a_study_without_a_law_says_why_there_is_no_plan(tmp_path, capsys):
    write(tmp_path / "study.json", bare_record())
    for words in (
        ["train", str(tmp_path)],
        ["train", str(tmp_path / "plan.json")],
        ["plan", "--flops", "1e12", "--law", str(tmp_path)],
        ["plan", "--flops", "1e12", "--law", str(tmp_path / "study.json")],
        ["dial", str(tmp_path)],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "the study has no law, and so no plan: only 2 budgets" in said, words
        assert "hint: a larger study may have one: sparsedial study" in said


def test_a_study_that_is_not_finished_says_so(tmp_path, capsys):
    _, _, running = finished()
    write(tmp_path / "study.json", running)
    assert main(["train", str(tmp_path)]) == 2
    assert "plan.json: the study is not finished" in capsys.readouterr().err
