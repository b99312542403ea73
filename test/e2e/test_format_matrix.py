"""Every weight format x {linear, 3x3 convolution, depthwise} x {dense, unstructured zeros, 2:4, block}, stated in the weights' types.

Formats whose real values are integers times a scale per tensor or channel multiply quantized activations exactly: the compiled layers
equal the reference bit for bit. They are also read by float layers, as all other formats are (weight-only linear layers and float
convolutions): within `FLOAT_BOUND` of max |x| * sum |w|. Every model is given as a module from Python and as an .mlir file. Its artefact
with coded weights gives the same bits and holds the bytes of the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.compiler import driver
from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, weights
from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.integer_values import integer_scale
from qcc.dialects.mlir import create, create_context, ir
from qcc.dialects.real_values import decode
from qcc.runtime.reference import formats, interpreter
from test.tiers import slow_except

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
FLOAT_BOUND = 2.0**-20
CHANNELS = 128
KINDS: dict[str, Shape] = {"linear": (32, CHANNELS), "conv 3x3": (16, CHANNELS, 3, 3), "depthwise": (CHANNELS, 1, 3, 3)}


@dataclass(frozen=True)
class Weight:
    """Stored elements and the element type they have."""

    stored: Array
    element: Any


Format = Callable[[np.random.Generator, Shape], Weight]


# --- granularity: the shape of scales --------------------------------------------------------------------------------------------------


def blocks_of(shape: Shape, per: str) -> Shape:
    """Shape of scales with one per `per`: tensor, channel, or that many neighbours along the input channels (of a depthwise layer, its
    channels)."""
    ones = [1] * len(shape)
    if per == "tensor":
        return tuple(ones)
    if per == "channel":
        return (shape[0], *ones[1:])
    if shape[1] == 1:
        return (shape[0] // int(per), *ones[1:])
    return (shape[0], shape[1] // int(per), *ones[2:])


def scales(rng: np.random.Generator, shape: Shape, per: str, *, powers: bool = False) -> Array:
    size = blocks_of(shape, per)
    return (2.0 ** rng.integers(-7, -2, size) if powers else rng.uniform(0.01, 0.2, size)).astype(np.float32)


# --- formats ---------------------------------------------------------------------------------------------------------------------------


def affine(bits: int, per: str, *, signed: bool = True, zeros: bool = False, powers: bool = False) -> Format:
    def make(rng: np.random.Generator, shape: Shape) -> Weight:
        scale = scales(rng, shape, per, powers=powers)
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        zero = rng.integers(low, high + 1, scale.shape) if zeros else np.zeros(scale.shape, np.int64)
        where: dict[str, Any] = {}
        if per == "tensor":
            scale, zero = scale.reshape(()), zero.reshape(())
        elif per == "channel":
            scale, zero, where = scale.reshape(-1), zero.reshape(-1), {"axis": 0}
        else:
            block = {axis: size // count for axis, (size, count) in enumerate(zip(shape, scale.shape, strict=True)) if axis < 2}
            scale, zero, where = scale.reshape(scale.shape[:2]), zero.reshape(scale.shape[:2]), {"block": block}
        container = np.dtype(f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}")
        stored = rng.integers(low, high + 1, shape).astype(container)
        return Weight(stored, element_types.affine_type(scale, zero, bits=bits, signed=signed, **where))

    return make


def described(describe: Callable[[np.random.Generator, Shape, Array], types.Description], per: str = "tensor", **how: Any) -> Format:
    """Random real weights, encoded."""

    def make(rng: np.random.Generator, shape: Shape) -> Weight:
        description = describe(rng, shape, scales(rng, shape, per, **how))
        element = types.make_type(description)
        spread = float(np.mean([np.abs(v).max() for v in vars(description).values() if isinstance(v, np.ndarray)]))
        real = rng.normal(size=shape).astype(np.float32) * np.float32(spread)
        return Weight(formats.encode(real, ir.RankedTensorType.get(list(shape), element)), element)

    return make


def codebook(count: int, per: str) -> Format:
    def describe(rng: np.random.Generator, shape: Shape, _: Array) -> types.Description:
        blocks = blocks_of(shape, per)
        levels = rng.normal(size=(count,) if per == "tensor" else (*blocks, count)).astype(np.float32)
        levels[..., 0] = 0
        return types.Codebook(levels, np.ones(1, np.float32))

    return described(describe)


NF4 = np.array(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105003, 0.0, 0.0795803, 0.1609302, 0.2461123, 0.33791524,
     0.44070983, 0.562617, 0.72295684, 1.0], np.float32)  # fmt: skip
"""Quantiles of a normal distribution: Dettmers et al., "QLoRA", 2023, appendix E."""


def microscaled(element: str) -> Format:
    """OCP MX v1.0: blocks of 32 with a power of two each."""

    def make(rng: np.random.Generator, shape: Shape) -> Weight:
        real = (rng.normal(size=shape) * rng.uniform(0.05, 2, (shape[0], *[1] * (len(shape) - 1)))).astype(np.float32)
        block = (32, 1, 1, 1) if shape[1] == 1 else (1, 32, *[1] * (len(shape) - 2))
        kind = types.make_type(formats.microscale(real, ir.Type.parse(element), block))
        return Weight(formats.encode(real, ir.RankedTensorType.get(list(shape), kind)), kind)

    return make


def scaled(element: str, per: str) -> Format:
    return described(lambda rng, shape, s: types.Scaled(ir.Type.parse(element), s), per)


def minifloat(exponent: int, mantissa: int, special: str, per: str) -> Format:
    bias = (1 << (exponent - 1)) - 1
    return described(lambda rng, shape, s: types.Minifloat(exponent, mantissa, bias, special, s), per)


def ternary(per: str, *, trained: bool = False) -> Format:
    return described(lambda rng, shape, s: types.Ternary(s, (s * np.float32(1.7)) if trained else s), per)


SMALL_FLOATS = {"FP8 E4M3": "f8E4M3FN", "FP8 E5M2": "f8E5M2", "FP6 E3M2": "f6E3M2FN", "FP6 E2M3": "f6E2M3FN", "FP4": "f4E2M1FN"}
FORMATS: dict[str, Format] = {
    **{f"int{bits} per {per}": affine(bits, per) for bits in (2, 3, 4, 5, 6, 7, 8, 16) for per in ("tensor", "channel")},
    **{f"int{bits} with zero points per channel": affine(bits, "channel", zeros=True) for bits in (2, 3, 4, 8)},
    **{f"uint{bits} with zero points per tensor": affine(bits, "tensor", signed=False, zeros=True) for bits in (1, 4, 8)},
    **{f"int{bits}, power-of-two scales per channel": affine(bits, "channel", powers=True) for bits in (4, 8)},
    **{f"int{bits} in groups of {group}": affine(bits, group) for bits, group in ((2, "64"), (4, "32"), (4, "128"), (8, "64"))},
    "int4 with zero points in groups of 32": affine(4, "32", zeros=True),
    "uint1 in groups of 32": affine(1, "32", signed=False, zeros=True),
    "BinaryConnect": described(lambda rng, shape, s: types.Binary(np.ones(1, np.float32))),
    "BWN, scale per tensor": described(lambda rng, shape, s: types.Binary(s)),
    "BWN, scale per channel": described(lambda rng, shape, s: types.Binary(s), "channel"),
    "binary in groups of 32": described(lambda rng, shape, s: types.Binary(s), "32"),
    "TWN per tensor": ternary("tensor"),
    "TWN per channel": ternary("channel"),
    "ternary in groups of 64": ternary("64"),
    "TTQ per tensor": ternary("tensor", trained=True),
    "TTQ per channel": ternary("channel", trained=True),
    "TTQ in groups of 64": ternary("64", trained=True),
    "LogNet, 4 bits": described(lambda rng, shape, s: types.Log2(4, True, -6, s)),
    "LogNet, 5 bits per channel": described(lambda rng, shape, s: types.Log2(5, True, -12, s), "channel"),
    "LogNet, 8 bits": described(lambda rng, shape, s: types.Log2(8, True, -60, s)),
    **{f"codebook of {count} per {per}": codebook(count, per) for count, per in
       ((4, "tensor"), (16, "tensor"), (256, "tensor"), (4, "channel"), (16, "channel"), (256, "channel"))},
    "codebook of 16 in groups of 32": codebook(16, "32"),
    "codebook of 16 integers per tensor": described(
        lambda rng, shape, s: types.Codebook(np.array([-90, -50, -30, -11, -5, -2, -1, 0, 1, 3, 6, 12, 25, 40, 77, 120], np.int8), s)
    ),
    "NF4 in groups of 64": described(lambda rng, shape, s: types.Codebook(NF4, s), "64"),
    **{f"{name} per {per}": scaled(kind, per) for name, kind in SMALL_FLOATS.items() for per in ("tensor", "channel")},
    "FP4 in groups of 32": scaled("f4E2M1FN", "32"),
    **{f"MX{name}": microscaled(kind) for name, kind in SMALL_FLOATS.items()},
    "MXINT8": microscaled("i8"),
    "minifloat E3M4 per channel": minifloat(3, 4, "ieee", "channel"),
    "minifloat E4M0 per tensor": minifloat(4, 0, "none", "tensor"),
    "minifloat E2M2 in groups of 32": minifloat(2, 2, "none", "32"),
    "minifloat E5M6, 12 bits, per channel": minifloat(5, 6, "ieee", "channel"),
}  # fmt: skip


# --- zeros -----------------------------------------------------------------------------------------------------------------------------


def kept(pattern: str, shape: Shape) -> Array:
    """Where weights stay."""
    matrix = (shape[0], int(np.prod(shape[1:])))
    mask = np.ones(matrix, np.bool_)
    if pattern == "unstructured":
        mask = np.random.default_rng(1).random(matrix) < 0.3
    elif pattern == "2:4":
        along = shape[1] if shape[1] > 1 else shape[0]
        two = (np.arange(along) + np.arange(along) // 4) % 4 < 2
        mask = np.broadcast_to(two.reshape((1, -1) if shape[1] > 1 else (-1, 1), ).reshape([along if s == along else 1 for s in shape[:2]]
                               + [1] * (len(shape) - 2)), shape).reshape(matrix)  # fmt: skip
    elif pattern == "block":
        mask = mask.copy()
        for first in range(0, matrix[0], 8):
            mask[first : first + 4, matrix[1] // 2 :] = False
    return mask.reshape(shape)


def pruned(weight: Weight, pattern: str) -> Weight | None:
    """`weight` with zeros in `pattern`; None where the format has no zero."""
    if pattern == "dense":
        return weight
    try:
        zero = formats.zero(ir.RankedTensorType.get(list(weight.stored.shape), weight.element))
    except QccError:
        return None
    return Weight(np.where(kept(pattern, weight.stored.shape), weight.stored, zero).astype(weight.stored.dtype), weight.element)


# --- the model -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    name: str
    kind: str
    weight: Weight
    quantized_input: bool


def layers_of(make: Format, seed: int) -> Iterator[Layer]:
    rng = np.random.default_rng(seed)
    for kind, shape in KINDS.items():
        for pattern in ("dense", "unstructured", "2:4", "block"):
            weight = pruned(make(rng, shape), pattern)
            if weight is None:
                continue
            tensor = ir.RankedTensorType.get(list(shape), weight.element)
            integers = element_types.has_integers(tensor) and is_per_channel(tensor)
            if integers:
                yield Layer(f"{kind}, {pattern}, integer", kind, weight, True)
            if not integers or pattern == "unstructured":  # of integers, one float layer is enough
                yield Layer(f"{kind}, {pattern}, float", kind, weight, False)


def is_per_channel(kind: ir.RankedTensorType) -> bool:
    return all(size == 1 for size in integer_scale(kind).shape[1:])


def module_of(layers: list[Layer]) -> ir.Module:
    """One function of the current context: every layer reads one of two inputs, as floats or rounded to 8 bits."""
    tensor, f32 = ir.RankedTensorType.get, ir.F32Type.get()
    given = [tensor([2, CHANNELS], f32), tensor([1, CHANNELS, 4, 4], f32)]
    made: list[Any] = []
    module = ir.Module.create()
    results = [tensor(output_shape(layer), f32) for layer in layers]
    kind = ir.FunctionType.get(given, results)
    with ir.InsertionPoint(module.body):
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
        function = ir.Operation.create("func.func", attributes=attributes, regions=1)
    block = function.regions[0].blocks.append(*given)
    with ir.InsertionPoint(block):
        quantized = element_types.affine_type(2.0**-5, 120, bits=8, signed=False)
        rounded = []
        for x in block.arguments:
            q = create("qcc.quantize", [x], [tensor(list(x.type.shape), quantized)]).results[0]
            rounded.append(create("qcc.dequantize", [q], [x.type]).results[0])
        for layer, result in zip(layers, results, strict=True):
            with ir.Location.name(layer.name):
                made.append(product(layer, list(block.arguments), rounded, result))
        ir.Operation.create("func.return", operands=made)
    return module


def output_shape(layer: Layer) -> list[int]:
    outputs = layer.weight.stored.shape[0]
    return [2, outputs] if layer.kind == "linear" else [1, outputs, 4, 4]


def product(layer: Layer, real: list[Any], rounded: list[Any], result: ir.Type) -> Any:
    stored, shape = layer.weight.stored, list(layer.weight.stored.shape)
    tensor = ir.RankedTensorType.get
    constant = create("qcc.constant", [], [tensor(shape, layer.weight.element)], {"value": weights.constant_attribute(stored, "w")})
    w = create("qcc.dequantize", [constant.results[0]], [tensor(shape, ir.F32Type.get())]).results[0]
    x = (rounded if layer.quantized_input else real)[int(layer.kind != "linear")]
    if layer.kind == "linear":
        return create("qcc.linear", [x, w], [result]).results[0]
    groups = CHANNELS if layer.kind == "depthwise" else 1
    attributes = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilations": [1, 1], "groups": groups}
    return create("qcc.conv2d", [x, w], [result], attributes).results[0]


def bound(layer: Layer, x: Array) -> float:
    """Of the rounding of binary32 sums, in any order."""
    real = decode(layer.weight.stored, ir.RankedTensorType.get(list(layer.weight.stored.shape), layer.weight.element))
    return FLOAT_BOUND * float(np.abs(x).max()) * float(np.abs(real).reshape(len(real), -1).sum(axis=1).max())


WITHOUT_CODES = {
    ("codebook of 16 in groups of 32", "depthwise"): "as many levels as weights",
    ("minifloat E5M6, 12 bits, per channel", "linear"): "more than 256 levels",
    ("minifloat E5M6, 12 bits, per channel", "conv 3x3"): "more than 256 levels",
    **{(f"MX{name}", "depthwise"): "as many scales as weights" for name in (*SMALL_FLOATS, "INT8")},
}
"""(format, layer): why a coded artefact needs more bytes than the format."""


def check_storage(name: str, layers: list[Layer], rows: list[dict[str, Any]]) -> None:
    """A coded artefact holds no more than what the format says: codes, scales and levels."""
    found = {row["name"]: row for row in rows if row["op"] in ("linear", "conv2d")}
    larger: set[str] = set()
    for layer in layers:
        row, shape, element = found[layer.name], layer.weight.stored.shape, layer.weight.element
        bits, count = element_types.bits_of(element), layer.weight.stored.size
        assert row["weights"] == count and row["entropy_bits"] <= bits, layer.name
        spread = 2.6 if layer.kind == "depthwise" else 1.15  # products of depth 4 repeat taps
        if row["stored_bits"] * count > 8 * (spread * bits * count / 8 + parameter_bytes(element, shape) + 1000):
            larger.add(layer.kind)
    assert larger == {kind for format_, kind in WITHOUT_CODES if format_ == name}


def parameter_bytes(element: Any, shape: Shape) -> int:
    """Scales, zero points and levels as f32, one per channel where they are fewer."""
    described = element_types.affine(element) or types.describe(element)
    return sum(4 * max(v.size, shape[0]) for v in vars(described).values() if isinstance(v, np.ndarray))


@pytest.mark.parametrize("name", slow_except(FORMATS, "int4 per channel"))
def test_format(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(name))
    x = [rng.normal(size=(2, CHANNELS)).astype(np.float32), rng.normal(size=(1, CHANNELS, 4, 4)).astype(np.float32)]
    # quantized activations of weight-only layers have a bound of their own (test_streams.py)
    options = CompileOptions(activations="float", coding="rans")
    with create_context(), ir.Location.unknown():
        layers = list(layers_of(FORMATS[name], seed=len(name)))
        module = module_of(layers)
        bounds = [bound(layer, x[int(layer.kind != "linear")]) for layer in layers]
        (tmp_path / "model.mlir").write_text(module.operation.get_asm(enable_debug_info=True))
        source = interpreter.run(module, x)
    compilation = driver.start(module, options)
    from_file = driver.start(tmp_path / "model.mlir", options)
    compilation.run_to("integer")
    reference = interpreter.run(compilation.module, x)
    executable = driver.finish(from_file, threads=1)
    for layer, limit, y, want, real in zip(layers, bounds, executable(*x), reference, source, strict=True):
        np.testing.assert_allclose(y, real, atol=limit, rtol=0, err_msg=layer.name)
        if layer.quantized_input:
            np.testing.assert_array_equal(y, want, err_msg=layer.name)
    executable.save(tmp_path / "model.so")
    loaded = qcc.load(tmp_path / "model.so", threads=2)
    for layer, y, same in zip(layers, executable(*x), loaded(*x), strict=True):
        np.testing.assert_array_equal(same, y, err_msg=layer.name)
    check_storage(name, layers, loaded.report["layers"])


@pytest.mark.skipif(not ISAS[CpuTarget("native").isa].dot4, reason="no products of four bytes")
@pytest.mark.parametrize("name", slow_except(["int8 per channel", "int4 per tensor", "TWN per channel"], "int8 per channel"))
def test_integer_convolutions_without_zero_blocks(name: str) -> None:
    """Where they are asked for, blocks of four input channels are left out; bit for bit the reference."""
    rng = np.random.default_rng(5)
    x = [rng.normal(size=(2, CHANNELS)).astype(np.float32), rng.normal(size=(1, CHANNELS, 4, 4)).astype(np.float32)]
    with create_context(), ir.Location.unknown():
        layers = [layer for layer in layers_of(FORMATS[name], seed=5) if layer.quantized_input and layer.kind == "conv 3x3"]
        compilation = driver.start(module_of(layers), CompileOptions(storage="block"))
    compilation.run_to("integer")
    reference = interpreter.run(compilation.module, x)
    executable = driver.finish(compilation, threads=2)
    for layer, y, want in zip(layers, executable(*x), reference, strict=True):
        np.testing.assert_array_equal(y, want, err_msg=layer.name)
    rows = {row["name"]: row for row in executable.report["layers"]}
    assert layers and all(rows[layer.name]["facts"]["storage"] == "block 1x4" for layer in layers)
