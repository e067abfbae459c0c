"""What the ranks other than the first do: they train what rank 0 says, and neither write nor print."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import torch

from sparsedial.errors import UserError
from sparsedial.runs.execute import execute
from sparsedial.runs.ranks.joined import Finished, Joined, Order
from sparsedial.runs.run_store import RunStore
from sparsedial.store import Fault
from sparsedial.text.prepare import Text, try_open_text

SEE_SECONDS = 20.0  # for a network's disk to show what another machine has just written
LOOK_SECONDS = 1.0


def follow(joined: Joined) -> Any:
    """Train until rank 0 has finished; returns its answer.

    Raises: UserError where this rank cannot train, and what ended another rank.
    """
    while not isinstance(order := joined.next_order(), Finished):
        text = _seen(order)
        for task in order.group:
            torch.set_num_threads(joined.threads_of(task.job.threads))
            steps = execute(
                task.job,
                text,
                RunStore(order.runs_folder),
                splits=task.splits,
                evaluation_tokens=task.evaluation_tokens,
                alone=task.alone,
                keep_trunk=task.keep_trunk,
                joined=joined,
            )
            with joined.together():
                deque(steps, maxlen=0)
    return order.answer


def _seen(order: Order) -> Text:
    """The text that rank 0 has prepared. Its content is not read again, only its digest and its files' sizes.

    Raises: UserError where this machine does not see it.
    """
    end = time.monotonic() + SEE_SECONDS
    while isinstance(found := try_open_text(order.text_folder, verify=False), Fault) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    if isinstance(found, Fault):
        raise UserError(
            f"the text that rank 0 has prepared is not there: {found.problem}",
            hint="all machines must see the folder <out> under the same name",
        )
    if found.digest != order.text_digest:
        raise UserError(
            f"{order.text_folder} holds another text than on rank 0's machine",
            hint="all machines must see the same folder <out>, not each one of its own",
        )
    return found
