"""The compressed formats that chains of linear layers are measured in: real weights rounded to each, and the chain as a module of qcc.

stored, element = FORMATS["nf4_g64"](w)        # w [n, k] f32 -> codes [n, k] and their element type
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, weights
from qcc.dialects.mlir import create, create_context, ir
from qcc.dialects.real_values import decode

Array = np.ndarray[Any, Any]
Format = Callable[[Array], tuple[Array, Any]]
F32 = np.float32
NF4 = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
       0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0]  # fmt: skip
"""Levels of Dettmers et al., "QLoRA", 2023, appendix E."""
NORMAL16 = [s * v for s, vs in ((-1, (2.733, 2.069, 1.618, 1.256, 0.9424, 0.6568, 0.3881, 0.1284)),
                                (1, (0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733))) for v in vs]  # fmt: skip
"""Levels of least squared error for a normal distribution: Max, "Quantizing for minimum distortion", 1960, table I."""
DEVIATIONS = {2: 0.9, 3: 0.55}
"""Standard deviations in a step of an affine type of few bits; more bits have steps that reach the greatest weight."""


def _affine(bits: int, group: int = 0) -> Format:
    def make(w: Array) -> tuple[Array, Any]:
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        low = max(low, -high) if bits > 2 else low
        groups = w.reshape(w.shape[0], -1, group or w.shape[1])
        scales = DEVIATIONS[bits] * groups.std(axis=2) if bits in DEVIATIONS else np.abs(groups).max(axis=2) / high
        scales = scales.astype(F32)  # [n, groups]
        zeros = np.zeros(scales.shape, np.int64)
        if bits == 2:  # of 4 levels one has no opposite: to one side of 0 and to the other in turn, so that a sum does not lean
            zeros[:, 1::2] = -1
        stored = np.clip(np.rint(groups / scales[..., None]) + zeros[..., None], low, high).astype(np.int8).reshape(w.shape)
        if group:
            return stored, element_types.affine_type(scales, zeros, bits=bits, block={0: 1, 1: group})
        return stored, element_types.affine_type(scales[:, 0], zeros[:, 0], bits=bits, axis=0)

    return make


def _levels(values: Sequence[float], group: int = 0) -> Format:
    """The nearest of `values` times a scale: the greatest weight of a group where levels end at 1, else the channel's deviation."""
    levels = np.array(values, F32)

    def make(w: Array) -> tuple[Array, Any]:
        groups = w.reshape(w.shape[0], -1, group or w.shape[1])
        scales = (np.abs(groups).max(axis=2) if levels[-1] == 1 else groups.std(axis=2)).astype(F32)
        stored = np.searchsorted((levels[1:] + levels[:-1]) / 2, groups / scales[..., None]).astype(np.uint8)
        return stored.reshape(w.shape), types.make_type(types.Codebook(levels, scales))

    return make


def _ternary(w: Array) -> tuple[Array, Any]:
    """Li et al., "Ternary weight networks", 2016, per channel."""
    large = np.abs(w) > 0.7 * np.abs(w).mean(axis=1, keepdims=True)
    scales = (np.abs(w * large).sum(axis=1, keepdims=True) / large.sum(axis=1, keepdims=True)).astype(F32)
    return (np.sign(w) * large).astype(np.int8), types.make_type(types.Ternary(scales, scales))


def _binary(w: Array) -> tuple[Array, Any]:
    """Rastegari et al., "XNOR-Net", 2016: sign and mean magnitude per channel."""
    return np.where(w >= 0, 1, -1).astype(np.int8), types.make_type(types.Binary(np.abs(w).mean(axis=1, keepdims=True).astype(F32)))


def _mx(element: str, group: int, *, exponent: int, most: float) -> Format:
    """Small floats with a power of two per group (OCP microscaling formats 1.0, 6.3): `exponent` is that of the greatest value, `most`."""

    def make(w: Array) -> tuple[Array, Any]:
        kind = ir.Type.parse(element)
        groups = w.reshape(w.shape[0], -1, group)
        scales = np.exp2(np.floor(np.log2(np.maximum(np.abs(groups).max(axis=2), 1e-30))) - exponent).astype(F32)
        stored = np.clip(groups / scales[..., None], -most, most).astype(weights.numpy_dtype(kind))
        return stored.reshape(w.shape), types.make_type(types.Blockscaled(kind, (1, group), scales))

    return make


FORMATS: dict[str, Format] = {
    "int8": _affine(8),
    "int8_g128": _affine(8, 128),
    "int4": _affine(4),
    "int4_g128": _affine(4, 128),
    "int4_g32": _affine(4, 32),
    "int3": _affine(3),
    "int2": _affine(2),
    "int2_g128": _affine(2, 128),
    "ternary": _ternary,
    "binary": _binary,
    "codebook16": _levels(NORMAL16),
    "nf4_g64": _levels(NF4, 64),
    "fp4_g32": _mx("f4E2M1FN", 32, exponent=2, most=6),
    "fp6_e3m2": _mx("f6E3M2FN", 32, exponent=4, most=28),
    "fp8_e4m3": _mx("f8E4M3FN", 128, exponent=8, most=448),
    "fp8_e5m2": _mx("f8E5M2", 128, exponent=15, most=57344),
}


def pruned(w: Array, zeros: float) -> Array:
    """`w` without the share `zeros` of least magnitude."""
    return np.where(np.abs(w) < np.quantile(np.abs(w[:: max(1, len(w) // 256)]), zeros), F32(0), w) if zeros else w


def two_of_four(w: Array) -> Array:
    """`w` with the two greatest of every 4 k."""
    quads = w.reshape(-1, 4)
    order = np.argsort(np.argsort(np.abs(quads), axis=1), axis=1)
    return np.where(order >= 2, quads, F32(0)).reshape(w.shape)


def chain(layers: Sequence[Array], make: Format, batch: int) -> tuple[Any, list[Array]]:
    """Module in graph form of linear layers with weights [n, k] and relu between, and the weights as they are stored, real again."""
    real: list[Array] = []
    context = create_context()
    with context, ir.Location.unknown():
        module = ir.Module.create()
        f32, tensor = ir.F32Type.get(), ir.RankedTensorType.get
        kind = ir.FunctionType.get([tensor([batch, layers[0].shape[1]], f32)], [tensor([batch, layers[-1].shape[0]], f32)])
        with ir.InsertionPoint(module.body):
            attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
            function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(*kind.inputs)
        with ir.InsertionPoint(block):
            value = block.arguments[0]
            for i, w in enumerate(layers):
                with ir.Location.name(f"fc{i}"):
                    stored, element = make(w)
                    typed = tensor(list(w.shape), element)
                    real.append(decode(stored, typed))
                    c = create("qcc.constant", [], [typed], {"value": weights.constant_attribute(stored, f"fc{i}")}).results[0]
                    real_w = create("qcc.dequantize", [c], [tensor(list(w.shape), f32)]).results[0]
                    value = create("qcc.linear", [value, real_w], [tensor([batch, w.shape[0]], f32)]).results[0]
                    if i + 1 < len(layers):
                        value = create("qcc.clamp", [value], [value.type], {"min": 0.0, "max": float("inf")}).results[0]
            ir.Operation.create("func.return", operands=[value])
    return module, real


def reference(x: Array, real: Sequence[Array]) -> Array:
    """What the chain gives for x [batch, k], f32."""
    for w in real[:-1]:
        x = np.maximum(x @ w.T, 0)
    return x @ real[-1].T


def random_layers(widths: Sequence[int], zeros: float, seed: int = 0) -> list[Array]:
    """Normal weights [n, k] that keep the size of x, pruned."""
    rng = np.random.default_rng(seed)
    return [pruned(rng.standard_normal((n, k), F32) * F32((2 / k) ** 0.5), zeros) for k, n in itertools.pairwise(widths)]
