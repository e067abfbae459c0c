"""`serve`: an OpenAI-compatible server of a checkpoint, at a setting of its dial that each request chooses."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import replace
from socket import socket
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.records.answers import Served
from sparsedial.records.serving import ChatMessage, ChatRequest, CompletionRequest, DialRequest, ServeDryRun
from sparsedial.showing.chat_page import assets
from sparsedial.showing.notes import note
from sparsedial.units import count_words, human_bytes
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.serve.settings import KEY_NAME, ServeSettings

if TYPE_CHECKING:
    from sparsedial.serving.service import Service
    from sparsedial.verbs.serve.served import Counted

QUESTION, BEGINNING, TOKENS = "What is photosynthesis?", "Once upon a time", 60  # of the request that is shown


def serve(settings: ServeSettings) -> Served | ServeDryRun:
    """Serve a checkpoint until Ctrl-C, by OpenAI's API; a request says at which setting it is answered.

    Raises: UserError for a damaged checkpoint, a setting that it cannot have, too little memory, a port in use, or
        missing libraries.
    """
    require_checkpoint(settings.checkpoint)
    from sparsedial.verbs.serve.served import counted

    found = counted(settings)
    if settings.dry_run:
        return found.record
    try:
        from sparsedial.serving.app import make_app
        from sparsedial.serving.listening import is_loopback, listen, run
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", hint="pip install 'sparsedial[serve]'") from error
    with listen(settings.host, settings.port) as listening:
        note(f"loading {settings.checkpoint}")
        with closing(_Open(settings, found)) as opened:
            app = make_app(opened.service, assets(), key=settings.key, loopback=is_loopback(listening))
            _say_ready(settings, found.record, opened.service, listening)
            run(app, listening, ending=opened.close)
    return Served()


class _Open:
    """A loaded checkpoint with its engine, until it is closed."""

    def __init__(self, settings: ServeSettings, found: Counted) -> None:
        from torch import get_num_threads

        from sparsedial.kernels.metering import meter
        from sparsedial.model.checkpoint import model_as_stored
        from sparsedial.serving.ending import vocabulary_of
        from sparsedial.serving.engine import Engine
        from sparsedial.serving.guide import Guides
        from sparsedial.serving.service import Service
        from sparsedial.text.prompts import prompts_of
        from sparsedial.text.token_bytes import TokenBytes
        from sparsedial.text.tokenizer import load_tokenizer
        from sparsedial.training.memory import settle_memory
        from sparsedial.verbs.serve.served import gates_beside

        settle_memory()
        folder, shape = settings.checkpoint, found.dial.shape
        tokenizer = load_tokenizer(folder)
        vocabulary = vocabulary_of(folder, tokenizer, shape.vocab_size)
        words = TokenBytes(tokenizer)
        prompts, gates = prompts_of(folder, tokenizer), gates_beside(folder, found.dial)
        model = model_as_stored(found.checkpoint, found.dtype)
        power = meter(model.embedding_VD.device.type, get_num_threads())
        self._engine = Engine(
            model, slots=settings.slots, length=found.dial.length, vocabulary=vocabulary, power=power, gates=gates
        )
        self.service: Service = Service(
            engine=self._engine,
            dial=replace(found.dial, chat=prompts.template is not None),
            tokenizer=tokenizer,
            words=words,
            guides=Guides(tokenizer, words, vocabulary, shape.vocab_size),
            prompts=prompts,
            joules_basis="measured" if power.metered else "estimated",
        )

    def close(self) -> None:
        """End all answers."""
        self._engine.close()


def _say_ready(settings: ServeSettings, counted: ServeDryRun, service: Service, listening: socket) -> None:
    """Say where it is, what it has, and a request that works."""
    from sparsedial.serving.listening import address_of, is_loopback

    address, key = address_of(listening), settings.key
    if not is_loopback(listening):
        who = "nothing is encrypted, not even the key" if key else "anybody who reaches it can use it"
        note(f"warning: the port {listening.getsockname()[1]} of {settings.host} is open to other machines: {who}")
    places = f"{count_words(counted.slots, 'answer')} of {counted.context_tokens:,} tokens at once"
    named = f"{', '.join(counted.settings)}; {counted.default} unless a request asks for another"
    note(f"{counted.name} is served at {address} until Ctrl-C")
    note(f"settings: {named}")
    note(f"{places}, whose cache takes up to {human_bytes(counted.cache_bytes)}; weights in {counted.dtype}")
    note(f"try it: {curl(address, counted.name, counted.default, chat=service.prompts.template is not None, key=key)}")
    if settings.open:
        from sparsedial.verbs.browser import open_page

        open_page(f"{address}/")


def curl(address: str, name: str, setting: str, *, chat: bool, key: str | None) -> str:
    """A command that asks the server."""
    import msgspec

    dial = DialRequest(setting=setting)
    if chat:
        messages = (ChatMessage(role="user", content=QUESTION),)
        path, asked = "chat/completions", ChatRequest(model=name, messages=messages, max_tokens=TOKENS, dial=dial)
    else:
        path, asked = "completions", CompletionRequest(model=name, prompt=BEGINNING, max_tokens=TOKENS, dial=dial)
    shown = f' -H "Authorization: Bearer ${KEY_NAME}"' if key else ""
    body = shlex.quote(msgspec.json.encode(asked).decode())
    return f"curl {address}/v1/{path}{shown} -H 'Content-Type: application/json' -d {body}"
