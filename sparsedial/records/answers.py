"""The answers of the other commands."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.evaluation import Joules
from sparsedial.records.profile import ProfileFile
from sparsedial.records.quantities import Sparsity
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import Record
from sparsedial.records.run import Run
from sparsedial.records.setting import Setting
from sparsedial.records.token_selection import TokenSelection
from sparsedial.records.trained_for import TrainedFor
from sparsedial.shape.shape import Shape


class Counts(Record, frozen=True, kw_only=True):
    """All numbers that follow from a shape by counting."""

    name: str
    total_parameters: int
    active_parameters: int
    active_parameters_one_embedding: int
    active_parameters_no_embedding: int
    sparsity: Sparsity
    forward_flops_per_token: int
    training_flops_per_token: int
    context_tokens: int
    dtype: str
    weight_bytes: int
    kv_cache_bytes_per_token: int


class DraftCounts(Record, frozen=True, kw_only=True):
    """The number of drafted tokens, and of accepted ones."""

    made: int
    accepted: int


WeightsDtype = Literal["float32", "bfloat16"]


class Generation(Record, frozen=True, kw_only=True):
    """A prompt and its continuation, at a setting of the checkpoint's dial."""

    prompt: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    dtype: WeightsDtype  # in which the weights were held; products are in float32
    drafts: DraftCounts | None  # null where nothing was drafted
    setting: Setting
    setting_reason: str  # why this setting: asked, default, or the budget that it keeps
    active_parameters: int
    joules: Joules  # of reading the prompt and writing the text


class Branch(Record, frozen=True, kw_only=True):
    """A shorter run that shares the first steps of another."""

    hash: str
    trunk: str | None
    tokens: int
    status: Literal["finished", "diverged"]
    validation_loss: float | None  # null where it diverged
    test_loss: float | None
    trunk_steps_shared: int


class Trained(Run, frozen=True, kw_only=True):
    """A run of `train`, with its checkpoint and branches."""

    checkpoint: str | None  # its folder; null where it diverged
    branches: tuple[Branch, ...]
    tokens_asked: float | None  # null where steps were given


class TrainSettingsFile(Record, frozen=True, kw_only=True):
    """`settings.json` beside the runs of `train`: the resolved settings."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("plan_edited", "dial", "token_selection")

    plan: str | None  # null where none was followed
    model: str | None  # null where a shape was described
    text: tuple[str, ...]
    tokenizer: str
    shape: Shape
    recipe: Recipe
    runs: tuple[str, ...]
    plan_edited: bool = False  # whether the plan was edited by hand after it was written
    dial: TrainedFor | None = None  # null where every step has the shape's top_k
    token_selection: TokenSelection | None = None  # null where the loss counts all positions


class Measured(ProfileFile, frozen=True, kw_only=True):
    """A profile, and the file that it was written to."""

    out: str


class Served(Record, frozen=True, kw_only=True):
    """The answer of `dial` and `serve`: served until Ctrl-C."""

    served: bool = True
