"""The model files that peers read. Those of `test.e2e.models` (onnx, float.onnx, pt2), and what only the comparison needs:

NAME.io.npz         inputs, what float PyTorch makes of them, and other inputs to calibrate with, each [count, batch, ...]
NAME.layers.npz     the weights of a chain of linear layers
NAME.w8.onnx        weights of 8 bits per output channel, dequantized to float (QuantizeLinear's convention)
NAME.nbits8.onnx, NAME.w4.onnx, NAME.nbits2.onnx   MatMulNBits of com.microsoft, 8, 4 and 2 bits in groups of 128; nbits4-32.onnx: of 32
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from test.e2e import models

GROUP = 128


def file(name: str, kind: str) -> Path:
    """File `kind` of model `name` (`NAME` or `NAME@BATCH`), made first where it is missing."""
    if kind not in MAKERS:
        return models.path(name, kind)
    path = models.FOLDER / f"{name}.{kind}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with models.whole(path) as partial:
            MAKERS[kind](name, partial)
    return path


def make_io(name: str, path: Path) -> None:
    import torch

    network, inputs = models.build(name), models.samples(name, models.TEST_INPUTS, seed=4)
    calibration = models.samples(name, models.CALIBRATION_INPUTS, seed=3)
    with torch.no_grad(), path.open("wb") as stream:
        expected = np.stack([network(x).numpy() for x in inputs])
        np.savez(stream, inputs=torch.stack(inputs).numpy(), float=expected, calibration=torch.stack(calibration).numpy())


def make_layers(name: str, path: Path) -> None:
    from torch import nn

    with path.open("wb") as stream:
        np.savez(stream, *(m.weight.detach().numpy() for m in models.build(name).modules() if isinstance(m, nn.Linear)))


def linear_layers(name: str) -> list[np.ndarray]:
    """Weights [out, in] of a chain of linear layers."""
    with np.load(file(name, "layers.npz")) as held:
        return [held[f"arr_{i}"] for i in range(len(held.files))]


def write_chain(name: str, path: Path, product: Callable[[int, np.ndarray, str, str], tuple[list[Any], list[Any]]], opset: int) -> None:
    """A chain with relu between its products; `product(index, w, x, y)` gives the nodes and initializers of y = x @ w.T."""
    import onnx
    from onnx import TensorProto, helper

    layers, batch = linear_layers(name), int(name.partition("@")[2] or 1)
    nodes: list[Any] = []
    constants: list[Any] = []
    current = "x"
    for index, w in enumerate(layers):
        last = index + 1 == len(layers)
        made, held = product(index, w, current, "y" if last else f"product_{index}")
        nodes += made
        constants += held
        if not last:
            nodes.append(helper.make_node("Relu", [f"product_{index}"], [f"relu_{index}"], f"relu_{index}"))
            current = f"relu_{index}"
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, size])
        for n, size in (("x", layers[0].shape[1]), ("y", layers[-1].shape[0]))
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, name, [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def make_int8_weights(name: str, path: Path) -> None:
    from onnx import helper, numpy_helper

    def product(index: int, w: np.ndarray, x: str, y: str) -> tuple[list[Any], list[Any]]:
        scale = np.abs(w).max(axis=1) / np.float32(127)  # [out]
        stored = np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8)
        arrays = {f"w_{index}": stored.T.copy(), f"scale_{index}": scale, f"zero_{index}": np.zeros(len(scale), np.int8)}
        nodes = [
            helper.make_node("DequantizeLinear", list(arrays), [f"real_{index}"], f"dequantize_{index}", axis=1),
            helper.make_node("MatMul", [x, f"real_{index}"], [y], f"linear_{index}"),
        ]
        return nodes, [numpy_helper.from_array(array, key) for key, array in arrays.items()]

    write_chain(name, path, product, opset=17)


def make_nbits(name: str, path: Path, *, bits: int, group: int = GROUP) -> None:
    from onnx import helper, numpy_helper

    def product(index: int, w: np.ndarray, x: str, y: str) -> tuple[list[Any], list[Any]]:
        n, k = w.shape
        groups = w.reshape(n, k // group, group)
        most = (1 << (bits - 1)) - 1
        scale = np.abs(groups).max(axis=2) / np.float32(most if bits > 2 else 2)  # [n, k / group]
        stored = (np.clip(np.rint(groups / scale[..., None]), -most, most) + (1 << (bits - 1))).astype(np.uint8)
        in_byte = 8 // bits
        stored = functools.reduce(np.bitwise_or, (stored[..., i::in_byte] << (bits * i) for i in range(in_byte)))  # low bits first
        arrays = {f"w_{index}": stored, f"scale_{index}": scale.reshape(-1)}
        node = helper.make_node(
            "MatMulNBits", [x, *arrays], [y], f"linear_{index}", domain="com.microsoft",
            K=k, N=n, bits=bits, block_size=group, accuracy_level=4,
        )  # fmt: skip
        return [node], [numpy_helper.from_array(array, key) for key, array in arrays.items()]

    write_chain(name, path, product, opset=17)


MAKERS: dict[str, Callable[[str, Path], None]] = {
    "io.npz": make_io,
    "layers.npz": make_layers,
    "w8.onnx": make_int8_weights,
    "nbits8.onnx": lambda name, path: make_nbits(name, path, bits=8),
    "w4.onnx": lambda name, path: make_nbits(name, path, bits=4),
    "nbits2.onnx": lambda name, path: make_nbits(name, path, bits=2),
    "nbits4-32.onnx": lambda name, path: make_nbits(name, path, bits=4, group=32),
}
