"""The tables of speeds in README.md and docs/speed.md, from the records: the measurement, the peer, the aim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu_rows import NOT_MEASURED, gpu_rows
from benchmarks.side_by_side import range_words
from sparsedial.store import read_json

RECORDS = Path(__file__).parent / "records"
Row = tuple[str, str, str, str]

SHORT = (  # the rows of README.md: the beginnings of their first two columns
    ("step: 64 experts, top-6, d_expert 64,", "`transformers` Qwen3-MoE"),
    ("step: 64 experts, top-6, d_expert 64,", "plain GPT with torchtitan's"),
    ("step: 64 experts, top-6, d_expert 64,", "fastest dense model"),
    ("step: 64 experts, top-6, d_expert 64,", "`transformers` in its leanest mode"),
    ("layer: 64 experts, top-6, d_expert 64, d_model 256", "best of loop"),
    ("decoding: 28M, batch 1", "`transformers`"),
    ("decoding: 28M, batch 1", "llama.cpp"),
    ("decoding: 64 experts, top-6, batch 1", "vLLM, float32"),
    ("decoding: SmolLM2, batch 1", "vLLM, float32"),
    ("decoding: SmolLM2, batch 1, 2 threads, ours in bfloat16", "vLLM, bfloat16"),
    ("a cold `plan`", ""),
    ("fit of Abnar's form", ""),
    ("dial page: the dial turned, a published law", ""),
)


def speed_table() -> str:
    """The rows of all records."""
    return _table([*_measured(), *gpu_rows()])


def gpu_block(records: Path = RECORDS) -> str:
    """What cards were measured to do; or that none was, and what to run."""
    measured = [row for row in gpu_rows(records) if not row[2].startswith(NOT_MEASURED)]
    page = "[what to run on one, and what to expect](docs/gpu.md)"
    if not measured:
        return f"No GPU has been measured yet, and the GPU kernels ran in Triton's interpreter only: {page}."
    return f"{_table(measured)}\n\nThese are the rows on GPUs: {page}."


def short_table() -> str:
    """The most important rows."""
    measured = _measured()
    rows = [row for what, peer in SHORT for row in measured if row[0].startswith(what) and row[1].startswith(peer)]
    befores = ["", *(what for what, *_ in rows)]
    return _table(
        [("the same" if row[0] == before else row[0], *row[1:]) for row, before in zip(rows, befores, strict=False)]
    )


def _measured() -> list[Row]:
    return [
        *_steps(read_json(RECORDS / "training_step.json"), "AVX2"),
        *_steps(read_json(RECORDS / "training_step_avx512.json"), "AVX-512"),
        *_layers(read_json(RECORDS / "sparse_layer.json")),
        *_decoding(read_json(RECORDS / "decoding.json")),
        *_decoding_vllm(RECORDS / "decoding_vllm.json"),
        *_serving(RECORDS / "serving.json"),
        *_planning(),
    ]


def _table(rows: list[Row]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["| what | beside | measured | aim |", "| --- | --- | --- | --- |", *lines])


def _faster(value: dict[str, float]) -> str:
    return f"{range_words(value)} times as fast"


def _slower(value: dict[str, float]) -> str:
    return f"{range_words(value)} times its time"


def _steps(record: dict[str, Any], vectors: str) -> list[Row]:
    dense = record["dense"]
    rows = [(f"step: {dense['what']}, {vectors}", "plain eager GPT", _faster(dense["speed_against_plain_gpt"]), "≥ 1")]
    for group in record["sparse"]:
        mode = group["best_mode_of_transformers"].split()[1]
        what = f"step: {group['what']}, {vectors}"
        memory = f"{group['memory_over_leanest_peer']:.2f} of its memory"
        rows += [
            (what, f"`transformers` Qwen3-MoE, {mode}", _faster(group["speed_against_transformers"]), "≥ 1.6"),
            *_titan(what, group, emulated=not record.get("bfloat16_instructions", True)),
            (what, "fastest dense model, same active size", _slower(group["tax"]), "≤ 1.15"),
            (what, "`transformers` in its leanest mode", memory, "≤ 1"),
        ]
    deepseek = record["deepseek"]
    what, mode = f"step: {deepseek['what']}, {vectors}", deepseek["best_mode_of_transformers"].split()[1]
    speed = _faster(deepseek["speed_against_transformers"])
    rows += [
        (what, f"`transformers` DeepSeek-V3, {mode}", speed, "–"),
        (
            what,
            "`transformers` in its leanest mode",
            f"{deepseek['memory_over_leanest_peer']:.2f} of its memory",
            "≤ 1",
        ),
    ]
    for group in record["tiny"]:
        what = f"step: {group['what']}, {vectors}"
        rows.append((f"{what}, dense", "plain eager GPT", _faster(group["dense_against_plain_gpt"]), "≥ 1.5"))
        for experts in (8, 32):
            tax = _slower(group[f"tax_{experts}_experts"])
            rows.append((f"{what}, {experts} experts", "fastest dense model", tax, "≤ 1.3"))
    return rows


def _titan(what: str, group: dict[str, Any], *, emulated: bool) -> list[Row]:
    value = group.get("speed_against_torchtitan")
    products = "bf16 products, which this processor emulates" if emulated else "bf16 products"
    return [(what, f"plain GPT with torchtitan's MoE layer, {products}", _faster(value), "≥ 1.6")] if value else []


def _layers(record: dict[str, Any]) -> list[Row]:
    rows = []
    for group in record["shapes"]:
        what = f"layer: {group['what']}"
        rows += [
            (
                what,
                f"best of loop, grouped, padded: {group['best_peer']}",
                _faster(group["speed_against_best_peer"]),
                "≥ 1",
            ),
            (what, "fastest dense layer", _faster(group["share_of_faster_dense"]), f"≥ {group['reach']}"),
        ]
    return rows


def _decoding(record: dict[str, Any]) -> list[Row]:
    rows = []
    for model in record["models"]:
        groups = {(group["batch"], group["threads"]): group for group in model["groups"]}
        for batch in sorted({batch for batch, _ in groups}):
            two, one = groups[batch, 2], groups[batch, 1]
            what = f"decoding: {model['name']}, batch {batch}, 2 threads"
            rows.append((what, "`transformers` generate", _both(two, one, "speed_against_transformers"), "≥ 4"))
            if two["speed_against_llama_cpp"]:
                rows.append((what, "llama.cpp, F32", _both(two, one, "speed_against_llama_cpp"), "≥ 1"))
            share = next(row["share_of_bandwidth"] for row in two["rows"] if row["name"] == "sparsedial")
            rows.append((what, "reading its weights at the memory's bandwidth", f"{100 * share:.0f} %", "–"))
    return rows


def _decoding_vllm(file: Path) -> list[Row]:
    """Ours beside vLLM; none where it was not measured."""
    rows = []
    for model in read_json(file)["models"] if file.exists() else []:
        for group in model["groups"]:
            what = f"decoding: {model['name']}, batch {group['batch']}, {group['threads']} threads"
            for peer, value in group["speed_against"].items():
                way = group["ways_of_vllm"][peer]
                rows.append((what, f"{peer}, {way} ({group['vllm']}, built for CPUs)", _faster(value), "–"))
            for peer, value in group.get("speed_in_bfloat16_against", {}).items():  # weights in half the bytes
                way = group["ways_of_vllm"].get(peer)
                beside = f"{peer}, {way} ({group['vllm']}, built for CPUs)" if way else "ours in float32"
                rows.append((f"{what}, ours in bfloat16", beside, _faster(value), "–"))
    return rows


def _serving(file: Path) -> list[Row]:
    """Our server beside vLLM's; none where it was not measured."""
    rows, record = [], read_json(file) if file.exists() else {"models": []}
    for model in record["models"]:
        for group in model["groups"]:
            for dtype, value in group["speed_against"].items():
                emulated = dtype == "bfloat16" and not record["bfloat16_instructions"]
                peer = f"vLLM's server ({model['vllm']}, built for CPUs{emulated * ', which emulates these products'})"
                first = group["first_text_against"][dtype]["value"]
                measured = (
                    f"{range_words(value)} times as many tokens a second; first text after {1 / first:.2f} of its time"
                )
                what = f"serving: {model['name']}, {group['load']}, weights in {dtype}, 2 threads"
                rows.append((what, peer, measured, "–"))
    return rows


def _both(two: dict[str, Any], one: dict[str, Any], key: str) -> str:
    """The speed on two threads, and that on one."""
    return f"{_faster(two[key])}; on one thread {one[key]['value']:.2f}"


def _planning() -> list[Row]:
    plan, law = read_json(RECORDS / "plan_speed.json"), read_json(RECORDS / "law_speed.json")
    dial, memory = read_json(RECORDS / "dial_speed.json"), read_json(RECORDS / "memory.json")
    return [
        (
            f"a cold `plan` over {plan['candidates']:,} shapes",
            "importing NumPy and `scipy.optimize`",
            _slower(plan["ratio"]),
            "≤ 3",
        ),
        (
            "fit of Abnar's form to 200 runs",
            f"the papers' grid of starts, scaled up from {law['starts_run']}",
            f"{law['speed_against_the_grid']:,.0f} times as fast",
            "≥ 50",
        ),
        (
            "the same with 1,000 bootstrap samples",
            "one such grid",
            f"{law['speed_against_the_grid_with_1000_samples']:,.0f} times as fast",
            "≥ 1",
        ),
        *((f"dial page: {row['what']}, {row['law']}", "–", _milliseconds(row), "≤ 50 ms") for row in dial["rows"]),
        (
            "memory of a training step, predicted for shapes not calibrated on",
            "measured peak",
            f"{100 * memory['max_relative_error_unseen']:.1f} % off at most",
            "≤ 6 %",
        ),
    ]


def _milliseconds(row: dict[str, Any]) -> str:
    return f"{1e3 * row['median_seconds']:.0f} ms ({1e3 * row['low_seconds']:.0f}–{1e3 * row['high_seconds']:.0f})"
