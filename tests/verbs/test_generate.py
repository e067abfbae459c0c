"""`generate` writes text as it comes and begins and ends it as its checkpoint says; `evaluate` scores all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.kernels import native
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.digests import SUMMARY
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.tokenizer import byte_tokenizer, load_tokenizer
from tests.model.test_narrow import stored
from tests.text.sentencepiece import KINDS, puts_first, write_tokenizer

Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Writes a folder with an untrained model of so many ids; without a kind its tokenizer is `bytes`."""

    def write(vocab_size: int, kind: str | None = None, settings: dict | None = None, **changes: object) -> Path:
        folder = tmp_path / "checkpoint"
        model = initialise(Ladder(vocab_size=vocab_size, context=64).shape(16, 8), 0).eval()
        save_checkpoint(model, folder, byte_tokenizer() if kind is None else None)
        (folder / SUMMARY).unlink()  # as in another's folder
        if kind is not None:
            write_tokenizer(folder, kind, settings, **changes)
        return folder

    return write


def size_of(folder: Path) -> int:
    return load_tokenizer(write_tokenizer(folder)).vocab_size


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_streamed_text_is_the_prompt_and_the_whole_text(
    checkpoint: Checkpoint, tmp_path: Path, capsys, kind: str | None, seed: str
) -> None:
    folder = checkpoint(size_of(tmp_path / "size") + 40, kind)  # more ids than tokens
    words = ["generate", str(folder), "the cat", "--tokens", "60", "--temperature", "2", "--seed", seed]
    answer = json.loads(said([*words, "--json"], capsys))
    assert said(words, capsys) == "the cat" + answer["text"] + "\n"
    assert answer["prompt_tokens"] == (7 if kind is None else 2)


def test_text_is_written_as_it_comes(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"temperature": 1.0, "tokens": 20}
    told: list[str] = []
    from sparsedial.verbs.generate.generate import GenerateSettings, generate

    answer = generate(GenerateSettings(checkpoint=checkpoint(256), prompt="the", **settings), told.append)
    assert told[0] == "the"
    assert len(told) > 5
    assert "".join(told) == "the" + answer.text


def test_weights_are_held_as_asked_or_as_stored_and_an_answer_says_so(checkpoint: Checkpoint, tmp_path, capsys):
    folder, texts = checkpoint(256), []
    for asked in ("float32", "bfloat16"):
        words = ["generate", str(folder), "the cat", "--tokens", "9", "--temperature", "0", "--dtype", asked]
        assert json.loads(said([*words, "--json"], capsys))["dtype"] == asked
        assert main(words) == 0
        assert capsys.readouterr().err.endswith(f"; weights in {asked}\n")
    assert json.loads(said([*words[:7], "--json"], capsys))["dtype"] == "float32", "as they are stored"
    narrow = stored(load(folder), tmp_path / "narrow", byte_tokenizer())
    for asked in ([], ["--dtype", "float32"]):
        answer = json.loads(said(["generate", str(narrow), *words[2:7], *asked, "--json"], capsys))
        assert answer["dtype"] == ("bfloat16" if not asked and native.module is not None else "float32")
        texts.append(answer["text"])
    assert texts[0] == texts[1]
    assert main(["generate", str(folder), "the cat", "--dtype", "int8"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --dtype: weights are not held in 'int8'\nhint: one of float32, bfloat16")


def test_a_prompt_of_which_the_beginning_is_not_read_is_said_to_be_one(checkpoint: Checkpoint, capsys) -> None:
    folder = checkpoint(256)
    for prompt, note in (("a" * 64, ""), ("a" * 65, "note: the prompt has 65 tokens, and the model reads the last 64")):
        assert main(["generate", str(folder), prompt, "--tokens", "2", "--json"]) == 0
        said = capsys.readouterr().err
        assert said.startswith(note)
        assert bool(said) == bool(note)


def test_in_python_nothing_is_written(checkpoint: Checkpoint, capsys) -> None:
    assert sparsedial.generate(checkpoint(256), "the", tokens=3)["tokens"] <= 3
    assert capsys.readouterr().out == ""


def test_ctrl_c_keeps_what_was_written(checkpoint: Checkpoint) -> None:
    words = ["generate", str(checkpoint(256)), "the cat", "--tokens", "1000000", "--temperature", "3"]
    (checkpoint(256) / "generation_config.json").write_text('{"eos_token_id": 999}')  # so that it goes on
    process = subprocess.Popen(
        [sys.executable, "-m", "sparsedial.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(sparsedial.__file__).parents[1])},
    )
    assert process.stdout is not None
    began = process.stdout.read(200)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (began + rest).decode(errors="replace").startswith("the cat")
    assert rest.endswith(b"\n")
    assert errors.decode() == "stopped; what was written is all there is\n"


def test_special_tokens_in_a_prompt_are_those_tokens(checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    folder = checkpoint(size_of(tmp_path / "size"), "sequence", {"add_bos_token": True})
    for prompt, tokens in (("the cat", 2), ("the cat <|eot|>", 4)):
        words = ["generate", str(folder), prompt, "--tokens", "1", "--json"]
        assert json.loads(said(words, capsys))["prompt_tokens"] == tokens


def test_a_bos_of_the_tokenizer_itself_comes_first(checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    folder = checkpoint(size_of(tmp_path / "size"), "metaspace", post_processor=puts_first("<s>", 1))
    answer = json.loads(said(["generate", str(folder), "the cat", "--tokens", "1", "--json"], capsys))
    assert answer["prompt_tokens"] == 3


def test_the_checkpoint_says_which_tokens_end_a_text(checkpoint: Checkpoint, capsys) -> None:
    folder = checkpoint(256)
    words = ["generate", str(folder), "the", "--tokens", "50", "--temperature", "0", "--json"]
    free = json.loads(said(words, capsys))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(256))}))
    assert json.loads(said(words, capsys))["tokens"] == 0
    assert free["tokens"] > 0


def test_a_chat_shows_the_answer_alone(checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    template = "{% for m in messages %}<|eot|>{{ m.content }}</s>{% endfor %}<|eot|>"
    folder = checkpoint(size_of(tmp_path / "size"), "sequence", {"chat_template": template, "add_bos_token": True})
    words = ["generate", str(folder), "the cat", "--tokens", "5", "--chat"]
    answer = json.loads(said([*words, "--json"], capsys))
    assert answer["prompt_tokens"] == 5  # <|eot|> the cat </s> <|eot|>
    assert said(words, capsys) == answer["text"] + "\n"


def test_a_chat_without_a_template_is_refused(checkpoint: Checkpoint, capsys) -> None:
    assert main(["generate", str(checkpoint(256)), "hello", "--chat"]) == 2
    error = capsys.readouterr().err
    assert "error: --chat: " in error
    assert "has no chat template" in error
    assert "leave out --chat" in error


def test_a_tokenizer_larger_than_the_model_is_named_as_such(checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    folder = checkpoint(270, "sequence")
    (tmp_path / "text.txt").write_text("the cat")
    for words in (
        ["generate", str(folder), "the cat"],
        ["evaluate", str(folder), "--text", str(tmp_path / "text.txt")],
    ):
        assert main(words) == 2
        assert "error: tokenizer and model do not fit each other: " in capsys.readouterr().err


def test_evaluate_scores_every_token_and_says_what_was_skipped(checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    (tmp_path / "short.txt").write_text("a few words")
    words = ["evaluate", str(checkpoint(256)), "--text"]
    scored = json.loads(said([*words, str(tmp_path / "short.txt"), "--json"], capsys))
    assert (scored["tokens"], scored["bytes"]) == (12, 11)
    assert scored["skipped"] == {"lines": 0, "named": []}
    (tmp_path / "some.jsonl").write_text('{"text": "a few words"}\n' * 150 + "{\n")
    assert main([*words, str(tmp_path / "some.jsonl"), "--json"]) == 0
    captured = capsys.readouterr()
    scored = json.loads(captured.out)
    assert scored["bytes"] == 150 * 11
    assert scored["skipped"]["lines"] == 1
    assert captured.err.startswith("skipped 1 line of the text: ")
    assert "some.jsonl, line 151: not JSON" in captured.err
