"""`prune --against`: prune a bigger model, lower its k, or train a sparser one, at equal active parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError, about
from sparsedial.law.beyond import times_beyond
from sparsedial.law.law import Law, read_law
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.equal_active import lower_k, sparser, winner_of
from sparsedial.pruning.quality import nats_of, too_few
from sparsedial.pruning.windows import Windows
from sparsedial.records.law import LAW_FILE
from sparsedial.records.prune import EqualCost, Way
from sparsedial.records.quantities import Interval
from sparsedial.records.record import read
from sparsedial.records.run import RUN_FILE, Run
from sparsedial.records.study import STUDY_FILE, Study, read_finished
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import Shape
from sparsedial.units import count_words, human_count
from sparsedial.verbs.origin import require_study_has
from sparsedial.verbs.prune.against_text import scored_windows
from sparsedial.verbs.prune.choice import Work

SAME_COST = {"experts": "a token visits as many experts as before", "weights": "zeros are used as other weights are"}
NO_LOWER = "no k of the checkpoint has so many active parameters"


@dataclass(frozen=True, kw_only=True, eq=False)
class Against:
    """A study that a result is held against, and what the checkpoint and it have in common."""

    study: Study
    law: Law
    windows: Windows  # of the study's validation text, by which its cells were scored
    left_out: int  # other windows of it, which the calibration or the recovery reads
    tokens: int  # that the checkpoint was trained on

    @property
    def experts(self) -> list[int]:
        """The numbers of experts that the study tried."""
        return [count for count in self.study.frozen.layout.experts if count]


def opened_study(folder: Path, checkpoint: Path, work: Work) -> Against:
    """Find what a study says of a checkpoint that was trained on its text, before the calibration.

    Raises: UserError for a part whose loss saves no active parameters, a study that is not finished or has no law, one
    of another text or tokenizer than the checkpoint's run, or as `scored_windows`.
    """
    reason = SAME_COST.get(work.ask.how.part)
    if reason:
        raise UserError(
            f"turning {work.ask.how.part} off leaves active parameters as they are: {reason}",
            hint="choose a <method> that turns layers or neurons off",
            field="against",
        )
    with about("against"):
        study = read_finished(folder / STUDY_FILE)
        require_study_has(folder / LAW_FILE)
        law = read_law(folder / LAW_FILE)
    if not law.samples:
        raise UserError(f"the law of {folder} has no intervals", hint="give the folder of a study", field="against")
    if not any(study.frozen.layout.experts):
        raise UserError(f"the study in {folder} tried no sparse model", hint="give one that did", field="against")
    run = _run_of(checkpoint, study, folder)
    windows, left_out = scored_windows(folder, study, work)
    return Against(study=study, law=law, windows=windows, left_out=left_out, tokens=run.tokens)


def _run_of(checkpoint: Path, study: Study, folder: Path) -> Run:
    """The run that a checkpoint came from. Raises: UserError where it is not known, or was not of the study's text."""
    file = checkpoint.resolve().parent / RUN_FILE
    if not file.exists():
        raise UserError(
            f"{checkpoint}: there is no run.json beside it, so the tokens that it was trained on are not known",
            hint="name a checkpoint of `train` or `study`",
            field="against",
        )
    run = read(file, Run)
    if run.text_digest != study.text.digest:
        what = "another text" if run.tokenizer == study.text.tokenizer.digest else "another tokenizer"
        raise UserError(
            f"{checkpoint} was trained on {what} than {folder}, so their losses cannot be compared", field="against"
        )
    if run.start is not None:
        raise UserError(f"{checkpoint} goes on from {run.start.path}, whose tokens are not known", field="against")
    return run


def equal_cost(against: Against, work: Work, model: Transformer) -> EqualCost:
    """Score the pruned checkpoint and the original at a lower k on the study's text; its law says the sparser one's."""
    target = active_parameters(model.shape)
    setting = lower_k(work.shape, target)
    turned = None if setting is None else at_setting(work.model, setting)
    best, trained = sparser(against.law, against.study.frozen.layout.ladder, against.experts, target, against.tokens)
    losses: dict[Way, Interval] = {"pruned": _loss(model, against.windows), "trained_sparser": trained}
    if turned is not None:
        losses["lower_k"] = _loss(turned, against.windows)
    return EqualCost(
        active_parameters=target,
        pruned=losses["pruned"],
        lower_k=losses.get("lower_k"),
        lower_k_reason=NO_LOWER if setting is None else None,
        lower_k_setting=None if setting is None else setting.name(work.shape),
        trained_sparser=trained,
        trained_shape=best,
        tokens=against.tokens,
        winner="undecided" if too_few(len(against.windows.ids_WS1)) else winner_of(losses),
        basis=_basis(against, best, turned and turned.shape),
    )


def _loss(model: Transformer, windows: Windows) -> Interval:
    return nats_of(model, {"": windows})[""].record.loss_interval


def _basis(against: Against, best: Shape, turned: Shape | None) -> str:
    """What was measured, what was predicted, and for which sizes."""
    measured = f"measured on {human_count(against.windows.tokens)} validation tokens of the study"
    if against.left_out:
        measured += f", without {count_words(against.left_out, 'window')} that the calibration text holds too"
    few = too_few(len(against.windows.ids_WS1))
    lower = "" if turned is None else f", the lower k with {human_count(active_parameters(turned))} active parameters"
    model = f"{best.experts} experts at width {best.d_model}, {human_count(active_parameters(best))} active parameters"
    variables = {**against.law.count(best), "tokens": against.tokens}
    beyond = {name: float(times) for name, times in times_beyond(against.law.fitted_range, variables).items()}
    far = "".join(
        f", {times:.2g} times beyond its {name.replace('_', ' ')}" for name, times in beyond.items() if times > 1
    )
    return (
        f"pruned{lower}: {measured}; trained: one run of {model} on {human_count(against.tokens)} tokens by the"
        f" study's law{far}{f'; {few}' if few else ''}"
    )
