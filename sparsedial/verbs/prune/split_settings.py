"""What `prune` can be told when it divides a dense checkpoint into experts."""

from __future__ import annotations

from collections.abc import Mapping

from sparsedial.errors import UserError
from sparsedial.pruning.methods import DEFAULT

EXAMPLE = "like `sparsedial prune llama/ --split-experts 24 --calibrate my_text/ --out llama-experts`"
OTHERS: Mapping[str, object] = {  # settings of other jobs, with their defaults
    "keep": None,
    "fix_setting": None,
    "method": DEFAULT,
    "budget": "uniform",
    "pattern": None,
    "sequential": False,
    "layer_by_layer": False,
    **dict.fromkeys(("total_parameters", "active_parameters", "memory", "speed", "max_loss_increase")),
    **dict.fromkeys(("against", "data", "limit")),
    **dict.fromkeys(("tasks", "compare", "strengths"), ()),
}
OF_SPLITTING: Mapping[str, object] = {"split_experts": None, "always": None, "top_k": None}


def check_split(values: Mapping[str, object]) -> bool:
    """Whether a checkpoint is to be divided, by the settings of `prune`.

    Raises: UserError for settings that do not go with that, or only with that.
    """
    splits = values.get("split_experts") is not None
    if splits:
        _require_defaults(values, OTHERS, "goes without <{}>", "split_experts")
        if not values.get("calibrate"):
            raise UserError("prune: 'calibrate' is missing", hint=EXAMPLE)
        if values.get("recover") is not None and values.get("top_k") in (None, values["split_experts"]):
            raise UserError(
                "a token visits all experts, so nothing is lost that could be won back",
                hint="name fewer with <top_k>: the recovery trains at this number",
                field="recover",
            )
    else:
        _require_defaults(values, OF_SPLITTING, "<{}> goes with <split_experts> alone", None)
    return splits


def _require_defaults(values: Mapping[str, object], names: Mapping[str, object], says: str, field: str | None) -> None:
    for name, default in names.items():
        if values.get(name) != default:
            raise UserError(says.format(name), field=field)
