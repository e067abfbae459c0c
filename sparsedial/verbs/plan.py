"""`plan`: the best shape for a budget in any currency, under constraints, by any law."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparsedial import __version__
from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import LING, PUBLISHED, Published, published
from sparsedial.machine.devices import find_device
from sparsedial.machine.profile import Profile
from sparsedial.planning.answer import answer
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.candidates import MOST_EXPERTS, RATIOS, TOP_KS, candidates, rungs
from sparsedial.planning.costs import Costs
from sparsedial.planning.export.exports import EXPORTS
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes
from sparsedial.store import read_json, write_atomically, write_json
from sparsedial.training.recipe import Recipe
from sparsedial.units import parse_bytes, parse_count, parse_joules, parse_seconds

DEFAULT_LAW = "abnar"
MOST = 1_000_000_000  # of anything that is counted here
COUNTS = {"max_experts": 0} | dict.fromkeys(  # the least of each
    ("devices", "serving_context", "serving_sequences", "max_repeats", "context", "vocab_size", "top_k"), 1
)
DEFAULT_CONTEXT, DEFAULT_VOCABULARY = 2048, 50_432  # what Abnar et al. 2025 trained with


def _amount(
    name: str, help_text: str, metavar: str, parse: Callable[[Any, str], float] | None = None, example: str = ""
) -> Any:
    flag = "--" + name.replace("_", "-")

    def read(text: Any) -> float:
        return parse(text, flag) if parse else parse_count(text, flag, example)

    return field(default=None, metadata={"parse": read, "metavar": metavar, "help": help_text})


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """A budget in one currency, a law, a machine, and bounds."""

    flops: float | None = _amount("flops", "training FLOPs, like 1e21", "C", example="1e21")
    seconds: float | None = _amount("seconds", "wall-clock time on the machine, like 10d", "T", parse_seconds)
    gpu_hours: float | None = _amount(
        "gpu_hours", "device-hours, all devices together", "H", example="500, without a unit"
    )
    joules: float | None = _amount("joules", "energy, like 2.5kWh", "J", parse_joules)
    dollars: float | None = _amount("dollars", "money, with --price", "$", example="2500 or 40k")
    target_loss: float | None = _amount(
        "target_loss", "the cheapest model with this loss, nats per token", "L", example="2.1"
    )
    law: str = field(
        default=DEFAULT_LAW,
        metadata={"metavar": "NAME|FILE", "help": "a published law, a law.json, or a study's folder"},
    )
    device: str | None = field(
        default=None, metadata={"metavar": "NAME|FILE", "help": "like h100, or a profile.json [a study's own]"}
    )
    devices: int = field(default=1, metadata={"metavar": "N", "help": "how many of them"})
    price: float | None = _amount("price", "dollars for one device-hour", "$", example="2.5")
    max_total_parameters: float | None = _amount("max_total_parameters", "like 30B", "N", example="30B")
    max_active_parameters: float | None = _amount("max_active_parameters", "that one token uses", "N", example="3B")
    max_experts: int | None = field(default=None, metadata={"metavar": "E", "help": "routed experts of a layer"})
    top_k: int | None = field(default=None, metadata={"metavar": "K", "help": "routed experts that a token visits"})
    sparsity: float | None = field(
        default=None, metadata={"metavar": "S", "help": "one position of the dial, 1 - top_k/experts; 0 is dense"}
    )
    memory: float | None = _amount("memory", "for training, on all devices together, like 640GB", "M", parse_bytes)
    serving_memory: float | None = _amount("serving_memory", "for weights and cache when serving", "M", parse_bytes)
    serving_context: int = field(default=8192, metadata={"metavar": "N", "help": "positions in the cache when serving"})
    serving_sequences: int = field(default=1, metadata={"metavar": "N", "help": "sequences served at once"})
    decode_speed: float | None = _amount("decode_speed", "least tokens per second of one sequence", "R", example="50")
    data_tokens: float | None = _amount("data_tokens", "unique tokens there are", "D", example="100B")
    max_repeats: float = field(default=4.0, metadata={"metavar": "R", "help": "how often they may be read"})
    inference_tokens: float | None = _amount(
        "inference_tokens", "over the model's life, paid from the budget", "D", example="1T"
    )
    context: int | None = field(default=None, metadata={"metavar": "N", "help": "tokens of a training window [2048]"})
    vocab_size: int | None = field(default=None, metadata={"metavar": "V", "help": "of the tokenizer [50432]"})
    out: Path | None = field(default=None, metadata={"metavar": "FILE", "help": "write the plan there too"})
    export: Path | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "write it there for train, transformers, torchtitan and Megatron-LM"},
    )

    def __post_init__(self) -> None:
        if len(self._given) != 1:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in self._given)
            problem = f"plan: {names} contradict each other" if names else "plan: no budget was given"
            raise UserError(
                problem, hint="give one of --flops, --seconds, --gpu-hours, --joules, --dollars, --target-loss"
            )
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= (math.inf if name == "max_repeats" else MOST):
                side = f"below {least}" if value < least else f"above {MOST:,}"
                raise UserError(f"plan: --{name.replace('_', '-')} {value:g} is {side}")

    @property
    def _given(self) -> list[str]:
        names = ("flops", "seconds", "gpu_hours", "joules", "dollars", "target_loss")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def budget(self) -> Budget:
        """The one budget that was given; a target loss is reached in the fewest FLOPs."""
        if self.target_loss is not None:
            return Budget(currency="flops", value=None, target_loss=self.target_loss)
        if self.gpu_hours is not None:
            return Budget(currency="seconds", value=3600 * self.gpu_hours / self.devices)
        name = self._given[0]
        return Budget(currency=name, value=getattr(self, name))

    @property
    def constraints(self) -> Constraints:
        """The bounds beside the budget."""
        return Constraints(
            max_total_parameters=self.max_total_parameters,
            max_active_parameters=self.max_active_parameters,
            max_experts=self.max_experts,
            top_k=self.top_k,
            sparsity=self.sparsity,
            training_memory_bytes=self.memory,
            serving_memory_bytes=self.serving_memory,
            serving_positions=self.serving_context,
            serving_sequences=self.serving_sequences,
            min_decode_tokens_per_second=self.decode_speed,
            data_tokens=self.data_tokens,
            max_repeats=self.max_repeats,
            inference_tokens=self.inference_tokens or 0.0,
        )


def plan(settings: PlanSettings) -> dict[str, Any]:
    """The best shape and tokens for a budget, with its error, its dense rival, its bounds, and what other laws say.

    Raises: UserError for an unknown law or device, a budget or bounds that no shape respects.
    """
    law, speaks, study = find_law(settings.law)
    shapes, costs = space(settings, study)
    others = study is None  # published laws speak of other text and far larger models than a study's
    record = answer(law, settings.law, shapes, settings.budget, settings.constraints, costs, speaks, others=others)
    if settings.out is not None:
        write_json(settings.out, record)
    if settings.export is not None:
        record["exported"] = _export(record, settings.export)
    return record


def _export(record: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Write a plan for our own `train` and for other trainers; gives how each is used, and what it does not express."""
    shape, recipe = Shape(**record["shape"]), asdict(Recipe(**record["recipe"]))
    exports = [export(shape, recipe) for export in EXPORTS.values()]  # all, before the first is written
    write_json(folder / "plan.json", record)
    for item in exports:
        write_atomically(folder / item.file, item.text.encode())
    own = {
        "trainer": "sparsedial",
        "file": str(folder / "plan.json"),
        "command": shlex.join(["sparsedial", "train", str(folder), "--text", "TEXT"]),
        "written_for": f"sparsedial {__version__}",
        "not_expressed": [],
    }
    return [own, *(item.record(folder) for item in exports)]


def find_law(name: str) -> tuple[Law, Published | None, Path | None]:
    """A law by name or file, the published one behind it, and the study's folder that it came from."""
    path = Path(name)
    if path.is_dir() or path.suffix == ".json":
        file = path / "law.json" if path.is_dir() else path
        law = Law.from_record(read_json(file), str(file))
        return law, None, file.parent if (file.parent / "study.json").exists() else None
    if name == LING.name:
        raise UserError(
            "plan: ling gives a ratio of compute, not a loss", hint="it stands beside the other laws' answers"
        )
    law = published(name)
    assert isinstance(law, Law)
    return law, PUBLISHED[name], None


def space(settings: PlanSettings, study: Path | None) -> tuple[Shapes, Costs]:
    """The candidates and what they cost: a study's own ladder and profile, or the wide search on a named device."""
    if study is None:
        context = settings.context or DEFAULT_CONTEXT
        most = settings.max_experts if settings.max_experts and settings.max_experts > MOST_EXPERTS else MOST_EXPERTS
        top_ks = (settings.top_k,) if settings.top_k else TOP_KS
        if settings.top_k and settings.top_k * RATIOS[0] > most:
            raise UserError(
                f"plan: --top-k {settings.top_k} needs {settings.top_k * RATIOS[0]} experts or more, and"
                f" {most} are the most that are considered",
                hint=f"--max-experts {settings.top_k * RATIOS[-1]}",
            )
        shapes = candidates(
            vocab_size=settings.vocab_size or DEFAULT_VOCABULARY, context=context, max_experts=most, top_ks=top_ks
        )
        return shapes, _costs(settings, None, 8, context)
    record = read_json(study / "study.json")
    if "frozen" not in record:
        raise UserError(
            f"{study}: its study.json holds no grid, so its shapes are unknown", hint="`sparsedial study` makes one"
        )
    layout = record["frozen"]["layout"]
    ladder = Ladder(**layout["ladder"])
    experts = tuple(layout["experts"])
    return rungs(ladder, experts), _costs(settings, study / "profile.json", layout["batch"], ladder.context)


def _costs(settings: PlanSettings, profile: Path | None, batch: int, context: int) -> Costs:
    machine: Any = None
    if settings.device is not None and settings.device.endswith(".json"):
        profile = Path(settings.device)
    elif settings.device is not None:
        machine = find_device(settings.device)
    if machine is None and profile is not None:
        machine = Profile.from_record(read_json(profile), str(profile))
    return Costs(
        machine=machine,
        devices=settings.devices,
        dollars_per_hour=settings.price,
        batch=batch,
        context=context,
    )
