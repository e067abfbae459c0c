"""`prune --compare` as a user runs it: every point is what `prune` itself gives, and the picture shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.patches import ConnectionPatch
from msgspec.structs import replace

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.digests import digest_of
from sparsedial.pruning import choosing_experts, layers
from sparsedial.pruning.quality import nats_of
from sparsedial.records.compare import Compared
from sparsedial.records.quantities import Interval
from sparsedial.showing.compare_figure import comparison
from sparsedial.verbs.prune import compared, tried
from tests.cli.wide import too_wide
from tests.pruning.planted import SECOND, saved, text_of, with_dead_experts, with_dead_neurons
from tests.records.held import of_file, of_values

DEAD = (1, 3, 4, 6)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", DEAD), tmp_path / "whole")


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return saved(with_dead_neurons((0, 5, 6, 11), layers=3), tmp_path / "dense")


def compare(checkpoint: Path, text: str, methods: str = "reap,frequency", shares: str = ".75,.5", **more) -> Compared:
    out = checkpoint.parent / "compared"
    settings = {"compare": methods, "strengths": shares, "calibrate": text, "out": out, **more}
    return sparsedial.prune(checkpoint, **settings)


def test_each_point_is_what_prune_itself_gives(checkpoint, text, tmp_path):
    other, before = str(text_of(tmp_path / "second.txt", SECOND)), digest_of(checkpoint)
    answer = compare(checkpoint, text, also=other)
    assert [(point.method, point.target.asked) for point in answer.points] == [
        (method, share) for method in ("reap", "frequency", "random") for share in (0.75, 0.5)
    ]
    for point in answer.points:
        if point.method == "random":
            continue
        out = tmp_path / f"{point.method} {point.target.asked}"
        alone = sparsedial.prune(
            checkpoint, method=point.method, keep=point.target.asked, calibrate=text, also=other, out=out
        )
        for name in ("part", "method", "budget", "sequential", "pattern", "target", "kept", "loss_increase"):
            assert point[name] == alone[name], name
        assert point.after.loss == alone.after.loss
        for name in ("total_parameters", "active_parameters", "sparsity", "weight_bytes"):
            assert point.after[name] == alone.after[name], name
        control = next(each for each in answer.points if (each.method, each.target) == ("random", point.target))
        assert control.draws == alone.control_draws == 3
        for name, scored in alone.control.loss.items():
            assert control.after.loss[name].loss == pytest.approx(scored.loss, rel=1e-9)
    assert answer.before.loss == alone.before.loss
    assert digest_of(checkpoint) == before == answer.checkpoint.digest
    assert answer.second_domain.source == other


def test_it_writes_the_comparison_and_its_picture_and_no_checkpoint(checkpoint, text):
    answer = compare(checkpoint, text)
    folder = Path(answer.out)
    assert {path.name for path in folder.iterdir()} == {"compare.json", "compare.png", "compare.svg"}
    assert of_file(folder / "compare.json", Compared) == answer
    assert (folder / answer.picture).read_bytes().startswith(b"\x89PNG")
    drawn = (folder / "compare.svg").read_text()
    assert drawn.count("<path") > 20
    assert all(point.after.decode_tokens_per_second.count >= 2 for point in answer.points)
    assert answer.before.decode_tokens_per_second.median > 0
    assert answer.points[0].after.peak_memory_bytes_reason == "choices are compared in memory, and not written"


def test_the_dashed_line_of_the_picture_goes_from_ring_to_ring(checkpoint, text):
    axes = comparison(compare(checkpoint, text, "reap,frequency,man", ".75,.5")).axes[0]
    axes.figure.canvas.draw()
    rings = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    centres = sorted({tuple(line.get_transform().transform(line.get_xydata())[0].round(2)) for line in rings})
    dashed = [patch for patch in axes.patches + axes.artists if isinstance(patch, ConnectionPatch)]
    ends = [patch.get_transform().transform(patch.get_path().vertices)[[0, -1]].round(2) for patch in dashed]
    assert len(dashed) == len(rings) - 1 > 0
    assert sorted({tuple(end) for pair in ends for end in pair}) == centres


def test_the_picture_speaks_of_a_dashed_line_where_it_is_seen(checkpoint, text):
    """Between points of one method it lies under the method's own line."""
    answer = compare(checkpoint, text)
    of_one = tuple(number for number, point in enumerate(answer.points) if point.method == "reap")
    for front, seen in ((of_one, False), ((*of_one, len(answer.points) - 1), True)):
        figure = comparison(replace(answer, pareto=front))
        said = " ".join(words.get_text() for words in figure.texts).replace("\n", " ")
        assert "Ringed" in said
        assert ("on the dashed line" in said) == seen


def test_an_interval_that_nearly_reaches_0_leaves_room_for_the_losses(checkpoint, text):
    answer = compare(checkpoint, text, "frequency", ".75,.5")
    grown = [Interval(mean=mean, low=low, high=2 * mean) for mean, low in ((0.002, 1e-9), (0.06, 0.03))]
    points = [replace(point, loss_increase={text: grown[at % 2]}) for at, point in enumerate(answer.points)]
    axes = comparison(replace(answer, points=tuple(points))).axes[0]
    assert axes.get_yscale() == "log"
    assert 0.0002 < axes.get_ylim()[0] < 0.002


def test_the_front_and_the_order_follow_from_the_points(checkpoint, text):
    """With half of the experts dead, both scores lose nothing at half; what is drawn loses much."""
    answer = compare(checkpoint, text)
    assert answer.axis == "weight_bytes", "a token visits as many experts as before"
    places = [(point.after.weight_bytes, answer.increase(point).mean) for point in answer.points]
    for number, (stays, loss) in enumerate(places):
        beaten = any(o[0] <= stays and o[1] <= loss and o != (stays, loss) for o in places)
        assert (number in answer.pareto) != beaten
    assert [(one.part, one.strength) for one in answer.orders] == [("experts", 0.75), ("experts", 0.5)]
    for one in answer.orders:
        assert one.order[-1] == "random"
        assert one.gaps[-1].low > 0.05
    assert answer.orders[1].gaps[0].mean == 0
    assert not answer.orders[1].resolved, "reap and frequency keep the same experts"


def test_the_original_and_each_part_are_read_once(dense, text, monkeypatch):
    calls, influence, loss = [], layers.block_influence, tried.nats_of_kept
    monkeypatch.setattr(layers, "block_influence", lambda *given: calls.append("calibrated") or influence(*given))
    monkeypatch.setattr(compared, "nats_of", lambda *given: calls.append("the original") or nats_of(*given))
    monkeypatch.setattr(tried, "nats_of_kept", lambda *given: calls.append("scored") or loss(*given))
    answer = compare(dense, text, "block-influence,activation", ".667,.334")
    assert calls.count("calibrated") == calls.count("the original") == 1
    assert calls.count("scored") == 4 + 4 * 3, "random choices thrice"
    assert {point.method for point in answer.points} == {
        "block-influence", "activation", "random-layers", "random-neurons"
    }  # fmt: skip
    assert answer.axis == "active_parameters"
    assert [(one.part, one.strength) for one in answer.orders] == [
        (part, share) for part in ("layers", "neurons") for share in (0.667, 0.334)
    ]
    assert answer.orders[0].order == ("block-influence", "random-layers")
    sizes = {point.after.total_parameters: point.after.decode_tokens_per_second for point in answer.points}
    for point in answer.points:
        assert point.after.decode_tokens_per_second == sizes[point.after.total_parameters], "timed once for each size"


def test_experts_are_calibrated_once_for_all_methods_and_shares(checkpoint, text, monkeypatch):
    calls, made = [], choosing_experts.gather
    monkeypatch.setattr(choosing_experts, "gather", lambda *given, **more: calls.append(more) or made(*given, **more))
    answer = compare(checkpoint, text, "reap,hc-smoe,random")
    assert calls == [{"outputs": True, "inputs": 0}]
    assert len(answer.points) == 6


def test_zeros_are_compared_by_their_share_and_not_timed(dense, text):
    answer = compare(dense, text, "magnitude,wanda", "0.5,.25")
    assert answer.axis == "share"
    assert [point.stays(answer.axis) for point in answer.points] == [0.5, 0.25] * 3
    for costs in (answer.before, *(point.after for point in answer.points)):
        assert costs.decode_tokens_per_second is None
        assert "no speed is gained" in costs.decode_tokens_per_second_reason
    assert {point.sequential for point in answer.points if point.method == "wanda"} == {True}


def test_the_table_shows_every_point_the_orders_and_the_picture(checkpoint, text, capsys):
    out = checkpoint.parent / "out"
    words = ["prune", str(checkpoint), "--compare", "reap", "--strengths", ".75,.45", "--calibrate", text]
    assert main([*words, "--out", str(out)]) == 0
    shown, said = capsys.readouterr()
    assert "experts: calibrating on" in said
    assert "reap at 0.75: " in said
    lines = shown.splitlines()
    assert sum("reap    0." in line for line in lines) == 2
    assert sum("the original" in line for line in lines) == 1
    assert sum("experts       0." in line for line in lines) == 2, "reap and random leave as much"
    assert any(line.startswith("0.45 of the experts") and "reap, random: " in line for line in lines)
    assert "reap at 0.45, random at 0.45: 0.45 of the experts is no number that the model allows: 0.5 stays" in shown
    assert lines[-1].endswith(f"{out}/compare.png")


def test_the_table_fits_a_terminal(checkpoint, dense, text, tmp_path):
    other = str(text_of(tmp_path / "second.txt", SECOND))
    assert too_wide(compare(checkpoint, text, "reap,frequency", also=other)) == []
    layers_and_neurons = "block-influence,activation"
    assert too_wide(compare(dense, text, layers_and_neurons, ".667", also=other, out=tmp_path / "parts")) == []


def test_json_is_the_answer_whole(checkpoint, text, capsys):
    words = ["prune", str(checkpoint), "--compare", "reap", "--strengths", ".5", "--calibrate", text, "--json"]
    assert main([*words, "--out", str(checkpoint.parent / "out")]) == 0
    answer = of_values(json.loads(capsys.readouterr().out), Compared)
    assert answer.out == str(checkpoint.parent / "out")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"compare": "reap,reep"}, "compare: 'reep' is not known"),
        ({"strengths": ".5,1"}, "strengths: 1 does not lie between 0 and 1"),
        ({"strengths": ".5,.1"}, "strengths: 0.1 keeps 1 of 8 experts; a token's 2 choices need at least 2"),
        ({"strengths": ""}, "strengths: an entry is empty"),
        ({"strengths": None}, "prune: 'strengths' is missing"),
        ({"keep": 0.5}, "compare: goes without keep: it keeps no checkpoint"),
        ({"method": "frequency"}, "compare: goes without method"),
        ({"recover": "1k"}, "compare: goes without recover"),
        ({"fix_setting": "k=1"}, "fix_setting: goes without"),
        ({"calibrate": None}, "prune: 'calibrate' is missing"),
        ({"compare": "reap,hc-smoe", "budget": "global"}, "budget: hc-smoe has no scores by which layers"),
        ({"compare": None, "keep": 0.5}, "strengths: goes with compare"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(checkpoint, text, settings, says):
    with pytest.raises(UserError) as refused:
        compare(checkpoint, text, **settings)
    assert says in str(refused.value)
    assert not (checkpoint.parent / "compared").exists()


def test_hints_name_the_settings_of_a_comparison(checkpoint, text):
    with pytest.raises(UserError) as refused:
        compare(checkpoint, text, shares=".1")
    assert refused.value.hint == "the least is strengths 0.25"
