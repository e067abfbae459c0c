"""`study`: train a grid on the user's text and machine, fit and check a law, decide between sparse and dense."""

from __future__ import annotations

import contextlib

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.dry_run import StudyDryRun
from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.law import LAW_FILE
from sparsedial.records.plan import PLAN_FILE
from sparsedial.records.profile import PROFILE_FILE
from sparsedial.records.record import write
from sparsedial.records.study import STUDY_FILE, Study, StudyAnswer, StudyStatus
from sparsedial.showing.notes import text_notes
from sparsedial.store import lock, require_ours
from sparsedial.sweep.afford import MOST_SEEDS
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import dry_run, whole_seconds
from sparsedial.sweep.findings import Findings, best_of_study, finished_study, plan_at_top
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.notebook import Notebook, open_notebook, status
from sparsedial.sweep.question import Question, require_same
from sparsedial.verbs.following import following, versions
from sparsedial.verbs.listening import listening
from sparsedial.verbs.study.machines import machines_of, require_launcher
from sparsedial.verbs.study.settings import StudySettings
from sparsedial.verbs.study.tokens import study_tokens
from sparsedial.verbs.train.token_settings import found_reference

WRITTEN = (
    STUDY_FILE, LAW_FILE, PLAN_FILE, PROFILE_FILE, "report.html", "figures", "runs", "text", "reference", "shares",
    JOIN_FILE, "workers.log",
)  # fmt: skip


def study(settings: StudySettings) -> StudyAnswer | StudyDryRun | StudyStatus:
    """Measure the best sparsity on a text and a machine, and compare it with the best dense model at equal cost.

    Writes report.html, figures, study.json, law.json, profile.json, plan.json, the runs and the verdict's checkpoints
    to `out`. Started again there, it continues where it stopped.

    Raises: UserError for bad input, a text too small, a time too short, or a folder in use or not writable.
    """
    if settings.status:
        return status(settings.out)
    from sparsedial.sweep.local_lab import local_lab
    from sparsedial.verbs.study.kept_selections import kept_selections, whole_selection
    from sparsedial.verbs.study.kept_texts import crossed, full_text

    given = found_reference(settings.reference, settings.out)
    question = settings.question(given and given.name.digest)
    require_ours(settings.out, WRITTEN, settings.force)
    with lock(settings.out), contextlib.ExitStack() as opened:
        notebook = open_notebook(settings.out)
        if isinstance(notebook, Study):
            held = notebook.frozen.inputs
            require_same(settings.out, held, question.bound_to(held.text))
            return notebook.answer
        require_launcher(settings)
        clock = notebook.start(question.limit_seconds)
        selections = [] if settings.dry_run else kept_selections(question)
        listener = opened.enter_context(listening(settings.log, settings.out))
        machines = opened.enter_context(machines_of(settings, notebook, listener.note))
        listener.note("reading the text")
        whole = whole_selection(question, selections)
        text = full_text(question, whole)
        for line in text_notes(text):
            listener.note(line)
        if notebook.frozen is None:
            machines.wait_for_expected(listener.note)
        tokens, cost = study_tokens(question, given, text, listener, settings.dry_run, machines.elsewhere())
        if settings.dry_run and cost is not None and notebook.frozen is None:
            clock.spend(cost.seconds)
        shares = crossed(question, text, selections, whole, machines)
        lab = local_lab(
            question,
            text,
            notebook,
            clock,
            listener,
            binds=not settings.dry_run,
            tokens=tokens,
            shares=shares,
            machines=machines,
        )
        low, high = whole_seconds(lab, question.limit_seconds, _most_seeds(question, lab), notebook.set_up_seconds)
        if settings.dry_run:
            return dry_run(lab, low, high, cost)
        listener.plan((low + high) / 2, clock, lab.profile)
        try:
            with machines.pool:
                findings = conduct(lab, notebook, seeds=settings.seeds, form=settings.form, say=listener.note)
        finally:
            with contextlib.suppress(UserError):
                notebook.write()
        return _finish(settings, lab, notebook, findings).answer


def _most_seeds(question: Question, lab: Lab) -> int:
    """The largest number of verdict seeds that the study may have time for."""
    laid, fixed = lab.layout.seeds, question.inputs.budgets or question.inputs.seeds is not None
    return laid if fixed else max(laid, MOST_SEEDS)


def _finish(settings: StudySettings, lab: Lab, notebook: Notebook, findings: Findings) -> Study:
    """Write the law, the plan, the report and then the finished study.json."""
    from sparsedial.showing.report import write_report

    out, law, plan = settings.out, findings.law.law, plan_at_top(lab, findings)
    running = notebook.spend()
    assert running is not None
    study = finished_study(
        lab,
        running,
        findings,
        plan,
        versions=versions(),
        next_command=following(settings, best_of_study(findings, plan)),
        report=str(out / "report.html"),
    )
    if law is not None:
        write(out / LAW_FILE, law)
    if plan is not None:
        write(out / PLAN_FILE, plan)
    write_report(study, out)
    running = notebook.spend() or running
    study = replace(
        study, wall_seconds=lab.clock.elapsed, elapsed_seconds=running.elapsed_seconds, phases=running.phases
    )
    write(out / STUDY_FILE, study)
    return study
