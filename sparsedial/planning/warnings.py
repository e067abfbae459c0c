"""What to note about an answer: how far the law reaches, where it misleads, too few tokens, repeated data."""

from __future__ import annotations

import math

from sparsedial.law.counting import embedding_share
from sparsedial.law.fence import fence
from sparsedial.law.law import Law
from sparsedial.machine.profile import Profile
from sparsedial.planning.budget import Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.fitted import beyond, extrapolation_words
from sparsedial.records.plan import PredictedLoss
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.units import count_words, human_percent

FEWEST_TOKENS = 0.1  # per total parameter; no training known to us has fewer
MOSTLY_SPENT = 0.5  # of a budget; a training that takes less of it, for lack of data, is worth a note
MOSTLY_EMBEDDINGS = 0.5  # of the parameters
FAR_CONTEXT = 2  # times the context of a profile's steps
REASONING_TOKENS = 20  # per total parameter; source: Nakamura et al. 2025, second-hand


def warnings(
    law: Law,
    misleads: str | None,
    shape: Shape,
    tokens: float,
    costs: Costs,
    constraints: Constraints,
    spent: float = 1.0,
) -> list[str]:
    """The lines, most important first.

    `misleads` says where a published law does; `spent` is the share of the budget that the training takes.
    """
    lines = beyond(law, shape, tokens, costs.context)
    if misleads is not None:
        lines.append(misleads)
    lines += [*without_machine(costs), *beyond_profile(costs), *fewer_threads(costs)]
    per_parameter = tokens / total_parameters(shape)
    if per_parameter < REASONING_TOKENS:
        few = "" if per_parameter >= FEWEST_TOKENS else "far fewer than any model is trained with; "
        lines.append(
            f"{per_parameter:.3g} tokens per total parameter: {few}reasoning tasks need about {REASONING_TOKENS}"
            " (Nakamura et al. 2025, as quoted by others), knowledge tasks less"
        )
    if constraints.data_tokens is not None and tokens > constraints.data_tokens:
        lines.append(f"the data are read {tokens / constraints.data_tokens:.2g} times; repeats are discounted")
    if constraints.data_tokens is not None and spent < MOSTLY_SPENT:
        lines.append(
            f"the data end long before the budget: they take {human_percent(spent)} of it, so only a larger model"
            " would spend the rest; find more data, or plan with a smaller budget"
        )
    return lines


def beyond_profile(costs: Costs) -> list[str]:
    """Where a profile's seconds are asked for sequences of another length than those that were timed."""
    machine = costs.machine
    if not isinstance(machine, Profile) or 1 / FAR_CONTEXT <= costs.context / machine.context <= FAR_CONTEXT:
        return []
    return [
        f"the profile's steps read {machine.context:,} tokens a sequence, this plan's {costs.context:,}: its seconds"
        f" are an extrapolation; `sparsedial profile --context {costs.context}` measures such steps"
    ]


def without_machine(costs: Costs) -> list[str]:
    """Where devices or their price are given, and what they would cost is not known."""
    if costs.machine is not None or (costs.devices == 1 and costs.dollars_per_hour is None):
        return []
    return ["no machine was named with `--device`, so devices and their price change nothing"]


def fewer_threads(costs: Costs) -> list[str]:
    """Where a profile's steps ran on some of the cores, as a study's runs do: a training uses all, and is faster."""
    machine = costs.machine
    if not isinstance(machine, Profile) or machine.device != "cpu" or machine.threads >= machine.machine.cores:
        return []
    threads = count_words(machine.threads, "thread")
    return [
        f"seconds and joules are those of {threads}, as the profile's steps; `train` uses all {machine.machine.cores}"
        f" cores unless `--threads {machine.threads}` is given, and says with `--dry-run` how long it takes"
    ]


def no_better_than_a_guess(shape: Shape, loss: float) -> str | None:
    """Why a predicted loss says nothing: a model that has learned nothing has it too; None below that."""
    guess = math.log(shape.vocab_size)
    if loss < guess:
        return None
    return (
        f"the predicted loss, {loss:.3f} nats, is no better than a guess ({guess:.3f}: the same chance for each of"
        f" {shape.vocab_size:,} tokens), so the law says nothing about so small a budget"
    )


def marks(law: Law, shape: Shape, tokens: float, context: int, loss: PredictedLoss) -> list[str]:
    """What a reader must know before the answer: what the law cannot be asked, extrapolation, a model of tables."""
    lines = list(fence(law).says)
    if (guess := no_better_than_a_guess(shape, loss.mean)) is not None:
        lines.append(guess)
    far = extrapolation_words(law, shape, tokens, context)
    if far:
        spread = (
            "the law gives no interval"
            if loss.low is None or loss.high is None
            else f"by its samples the loss is {loss.low:.3f} to {loss.high:.3f}"
        )
        lines.append(f"extrapolation: {far}; {spread}")
    share = float(embedding_share(shape))
    if share > MOSTLY_EMBEDDINGS:
        lines.append(
            f"{human_percent(share)} of the parameters are embedding tables of {shape.vocab_size:,} tokens: the law's"
            " runs were hardly like this; a smaller vocabulary or a larger budget is needed"
        )
    return lines
