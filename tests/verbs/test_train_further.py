"""`train CHECKPOINT`: a folder of any family is trained further, and stays what it is in all but its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.digests import digest_of
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import initialise
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs.execute import execute
from sparsedial.runs.job import Job
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import open_text
from sparsedial.text.tokenizer import byte_tokenizer, load_tokenizer
from tests.model.shapes import FAMILIES
from tests.model.test_families import theirs_from
from tests.runs.test_execute import killed  # noqa: F401  # a fixture
from tests.runs.tiny import RECIPE, finish

FILES = {"chat_template.jinja": "{{ x }}", "generation_config.json": '{"eos_token_id": 0}', "LICENSE": "free"}
IDS = torch.arange(20)[None]


def checkpoint_of(folder: Path, family: str = "glm4_moe", **changes) -> Path:
    """A folder of a small model with a vocabulary of bytes, and what else published folders hold."""
    shape = replace(FAMILIES[family], vocab_size=256, context=32, **changes)
    save_checkpoint(initialise(shape, 3), folder, tokenizer=byte_tokenizer())
    for name, content in FILES.items():
        (folder / name).write_text(content)
    (folder / "sparsedial.json").unlink()  # as another's folder
    return folder


def further(checkpoint: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    sizes = ("--recipe.batch", "4", "--tokens", "2560", "--threads", "1", "--json")
    return ["train", str(checkpoint), "--text", str(corpus), "--out", str(out), *sizes, *more]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["glm4_moe", "olmoe", "qwen2_moe", "deepseek_v3", "llama", "qwen3"])
def test_a_folder_of_every_kind_is_trained_further_and_keeps_the_rest(corpus, tmp_path, capsys, family):
    checkpoint = checkpoint_of(tmp_path / "first", family)
    before = digest_of(checkpoint)
    sparse = FAMILIES[family].experts > 0
    assert main(further(checkpoint, corpus, tmp_path / "out", *(("--dial", "1,2") if sparse else ()))) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert digest_of(checkpoint) == before
    assert answer["start"] == {"path": str(checkpoint), "digest": before, "family": load_family(checkpoint)}
    assert said.err.startswith("reading the text\n")
    assert f"goes on from {checkpoint} (digest {before[:16]})" in said.err
    assert (answer["recipe"]["learning_rate"], answer["recipe"]["context"]) == (1e-4, 32)
    folder = Path(answer["checkpoint"])
    for name in (*FILES, "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes(), name
    first, config = (json.loads((each / "config.json").read_text()) for each in (checkpoint, folder))
    assert config.pop("sparsedial_trained_for", None) == (
        {"top_k_experts": [1, 2], "by": "step", "end": "highest"} if sparse else None
    )
    assert config == first
    ours = load(folder)
    assert ours.shape == load(checkpoint).shape
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS), theirs_from(folder)(IDS).logits, atol=1e-5, rtol=1e-5)


def load_family(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def test_it_begins_with_the_weights_of_the_checkpoint_and_gets_better(corpus, tmp_path, capsys):
    checkpoint, out = checkpoint_of(tmp_path / "first"), tmp_path / "out"
    assert main(further(checkpoint, corpus, out, "--recipe.learning_rate", "3e-3")) == 0
    run = json.loads(capsys.readouterr().out)
    text = open_text(out / "text")
    assert text.tokenizer.digest == load_tokenizer(checkpoint).digest
    start = evaluate_text(load(checkpoint), text, "test", context=32).loss
    assert run["test_loss"] < start - 0.05
    assert run["test_loss"] == pytest.approx(
        evaluate_text(load(Path(run["checkpoint"])), text, "test", context=32).loss
    )
    again = out / run["checkpoint"]
    first = evaluate_text(load(again), text, "test", context=32).loss
    assert main(further(again.resolve(), corpus, tmp_path / "more", "--recipe.learning_rate", "3e-3")) == 0
    assert json.loads(capsys.readouterr().out)["test_loss"] < first


def test_a_checkpoint_in_bfloat16_is_learned_and_written_in_float32_and_says_so(corpus, tmp_path, capsys):
    shape = replace(FAMILIES["qwen3_moe"], vocab_size=256)
    stream = [halved(tensor) for tensor in stream_of(initialise(shape, 0))]
    write_checkpoint(tmp_path / "first", shape, stream, byte_tokenizer())
    assert json.loads((tmp_path / "first" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert main(further(tmp_path / "first", corpus, tmp_path / "out")) == 0
    folder = Path(json.loads(capsys.readouterr().out)["checkpoint"])
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "float32"
    assert {tensor.dtype for tensor in read_tensors(folder)} == {torch.float32}


def halved(tensor: NamedTensor) -> NamedTensor:
    return replace(tensor.mapped(lambda values: values.bfloat16()), dtype=torch.bfloat16)


def read_tensors(folder: Path):
    from sparsedial.model.reading import read_checkpoint

    return read_checkpoint(folder).tensors


def test_a_folder_in_our_own_format_is_trained_further(corpus, tmp_path, capsys):
    checkpoint = checkpoint_of(tmp_path / "first", gate="softmax")
    assert main(further(checkpoint, corpus, tmp_path / "out", "--dial", "1,2", "--dial-by", "layer")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["start"]["family"] == "sparsedial"
    folder = Path(answer["checkpoint"])
    assert json.loads((folder / "config.json").read_text())["sparsedial_trained_for"]["by"] == "layer"
    assert load(folder).shape == load(checkpoint).shape


def test_what_was_trained_for_a_dial_and_then_for_one_number_says_so_no_more(corpus, tmp_path, capsys):
    out = tmp_path / "one"
    assert main(further(checkpoint_of(tmp_path / "first"), corpus, out, "--dial", "1,2")) == 0
    assert main(further((out / "checkpoint").resolve(), corpus, tmp_path / "two")) == 0
    config = json.loads((tmp_path / "two" / "checkpoint" / "config.json").read_text())
    assert "sparsedial_trained_for" not in config
    capsys.readouterr()


@pytest.mark.usefixtures("killed")
def test_a_run_that_goes_on_from_a_checkpoint_is_resumed_bit_for_bit(small_text, tmp_path: Path):
    folder = checkpoint_of(tmp_path / "first")
    shape = load(folder).shape
    start = CheckpointName(path=str(folder), digest=digest_of(folder), family="glm4_moe")
    job = Job(
        shape=shape, recipe=RECIPE, text_digest=small_text.digest, tokenizer="", start=start,
        dial=TrainedFor(top_k_experts=(1, 2), by="step"),
    )  # fmt: skip
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    finish(execute(job, small_text, whole, keep_checkpoint=True))
    list(islice(execute(job, small_text, parts, save_seconds=0.0), 17))
    finish(execute(job, small_text, parts, keep_checkpoint=True))
    weights = [(each.checkpoint(job.hash) / "model.safetensors").read_bytes() for each in (whole, parts)]
    assert weights[0] == weights[1]
    assert read(whole.path(job.hash) / "run.json", Run).start == start


def test_the_digest_of_the_start_names_a_run_and_its_place_does_not():
    job = Job(shape=FAMILIES["glm4_moe"], recipe=RECIPE, text_digest="", tokenizer="")
    here = replace(job, start=CheckpointName(path="/here", digest="a", family="glm4_moe"))
    there = replace(job, start=CheckpointName(path="/there", digest="a", family="glm4_moe"))
    other = replace(job, start=CheckpointName(path="/here", digest="b", family="glm4_moe"))
    assert here.hash == there.hash
    assert len({job.hash, here.hash, other.hash}) == 3
    assert job.trunk != here.trunk


@pytest.mark.parametrize(
    ("flags", "says", "hint"),
    [
        ("--shape.top_k 4", "--shape.top_k: 4 contradicts", "its config.json gives a new model"),
        ("--shape.layers 7", "--shape.layers: 7 contradicts", ""),
        ("--tokenizer bpe:300", "--tokenizer: 'bpe:300' is asked for, and", "leave --tokenizer out"),
        ("--dial 2,4", "the highest number is 4, and the model's tokens visit top_k=2", "end with 2"),
        ("--recipe.context 64", "context=64 is more than the 32 positions", ""),
    ],
)
def test_what_contradicts_a_checkpoint_is_one_line_before_the_text_is_read(tmp_path, capsys, flags, says, hint):
    checkpoint = checkpoint_of(tmp_path / "first")
    assert main(further(checkpoint, Path("/nowhere"), tmp_path / "out", *flags.split())) == 2
    said = capsys.readouterr().err
    assert says in said.splitlines()[0]
    assert hint in said
    assert not (tmp_path / "out").exists()


def test_a_size_that_repeats_the_checkpoints_own_is_no_contradiction(corpus, tmp_path, capsys):
    given = further(checkpoint_of(tmp_path / "first"), corpus, tmp_path / "out", "--shape.top_k", "2", "--dry-run")
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 2560


def test_a_dense_checkpoint_has_no_dial(tmp_path, capsys):
    given = further(checkpoint_of(tmp_path / "first", "llama"), Path("/nowhere"), tmp_path / "out", "--dial", "2,4")
    assert main(given) == 2
    assert "--dial: a dense model has no experts" in capsys.readouterr().err


def test_a_damaged_folder_an_output_inside_it_and_the_outputs_own_link_are_refused(corpus, tmp_path, capsys):
    checkpoint = checkpoint_of(tmp_path / "first")
    assert main(further(checkpoint, corpus, checkpoint / "out")) == 2
    assert "lies in the checkpoint" in capsys.readouterr().err
    assert main(further(checkpoint, corpus, tmp_path / "out")) == 0
    assert main(further(tmp_path / "out" / "checkpoint", corpus, tmp_path / "out")) == 2
    assert "is a link that this run would move" in capsys.readouterr().err
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(further(checkpoint, corpus, tmp_path / "other")) == 2
    assert "not readable as safetensors" in capsys.readouterr().err


def test_its_config_alone_is_a_new_model_of_that_shape(corpus, tmp_path, capsys):
    checkpoint = checkpoint_of(tmp_path / "first")
    given = further(checkpoint / "config.json", corpus, tmp_path / "out", "--recipe.learning_rate", "1e-3")
    assert main(given) == 0
    assert json.loads(capsys.readouterr().out)["start"] is None


def test_python_takes_a_folder(corpus, tmp_path):
    checkpoint = checkpoint_of(tmp_path / "first")
    run = sparsedial.train(
        str(checkpoint), text=str(corpus), recipe={"batch": 4}, tokens=640, threads=1, out=tmp_path / "out"
    )
    assert run.start.digest == digest_of(checkpoint)
