"""`dial --measure` and `generate` at a setting: the file, what it says, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.digests import SUMMARY, digest_of
from sparsedial.model.transformer import initialise
from sparsedial.model.turned import at_setting
from sparsedial.records.answers import Generation
from sparsedial.records.dial_file import DialFile, MeasuredDial
from sparsedial.records.record import plain
from sparsedial.serving import generation
from sparsedial.shape.turned import parse_turned
from sparsedial.text.tokenizer import byte_tokenizer
from tests.cli.wide import too_wide
from tests.model.shapes import DENSE
from tests.pruning.planted import saved, with_domains
from tests.records.held import of_file, of_values

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A dense layer that writes nothing, then one of 8 experts whose second choices have hardly any weight."""
    return saved(with_domains(), tmp_path / "whole")


def measure(checkpoint: Path, text: str, **settings) -> MeasuredDial:
    found = sparsedial.dial(checkpoint, measure=True, text=text, **settings)
    assert isinstance(found, MeasuredDial)
    return found


def refused(words: list[str], capsys) -> str:
    """What a command says that is refused: one line and at most one hint."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith(("error:", "hint:", "Traceback"))]
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"])
    return captured.err


def test_each_setting_is_measured_beside_the_default(checkpoint, text):
    before = digest_of(checkpoint)
    answer = measure(checkpoint, text, settings="k=1;k=8;skip=0")
    kept = of_file(checkpoint / "dial.json", DialFile)
    assert plain(kept) == {key: value for key, value in plain(answer).items() if key in kept.keys()}  # noqa: SIM118
    assert [point.setting.name for point in kept.settings] == ["k=2", "k=1", "k=8", "k=2,skip=0"]
    assert (kept.default, kept.trained_for) == ("k=2", None)
    default, *others = kept.settings
    assert default.loss_increase.mean == 0
    scored = sparsedial.evaluate(checkpoint, text=text, settings="k=1")
    assert others[0].costs.loss[text].loss == pytest.approx(scored.loss, rel=0.03), "the same text, in part"
    for point in others:
        grown = point.costs.loss[text].loss - default.costs.loss[text].loss
        assert point.loss_increase.mean == pytest.approx(grown, abs=1e-6)
        assert abs(grown) < 0.05, "what is left out hardly matters here"
        assert point.costs.decode_tokens_per_second.median > 0
        assert point.costs.joules_per_token.joules > 0
    expert = 3 * 16 * 8
    active = [point.setting.active_parameters for point in kept.settings]
    assert active[0] - active[1] == expert
    assert active[2] - active[0] == 6 * expert
    assert [point.costs.active_parameters for point in kept.settings] == active
    skipped = kept.settings[3].costs
    assert default.costs.weight_bytes - skipped.weight_bytes == 4 * (active[0] - active[3])
    assert default.costs.total_parameters - skipped.total_parameters == active[0] - active[3]
    assert digest_of(checkpoint) == before == kept.checkpoint_digest
    load(checkpoint)  # whose files are checked


def test_settings_of_a_checkpoint_whose_law_is_unknown_stand_beside_a_published_one(
    checkpoint, text, monkeypatch, capsys
):
    server, opened = pytest.importorskip("sparsedial.showing.dial_server"), []
    monkeypatch.setattr(server, "serve", lambda asks, port, ready: opened.append(asks["start"]({})))
    with pytest.raises(UserError, match="so its law is unknown"):
        sparsedial.dial(checkpoint)
    measure(checkpoint, text, settings="k=1")
    sparsedial.dial(checkpoint)
    assert [(start.law, len(start.settings.points)) for start in opened] == [("abnar", 2)]
    assert "its law is unknown: the page shows abnar beside its settings" in capsys.readouterr().err


def test_a_layer_that_matters_shows(tmp_path, text):
    model = with_domains()
    other = replace(model.shape, layers=3)
    three = initialise(other, 0)
    three.load_state_dict(model.state_dict(), strict=False)
    with_one_more = saved(three.eval(), tmp_path / "three")
    answer = measure(with_one_more, text, settings="skip=1;skip=2")
    matters, does_not = answer.settings[1:]
    assert matters.loss_increase.low > does_not.loss_increase.high


def test_without_names_k_is_halved_down_to_one_and_what_it_was_trained_for_is_there(checkpoint, text):
    (checkpoint / SUMMARY).unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    stated = {"top_k_experts": [2, 4, 8], "by": "step"}
    (checkpoint / "config.json").write_text(json.dumps({**config, "sparsedial_trained_for": stated}))
    answer = measure(checkpoint, text)
    assert [point.setting.name for point in answer.settings] == ["k=2", "k=8", "k=4", "k=1"]
    assert plain(answer.trained_for) == {**stated, "end": "lowest"}  # as all runs ended before it could be asked for
    (checkpoint / "config.json").write_text(json.dumps({**config, "sparsedial_trained_for": {"top_k_experts": "all"}}))
    with pytest.raises(UserError, match="sparsedial_trained_for"):
        measure(checkpoint, text)


def test_another_file_may_be_named_and_one_of_ours_is_replaced(checkpoint, text, tmp_path):
    for _ in range(2):
        assert measure(checkpoint, text, settings="k=1", out=tmp_path / "other.json").out == str(
            tmp_path / "other.json"
        )
    assert not (checkpoint / "dial.json").exists()
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(UserError, match=r"notes\.json"):
        measure(checkpoint, text, out=tmp_path / "notes.json")


def test_the_table_has_a_line_for_each_setting(checkpoint, text, capsys):
    assert main(["dial", str(checkpoint), "--measure", "--text", text]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == ["setting", "nats", "k=2", "k=1", "energy", "written"]
    assert lines[2].startswith("k=2 (default)")
    assert lines[2].split()[3] == "0"
    assert "estimated, stated " in lines[4] or "measured, " in lines[4]
    assert captured.err.startswith("reading the text\n")
    assert "measuring the loss at k=1" in captured.err


def test_a_file_that_would_change_the_checkpoint_is_refused(checkpoint, text, capsys):
    before = digest_of(checkpoint)
    words = ["dial", str(checkpoint), "--measure", "--text", text, "--out", str(checkpoint / "code.json")]
    assert "--out: " in refused(words, capsys)
    assert digest_of(checkpoint) == before
    assert measure(checkpoint, text, settings="k=1", out=checkpoint / "dial.json").out.endswith("dial.json")


def test_the_table_fits_a_terminal(checkpoint, text):
    answer = measure(checkpoint, text, settings="k=8")
    assert too_wide(answer) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--measure"], "--text: no text is given"),
        (["--text", "TEXT"], "--text: is for measuring"),
        (["--context", "8"], "--context: is for measuring"),
        (["--measure", "--text", "TEXT", "--port", "0"], "--port: is for the page, and --measure opens none"),
        (["--settings", "k=1"], "--settings: is for measuring"),
        (["--measure", "--text", "TEXT", "--settings", "k=9"], "--settings: k=9 lies outside 1..8"),
        (["--measure", "--text", "TEXT", "--settings", "k=two"], "--settings: cannot read 'k=two'"),
        (["--measure", "--text", "TEXT", "--settings", "skip=1"], "--settings: skip=1 leaves no sparse layer"),
        (["--measure", "--text", "TEXT", "--context", "99"], "--context: 99 lies outside 1..32"),
        (["--measure", "--text", "TEXT", "--scored-tokens", "0"], "--scored-tokens: 0 is below 1"),
    ],
)
def test_bad_input_of_measuring_is_one_line_and_writes_nothing(checkpoint, text, words, says, capsys):
    command = ["dial", str(checkpoint), *(text if word == "TEXT" else word for word in words)]
    assert f"error: {says}" in refused(command, capsys)
    assert not (checkpoint / "dial.json").exists()


def test_without_a_checkpoint_there_is_nothing_to_measure(text, capsys):
    assert "--measure: no checkpoint is given" in refused(["dial", "--measure", "--text", text], capsys)
    assert "no such folder" in refused(["dial", "nowhere", "--measure", "--text", text], capsys)


def test_a_dense_checkpoint_has_no_experts_to_choose_from(tmp_path, text, capsys):
    folder = tmp_path / "dense"
    save_checkpoint(initialise(replace(DENSE, vocab_size=256), 0), folder, byte_tokenizer())
    command = ["dial", str(folder), "--measure", "--text", text]
    assert "is dense: it has no experts" in refused([*command, "--settings", "k=1"], capsys)
    assert [point.setting.name for point in measure(folder, text, settings="skip=1").settings] == ["default", "skip=1"]
    capsys.readouterr()
    assert main([*command, "--settings", "skip=1"]) == 0
    assert "default (default)" not in capsys.readouterr().out
    assert not (folder / "dial.gates").exists()


def generate(checkpoint: Path, **settings) -> Generation:
    return sparsedial.generate(checkpoint, "abc", tokens=12, **settings)


def test_a_text_is_written_at_its_setting_and_says_so(tmp_path):
    shape = replace(with_domains().shape, top_k=4)
    model = initialise(shape, 3).eval()
    model.sparse_feed_forwards[0].w_out_EFD.data.mul_(30)  # so that it matters which experts write
    folder = saved(model, tmp_path / "c")
    whole = generate(folder)
    assert (whole.setting.name, whole.setting_reason) == ("k=4", "default")
    for name, settings in (
        ("k=1", {"setting": "k=1"}),
        ("k=4", {"setting": "default"}),
        ("k=4,skip=0", {"setting": "skip=0"}),
    ):
        answer = generate(folder, **settings)
        assert (answer.setting.name, answer.setting_reason) == (name, "asked")
        assert answer.active_parameters == answer.setting.active_parameters
        model = at_setting(load(folder), parse_turned(name))
        drawn = generation.generate(model, list(b"abc"), 12, generation.Sampling())
        assert answer.text == byte_tokenizer().decode(list(islice(drawn, 12)))
        assert answer.joules.joules > 0
    assert generate(folder, setting="k=1").text != whole.text
    assert whole.active_parameters > generate(folder, setting="k=1").active_parameters


def test_python_loads_a_checkpoint_at_a_setting(checkpoint):
    model, turned = sparsedial.load(checkpoint), sparsedial.load(checkpoint, "k=1")
    assert turned.shape == replace(model.shape, top_k=1)
    assert sparsedial.load(checkpoint, setting="default").shape == model.shape
    with pytest.raises(UserError, match="k=9 lies outside"):
        sparsedial.load(checkpoint, "k=9")
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    assert sparsedial.lm_eval_model(checkpoint, "k=1").scorer.model.shape == turned.shape


def test_the_answer_is_the_contracts_and_people_read_a_line_about_it(checkpoint, capsys):
    words = ["generate", str(checkpoint), "abc", "--tokens", "5", "--setting", "k=1"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    of_values(json.loads(captured.out), Generation)
    assert captured.err == ""
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("abc")
    assert captured.err.startswith("k=1: ")
    assert "active parameters, 5 tokens in " in captured.err


def test_a_budget_takes_a_measured_setting_and_says_why(checkpoint, text, capsys):
    measure(checkpoint, text, settings="k=1")
    kept = json.loads((checkpoint / "dial.json").read_text())
    slowest = min(point["costs"]["decode_tokens_per_second"]["median"] for point in kept["settings"])
    capsys.readouterr()
    assert generate(checkpoint, at_least=f"{slowest / 2}tok/s").setting_reason.startswith("lowest loss that keeps")
    assert generate(checkpoint, at_most="1000J/tok").setting_reason.startswith("lowest loss that keeps at most")
    assert capsys.readouterr().err == ""
    generate(checkpoint, at_most="1000J/tok", dtype="bfloat16")
    assert "dial.json was measured with weights in float32, here in bfloat16" in capsys.readouterr().err
    assert generate(checkpoint, max_loss_increase="90%").setting_reason == "cheapest that keeps loss_increase ≤ 90 %"
    words = ["generate", str(checkpoint), "abc", "--at-least", "1e9tok/s"]
    assert "--at-least: no setting keeps 1,000,000,000 tokens/s: the nearest is k=" in refused(words, capsys)


def test_a_dial_that_is_missing_or_of_another_checkpoint_is_one_line(checkpoint, text, tmp_path, capsys):
    words = ["generate", str(checkpoint), "abc", "--max-loss-increase", "1%"]
    assert f"`sparsedial dial {checkpoint} --measure --text TEXT` makes it" in refused(words, capsys)
    other = saved(with_domains("sigmoid"), tmp_path / "other")
    measure(other, text, settings="k=1")
    shutil.copy(other / "dial.json", checkpoint)
    assert "dial.json is of another checkpoint" in refused(words, capsys)
    (checkpoint / "dial.json").write_text("{")
    assert "dial.json: not readable" in refused(words, capsys)


def test_a_dial_of_another_machine_is_said(checkpoint, text, capsys, monkeypatch):
    from sparsedial.verbs import asked_setting

    measure(checkpoint, text, settings="k=1")
    there = replace_machine(asked_setting.describe(), cores=999)
    monkeypatch.setattr(asked_setting, "describe", lambda: there)
    capsys.readouterr()
    generate(checkpoint, at_most="1000J/tok")
    assert "was measured on another machine" in capsys.readouterr().err
    generate(checkpoint, max_loss_increase="90%")
    assert capsys.readouterr().err == ""


def replace_machine(machine, **changes):
    import msgspec

    return msgspec.structs.replace(machine, **changes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--setting", "k=1", "--at-most", "2J/100tok"], "--at-most: goes without --setting"),
        (["--at-least", "2tok/s", "--at-most", "2J/100tok"], "--at-most: goes without --at-least"),
        (["--setting", "k=1,k=2"], "--setting: 'k=1,k=2' gives one thing twice"),
        (["--setting", "k=0"], "--setting: k=0 lies outside 1..8: layer 1 has 8 experts"),
        (["--setting", "skip=5"], "--setting: there is no layer 5 to skip"),
        (["--at-least", "fast"], "--at-least: cannot read 'fast'"),
    ],
)
def test_bad_settings_of_a_text_are_one_line(checkpoint, words, says, capsys):
    assert f"error: {says}" in refused(["generate", str(checkpoint), "abc", *words], capsys)
