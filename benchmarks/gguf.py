"""llama.cpp's side of `benchmarks.decoding`: `LLAMA_PYTHON -m benchmarks.gguf CHECKPOINT FILE.gguf`, from the root.

It runs in a Python that has `gguf`, `llama-cpp-python` and `safetensors` and nothing of ours or PyTorch's: writes a
qwen3_moe checkpoint as GGUF with every weight in F32, loads it, then answers one line of JSON with another until its
input ends. B sequences, S positions, V vocabulary.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama  # pyright: ignore[reportMissingImports]
import numpy as np
from safetensors.numpy import load_file

gguf: Any = importlib.import_module("gguf")  # the package: to a type checker the plain import means this file
ONES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYERED = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
}
STACKED = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
F32 = 0  # ggml's number of the type
SILENT = llama.llama_log_callback(lambda level, text, data: None)  # kept, or ctypes frees what llama.cpp still calls


def write_gguf(folder: Path, file: Path) -> None:
    """A checkpoint without its tokenizer: the matrices of a layer's experts stacked, all else as it is, renamed."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "qwen3_moe" or config["mlp_only_layers"]:
        raise SystemExit(f"{folder}: only a qwen3_moe whose layers are all sparse is written")
    tensors = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(file, "qwen3moe")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    names = {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in ONES.items()}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        names |= {f"{prefix}.{theirs}.weight": f"blk.{layer}.{ours}.weight" for theirs, ours in LAYERED.items()}
        for theirs, ours in STACKED.items():
            experts = [f"{prefix}.mlp.experts.{number}.{theirs}.weight" for number in range(config["num_experts"])]
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.stack([tensors.pop(name) for name in experts]))
    for name, tensor in tensors.items():
        writer.add_tensor(names[name], tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Session:
    """Some sequences of one length that llama.cpp decodes together, with keys and values in F32."""

    def __init__(self, model: Any, sequences: int, length: int, threads: int, flash: bool) -> None:
        settings = llama.llama_context_default_params()
        settings.n_ctx = sequences * length
        settings.n_batch = settings.n_ubatch = sequences * length
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = F32
        settings.flash_attn_type = int(flash)
        self.context = llama.llama_init_from_model(model, settings)
        if not self.context:
            raise SystemExit("llama.cpp made no context")
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(sequences * length, 0, 1)
        self.sequences = sequences

    def clear(self) -> None:
        """Forget every position."""
        llama.llama_memory_clear(self.memory, True)

    def read(self, ids_BS: np.ndarray, start: int) -> np.ndarray:
        """Read new tokens of every sequence, gives the logits behind the last ones. Shapes: ids [B, S] to [B, V]"""
        sequences, positions = ids_BS.shape
        batch, count = self.batch, ids_BS.size
        batch.n_tokens = count
        np.ctypeslib.as_array(batch.token, (count,))[:] = ids_BS.ravel()
        np.ctypeslib.as_array(batch.pos, (count,))[:] = np.tile(np.arange(start, start + positions), sequences)
        np.ctypeslib.as_array(batch.n_seq_id, (count,))[:] = 1
        wanted = np.ctypeslib.as_array(batch.logits, (count,))
        wanted[:] = 0
        wanted[positions - 1 :: positions] = 1
        for index in range(count):
            batch.seq_id[index][0] = index // positions
        if llama.llama_decode(self.context, batch):
            raise SystemExit("llama.cpp could not decode")
        return np.ctypeslib.as_array(llama.llama_get_logits(self.context), (sequences, self.vocab_size))

    def decode(self, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        """New ids of every sequence, the likeliest each time, and the seconds from the first of them to the last."""
        self.clear()
        logits_BV = self.read(np.array(prompts), 0)
        rows, first = [logits_BV.argmax(1)], logits_BV.astype(float).tolist()
        began = time.perf_counter()
        for position in range(len(prompts[0]), len(prompts[0]) + tokens - 1):
            rows.append(self.read(rows[-1][:, None], position).argmax(1))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "ids": np.stack(rows, 1).tolist(), "logits": first}


def main() -> None:
    """Write the GGUF, load it, and answer."""
    folder, file = map(Path, sys.argv[1:])
    llama.llama_log_set(SILENT, ctypes.c_void_p(0))
    write_gguf(folder, file)
    model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp did not load {file}")
    system = llama.llama_print_system_info().decode()
    print(json.dumps({"version": llama.__version__, "system": system}), flush=True)
    sessions: dict[tuple[int, ...], Session] = {}
    for line in sys.stdin:
        job = json.loads(line)
        key = len(job["prompts"]), job["length"], job["threads"], job["flash"]
        if key not in sessions:
            sessions[key] = Session(model, *key)
        print(json.dumps(sessions[key].decode(job["prompts"], job["tokens"])), flush=True)


if __name__ == "__main__":
    main()
