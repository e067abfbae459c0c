"""The page on which one talks with a served checkpoint and turns its dial."""

from __future__ import annotations

from sparsedial.showing.page_files import page_file

PAGE = "chat.html"
FILES = (
    "look.css",
    "chat.css",
    "chat.js",
    "chat.svg",
    "chat_answer.js",
    "chat_compare.js",
    "chat_dial.js",
    "chat_dom.js",
    "chat_server.js",
    "chat_turn.js",
    "chat_words.js",
)


def assets() -> dict[str, tuple[bytes, str]]:
    """The page, named `""`, and its files: what each holds, and its media type.

    The page asks for its files, and for `v1/…`, beside its own address. Nothing in it runs inline, so it works under
    `Content-Security-Policy: default-src 'self'`.
    """
    return {"": page_file(PAGE), **{name: page_file(name) for name in FILES}}
