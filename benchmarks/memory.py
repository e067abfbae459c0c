"""Does the calibrated memory model predict other shapes? `python -m benchmarks.memory`.

Memory is calibrated as `sparsedial profile` does it, by ten-step runs at three widths; then shapes, batches and
contexts that the calibration did not use are predicted and measured. Writes benchmarks/records/memory.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.keeping import keep
from sparsedial.machine.memory import measure_memory, step_bytes
from sparsedial.records.record import plain
from sparsedial.runs.timed import peak_bytes
from sparsedial.shape.ladder import Ladder

RECORD = Path(__file__).parent / "records" / "memory.json"
CONTEXT, VOCAB_SIZE, THREADS = 256, 4096, 2
LADDER = Ladder(vocab_size=VOCAB_SIZE, context=CONTEXT)
CALIBRATED = [(width, experts) for width in (32, 128, 256) for experts in (0, 64)]
UNSEEN = [(96, 0, 8, 256), (96, 32, 8, 256), (192, 16, 4, 256), (192, 64, 16, 256), (256, 32, 8, 128), (384, 0, 8, 256),
          (384, 16, 4, 256)]  # width, experts, batch, context  # fmt: skip


def main() -> None:
    """Calibrate, predict, measure, and write the record."""

    def peak(shape, batch: int, context: int) -> float:
        return peak_bytes(shape, batch, context, threads=THREADS)

    shapes = [LADDER.shape(*size) for size in CALIBRATED]
    memory = measure_memory(peak, shapes, (2, 8), CONTEXT)
    rows = []
    for width, experts, batch, context in UNSEEN:
        shape = LADDER.shape(width, experts)
        measured, predicted = peak(shape, batch, context), float(memory.bytes(shape, batch, context))
        rows.append(
            {
                "what": f"width {width}, {experts or 'no'} experts, {batch} x {context} tokens",
                "parts": plain(step_bytes(shape, batch, context).parts),
                "measured_bytes": measured,
                "predicted_bytes": predicted,
                "relative_error": predicted / measured - 1,
            }
        )
        print(f"{rows[-1]['what']:<45} {measured / 1e6:7.1f} MB, predicted {predicted / 1e6:7.1f} MB", flush=True)
    errors = np.abs([row["relative_error"] for row in rows])
    record = {
        "calibration": {
            "runs": len(memory.rows),
            "process_bytes": memory.process_bytes,
            "state_factor": memory.state_factor,
            "activation_factor": memory.activation_factor,
            "median_relative_error_left_out": memory.median_relative_error,
            "max_relative_error_left_out": memory.max_relative_error,
            "rows": [
                {**{key: value for key, value in plain(row).items() if key != "shape"}, "size": size}
                for row, size in zip(memory.rows, [size for size in CALIBRATED for _ in (2, 8)], strict=True)
            ],
        },
        "unseen": rows,
        "median_relative_error_unseen": float(np.median(errors)),
        "max_relative_error_unseen": float(np.max(errors)),
    }
    keep(RECORD, "python -m benchmarks.memory", record)
    print({key: value for key, value in record.items() if key.endswith("unseen") and key != "unseen"})
    print(record["calibration"] | {"rows": None})


if __name__ == "__main__":
    main()
