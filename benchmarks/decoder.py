"""One step of a language model: a Llama-like decoder with 4-bit weights, a cache of keys and values, one new token at a time.

    python -m benchmarks.decoder                          # 12 layers of 768, 4 key and value heads, 512 positions
    python -m benchmarks.decoder --position 31 --threads 2

The weights are random and seeded. qcc compiles the PyTorch module, whose cache are buffers, quantized by torchao; ONNX Runtime runs its
own fused operators (GroupQueryAttention on a shared cache, MatMulNBits, SkipSimplifiedLayerNormalization) on the same numbers, with
8-bit activations, in groups of 128 and of 32, of which the faster counts; llama.cpp, where setup.sh installed it, has quantized them to
its Q4_0. All are measured in turn, round by round; logits are compared with the float module's.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import qcc

from .peers import ROOT, python_with
from .run import PAUSE_SECONDS, machine, results_here, revision
from .worker import pin

BLOCK_SECONDS = 0.3


@dataclass(frozen=True)
class Shape:
    layers: int = 12
    width: int = 768
    heads: int = 12
    shared_heads: int = 4
    hidden: int = 2048
    vocabulary: int = 8192
    positions: int = 512

    @property
    def head(self) -> int:
        return self.width // self.heads


class Layer(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        narrow = s.shared_heads * s.head
        self.before, self.after = nn.RMSNorm(s.width, eps=1e-6), nn.RMSNorm(s.width, eps=1e-6)
        self.query, self.output = (nn.Linear(s.width, s.width, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(s.width, narrow, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(s.width, s.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(s.hidden, s.width, bias=False)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, s.shared_heads, s.positions, s.head))

    def forward(self, x: torch.Tensor, position: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        n = self.before(x)
        q, k, v = (layer(n).reshape(1, 1, -1, self.s.head).transpose(1, 2) for layer in (self.query, self.key, self.value))
        self.keys.index_copy_(2, position, _turned(k, *turn))
        self.values.index_copy_(2, position, v)
        y = functional.scaled_dot_product_attention(_turned(q, *turn), self.keys, self.values, attn_mask=mask, enable_gqa=True)
        x = x + self.output(y.transpose(1, 2).reshape(x.shape))
        n = self.after(x)
        return x + self.down(functional.silu(self.gate(n)) * self.up(n))


def _turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary embedding: Su et al., "RoFormer", 2021."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class Decoder(nn.Module):
    """Logits [1, 1, vocabulary] of token [1, 1] at position [1], both int64."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.embedding = nn.Embedding(s.vocabulary, s.width)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm, self.logits = nn.RMSNorm(s.width, eps=1e-6), nn.Linear(s.width, s.vocabulary, bias=False)
        self.register_buffer("angles", _angles(s))

    def forward(self, token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        angle = self.angles[position].repeat(1, 2)
        mask = (torch.arange(self.s.positions) <= position)[None]
        x = self.embedding(token)
        for layer in self.layers:
            x = layer(x, position, (angle.cos(), angle.sin()), mask)
        return self.logits(self.norm(x))


def _angles(s: Shape) -> torch.Tensor:
    """[positions, head / 2]"""
    return torch.arange(s.positions)[:, None] / 10000.0 ** (torch.arange(0, s.head, 2) / s.head)


class Here:
    """A system in this process: `step(token, position)` gives logits."""

    step: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def tokens(self, numbers: Sequence[int]) -> np.ndarray:
        """Logits of the last of `numbers`, the first of which is at position 0."""
        found = np.zeros(0)
        for position, number in enumerate(numbers):
            found = self.step(np.array([[number]]), np.array([position]))
        return found.reshape(-1)

    def median_ms(self, position: int, seconds: float) -> float:
        inputs, times = (np.array([[7]]), np.array([position])), list[float]()
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            self.step(*inputs)
            times.append((time.perf_counter() - start) * 1e3)
        return statistics.median(times)


class Qcc(Here):
    def __init__(self, model: Decoder, threads: int) -> None:
        self.step = compiled(model, threads)


class Process:
    """llama.cpp in a process of its own: `benchmarks/decoder_llamacpp.py`."""

    def __init__(self, model: Decoder, threads: int, python: str, folder: Path) -> None:
        weights = {name: value.numpy() for name, value in model.state_dict().items() if name.endswith("weight")}
        np.savez(folder / "weights.npz", shape=json.dumps(vars(model.s)), **weights)
        command = [python, "-m", "benchmarks.decoder_llamacpp", str(folder / "weights.npz"), str(threads)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, **pipes)

    def ask(self, **command: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def tokens(self, numbers: Sequence[int]) -> np.ndarray:
        return np.array(self.ask(tokens=[int(n) for n in numbers])["logits"])

    def median_ms(self, position: int, seconds: float) -> float:
        return self.ask(position=position, seconds=seconds)["median_ms"]


def compiled(model: Decoder, threads: int) -> Any:
    """qcc's executable of the module with 4-bit weights in groups of 128."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    quantized = copy.deepcopy(model)
    quantize_(quantized, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(128)))
    inputs = (torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    return qcc.compile(quantized, example_inputs=inputs, threads=threads)


# --- ONNX Runtime -------------------------------------------------------------------------------------------------------------------


def onnx_model(model: Decoder, group: int) -> Any:
    """The same decoder in ONNX Runtime's fused operators, weights of 4 bits in groups of `group`."""
    from onnx import TensorProto, helper, numpy_helper

    s, nodes, initializers = model.s, list[Any](), list[Any]()
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, [1, 1])]
    inputs += [
        helper.make_tensor_value_info("last", TensorProto.INT32, [1]),
        helper.make_tensor_value_info("length", TensorProto.INT32, []),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, s.vocabulary])]

    def held(name: str, array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind: str, operands: list[str], results: list[str], domain: str = "com.microsoft", **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, operands, results, name=results[0], domain=domain, **attributes))
        return results[0]

    def linear(x: str, layer: nn.Linear, name: str) -> str:
        codes, scales = _four_bits(layer.weight.detach().numpy(), group)
        n, k = layer.weight.shape
        operands = [x, held(f"{name}.w", codes), held(f"{name}.s", scales.reshape(-1))]
        return node("MatMulNBits", operands, [name], N=n, K=k, bits=4, block_size=group, accuracy_level=4)

    turns = [held(name, f(model.angles).numpy()) for name, f in (("cosine", torch.cos), ("sine", torch.sin))]
    x = node("Gather", [held("embedding", model.embedding.weight.detach().numpy()), "token"], ["x"], domain="")
    n = node(
        "SimplifiedLayerNormalization", [x, held("norm", model.layers[0].before.weight.detach().numpy())], ["n"], domain="", epsilon=1e-6
    )
    for i, layer in enumerate(model.layers):
        q, k, v = (linear(n, getattr(layer, name), f"{i}.{name}") for name in ("query", "key", "value"))
        cache = [f"{i}.{what}" for what in ("keys", "values")]
        inputs += [helper.make_tensor_value_info(c, TensorProto.FLOAT, [1, s.shared_heads, s.positions, s.head]) for c in cache]
        outputs += [helper.make_tensor_value_info(f"{c}.new", TensorProto.FLOAT, [1, s.shared_heads, s.positions, s.head]) for c in cache]
        operands = [q, k, v, *cache, "last", "length", *turns]
        results = [f"{i}.attention", *(f"{c}.new" for c in cache)]
        y = node("GroupQueryAttention", operands, results, num_heads=s.heads, kv_num_heads=s.shared_heads, do_rotary=1)
        y = linear(y, layer.output, f"{i}.output")
        scale = held(f"{i}.after", layer.after.weight.detach().numpy())
        n = node("SkipSimplifiedLayerNormalization", [x, y, scale], [f"{i}.n", "", "", f"{i}.sum"], epsilon=1e-6)
        gate, up = linear(n, layer.gate, f"{i}.gate"), linear(n, layer.up, f"{i}.up")
        silu = node("Mul", [gate, node("Sigmoid", [gate], [f"{i}.sigmoid"], domain="")], [f"{i}.silu"], domain="")
        y = linear(node("Mul", [silu, up], [f"{i}.product"], domain=""), layer.down, f"{i}.down")
        norm = model.layers[i + 1].before if i + 1 < s.layers else model.norm
        n = node("SkipSimplifiedLayerNormalization", [f"{i}.sum", y, held(f"{i}.next", norm.weight.detach().numpy())],
                 [f"{i}.m", "", "", f"{i}.x"], epsilon=1e-6)  # fmt: skip
        x = f"{i}.x"
    linear(n, model.logits, "logits")
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=10)


def _four_bits(w: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """w [n, k] as codes u8 [n, k / group, group / 2], low half first, zero at 8, and scales f32 [n, k / group]."""
    parts = w.reshape(len(w), -1, group)
    extreme = np.take_along_axis(parts, np.abs(parts).argmax(axis=2)[..., None], axis=2)[..., 0]
    scales = np.where(extreme == 0, 1, extreme / -8).astype(np.float32)
    codes = (np.clip(np.rint(parts / scales[..., None]), -8, 7) + 8).astype(np.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4, scales


class OnnxRuntime(Here):
    def __init__(self, model: Decoder, group: int, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(onnx_model(model, group).SerializeToString(), options, ["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        s = model.s
        for i in range(s.layers):
            for what in ("keys", "values"):  # one cache, which a step changes in place
                value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, s.shared_heads, s.positions, s.head), np.float32))
                self.binding.bind_ortvalue_input(f"{i}.{what}", value)
                self.binding.bind_ortvalue_output(f"{i}.{what}.new", value)
        self.binding.bind_output("logits")

    def step(self, token: np.ndarray, position: np.ndarray) -> np.ndarray:
        self.binding.bind_cpu_input("token", token)
        self.binding.bind_cpu_input("last", position.astype(np.int32))
        self.binding.bind_cpu_input("length", np.array(int(position[0]) + 1, np.int32))
        self.session.run_with_iobinding(self.binding)
        return self.binding.get_outputs()[-1].numpy()


# --- the comparison -----------------------------------------------------------------------------------------------------------------


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--position", type=int, default=255, help="of the token that is timed; as many keys are in the cache")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--out", type=Path, help="folder of the result, instead of this machine's in results/")
    args = p.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = Decoder(Shape()).eval()
    systems: dict[str, Any] = {"qcc": Qcc(model, args.threads)}
    for group in (128, 32):
        systems[f"onnxruntime_{group}"] = OnnxRuntime(model, group, args.threads)
    with tempfile.TemporaryDirectory(prefix="qcc-decoder-") as folder:
        if python := python_with(("llama_cpp", "gguf")):
            systems["llamacpp_q4_0"] = Process(model, args.threads, python, Path(folder))
        errors = follow(model, systems, args.position)
        times = measure(systems, args.position, args.rounds, args.threads)
    medians = {name: statistics.median(each) for name, each in times.items()}
    best = min((name for name in medians if name != "qcc"), key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(times["qcc"], times[best], strict=True))
    for name, ms in medians.items():
        print(f"{name:18} {ms:8.2f} ms  {1000 / ms:7.1f} tokens/s  error of logits {errors[name]:.4f}")
    print(f"qcc / {best}: {ratio:.2f}")
    result = {
        "shape": vars(model.s), "position": args.position, "threads": args.threads, "ms": medians, "errors": errors, "fastest_peer": best,
        "ratio": ratio, "machine": machine(), "revision": revision(),
    }  # fmt: skip
    folder = args.out or results_here()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"decoder-position{args.position}-threads{args.threads}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(file)


def follow(model: Decoder, systems: dict[str, Any], position: int) -> dict[str, float]:
    """Fill every cache with the same tokens; the error of the logits at `position`, relative to the float module's."""
    rng, wanted, errors = np.random.default_rng(1), np.zeros(0), dict[str, float]()
    tokens = rng.integers(0, model.s.vocabulary, position + 1)
    with torch.no_grad():
        for i, token in enumerate(tokens):
            wanted = model(torch.tensor([[token]]), torch.tensor([i])).numpy().reshape(-1)
    for name, system in systems.items():
        errors[name] = float(np.linalg.norm(system.tokens(tokens) - wanted) / np.linalg.norm(wanted))
    return errors


def measure(systems: dict[str, Any], position: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Median milliseconds of each block, in turn."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    if threads == 1:
        pin(max(os.sched_getaffinity(0)))
    for _ in range(rounds):
        for name, system in systems.items():
            time.sleep(PAUSE_SECONDS)
            times[name].append(system.median_ms(position, BLOCK_SECONDS))
    return times


if __name__ == "__main__":
    main()
