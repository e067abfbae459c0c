"""Self-speculation: a module of multi-token prediction drafts a token, the model checks it and decides.

B sequences (here 1), S positions, D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.model.cache import Cache, Place
from sparsedial.model.greedy import ALL, Vocabulary, likeliest
from sparsedial.model.transformer import Prediction, Routing, Transformer
from sparsedial.serving.generation import generate
from sparsedial.serving.sampling import Sampling

GREEDY = Sampling(temperature=0.0)


@dataclass
class Drafts:
    """How many drafts there were, and how many were right."""

    made: int = 0
    accepted: int = 0


@torch.no_grad()
def speculate(
    model: Transformer,
    prompt: Sequence[int],
    tokens: int,
    vocabulary: Vocabulary = ALL,
    drafts: Drafts | None = None,
) -> Iterator[int]:
    """Yield the likeliest next ids, checking a drafted one in each pass; where the context is full, without drafts.

    They are those of greedy decoding, apart from rounding: a pass over two positions rounds a little differently from
    one over one. Where two tokens are almost equally likely the texts may therefore differ: in float32 hardly ever, in
    bfloat16 in a few of a hundred texts.

    Raises: UserError for an empty prompt, or a model without a module of multi-token prediction.

    Source: DeepSeek-V3 (arXiv 2412.19437), section 5.4.3; Leviathan et al. 2023 (arXiv 2211.17192)
    """
    if not prompt:
        raise UserError("the prompt has no tokens", hint="give at least one character")
    if not len(model.predictions):
        raise UserError(
            "this model has no module of multi-token prediction to draft with", hint="leave out <speculate>"
        )
    drafts = Drafts() if drafts is None else drafts
    ids, last = list(prompt), len(prompt) + tokens
    if len(ids) + 2 > model.shape.context:
        yield from generate(model, ids, tokens, GREEDY, vocabulary)
        return
    run = _Run(model, min(model.shape.context, last), vocabulary)
    stream_BSD, best = run.read(ids)
    token = best[-1]
    while len(ids) < last:
        if token in vocabulary.ends:
            return
        yield token
        ids.append(token)
        if len(ids) == last:
            return
        if run.filled + 2 > model.shape.context:
            yield from generate(model, ids, last - len(ids), GREEDY, vocabulary)
            return
        draft = run.draft(stream_BSD, token)
        drafts.made += 1
        stream_BSD, best = run.read([token, draft])
        if best[0] == draft:
            drafts.accepted += 1
            if draft in vocabulary.ends:
                return
            yield draft
            ids.append(draft)
            run.known.append(draft)
            token = best[1]
        else:
            run.cache.shrink(0, run.filled - 1)
            stream_BSD = stream_BSD[:, :1]
            token = best[0]


class _Run:
    """A model and its drafting module with their cache for `length` positions."""

    def __init__(self, model: Transformer, length: int, vocabulary: Vocabulary) -> None:
        self.model, module, self.vocabulary = model, model.predictions[0], vocabulary
        assert isinstance(module, Prediction)
        self.module = module
        self.cache = Cache(model.shape, 1, length, model.norm_D.device, model.norm_D.dtype)
        self.known: list[int] = []  # tokens after those whose stream the module has read
        self.drafted = 0  # positions that the module has read

    @property
    def filled(self) -> int:
        """Positions that the model has read."""
        return self.cache.filled[0]

    def read(self, ids: Sequence[int]) -> tuple[Tensor, list[int]]:
        """The stream at new tokens, and the likeliest token after each."""
        ids_BS = torch.tensor([list(ids)], device=self.model.embedding_VD.device)
        if not self.filled:
            self.known = list(ids[1:])
        stream_BSD = self.model.stream(ids_BS, self.model.place(ids_BS, self.cache), Routing())
        logits_SV = self.model.logits(stream_BSD, self.model.norm_D)[0]
        return stream_BSD, likeliest(self.vocabulary.mask(logits_SV))

    def draft(self, stream_BSD: Tensor, token: int) -> int:
        """The token after `token`, which follows the last position of the stream."""
        model, count = self.model, stream_BSD.shape[1]
        following = [*self.known, token]
        self.known = []
        start, end = self.drafted, self.drafted + count
        assert len(following) == count
        next_BS = torch.tensor([following], device=stream_BSD.device)
        rotary = (model.cosine_SC[start:end], model.sine_SC[start:end])
        place = Place(rotary=rotary, end=end, start=start, cache=self.cache)
        x_BSD = self.module(stream_BSD, functional.embedding(next_BS, model.embedding_VD), place, Routing())
        self.drafted = end
        (drafted,) = likeliest(self.vocabulary.mask(model.logits(x_BSD[:, -1:], self.module.norm_D)[0]))
        return drafted
