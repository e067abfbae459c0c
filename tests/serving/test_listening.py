"""How a server ends."""

from __future__ import annotations

import os
import signal
import threading

import httpx
import pytest

pytest.importorskip("uvicorn")

from sparsedial.serving.listening import address_of, listen, run
from tests.serving.served import Script, app_of


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_while_answers_end_is_no_error(capfd):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with listen("127.0.0.1", 0) as listening:

            def talk() -> None:
                httpx.get(f"{address_of(listening)}/health").raise_for_status()
                interrupt()

            threading.Thread(target=talk).start()
            with pytest.raises(KeyboardInterrupt):
                run(app_of(Script()), listening, ending=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == ""
