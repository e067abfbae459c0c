"""The pictures: what they say must follow from the record, and they must cope with what a record lacks."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from msgspec.structs import replace

from sparsedial.records.grid import CellRow, VerdictRow
from sparsedial.records.quantities import Gap
from sparsedial.records.study import Study
from sparsedial.showing import drawing
from sparsedial.showing.figures import FIGURES
from sparsedial.showing.rows import open_side
from sparsedial.showing.run_figures import lower_edge, smoothed

from .synthetic import EXPERTS, bare_record, metered, study_record, with_cells, with_verdict

SEEDS = 5  # of each family and currency in the synthetic study


@pytest.fixture(scope="module")
def study() -> Study:
    return study_record()


def drawn(name: str, study: Study, width: float = drawing.WIDTH_INCHES) -> Figure:
    with drawing.style(width):
        figure = FIGURES[name](study)
    assert figure is not None
    return figure


def words(figure: Figure) -> str:
    """All that is written above a picture."""
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def beyond(figure: Figure) -> list[str]:
    """The writings of a picture that leave it."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    page = figure.bbox.padded(1.0)
    labels = [
        *figure.texts,
        *(text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label)),
    ]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in labels if text.get_text().strip()]
    return [
        text
        for text, box in boxes
        if not (page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1)
    ]


@pytest.mark.parametrize("width", [drawing.WIDTH_INCHES, drawing.NARROW_INCHES])
@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"joules"}))
def test_every_picture_has_a_title_and_nothing_leaves_its_edges(name: str, width: float, study: Study) -> None:
    figure = drawn(name, study, width)
    assert figure.get_figwidth() == width
    assert len(figure.texts[0].get_text()) > 20
    assert beyond(figure) == []


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_no_picture_needs_what_a_bare_record_lacks(name: str) -> None:
    with drawing.style():
        figure = FIGURES[name](bare_record())
    assert (figure is None) == (name not in ("sparsity", "advantage", "active_size", "seconds"))


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_study_in_which_everything_diverged_has_no_pictures(name: str) -> None:
    study = with_cells(
        bare_record(), lambda row: replace(row, status="diverged", reason="loss is nan", loss=None, bits_per_byte=None)
    )
    with drawing.style():
        assert FIGURES[name](study) is None


def test_drawing_leaves_no_global_state(study: Study) -> None:
    before = dict(matplotlib.rcParams)
    drawing.png(drawn("verdict", study))
    assert dict(matplotlib.rcParams) == before
    import sys

    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_the_same_record_gives_the_same_svg_bytes(study: Study) -> None:
    assert drawing.svg(drawn("verdict", study)) == drawing.svg(drawn("verdict", study))


def test_the_verdict_says_who_wins_in_which_currency(study: Study) -> None:
    assert "Sparse wins at equal FLOPs; undecided at equal seconds" in words(drawn("verdict", study))
    changed = with_verdict(study, "flops", winner="dense", gap=Gap(mean=-0.05, low=-0.08, high=-0.02))
    assert "Dense wins at equal FLOPs" in words(drawn("verdict", changed))


def sizes_of(study: Study, row: CellRow) -> list[int]:
    line = (row.budget_flops, row.experts)
    return sorted(other.d_model for other in study.cells_table if (other.budget_flops, other.experts) == line)


def test_sizes_that_are_open_get_an_arrow_and_are_counted(study: Study) -> None:
    def arrows(figure: Figure) -> int:
        return sum(getattr(text, "arrow_patch", None) is not None for axes in figure.axes for text in axes.texts)

    def bent(row: CellRow) -> CellRow:  # a parabola in the middle of each line, except for 32 experts: falling
        at = sizes_of(study, row).index(row.d_model)
        return replace(row, loss=2 - 0.1 * at if row.experts == 32 else 2 + abs(at - 1))

    figure = drawn("active_size", with_cells(study, bent))
    lines = len(study.budgets_flops)
    assert arrows(figure) == lines
    assert f"{lines * (len(EXPERTS) - 1)} of {lines * len(EXPERTS)} best sizes" in words(figure)


def test_a_diverged_neighbour_closes_a_side(study: Study) -> None:
    budget = study.budgets_flops[0]
    widest = max(row.d_model for row in study.cells_table if (row.budget_flops, row.experts) == (budget, 0))

    def falling(row: CellRow) -> CellRow:
        return replace(row, loss=3.0 - 0.1 * row.d_model)

    def cut(row: CellRow) -> CellRow:
        return replace(row, status="diverged", loss=None) if row.d_model == widest else row

    assert open_side(with_cells(study, falling), budget, 0) == "larger"
    assert open_side(with_cells(with_cells(study, falling), cut), budget, 0) is None


def test_joules_have_a_picture_only_with_a_meter(study: Study) -> None:
    assert FIGURES["joules"](study) is None
    assert "At equal joules" in words(drawn("joules", metered(study)))


def test_a_law_that_a_plain_guess_beats_is_called_beaten(study: Study) -> None:
    assert "less than simple guesses" in words(drawn("held_out", study))
    held_out = study.law.held_out
    better = replace(held_out, baselines={**held_out.baselines, "linear_in_log_compute": 0.0001})
    changed = replace(study, law=replace(study.law, held_out=better))
    assert "a straight line in log FLOPs” did as well or better" in words(drawn("held_out", changed))


def leading(study: Study, by) -> Study:
    return with_cells(study, lambda row: replace(row, loss=2.0 - (by(row) if row.experts else 0)))


def test_a_lead_that_moves_is_said_to_shrink_or_grow(study: Study) -> None:
    shrinking = leading(study, lambda row: 0.3 - 0.05 * math.log10(row.budget_flops / 1e10))
    assert "shrinks" in words(drawn("advantage", shrinking))
    growing = leading(study, lambda row: 0.05 * math.log10(row.budget_flops / 1e10))
    assert "grows" in words(drawn("advantage", growing))


def test_the_title_of_the_advantage_says_what_the_laws_line_does(study: Study) -> None:
    def tilted(by: float) -> Study:
        budgets = {budget: at for at, budget in enumerate(study.budgets_flops)}
        curves = (
            replace(curve, loss=tuple(2.0 - by * budgets[curve.budget_flops] * bool(curve.experts) for _ in curve.loss))
            for curve in study.law_curves
        )
        return replace(study, law_curves=tuple(curves))

    assert "by the law it grows" in words(drawn("advantage", tilted(0.02)))
    assert "by the law it shrinks" in words(drawn("advantage", tilted(-0.02)))
    assert "by the law it stays at" in words(drawn("advantage", tilted(-0.00001)))


def test_the_line_at_zero_ends_before_the_letters_of_a_label_that_stands_on_it(study: Study) -> None:
    (axes,) = drawn("advantage", study).axes
    (label,) = (text for text in axes.texts if text.get_text() == "the law")
    (outline,) = label.get_path_effects()
    assert isinstance(outline, withStroke)


def test_wide_numbers_push_no_label_out_of_the_picture(study: Study) -> None:
    first = min(study.budgets_flops)
    close = leading(study, lambda row: 0.03 if row.budget_flops == first else -0.02)  # ticks of three decimals
    figure = drawn("advantage", replace(close, law_curves=(), seed_noise=0.01))
    assert beyond(figure) == ["dense minus sparse, nats per token"]
    drawing.svg(figure)
    assert beyond(figure) == []


@pytest.mark.parametrize(("scatter", "says"), [(0.0, "sparse ends ahead"), (0.1, "neither is clearly ahead")])
def test_the_end_of_the_training_curves_is_called_for_a_side_beyond_the_scatter_of_the_seeds(
    study: Study, scatter: float, says: str
) -> None:
    def scattered(number: int, row: VerdictRow) -> VerdictRow:
        off = scatter * (number % SEEDS - SEEDS // 2)
        points = np.linspace(0.01, 1, 200)
        losses = 3 - points + off + (0.05 * (0.5 - points) if row.experts else 0)
        return replace(row, curve=tuple(zip((points * row.tokens).tolist(), losses.tolist(), strict=True)))

    runs = tuple(scattered(number, row) for number, row in enumerate(study.verdict_runs))
    assert says in words(drawn("training_curves", replace(study, verdict_runs=runs)))


def test_cells_outside_their_predicted_interval_are_counted(study: Study) -> None:
    held = [row for row in study.cells_table if row.held_out]
    outside = with_cells(study, lambda row: replace(row, predicted_low=0.1, predicted_high=0.2))
    assert f"0 of {len(held)} cells lie inside" in words(drawn("held_out", outside))


def test_nothing_is_undecided_where_nothing_was_compared() -> None:
    assert "At equal seconds no pair of models was compared" in words(drawn("seconds", bare_record()))


def test_the_laws_line_bends_between_the_sizes(study: Study) -> None:
    tried = {row.active_parameters for row in study.cells_table}
    assert any(len(set(curve.active_parameters) - tried) > 10 for curve in study.law_curves)
    for curve in study.law_curves:
        assert list(curve.active_parameters) == sorted(set(curve.active_parameters))


def test_a_lead_that_moves_by_less_than_its_error_is_not_said_to_grow(study: Study) -> None:
    still = leading(study, lambda row: 0.004 * math.log10(row.budget_flops / 1e10))
    said = words(drawn("advantage", still))
    assert "changes by less than its error" in said
    assert "grows" not in said


def test_names_stand_where_no_line_and_no_dot_is(study: Study) -> None:
    for name in ("expert_load", "training_curves"):
        figure = drawn(name, study)
        figure.draw(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        for axes in figure.axes:
            furthest = max(
                float(axes.transData.transform((max(np.asarray(line.get_xdata(), dtype=float)), 1))[0])
                for line in axes.get_lines()
                if line.get_transform() == axes.transData
            )
            assert all(text.get_window_extent().x0 >= furthest for text in axes.texts)


def test_the_name_of_a_lower_edge_stands_at_its_end(study: Study) -> None:
    (axes,) = drawn("seconds", study).axes
    ends = {tuple(line.get_xydata()[-1]) for line in axes.get_lines() if len(line.get_xdata()) > 2}  # type: ignore[arg-type]
    assert {text.xy for text in axes.texts if text.get_text() in ("dense", "sparse")} <= ends  # type: ignore[attr-defined]


def test_the_lower_edge_is_below_every_point_and_convex() -> None:
    noise = np.random.default_rng(3)
    points = [
        (float(x), float(3 - 0.2 * math.log(x) + y))
        for x, y in zip(noise.uniform(1, 100, 60), noise.uniform(0, 0.5, 60), strict=True)
    ]
    edge = lower_edge(points)
    costs, losses = np.log([x for x, _ in edge]), np.array([y for _, y in edge])
    assert edge[0][0] == min(x for x, _ in points)
    assert losses[-1] == min(y for _, y in points)
    below = np.interp(np.log([x for x, _ in points]), costs, losses)
    assert np.all(below <= np.array([y for _, y in points]) + 1e-9)
    assert np.all(np.diff(np.diff(losses) / np.diff(costs)) > 0)


def test_smoothing_keeps_a_straight_line_and_its_end() -> None:
    curve = [[float(x), 5 - 0.01 * x] for x in range(1, 301)]
    spent, losses = smoothed(curve)
    assert spent[-1] == 300
    assert np.allclose(losses[:-1], 5 - 0.01 * spent[:-1])


def test_labels_are_pushed_apart_in_their_order() -> None:
    moved = drawing.apart([0.0, 1.0, 2.0, 50.0], 10.0)
    assert min(np.diff(moved)) > 9.9
    assert moved[3] == 50.0
    assert sum(moved[:3]) == pytest.approx(3.0)


@pytest.mark.parametrize(("low", "high"), [(2.8e4, 4.9e4), (1e3, 1e9), (0.9, 1.2), (7e10, 2e12)])
def test_log_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = drawing.log_ticks(low, high, 4)
    assert 1 <= len(ticks) <= 4
    assert all(low <= tick <= high for tick in ticks)


def test_each_sparsity_has_its_own_colour_by_day_and_by_night() -> None:
    for dark in (False, True):
        colours = drawing.sparsity_colours([0, 2, 4, 8, 16, 32, 64, 128], dark=dark)
        assert len(set(colours.values())) == 8
