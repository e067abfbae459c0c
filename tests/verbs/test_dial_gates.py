"""The dial of a dense checkpoint: a share of its neurons, from measuring to a text, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.model import gates
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.model.gates import gates_of
from sparsedial.records.answers import Generation
from sparsedial.records.dial_file import DialFile, MeasuredDial
from sparsedial.records.evaluation import Evaluations
from sparsedial.records.record import plain
from sparsedial.serving import generation
from sparsedial.shape.turned import parse_turned
from sparsedial.verbs.dial import measured as measured_dial
from tests.model.test_gates import with_closed_gates
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_clusters, with_domains
from tests.records.held import of_file, of_values
from tests.verbs.test_dial_measured import refused

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A dense one, of whose 36 neurons each letter needs 4 of its own and 4 that all letters use."""
    return saved(with_closed_gates()[0], tmp_path / "whole")


def measure(checkpoint: Path, text: str, **settings) -> MeasuredDial:
    found = sparsedial.dial(checkpoint, measure=True, text=text, scored_tokens=512, **settings)
    assert isinstance(found, MeasuredDial)
    return found


def test_a_dense_checkpoint_is_measured_at_shares_of_its_neurons_and_written_with(checkpoint, text, capsys):
    """From measuring to texts by setting and by budget; a share that drops what letters need loses."""
    before = digest_of(checkpoint)
    assert main(["dial", str(checkpoint), "--measure", "--text", text, "--scored-tokens", "512", "--json"]) == 0
    captured = capsys.readouterr()
    answer = of_values(json.loads(captured.out), MeasuredDial)
    assert "measuring gates on" in captured.err
    kept = of_file(checkpoint / "dial.json", DialFile)
    assert [point.setting.name for point in kept.settings] == ["default", "neurons=0.7", "neurons=0.5", "neurons=0.35"]
    assert answer.calibration == kept.calibration
    assert kept.calibration is not None
    assert (kept.calibration.source, kept.calibration.context_tokens) == (text, 32)
    assert digest_of(checkpoint) == before == kept.checkpoint_digest
    load(checkpoint)  # whose files are checked
    default, *others = kept.settings
    for point in others:
        assert abs(point.loss_increase.mean) < 1e-5, "what is left out is closed anyway"
        share = point.setting.neurons_share
        spared = (1 - share) * 2 * 2 * 16 * 36
        assert default.costs.active_parameters - point.costs.active_parameters == pytest.approx(spared, abs=1)
        assert point.costs.sparsity == point.setting.sparsity
    low = measure(checkpoint, text, settings="neurons=0.05,skip=0;neurons=0.05")
    assert [point.setting.name for point in low.settings] == ["default", "neurons=0.05,skip=0", "neurons=0.05"]
    assert low.settings[2].loss_increase.low > 0.1
    written = sparsedial.generate(checkpoint, "abc", tokens=6, temperature=0.0, setting="neurons=0.3")
    assert isinstance(written, Generation)
    assert written.text == "dabcda"
    assert (written.setting.name, written.setting.neurons_share) == ("neurons=0.3", 0.3)
    capsys.readouterr()
    assert main(["generate", str(checkpoint), "abc", "--tokens", "3", "--setting", "neurons=0.3"]) == 0
    assert "active parameters on average, 3 tokens in " in capsys.readouterr().err
    asked = sparsedial.generate(checkpoint, "abc", tokens=6, temperature=0.0, max_loss_increase="1000%")
    assert asked.setting.name in [point.setting.name for point in low.settings]
    scored = sparsedial.evaluate(checkpoint, text=text, settings="all")
    assert isinstance(scored, Evaluations)
    assert [one.setting.name for one in scored.results] == [point.setting.name for point in low.settings]
    grown = scored.results[2].loss - scored.results[0].loss
    assert grown == pytest.approx(low.settings[2].loss_increase.mean, rel=0.1)
    turned = sparsedial.load(checkpoint, "neurons=0.3")
    assert turned.blocks[1].feed_forward.threshold is not None


def test_gates_are_measured_where_nothing_is_scored_or_on_a_text_of_their_own(checkpoint, text, tmp_path):
    windows = measure(checkpoint, text, settings="neurons=0.5")
    scored = windows.settings[0].costs.loss[text].tokens
    assert scored + windows.calibration.tokens <= len(Path(text).read_bytes())
    assert scored <= 512
    other = text_of(tmp_path / "other.txt", SECOND, letters=700)
    own = measure(checkpoint, text, settings="neurons=0.5", calibrate=str(other))
    assert (own.calibration.source, own.calibration.tokens) == (str(other), 704)
    assert own.calibration.digest != windows.calibration.digest
    assert own.settings[0].costs.loss[text].tokens == 512
    kept = gates_of(checkpoint, load(checkpoint).shape, [parse_turned("neurons=0.5")])
    half = text_of(tmp_path / "half.txt", FIRST, letters=700)
    measure(checkpoint, text, settings="neurons=0.5", calibrate=str(half), out=tmp_path / "beside" / "dial.json")
    again = gates_of(checkpoint, load(checkpoint).shape, [parse_turned("neurons=0.5")])
    assert (kept.weights[1] == again.weights[1]).all(), "the file beside the other dial.json is another one"
    assert (tmp_path / "beside" / "dial.gates").read_bytes() != (checkpoint / "dial.gates").read_bytes()


def test_gates_are_not_measured_on_what_is_scored(checkpoint, text, tmp_path, capsys):
    for calibrate in (text, f"{tmp_path}/./{Path(text).name}", str(tmp_path)):
        command = ["dial", str(checkpoint), "--measure", "--text", text, "--calibrate", calibrate]
        says = refused([*command, "--settings", "neurons=0.5"], capsys)
        assert "--calibrate: " in says
        assert "share text, and gates would be measured on what is scored" in says
    assert not (checkpoint / "dial.json").exists()


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_the_copy_of_the_ups_is_made_before_the_seconds_of_an_answer_begin(checkpoint, text, monkeypatch):
    measure(checkpoint, text, settings="neurons=0.5")
    seen: list[str] = []
    plain_copy, plain_answer = gates.copy_values, generation.generate

    def copied(*given: Tensor) -> None:
        seen.append("copy")
        plain_copy(*given)

    def answered(*given: Any) -> Iterator[int]:
        seen.append("answer")
        return plain_answer(*given)

    monkeypatch.setattr(gates, "copy_values", copied)
    monkeypatch.setattr(generation, "generate", answered)
    sparsedial.generate(checkpoint, "abc", tokens=6, setting="neurons=0.5")
    assert seen == ["copy"] * load(checkpoint).shape.layers + ["answer"]


def test_the_command_that_measures_gates_can_be_copied_whatever_the_folder_is_called(tmp_path):
    with pytest.raises(UserError) as refusal:
        gates.read_gates(tmp_path / "mein Modell", {})
    assert f"`sparsedial dial '{tmp_path}/mein Modell' --measure --text TEXT` measures them" == refusal.value.hint


def test_gates_that_are_missing_or_of_another_checkpoint_are_one_line(checkpoint, text, tmp_path, capsys):
    words = ["generate", str(checkpoint), "abc", "--setting", "neurons=0.5"]
    says = refused(words, capsys)
    assert "dial.gates: no such file, so which neurons to leave out is not measured" in says
    assert f"`sparsedial dial {checkpoint} --measure --text TEXT` measures them" in says
    assert "dial.gates: no such file" in refused(
        ["evaluate", str(checkpoint), "--text", text, "--settings", "neurons=0.5"], capsys
    )
    with pytest.raises(UserError, match="no such file"):
        sparsedial.load(checkpoint, "neurons=0.5")
    other = saved(with_clusters()[0], tmp_path / "other")
    measure(other, text, settings="neurons=0.5")
    shutil.copy(other / "dial.gates", checkpoint)
    assert "dial.gates is of another checkpoint" in refused(words, capsys)
    (checkpoint / "dial.gates").write_text("{")
    assert "dial.gates: not readable as the gates of a checkpoint" in refused(words, capsys)
    assert main(["generate", str(checkpoint), "abc", "--tokens", "2"]) == 0, "other settings need no gates"


def test_an_interrupted_measurement_leaves_gates_and_settings_as_they_were(checkpoint, text, tmp_path, monkeypatch):
    """Ctrl-C comes while speeds are measured, when new gates are there already."""
    measure(checkpoint, text, settings="neurons=0.5")
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    other = str(text_of(tmp_path / "other.txt", SECOND, letters=700))
    with monkeypatch.context() as patch:
        patch.setattr(measured_dial, "speeds_of", stop)
        with pytest.raises(KeyboardInterrupt):
            measure(checkpoint, text, settings="neurons=0.5", calibrate=other)
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before
    measure(checkpoint, text, settings="neurons=0.5", calibrate=other)
    assert (checkpoint / "dial.gates").read_bytes() != before["dial.gates"]
    assert (checkpoint / "dial.json").read_bytes() != before["dial.json"]


def stop(*given):
    raise KeyboardInterrupt


def test_settings_that_were_measured_with_other_gates_choose_none(checkpoint, text, tmp_path, capsys):
    """As where a process was killed between the two files."""
    measure(checkpoint, text, settings="neurons=0.5")
    half = str(text_of(tmp_path / "half.txt", FIRST, letters=700))
    measure(checkpoint, text, settings="neurons=0.5", calibrate=half, out=tmp_path / "beside" / "dial.json")
    shutil.copy(tmp_path / "beside" / "dial.gates", checkpoint)
    words = ["generate", str(checkpoint), "abc", "--tokens", "2"]
    for asked in (["generate", str(checkpoint), "abc", "--at-least", "1tok/s"],
                  ["evaluate", str(checkpoint), "--text", text, "--settings", "all"]):  # fmt: skip
        says = refused(asked, capsys)
        assert f"{checkpoint}/dial.json was measured with other gates than those in dial.gates beside it" in says
        assert "--measure --text TEXT` makes it" in says
    assert main([*words, "--setting", "neurons=0.5"]) == 0, "a setting that is named needs no measurement"
    (checkpoint / "dial.gates").unlink()
    assert main([*words, "--setting", "default"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--settings", "neurons=0"], "neurons=0 lies outside 0.02..1"),
        (["--settings", "neurons=half"], "--settings: cannot read 'neurons=half'"),
        (["--settings", "skip=0", "--calibrate", "TEXT"], "--calibrate: no setting takes a share of the neurons"),
        (["--settings", "neurons=0.5", "--calibrate", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_of_measuring_is_one_line_and_writes_nothing(checkpoint, text, words, says, capsys):
    command = ["dial", str(checkpoint), "--measure", "--text", "TEXT", *words]
    assert says in refused([text if word == "TEXT" else word for word in command], capsys)
    assert not {"dial.json", "dial.gates"} & {file.name for file in checkpoint.iterdir()}


def test_one_window_cannot_both_score_and_calibrate(checkpoint, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text(FIRST * 10)
    command = ["dial", str(checkpoint), "--measure", "--text", str(short), "--settings", "neurons=0.5"]
    assert "has one window of 32 tokens" in refused(command, capsys)


def test_a_share_of_the_neurons_is_no_checkpoint_and_needs_a_dense_layer(checkpoint, text, tmp_path, capsys):
    fixing = ["--fix-setting", "neurons=0.5", "--out", str(tmp_path / "fixed")]
    says = refused(["prune", str(checkpoint), *fixing], capsys)
    assert "--fix-setting: neurons=0.5 depends on each token's gates, which no checkpoint's format expresses" in says
    assert not (tmp_path / "fixed").exists()
    sparse = saved(with_domains(), tmp_path / "sparse")
    assert measure(sparse, text, settings="neurons=0.5").settings[1].setting.name == "k=2,neurons=0.5"
    assert plain(measure(sparse, text, settings="k=1"))["calibration"] is None
