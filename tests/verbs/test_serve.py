"""`serve` on a real socket: it answers as `generate` does, at the setting of each request, and ends with Ctrl-C."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

import sparsedial
from sparsedial.cli.exits import INTERRUPTED
from sparsedial.cli.main import main
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.transformer import initialise
from sparsedial.records.record import write
from sparsedial.records.serving import ServeDryRun
from sparsedial.records.setting import Setting
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.turned import parse_turned
from sparsedial.text.tokenizer import byte_tokenizer
from sparsedial.verbs import asked_setting
from sparsedial.verbs.serve import served
from tests.records.held import of_values
from tests.serving.served import TEMPLATE
from tests.serving.test_budget import dial_of, point

Talk = Callable[[httpx.Client], Any]
Serve = Callable[..., tuple[Any, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of 8 experts, 2 of them for each token, whose answers end with no token."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    model = initialise(Ladder(vocab_size=256, context=64).shape(16, 8), 0).eval()
    save_checkpoint(model, folder, byte_tokenizer())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": 999}')
    return folder


@pytest.fixture
def serve(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Iterator[Serve]:
    """Serves a conversation: what it gave, and what the server said. Ctrl-C ends it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(talk: Talk, *words: str) -> tuple[Any, str]:
        found: list[Any] = []

        def converse(address: str) -> None:
            try:
                with httpx.Client(base_url=address, timeout=60) as client:
                    found.append(talk(client))
            finally:
                signal.raise_signal(signal.SIGINT)

        thread: list[threading.Thread] = []

        def opened(address: str) -> bool:
            thread.append(threading.Thread(target=converse, args=(address,)))
            thread[0].start()
            return True

        monkeypatch.setattr(webbrowser, "open", opened)
        assert main(["serve", str(checkpoint), "--port", "0", "--open", *words]) == INTERRUPTED
        thread[0].join(timeout=60)
        return found[0], capsys.readouterr().err

    yield run
    signal.signal(signal.SIGINT, before)


def test_a_served_checkpoint_answers_as_generate_does_and_ends_its_answers_with_ctrl_c(serve: Serve, checkpoint: Path):
    ended: list[str] = []

    def talk(client: httpx.Client) -> Any:
        same = {"temperature": 0, "max_tokens": 12}
        listed = [(model["id"], model["chat"]) for model in client.get("/v1/models").json()["data"]]
        text = client.post("/v1/completions", json={"prompt": "the cat", "model": "tiny:k=1", **same}).json()
        asked = {"messages": [{"role": "user", "content": "the cat"}], **same}
        chat = client.post("/v1/chat/completions", json=asked).json()
        stop = text["choices"][0]["text"][5:7]
        stopped = client.post(
            "/v1/completions", json={"prompt": "the cat", "model": "tiny:k=1", "stop": stop, **same}
        ).json()
        with client.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 50, "stream": True}) as left:
            next(left.iter_lines())
        while " 0\n" not in (busy := client.get("/metrics").text.partition("\nsparsedial_slots_busy")[2][:3]):
            time.sleep(0.01)
        thread = threading.Thread(target=endless, args=(str(client.base_url),))
        thread.start()
        while not ended:
            time.sleep(0.01)
        return listed, text, chat, (stop, stopped), busy

    def endless(address: str) -> None:
        with httpx.stream("POST", f"{address}v1/completions", json=LONG, timeout=60) as answer:
            for line in answer.iter_lines():
                ended.append(line)

    LONG = {"prompt": ["a"] * 60, "max_tokens": 60, "stream": True}
    (listed, text, chat, (stop, stopped), _), said = serve(talk)
    assert listed == [("tiny:k=2", True), ("tiny:k=1", True)]
    same: dict[str, Any] = {"temperature": 0, "tokens": 12}
    expected = sparsedial.generate(checkpoint, "the cat", setting="k=1", **same)
    assert text["choices"][0]["text"] == expected["text"]
    assert text["usage"]["dial"]["active_parameters_per_token"] == expected["active_parameters"]
    assert text["choices"][0]["finish_reason"] == "length"
    answered = sparsedial.generate(checkpoint, "the cat", chat=True, **same)
    assert chat["choices"][0]["message"]["content"] == answered["text"]
    assert stopped["choices"][0]["text"] == expected["text"].partition(stop)[0]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert any("error" in line for line in ended[-3:]), ended[-3:]
    assert said.endswith("stopped; the server is closed\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("key", ["", "secret"])
def test_the_request_that_is_shown_works_when_it_is_copied(serve: Serve, monkeypatch, capsys, key: str):
    if key:
        monkeypatch.setenv("SPARSEDIAL_API_KEY", key)

    def talk(client: httpx.Client) -> Any:
        shown = capsys.readouterr().err
        (line,) = re.findall(r"^try it: (.*)$", shown, flags=re.M)
        done = subprocess.run(["sh", "-c", line.replace("curl", "curl -s")], capture_output=True, check=True, text=True)
        return shown, json.loads(done.stdout), client.get("/v1/models").status_code

    (shown, answer, status), _ = serve(talk, "--name", "it's tiny", "--setting", "k=1", "--context", "60")
    assert (answer["model"], answer["usage"]["dial"]["setting_reason"]) == ("it's tiny:k=1", "asked")
    assert status == (401 if key else 200)
    assert "settings: k=1, k=2; k=1 unless a request asks for another\n" in shown
    assert "8 answers of 60 tokens at once" in shown


def test_a_folder_of_other_files_is_no_checkpoint(tmp_path: Path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a checkpoint: it has no config.json\nhint: a checkpoint is" in capsys.readouterr().err


def test_other_machines_are_let_in_only_with_a_word_of_warning(serve: Serve):
    _, said = serve(lambda client: client.get("/health").raise_for_status(), "--host", "0.0.0.0")
    assert "is open to other machines: anybody who reaches it can use it" in said


def test_a_dry_run_counts_before_anything_is_loaded(checkpoint: Path, capsys):
    assert main(["serve", str(checkpoint), "--slots", "3", "--context", "40", "--dry-run", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    shape = sparsedial.load(checkpoint).shape
    one = 2 * shape.layers * shape.kv_heads * shape.head_dim * 4 * 40
    assert counted["cache_bytes"] == served.MOST_LANES * 3 * one
    assert counted["weight_bytes"] == sum(weight.numel() * 4 for weight in sparsedial.load(checkpoint).parameters())
    assert (counted["settings"], counted["default"]) == (["k=2", "k=1"], "k=2")
    assert main(["serve", str(checkpoint), "--dry-run"]) == 0
    assert "settings  k=2, k=1; k=2 unless a request asks for another" in capsys.readouterr().out


@pytest.fixture
def measured(checkpoint: Path, tmp_path: Path) -> Path:
    """The same with a dial that was measured: k=1 is faster, and adds 1 % of loss at most."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "measured"))
    shape = read_checkpoint(folder).shape
    settings = [Setting.of(parse_turned(name), shape) for name in ("k=2", "k=1", "k=1,skip=0")]
    points = [point("k=2", 20.0, 0.05, 0.0), point("k=1", 40.0, 0.03, 0.01), point("k=2,p=0.5", 80.0, 0.02, 0.3)]
    points = [structs.replace(one, setting=setting) for one, setting in zip(points, settings, strict=True)]
    write(folder / "dial.json", structs.replace(dial_of(*points), checkpoint_digest=digest_of(folder)))
    return folder


def test_a_measured_dial_gives_the_settings_and_the_budget_of_the_default(measured: Path, capsys):
    assert main(["serve", str(measured), "--max-loss-increase", "1%", "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    counted = of_values(json.loads(told.out), ServeDryRun)
    assert (counted.settings, counted.default) == (("k=1", "k=2", "k=1,skip=0"), "k=1")
    assert told.err == ""
    assert main(["serve", str(measured), "--at-least", "90tok/s", "--dry-run"]) == 2
    assert "no setting keeps 90 tokens/s: the nearest is k=1,skip=0" in capsys.readouterr().err


def test_a_dial_of_another_machine_or_type_or_checkpoint_is_said_to_be_one(measured: Path, monkeypatch, capsys):
    assert main(["serve", str(measured), "--dtype", "bfloat16", "--dry-run"]) == 0
    assert "was measured with weights in float32, here in bfloat16" in capsys.readouterr().err
    there = structs.replace(asked_setting.describe(), cores=999)
    monkeypatch.setattr(asked_setting, "describe", lambda: there)
    assert main(["serve", str(measured), "--dry-run"]) == 0
    assert "was measured on another machine" in capsys.readouterr().err
    (measured / "generation_config.json").write_text('{"eos_token_id": 998}')
    assert main(["serve", str(measured), "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "note: requests cannot ask for a speed, an energy or a loss: " in told.err
    assert "settings  k=2, k=1; k=2 unless" in told.out


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["--port", "70000"], "--port: 70000 lies outside", "picks a free port"),
        (["--slots", "0"], "--slots: 0 lies outside", None),
        (["--context", "65"], "--context: 65 lies outside 2..64, the model's own", None),
        (["--setting", "k=9"], "--setting: k=9 lies outside 1..8", None),
        (["--setting", "k=1", "--at-least", "5tok/s"], "--at-least: goes without --setting", None),
        (["--max-loss-increase", "1%"], "the settings of this checkpoint are not measured", "--measure --text TEXT"),
        (["--api-key", " "], "--api-key: an empty key", "leave it out"),
        (["--api-key", "key "], "--api-key: no header carries", "ASCII without spaces"),
        (["--api-key", "Schl\u00fcssel"], "--api-key: no header carries", "without spaces"),
        (["--name", ""], "--name: a model without a name", None),
        (["--host", "256.1.1.1"], "--host: cannot listen on '256.1.1.1'", None),
        (["--host", "a..b"], "--host: cannot listen on 'a..b'", None),
        (["--dtype", "int8"], "--dtype: weights are not held in 'int8'", "float32"),
    ],
)
def test_bad_input_is_one_line(checkpoint: Path, capsys, words, says, hint):
    assert main(["serve", str(checkpoint), *words, *([] if "--host" in words else ["--dry-run"])]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert (hint or "") in error
    assert "Traceback" not in error


def test_a_port_in_use_is_refused_before_anything_is_loaded(checkpoint: Path, capsys):
    from sparsedial.serving.listening import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(checkpoint), "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"error: --port: {port} is in use\nhint: 0 picks a free port\n"


def test_more_than_the_memory_is_refused_with_the_slots_that_fit(checkpoint: Path, monkeypatch, capsys):
    assert main(["serve", str(checkpoint), "--dry-run", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    enough = counted["weight_bytes"] + counted["cache_bytes"] * 5 // 8
    monkeypatch.setattr(served, "machine_bytes", lambda: enough)
    assert main(["serve", str(checkpoint), "--dry-run"]) == 2
    assert "hint: --slots 5 fits\n" in capsys.readouterr().err
    assert main(["serve", str(checkpoint), "--slots", "5", "--dry-run"]) == 0
    monkeypatch.setattr(served, "machine_bytes", lambda: counted["weight_bytes"])
    assert main(["serve", str(checkpoint), "--dry-run"]) == 2
    assert "hint: a smaller --context needs less\n" in capsys.readouterr().err


def test_a_folder_called_checkpoint_has_the_name_of_the_one_around_it(tmp_path: Path):
    (tmp_path / "d3adbeef" / "checkpoint").mkdir(parents=True)
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "checkpoint").symlink_to(tmp_path / "d3adbeef" / "checkpoint")
    assert served._name(tmp_path / "my model" / "checkpoint") == "my model"
    assert served._name(tmp_path / "d3adbeef" / ".." / "my model" / "checkpoint") == "my model"
    assert served._name(tmp_path / "smollm2") == "smollm2"


def test_missing_libraries_are_one_line(checkpoint: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "sparsedial.serving.app", raising=False)
    assert main(["serve", str(checkpoint)]) == 2
    assert "hint: pip install 'sparsedial[serve]'" in capsys.readouterr().err
