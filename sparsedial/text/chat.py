"""A chat as text, by the template that comes with a tokenizer.

A template is a program from wherever its checkpoint comes from, so it runs in jinja2's sandbox.

Source: transformers 5, utils/chat_template_utils.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from sparsedial.errors import UserError, needs

with needs("jinja2", "train"):
    import jinja2
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment


def rendered(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str], *, answer: bool = True
) -> str:
    """The messages as text; `special` are the tokenizer's special tokens by role.

    The text ends where the answer to the messages begins. Without `answer` it ends with the last message, which is the
    beginning of an answer then.

    Raises: UserError where the template fails.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    try:
        text = environment.from_string(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=answer, **special
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"the chat template of the tokenizer fails: {error}", field="chat") from error
    if answer:
        return text
    last = messages[-1]["content"].strip()
    if last not in text:
        raise UserError("the chat template of the tokenizer leaves out the beginning of the answer", field="chat")
    return text[: text.rindex(last) + len(last)]


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the text of answers for those who train on it; it changes no text."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Callable[[], str]) -> str:
        return caller()


def _as_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own filter, it does not escape what HTML would."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
