"""The scores of `evaluate` as Markdown and as a picture: what they say follows from the record."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.machine.hardware import describe
from sparsedial.records.evaluation import (
    CheckpointName,
    Evaluation,
    Evaluations,
    Harness,
    Joules,
    Paired,
    PairedDifference,
    TaskScore,
)
from sparsedial.records.quantities import Interval, Sparsity
from sparsedial.records.setting import Setting
from sparsedial.showing.score_figure import scores, write_scores
from sparsedial.showing.scores import scores_page
from tests.showing.test_figures import beyond, words


def score(mean: float, chance: float | None, *, better: bool = False, metric: str = "acc") -> TaskScore:
    return TaskScore(
        version=1.0,
        licence=None,
        source=None,
        data_digest=None,
        shots=0,
        items=50,
        items_truncated=0,
        items_left_out=3,
        metrics={metric: Interval(mean=mean, low=mean * 0.8, high=mean * 1.2)},
        primary=metric,
        chance=chance,
        at_chance=None if chance is None else not better,
        p_value=None if chance is None else 0.5,
        answer_bits_per_byte=Interval(mean=2.5, low=2.25, high=2.75),
        gold_rank=None,
        margin_nats=None,
        items_per_second=None,
        joules_per_item=None,
        contaminated_items=None,
        metrics_without_contaminated=None,
    )


def answer(path: str = "runs/mine/dense/checkpoint", **tasks: TaskScore) -> Evaluation:
    given = dict.fromkeys(Evaluation.__struct_fields__)
    given |= {
        "checkpoint": CheckpointName(path=path, digest="ab", family="llama"),
        "tasks": tasks or {"arc_easy": score(0.5, 0.25, better=True), "boolq": score(0.52, 0.5)},
        "harness": Harness(name="lm-eval", version="0.4.13"),
        "machine": describe(),
        "wall_seconds": 1.0,
    }
    return Evaluation(**given)  # type: ignore[arg-type]


def two() -> Evaluations:
    first, second = answer(), answer("runs/mine/sparse/checkpoint")
    found = PairedDifference(mean=0.04, low=-0.02, high=0.1, items=50, p_value=0.4)
    paired = tuple(
        Paired(task=task, metric="acc", first=first.checkpoint.path, second=second.checkpoint.path, difference=found)
        for task in ("arc_easy", "boolq")
    )
    return Evaluations(results=(first, second), paired=paired, comparisons=2)


def settings() -> Evaluations:
    """One checkpoint at two settings."""
    timed = {
        "items_per_second": 12.5,
        "joules_per_item": Joules(joules=0.25, low=None, high=None, basis="estimated", source="10 W"),
    }
    tasks = {name: replace(one, **timed) for name, one in (answer().tasks or {}).items()}
    sparsity = Sparsity(experts=0.5, parameters=0.4, activation_ratio=0.5)
    turned = [
        Setting(
            name=f"k={k}",
            top_k_experts=k,
            top_p_experts=None,
            skip_layers=(),
            sparsity=sparsity,
            active_parameters=9_000 + 100 * k,
        )
        for k in (4, 1)
    ]
    found = [replace(answer(**tasks), setting=setting, loss=5.0, bits_per_byte=7.1) for setting in turned]
    return Evaluations(results=tuple(found), paired=(), comparisons=0)


def test_the_page_has_each_score_with_its_interval_beside_guessing():
    page = scores_page(answer(), "scores.png")
    assert "| arc_easy | acc | 50 items, 0-shot | 25 % | 50 % [40 %, 60 %] |" in page
    assert "| boolq | acc | 50 items, 0-shot | 50 % | 52 % [41.6 %, 62.4 %], no better than guessing |" in page
    assert "| arc_easy | 2.5 [2.25, 2.75] |" in page
    assert "lm-eval 0.4.13" in page
    assert "* boolq: 3 items left out, too long for the model" in page
    assert "](scores.png)" in page
    assert "Differences" not in page
    assert "](" not in scores_page(answer(), None)


def test_the_page_of_several_checkpoints_compares_them():
    page = scores_page(two(), None)
    assert "runs/mine/dense/checkpoint | runs/mine/sparse/checkpoint |" in page
    assert "| arc_easy | +0.040 | [−0.020, +0.100] | acc |" in page
    assert "not resolved, p = 0.4, 50 items" in page
    assert "of 2 comparisons, one in twenty is this sure by chance alone" in page
    assert "* runs/mine/sparse/checkpoint, boolq: 3 items left out" in page


def test_settings_of_one_checkpoint_are_told_apart_by_name_speed_and_energy():
    page, figure = scores_page(settings(), None), scores(settings())
    assert "| task | metric | asked | guessing | k=4 | k=1 |" in page
    assert "| bits per byte of the right answers | k=4 | k=1 |" in page
    assert "| setting | active parameters | loss | bits per byte |" in page
    assert "| k=1 | 9.1k | 5.0000 | 7.1000 |" in page
    assert "| arc_easy | acc | items a second | an item |" in page
    assert "| k=4 | 0.5000 [0.4000, 0.6000] | 12.5 | 0.25 J, estimated |" in page
    assert "* k=1, boolq: 3 items left out" in page
    assert "Settings" not in scores_page(two(), None)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["● k=4", "● k=1"]


@pytest.mark.parametrize("many", [1, 2])
def test_the_picture_has_a_dot_and_an_interval_for_each_score_and_a_line_for_guessing(many: int):
    figure = scores(answer() if many == 1 else two())
    assert figure is not None
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == [0.5] * many + [0.52] * many
    bars = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() != "o"]
    assert {(0.4, 0.6), (0.25, 0.25), (0.5, 0.5)} <= {tuple(round(float(end), 3) for end in bar) for bar in bars}
    assert "Answered better than by guessing: arc_easy" in words(figure)
    assert beyond(figure) == []
    if many == 2:
        assert [text.get_text() for text in axes.texts] == ["● dense/checkpoint", "● sparse/checkpoint"]


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ({"a": score(0.5, 0.25, better=True)}, "All tasks with choices are answered better than by guessing"),
        ({"a": score(0.25, 0.25)}, "No task is answered better than by guessing"),
        ({"a": score(0.5, None, metric="exact_match")}, "Answers that are right, by task"),
    ],
)
def test_the_title_of_the_picture_is_the_finding(tasks, says):
    figure = scores(answer(**tasks))
    assert figure is not None
    assert says in words(figure)


def test_the_title_does_not_say_of_all_models_what_holds_of_one():
    results = (answer("a", arc=score(0.5, 0.25, better=True)), answer("b", arc=score(0.25, 0.25)))
    figure = scores(Evaluations(results=results, paired=(), comparisons=0))
    assert figure is not None
    assert "Answered better than by guessing by one or more of the models: arc" in words(figure)


def test_a_metric_that_is_no_share_has_no_picture(tmp_path: Path):
    perplexity = answer(lambada=score(30.0, None, metric="perplexity"))
    assert scores(perplexity) is None
    write_scores(perplexity, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.md"]
    assert "| lambada | perplexity | 50 items, 0-shot | – | 30 [24, 36] |" in (tmp_path / "scores.md").read_text()


def test_checkpoints_of_one_name_are_told_apart_by_their_folders():
    results = (answer("a/one/checkpoint"), answer("b/checkpoint"))
    figure = scores(Evaluations(results=results, paired=(), comparisons=0))
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["● a/one/checkpoint", "● b/checkpoint"]
