"""Where a checkpoint came from: its run, and the law that chose its shape; and what a study's plan came from."""

from __future__ import annotations

from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import PUBLISHED
from sparsedial.machine.profile import Profile
from sparsedial.model.digests import SUMMARY
from sparsedial.planning.costs import Costs
from sparsedial.records.answers import TrainSettingsFile
from sparsedial.records.law import LAW_FILE
from sparsedial.records.plan import TOKENIZER_FOLDER, PlanOrigin, read_plan
from sparsedial.records.record import plain, read
from sparsedial.records.run import RUN_FILE, Run
from sparsedial.records.study import STUDY_FILE, Study, read_study
from sparsedial.shape.config import no_folder
from sparsedial.store import digest
from sparsedial.units import bare_exponent

SETTINGS = "settings.json"  # `train` writes it beside its runs
NAME_A_LAW = "name a law, a law.json or a study's folder instead"


def require_checkpoint(folder: Path) -> None:
    """Raises: UserError where there is no such folder, or it is not a checkpoint; one within it is named."""
    if not folder.is_dir():
        raise no_folder(folder)
    inner = folder / "checkpoint"
    if not (folder / "config.json").exists() and (inner / "config.json").exists():
        raise UserError(f"{folder} is the folder of a run, not a checkpoint", hint=f"its checkpoint is {inner}")
    if not any((folder / name).exists() for name in ("config.json", SUMMARY)):
        raise UserError(
            f"{folder} is not a checkpoint: it has no config.json",
            hint="a checkpoint is a folder that `train` or `transformers` wrote, like runs/model/checkpoint",
        )


def require_study_has(file: Path) -> None:
    """Raises: UserError where a study's law or plan is missing, with the reason that the study has for it."""
    held = file.parent / STUDY_FILE
    if file.exists() or not held.exists():
        return
    study = read_study(held)
    if not isinstance(study, Study):
        raise UserError(f"{file}: the study is not finished", hint="run its command again to continue it")
    if study.law.refused:
        raise UserError(
            f"{file}: the study has no law, and so no plan: {study.law.refused}",
            hint=f"a larger study may have one: {study.next}",
        )


def law_behind(checkpoint: Path) -> tuple[str, dict[str, str]]:
    """The law that a checkpoint of `study` or `train` came from, and its position on that law's dial.

    Returns a value for `plan --law`, and the run's budget and sparsity as in the dial page's address.

    Raises: UserError where the checkpoint's run, study or plan is not found.
    """
    folder = checkpoint.resolve().parent
    if not (folder / RUN_FILE).exists():
        raise UserError(
            f"{checkpoint}: there is no run.json beside this checkpoint, so its law is unknown",
            hint=f"name a law: {', '.join(PUBLISHED)}, a law.json, or a study's folder",
        )
    run = read(folder / RUN_FILE, Run)
    state = {"flops": bare_exponent(f"{run.flops:.6g}"), "position": str(run.sparsity.experts)}
    for above in folder.parents:
        if (above / LAW_FILE).exists():
            return str(above), state
        if (above / SETTINGS).exists():
            return _law_of(read(above / SETTINGS, TrainSettingsFile).plan, checkpoint), state
    raise UserError(f"{checkpoint}: no study and no plan was found for this checkpoint", hint=NAME_A_LAW)


def _law_of(plan: str | None, checkpoint: Path) -> str:
    """The law of the plan that `train` used: the law.json beside the plan, or the published law that the plan names."""
    if plan is None or not Path(plan).exists():
        gone = "was trained without a plan" if plan is None else f"was trained from {plan}, which no longer exists"
        raise UserError(f"{checkpoint}: {gone}, so its law is unknown", hint=NAME_A_LAW)
    if (Path(plan).parent / LAW_FILE).exists():
        return str(Path(plan).parent)
    return read_plan(Path(plan))[0].law


def plan_origin(folder: Path, law: Law, costs: Costs) -> PlanOrigin | None:
    """What the law of a study's folder was measured with; None where the study did not come to its end."""
    study = read_study(folder / STUDY_FILE)
    if not isinstance(study, Study):
        return None
    machine = costs.machine
    return PlanOrigin(
        tokenizer=study.text.tokenizer,
        tokenizer_folder=str((folder / TOKENIZER_FOLDER).resolve()),
        text_digest=study.text.digest,
        context=study.frozen.layout.ladder.context,
        law_digest=digest(plain(law)),
        profile_digest=machine.digest if isinstance(machine, Profile) else None,
        token_share=study.frozen.inputs.token_share,
    )
