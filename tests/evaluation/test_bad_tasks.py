"""A task that cannot be asked is refused in one line that names what is wrong, and where."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

import huggingface_hub.constants

from sparsedial.errors import UserError
from sparsedial.evaluation import hub as hub_module
from sparsedial.evaluation import their_tasks
from sparsedial.evaluation.tasks import load_tasks
from tests.evaluation.asking import DATA, LLAMA, judged, rows, tiny

OWN = """task: shapes
dataset_path: json
dataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}} A:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metadata: {version: 2.5, licence: CC0-1.0}
"""
SHAPES = [
    {"question": f"How many corners has a {name}?", "choices": ["three", "four", "five"], "answer": number}
    for number, name in enumerate(("triangle", "square", "pentagon"))
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the folder of data, to be spoilt."""
    return Path(shutil.copytree(DATA, tmp_path / "data"))


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    """Writes a user's task and its rows."""

    def write(text: str = OWN, items: list | None = None, train: list | None = None) -> Path:
        for name, of in (("test", items), ("train", train)):
            lines = [row if isinstance(row, str) else json.dumps(row) for row in (SHAPES if of is None else of)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        (tmp_path / "shapes.yaml").write_text(text)
        return tmp_path / "shapes.yaml"

    return write


def asked(names: list[str], data: Path | None, shots: int | None) -> None:
    """Load tasks, and make what is asked of a model."""
    for task in load_tasks(names, data).values():
        if shots is not None:
            task.set_config("num_fewshot", shots)
        task.set_fewshot_seed(1234)
        task.build_all_requests()


def refused(names: list[str], data: Path | None = None, shots: int | None = None) -> UserError:
    """Why tasks cannot be asked, found while they are loaded or when their items are."""
    with pytest.raises(UserError) as caught:
        asked(names, data, shots)
    assert "\n" not in str(caught.value)
    return caught.value


def change(data: Path, file: str, number: int, **fields: object) -> None:
    """Change fields of a row, or take away those that are None."""
    found = rows(file)
    found[number] = {name: value for name, value in {**found[number], **fields}.items() if value is not None}
    (data / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def test_a_users_own_task_has_its_rows_beside_it(own):
    ((name, task),) = load_tasks([str(own())], None).items()
    score, items = judged(tiny(LLAMA), name, task)
    assert (name, score.items, score.version, score.licence) == ("shapes", 3, 2.5, "CC0-1.0")
    assert [item.gold for item in items] == ["0", "1", "2"]
    assert score.data_digest is not None


def test_a_users_own_task_may_include_one_of_lm_eval(own):
    text = "include: piqa/piqa.yaml\ntask: mine\ndataset_path: json\ntraining_split: null\n"
    text += "dataset_kwargs: {data_files: {validation: test.jsonl}}\n"
    (task,) = load_tasks([str(own(text, rows("piqa/validation")))], None).values()
    (theirs,) = load_tasks(["piqa"], DATA).values()
    for one in (task, theirs):
        one.build_all_requests(limit=5)
    assert [request.args for request in task.instances] == [request.args for request in theirs.instances]
    assert task.config.metadata["version"] == theirs.config.metadata["version"]


def test_an_unknown_task_is_answered_with_the_nearest_names():
    error = refused(["arc_eazy"], DATA)
    assert error.problem == "no task named 'arc_eazy'"
    assert error.field == "tasks"
    assert error.hint is not None
    assert error.hint.startswith("did you mean 'arc_easy' or '")
    assert refused(["zzzzqqqq"], DATA).hint is None


def test_an_unknown_name_is_told_by_the_names_of_tasks_without_parsing_all_of_lm_evals_files(monkeypatch):
    """`arc` stands in many files, and is no name."""
    monkeypatch.setattr(their_tasks, "manager_of_all", lambda: pytest.fail("it parsed 14,000 files"))
    assert refused(["arc"], None).problem == "no task named 'arc'"


@pytest.mark.parametrize(
    ("name", "file", "fields", "why"),
    [
        ("arc_easy", "arc_easy/test", {"answer": 4}, "answer 4 is none of 0, 1, 2, 3"),
        ("arc_easy", "arc_easy/test", {"answer": -1}, "answer -1 is none of 0, 1, 2, 3"),
        ("social_iqa", "social_iqa/validation", {"answer": 3}, "answer 3 is none of 0, 1, 2"),
        ("piqa", "piqa/validation", {"label": 2}, "answer 2 is none of the 2 choices"),
        ("hellaswag", "hellaswag/validation_1000", {"label": 4}, "answer 4 is none of the 4 choices"),
        ("mmlu", "mmlu/test", {"answer": 7}, "answer 7 is none of the 4 choices"),
        ("winogrande", "winogrande/validation", {"answer": 3}, "answer 3 is none of 1, 2"),
        ("aqua_rat", "aqua_rat/test", {"correct": "Z"}, "answer 'Z' is none of A, B, C, D, E"),
        ("boolq", "boolq/validation", {"answer": "yes"}, "'answer' is a text, and true or false in the lines before"),
        ("gsm8k", "gsm8k/test", {"question": None}, "the field 'question' is missing"),
        ("gsm8k", "gsm8k/test", {"answer": ""}, "the answer is empty"),
        ("copa", "copa/validation", {"choice2": None}, "the field 'choice2' is missing"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_by_file_and_line(data, name, file, fields, why):
    change(data, file, 5, **fields)
    assert str(refused([name], data)).endswith(f"{data / file}.jsonl:6: {why}")


def test_a_field_that_all_rows_lack_is_named(data, own):
    file = data / "openbookqa/test.jsonl"
    file.write_text("".join(json.dumps({"question": "why", "choices": ["a", "b"]}) + "\n" for _ in range(3)))
    assert str(refused(["openbookqa"], data)) == f"{file}:1: the field 'answer' is missing"
    path = own(items=[{"prompt": "why", "choices": ["a", "b"], "answer": 0}])
    assert str(refused([str(path)])) == f"{path.parent / 'test.jsonl'}:1: the field 'question' is missing"


def test_a_solved_example_with_a_wrong_answer_is_named(own, data):
    change(data, "arc_easy/train", 5, answer=9)
    place = data / "arc_easy/train.jsonl"
    assert str(refused(["arc_easy"], data, shots=1)) == f"{place}:6: answer 9 is none of 0, 1, 2, 3"
    path = own(train=[*SHAPES[:2], {**SHAPES[2], "answer": 3}])
    place = path.parent / "train.jsonl"
    assert str(refused([str(path)], shots=3)) == f"{place}:3: answer 3 is none of the 3 choices"
    (task,) = load_tasks([str(path)], None).values()
    task.build_all_requests()  # no example is shown


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"question": "why"', "2: not JSON (Expecting ',' delimiter"),
        ("[1, 2]", "2: not an object but a list"),
        ('{"question": "why", "choices": ["a"]}', "2: the field 'answer' is missing"),
        ('{"question": "why", "choices": "ab", "answer": 0}', "2: 'choices' is a text, and a list in the lines before"),
        ('{"question": "why", "choices": [1, 2], "answer": 0}', " its lines hold different kinds of values ("),
    ],
)
def test_a_line_that_is_not_as_the_others_is_named(own, line, why):
    path = own(items=[SHAPES[0], line])
    assert str(refused([str(path)])).startswith(f"{path.parent / 'test.jsonl'}:{why}")


def test_a_packed_file_that_is_cut_is_named(data):
    file = data / "nq_open/dev.jsonl"
    packed = gzip.compress(file.read_bytes())
    file.unlink()
    cut = file.with_name("dev.jsonl.gz")
    for left in (packed[: len(packed) // 2], packed[:-4], packed[:3], b"no gzip at all"):
        cut.write_bytes(left)
        assert str(refused(["nq_open"], data)).startswith(f"{cut}: damaged or cut short (")
    cut.write_bytes(packed)
    (task,) = load_tasks(["nq_open"], data).values()
    assert len(task.eval_docs) == 20


def test_missing_data_is_one_line_with_both_ways_out(tmp_path):
    error = refused(["arc_easy"], tmp_path)
    assert str(error) == f"data: task 'arc_easy': {tmp_path / 'arc_easy/train.jsonl.gz'} is missing"
    assert error.hint == "name a folder of such files with data, or leave it out: the Hub is tried then"
    error = refused(["mmlu"], tmp_path)
    assert str(error) == f"data: task 'mmlu': {tmp_path / 'mmlu/dev.jsonl.gz'} is missing"


def test_a_file_without_items_is_named(data):
    (data / "piqa/validation.jsonl").write_text("\n\n")
    assert str(refused(["piqa"], data)) == f"{data / 'piqa/validation.jsonl'}: holds no items"


def test_a_subject_without_items_is_named(data):
    kept = [row for row in rows("mmlu/test") if row["subject"] != "virology"]
    (data / "mmlu/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    error = str(refused(["mmlu"], data))
    assert error == f"{data / 'mmlu/test.jsonl'}: holds no items whose 'subject' is 'virology'"


@pytest.mark.parametrize("name", ["gsm_hard", "svamp"])
def test_a_task_that_lm_eval_lacks_needs_a_folder_of_data(name):
    assert refused([name]).problem == f"task '{name}' needs a folder of data: lm-eval has no such task"


@pytest.mark.parametrize("name", ["arc_easy", "mmlu", "squad", "truthfulqa_mc1"])
def test_without_a_network_the_hub_is_not_waited_for(monkeypatch, tmp_path, name):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "*")
    began = time.perf_counter()
    error = refused([name], None if name != "truthfulqa_mc1" else DATA)
    assert time.perf_counter() - began < 10
    assert error.problem.startswith(f"task '{name}' needs its data, and neither a folder nor the Hub has it (")
    assert error.hint == "name the folder that holds it with data, or try again with a network"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    def late(*_: object, **__: object) -> None:
        time.sleep(2)
        raise TimeoutError

    monkeypatch.setattr(hub_module, "SECONDS", 0.05)
    monkeypatch.setattr(hub_module.urllib.request, "urlopen", late)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    began = time.perf_counter()
    with hub_module.hub():
        assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert time.perf_counter() - began < 1


def test_solved_examples_that_are_not_there_are_refused(own):
    path = own(OWN.replace("train: train.jsonl, ", "").replace("training_split: train\n", ""))
    error = refused([str(path)], shots=1)
    assert error.problem == "task 'shapes' has no rows for solved examples beside its items"
    error = refused([str(own())], shots=4)
    assert error.problem == "task 'shapes' has 3 solved examples, not 4"
    assert error.hint == "ask for fewer with shots, or leave the task out"
    path = own(OWN.replace("train: train.jsonl, ", ""))
    assert refused([str(path)]).problem == "task 'shapes': no file is named for its split 'train', only for test"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("task: [", "not YAML ("),
        ("- a\n- b\n", "not the file of a task (Expected YAML dict"),
        ("include: nowhere.yaml\ntask: a\n", "not the file of a task ("),
        (OWN + "process_docs: !function helpers.rows\n", "not the file of a task (Cannot import module 'helpers'"),
        (OWN.replace("task: shapes\n", ""), "names no task"),
        (OWN.replace("test_split: test\n", ""), "names no split to ask"),
        (OWN + "doc_to_txt: question\n", "unexpected keyword argument 'doc_to_txt'"),
    ],
)
def test_a_users_file_that_is_no_task_is_refused(own, text, why):
    assert why in str(refused([str(own(text))]))


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert refused([str(tmp_path / "mine.yaml")]).problem == f"{tmp_path / 'mine.yaml'}: no such file"
