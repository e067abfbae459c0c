"""Derive the reference study again from its stored runs: `python -m benchmarks.replay FOLDER`.

Nothing is trained: rates, law, rivals, verdicts, plan and findings are computed again from the stored runs, and
written to the folder in the same files as a study's.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from sparsedial.machine.profile import read_profile
from sparsedial.records.record import parse, plain, write
from sparsedial.records.run import Metric, Run
from sparsedial.records.study import Frozen, Inputs, Study, TimedSteps, VerdictSeeds
from sparsedial.records.text import TextSummary
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Event, Group, Moved, Task
from sparsedial.runs.job import Job
from sparsedial.showing.report import write_report
from sparsedial.store import read_json
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.findings import best_of_study, finished_study, plan_at_top
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.laws import Fitted
from sparsedial.sweep.layout import Layout
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.following import DESIGN, following
from sparsedial.verbs.study.settings import StudySettings

RECORD = Path(__file__).parent / "records" / "reference_study"
LAWS = Fitted(priors={})  # there was no prior yet when the study was laid


class Stored:
    """The stored runs, found by the current hash of their jobs."""

    def __init__(self, folder: Path) -> None:
        runs = [_run(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
        self._runs = {_job(run).hash: run for run in runs}
        rows = read_json(folder / "study.json")["verdict_runs"]
        self._curves = {row["hash"]: row["curve"] for row in rows}

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return list(self._runs.values())

    def find(self, run_hash: str) -> Run | None:
        """A run by the hash of its job."""
        return self._runs.get(run_hash)

    def has_checkpoint(self, run_hash: str) -> bool:
        """Always true: the weights are not stored."""
        return True

    def checkpoint(self, run_hash: str) -> Path:
        """The path that the checkpoint would have."""
        return Path("runs/fifth/runs") / run_hash[:16] / "checkpoint"

    def metrics(self, run_hash: str) -> list[Metric]:
        """The stored curve, a line for each of its points."""
        run = next(run for run in self.runs if run.hash == run_hash)
        step_tokens = run.recipe.batch * run.recipe.context
        return [
            Metric(
                index=round(tokens / step_tokens) - 1,
                loss=loss,
                gradient_norm=None,
                learning_rate=run.recipe.learning_rate,
                seconds=run.median_step_seconds or 0.0,
                tokens=step_tokens,
                max_over_mean=None,
                dead_experts=None,
                entropy=None,
                bias_drift=None,
            )
            for tokens, loss in self._curves.get(run_hash, [])
        ]


def _run(line: str) -> Run:
    values = json.loads(line)
    for name in ("schema_version", "record_digest"):
        values.pop(name, None)
    return parse(values, Run, "runs.jsonl")


def _job(run: Run) -> Job:
    return Job(
        shape=run.shape,
        recipe=run.recipe,
        text_digest=run.text_digest,
        tokenizer=run.tokenizer,
        device=run.device,
        threads=run.threads,
        kernels=run.kernels,
    )


class Nobody:
    """An executor that executes nothing: every run must be stored."""

    def __enter__(self) -> Nobody:
        return self

    def __exit__(self, *reason: object) -> None:
        return None

    def submit(self, group: Group, *, first: bool = False) -> None:
        """Raises: LookupError, since no run may be trained."""
        raise LookupError(f"not on record: {', '.join(task.label for task in group)}")

    def wait(self) -> list[Event]:
        """No events."""
        return []


class Silent:
    """A listener that shows nothing."""

    def moved(self, event: Moved) -> None:
        """A running task moved."""

    def ended(self, task: Task, run: Run) -> None:
        """A task ended."""


def replay(record: Path, out: Path) -> Study:
    """Derive a stored study again; its files are written to `out`."""
    kept = read_json(record / "study.json")
    frozen, profile = parse(kept["frozen"], Frozen, "study.json"), read_profile(record / "profile.json")
    layout = Layout.of(frozen.layout)
    archive = Stored(record)
    lab = Lab(
        layout=layout,
        profile=profile,
        text=parse(kept["text"], TextSummary, "study.json"),
        archive=archive,
        executor=Nobody(),
        listener=Silent(),
        clock=Clock(math.inf, kept["elapsed_seconds"], now=lambda: 0.0),
        workers=2,
        threads=1,
        kernels="compiled",
        device="cpu",
        dtype="float32",
        evaluation_tokens=frozen.evaluation_tokens,
        seed=frozen.inputs.seed,
    )
    notebook = Notebook(None)
    notebook.freeze(frozen)
    notebook.clock = lab.clock
    notebook.keep(
        selection_seeds=parse(kept["selection_seeds"], VerdictSeeds, "study.json"),
        timed_steps=parse(kept["timed_steps"], TimedSteps, "study.json"),
    )
    findings = conduct(lab, notebook, seeds=frozen.inputs.seeds, form=None, laws=LAWS)
    plan = plan_at_top(lab, findings)
    assert notebook.study is not None
    study = finished_study(
        lab,
        notebook.study,
        findings,
        plan,
        versions=kept["versions"],
        next_command=following(_settings(frozen.inputs), best_of_study(findings, plan)),
        report=kept["report"],
    )
    assert findings.law.law is not None
    assert plan is not None
    write(out / "law.json", findings.law.law)
    write(out / "plan.json", plan)
    write(out / "profile.json", profile)
    write(out / "study.json", study)
    return study


def _settings(inputs: Inputs) -> StudySettings:
    """The settings of the stored study, without its device (the cores that `auto` chose) and other machines."""
    kept = {name: getattr(inputs, name) for name in (*DESIGN, "budgets") if name not in ("device", "on")}
    return StudySettings(**kept, out=Path("runs/fifth"))


def main(out: Path) -> None:
    """Replay the reference study, with its report, and print its findings."""
    study = replay(RECORD, out)
    write_report(study, out)
    print(
        json.dumps({name: plain(study.verdict.of(name))["reason"] for name in ("flops", "seconds", "joules")}, indent=1)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
