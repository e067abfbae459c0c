"""A study's answer in sentences, which the report and the command line share: the best model, and what to do next."""

from __future__ import annotations

from sparsedial.records.best import BestModel
from sparsedial.records.study import Study, StudyAnswer
from sparsedial.shape.shape import Shape
from sparsedial.showing.words import headline, metered, power_of_ten, sparsity_words, verdict_sentence
from sparsedial.units import OPTIMIZERS, human_count, human_percent

Answered = Study | StudyAnswer


def best_headline(study: Answered) -> str:
    """The best sparsity in one line; the verdict alone where no best model is on record."""
    best = study.best
    if best is None:
        return headline(study.verdict)
    sparsity = sparsity_words(best.shape, best.sparsity.experts)
    tried = " tried" if best.sparsest_tried or study.verdict.flops.winner == "undecided" else ""
    if not best.shape.experts:
        words = f"The best model{tried} is dense"
    elif best.sparsest_tried:
        words = f"The best sparsity tried is {sparsity}, the sparsest one, so the best may lie beyond"
    else:
        words = f"The best sparsity{tried} is {sparsity}"
    return words


def best_sentences(study: Answered) -> list[str]:
    """The best model, then how well its sparsity is known; empty where no best model is on record."""
    best = study.best
    return [] if best is None else [_model(best), *_known(best)]


def lead_sentences(study: Answered) -> list[str]:
    """Sparse against dense at equal FLOPs and at equal seconds, and at equal joules where a meter was read."""
    names = ["flops", "seconds", *(["joules"] if metered(study.verdict) else [])]
    return [verdict_sentence(study.verdict, name) for name in names]


def next_sentence(study: Answered) -> str:
    """Why to run the next command."""
    best = study.best
    if best is not None and best.sparsest_tried:
        return "To see whether a sparser model is better still, at ten times the budget:"
    if study.verdict.flops.winner == "undecided":
        return "To see whether ten times the budget decides between sparse and dense:"
    return "To see whether this holds at ten times the budget, since the best sparsity may change with it:"


def experts_words(shape: Shape) -> str:
    """`2 of 64 experts and 1 shared`, or `dense`."""
    if not shape.experts:
        return "dense"
    shared = f" and {shape.shared_experts} shared" if shape.shared_experts else ""
    return f"{shape.top_k} of {shape.experts} experts{shared}"


def _model(best: BestModel) -> str:
    shape, where = best.shape, f"At {power_of_ten(best.budget_flops)} FLOPs the best model"
    kind = f"uses {experts_words(shape)} for each token" if shape.experts else "is dense"
    by = "" if best.optimizer == "adamw" else f", trained with {OPTIMIZERS[best.optimizer]}"
    sizes = f"{human_count(best.total_parameters)} parameters"
    if shape.experts:
        sizes += f", {human_count(best.active_parameters)} of them active"
    return (
        f"{where} {kind}: width {shape.d_model}, {shape.layers} layers, {sizes},"
        f" {human_count(best.tokens)} training tokens, {best.split} loss {best.loss.mean:.3f} nats per token{by}."
    )


def _known(best: BestModel) -> list[str]:
    lines: list[str] = []
    span, confidence = best.sparsity_interval, best.sparsity_interval_confidence
    if span is None or confidence is None:
        lines.append(f"The best sparsity has no interval: {best.sparsity_interval_reason}.")
    elif not best.sparsest_tried or span[0] < best.sparsity.experts:
        low, high = (f"{end:.4g}" for end in span)
        where = f"at {low}" if low == high else f"between {low} and {high}"
        share = human_percent(confidence)
        lines.append(f"Among the sparsities tried, the law's samples put the best one {where} ({share} interval).")
    if best.open_size is not None:
        lines.append(f"No {best.open_size} model was tried at this sparsity, so the best size may lie beyond.")
    return lines
