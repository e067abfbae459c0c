"""A plan that is followed: found by its content, with its tokenizer, and the differences between it and a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.kinds import kind_of
from sparsedial.records.plan import PLAN_FILE, Plan, read_plan
from sparsedial.records.study import STUDY_FILE
from sparsedial.records.token_selection import ReferenceModelCost
from sparsedial.runs.job import Job
from sparsedial.shape.config import fitting_family
from sparsedial.showing.notes import text_notes
from sparsedial.store import Fault
from sparsedial.text.prepare import Text
from sparsedial.text.tokenizer import Tokenizer, byte_tokenizer, try_load_tokenizer
from sparsedial.units import human_count, human_percent, human_seconds
from sparsedial.verbs.origin import require_study_has
from sparsedial.verbs.train.started import FoundStart

UNUSED = 2  # times the tokenizer's size: padding makes a vocabulary larger by far less


@dataclass(frozen=True, kw_only=True)
class FoundPlan:
    """A plan, its file, and whether it was edited by hand."""

    path: Path
    plan: Plan
    edited: bool

    def require_tokens(self) -> None:
        """Raises: UserError where an edited plan says two numbers of tokens, so that one would be ignored."""
        plan, recipe = self.plan, self.plan.recipe
        per_step = recipe.batch * recipe.context
        if self.edited and abs(plan.tokens - recipe.tokens) > per_step:
            raise UserError(
                f"{self.path}: tokens={plan.tokens} and recipe.steps={recipe.steps} of {per_step} tokens each"
                " contradict each other",
                hint="edit both, or give <tokens>",
            )

    def tokenizer(self, asked: str | None) -> str | Tokenizer:
        """The tokenizer that is asked for, or else the plan's own, or bytes where the plan names none.

        Raises: UserError where the plan's tokenizer is not there any more.
        """
        origin = self.plan.origin
        if asked is not None or origin is None:
            return asked or "bytes"
        if origin.tokenizer.digest == byte_tokenizer().digest:
            return "bytes"
        folder = self.path.parent / origin.tokenizer_folder
        found = try_load_tokenizer(folder)
        if isinstance(found, Fault) or found.digest != origin.tokenizer.digest:
            gone = "missing or damaged" if isinstance(found, Fault) else "another one"
            raise UserError(
                f"{self.path}: the plan was made with the tokenizer {origin.tokenizer.name}, but {folder} is {gone}",
                hint="name its tokenizer.json, or another tokenizer, with <tokenizer>",
            )
        return found


Found = FoundPlan | FoundStart | str | None  # a plan, a checkpoint, or what names a shape


def find_plan(word: str) -> FoundPlan | None:
    """The plan that a word names, directly or by its folder; None where the word names a model.

    Raises: UserError for a plan that cannot be read, or that a study has not made.
    """
    path = Path(word)
    if path.is_dir() and any((path / name).exists() for name in (PLAN_FILE, STUDY_FILE)):
        path = path / PLAN_FILE
    if path.name == PLAN_FILE:
        require_study_has(path)
    if path.name != PLAN_FILE and kind_of(path) != "plan":
        return None
    plan, edited = read_plan(path)
    return FoundPlan(path=path, plan=plan, edited=edited)


def remarks(found: Found, job: Job, text: Text, token_share: float | None) -> list[str]:
    """Where a run begins, how it differs from the plan that it follows, and what is odd about its text and model."""
    made = text.tokenizer
    lines = text_notes(text)
    if fitting_family(job.shape) is None:
        lines.append("no family of transformers has such a shape: only Sparsedial can read its checkpoint")
    if job.shape.vocab_size >= UNUSED * made.vocab_size:
        lines.append(
            f"the model has {human_count(job.shape.vocab_size)} tokens and the tokenizer {made.name} only"
            f" {human_count(made.vocab_size)}: the others are never learned (`tokenizer` and"
            " `shape.vocab_size` are settings)"
        )
    if isinstance(found, FoundStart):
        lines.append(f"goes on from {found.name.path} (digest {found.name.digest[:16]}) with a new optimizer")
    return [*lines, *_plan_remarks(found, job, text, token_share)] if isinstance(found, FoundPlan) else lines


def beyond_plan(found: FoundPlan, cost: ReferenceModelCost) -> str:
    """How much the reference model of a token selection takes beside the plan's budget."""
    share = human_percent(cost.flops / found.plan.costs.flops)
    return (
        f"beside the plan's budget the reference model takes {cost.flops:.3g} FLOPs, {share} of what the plan counts,"
        f" and {human_seconds(cost.seconds)}"
    )


def _plan_remarks(found: FoundPlan, job: Job, text: Text, token_share: float | None) -> list[str]:
    """How a run differs from the plan that it follows."""
    made, lines = text.tokenizer, []
    if found.edited:
        lines.append(f"{found.path} was edited by hand: its predictions are those of the plan before that")
    if job.dial is not None:
        lines.append(
            f"{found.path} is about a model that has top_k={job.shape.top_k} experts in every step, this run has a"
            " dial: the predicted loss and cost are not about this run"
        )
    if origin := found.plan.origin:
        tokenizer, context = made.digest != origin.tokenizer.digest, job.recipe.context != origin.context
        differing = [
            *([f"tokenizer {made.name}"] if tokenizer else []),
            *([f"context {job.recipe.context}"] if context else []),
            *(["another text"] if not tokenizer and text.digest != origin.text_digest else []),
            *([_share_words(token_share)] if token_share != origin.token_share else []),
        ]
        if differing:
            lines.append(
                f"{found.path} was made with tokenizer {origin.tokenizer.name}, context {origin.context} and its own"
                f" text, this run has {', '.join(differing)}: the predicted loss is not about this run"
            )
    return lines


def _share_words(token_share: float | None) -> str:
    return "a loss of all tokens" if token_share is None else f"a loss of {human_percent(token_share)} of the tokens"
