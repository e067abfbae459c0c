"""Scores of models whose answers are known: a uniform one, and one that knows the right answer."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

from sparsedial.evaluation.harness import HarnessModel
from sparsedial.evaluation.judge import Asking, judge
from sparsedial.evaluation.scorer import Continuation, Scorer
from sparsedial.evaluation.statistics import p_of_chance
from sparsedial.evaluation.tasks import load_tasks
from sparsedial.model.checkpoint import load
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import prepare
from sparsedial.text.prompts import prompts_of
from sparsedial.text.tokenizer import Tokenizer, byte_tokenizer, load_tokenizer
from tests.evaluation.items import ITEMS, write_checkpoint, write_items


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("items"))


def uniform(folder: Path, tokenizer: Tokenizer, vocab_size: int = 256) -> HarnessModel:
    """A model that gives every token the same probability."""
    model = initialise(Ladder(vocab_size=vocab_size, context=1024).shape(12, 0), 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return HarnessModel(Scorer(model), tokenizer, prompts_of(folder, tokenizer))


def scored(model: HarnessModel, name: str, data: Path, **asking: object):
    return judge(model, name, load_tasks([name], data)[name], Asking(**asking))


@pytest.mark.parametrize("name", ["arc_easy", "lambada_openai", "gsm8k"])
def test_a_uniform_model_over_256_bytes_says_right_answers_with_8_bits_per_byte(name, data, tmp_path):
    score = scored(uniform(tmp_path, byte_tokenizer()), name, data, shots=1, limit=4).score
    assert score.answer_bits_per_byte.mean == pytest.approx(8.0, rel=1e-5)


def test_bits_are_per_byte_whatever_a_token_is(data, corpus, tmp_path):
    prepare([str(corpus)], tokenizer="bpe:300", folder=tmp_path)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    found = scored(uniform(tmp_path / "tokenizer", tokenizer, 300), "lambada_openai", data)
    texts = [f" {item.gold.strip()}" for item in found.items]
    expected = [math.log2(300) * len(tokenizer.encode(text.encode())) / len(text.encode()) for text in texts]
    assert found.score.answer_bits_per_byte.mean == pytest.approx(sum(expected) / ITEMS, rel=0.2)
    for item, text in zip(found.items, texts, strict=True):
        tokens = -item.choices_nats[0] / math.log(300)
        assert tokens == pytest.approx(round(tokens), abs=1e-4)
        assert round(tokens) <= len(text.encode())


def test_a_model_that_knows_the_answer_scores_all(data, tmp_path, monkeypatch):
    """Items' right answers get the likelihood of 1 a byte; all others that of a uniform model."""
    right = {f"Question: Which is {number}?\nAnswer:": number for number in range(ITEMS)}
    model = HarnessModel.around(Path(write_checkpoint(tmp_path / "one")), load(tmp_path / "one"))
    task = load_tasks(["arc_easy"], data)["arc_easy"]
    gold = {task.doc_to_text(doc): " " + task.doc_to_choice(doc)[task.doc_to_target(doc)] for doc in task.eval_docs}
    assert set(gold) == set(right), "prompts are lm-eval's"

    def likelihoods(pairs):
        yield {
            number: Continuation(
                0.0 if gold[bytes(context).decode()] == bytes(answer).decode() else -math.log(256) * len(answer),
                len(answer),
                False,
            )
            for number, (context, answer) in enumerate(pairs)
        }

    monkeypatch.setattr(model.scorer, "likelihoods", likelihoods)
    score = judge(model, "arc_easy", task, Asking()).score
    assert score.metrics["acc"].mean == score.metrics["acc_norm"].mean == score.gold_rank.mean == 1.0
    assert (score.at_chance, score.p_value) == (False, pytest.approx(0.25**ITEMS))
    assert score.margin_nats.mean > math.log(256)


def test_guessing_is_tested_by_the_metric_that_stands_for_the_task(data, tmp_path):
    """Short choices are likely to an untrained model: by likelihood a byte it chooses others."""
    model, task = uniform(tmp_path, byte_tokenizer()), load_tasks(["arc_easy"], data)["arc_easy"]
    task.doc_to_choice = lambda doc: ["a" * (9 - number) for number in range(4)]  # all ties but for their lengths
    task.doc_to_target = lambda doc: 3
    score = judge(model, "arc_easy", task, Asking()).score
    assert (score.primary, score.metrics["acc"].mean) == ("acc_norm", 1.0)
    assert score.metrics["acc_norm"].mean < 1.0
    assert score.p_value == pytest.approx(p_of_chance(round(score.metrics["acc_norm"].mean * ITEMS), ITEMS, 0.25))


def test_questions_on_one_passage_are_one_observation(data, tmp_path):
    model = HarnessModel.around(Path(write_checkpoint(tmp_path / "one")), load(tmp_path / "one"))
    whole = scored(model, "boolq", data)
    assert {item.id % 3 for item in whole.items} == {0, 1}, "the third passage does not fit"
    assert whole.values is not None
    assert len(set(whole.values.group.values())) == 2
    one = scored(model, "boolq", data, limit=1)
    assert one.score.metrics["acc"].low is None


def test_no_right_answer_of_a_few_does_not_mean_that_there_are_none(data, tmp_path):
    score = scored(uniform(tmp_path, byte_tokenizer()), "gsm8k", data, shots=0, limit=4).score
    found = score.metrics[score.primary]
    assert (found.mean, found.low, found.high) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 4)))


def test_a_long_beginning_is_cut_and_counted(data, tmp_path):
    folder = Path(write_checkpoint(tmp_path / "one", context=40))
    found = scored(HarnessModel.around(folder, load(folder)), "arc_easy", data, shots=2)
    assert (found.score.items, found.score.items_truncated, found.score.items_left_out) == (ITEMS, ITEMS, 0)


def test_an_answer_that_alone_exceeds_the_context_leaves_its_item_out(data, tmp_path):
    folder = Path(write_checkpoint(tmp_path / "one", context=40))
    model, task = HarnessModel.around(folder, load(folder)), load_tasks(["arc_easy"], data)["arc_easy"]
    choices = task.doc_to_choice
    task.doc_to_choice = lambda doc: ["stone " * 9, *choices(doc)[1:]] if doc["id"] == "1" else choices(doc)
    found = judge(model, "arc_easy", task, Asking(shots=0))
    assert 1 not in [item.id for item in found.items]
    assert (found.score.items, found.score.items_left_out) == (ITEMS - 1, 1)


def test_an_item_whose_task_wants_it_whole_is_left_out_whatever_the_tasks_name(data, tmp_path):
    model = HarnessModel.around(Path(write_checkpoint(tmp_path / "one")), load(tmp_path / "one"))
    task = load_tasks(["boolq"], data)["boolq"]
    found = judge(model, "mine", task, Asking()).score
    assert (found.items + found.items_left_out, found.items_truncated) == (ITEMS, 0)
    assert found.items_left_out > 0
    del task.config.metadata["whole_items"]
    cut = judge(model, "boolq", task, Asking()).score
    assert (cut.items, cut.items_truncated, cut.items_left_out) == (ITEMS, found.items_left_out, 0)


def test_touched_items_are_left_out_of_the_other_scores(data, tmp_path):
    folder = Path(write_checkpoint(tmp_path / "one"))
    task = load_tasks(["arc_easy"], data)["arc_easy"]
    touched = {number: 0.5 if number < 3 else 0.0 for number in range(ITEMS)}
    found = judge(HarnessModel.around(folder, load(folder)), "arc_easy", task, Asking(), touched)
    assert found.values is not None
    clean = [value for number, value in found.values.of.items() if number >= 3]
    assert found.score.contaminated_items == 3
    assert found.score.metrics_without_contaminated["acc_norm"].mean == pytest.approx(sum(clean) / len(clean))
    assert [item.contaminated for item in found.items][:4] == [0.5, 0.5, 0.5, 0.0]
