"""A model at a setting of its dial computes what `transformers` does with another `num_experts_per_tok`."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model import transformer
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.decoder import Decoder
from sparsedial.model.greedy import go_on
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting, side_by_side
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.speculation import GREEDY, Drafts, speculate
from sparsedial.shape.turned import Turned, parse_turned
from tests.model.shapes import DENSE, FAMILIES, UNEQUAL, shaken
from tests.model.test_families import CLOSE, IDS, assert_same, theirs_from

SPARSE = {name: shape for name, shape in FAMILIES.items() if shape.experts}
COUNTS = (1, 2, 3)  # fewer and more than the shapes were trained with
PREDICTING = replace(FAMILIES["deepseek_v3"], mtp_layers=1)


def edited(folder: Path, **changes: object) -> None:
    """Change a folder's configuration, as users of `transformers` do."""
    (folder / "sparsedial.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    assert set(changes) <= set(config)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("family", SPARSE)
@torch.no_grad()
def test_another_k_is_what_transformers_computes_with_that_many_experts(tmp_path: Path, family):
    model = shaken(SPARSE[family])
    save_checkpoint(model, tmp_path / "c")
    for count in COUNTS:
        edited(tmp_path / "c", num_experts_per_tok=count)
        assert_same(at_setting(model, parse_turned(f"k={count}")), theirs_from(tmp_path / "c"))


def test_another_k_is_another_model():
    model = shaken(FAMILIES["olmoe"])
    logits = [at_setting(model, parse_turned(f"k={count}"))(IDS) for count in COUNTS]
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(logits))


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "glm4_moe, first layer dense"])
@torch.no_grad()
def test_a_skipped_layer_is_what_transformers_computes_without_it(tmp_path: Path, family):
    model, theirs = shaken(SPARSE[family]), tmp_path / "c"
    save_checkpoint(model, theirs)
    other = theirs_from(theirs)
    last = model.shape.layers - 1
    other.model.layers = other.model.layers[:last]
    other.config.num_hidden_layers = last
    turned = at_setting(model, parse_turned(f"skip={last}"))
    torch.testing.assert_close(turned(IDS), other(IDS, use_cache=False).logits, **CLOSE)


def whole_and_decoded(model: Transformer, ids: torch.Tensor) -> None:
    """Each step of the decoder gives the logits of a call on the whole sequence."""
    decoder = Decoder(model, len(ids), ids.shape[1])
    expected = model(ids)
    torch.testing.assert_close(decoder.read(ids[:, :5].tolist()), expected[:, 4], atol=2e-5, rtol=1e-5)
    for at in range(5, ids.shape[1]):
        torch.testing.assert_close(decoder.step(ids[:, at].tolist()), expected[:, at], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("setting", ["k=1", "k=3", "p=0.4", "skip=0", "k=1,skip=1"])
@pytest.mark.parametrize("family", SPARSE)
@torch.no_grad()
def test_decoding_gives_the_logits_of_the_whole_sequence_at_every_setting(family, setting):
    shape = replace(SPARSE[family], layers=max(3, SPARSE[family].layers))
    if shape.dense_layers and setting.endswith("skip=1"):
        shape = replace(shape, layers=4)
    whole_and_decoded(at_setting(shaken(shape), parse_turned(setting)), IDS)


@pytest.mark.parametrize(
    ("shape", "setting"),
    [
        (UNEQUAL, "k=1/2/3"),
        (UNEQUAL, "k=2/1/1,skip=2"),
        (FAMILIES["qwen3_moe, some layers dense"], "k=3/1,skip=2"),
        (FAMILIES["qwen2_moe, windows from the second layer on"], "skip=0"),
        (replace(DENSE, layers=4), "skip=0+2"),
    ],
)
@torch.no_grad()
def test_layers_of_their_own_numbers_are_those_of_a_model_built_so(shape, setting):
    """The blocks that stay, one after the other, with as many experts as the setting says."""
    model, turned = shaken(shape), parse_turned(setting)
    view = at_setting(model, turned)
    whole_and_decoded(view, IDS)
    assert len(view.blocks) == len(turned.kept(shape))
    counts = [counts for layer, counts in turned.counts(shape).items() if layer in turned.kept(shape)]
    assert [layer.sizes.top_k for layer in view.sparse_feed_forwards] == counts
    built = Transformer(view.shape).eval()
    built.load_state_dict(view.state_dict())
    torch.testing.assert_close(view(IDS), built(IDS), **CLOSE)
    for number, block in zip(turned.kept(shape), view.blocks, strict=True):
        for one, other in zip(block.parameters(), model.blocks[number].parameters(), strict=True):
            assert one is other


def test_a_setting_computes_no_table_of_its_own(monkeypatch):
    """Its tensors are without memory until they are shared; arithmetic on such would import much of PyTorch."""
    model = shaken(FAMILIES["qwen3_moe"])
    monkeypatch.setattr(transformer, "rotary_table", None)
    at_setting(model, parse_turned("k=1"))


@torch.no_grad()
def test_a_setting_shares_weights_and_tables_and_leaves_the_model_as_it_is():
    model = shaken(replace(FAMILIES["qwen3_moe"], context=6000))
    before = model(IDS)
    turned = at_setting(model, parse_turned("k=1"))
    turned(torch.zeros(1, 5000, dtype=torch.long))  # beyond the rotary table of a new model
    assert turned.cosine_SC is model.cosine_SC
    assert len(model.cosine_SC) >= 5000
    assert torch.equal(model(IDS), before)
    model.norm_D.mul_(2)
    torch.testing.assert_close(turned(IDS), at_setting(model, parse_turned("k=1"))(IDS))
    assert at_setting(model, Turned()) is model


@pytest.mark.parametrize("setting", ["k=1", "k=4", "skip=1", "k=3/1", "p=0.5"])
@torch.no_grad()
def test_speculation_and_its_module_follow_the_setting(setting):
    model = shaken(PREDICTING)
    turned, drafts = at_setting(model, parse_turned(setting)), Drafts()
    prompt = IDS[0, :6].tolist()
    greedy = [token for (token,) in go_on(turned, [prompt], 20)]
    assert list(speculate(turned, prompt, 20, drafts=drafts)) == greedy
    assert drafts.made
    module = turned.predictions[0].block.feed_forward  # type: ignore[union-attr]
    assert module.sizes.top_k == turned.shape.top_k
    assert module.layer == turned.shape.layers
    assert module.w_in_EDH is model.predictions[0].block.feed_forward.w_in_EDH  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "family", ["qwen3_moe", "olmoe", "deepseek_v3, groups and YaRN", "glm4_moe, first layer dense"]
)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, seed=3)])
@torch.no_grad()
def test_each_row_of_a_batch_is_what_it_is_alone_at_its_setting(family, sampling):
    """Rows begin alike in part, so that what they share may be read once, and only where they visit as many experts."""
    model, ids = shaken(replace(SPARSE[family], context=128)), IDS.repeat(1, 4).tolist()
    prompts = [ids[0][:50], ids[0][:60], ids[1][:7], ids[0][:60], ids[0][:3]]
    settings = [parse_turned(text) for text in ("k=1", "k=3", "default", "k=1", "k=4")]
    rows = list(generate_together(model, prompts, 12, sampling, settings=settings))
    for number, (prompt, setting) in enumerate(zip(prompts, settings, strict=True)):
        alone = replace(sampling, seed=sampling.seed + number)
        expected = [token for (token,) in generate_together(at_setting(model, setting), [prompt], 12, alone)]
        assert [row[number] for row in rows] == expected


@torch.no_grad()
def test_rows_begin_at_their_own_k_even_where_they_begin_alike():
    model, prompt = shaken(replace(FAMILIES["qwen3_moe"], context=128)), IDS.repeat(1, 4)[0].tolist()
    settings = [parse_turned(text) for text in ("k=1", "k=3", "k=1")]
    view, top_k_LB = side_by_side(model, settings)
    decoder = Decoder(view, 3, 128)
    logits_BV = decoder.begin([prompt, prompt, [*prompt, 5]], top_k_LB)
    ends = [prompt, prompt, [*prompt, 5]]
    for logits_V, setting, ids in zip(logits_BV, settings, ends, strict=True):
        torch.testing.assert_close(logits_V, at_setting(model, setting)(torch.tensor([ids]))[0, -1], **CLOSE)


@torch.no_grad()
def test_experts_beyond_k_are_not_computed_whole_or_step_by_step_or_row_by_row():
    """They hold no numbers: what is multiplied by a weight of zero would still be none."""
    model = shaken(FAMILIES["deepseek_v3"])
    for layer in model.sparse_feed_forwards:
        assert layer.bias_E is not None
        layer.bias_E[0] = 100.0  # every token's first choice
        layer.w_in_EDH[1:] = float("nan")
    for setting, finite in (("k=1", True), ("k=2", False)):
        turned = at_setting(model, parse_turned(setting))
        assert bool(turned(IDS).isfinite().all()) == finite
        decoder = Decoder(turned, 2, 17)
        assert bool(decoder.read(IDS[:, :16].tolist()).isfinite().all()) == finite
        assert bool(decoder.step(IDS[:, 16].tolist()).isfinite().all()) == finite
    view, top_k_LB = side_by_side(model, [parse_turned("k=1"), parse_turned("k=3")])
    decoder = Decoder(view, 2, 17)
    for logits_BV in (decoder.begin(IDS[:, :16].tolist(), top_k_LB), decoder.step([1, 2], None, top_k_LB)):
        assert logits_BV.isfinite().all(1).tolist() == [True, False]


def test_rows_of_other_layers_or_shares_do_not_go_together():
    model = shaken(FAMILIES["qwen3_moe"])
    for other in ("skip=0", "k=1,p=0.5"):
        with pytest.raises(UserError, match="may differ in k, not in p, neurons or skipped layers"):
            side_by_side(model, [parse_turned("k=1"), parse_turned(other)])
    side_by_side(model, [parse_turned("k=1,skip=0"), parse_turned("k=2,skip=0,p=1")])
    with pytest.raises(UserError, match="2 settings were given for 1 prompts"):
        next(generate_together(model, [[1]], 1, GREEDY, settings=[Turned(), Turned()]))
