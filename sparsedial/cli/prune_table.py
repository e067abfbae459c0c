"""The table of `prune`: what was turned off, and the costs before, after and at random side by side."""

from __future__ import annotations

from collections.abc import Callable

from sparsedial.cli.rows import Rows, aligned, lines, under
from sparsedial.pruning.target import KINDS, percent
from sparsedial.records.domains import DomainLoss
from sparsedial.records.prune import CheckpointCosts, EqualCost, FixedSetting, Pruned, SecondDomain
from sparsedial.records.split import SplitExperts
from sparsedial.shape.counts import active_parameters
from sparsedial.showing.numbers import NONE, grown_words, interval_words, rate_words
from sparsedial.units import (
    human_bytes,
    human_cost,
    human_count,
    human_joules,
    human_percent,
    human_seconds,
    signed,
)


def prune_table(done: Pruned) -> str:
    """What was turned off, where it was written, and the costs."""
    return lines(
        [
            ("turned off", f"{TURNED_OFF[done.part](done)}, by {done.method}"),
            *_target(done),
            ("written", f"{done.out.path}, read by {' and '.join(done.out.read_by)}"),
            ("calibrated on", f"{human_count(done.calibration.tokens)} tokens of {done.calibration.source}"),
            *second_rows(done.second_domain),
            *_side_by_side(done),
            *(
                (f"added loss, {_called(name, done)}", f"{grown_words(grown)} nats per token, window by window")
                for name, grown in done.loss_increase.items()
            ),
            *recovery_rows(done),
            *(_equal_cost_rows(done.equal_cost) if done.equal_cost else []),
            *(("warning", words) for words in done.warnings),
        ]
    )


def second_rows(second: SecondDomain | None) -> Rows:
    """The second text, and what it is where it was not named; none where there was none."""
    if second is None:
        return []
    taken = second.taken
    if taken is None:
        return [("second text", second.source)]
    apart = f"({taken.divergence_bits:.2f} bits; median {taken.median_divergence_bits:.2f})"
    return [("second text", f"{second.source}, the file of the calibration text that differs most {apart}")]


def recovery_rows(done: Pruned | SplitExperts) -> Rows:
    """What the recovery took, and what it won back of the loss right after the cut; none where there was none."""
    recovery = done.recovery
    if recovery is None:
        return []
    spent = f"{human_seconds(recovery.seconds)}, {human_joules(recovery.joules.joules)} {recovery.joules.basis}"
    cut = recovery.loss_after_cut
    took = f"{human_count(recovery.tokens)} tokens by {recovery.kind}, {spent}, {human_cost('flops', recovery.flops)}"
    return [
        ("recovery", f"{took}, learning rate {recovery.learning_rate:g}"),
        *(
            ("won back", f"{interval_words(won)} from the bare cut's {cut[name].loss:.3f}, {_called(name, done)}")
            for name, won in recovery.won_back.items()
        ),
    ]


def _equal_cost_rows(found: EqualCost) -> Rows:
    """Three ways to as many active parameters, and the best of them."""
    lower, sparse = found.lower_k, found.trained_shape
    trained = human_count(active_parameters(sparse))  # the nearest width may be far from what was pruned
    return [
        ("loss at equal cost", f"with {human_count(found.active_parameters)} active parameters, nats per token"),
        ("  pruned", interval_words(found.pruned)),
        (f"  {found.lower_k_setting or 'a lower k'}", interval_words(lower) if lower else found.lower_k_reason or NONE),
        (f"  trained with {sparse.experts} experts", f"{interval_words(found.trained_sparser)}, with {trained}"),
        ("  best", found.winner.replace("_", " ")),
        *under("  how", found.basis.split("; ")),
    ]


def fixed_table(done: FixedSetting) -> str:
    """The setting that was fixed, and where it was written."""
    return lines(
        [
            ("setting", f"{done.setting.name}: {human_count(done.setting.active_parameters)} active parameters"),
            ("written", f"{done.out.path}, read by {' and '.join(done.out.read_by)}"),
            ("weights", human_bytes(done.weight_bytes)),
        ]
    )


def _experts(done: Pruned) -> str:
    """`4 of 8 experts in each of 2 layers`, or the sum over layers that differ."""
    return _of_layers([len(experts) for experts in done.kept.experts or ()], done, "experts")


def _neurons(done: Pruned) -> str:
    return _of_layers([count for count in done.kept.d_ff or () if count], done, "neurons")


def _of_layers(kept: list[int], done: Pruned, noun: str) -> str:
    if len(set(kept)) == 1:
        whole = round(kept[0] / done.keep)
        return f"{whole - kept[0]} of {whole} {noun} in each of {len(kept)} layers"
    whole = round(sum(kept) / done.keep)
    return f"{whole - sum(kept)} of {whole} {noun}"


def _layers(done: Pruned) -> str:
    """`2 of 30 layers (21, 22)`."""
    every = range(round(len(done.kept.layers) / done.keep))
    off = [str(number) for number in every if number not in done.kept.layers]
    return f"{len(off)} of {len(every)} layers ({', '.join(off)})"


def _weights(done: Pruned) -> str:
    pattern = "" if done.pattern is None else f", in the pattern {done.pattern}"
    return f"{human_percent(1 - done.keep, 3)} of the weights of all layers{pattern}"


TURNED_OFF: dict[str, Callable[[Pruned], str]] = {  # by the part
    "experts": _experts,
    "layers": _layers,
    "neurons": _neurons,
    "weights": _weights,
}


def _target(done: Pruned) -> Rows:
    """What was asked for and reached, where it was not a share, and the shares that were tried for it."""
    target, words = done.target, KINDS[done.target.kind].words
    if target.kind == "keep":
        return []
    reached = words(target.reached)
    if target.kind == "max_loss_increase":
        text = done.calibration.source
        grown, loss = done.loss_increase[text], done.before.loss[text]
        ends = [end / loss.loss for end in (grown.low, grown.high) if end is not None]
        reached += f" [{', '.join(map(percent, ends))}]" if ends else ""
    tried = [
        f"{step.keep:.4g} stays: {signed(step.loss_increase.mean)} nats per token"
        + ("" if step.speed is None else f", {words(step.speed)}")
        for step in done.search or ()
    ]
    return [("target", f"{words(target.asked)}; reached: {reached}"), *under("tried", tried)]


def _side_by_side(done: Pruned) -> Rows:
    costs, texts = [done.before, done.after, *([done.control] if done.control else [])], list(done.before.loss)
    table: dict[str, Callable[[CheckpointCosts], str]] = {
        "parameters": lambda cost: human_count(cost.total_parameters),
        "a token's parameters": lambda cost: human_count(cost.active_parameters),
        "weights": lambda cost: human_bytes(cost.weight_bytes),
        "memory of a process": _memory,
        **{f"loss, {_called(name, done)}": lambda cost, name=name: _loss(cost.loss[name]) for name in texts},
        **{f"bits per byte, {_called(name, done)}": lambda cost, name=name: _bits(cost.loss[name]) for name in texts},
        **{
            f"{name}, {score.primary}": lambda cost, name=name: _score(cost, name)
            for name, score in (done.before.tasks or {}).items()
        },
        "read, tokens a second": lambda cost: rate_words(cost.prefill_tokens_per_second),
        "written, tokens a second": lambda cost: rate_words(cost.decode_tokens_per_second),
        "energy of a written token": _energy,
    }
    heads = ["before", "after", "at random"][: len(costs)]
    cells = {name: [words(cost) for cost in costs] for name, words in table.items()}
    shown = {name: row for name, row in cells.items() if any(cell != NONE for cell in row)}
    rows = aligned([heads, *shown.values()])
    reason = done.before.decode_tokens_per_second_reason
    return [("", rows[0]), *zip(shown, rows[1:], strict=True), *([("not measured", reason)] if reason else [])]


def _called(source: str, done: Pruned | SplitExperts) -> str:
    """What a text is for."""
    return "calibration text" if source == done.calibration.source else "second text"


def _loss(scored: DomainLoss) -> str:
    return interval_words(scored.loss_interval)


def _bits(scored: DomainLoss) -> str:
    return f"{scored.bits_per_byte:.4f}"


def _score(cost: CheckpointCosts, task: str) -> str:
    """Of a task's own metric."""
    score = None if cost.tasks is None else cost.tasks[task]
    return NONE if score is None else interval_words(score.metrics[score.primary])


def _memory(cost: CheckpointCosts) -> str:
    return NONE if cost.peak_memory_bytes is None else human_bytes(cost.peak_memory_bytes)


def _energy(cost: CheckpointCosts) -> str:
    energy = cost.joules_per_token
    return NONE if energy is None else f"{human_joules(energy.joules)}, {energy.basis}"
