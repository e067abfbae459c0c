"""End tokens come from the files of a checkpoint, in their order; ids without a token are never drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.transformer import initialise
from sparsedial.serving.ending import vocabulary_of
from sparsedial.serving.generation import generate, generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.speculation import speculate
from sparsedial.shape.ladder import Ladder
from sparsedial.text.tokenizer import byte_tokenizer, load_tokenizer
from tests.model.shapes import SPARSE, shaken
from tests.text.sentencepiece import write_tokenizer

GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": [7, 9]}, {"eos_token_id": 5}, {7, 9}),
        ({"eos_token_id": 7}, {"eos_token_id": [5]}, {7}),
        ({"eos_token_id": None}, {"eos_token_id": [5, 6]}, {5, 6}),
        ({}, {"eos_token_id": 0}, {0}),
        (None, {"eos_token_id": 5}, {5}),
        ({"eos_token_id": []}, {"eos_token_id": None}, {2}),
        (None, None, {2}),
    ],
)
def test_the_first_file_that_names_end_tokens_decides(tmp_path: Path, generation: Any, config: Any, ends: set) -> None:
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    assert vocabulary_of(tmp_path, load_tokenizer(write_tokenizer(tmp_path)), 300).ends == ends


@pytest.mark.parametrize("stated", ["</s>", [1, "2"], True, 1.5, {"id": 1}])
def test_an_end_token_that_is_no_number_is_refused_with_its_file(tmp_path: Path, stated: Any) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id=.* is neither"):
        vocabulary_of(tmp_path, byte_tokenizer(), 256)


def test_ids_without_a_token_are_absent(tmp_path: Path) -> None:
    assert vocabulary_of(tmp_path, byte_tokenizer(), 260).absent == (256, 257, 258, 259)
    assert vocabulary_of(tmp_path, byte_tokenizer(), 200).absent == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": [0, 258]}')
    assert vocabulary_of(tmp_path, byte_tokenizer(), 260).absent == (256, 257, 259)  # 258 still ends a text
    (tmp_path / "config.json").unlink()
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    size = tokenizer.vocab_size
    assert vocabulary_of(tmp_path, tokenizer, size + 2).absent == (size, size + 1)


@pytest.mark.parametrize("absent", [(60, 61, 62, 63), (3, 5, 40)], ids=["a run", "scattered"])
def test_absent_ids_are_never_drawn_by_any_way_of_drawing(absent: tuple[int, ...]) -> None:
    dense = initialise(Ladder(vocab_size=64, context=24).shape(16, 8), 0).eval()
    with torch.no_grad():
        for token in absent:  # the likeliest of all
            dense.embedding_VD[token] *= 40
    vocabulary = Vocabulary(absent=absent)
    hot = Sampling(temperature=1e30)
    assert set(generate(dense, [1], 60, GREEDY)) & set(absent)
    assert not set(generate(dense, [1], 60, GREEDY, vocabulary)) & set(absent)
    drawn = [token for row in generate_together(dense, [[1], [2]], 300, hot, vocabulary) for token in row]
    assert not set(drawn) & set(absent)
    assert len(set(drawn)) > 40


def test_speculation_gives_the_greedy_text_without_absent_ids() -> None:
    from dataclasses import replace

    model = shaken(replace(SPARSE, mtp_layers=1))
    free = list(generate(model, [1, 2, 3], 40, GREEDY))
    vocabulary = Vocabulary(absent=tuple(sorted(set(free))[:4]), ends=frozenset())
    text = list(speculate(model, [1, 2, 3], 40, vocabulary))
    assert text == list(generate(model, [1, 2, 3], 40, GREEDY, vocabulary))
    assert not set(text) & set(vocabulary.absent)


def test_greedy_answers_hold_only_tokens_of_the_tokenizer() -> None:
    model = initialise(Ladder(vocab_size=300, context=24).shape(16, 8), 0).eval()
    with torch.no_grad():
        model.embedding_VD[256:] *= 40
    (answer,) = Scorer(model).greedy_until([list(b"the")], byte_tokenizer(), [], 20)
    assert len(answer) > 0
