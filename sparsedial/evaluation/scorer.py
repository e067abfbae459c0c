"""What every measure of a model is made from: the likelihood of given tokens, and greedy continuations.

W windows, B sequences of a call, S positions, D d_model, V vocabulary, R scored positions of all sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.evaluation.packing import Costs, Pack, best_size, packs
from sparsedial.model.decoder import alike, padded
from sparsedial.model.greedy import Vocabulary, go_on, likeliest
from sparsedial.model.packed import branching
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.model.working import Working
from sparsedial.records.recipe import Dtype
from sparsedial.shape.counts import active_parameters, cached_values_per_token
from sparsedial.text.tokenizer import Tokenizer

TOKENS_AT_ONCE = 4096
GPU_TIMES = 4  # as many on a GPU, where the launches of a small call take longer than its work
# Of a piece of a batch: 38 MB in float32. From 32 MB on glibc maps each by itself and gives it back at once; smaller
# ones it cut from its heap, which then grew by 0.6 GB in every other process.
LOGIT_VALUES = 9 << 20
SEQUENCES = 64  # that are continued together, if their cache is no larger than
CACHED_BYTES = 1 << 30
LOGITS_AT_ONCE = 256  # positions; logits over a large vocabulary are the largest tensors of a call
CALL_FLOPS = 3e7  # that take as long as the call of a layer, whatever it computes; measured on a CPU
SLOWER = 1.0  # a FLOP of attention under a mask, over one of a product with weights; measured on a CPU
T = TypeVar("T")
Pair = tuple[Sequence[int], Sequence[int]]  # ids of a context and of what follows it


def windows_at_once(tokens: int, on_gpu: bool = False) -> int:
    """Windows of so many tokens that are scored in one call of the model; their last tokens are not read."""
    return max(1, TOKENS_AT_ONCE * (GPU_TIMES if on_gpu else 1) // (tokens - 1))


def logits_of_rows(model: Transformer, x_BSD: Tensor) -> Tensor:
    """Logits at every position of a stream, all rows behind each other. Shapes: [B, S, D] to [R, V] in float32"""
    return model.logits(x_BSD.flatten(0, 1).unsqueeze(0), model.norm_D).squeeze(0).float()


def logits_in_pieces(model: Transformer, x_BSD: Tensor, targets_R: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same piece by piece, with each position's target, so that a large vocabulary takes little memory.

    Shapes: [B, S, D] and [R] to pieces [n, V] and [n]
    """
    rows = max(1, LOGIT_VALUES // model.shape.vocab_size)
    pieces = zip(x_BSD.flatten(0, 1).split(rows), targets_R.split(rows), strict=True)
    return ((logits_of_rows(model, x_nD.unsqueeze(0)), targets_n) for x_nD, targets_n in pieces)


@dataclass(frozen=True)
class Continuation:
    """A model's likelihood of what follows a context."""

    log_likelihood: float  # nats, summed over its tokens
    tokens: int
    greedy: bool  # whether each of its tokens is the likeliest one at its position


class Scorer:
    """Scores token ids by one model; its experts' loads are counted where the routing asks for losses."""

    def __init__(self, model: Transformer, *, routing: Routing | None = None, dtype: Dtype = "float32") -> None:
        self.model, self.routing = model, Routing() if routing is None else routing
        self.device = model.embedding_VD.device
        self._working = Working(model, dtype).model

    def loss(self, windows_WS1: Tensor) -> float:
        """The summed loss of each window's ids after its first one, given those before them in the window.

        Shapes: [W, S+1] to a number
        Units: nats
        """
        return self.losses(windows_WS1, windows_WS1.shape[1] - 1)[0]

    def losses(self, windows_WS1: Tensor, last: int) -> tuple[float, Tensor]:
        """The sum of the losses of each window's `last` ids, given those before them in the window, and each of them.

        Shapes: [W, S+1] to a number and [W, last]
        Units: nats
        """
        total, each = self.losses_on_device(windows_WS1, last)
        return float(total), each

    @torch.no_grad()
    def losses_on_device(self, windows_WS1: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """The same, for which nothing waits for a GPU."""
        model, total = self._working, torch.zeros((), dtype=torch.float64, device=self.device)
        each_WS = torch.empty(len(windows_WS1), last, device=self.device)  # one piece: small ones would split the heap
        count = windows_at_once(windows_WS1.shape[1], self.model.embedding_VD.is_cuda)
        for ids_BS1, each_BS in zip(windows_WS1.split(count), each_WS.split(count), strict=True):
            ids_BS1 = ids_BS1.to(self.device)
            targets_R, each_R = ids_BS1[:, -last:].flatten(), each_BS.view(-1)
            done = 0
            for logits_nV, targets_n in logits_in_pieces(model, self._stream(ids_BS1[:, :-1], last), targets_R):
                shares_nV = logits_nV.log_softmax(1)
                total += functional.nll_loss(shares_nV, targets_n, reduction="sum")
                each_R[done : done + len(targets_n)] = functional.nll_loss(shares_nV, targets_n, reduction="none")
                done += len(targets_n)
        return total, each_WS

    def _stream(self, ids_BS: Tensor, last: int) -> Tensor:
        """The stream at the last positions of all rows. Shapes: to [B, last, D]"""
        model = self._working
        x_BSD = model.stream(ids_BS, model.place(ids_BS), self.routing)[:, -last:]
        if self.routing.losses:
            self.routing.losses.clear()  # nobody reads them: that they are asked for counts the loads
        return x_BSD

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[Continuation]:
        """The log-likelihood of each continuation after its context; pairs are (context ids, continuation ids).

        Where a pair is longer than the model's context, the beginning of its context is left out.

        Raises: UserError for an empty context or continuation, or a continuation longer than the model's context.
        """
        return _in_order(self.likelihoods(pairs))

    def likelihoods(self, pairs: Sequence[Pair]) -> Iterator[dict[int, Continuation]]:
        """The same group by group, as they are found, by the number of the pair.

        Raises: UserError as `log_likelihoods`.
        """
        rows = self._rows(pairs)
        counts = [len(continuation) for _, continuation in pairs]
        inputs = [row[:-1] for row in rows]
        size = best_size(inputs, self.model.shape.context, self._costs)
        if size is None:
            for group in alike([len(row) for row in inputs], TOKENS_AT_ONCE):
                found = self._apart([rows[number] for number in group], [counts[number] for number in group])
                yield dict(zip(group, found, strict=True))
            return
        for pack in packs(inputs, size):
            yield self._packed(pack, {number: rows[number][-counts[number] :] for number in pack.rows})

    def tokens_to_read(self, pairs: Sequence[Pair]) -> int:
        """The tokens that `likelihoods` reads: what several pairs share is read once.

        Raises: UserError as `log_likelihoods`.
        """
        inputs = [row[:-1] for row in self._rows(pairs)]
        size = best_size(inputs, self.model.shape.context, self._costs)
        return sum(map(len, inputs)) if size is None else sum(len(pack.ids) for pack in packs(inputs, size))

    def _rows(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Each pair as one row of ids, cut at its beginning to the model's context and one more."""
        most = self.model.shape.context
        for context, continuation in pairs:
            if not context or not continuation:
                raise UserError(
                    "a context or a continuation has no tokens",
                    hint="begin an empty context with the tokenizer's end token",
                )
            if len(continuation) > most:
                raise UserError(
                    f"a continuation of {len(continuation)} tokens does not fit the model's context of {most}"
                )
        return [[*context, *continuation][-most - 1 :] for context, continuation in pairs]

    @property
    def _bytes_per_position(self) -> int:
        """What a cache keeps of one position."""
        return cached_values_per_token(self.model.shape) * self.model.table_VD.element_size()

    @property
    def _costs(self) -> Costs:
        shape = self.model.shape
        products = 2 * (active_parameters(shape) - shape.vocab_size * shape.d_model)
        pair = SLOWER * 4 * shape.heads * shape.head_dim * shape.layers
        return Costs(pair=pair / products, call=CALL_FLOPS * shape.layers / products)

    @torch.no_grad()
    def _apart(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Continuation]:
        """Score the last ids of each row; `counts` says how many. Rows are read side by side."""
        ids_BS = padded([row[:-1] for row in rows], self.device)
        at_R = [
            (number, position)
            for number, (row, count) in enumerate(zip(rows, counts, strict=True))
            for position in range(len(row) - 1 - count, len(row) - 1)
        ]
        x_BSD = self._working.stream(ids_BS, self._working.place(ids_BS), self.routing)
        numbers_R, positions_R = torch.tensor(at_R, device=self.device).unbind(1)
        targets = [token for row, count in zip(rows, counts, strict=True) for token in row[-count:]]
        return self._judged(x_BSD[numbers_R, positions_R], targets, counts)

    @torch.no_grad()
    def _packed(self, pack: Pack, targets: Mapping[int, Sequence[int]]) -> dict[int, Continuation]:
        """Score the ids that follow in each row of a pack, given by the row's number."""
        ids_1S = torch.tensor([pack.ids], device=self.device)
        place = branching(self._working.place(ids_1S), pack.before, pack.positions)
        x_SD = self._working.stream(ids_1S, place, self.routing).squeeze(0)
        counts = [len(targets[number]) for number in pack.rows]
        places = [at for row, count in zip(pack.rows.values(), counts, strict=True) for at in row[-count:]]
        wanted = [token for number in pack.rows for token in targets[number]]
        return dict(zip(pack.rows, self._judged(x_SD[places], wanted, counts), strict=True))

    def _judged(self, x_RD: Tensor, targets: Sequence[int], counts: Sequence[int]) -> list[Continuation]:
        """The likelihood of each target after a position, summed over rows of `counts` targets."""
        targets_R = torch.tensor(targets, device=self.device)
        nats_R, best_R = [], []
        for x_ND, targets_N in zip(x_RD.split(LOGITS_AT_ONCE), targets_R.split(LOGITS_AT_ONCE), strict=True):
            logits_NV = self._working.logits(x_ND.unsqueeze(0), self._working.norm_D).squeeze(0).float()
            nats_R.append(functional.cross_entropy(logits_NV, targets_N, reduction="none").double())
            best_R.append(logits_NV.argmax(1) == targets_N)
        rows = torch.cat(nats_R).split(list(counts)), torch.cat(best_R).split(list(counts))
        return [Continuation(-float(nats.sum()), len(nats), bool(best.all())) for nats, best in zip(*rows, strict=True)]

    def greedy_until(
        self, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, until: Sequence[str], tokens: int
    ) -> list[str]:
        """The greedy continuation of each prompt, at most `tokens` long.

        It ends before the first of the texts in `until`, or before the end token.

        Raises: UserError for an empty prompt, or an id outside the vocabulary.
        """
        return _in_order(self.continuations(prompts, tokenizer, until, tokens))

    def continuations(
        self, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, until: Sequence[str], tokens: int
    ) -> Iterator[dict[int, str]]:
        """The same group by group, as they are written, by the number of the prompt.

        Raises: UserError as `greedy_until`.
        """
        order = sorted(range(len(prompts)), key=lambda number: tuple(prompts[number]))  # alike beginnings together
        longest = min(self.model.shape.context, max(map(len, prompts), default=0) + tokens)
        count = max(1, min(SEQUENCES, CACHED_BYTES // (longest * self._bytes_per_position)))
        for start in range(0, len(order), count):
            group = order[start : start + count]
            written = self._continue([prompts[number] for number in group], tokenizer, until, tokens)
            yield dict(zip(group, written, strict=True))

    def _continue(
        self, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, until: Sequence[str], tokens: int
    ) -> list[str]:
        made: list[list[int]] = [[] for _ in prompts]
        recent = max((len(stop.encode()) for stop in until), default=0) + 1  # tokens that a stop text can span

        def pick(logits_BV: Tensor, numbers: Sequence[int]) -> list[int]:
            stopped = [_end(tokenizer.decode(made[number][-recent:]), until) is not None for number in numbers]
            picked = likeliest(logits_BV.float())
            return [tokenizer.end_token if ended else token for ended, token in zip(stopped, picked, strict=True)]

        absent = tuple(tokenizer.absent(self.model.shape.vocab_size).tolist())
        vocabulary = Vocabulary(ends=frozenset({tokenizer.end_token}), absent=absent)
        for row in go_on(self.model, prompts, tokens, pick, vocabulary):
            for ids, token in zip(made, row, strict=True):
                if token is not None:
                    ids.append(token)
        texts = [tokenizer.decode(ids) for ids in made]
        return [text[: _end(text, until)] for text in texts]


def _in_order(groups: Iterable[Mapping[int, T]]) -> list[T]:
    """All of the answers, by their numbers."""
    found = {number: answer for group in groups for number, answer in group.items()}
    return [found[number] for number in range(len(found))]


def _end(text: str, until: Sequence[str]) -> int | None:
    """Where the first of these begins in a text."""
    return min((at for stop in until if (at := text.find(stop)) >= 0), default=None)
