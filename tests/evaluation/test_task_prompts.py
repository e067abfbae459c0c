"""What a task of ours asks is what lm-eval's own file asks of the Hub's row, letter by letter."""

from __future__ import annotations

import pytest

pytest.importorskip("lm_eval")

import datasets
import lm_eval.utils
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from sparsedial.evaluation import squad
from sparsedial.evaluation.task_file import THEIRS
from sparsedial.evaluation.tasks import load_tasks
from tests.evaluation.asking import DATA, rows


def arc(row: dict) -> dict:
    return {
        "id": row["id"],
        "question": row["question"],
        "choices": {"text": row["choices"], "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[row["answer"]],
    }


def stem(row: dict) -> dict:
    return {"question_stem": row["question"], **{name: arc(row)[name] for name in ("choices", "answerKey")}}


def letters(row: dict) -> dict:
    return {
        "question": row["question"],
        "choices": {"label": ["A", "B", "C", "D", "E"], "text": row["choices"]},
        "answerKey": "ABCDE"[row["answer"]],
    }


def siqa(row: dict) -> dict:
    first, second, third = row["choices"]
    return {
        "context": row["context"],
        "question": row["question"],
        "answerA": first,
        "answerB": second,
        "answerC": third,
        "label": str(1 + row["answer"]),
    }


def flat(row: dict) -> dict:
    return row


# lm-eval's file; our file of the items; that of the solved examples; a row as the Hub has it
HUBS = {
    "arc_easy": ("arc/arc_easy.yaml", "arc_easy/test", "arc_easy/train", arc),
    "arc_challenge": ("arc/arc_challenge.yaml", "arc_challenge/test", "arc_challenge/train", arc),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa/test", "openbookqa/train", stem),
    "commonsense_qa": ("commonsense_qa/default.yaml", "commonsense_qa/validation", "commonsense_qa/train", letters),
    "winogrande": (
        "winogrande/default.yaml",
        "winogrande/validation",
        "winogrande/train",
        lambda row: {**row, "answer": "12"[row["answer"] - 1]},
    ),
    "boolq": (
        "super_glue/boolq/default.yaml",
        "boolq/validation",
        "boolq/train",
        lambda row: {"question": row["question"], "passage": row["passage"], "label": 1 if row["answer"] else 0},
    ),
    "piqa": ("piqa/piqa.yaml", "piqa/validation", "piqa/train", flat),
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k/test", "gsm8k/train", flat),
    "copa": ("super_glue/copa/default.yaml", "copa/validation", None, flat),
    "social_iqa": ("siqa/siqa.yaml", "social_iqa/validation", None, siqa),
    "lambada_openai": ("lambada/lambada_openai.yaml", "lambada/test_openai", None, flat),
    "nq_open": ("nq_open/nq_open.yaml", "nq_open/dev", None, flat),
    "squad": (
        "xquad/xquad_en.yaml",
        "squad_v1_xquad_en/dev_subset",
        None,
        lambda row: {**row, "answers": {"text": [answer["text"] for answer in row["answers"]], "answer_start": [0]}},
    ),
    "webqs": (
        "webqs/webqs.yaml",
        "webquestions/test",
        None,
        lambda row: {"question": row["qText"], "answers": row["answers"]},
    ),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", "mmlu/test", "mmlu/dev", flat),
    "bbh_cot_fewshot_object_counting": ("bbh/cot_fewshot/object_counting.yaml", "bbh/object_counting", None, flat),
    "bbh_cot_fewshot_multistep_arithmetic_two": (
        "bbh/cot_fewshot/multistep_arithmetic_two.yaml",
        "bbh/multistep_arithmetic_two",
        None,
        flat,
    ),
}


def of_the_hub(name: str) -> ConfigurableTask:
    """lm-eval's own task, its rows given as the Hub has them."""
    file, items, examples, hub = HUBS[name]
    squad.stand_in()
    config = load_yaml(THEIRS / file)
    subject = config.get("dataset_name") if name.startswith("mmlu") else None

    def split(of: str) -> datasets.Dataset:
        return datasets.Dataset.from_list([hub(row) for row in rows(of) if subject in (None, row.get("subject"))])

    def download(**_: object) -> dict[str, datasets.Dataset]:
        found = {name: split(items) for name in ("test", "validation")}
        return found if examples is None else found | {"train": split(examples), "dev": split(examples)}

    config = {key: value for key, value in config.items() if key not in ("tag", "dataset_kwargs")}
    without = {"training_split": None} if examples is None else {}
    return ConfigurableTask(config={**config, **without, "custom_dataset": download})


def asked(task: ConfigurableTask, shots: int | None) -> list[tuple]:
    if shots is not None:
        task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=3)
    return [request.args for request in task.instances]


@pytest.mark.parametrize("name", HUBS)
def test_the_items_are_asked_as_lm_eval_asks_them(name):
    (ours,) = load_tasks([name], DATA).values()
    found = asked(ours, None)
    assert found == asked(of_the_hub(name), None)
    assert all(len(arguments[0]) > 10 for arguments in found)


@pytest.mark.parametrize("name", [name for name, (_, _, examples, _) in HUBS.items() if examples])
def test_the_solved_examples_are_those_of_lm_eval(name):
    (ours,) = load_tasks([name], DATA).values()
    shots = 2
    found = asked(ours, shots)
    assert found == asked(of_the_hub(name), shots)
    assert found != asked(ours, 0)


def test_a_known_item_is_asked_in_these_words():
    (boolq,) = load_tasks(["boolq"], DATA).values()
    row = rows("boolq/validation")[0]
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    assert asked(boolq, 0)[:2] == [(prompt, " no"), (prompt, " yes")]
    (hellaswag,) = load_tasks(["hellaswag"], DATA).values()
    first = asked(hellaswag, None)[0]
    assert first[0] == ("Making tea: A woman fills a kettle and sets it on the stove. The water begins to boil. She")
    assert first[1] == " pours the water over the leaves in a pot and lets them stand."


def test_a_template_is_compiled_once():
    (task,) = load_tasks(["arc_easy"], DATA).values()
    before = lm_eval.utils.env.from_string.cache_info().misses
    asked(task, 5)
    asked(task, 5)
    assert lm_eval.utils.env.from_string.cache_info().misses - before <= 3  # text, right answer and choices


@pytest.mark.parametrize("name", ["gsm_hard", "svamp"])
def test_tasks_that_lm_eval_lacks_are_asked_as_gsm8k(name):
    of_gsm8k, own = (next(iter(load_tasks([word], DATA).values())) for word in ("gsm8k", name))
    first, theirs = asked(own, None)[0], asked(of_gsm8k, None)[0]
    shots, _, question = first[0].rpartition("Question: ")
    assert shots == theirs[0].rpartition("Question: ")[0]
    assert first[1] == theirs[1]
    row = rows(f"{name}/test")[0]
    text = row["input"] if name == "gsm_hard" else f"{row['Body'].strip()} {row['Question'].strip()}"
    assert question == f"{text}\nAnswer:"


def test_aqua_is_asked_as_agieval_writes_it():
    (task,) = load_tasks(["aqua_rat"], DATA).values()
    first = asked(task, None)[0]
    assert first[0].startswith("Q: A car is being driven, in a straight line")
    assert first[0].endswith(
        "tower? Answer Choices: (A)5(√3 + 1) (B)6(√3 + √2) (C)7(√3 – 1) (D)8(√3 – 2) (E)None of these\n"
        "A: Among A through E, the answer is"
    )
    assert first[1] == " (A)5(√3 + 1)"


def test_answers_are_numbers_as_people_write_them():
    (hard,) = load_tasks(["gsm_hard"], DATA).values()
    assert [doc["answer"] for doc in hard.eval_docs][:1] == [f"#### {int(rows('gsm_hard/test')[0]['target'])}"]
    (svamp,) = load_tasks(["svamp"], DATA).values()
    assert svamp.eval_docs[0]["answer"] == "#### 51"
