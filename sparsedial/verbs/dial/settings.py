"""The settings of `dial`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.settings import file_names, given, setting
from sparsedial.shape.turned import ALL, setting_texts
from sparsedial.verbs.plan.space import DEFAULT_LAW

OF_PAGE = ("port", "open")
OF_MEASURING = ("text", "settings", "calibrate", "context", "scored_tokens", "dry_run", "out")


@dataclass(frozen=True, kw_only=True)
class DialSettings:
    """The law that the page asks, and the port; or the checkpoint whose settings are measured, and on which text."""

    law: str = setting(
        DEFAULT_LAW, "a published law, a law.json, a study's or a checkpoint's folder", positional=True, nargs="?"
    )
    port: int = setting(8765, "local port; 0 picks a free one", "N")
    open: bool = setting(False, "open the page in the browser")
    measure: bool = setting(False, "measure loss, speed, memory and energy of a checkpoint's settings, without a page")
    text: tuple[str, ...] = setting(
        (), "with --measure: files or folders of text for the loss", "TEXT,…", parse=file_names
    )
    settings: tuple[str, ...] = setting(
        ALL,
        "with --measure: settings like `k=2;k=1,skip=3` or `neurons=0.5`; all: k as trained, half of it and so on to"
        " one, or of a dense checkpoint some shares of its neurons",
        "S;…",
        parse=setting_texts,
    )
    calibrate: tuple[str, ...] = setting(
        (),
        "with --measure: text that gates are measured on, for a share of the neurons",
        "TEXT,…",
        parse=file_names,
        shown="a part of --text that does not score",
    )
    context: int | None = setting(
        None, "with --measure: tokens per window of text", "N", shown="the model's own, at most 2,048"
    )
    scored_tokens: int = setting(16_384, "with --measure: tokens that the loss is measured on, at most", "N")
    dry_run: bool = setting(False, "with --measure: show what it would cost, and exit")
    out: Path | None = setting(None, "with --measure: the file to write", "FILE", shown="dial.json in the checkpoint")

    def __post_init__(self) -> None:
        if self.measure:
            self._check_measuring()
        for name in given(self):
            if name in OF_MEASURING and not self.measure:
                raise UserError("is for measuring the settings of a checkpoint", hint="add <measure>", field=name)
            if name in OF_PAGE and self.measure:
                raise UserError("is for the page, and <measure> opens none", hint="leave it out", field=name)
        if not 0 <= self.port <= 65535:
            raise UserError(f"{self.port} lies outside 0..65535", hint="0 picks a free port", field="port")

    def _check_measuring(self) -> None:
        example = "like `sparsedial dial runs/model/checkpoint --measure --text my_text/`"
        if self.law == DEFAULT_LAW:
            raise UserError("no checkpoint is given", hint=example, field="measure")
        if not self.text:
            raise UserError("no text is given", hint=example, field="text")
        if self.scored_tokens < 1:
            raise UserError(f"{self.scored_tokens} is below 1", field="scored_tokens")
