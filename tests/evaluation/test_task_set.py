"""Every task of the set runs on a few of its items, asks what lm-eval asks, and knows which answer is right."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.group import Group
from lm_eval.config.group import AggMetricConfig
from lm_eval.evaluator import evaluate

from sparsedial.evaluation.choices import right_choices
from sparsedial.evaluation.tasks import FILES, GROUPS, load_tasks, named
from sparsedial.evaluation.together import Together
from tests.evaluation.asking import DATA, LLAMA, RIGHT, SPARSE, judged, planted, rows, tiny

LIMIT = 4
CHANCE = {
    "boolq": 1 / 2, "arc_easy": 1 / 4, "arc_challenge": 1 / 4, "hellaswag": 1 / 4, "piqa": 1 / 2, "openbookqa": 1 / 4,
    "winogrande": 1 / 2, "commonsense_qa": 1 / 5, "copa": 1 / 2, "social_iqa": 1 / 3, "mmlu": 1 / 4, "aqua_rat": 1 / 5,
}  # fmt: skip
METRICS = {
    "squad": {"exact_match", "f1"},
    "lambada_openai": {"perplexity", "acc"},
    "gsm8k": {"exact_match,strict-match", "exact_match,flexible-extract"},
    "webqs": {"exact_match"},
    "nq_open": {"exact_match,remove_whitespace"},
    "winogrande": {"acc"},
    "mmlu": {"acc"},
    "aqua_rat": {"acc", "acc_norm"},
    "bbh_cot_fewshot_object_counting": {"exact_match,get-answer"},
}
SHOTS = {"gsm8k": 5, "gsm_hard": 5, "svamp": 5} | {name: 3 for name in GROUPS["all"] if name.startswith("bbh")}
SUBJECTS = 57


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(GROUPS["all"], DATA)


@pytest.fixture(scope="module", params=[LLAMA, SPARSE], ids=["llama", "sparse"])
def model(request):
    return tiny(request.param)


def test_each_file_is_of_a_group_and_has_items_for_tests():
    files = {path.stem for path in FILES.glob("*.yaml")}
    assert files == set(GROUPS["all"]) == set(RIGHT)
    assert named(["knowledge", "arc_easy", "reading"]) == [*GROUPS["knowledge"], *GROUPS["reading"]]


@pytest.mark.parametrize("name", GROUPS["all"])
def test_a_task_runs_on_untrained_models(tasks, model, name):
    score, items = judged(model, name, tasks[name], LIMIT)
    assert score.items == len(items) == (SUBJECTS if name == "mmlu" else LIMIT)
    assert len({item.id for item in items}) == len(items)
    assert score.metrics.keys() == METRICS.get(name, score.metrics.keys())
    assert score.primary in score.metrics
    assert score.shots == SHOTS.get(name, 0)
    for metric, value in score.metrics.items():
        if value.low is None:  # none of the few passages has a right answer
            assert name in ("squad", "boolq"), metric
        else:
            assert value.low <= value.mean <= value.high, metric
    assert score.chance == (None if name not in CHANCE else pytest.approx(CHANCE[name], abs=0.02))
    chosen = name in CHANCE
    assert (score.p_value is not None, score.gold_rank is not None, score.margin_nats is not None) == (chosen,) * 3
    assert all((item.choices_nats is not None) == (tasks[name].OUTPUT_TYPE != "generate_until") for item in items)


@pytest.mark.parametrize("name", GROUPS["all"])
def test_a_model_that_knows_the_answers_is_right(tasks, name):
    score, _ = judged(planted(name), name, tasks[name])
    assert score.metrics[score.primary].mean == 1.0
    assert all(value.mean == 1.0 for metric, value in score.metrics.items() if metric in ("acc", "acc_norm", "f1"))
    if name in CHANCE:
        assert score.gold_rank is not None
        assert score.gold_rank.mean == 1.0
        assert score.margin_nats is not None
        assert score.margin_nats.mean == 999.0
        assert score.at_chance is False


@pytest.mark.parametrize("name", GROUPS["all"])
def test_a_task_states_version_licence_source_and_digest_of_its_data(tasks, name):
    score, _ = judged(planted(name), name, tasks[name], 1)
    stated = tasks[name].config.metadata
    assert score.version is not None
    assert score.licence == stated["licence"]
    assert len(stated["source"]) > 20
    assert isinstance(score.data_digest, str)
    assert len(score.data_digest) == 64


def test_the_digest_is_of_the_files_in_order(tasks):
    for name, files in {"nq_open": ["nq_open/dev"], "gsm_hard": ["gsm8k/train", "gsm_hard/test"]}.items():
        content = b"".join((DATA / f"{file}.jsonl").read_bytes() for file in files)
        assert tasks[name].config.metadata["data_digest"] == hashlib.sha256(content).hexdigest()


def test_the_score_of_mmlu_is_the_one_of_lm_eval(tasks):
    model, whole = tiny(LLAMA), tasks["mmlu"]
    assert isinstance(whole, Together)
    assert len(whole.tasks) == SUBJECTS
    score, items = judged(model, "mmlu", whole)
    group = Group("mmlu", aggregate_metric_list=[AggMetricConfig("acc", weight_by_size=True)])
    for task in whole.tasks:
        group.add(task)
    members = {task.task_name: task for task in whole.tasks}
    theirs = evaluate(
        model, {"tasks": members, "groups": {"mmlu": group}, "group_map": {"mmlu": [*members]}}, bootstrap_iters=0
    )
    assert score.metrics["acc"].mean == pytest.approx(theirs["groups"]["mmlu"]["acc,none"], rel=1e-12)
    assert 0.0 < score.metrics["acc"].mean < 1.0
    assert score.version == 2
    nats = {
        sample["doc"]["question"]: tuple(float(answers[0][0]) for answers in sample["resps"])
        for samples in theirs["samples"].values()
        for sample in samples
    }
    docs = dict(whole.doc_iterator())
    assert {docs[item.id]["question"]: item.choices_nats for item in items} == {
        question: pytest.approx(values, rel=1e-5) for question, values in nats.items()
    }


def test_nothing_is_said_while_items_are_made(capfd):
    for task in load_tasks(["mmlu", "boolq", "gsm8k"], DATA).values():
        task.build_all_requests(limit=2)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_subject_of_mmlu_is_a_task_of_its_own(tasks):
    (anatomy,) = load_tasks(["mmlu_anatomy"], DATA).values()
    assert [doc["subject"] for doc in anatomy.eval_docs] == ["anatomy"]
    stem = load_tasks(["mmlu_stem"], DATA)
    assert [*stem] == ["mmlu_stem"]
    assert 10 < len(stem["mmlu_stem"].tasks) < SUBJECTS


def test_the_continuation_of_winogrande_is_common_to_its_choices(tasks):
    row, task = rows("winogrande/validation")[0], tasks["winogrande"]
    task.build_all_requests(limit=1)
    before, after = row["sentence"].split("_")
    assert [request.args for request in task.instances] == [
        (before + row["option1"], " " + after.strip()),
        (before + row["option2"], " " + after.strip()),
    ]
    assert right_choices(task, task.eval_docs[0]) == (row["answer"] - 1,)
    score, _ = judged(planted("winogrande"), "winogrande", task, 1)
    assert score.answer_bits_per_byte is not None
    assert score.answer_bits_per_byte.mean == pytest.approx(1.4426950408889634 / len((" " + after.strip()).encode()))


def test_the_likeliest_of_several_right_answers_counts(tasks):
    task = tasks["webqs"]
    score, items = judged(tiny(LLAMA), "webqs", task)
    bits = []
    for doc, item in zip(task.eval_docs, items, strict=True):
        choices = task.doc_to_choice(doc)
        assert right_choices(task, doc) == (*range(len(choices)),)
        nats, choice = max(zip(item.choices_nats, choices, strict=True))
        bits.append(-nats / math.log(2) / len(f" {choice}".encode()))
    assert len(set(map(len, (item.choices_nats for item in items)))) > 1
    assert score.answer_bits_per_byte.mean == pytest.approx(np.mean(bits))
    assert (score.chance, score.gold_rank, score.margin_nats) == (None, None, None)  # no choice is wrong
