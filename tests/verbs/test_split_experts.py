"""`prune --split-experts` and `--join-experts` as a user runs them: folders, answers, tables, and what does not fit."""

from __future__ import annotations

import json
import re
import weakref
from dataclasses import replace
from pathlib import Path

import polars
import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.digests import digest_of
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.pruning import splitting
from sparsedial.records.dial_file import DialFile
from sparsedial.records.record import plain
from sparsedial.records.split import JoinedExperts, SplitExperts
from sparsedial.serving.budget import choose
from sparsedial.text.tokenizer import byte_tokenizer
from sparsedial.verbs.prune import prunable, split_costs
from tests.cli.wide import too_wide
from tests.model.shapes import FAMILIES, shaken
from tests.model.test_families import theirs_made
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_clusters, with_dead_experts
from tests.records.held import of_file, of_values
from tests.verbs.test_train_further import checkpoint_of, further

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    folder = saved(with_clusters()[0], tmp_path / "dense")
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    (folder / "sparsedial.json").unlink()  # as another's folder
    return folder


def split(checkpoint: Path, text: str, **settings) -> SplitExperts:
    given = {"split_experts": 8, "always": 1, "calibrate": text, "out": checkpoint.parent / "split", **settings}
    found = sparsedial.prune(checkpoint, **given)
    assert isinstance(found, SplitExperts)
    return found


def join(checkpoint: Path, out: str = "joined") -> JoinedExperts:
    found = sparsedial.prune(checkpoint, join_experts=True, out=checkpoint.parent / out)
    assert isinstance(found, JoinedExperts)
    return of_values(plain(found), JoinedExperts)


def test_the_answer_says_what_each_number_of_experts_costs(dense, text, tmp_path):
    before, other = digest_of(dense), str(text_of(tmp_path / "second.txt", SECOND))
    answer = split(dense, text, also=other, top_k=1)
    assert of_file(tmp_path / "split" / "prune.json", SplitExperts) == answer
    assert digest_of(dense) == before == answer.checkpoint.digest
    assert (answer.target.kind, answer.target.asked, answer.target.reached) == ("split_experts", 8, 8)
    assert (answer.always, answer.top_k, answer.d_expert, answer.sequential) == (1, 1, (4, 4), False)
    assert (answer.out.family, answer.out.read_by) == ("sparsedial", ("sparsedial",))
    assert [point.setting.name for point in answer.dial][::3] == ["k=8", "k=1"]
    numbers = [point.setting.top_k_experts for point in answer.dial[1:-1]]
    assert [sum(by_layer) for by_layer in numbers] == [2 * mean for mean in (6, 4)]
    assert all(silent < speaking for silent, speaking in numbers), "the first layer writes nothing"
    assert [point.neurons_share for point in answer.dial] == pytest.approx([at / 9 for at in (9, 7, 5, 2)])
    for name in (text, other):
        for point in answer.dial:
            assert abs(point.loss_increase[name].mean) < 1e-6, "one expert is all that a letter needs"
            assert point.costs.loss[name].loss == pytest.approx(answer.before.loss[name].loss, abs=1e-6)
        assert answer.dial[-1].at_random[name].mean > 0.1
        assert answer.dial[-1].removed[name].mean > 0.1
    assert answer.after == answer.dial[-1].costs
    assert answer.control.loss[text].loss > answer.after.loss[text].loss + 0.1
    assert answer.recovery is None
    assert load(tmp_path / "split").shape.top_k == 1
    actives = [point.setting.active_parameters for point in answer.dial]
    assert actives == sorted(actives, reverse=True)
    assert len(set(actives)) == len(actives)
    routers = 2 * 8 * 16
    assert answer.after.total_parameters == answer.before.total_parameters + routers
    assert sparsedial.count(answer.out.path).total_parameters == answer.after.total_parameters
    table = polars.read_parquet(tmp_path / "split" / "scores.parquet")
    assert table.columns == ["layer", "neuron", "mean_activation", "outgoing_norm", "activation", "expert"]
    assert table.filter(layer=1)["expert"].null_count() == 4


def test_rivals_are_measured_at_the_number_that_is_asked_for_and_the_answer_says_so(dense, text):
    points = split(dense, text, top_k=4).dial
    assert [point.setting.name for point in points][::2] == ["k=8", "k=4"]
    assert [point.at_random is not None for point in points] == [False, False, True]
    assert [point.removed is not None for point in points] == [False, False, True]
    assert points[0].at_random_reason == "with all experts on, any division is the dense model"
    assert points[0].removed_reason == "with all experts on, nothing is removed"
    assert points[1].at_random_reason == points[1].removed_reason == "measured at 4 experts alone"
    memory = [point.costs.peak_memory_bytes for point in points]
    assert memory == [None, None, 3 * 10**8]
    assert "every setting holds the same weights" in points[0].costs.peak_memory_bytes_reason
    assert all(point.costs.decode_tokens_per_second.count >= 2 for point in points)


def test_where_all_experts_are_on_rivals_are_measured_at_the_lowest_number(dense, text):
    answer = split(dense, text)
    assert [point.at_random is not None for point in answer.dial] == [False, False, True]
    assert answer.dial[-1].at_random[text].low > 0.001
    assert answer.control is None, "it would be the dense model, as the checkpoint is"
    assert answer.control_reason == "with all experts on, any division is the dense model"


def test_a_split_checkpoint_is_scored_generates_and_takes_settings_and_budgets(dense, text):
    answer = split(dense, text)
    folder = answer.out.path
    whole = sparsedial.evaluate([str(dense)], text=text).loss
    assert sparsedial.evaluate([folder], text=text).loss == pytest.approx(whole, abs=1e-5)
    prompt = {"prompt": "abcdabc", "tokens": 8, "temperature": 0}
    expected = sparsedial.generate(dense, **prompt).text
    for setting in (None, "k=1", "k=3"):
        assert sparsedial.generate(folder, **prompt, setting=setting).text == expected
    chosen = sparsedial.generate(folder, **prompt, max_loss_increase="1%")
    assert chosen.text == expected
    assert chosen.setting_reason == "cheapest that keeps loss_increase ≤ 1 %"
    dial = of_file(Path(folder) / "dial.json", DialFile)
    assert (dial.default, dial.checkpoint_digest) == ("k=8", answer.out.digest)
    measured = sparsedial.dial(folder, measure=True, text=text, settings="k=8;k=1", context=32)
    assert abs(measured.settings[1].loss_increase.mean) < 1e-6


def test_the_dial_says_how_much_more_is_lost_than_at_the_default(dense, text, monkeypatch):
    """Its default is not the dense model, and loses already; a router that is drawn loses at every number."""

    def drawn(x_TD: torch.Tensor, done_TE: torch.Tensor) -> torch.Tensor:
        return torch.randn(x_TD.shape[1], done_TE.shape[1], generator=torch.Generator().manual_seed(0))

    monkeypatch.setattr(splitting, "fitted_router", drawn)
    answer = split(dense, text, top_k=2)
    dial = of_file(Path(answer.out.path) / "dial.json", DialFile)
    default, *others = dial.settings
    assert (default.setting.name, default.loss_increase.mean) == ("k=2", 0)
    assert answer.dial[-1].loss_increase[text].mean > 0.1, "over the dense checkpoint"
    for point in others:
        grown = point.costs.loss[text].loss - default.costs.loss[text].loss
        assert point.loss_increase.mean == pytest.approx(grown, abs=1e-6)
    assert choose(dial, "max_loss_increase", 0.01)[0].loss_increase.mean <= 0.01 * default.costs.loss[text].loss


def test_the_dense_folder_comes_back_file_by_file(dense, text):
    split(dense, text)
    answer = join(dense.parent / "split")
    assert answer.same_weights
    assert answer.out.digest == answer.original.digest == digest_of(dense)
    files = {path.name: path.read_bytes() for path in dense.iterdir()}
    back = {path.name: path.read_bytes() for path in (dense.parent / "joined").iterdir()}
    del back["sparsedial.json"]
    assert back == files
    assert answer.out.read_by == ("transformers", "sparsedial")


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_a_folder_of_transformers_comes_back_as_it_was(tmp_path, monkeypatch, family):
    """With a configuration of its own, and a head or none."""
    shape = replace(FAMILIES[family], vocab_size=256)
    theirs_made(shape, tmp_path / "c")
    byte_tokenizer().save(tmp_path / "c")
    monkeypatch.setattr("sparsedial.pruning.in_turn.require_known", lambda loss, shape: None)
    text = text_of(tmp_path / "text.txt", FIRST)
    answer = split(tmp_path / "c", str(text), split_experts=6, always=2)
    loaded, whole = load(tmp_path / "split"), load(tmp_path / "c")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS), whole(IDS), atol=1e-5, rtol=1e-5)
    joined = join(tmp_path / "split")
    assert joined.same_weights
    assert (tmp_path / "joined" / "config.json").read_text() == (tmp_path / "c" / "config.json").read_text()
    for one, other in zip(stream_of(load(tmp_path / "joined")), stream_of(whole), strict=True):
        assert torch.equal(one.values(), other.values())
    assert answer.checkpoint.digest == joined.original.digest


def test_a_setting_that_is_fixed_can_still_be_joined_and_fewer_experts_cannot(dense, text):
    split(dense, text)
    sparsedial.prune(dense.parent / "split", fix_setting="k=3", out=dense.parent / "fixed")
    assert load(dense.parent / "fixed").shape.top_k == 3
    assert join(dense.parent / "fixed").same_weights
    sparsedial.prune(dense.parent / "split", fix_setting="skip=0", out=dense.parent / "shallow")
    with pytest.raises(UserError, match="is not what was split: its layers or experts were turned off since"):
        join(dense.parent / "shallow", "again")
    assert not (dense.parent / "again").exists()


def test_a_split_checkpoint_that_was_changed_is_joined_and_said_to_be_another(dense, text):
    split(dense, text)
    model, folder = load(dense.parent / "split"), dense.parent / "changed"
    with torch.no_grad():
        model.blocks[1].feed_forward.w_out_EFD.mul_(2)
    write_checkpoint(folder, model.shape, stream_of(model), byte_tokenizer())
    (folder / "split.json").write_bytes((dense.parent / "split" / "split.json").read_bytes())
    assert not join(folder).same_weights
    ids = torch.tensor([list(b"abcdefgh")])
    with torch.no_grad():
        torch.testing.assert_close(load(dense.parent / "joined")(ids), model(ids), atol=1e-4, rtol=1e-4)


def test_training_moves_the_router_of_a_split_checkpoint(dense, text):
    model = load(Path(split(dense, text, top_k=2).out.path)).train()
    total, _ = model.loss(torch.tensor([list(b"abcdabcdefghefg")]))
    total.backward()
    assert all(bool(one.grad.isfinite().all()) for one in model.parameters() if one.grad is not None)
    assert float(model.blocks[1].feed_forward.w_router_DE.grad.abs().max()) > 0


def test_a_split_checkpoint_is_trained_for_a_dial_and_joined_to_a_trained_dense_one(
    corpus, tmp_path, text, capsys, monkeypatch
):
    monkeypatch.setattr("sparsedial.pruning.in_turn.require_known", lambda loss, shape: None)
    dense = checkpoint_of(tmp_path / "dense", "llama")
    split(dense, text, split_experts=6, always=2)
    assert main(further(tmp_path / "split", corpus, tmp_path / "out", "--dial", "2,6")) == 0
    trained = Path(json.loads(capsys.readouterr().out)["checkpoint"])
    assert (load(trained).shape.gate, load(trained).shape.top_k) == ("ones", 6)
    answer = sparsedial.prune(trained, join_experts=True, out=tmp_path / "back")
    assert not answer.same_weights
    assert load(tmp_path / "back").shape == load(dense).shape
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "back")(IDS), load(trained)(IDS), atol=1e-5, rtol=1e-5)
        assert (load(tmp_path / "back")(IDS) - load(dense)(IDS)).abs().max() > 1e-3


def test_the_table_fits_a_terminal(dense, text, tmp_path):
    assert too_wide(split(dense, text, also=str(text_of(tmp_path / "second.txt", SECOND)), top_k=1)) == []


def test_the_tables_are_read_by_people(dense, text, capsys):
    words = ["prune", str(dense), "--split-experts", "8", "--always", "1", "--calibrate", text]
    assert main([*words, "--out", str(dense.parent / "split")]) == 0
    said = capsys.readouterr().out
    assert "8 experts of 4 neurons in each of 2 layers beside a shared part as wide as 1" in said
    assert "read by sparsedial" in said
    assert "55.6 %" in said
    assert "k=6 by layer" in said
    assert re.search(r"as many .*\n .*removed", said)
    assert "k=8 " in said
    (dense_row,) = (line for line in said.splitlines() if line.startswith("dense "))
    assert re.search(r"[\d,.]+ \([\d,.]+–[\d,.]+\) +[\d,.]+$", dense_row), "its speeds, written and read"
    assert not re.search(r"[+−]0\.000", said), "rounding alone is none"
    assert main(["prune", str(dense.parent / "split"), "--join-experts", "--out", str(dense.parent / "back")]) == 0
    assert "as they were: every bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--split-experts", "8", "--calibrate", "{text}"], "8 experts and a shared part of 3 do not divide the 36"),
        (["--split-experts", "8", "--always", "1", "--top-k", "9", "--calibrate", "{text}"], "--top-k: 9 lies outside"),
        (["--split-experts", "1", "--calibrate", "{text}"], "--split-experts: 1 is below 2"),
        (["--split-experts", "8", "--always", "-1", "--calibrate", "{text}"], "--always: -1 is below 0"),
        (["--split-experts", "8", "--always", "1"], "prune: 'calibrate' is missing"),
        (["--split-experts", "8", "--calibrate", "{text}", "--keep", "0.5"], "--split-experts: goes without --keep"),
        (
            ["--split-experts", "8", "--calibrate", "{text}", "--method", "man"],
            "--split-experts: goes without --method",
        ),
        (["--keep", "0.5", "--always", "1", "--calibrate", "{text}"], "--always goes with --split-experts alone"),
        (["--fix-setting", "k=1", "--top-k", "1"], "--top-k goes with --split-experts alone"),
        (["--join-experts", "--calibrate", "{text}"], "--join-experts: goes without --calibrate"),
        (["--join-experts", "--top-k", "2"], "--join-experts: goes without --top-k"),
        (["--join-experts", "--context", "8"], "--join-experts: goes without --context"),
        (["--join-experts", "--recover", "1M"], "--join-experts: goes without --recover"),
        (["--join-experts"], "{dense} was not split: it has no split.json"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(dense, text, capsys, words, says):
    names = {"text": text, "dense": str(dense)}
    words = [word.format(**names) for word in words]
    assert main(["prune", str(dense), *words, "--out", str(dense.parent / "out")]) == 2
    said = capsys.readouterr()
    assert says.format(**names) in said.err
    assert said.out == ""
    assert sorted(path.name for path in dense.parent.iterdir()) == ["both.txt", "dense"]


def test_a_checkpoint_with_experts_is_refused(tmp_path, text):
    checkpoint = saved(with_dead_experts("softmax", (1, 3, 4, 6)), tmp_path / "sparse")
    with pytest.raises(UserError, match="has experts already: only a dense checkpoint can be split"):
        split(checkpoint, text)


def test_weights_in_8_bit_blocks_are_refused(dense, text):
    config = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match="has weights in 8-bit blocks, which joining could not give back"):
        split(dense, text)


def test_a_model_that_does_not_fit_into_memory_three_times_is_refused_before_a_text_is_read(
    dense, text, capsys, monkeypatch
):
    """It, its split and a rival of that are in memory together."""
    whole = 4 * sparsedial.count(str(dense)).total_parameters
    monkeypatch.setattr(prunable, "machine_bytes", lambda: 3 * whole - 1)
    words = ["prune", str(dense), "--split-experts", "8", "--always", "1", "--calibrate", "nowhere"]
    assert main([*words, "--out", str(dense.parent / "out")]) == 2
    says = capsys.readouterr().err
    assert "checkpoint: splitting holds 3 models of its size at once, which take " in says
    assert "hint: it has no --layer-by-layer: split it on a machine with more memory" in says
    assert sorted(path.name for path in dense.parent.iterdir()) == ["both.txt", "dense"]
    monkeypatch.setattr(prunable, "machine_bytes", lambda: 3 * whole)
    split(dense, text)


def test_no_more_than_one_rival_is_in_memory_at_a_time(dense, text, monkeypatch):
    alive, most = weakref.WeakSet(), []
    made = split_costs.model_of

    def watched(*given):
        model = made(*given)
        alive.add(model)
        most.append(len(alive))
        return model

    monkeypatch.setattr(split_costs, "model_of", watched)
    split(dense, text, top_k=4)
    assert most == [1, 1]


def test_a_foreign_text_is_refused(tmp_path, text):
    save_checkpoint(shaken(replace(FAMILIES["llama"], vocab_size=256)), tmp_path / "c", byte_tokenizer())
    with pytest.raises(UserError, match=r"above the 5\.545 of a uniform guess"):
        split(tmp_path / "c", text, split_experts=6, always=2)
    assert not (tmp_path / "split").exists()
