"""ggml, the engine of llama.cpp, out of the llama-cpp-python package: chains of quantized products with relu between them.

The buffer type ggml puts the weights into decides its kernels: `CPU_REPACK` interleaves rows for AVX-512 VNNI, `AMX` repacks into tiles.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer

NEEDS = ("llama_cpp", "torch")
TYPES = {"F32": 0, "Q4_0": 2, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "IQ4_NL": 20, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39}  # enum ggml_type
REPACKED = {"AMX": ("Q4_0", "Q8_0"), "CPU_REPACK": ("Q4_0", "Q2_K", "IQ4_NL", "MXFP4")}
"""What kinds of buffer have kernels for on x86, the best kind first; to fill one with another type is a fault. "" is plain memory."""


class InitParameters(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


BASE: dict[str, tuple[list[Any], Any]] = {
    "ggml_init": ([InitParameters], c_void_p),
    "ggml_new_tensor_2d": ([c_void_p, c_int, c_int64, c_int64], c_void_p),
    "ggml_mul_mat": ([c_void_p, c_void_p, c_void_p], c_void_p),
    "ggml_relu": ([c_void_p, c_void_p], c_void_p),
    "ggml_new_graph": ([c_void_p], c_void_p),
    "ggml_build_forward_expand": ([c_void_p, c_void_p], None),
    "ggml_row_size": ([c_int, c_int64], c_size_t),
    "ggml_quantize_chunk": ([c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p], c_size_t),
    "ggml_set_output": ([c_void_p], None),
    "ggml_backend_tensor_set": ([c_void_p, c_void_p, c_size_t, c_size_t], None),
    "ggml_backend_tensor_get": ([c_void_p, c_void_p, c_size_t, c_size_t], None),
    "ggml_backend_alloc_ctx_tensors_from_buft": ([c_void_p, c_void_p], c_void_p),
    "ggml_backend_graph_compute": ([c_void_p, c_void_p], c_int),
    "ggml_backend_get_default_buffer_type": ([c_void_p], c_void_p),
    "ggml_backend_buft_name": ([c_void_p], c_char_p),
    "ggml_backend_reg_dev_get": ([c_void_p, c_size_t], c_void_p),
    "ggml_backend_reg_get_proc_address": ([c_void_p, c_char_p], c_void_p),
    "ggml_gallocr_new": ([c_void_p], c_void_p),
    "ggml_gallocr_alloc_graph": ([c_void_p, c_void_p], c_bool),
}
PROCESSOR: dict[str, tuple[list[Any], Any]] = {
    "ggml_backend_cpu_init": ([], c_void_p),
    "ggml_backend_cpu_set_n_threads": ([c_void_p, c_int], None),
    "ggml_backend_cpu_reg": ([], c_void_p),
}


@peer("w8", files=("io.npz",), needs=NEEDS)
def llamacpp_q8_0(task: Task) -> Runner:
    """8 bits in groups of 32."""
    return chain(task, "Q8_0")


@peer("w4", files=("io.npz",), needs=NEEDS)
def llamacpp_q4_0(task: Task) -> Runner:
    """4 bits in groups of 32."""
    return chain(task, "Q4_0")


@peer("w3", files=("io.npz",), needs=NEEDS)
def llamacpp_q3_k(task: Task) -> Runner:
    """3.4 bits in groups of 16 and 256."""
    return chain(task, "Q3_K")


@peer("w2", files=("io.npz",), needs=NEEDS)
def llamacpp_q2_k(task: Task) -> Runner:
    """2.6 bits in groups of 16 and 256."""
    return chain(task, "Q2_K")


@peer("ternary", files=("io.npz",), needs=NEEDS)
def llamacpp_tq2_0(task: Task) -> Runner:
    """2.06 bits in groups of 256."""
    return chain(task, "TQ2_0")


@peer("ternary", files=("io.npz",), needs=NEEDS)
def llamacpp_tq1_0(task: Task) -> Runner:
    """1.69 bits in groups of 256."""
    return chain(task, "TQ1_0")


@peer("codebook16", files=("io.npz",), needs=NEEDS)
def llamacpp_iq4_nl(task: Task) -> Runner:
    """16 fixed levels in groups of 32."""
    return chain(task, "IQ4_NL")


@peer("fp4", files=("io.npz",), needs=NEEDS)
def llamacpp_mxfp4(task: Task) -> Runner:
    """E2M1 in groups of 32."""
    return chain(task, "MXFP4")


def libraries() -> dict[str, Any]:
    """The functions of ggml by name, without the prefix ggml_."""
    found = importlib.util.find_spec("llama_cpp")
    assert found and found.origin
    folder = Path(found.origin).parent / "lib"
    functions: dict[str, Any] = {}
    for library, signatures in (("libggml-base.so", BASE), ("libggml-cpu.so", PROCESSOR)):
        loaded = ctypes.CDLL(str(folder / library), ctypes.RTLD_GLOBAL)
        for name, (arguments, result) in signatures.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, result
            functions[name.removeprefix("ggml_")] = function
    return functions


def buffer_types(ggml: dict[str, Any], backend: Any) -> dict[str, Any]:
    """Kinds of buffer by name; "" is the default one."""
    found: dict[str, Any] = {"": ggml["backend_get_default_buffer_type"](backend)}
    registry = ggml["backend_cpu_reg"]()
    address = ggml["backend_reg_get_proc_address"](registry, b"ggml_backend_dev_get_extra_bufts")
    extra = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(ggml["backend_reg_dev_get"](registry, 0))
    index = 0
    while extra[index]:
        found[ggml["backend_buft_name"](extra[index]).decode()] = extra[index]
        index += 1
    return found


def quantized(ggml: dict[str, Any], kind: int, w: np.ndarray) -> np.ndarray:
    """`w` [out, in] f32 in the form of an enum ggml_type, u8."""
    packed = np.empty(ggml["row_size"](kind, w.shape[1]) * w.shape[0], np.uint8)
    ggml["quantize_chunk"](kind, w.ctypes.data, packed.ctypes.data, 0, *w.shape, None)
    return packed


def chain(task: Task, name: str) -> Runner:
    import importlib.metadata

    from benchmarks import files

    ggml = libraries()
    backend = ggml["backend_cpu_init"]()
    ggml["backend_cpu_set_n_threads"](backend, task.threads)
    kinds = buffer_types(ggml, backend)
    kind = TYPES[name]
    chosen = next((k for k, types in REPACKED.items() if k in kinds and name in types), "")
    weights_context, context, inputs = (ggml["init"](InitParameters(1 << 22, None, True)) for _ in range(3))
    layers = files.linear_layers(task.model)  # [out, in]
    tensors = [ggml["new_tensor_2d"](weights_context, kind, w.shape[1], w.shape[0]) for w in layers]
    if not ggml["backend_alloc_ctx_tensors_from_buft"](weights_context, kinds[chosen]):
        raise RuntimeError(f"ggml cannot place these weights in a {chosen or 'plain'} buffer")

    def quantize(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, *(quantized(ggml, kind, w) for w in layers))

    with np.load(task.made(f"{name}.npz", quantize)) as held:
        for i, tensor in enumerate(tensors):
            packed = held[f"arr_{i}"]
            ggml["backend_tensor_set"](tensor, packed.ctypes.data, 0, packed.nbytes)
    batch = int(task.model.partition("@")[2] or 1)
    x = y = ggml["new_tensor_2d"](inputs, TYPES["F32"], layers[0].shape[1], batch)
    for index, tensor in enumerate(tensors):
        y = ggml["mul_mat"](context, tensor, y)
        if index + 1 < len(tensors):
            y = ggml["relu"](context, y)
    ggml["backend_alloc_ctx_tensors_from_buft"](inputs, kinds[""])
    ggml["set_output"](y)
    graph, allocator = ggml["new_graph"](context), ggml["gallocr_new"](kinds[""])
    ggml["build_forward_expand"](graph, y)
    ggml["gallocr_alloc_graph"](allocator, graph)

    def prepare(values: np.ndarray) -> np.ndarray:
        ggml["backend_tensor_set"](x, values.ctypes.data, 0, values.nbytes)
        return values

    def output(_: Any) -> np.ndarray:
        found = np.empty((batch, layers[-1].shape[0]), np.float32)
        ggml["backend_tensor_get"](y, found.ctypes.data, 0, found.nbytes)
        return found

    about = {
        "version": importlib.metadata.version("llama-cpp-python"),
        "checked by": "the kind of buffer that holds the weights",
        "kernels": {f"mul_mat {name} {chosen or 'plain'}": len(layers)},
    }
    return Runner(lambda _: ggml["backend_graph_compute"](backend, graph), about, output=output, prepare=prepare)
