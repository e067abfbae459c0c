"""`prune` as a user runs it: the folder, the answer, the table, and bad input that loses nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars
import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model import shards
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.digests import digest_of
from sparsedial.model.transformer import initialise
from sparsedial.records.prune import Pruned
from sparsedial.text.tokenizer import byte_tokenizer
from tests.cli.wide import too_wide
from tests.model.shapes import DENSE, SPARSE
from tests.pruning.planted import FIRST, ROUTERS, SECOND, saved, text_of, with_dead_experts, with_domains
from tests.records.held import of_file, of_values

DEAD = (1, 3, 4, 6)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", DEAD), tmp_path / "whole")


def prune(checkpoint: Path, text: str, **settings) -> Pruned:
    settings = {"keep": 0.5, "calibrate": text, "out": checkpoint.parent / "smaller", **settings}
    return sparsedial.prune(checkpoint, **settings)


def test_the_answer_says_what_was_done_and_what_it_did(checkpoint, text, tmp_path):
    other = str(text_of(tmp_path / "second.txt", SECOND))
    before = digest_of(checkpoint)
    answer = prune(checkpoint, text, also=other)
    assert answer.kept.experts == ((0, 2, 5, 7),)
    assert (answer.target.asked, answer.target.reached) == (0.5, 0.5)
    assert answer.out.read_by == ("transformers", "sparsedial")
    assert answer.unscored_experts == ()
    assert set(answer.before.loss) == set(answer.after.loss) == set(answer.control.loss) == {text, other}
    for name, grown in answer.loss_increase.items():
        assert abs(grown.mean) < 1e-6
        assert answer.after.loss[name].loss == pytest.approx(answer.before.loss[name].loss, abs=1e-6)
    assert answer.control.loss[text].loss > answer.before.loss[text].loss + 0.5, "chance drops what matters"
    assert answer.after.total_parameters == sparsedial.count(str(checkpoint.parent / "smaller")).total_parameters
    gone = 4 * (3 * 16 * 8 + 16)
    assert answer.before.total_parameters - answer.after.total_parameters == gone
    assert answer.before.weight_bytes - answer.after.weight_bytes == 4 * gone
    assert answer.after.weight_bytes == answer.control.weight_bytes < answer.after.disk_bytes < answer.before.disk_bytes
    assert answer.after.decode_tokens_per_second.p10 <= answer.after.decode_tokens_per_second.median
    assert answer.after.joules_per_token.joules > 0
    assert answer.second_domain.source == other
    assert answer.warnings == ()
    assert digest_of(checkpoint) == before == answer.checkpoint.digest
    assert digest_of(checkpoint.parent / "smaller") == answer.out.digest


def test_the_loss_is_what_evaluate_measures_on_the_same_text(checkpoint, tmp_path):
    text = str(tmp_path / "even.txt")
    Path(text).write_text((FIRST * 8 + SECOND * 8) * 62)
    answer = prune(checkpoint, text, scored_tokens=10**9, calibration_tokens=32)
    scored, whole = answer.after.loss[text], sparsedial.evaluate(answer.out.path, text=text)
    assert scored.loss == pytest.approx(whole.loss, rel=0.03), "a fifth of the same windows"
    assert scored.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=0.03)


def test_the_folder_holds_the_answer_and_every_score(checkpoint, text):
    answer = prune(checkpoint, text)
    folder = Path(answer.out.path)
    assert of_file(folder / "prune.json", Pruned) == answer
    scores = polars.read_parquet(folder / "scores.parquet")
    assert scores.columns == [
        "layer",
        "expert",
        "group",
        "tokens",
        "frequency",
        "ean",
        "reap",
        "man",
        "msan",
        "kept",
        "into",
    ]
    assert scores.filter("kept")["expert"].to_list() == [0, 2, 5, 7]
    assert scores["layer"].unique().to_list() == [1]
    assert (scores["tokens"] > 0).all()
    assert scores.filter(~polars.col("kept"))["reap"].to_list() == [0.0] * 4


def test_tokenizer_template_and_settings_come_along_and_nothing_else(checkpoint, text):
    files = {"chat_template.jinja": "{{ x }}", "generation_config.json": '{"eos_token_id": 0}', "LICENSE": "free"}
    for name, content in files.items():
        (checkpoint / name).write_text(content)
    (checkpoint / "pytorch_model.bin").write_bytes(b"old")
    (checkpoint / "notes.py").write_text("")
    folder = Path(prune(checkpoint, text).out.path)
    for name in (*files, "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes(), name
    assert {path.name for path in folder.iterdir()} == {
        *files, "tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors", "sparsedial.json",
        "prune.json", "scores.parquet",
    }  # fmt: skip
    before, after = (json.loads((each / "config.json").read_text()) for each in (checkpoint, folder))
    assert after == {**before, "num_experts": 4}


@pytest.mark.parametrize("router", ROUTERS)
def test_what_was_pruned_can_be_pruned_again(tmp_path, text, router):
    first = saved(with_dead_experts(router, DEAD), tmp_path / "whole")
    answer = prune(first, text, keep=0.75, out=tmp_path / "once")
    again = prune(tmp_path / "once", text, keep=2 / 3, out=tmp_path / "twice")
    assert sum(map(len, answer.kept.experts)) == 6
    assert sum(map(len, again.kept.experts)) == 4
    assert again.loss_increase[text].mean == pytest.approx(0, abs=1e-6)
    assert again.before.loss[text] == answer.after.loss[text]


def test_experts_of_another_domain_are_reported_as_a_risk(tmp_path):
    checkpoint = saved(with_domains(), tmp_path / "whole")
    one, other = (str(text_of(tmp_path / f"{name}.txt", name)) for name in (FIRST, SECOND))
    answer = prune(checkpoint, one, also=other)
    assert answer.kept.experts == ((0, 1, 2, 3),)
    assert answer.unscored_experts == ((1, 4), (1, 5), (1, 6), (1, 7))
    assert answer.loss_increase[other].low > 1 > answer.loss_increase[one].mean
    unreached, apart = answer.warnings
    assert "no calibration token reached 4 experts" in unreached
    assert "layer 1: 4, 5, 6, 7" in unreached
    assert f"on {other} and by" in apart
    drawn = prune(checkpoint, one, also=other, method="random", out=tmp_path / "drawn")
    assert drawn.unscored_experts == answer.unscored_experts
    assert not any("went first" in words for words in drawn.warnings), "chance asks for no score"


def test_each_command_takes_what_prune_leaves(corpus, tmp_path, capsys):
    """Of a trained model with multi-token prediction and a learnt tokenizer."""
    run, out, text = tmp_path / "run", tmp_path / "smaller", str(corpus / "00.txt")
    sizes = {"layers": 2, "d_model": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "d_ff": 0, "vocab_size": 300}
    sizes |= {"context": 16, "experts": 8, "top_k": 2, "d_expert": 8, "mtp_layers": 1, "tied_embeddings": "true"}
    shape = [word for name, size in sizes.items() for word in (f"--shape.{name}", str(size))]
    recipe = ["--recipe.learning_rate", "0.02", "--recipe.batch", "4", "--recipe.context", "16", "--threads", "1"]
    words = ["train", "--text", text, "--tokenizer", "bpe:300", "--tokens", "4k", *shape, *recipe]
    assert main([*words, "--out", str(run)]) == 0
    words = ["prune", str(run / "checkpoint"), "--keep", "0.5", "--calibrate", text, "--out", str(out)]
    assert main([*words, "--also", str(corpus / "01.txt")]) == 0
    assert "calibrating on" in capsys.readouterr().err
    kept = json.loads((out / "prune.json").read_text())["kept"]["experts"]
    assert [len(experts) for experts in kept] == [4, 4, 4], "multi-token prediction has a layer of its own"
    assert main(["evaluate", str(out), "--text", text]) == 0
    assert main(["generate", str(out), "Once", "--tokens", "4", "--speculate", "--temperature", "0"]) == 0
    assert main(["count", str(out)]) == 0
    again = ["prune", str(out), "--keep", "0.75", "--calibrate", text, "--out", str(tmp_path / "again"), "--json"]
    capsys.readouterr()
    assert main([*again, "--method", "frequency", "--sequential"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["sequential"], answer["method"]) == (True, "frequency")
    assert [len(experts) for experts in answer["kept"]["experts"]] == [3, 3, 3]


def test_layers_may_compete_and_sparsedial_alone_reads_the_result(tmp_path, text):
    """In the first layer no expert does anything, and no token reaches six of them."""
    answer = prune(saved(with_dead_experts("softmax", DEAD, dense_layers=0), tmp_path / "whole"), text, budget="global")
    first, second = answer.kept.experts
    assert (len(first), len(second)) == (2, 6)
    assert set(second) >= {0, 2, 5, 7}
    assert abs(answer.loss_increase[text].mean) < 1e-6
    assert answer.out.read_by == ("sparsedial",)
    assert sparsedial.load(answer.out.path).shape.layer(1).experts == 6
    assert [len(experts) for experts in answer.kept.experts] == [
        sparsedial.load(answer.out.path).shape.layer(number).experts for number in range(2)
    ]


def test_without_a_second_text_the_answer_says_that_harm_may_be_unseen(checkpoint, text):
    answer = prune(checkpoint, text)
    assert answer.second_domain is None
    assert "no second text" in answer.second_domain_reason
    assert any("unseen" in words for words in answer.warnings)


def test_a_share_that_no_number_of_experts_meets_is_rounded_and_said(checkpoint, text):
    answer = prune(checkpoint, text, keep=0.45)
    assert answer.target.reached == 0.5
    assert any("0.45 of the experts" in words and "0.5 stays" in words for words in answer.warnings)


def test_a_text_of_one_window_is_scored_itself_and_that_is_said(checkpoint, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text(FIRST * 10)
    answer = prune(checkpoint, str(short))
    assert answer.calibration.windows == 1
    assert answer.before.loss[str(short)].loss_interval.low is None
    assert any("one window" in words for words in answer.warnings)


def test_the_control_is_the_mean_of_three_draws_and_a_random_choice_has_none(checkpoint, text):
    drawn = [
        prune(checkpoint, text, method="random", seed=seed, out=checkpoint.parent / str(seed)) for seed in (5, 6, 7)
    ]
    beside = prune(checkpoint, text, seed=5, out=checkpoint.parent / "b")
    assert {(one.control, one.control_draws, one.control_reason) for one in drawn} == {
        (None, 0, "the choice itself is random")
    }
    mean = sum(one.after.loss[text].loss for one in drawn) / 3
    assert beside.control_draws == 3
    assert beside.control.loss[text].loss == pytest.approx(mean, abs=1e-5)
    assert len({round(one.after.loss[text].loss, 3) for one in drawn}) > 1, "draws differ"


def test_the_table_shows_the_costs_side_by_side(checkpoint, text, capsys):
    words = ["prune", str(checkpoint), "--keep", "0.5", "--calibrate", text, "--out", str(checkpoint.parent / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "4 of 8 experts in each of 1 layers, by reap" in shown
    assert f"{checkpoint.parent / 'out'}, read by transformers and sparsedial" in shown
    heads = next(line for line in shown.splitlines() if "before" in line)
    assert heads.index("before") < heads.index("after") < heads.index("at random")
    assert "loss, calibration text" in shown
    assert "nats per token" in shown
    assert f"tokens of {text}" in shown


def test_the_table_fits_a_terminal(checkpoint, text, tmp_path):
    assert too_wide(prune(checkpoint, text, also=str(text_of(tmp_path / "second.txt", SECOND)))) == []


def test_json_is_the_answer_whole(checkpoint, text, capsys):
    words = ["prune", str(checkpoint), "--keep", "0.5", "--calibrate", text, "--out", str(checkpoint.parent / "out")]
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert of_values(answer, Pruned).out.path == str(checkpoint.parent / "out")


def untrained(shape, folder: Path) -> Path:
    save_checkpoint(initialise(replace(shape, vocab_size=256), 0), folder, byte_tokenizer())
    return folder


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": 0}, "keep: 0 does not lie between 0 and 1"),
        ({"keep": 1}, "keep: 1 does not lie between 0 and 1"),
        ({"keep": "half"}, "keep: cannot read 'half'"),
        ({"keep": "100%"}, "keep: 1 does not lie between 0 and 1"),
        ({"keep": 0.1}, "keep: 0.1 keeps 1 of 8 experts; a token's 2 choices need at least 2"),
        ({"keep": 0.99}, "keep: 0.99 of 8 experts is all of them"),
        ({"method": "reep"}, "method: 'reep' is not known"),
        ({"budget": "even"}, "budget: 'even' is not known"),
        ({"method": "hc-smoe", "budget": "global"}, "budget: hc-smoe has no scores by which layers could compete"),
        (
            {"method": "random", "sequential": True},
            "msan, wanda or sparsegpt and the uniform budget, not with random, uniform",
        ),
        ({"budget": "global", "sequential": True}, "and the uniform budget, not with reap, global"),
        ({"keep": 0.1, "budget": "global"}, "keep: 0.1 keeps 1 of 8 experts"),
        ({"calibrate": "/nowhere.txt"}, "/nowhere.txt: no such file"),
        ({"context": 33}, "context: 33 lies outside 1..32"),
        ({"context": 0}, "context: 0 lies outside 1..32"),
        ({"calibration_tokens": 0}, "calibration_tokens: 0 is below 1"),
        ({"scored_tokens": -1}, "scored_tokens: -1 is below 1"),
        ({"seed": -1}, "seed: -1 is below 0"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(checkpoint, text, settings, says):
    with pytest.raises(UserError) as refused:
        prune(checkpoint, text, **settings)
    assert says in str(refused.value)
    assert not (checkpoint.parent / "smaller").exists()


def test_the_calibration_text_is_no_second_domain(checkpoint, text):
    with pytest.raises(UserError, match="also: is the calibration text itself"):
        prune(checkpoint, text, also=text)


def test_a_calibration_shorter_than_a_window_is_refused(checkpoint, tmp_path):
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(UserError, match=r"calibrate: .*short.txt has 4 tokens, less than one window of 32"):
        prune(checkpoint, str(tmp_path / "short.txt"))


def test_a_calibration_that_is_foreign_to_the_model_is_refused(checkpoint, tmp_path):
    (tmp_path / "foreign.txt").write_text("hdbfgaceahcgebfd" * 40)
    with pytest.raises(UserError, match=r"calibrate: the model's loss on it is .* above the 5.545 of a uniform guess"):
        prune(checkpoint, str(tmp_path / "foreign.txt"))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path, text):
    save_checkpoint(initialise(SPARSE, 0), tmp_path / "small", byte_tokenizer())  # 64 tokens
    with pytest.raises(UserError, match="tokenizer and model do not fit each other"):
        prune(tmp_path / "small", text)


def test_a_dense_checkpoint_is_refused_and_told_what_can_be_turned_off(tmp_path, text):
    with pytest.raises(UserError, match=r"dense: it has no experts to turn off") as refused:
        prune(untrained(DENSE, tmp_path / "dense"), text)
    assert "layers: block-influence" in (refused.value.hint or "")
    assert "experts" not in (refused.value.hint or "")


def test_a_half_written_folder_is_refused(checkpoint, text):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors: its content does not match its digest"):
        prune(checkpoint, text)


def test_a_quantised_folder_is_named_as_such(checkpoint, text):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "sparsedial.json").unlink()
    (checkpoint / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"down_proj.weight", b"down_proj.qweigh"))
    with pytest.raises(UserError, match="quantised by gptq, which is not read"):
        prune(checkpoint, text)


@pytest.mark.parametrize("where", ["whole", "whole/inside", "whole/../whole/inside"])
def test_a_folder_in_the_checkpoint_is_refused(checkpoint, text, where):
    with pytest.raises(UserError, match=r"out: .* lies in the checkpoint"):
        prune(checkpoint, text, out=checkpoint.parent / where)
    assert not (checkpoint / "inside").exists()


def test_a_folder_that_holds_something_is_refused(checkpoint, text, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, says in (("taken", "holds files"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"out: .*{says}, and nothing is overwritten"):
            prune(checkpoint, text, out=tmp_path / name)
    assert (tmp_path / "taken" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_filled_even_where_it_is_the_one_we_stand_in(checkpoint, text, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    prune(checkpoint, text, out=".")
    assert sparsedial.load(tmp_path / "here").shape.experts == 4


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_folder_is_whole_or_absent(checkpoint, text, monkeypatch, failure):
    written = []
    before = {path.name for path in checkpoint.parent.iterdir()}

    def failing(*given):
        written.append(given)
        if len(written) == 3:
            raise failure
        return write(*given)

    write = shards._write
    monkeypatch.setattr(shards, "_write", failing)
    with pytest.raises((UserError, KeyboardInterrupt)) as stopped:
        prune(checkpoint, text)
    assert isinstance(failure, KeyboardInterrupt) or "No space left on device" in str(stopped.value)
    assert {path.name for path in checkpoint.parent.iterdir()} == before | {".smaller.unfinished"}
    monkeypatch.setattr(shards, "_write", write)
    prune(checkpoint, text)
    assert {path.name for path in checkpoint.parent.iterdir()} == before | {"smaller"}


def test_weights_in_blocks_of_eight_bits_are_brought_back(tmp_path, text):
    """Their numbers are multiples of their factor, so nothing is lost."""
    from safetensors.torch import load_file, save_file

    checkpoint = saved(with_dead_experts("softmax", DEAD), tmp_path / "whole")
    (checkpoint / "sparsedial.json").unlink()
    file, config = checkpoint / "model.safetensors", json.loads((checkpoint / "config.json").read_text())
    tensors = load_file(file)
    for name in [name for name in tensors if "experts" in name]:
        tensors[f"{name}_scale_inv"] = torch.full((1, 1), float(tensors[name].abs().max() / 448) or 1.0)
        tensors[name] = (tensors[name] / tensors[f"{name}_scale_inv"]).to(torch.float8_e4m3fn)
    save_file(tensors, file)
    eight = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (checkpoint / "config.json").write_text(json.dumps({**config, "quantization_config": eight}))
    lying = sum(one.numel() * one.element_size() for one in load_file(file).values())
    answer = prune(checkpoint, text)
    assert answer.before.weight_bytes == lying, "as the file holds them"
    assert any("8-bit blocks, and what stays is written in bfloat16" in words for words in answer.warnings)
    dial = sparsedial.dial(checkpoint, measure=True, text=text, settings="k=1")
    assert {point.costs.weight_bytes for point in dial.settings} == {lying}
    assert "quantization_config" not in json.loads((tmp_path / "smaller" / "config.json").read_text())
    assert answer.kept.experts == ((0, 2, 5, 7),)
    assert abs(answer.loss_increase[text].mean) < 1e-6
