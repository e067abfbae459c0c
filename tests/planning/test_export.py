"""A plan's shape comes back from what is written for other trainers."""

from __future__ import annotations

import pytest

from sparsedial.planning.candidates import candidates
from sparsedial.planning.export import hugging_face, megatron
from sparsedial.shape.config import read_config
from sparsedial.shape.counts import total_parameters

SHAPES = candidates(vocab_size=1024, context=512)
RECIPE = {"context": 512, "batch": 8, "steps": 100, "learning_rate": 1e-3}
DENSE, SPARSE = 3, len(SHAPES) // 2


@pytest.mark.parametrize("place", [DENSE, SPARSE, 200, len(SHAPES) - 1])
def test_the_config_is_read_back_as_the_same_shape(place):
    shape = SHAPES[place]
    again = read_config(hugging_face(shape))
    assert total_parameters(again) == total_parameters(shape)
    assert (again.experts, again.top_k, again.d_expert) == (shape.experts, shape.top_k, shape.d_expert)


def test_transformers_loads_the_config_and_builds_as_many_parameters():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = SHAPES[DENSE]
    values = hugging_face(shape)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == total_parameters(shape)


def test_megatron_gets_every_size_once():
    shape = SHAPES[SPARSE]
    words, missing = megatron(shape, RECIPE)
    flags = [word for word in words if word.startswith("--")]
    assert len(flags) == len(set(flags))
    given = dict(zip(words, [*words[1:], ""], strict=True))
    assert given["--num-layers"] == str(shape.layers)
    assert given["--num-experts"] == str(shape.experts)
    assert given["--moe-router-topk"] == str(shape.top_k)
    assert given["--moe-shared-expert-intermediate-size"] == str(shape.d_expert)
    assert "--untie-embeddings-and-output-weights" in words
    assert missing


def test_a_dense_plan_names_no_experts():
    words, _ = megatron(SHAPES[DENSE], RECIPE)
    assert not any("moe" in word or "experts" in word for word in words)
