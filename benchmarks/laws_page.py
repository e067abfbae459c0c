"""`docs/laws.md`: every published law under the same headings, and our own forms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.fit_example import fitted_page
from benchmarks.prior import RECORD
from sparsedial.law.choose import PROVEN, PROVEN_BUDGETS, STUDY_PRIORS
from sparsedial.law.forms import FORMS, STUDY_FORMS
from sparsedial.law.literature import LING, PUBLISHED, Leverage, Published
from sparsedial.records.law import Counting
from sparsedial.records.quantities import Span
from sparsedial.units import human_percent

INTRODUCTION = """# The laws

Generated from the code by `python -m benchmarks.readme`; a test compares them.

Losses are in nats per token on each study's own text and tokenizer. Losses of two laws therefore cannot be compared;
their answers can. The literature disagrees mostly because each study held something else fixed, so `sparsedial plan`
shows several answers side by side. `sparsedial fit TABLE --form FORM` fits any form here to your own runs;
`sparsedial plan --law NAME` plans by a published one.
"""


COUNTINGS: dict[Counting, str] = {
    "with-embeddings": "sizes with embedding tables, tied ones once",
    "without-embeddings": "sizes without embedding tables",
    "both-embeddings": "sizes with both embedding tables, tied or not",
}


def laws_markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION, fitted_page(), *(_published(law) for law in PUBLISHED.values()), _leverage(LING), _ours()]
    return "\n".join(parts)


def _range(ranges: dict[str, Span]) -> str:
    if not ranges:
        return "not stated in our source"
    return "; ".join(f"{name.replace('_', ' ')} {_span(low, high)}" for name, (low, high) in ranges.items())


def _span(low: float, high: float) -> str:
    if low == high:
        return f"{low:g} alone"
    return f"{low:g} to {high:g}" if low else f"up to {high:g}"


def _sections(name: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"## {name}", "", *(f"* **{head}.** {text}" for head, text in rows), ""])


def _published(law: Published) -> str:
    form = FORMS[law.form]
    values = ", ".join(f"{name} = {value:g}" for name, value in law.coefficients.items())
    return _sections(
        law.name,
        [
            ("Formula", f"`L = {form.says}`" if not form.log10 else f"`{form.says}`"),
            ("Coefficients", values),
            ("Variables", ", ".join(f"`{name}`" for name in form.variables)),
            ("Counts", COUNTINGS[form.counting]),
            ("Fitted on", _range(law.fitted_range)),
            ("Source", f"{law.source}; {law.read}"),
            ("Assumes", law.held_fixed),
            ("Misleads", law.misleads),
        ],
    )


def _leverage(law: Leverage) -> str:
    values = ", ".join(f"{name} = {value:g}" for name, value in law.coefficients.items())
    return _sections(
        law.name,
        [
            (
                "Formula",
                "`C_dense/C_moe = A^(a + d log10 C + gamma (log2 G)^2 + beta log2 G)`, A the saturated"
                " activation ratio, G = 2 d_model/d_expert",
            ),
            ("Coefficients", values),
            ("Variables", "`activation_ratio`, `granularity`, `flops`"),
            ("Fitted on", _range(law.fitted_range)),
            ("Source", f"{law.source}; {law.read}"),
            ("Assumes", law.held_fixed),
            ("Misleads", law.misleads),
        ],
    )


def _prior_words() -> Iterator[str]:
    """What a study expects of the exponent of tokens, and what that did in earlier studies."""
    prior, studies = STUDY_PRIORS["beta"], json.loads(RECORD.read_text())["studies"]
    seen, unseen = ([study for study in studies.values() if study["unseen"] == new] for new in (False, True))

    def errors(some: Sequence[Any], part: str) -> str:
        means = [np.mean([study[part][how]["rms_log_error"] for study in some]) for how in ("with", "without")]
        return f"{human_percent(means[0], 3)} with it, {human_percent(means[1], 3)} without"

    yield (
        "Small budgets show too steep a fall with tokens, and beyond them a law expects too little. So a study expects"
        f" the exponent of tokens, `beta`, near {prior.value:g}, as in Besiroglu et al. 2024 (arXiv 2404.10102):"
        f" normal in its logarithm, with a standard deviation of {prior.log_spread:g}, and counted as one run would be"
        " that lies as far from the law. Its samples draw that value anew, so intervals hold how unsure it is."
    )
    yield ""
    yield (
        f"Error at the largest budget (root mean square, mean of {len(seen)} studies that were looked at when the prior"
        f" was chosen): {errors(seen, 'below_the_largest')}; from the two lowest budgets"
        f" {errors(seen, 'two_lowest')}. In a study on another text that nobody had looked at:"
        f" {errors(unseen, 'below_the_largest')}, and {errors(unseen, 'two_lowest')}"
        " ([record](../benchmarks/records/prior.json))."
        " `sparsedial fit` does the same for runs of ours; `--prior` states another expectation, or `none`."
    )
    yield ""


def _ours() -> str:
    rows = [f"| `{name}` | `{FORMS[name].says}` | {FORMS[name].source} |" for name in STUDY_FORMS]
    head = [
        "## Forms that a study compares",
        "",
        f"Simplest first. A study of {PROVEN_BUDGETS + 1} budgets or more takes `{PROVEN}`. It was found by looking at"
        " the largest budget of the fourth reference study. In the fifth, which it had not seen, it called the right"
        " shapes the best, and all losses came out 2 % too high. A shorter study takes the simplest form whose error on"
        " the next budget is within 15 % of the best. Each lists the coefficients that its cells do not determine.",
        "",
        *_prior_words(),
        "",
        "| form | formula | source |",
        "| --- | --- | --- |",
    ]
    return "\n".join([*head, *rows, ""])
