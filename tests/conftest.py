"""What every test shares: one thread, a small text, and the data beside the checkout where it is there."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as where a script began these tests with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands that tests start would not hear it either

SYLLABLES = ("lo", "ss", "ex", "pert", "to", "ken", "ga", "te", "ra", "mo", "del", "da", "ta")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """PyTorch has as many threads after a test as before it: sums of other numbers of threads round otherwise."""
    torch = sys.modules.get("torch")
    before = 1 if torch is None else torch.get_num_threads()
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test skips where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data beside the checkout at {folder}")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of forty documents, some 400 kB of made-up words that a tiny model can learn something of."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(40):
        draw = random.Random(number)
        words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(60)]
        lines = [" ".join(draw.choices(words, k=12)) + "." for _ in range(130)]
        (folder / f"{number:02}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def small_text(corpus: Path, tmp_path_factory: pytest.TempPathFactory):
    """The corpus as bytes, split and stored."""
    from sparsedial.text.prepare import prepare

    return prepare([str(corpus)], tokenizer="bytes", folder=tmp_path_factory.mktemp("text"))


@pytest.fixture
def on_a_gpu(monkeypatch) -> None:
    """Training takes the way that it takes on a GPU, with PyTorch's operations on the CPU."""
    import torch

    from sparsedial.kernels import native, reference, sparse, triton_launch

    monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(triton_launch, "available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setitem(sparse.KERNELS, "auto", reference.torch_grouped)


@pytest.fixture
def unguarded(monkeypatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """This process runs a script that does not look at its `__name__`: no other process may run it too."""
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path_factory.mktemp("script") / "script.py")
    Path(script.__file__).write_text("raise SystemExit('the script ran again')")
    monkeypatch.setitem(sys.modules, "__main__", script)
