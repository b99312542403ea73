"""llama.cpp on the weights of `benchmarks.decoder`, in a process of its own: commands are lines of JSON, and so are the answers.

    python -m benchmarks.decoder_llamacpp WEIGHTS.npz THREADS

The weights are written as GGUF and quantized by llama.cpp itself (Q4_0, its own choices for embedding and logits).
{"tokens": [...]} -> {"logits": [...]} of the last; {"position": 255, "seconds": 0.3} -> {"median_ms": ...} of one token there.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .worker import pin

Q4_0 = 2  # enum llama_ftype


def write_gguf(path: Path, weights: Any, shape: dict[str, int]) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(shape["positions"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["hidden"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["shared_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape["width"] // shape["heads"])
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_file_type(0)
    writer.add_tokenizer_model("no_vocab")
    for name, ours in (("token_embd", "embedding.weight"), ("output_norm", "norm.weight"), ("output", "logits.weight")):
        writer.add_tensor(f"{name}.weight", weights[ours])
    names = {
        "attn_norm": "before", "ffn_norm": "after", "attn_q": "query", "attn_k": "key", "attn_v": "value", "attn_output": "output",
        "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
    }  # fmt: skip
    heads = {"query": shape["heads"], "key": shape["shared_heads"]}
    for i in range(shape["layers"]):
        for theirs, ours in names.items():
            w = weights[f"layers.{i}.{ours}.weight"]
            if ours in heads:  # llama.cpp turns neighbouring numbers, where PyTorch models turn the halves of a head
                w = np.ascontiguousarray(w.reshape(heads[ours], 2, -1, w.shape[1]).swapaxes(1, 2)).reshape(w.shape)
            writer.add_tensor(f"blk.{i}.{theirs}.weight", w)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    def __init__(self, file: Path, threads: int, shape: dict[str, int]) -> None:
        import llama_cpp

        self.api, self.vocabulary = llama_cpp, shape["vocabulary"]
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = shape["positions"], threads, threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise RuntimeError("llama.cpp cannot load what it quantized")

    def tokens(self, numbers: list[int]) -> np.ndarray:
        """Logits of the last, all of them behind what the cache holds."""
        for number in numbers:
            batch = self.api.llama_batch_get_one((ctypes.c_int32 * 1)(number), 1)
            if self.api.llama_decode(self.context, batch):
                raise RuntimeError("llama.cpp cannot decode")
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), (self.vocabulary,)).copy()

    def median_ms(self, position: int, seconds: float) -> float:
        memory, times = self.api.llama_get_memory(self.context), list[float]()
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            self.api.llama_memory_seq_rm(memory, 0, position, -1)
            start = time.perf_counter()
            self.tokens([7])
            times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)


def main() -> None:
    import llama_cpp

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints must not mix with the answers
    file, threads = Path(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="qcc-decoder-") as folder:
        real, quantized = Path(folder) / "real.gguf", Path(folder) / "quantized.gguf"
        with np.load(file) as held:
            shape = json.loads(str(held["shape"]))
            write_gguf(real, held, shape)
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype, parameters.nthread = Q4_0, threads
        if llama_cpp.llama_model_quantize(str(real).encode(), str(quantized).encode(), ctypes.byref(parameters)):
            raise RuntimeError("llama.cpp cannot quantize the model")
        system = LlamaCpp(quantized, threads, shape)
        if threads == 1:
            pin(max(os.sched_getaffinity(0)))
        for line in sys.stdin:
            command = json.loads(line)
            if "tokens" in command:
                answer: dict[str, Any] = {"logits": system.tokens(command["tokens"]).tolist()}
            else:
                answer = {"median_ms": system.median_ms(command["position"], command["seconds"])}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
