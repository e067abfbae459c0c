"""The settings of a study: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sparsedial.errors import UserError, nearest
from sparsedial.machine.card import batch_for
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.launch import LaunchKind
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.study import Inputs
from sparsedial.settings import file_names, known_names, setting
from sparsedial.sweep.question import Question
from sparsedial.units import parse_bytes, parse_count, parse_counts, parse_seconds, parse_share
from sparsedial.verbs import log_setting
from sparsedial.verbs.study.select_method import METHODS, parse_shares, require_method
from sparsedial.verbs.train.token_settings import REFERENCE_HELP, SHARE_HELP, check_token_settings

BATCH = 16  # sequences of a step on a CPU
KINDS: dict[str, LaunchKind] = {"local": "local", "join": "join", "slurm": "slurm", "ray": "ray"}


def _optimizers(value: Any, field: str) -> tuple[str, ...]:
    return known_names(value, get_args(OptimizerName), "optimizer", field)


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """The settings of a study."""

    text: tuple[str, ...] = setting(
        (), "files or folders of text [Python's standard library]", parse=file_names, positional=True, nargs="*"
    )
    time: float | None = setting(None, "time for the whole command, like 30m or 1h30m [10m]", "T", parse=parse_seconds)
    budgets: tuple[float, ...] = setting(
        (), "the budgets in training FLOPs, instead of --time", "C,C,…", parse=parse_counts
    )
    sparsities: tuple[float, ...] = setting(
        (0.0, 0.75, 0.875, 0.9375), "sparsities to compare, 1 - top_k/experts; 0 is dense", "S,…"
    )
    top_k: int = setting(2, "routed experts per token", "K")
    shared_experts: int = setting(1, "shared experts, which every token uses", "N")
    tokenizer: str = setting("bytes", "how text becomes tokens", "bytes|bpe:N|FILE")
    context: int | None = setting(
        None, "tokens per training window [64, or 128 if --time is 40m or more; on a GPU up to 256]", "N"
    )
    batch: int | None = setting(
        None, "maximum sequences per step; short runs use fewer [16, or as many as fill the GPU]", "N"
    )
    max_total_parameters: float | None = setting(None, "leave out larger models", "N", parse=parse_count)
    memory: float | None = setting(None, "memory for all workers together, like 3GB", "M", parse=parse_bytes)
    seeds: int | None = setting(None, "new seeds for the verdict [3, or up to 5 if time allows]", "N")
    seed: int = setting(0, "seed of the grid; change it to repeat the study with new runs", "N")
    cell_seeds: int = setting(1, "seeds per cell at the two largest budgets; cheaper cells get more", "N")
    form: str | None = setting(
        None,
        "form of the scaling law [with four or more budgets `sparsity_by_size_and_tokens`; with fewer, the one"
        " that predicts best]",
        "NAME",
    )
    optimizers: tuple[str, ...] = setting(
        (),
        "optimizers: the grid's, then others; each rival of the verdict gets the best one for it"
        " [adamw,muon; adamw if --time is below 10m]",
        "adamw,muon",
        parse=_optimizers,
    )
    probes: float | None = setting(
        None,
        "share of the training tokens that are arithmetic, facts and passages to be asked about, like 8% [none]",
        "P",
        parse=parse_share,
    )
    token_share: float | None = setting(None, SHARE_HELP, "P", parse=parse_share)
    reference: str | None = setting(None, REFERENCE_HELP, "FOLDER")
    select: str | None = setting(
        None,
        f"also train the best sparse and the best dense model on less text, chosen by {', '.join(METHODS)} [none]",
        "METHOD",
    )
    keep: tuple[float, ...] = setting(
        (), "shares of the text for --select [1,.5,.25; of a filter all that it leaves]", "X,…", parse=parse_shares
    )
    workers: int | None = setting(
        None,
        "runs at once, each a process of one thread [one per core, the maximum]; on a GPU all are in one process"
        " [as many as its profile finds fastest]",
        "N",
    )
    on: str = setting(
        "local",
        "also train on other machines: join lets in those where `sparsedial join` is typed, slurm and ray start"
        " workers on all nodes of an allocation or a cluster",
        "local|join|slurm|ray",
    )
    wait_for: int | None = setting(
        None,
        "workers of other machines to wait for before the grid is planned, 5 minutes at most [with slurm and ray all]",
        "N",
    )
    device: str = setting("auto", "device to train on", "cpu|cuda")
    out: Path = setting(Path("runs/study"), "the study's folder; the same command continues a stopped study", "DIR")
    log: tuple[str, ...] = setting((), log_setting.HELP, "csv,…", parse=log_setting.log_names)
    force: bool = setting(False, "write to --out although it holds other files; none of them is overwritten")
    status: bool = setting(False, "show the progress of the study in --out and exit")
    dry_run: bool = setting(False, "show what the study would cost and exit")

    def __post_init__(self) -> None:
        if self.budgets and self.time:
            raise UserError("contradicts budgets", hint="give only one of them", field="time")
        if self.on not in KINDS:
            raise UserError(f"'{self.on}' is not known", hint=nearest(self.on, KINDS) or ", ".join(KINDS), field="on")
        if self.wait_for is not None and self.on == "local":
            raise UserError("nobody joins this study", hint="add <on> join", field="wait_for")
        if self.wait_for is not None and self.wait_for < 0:
            raise UserError(f"{self.wait_for} is negative", hint="0 waits for nobody", field="wait_for")
        check_token_settings(self.token_share, self.reference)
        require_method(self.select, self.keep)
        if self.select is not None and self.token_share is not None:
            raise UserError("contradicts <select>", hint="give only one of them", field="token_share")

    @property
    def kind(self) -> LaunchKind:
        """Where it trains."""
        return KINDS[self.on]

    def question(self, reference: str | None = None) -> Question:
        """The settings, with defaults filled in and checked; `reference` is the digest of the model that is named.

        Raises: UserError for values that no study can have.
        """
        from sparsedial.runs.devices import card_of, pick_device

        device = pick_device(self.device)
        if device != "cpu" and self.on != "local":
            raise UserError("contradicts a GPU: other machines train on their CPUs", hint="<device> cpu", field="on")
        card = card_of(device)
        context = self.context if self.context is not None or card is None else card.context
        filling = BATCH if card is None or context is None else batch_for(card, context)
        found = ("device", "text", "reference")
        asked = {name: getattr(self, name) for name in Inputs.__struct_fields__ if name not in found}
        workers = usable_cores() if self.workers is None and device == "cpu" else self.workers
        asked |= {"context": context, "batch": filling if self.batch is None else self.batch}
        inputs = Inputs(**asked, device=device, reference=reference, text="")
        return Question(inputs=inputs, sources=self.text, workers=workers, out=self.out, card=card)
