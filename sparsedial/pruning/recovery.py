"""Recovery: the trainer goes on from a cut checkpoint, by the text or by what the original predicts."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.kernels import native
from sparsedial.kernels.metering import stated
from sparsedial.machine.energy import spent
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.twin import write_like
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.windows import Windows
from sparsedial.records.evaluation import CheckpointName, Joules
from sparsedial.records.prune import Recovery, RecoveryKind
from sparsedial.records.recipe import Recipe
from sparsedial.records.run import Run
from sparsedial.runs.executor import Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.job import Job
from sparsedial.runs.policy import Listener, carry_out
from sparsedial.runs.run_store import RunStore
from sparsedial.shape.config import load_config
from sparsedial.shape.counts import forward_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.store import lock
from sparsedial.text.prepare import Text
from sparsedial.units import human_count

TEXT, CUT, RUNS = "text", "cut", "runs"  # in the folder of a recovery
WORTH_KEEPING = (f"{RUNS}/*/unfinished", f"{RUNS}/*/checkpoint")
MOST_REPEATS = 4  # beyond, text that was read teaches less than new one; Muennighoff et al. 2023 (arXiv 2305.16264)


@dataclass(frozen=True, kw_only=True)
class Recovering:
    """A recovery that is asked for and can be done."""

    recipe: Recipe
    kind: RecoveryKind
    text: Text  # of which the train split is learned from
    original: CheckpointName
    device: str
    threads: int
    zeros_stay: bool  # whether weights were turned off one by one, and so stay off
    home: Path

    @property
    def cut(self) -> Path:
        """The folder of the bare cut."""
        return self.home / CUT

    def job(self, shape: Shape) -> Job:
        """The run from the bare cut on, which is of this Shape."""
        family = str(load_config(self.cut).get("model_type"))
        return Job(
            shape=shape,
            recipe=self.recipe,
            text_digest=self.text.digest,
            tokenizer=self.text.tokenizer.digest,
            device=self.device,
            threads=self.threads,
            kernels=native.kind(self.device),
            start=CheckpointName(path=str(self.cut), digest=digest_of(self.cut), family=family),
            teacher=self.original if self.kind == "distillation" else None,
            zeros_stay=self.zeros_stay,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovered:
    """A recovery that is done: its run, all of its arithmetic, and the loss before its first step."""

    run: Run
    kind: RecoveryKind
    flops: int
    cut: Mapping[str, Nats]  # by text

    def record(self, after: Mapping[str, Nats]) -> Recovery:
        """What the answer says of it; `after` is the loss of the checkpoint that was written."""
        run = self.run
        return Recovery(
            tokens=run.tokens,
            kind=self.kind,
            flops=self.flops,
            seconds=run.seconds,
            joules=_joules(run),
            learning_rate=run.recipe.learning_rate,
            repeats=run.repeats,
            loss_after_cut={name: nats.record for name, nats in self.cut.items()},
            won_back={name: nats.above(after[name]) for name, nats in self.cut.items()},
        )

    def warnings(self, rivals: str | None) -> Iterator[str]:
        """What there is reason to say; `rivals` are what the choice was compared with, in words."""
        if rivals is not None:
            yield f"{rivals} are bare cuts: what compares with them is the loss right after the cut"
        if self.run.repeats > MOST_REPEATS:
            yield f"the recovery read its text {self.run.repeats:.1f} times: more text would teach more"


@contextlib.contextmanager
def kept_beside(out: Path) -> Iterator[Path]:
    """A folder beside `out` for a recovery. It is removed at the end, unless it holds steps to go on from.

    Raises: UserError where another process has it, or it cannot be written.
    """
    home = out.with_name(f".{out.name}.recovery")
    with lock(home):
        try:
            yield home
        except BaseException:
            if not any(path for pattern in WORTH_KEEPING for path in home.glob(pattern)):
                shutil.rmtree(home, ignore_errors=True)
            raise
        shutil.rmtree(home, ignore_errors=True)


def recover(recovery: Recovering, whole: Shape, scored: Mapping[str, Windows], listener: Listener) -> Recovered:
    """Train the bare cut, which lies in its folder. A run that was stopped goes on; one that is done is taken.

    `whole` is the Shape of the original.

    Raises: UserError where the run diverges, or cannot be written.
    """
    job, store = recovery.job(read_checkpoint(recovery.cut).shape), RunStore(recovery.home / RUNS)
    label = f"recovering by {recovery.kind} on {human_count(job.recipe.tokens)} tokens"
    task = Task(job=job, label=label, splits=(), alone=True, keep_checkpoint=True)
    executor = InProcess(text=recovery.text, store=store)
    run = carry_out([(task,)], executor=executor, shelf=store, listener=listener)[job.hash]
    if not run.finished:
        hint = "without <recover> the bare cut is written"
        raise UserError(f"the recovery diverged: {run.reason}", hint=hint, field="recover")
    teaching = forward_flops_per_token(whole, job.recipe.context) * run.tokens if job.teacher else 0
    cut = nats_of(load(recovery.cut), scored)
    return Recovered(run=run, kind=recovery.kind, flops=run.flops + teaching, cut=cut)


def _joules(run: Run) -> Joules:
    """The energy of a run as it metered it, else stated watts times its seconds."""
    if run.joules is not None:
        return Joules(joules=run.joules, low=None, high=None, basis="measured", source=run.joules_source)
    power = stated(run.device, run.threads)
    return spent(power, power.joules(run.seconds))


def write_recovered(folder: Path, recovery: Recovering, run: Run) -> None:
    """Write what a run learned into a folder, in the types that the bare cut's weights have, with its other files.

    Raises: OSError where it cannot be written.
    """
    types = {tensor.name: tensor.dtype for tensor in read_checkpoint(recovery.cut, torch.bfloat16).tensors}
    learned = read_checkpoint(RunStore(recovery.home / RUNS).checkpoint(run.hash))
    stream = [_of_type(tensor, types[tensor.name]) for tensor in learned.tensors]
    write_like(folder, recovery.cut, learned.shape, stream)


def _of_type(tensor: NamedTensor, dtype: torch.dtype) -> NamedTensor:
    return replace(tensor.mapped(lambda values: values.to(dtype)), dtype=dtype)
