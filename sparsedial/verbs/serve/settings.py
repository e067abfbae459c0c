"""The settings of `serve`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.settings import setting
from sparsedial.verbs.setting_fields import AtSetting, dial_field, dtype_field, limit_field

EXAMPLE = "like `sparsedial serve runs/model/checkpoint`"
KEY_NAME = "SPARSEDIAL_API_KEY"  # of the environment
MOST_SLOTS = 1024


@dataclass(frozen=True, kw_only=True)
class ServeSettings(AtSetting):
    """The checkpoint, where it is served, and what requests get that ask for no setting."""

    checkpoint: Path = setting(help="a checkpoint folder", positional=True, example=EXAMPLE)
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 lets other machines in")
    port: int = setting(8000, "port to listen on; 0 picks a free one", "N")
    slots: int = setting(8, "answers that are written at once; others wait", "N")
    context: int | None = setting(
        None, "tokens of a prompt and its answer together", "N", shown="the model's own, at most 4,096"
    )
    name: str | None = setting(None, "the model's name in requests", shown="that of the folder")
    api_key: str | None = setting(
        None, f"ask requests for this key; better given as {KEY_NAME}, which no list of processes shows", "KEY"
    )
    open: bool = setting(False, "open the page of the server in the browser")
    dry_run: bool = setting(False, "say what it would hold in memory, and its settings, and stop")
    dtype: str | None = dtype_field()
    at_least: float | None = limit_field("at_least")
    at_most: float | None = limit_field("at_most")
    max_loss_increase: float | None = limit_field("max_loss_increase")
    setting: str | None = dial_field()

    def __post_init__(self) -> None:
        self.require_fit()
        if not 0 <= self.port <= 65535:
            raise UserError(f"{self.port} lies outside 0..65535", hint="0 picks a free port", field="port")
        if not 1 <= self.slots <= MOST_SLOTS:
            raise UserError(f"{self.slots} lies outside 1..{MOST_SLOTS:,}", field="slots")
        if self.name is not None and not self.name.strip():
            raise UserError("a model without a name cannot be asked for", field="name")
        if self.api_key is not None and not self.api_key.strip():
            raise UserError("an empty key would let everybody in", hint="leave it out, or give one", field="api_key")
        if self.key is not None and not (self.key.isascii() and self.key == self.key.strip()):
            raise UserError("no header carries this key as it is", hint="ASCII without spaces", field="api_key")

    @property
    def key(self) -> str | None:
        """What requests must show, by the setting or else by the environment."""
        return self.api_key or os.environ.get(KEY_NAME) or None
