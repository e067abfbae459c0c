"""Our model behind lm-eval's interface answers as lm-eval's own model of transformers, request by request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
pytest.importorskip("accelerate", reason="lm-eval's own model needs accelerate")
pytest.importorskip("transformers", reason="transformers is not installed")

from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import sparsedial
from sparsedial.evaluation.harness import HarnessModel
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.text.prepare import prepare
from sparsedial.text.tokenizer import load_tokenizer
from tests.model.shapes import FAMILIES, shaken

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' and accelerate's own
CONTEXT, NATS = 48, 1e-3
SHORT = "lo ka mi"
LONG = "ta no ri se " * 30  # exceeds the context
PAIRS = [(SHORT, " no ta"), (SHORT, " se"), (LONG, " mi"), ("", "ka lo"), (SHORT + " ", "ri"), (LONG, " no ta ri")]
TASK = """
task: syllables
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: [" lo", " ka mi"]
doc_to_target: 1
"""

Both = tuple[HarnessModel, HFLM]


@pytest.fixture(scope="module", params=["llama", "qwen3_moe"])
def both(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """A small checkpoint, dense or sparse, behind both models."""
    place = tmp_path_factory.mktemp("checkpoint")
    prepare([str(corpus)], tokenizer="bpe:300", folder=place / "text")
    folder = place / "model"
    model = shaken(replace(FAMILIES[request.param], vocab_size=300, context=CONTEXT))
    save_checkpoint(model, folder, load_tokenizer(place / "text" / "tokenizer"))
    return sparsedial.lm_eval_model(folder), HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)


def asked(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    """Requests of a kind, as lm-eval makes them."""
    return [Instance(request_type=kind, doc={}, arguments=given, idx=at) for at, given in enumerate(arguments)]


def test_continuations_are_as_likely(both):
    ours, theirs = (model.loglikelihood(asked("loglikelihood", PAIRS)) for model in both)
    for one, other in zip(ours, theirs, strict=True):
        assert one == (pytest.approx(other[0], abs=NATS), other[1])


def test_whole_texts_are_as_likely(both):
    texts = asked("loglikelihood_rolling", [(SHORT,), (LONG,)])
    ours, theirs = (model.loglikelihood_rolling(texts) for model in both)
    assert ours == pytest.approx(theirs, abs=NATS)


def test_written_answers_are_equal(both):
    how = [{"until": ["."], "max_gen_toks": 12}, {"until": ["lo", "ka"], "max_gen_toks": 8}]
    requests = asked("generate_until", [(text, given) for given in how for text in (SHORT, LONG, "ta")])
    ours, theirs = (model.generate_until(requests) for model in both)
    assert ours == theirs
    assert any(ours)


def test_simple_evaluate_takes_our_model(both, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "{SHORT} {word}"}}\n' for word in ("ta", "no", "ri")))
    (tmp_path / "syllables.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    ours, theirs = (
        simple_evaluate(model, tasks=["syllables"], task_manager=tasks, bootstrap_iters=0)["samples"]["syllables"]
        for model in both
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one["acc"] == other["acc"]
        assert [nats for ((nats, _),) in one["resps"]] == pytest.approx(
            [nats for ((nats, _),) in other["resps"]], abs=NATS
        )
