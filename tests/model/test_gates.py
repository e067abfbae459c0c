"""A share of the neurons of dense layers: the right ones take part, and the compiled kernel takes the model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model.decoder import Decoder, compiles
from sparsedial.model.digests import digest_of
from sparsedial.model.gates import SHARES, Gates, Threshold, gates_of, read_gates, shares_of_parts, write_gates
from sparsedial.model.transformer import DenseFeedForward, Routing, Transformer
from sparsedial.model.turned import at_setting, side_by_side
from sparsedial.pruning.gates import measured_gates
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.speculation import speculate
from sparsedial.shape.turned import Turned, parse_turned
from tests.model.shapes import DENSE, FAMILIES, GROUPED, UNEQUAL, shaken
from tests.pruning.planted import LETTERS, saved, text_of, with_clusters

HALF = parse_turned("neurons=0.5")
WIDE = replace(GROUPED, d_model=72, heads=3, kv_heads=1, head_dim=24, d_ff=1100, vocab_size=61)
SHAPES = {
    "dense": DENSE,
    "grouped": GROUPED,
    "wide": WIDE,
    "odd": FAMILIES["mistral, heads that do not divide its width"],
    "windows": FAMILIES["qwen2, windows from the second layer on"],
    "some layers dense": FAMILIES["qwen3_moe, some layers dense"],
    "latent": FAMILIES["deepseek_v3, groups and YaRN"],
    "unequal": UNEQUAL,
}


def random_windows(model: Transformer, windows: int = 16, seed: int = 1) -> Tensor:
    """Ids; those of another seed do not meet thresholds, which are scores of a calibration's neurons, exactly."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(model.shape.vocab_size, (windows, 17), generator=draw)


def dense_parts(model: Transformer) -> Iterator[tuple[int, DenseFeedForward]]:
    for number, block in enumerate(model.blocks):
        if isinstance(block.feed_forward, DenseFeedForward):
            yield number, block.feed_forward


def losing(model: Transformer, windows_WS1: Tensor) -> float:
    with torch.no_grad():
        logits_WSV = model(windows_WS1[:, :-1])
    return float(functional.cross_entropy(logits_WSV.flatten(0, 1), windows_WS1[:, 1:].flatten()))


def shares_reached(model: Transformer, windows_WS1: Tensor, monkeypatch) -> list[tuple[float, float]]:
    """The shares of ups and of downs that are read, layer by layer."""
    seen: list[tuple[float, float]] = []
    plain = Threshold.activations

    def watched(self: Threshold, h_BSH: Tensor) -> Tensor:
        a_BSF = plain(self, h_BSH)
        open_BSF = self.open(h_BSH.chunk(2, dim=-1)[0])
        seen.append((float(open_BSF.float().mean()), float((a_BSF != 0).float().mean())))
        return a_BSF

    monkeypatch.setattr(Threshold, "activations", watched)
    with torch.no_grad(), native.set_aside():
        model(windows_WS1[:, :-1])
    monkeypatch.undo()
    return seen


def with_closed_gates() -> tuple[Transformer, Tensor]:
    """Each letter has 4 of 36 neurons of its own, whose gates all other letters close; 4 more are open for all."""
    model, owners = with_clusters()
    gate_DF = model.blocks[-1].feed_forward.w_in_DH.chunk(2, 1)[0]
    with torch.no_grad():
        for neuron, owner in enumerate(owners):
            closing = [axis for axis in range(len(LETTERS) + 1) if axis != owner and owner >= 0]
            gate_DF[closing, neuron] = -3.0
    return model, torch.tensor(owners)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    text = text_of(tmp_path_factory.mktemp("letters") / "text.txt", LETTERS[:4], LETTERS[4:]).read_bytes()
    return torch.tensor(list(text[: len(text) // 33 * 33])).view(-1, 33)


def test_neurons_that_a_token_closes_can_be_left_out_and_not_for_good(letters):
    model, owners = with_closed_gates()
    gates, before = measured_gates(model, letters[::2]), losing(model, letters[1::2])
    quarter = at_setting(model, parse_turned("neurons=0.25"), gates)
    assert losing(quarter, letters[1::2]) == pytest.approx(before, abs=1e-6)
    tenth = at_setting(model, parse_turned("neurons=0.05"), gates)
    assert losing(tenth, letters[1::2]) > before + 0.3, "the open ones are needed"
    last = model.blocks[-1].feed_forward
    with torch.no_grad():
        last.w_out_FD[(owners >= 2)] = 0  # the same share for all tokens
    assert losing(model, letters[1::2]) > before + 0.3


@pytest.mark.parametrize("share", [0.9, 0.55, 0.505, 0.2])
def test_the_share_that_is_asked_for_takes_part_where_it_was_measured(share, monkeypatch):
    model = shaken(replace(DENSE, layers=3, d_ff=200))
    windows_WS1 = random_windows(model)
    turned = at_setting(model, Turned(neurons=share), measured_gates(model, windows_WS1))
    ups, downs = zip(*shares_reached(turned, windows_WS1, monkeypatch), strict=True)
    both = [(one + other) / 2 for one, other in zip(ups, downs, strict=True)]
    assert both[0] == pytest.approx(share, abs=0.003), "this layer reads what it read then"
    assert both == pytest.approx([share] * 3, abs=0.06)
    assert (ups[0], downs[0]) == pytest.approx(shares_of_parts(share), abs=0.003)


def test_a_neurons_weight_is_its_typical_up_times_what_it_writes():
    model = shaken(replace(DENSE, layers=1))
    part, windows_WS1 = model.blocks[0].feed_forward, random_windows(model)
    with torch.no_grad():
        part.w_out_FD[3] *= 8
        part.w_in_DH[:, part.w_in_DH.shape[1] // 2 + 5] *= 4  # the up of neuron 5
        model.blocks[0].feed_forward.w_in_DH[:, 7] = 0  # the gate of neuron 7 is never open
    gates = measured_gates(model, windows_WS1)
    with torch.no_grad():
        part.w_out_FD[3] /= 8
        part.w_in_DH[:, part.w_in_DH.shape[1] // 2 + 5] /= 4
    bare = measured_gates(model, windows_WS1)
    ratio_2F = gates.weights[0] / bare.weights[0]
    assert ratio_2F[0, [3, 5, 7]].tolist() == pytest.approx([8, 4, 1], rel=1e-4)
    assert ratio_2F[1, [3, 5, 7]].tolist() == pytest.approx([8, 1, 1], rel=1e-4), "what it writes alone"
    half = gates.at(0, 0.5, torch.device("cpu"))
    assert not half.open(torch.zeros(1, 1, ratio_2F.shape[1])).any()


def decoded_alike(model: Transformer, ids: Tensor) -> None:
    """Each step gives the logits of the whole sequences read at once by the readable twin."""
    decoder = Decoder(model, len(ids), 16)
    with native.set_aside():
        expected = model(ids)
    decoder.read(ids[:, :5].tolist())
    for at in range(5, ids.shape[1]):
        torch.testing.assert_close(decoder.step(ids[:, at].tolist()), expected[:, at], atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [0.89, 0.31, 0.05])  # between kept shares: no threshold is a score
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_compiled_decoding_leaves_out_the_neurons_that_the_model_leaves_out(shape, share, threads):
    """One sequence, an even and an odd number of them; each logit is that of the whole sequence read at once.

    Five sequences together have most neurons open but at the lowest share.
    """
    model, before = shaken(shape), torch.get_num_threads()
    turned = at_setting(model, Turned(neurons=share), measured_gates(model, random_windows(model)))
    torch.set_num_threads(threads)
    for sequences in (1, 2, 5):
        decoded_alike(turned, random_windows(model, sequences, seed=2)[:, :9])
    torch.set_num_threads(before)
    ids = random_windows(model, 1)
    assert (turned(ids) - model(ids)).abs().max() > 1e-3, "it makes a difference"
    assert compiles(turned)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("share", [0.02, 0.5])
@torch.no_grad()
def test_more_threads_than_some_of_them_find_neurons_for(share):
    model, before = shaken(replace(DENSE, d_ff=20)), torch.get_num_threads()
    turned = at_setting(model, Turned(neurons=share), measured_gates(model, random_windows(model)))
    torch.set_num_threads(5)
    decoded_alike(turned, random_windows(model, 3, seed=2)[:, :7])
    torch.set_num_threads(before)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_weights_of_neurons_that_are_left_out_are_not_read(threads):
    """They hold no numbers: what is multiplied by zero would still be none."""
    model = shaken(replace(DENSE, layers=1, d_ff=40))
    gates, part = measured_gates(model, random_windows(model)), model.blocks[0].feed_forward
    closed, quiet = [3, 17, 39], [4, 16, 30]
    gates.weights[0][0, closed] = 0.0
    part.w_in_DH[:, [40 + neuron for neuron in closed]] = float("nan")
    gates.weights[0][1, quiet] = 0.0  # the ups of these are read
    part.w_out_FD[closed + quiet] = float("nan")
    turned, before = at_setting(model, HALF, gates), torch.get_num_threads()
    ids = random_windows(model, 2, seed=2)[:, :6]
    torch.set_num_threads(threads)
    decoder = Decoder(turned, 2, 8)
    assert decoder.read(ids[:, :5].tolist()).isnan().all(), "the model multiplies by zero"
    got = decoder.step(ids[:, 5].tolist())
    torch.set_num_threads(before)
    assert bool(got.isfinite().all())


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize(("sequences", "most"), [(1, 38), (2, 38), (3, 28), (7, 28)])
@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_where_most_neurons_are_open_all_are_multiplied_and_nothing_changes(sequences, most, threads):
    """At the switch, `most` of 40 neurons, and one above it: downs that hold no numbers show which are read."""
    ids, before = random_windows(shaken(DENSE), sequences, seed=2)[:, :9], torch.get_num_threads()
    torch.set_num_threads(threads)
    for count in (most, most + 1):
        model = shaken(replace(DENSE, layers=1, d_ff=40))
        gates, closed = measured_gates(model, random_windows(model)), torch.arange(40) >= count
        gates.weights[0][0] = torch.where(closed, 0.0, 1e9)
        turned = at_setting(model, HALF, gates)
        decoded_alike(turned, ids)
        decoder = Decoder(turned, sequences, 16)
        decoder.read(ids[:, :5].tolist())
        model.blocks[0].feed_forward.w_out_FD[closed] = float("nan")
        found = decoder.step(ids[:, 5].tolist())
        assert bool(found.isnan().all() if count > most else found.isfinite().all())
    torch.set_num_threads(before)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("share", [0.89, 0.31])
@pytest.mark.parametrize(("tokens", "d_ff", "threads"), [(1, 40, 1), (7, 37, 2), (300, 203, 2), (300, 16, 1)])
@torch.no_grad()
def test_a_prompt_is_read_by_the_compiled_layer_as_by_its_twin(tokens, d_ff, threads, share):
    model, before = shaken(replace(DENSE, layers=1, d_ff=d_ff)), torch.get_num_threads()
    turned = at_setting(model, Turned(neurons=share), measured_gates(model, random_windows(model)))
    part, block = turned.blocks[0].feed_forward, turned.blocks[0]
    x_BSD = torch.randn(1, tokens, model.shape.d_model, generator=torch.Generator().manual_seed(3))
    torch.set_num_threads(threads)
    found = part(x_BSD, block.feed_forward_norm_D, 1e-6, Routing())
    torch.set_num_threads(before)
    with native.set_aside():
        expected = part(x_BSD, block.feed_forward_norm_D, 1e-6, Routing())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    all_BSD = model.blocks[0].feed_forward(x_BSD, block.feed_forward_norm_D, 1e-6, Routing())
    assert (found - all_BSD).abs().max() > 1e-3, "it makes a difference"


def test_a_share_of_the_neurons_keeps_its_gradient():
    model = shaken(replace(DENSE, layers=1))
    turned = at_setting(model, HALF, measured_gates(model, random_windows(model)))
    turned(random_windows(model, 1)).sum().backward()
    gradient_FD = turned.blocks[0].feed_forward.w_out_FD.grad
    assert gradient_FD is not None
    assert bool(gradient_FD.abs().sum())


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=1.0, seed=3)])
@torch.no_grad()
def test_each_row_of_a_batch_chooses_its_own_neurons(sampling):
    model = shaken(replace(DENSE, context=128, d_ff=100))
    gates, ids = measured_gates(model, random_windows(model)), random_windows(model, 4).tolist()
    prompts, settings = [ids[0][:9], ids[1][:7], ids[2][:3], ids[0][:9]], [HALF] * 4
    rows = list(generate_together(model, prompts, 12, sampling, settings=settings, gates=gates))
    for number, prompt in enumerate(prompts):
        alone = replace(sampling, seed=sampling.seed + number)
        found = generate_together(at_setting(model, HALF, gates), [prompt], 12, alone)
        assert [row[number] for row in rows] == [token for (token,) in found]
    with pytest.raises(UserError, match="not in p, neurons or skipped layers"):
        side_by_side(model, [HALF, Turned()], gates)


@torch.no_grad()
def test_all_neurons_are_the_model_itself_bit_for_bit():
    model = shaken(DENSE)
    gates, ids = measured_gates(model, random_windows(model)), random_windows(model, 2)
    assert at_setting(model, parse_turned("neurons=1"), gates) is model
    skipping = at_setting(model, parse_turned("neurons=1,skip=0"), gates)
    assert torch.equal(skipping(ids), at_setting(model, parse_turned("skip=0"))(ids))
    nearly = at_setting(model, Turned(neurons=1 - 1e-9), gates)
    torch.testing.assert_close(nearly(ids), model(ids), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_skipped_layer_leaves_the_others_their_own_thresholds():
    model = shaken(replace(DENSE, layers=4))
    gates, ids = measured_gates(model, random_windows(model)), random_windows(model, 2)
    turned = at_setting(model, parse_turned("neurons=0.4,skip=1"), gates)
    for number, block in zip((0, 2, 3), turned.blocks, strict=True):
        expected = gates.at(number, 0.4, ids.device)
        found = block.feed_forward.threshold
        assert (found.least_gate, found.least_written) == (expected.least_gate, expected.least_written)
        assert torch.equal(found.gate_F, expected.gate_F)
    assert all(part.threshold is None for _, part in dense_parts(model)), "the model stays as it is"
    drafting = shaken(replace(DENSE, layers=2, mtp_layers=1))
    gates = measured_gates(drafting, random_windows(drafting))
    half = at_setting(drafting, HALF, gates)
    assert half.predictions[0].block.feed_forward.threshold is None
    prompt = ids[0, :6].tolist()
    greedy = [token for (token,) in generate_together(half, [prompt], 20, Sampling(temperature=0.0))]
    assert list(speculate(half, prompt, 20)) == greedy


@torch.no_grad()
def test_settings_share_one_copy_of_the_ups_which_follows_the_weights():
    model = shaken(DENSE)
    gates, ids = measured_gates(model, random_windows(model)), random_windows(model, 1)[:, :6]
    turned = [at_setting(model, Turned(neurons=share), gates) for share in (0.5, 0.3)]
    copies = [[part.ups.rows(part.w_in_DH).data_ptr() for _, part in dense_parts(each)] for each in (model, *turned)]
    assert copies[0] == copies[1] == copies[2]
    for _, part in dense_parts(model):
        part.w_in_DH.mul_(1.5)
    decoder = Decoder(turned[0], 1, 8)
    decoder.read(ids[:, :5].tolist())
    torch.testing.assert_close(decoder.step(ids[0, 5:].tolist()), turned[0](ids)[:, -1], atol=2e-5, rtol=1e-5)


def stored(folder: Path, width: int = 4) -> tuple[Transformer, Gates]:
    """A planted model in a folder, with its gates."""
    model = with_clusters(width)[0]
    saved(model, folder)
    gates = measured_gates(model, random_windows(model))
    write_gates(folder / "dial.gates", gates, digest_of(folder), "text", 256)
    return model, gates


def test_gates_are_read_as_they_were_written_and_no_part_of_the_checkpoint(tmp_path):
    model, gates = stored(tmp_path / "c")
    read = gates_of(tmp_path / "c", model.shape, [Turned(), HALF])
    for layer in gates.weights:
        assert torch.equal(read.weights[layer], gates.weights[layer])
        assert torch.equal(read.thresholds[layer], gates.thresholds[layer])
        assert gates.thresholds[layer].shape == (2, len(SHARES))
    (tmp_path / "c" / "dial.gates").unlink()
    assert gates_of(tmp_path / "c", model.shape, [Turned(), parse_turned("skip=0")]) is None
    stored(tmp_path / "d")
    assert digest_of(tmp_path / "c") == digest_of(tmp_path / "d")


def test_gates_that_are_missing_damaged_or_of_another_checkpoint_are_refused(tmp_path):
    model, _ = stored(tmp_path / "c")
    folder, file, widths = tmp_path / "c", tmp_path / "c" / "dial.gates", {0: model.shape.d_ff, 1: model.shape.d_ff}
    whole = file.read_bytes()
    stored(tmp_path / "other", width=5)
    tensors = load_file(file)
    facts = {"format": "1", "checkpoint_digest": digest_of(folder), "text_digest": "text", "tokens": "256"}

    def with_tensors(**changed: Tensor) -> bytes:
        save_file({**tensors, **changed}, tmp_path / "made", facts)
        return (tmp_path / "made").read_bytes()

    for content, says in (
        ((tmp_path / "other" / "dial.gates").read_bytes(), "is of another checkpoint"),
        (whole[:-9], "not readable as the gates"),
        (b"{}", "not readable as the gates"),
        (with_tensors(**{"7.weights": torch.ones(2, 36)}), "does not hold the gates of this checkpoint's"),
        (with_tensors(**{"0.weights": torch.ones(2, 35)}), "does not hold the gates of this checkpoint's"),
        (with_tensors(**{"0.thresholds": torch.full((2, 50), float("nan"))}), "values that are not finite"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=says) as error:
            read_gates(folder, widths)
        assert "\n" not in error.value.problem
        assert "sparsedial dial" in str(error.value.hint)
    file.unlink()
    with pytest.raises(UserError, match="which neurons to leave out is not measured"):
        read_gates(folder, widths)
    with pytest.raises(UserError, match=r"neurons=0\.5 needs the gates of the model"):
        at_setting(model, HALF)
