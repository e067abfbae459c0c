"""The settings of token selection, which `train` and `study` share, and the reference model that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.verbs.train.started import FoundStart, find_start

if TYPE_CHECKING:
    from sparsedial.runs.job import Job
    from sparsedial.verbs.train.token_reference import AskedTokens

SHARE_HELP = (
    "share of the tokens of each step that the loss counts, like 60%: those that the model predicts worst beside a"
    " reference model; all are read [all]"
)
REFERENCE_HELP = "the checkpoint that tokens are selected by [a small model, trained on a sample of the text]"


def check_token_settings(share: float | None, reference: str | None) -> None:
    """Raises: UserError for a share that leaves nothing out, or a reference model without a share."""
    if share is not None and share >= 1:
        raise UserError(
            f"{share:g} leaves no token out", hint="give a share below 1, like 60%, or none", field="token_share"
        )
    if share is None and reference is not None:
        raise UserError("without a share no tokens are selected", hint="give <token_share> 60%", field="reference")


def found_reference(word: str | None, out: Path) -> FoundStart | None:
    """The checkpoint of the setting; None where none is named.

    Raises: UserError where it is none, or damaged.
    """
    if word is None:
        return None
    found = find_start(word, out)
    if found is None:
        raise UserError(f"'{word}' is no folder with a checkpoint", hint="leave it out to train one", field="reference")
    return found


def asked_tokens(share: float | None, reference: str | None, out: Path, job: Job) -> AskedTokens | None:
    """The token selection of `train`; None where its loss counts all tokens.

    Raises: UserError where its reference model is no checkpoint.
    """
    if share is None:
        return None
    from sparsedial.verbs.train.token_reference import AskedTokens

    return AskedTokens(
        share=share,
        given=found_reference(reference, out),
        context=job.recipe.context,
        device=job.device,
        threads=job.threads,
        seed=0,  # so that runs of several seeds share it
    )
