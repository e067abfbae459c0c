"""Does the calibrated memory model predict other shapes? `python -m benchmarks.memory`.

Memory is calibrated as `sparsedial profile` does it, by ten-step runs at three widths; then shapes, batches and
contexts that the calibration did not use are predicted and measured. Writes benchmarks/records/memory.json after each
of these, so that a stopped run leaves what it has. To see that it works: `--widths 32,128 --shapes 1 --record FILE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from sparsedial.machine.memory import Memory, measure_memory, step_bytes
from sparsedial.records.record import plain
from sparsedial.runs.timed import peak_bytes
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape

RECORD = Path(__file__).parent / "records" / "memory.json"
CONTEXT, VOCAB_SIZE, THREADS = 256, 4096, 2
LADDER = Ladder(vocab_size=VOCAB_SIZE, context=CONTEXT)
WIDTHS, EXPERTS, BATCHES = (32, 128, 256), (0, 64), (2, 8)  # of the calibration
UNSEEN = [(96, 0, 8, 256), (96, 32, 8, 256), (192, 16, 4, 256), (192, 64, 16, 256), (256, 32, 8, 128), (384, 0, 8, 256),
          (384, 16, 4, 256)]  # width, experts, batch, context  # fmt: skip


def main() -> None:
    """Calibrate, predict and measure; write the record after each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)), help="of the calibration")
    parser.add_argument("--shapes", type=int, default=len(UNSEEN), help="that are predicted, the first ones")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    sizes = [(int(width), experts) for width in given.widths.split(",") for experts in EXPERTS]
    memory = measure_memory(_peak, [LADDER.shape(*size) for size in sizes], BATCHES, CONTEXT)
    calibration, rows = _calibration(memory, sizes), []
    for size in UNSEEN[: given.shapes]:
        rows.append(_row(memory, *size))
        errors = np.abs([row["relative_error"] for row in rows])
        record = {
            "calibration": calibration,
            "unseen": rows,
            "median_relative_error_unseen": float(np.median(errors)),
            "max_relative_error_unseen": float(np.max(errors)),
        }
        keep(given.record, "python -m benchmarks.memory", record)
    print({**calibration, "rows": None})


def _peak(shape: Shape, batch: int, context: int) -> float:
    return peak_bytes(shape, batch, context, threads=THREADS)


def _row(memory: Memory, width: int, experts: int, batch: int, context: int) -> Mapping[str, Any]:
    """One shape that was not calibrated on."""
    shape = LADDER.shape(width, experts)
    measured, predicted = _peak(shape, batch, context), float(memory.bytes(shape, batch, context))
    what = f"width {width}, {experts or 'no'} experts, {batch} x {context} tokens"
    print(f"{what:<45} {measured / 1e6:7.1f} MB, predicted {predicted / 1e6:7.1f} MB", flush=True)
    return {
        "what": what,
        "parts": plain(step_bytes(shape, batch, context).parts),
        "measured_bytes": measured,
        "predicted_bytes": predicted,
        "relative_error": predicted / measured - 1,
    }


def _calibration(memory: Memory, sizes: Sequence[tuple[int, int]]) -> Mapping[str, Any]:
    return {
        "runs": len(memory.rows),
        "process_bytes": memory.process_bytes,
        "state_factor": memory.state_factor,
        "activation_factor": memory.activation_factor,
        "median_relative_error_left_out": memory.median_relative_error,
        "max_relative_error_left_out": memory.max_relative_error,
        "rows": [
            {**{key: value for key, value in plain(row).items() if key != "shape"}, "size": size}
            for row, size in zip(memory.rows, [size for size in sizes for _ in BATCHES], strict=True)
        ],
    }


if __name__ == "__main__":
    main()
