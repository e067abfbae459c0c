"""The selection of tokens of a study: the losses of its reference model, given or trained for it."""

from __future__ import annotations

from sparsedial.records.token_selection import ReferenceModelCost, StudyTokens
from sparsedial.sweep.design import require_possible
from sparsedial.sweep.question import Question
from sparsedial.text.prepare import Text
from sparsedial.verbs.listening import StudyListener
from sparsedial.verbs.train.started import FoundStart


def study_tokens(
    question: Question,
    given: FoundStart | None,
    text: Text,
    listener: StudyListener,
    dry_run: bool,
    elsewhere: int,
) -> tuple[StudyTokens | None, ReferenceModelCost | None]:
    """The token selection of all runs, and what its reference model costs; a dry run has only the second.

    `elsewhere` is the number of workers of other machines.

    Raises: UserError where the reference model does not fit the text, or no study the question.
    """
    share, inputs = question.inputs.token_share, question.inputs
    if share is None:
        return None, None
    require_possible(question, text.tokenizer.vocab_size, elsewhere)
    from sparsedial.verbs.train.token_reference import AskedTokens

    asked = AskedTokens(
        share=share,
        given=given,
        context=question.context,
        device=inputs.device,
        threads=question.processes,
        seed=inputs.seed,
    )
    if dry_run:
        return None, asked.expected(text)
    made = asked.made(text, question.out, listener, listener.note)
    return made, made.reference.cost
