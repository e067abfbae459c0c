"""Loss of a model on the domains of one split of a text. W windows, S positions, T scored tokens of the split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from sparsedial.evaluation.scorer import Scorer
from sparsedial.text.prepare import Text
from sparsedial.text.windows import evaluation_windows, scored_starts


def split_domain_losses(
    scorer: Scorer,
    text: Text,
    split: str,
    domains: Mapping[str, str],
    *,
    context: int,
    max_tokens: int | None = None,
) -> dict[str, float]:
    """The mean loss of each domain's tokens, in the windows that score the whole split.

    `domains` has the domain of each source. Windows run across documents, so the first tokens of one may be given the
    end of another; each token counts for its own document's domain. A domain without a scored token is left out.

    Units:  nats per token
    Raises: UserError where the split is shorter than a window.
    """
    windows_WS1 = evaluation_windows(text, split, context, max_tokens)
    _, nats_WS = scorer.losses(torch.from_numpy(windows_WS1), context)
    nats_T = nats_WS.flatten().double().cpu().numpy()
    starts_W = scored_starts(text, split, context, max_tokens)
    positions_T = (starts_W[:, np.newaxis] + np.arange(1, context + 1)).flatten()
    names, numbers_T = _domains_of(text, split, domains, positions_T)
    sums = np.bincount(numbers_T, weights=nats_T, minlength=len(names))
    counts = np.bincount(numbers_T, minlength=len(names))
    return {name: float(sums[at] / counts[at]) for at, name in enumerate(names) if counts[at]}


def _domains_of(
    text: Text, split: str, domains: Mapping[str, str], positions_T: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """The names of the domains, and the number of each token's; an end token belongs to the document before it."""
    import polars  # slow to import

    rows = text.manifest.select("source", "split", "first_token", "tokens").filter(polars.col("split") == split)
    found = rows.collect()
    names = sorted(set(domains.values()))
    number = {name: at for at, name in enumerate(names)}
    of_document = np.array([number[domains[source]] for source in found["source"]])
    ends = (found["first_token"] + found["tokens"]).to_numpy()
    return names, of_document[np.searchsorted(ends, positions_T)]
