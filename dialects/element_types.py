"""Element types and encodings of compressed tensors: what the stored numbers mean."""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir.dialects import quant

from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ext, ir
from qcc.dialects.operation import Invalid

UNIFORM = quant.UniformQuantizedType | quant.UniformQuantizedPerAxisType | quant.UniformQuantizedSubChannelType


@dataclass(frozen=True, eq=False)
class Affine:
    """real = (stored - zero_point) * scale.

    `scales` f32 and `zero_points` i64 have one entry, or one per index of `axis`. Sub-channel (group) types have `axis` None: along
    `block_axes[i]` every `block[i]` neighbours share an entry, and the arrays have one axis per blocked axis. Groups of output channels
    (axis 0) alone are read as scales of that axis.
    """

    bits: int
    signed: bool
    qmin: int
    qmax: int
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int | None = None
    block: tuple[int, ...] | None = None
    block_axes: tuple[int, ...] = ()

    def per_axis(self, values: np.ndarray, rank: int) -> np.ndarray:
        """`values` reshaped to broadcast against a tensor of `rank` axes; not for sub-channel types."""
        if self.axis is None:
            return values.reshape([1] * rank) if values.size == 1 else values
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)

    def aligned(self, values: np.ndarray, rank: int) -> np.ndarray:
        """`values` (scales or zero points, of any kind of type) with the `rank` axes of the tensor, one entry per group."""
        if self.block is None:
            return self.per_axis(values, rank)
        sizes = [1] * rank
        for axis, size in zip(self.block_axes, values.shape, strict=True):
            sizes[axis] = size
        return values.reshape(sizes)

    def expand(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """`values` (scales or zero points, of any kind of type) shaped to broadcast against a tensor of `shape`."""
        values = self.aligned(values, len(shape))
        for axis, block in zip(self.block_axes, self.block or (), strict=True):
            values = np.repeat(values, block, axis=axis)
        return values


def affine(kind: ir.Type) -> Affine | None:
    """The affine parameters of a tensor type (or element type), or None where its elements are not `!quant.uniform`."""
    element: Any = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    if not isinstance(element, UNIFORM):
        return None
    known = _affine.setdefault(element.context, {})
    found = known.get(hash(element))
    if found is None:
        found = known[hash(element)] = _read_affine(element)
        found.scales.flags.writeable = found.zero_points.flags.writeable = False
    return found


# Reading a type with thousands of scales is slow and is asked for all the time. Types are unique in their context and hashed by address;
# holding the types themselves would keep the context alive.
_affine: weakref.WeakKeyDictionary[Any, dict[int, Affine]] = weakref.WeakKeyDictionary()


def _read_affine(element: Any) -> Affine:
    common: dict[str, Any] = {
        "bits": element.storage_type_integral_width,
        "signed": element.is_signed,
        "qmin": element.storage_type_min,
        "qmax": element.storage_type_max,
    }
    if isinstance(element, quant.UniformQuantizedType):
        return Affine(**common, scales=np.array([element.scale], np.float32), zero_points=np.array([element.zero_point], np.int64))
    if isinstance(element, quant.UniformQuantizedPerAxisType):
        return Affine(
            **common,
            scales=np.array(element.scales, np.float32),
            zero_points=np.array(element.zero_points, np.int64),
            axis=element.quantized_dimension,
        )
    # the attribute's elements are signless: fold them into the range that the type means
    bits = common["bits"]
    zero_points = weights.array_of(element.zero_points).astype(np.int64) & ((1 << bits) - 1)
    if element.is_signed:
        zero_points = zero_points - ((zero_points >> (bits - 1)) << bits)
    scales = weights.array_of(element.scales).astype(np.float32)
    sizes, axes = tuple(element.block_sizes), tuple(element.quantized_dimensions)
    several = [i for i, count in enumerate(scales.shape) if count > 1]
    if not several:
        return Affine(**common, scales=scales.reshape(1), zero_points=zero_points.reshape(1))
    if [axes[i] for i in several] == [0]:  # groups of output channels are scales per channel, which integer products understand
        spread = [np.repeat(values.reshape(-1), sizes[several[0]]) for values in (scales, zero_points)]
        return Affine(**common, scales=spread[0], zero_points=spread[1], axis=0)
    return Affine(**common, scales=scales, zero_points=zero_points, block=sizes, block_axes=axes)


def affine_type(
    scale: Any,
    zero_point: Any = 0,
    *,
    bits: int = 8,
    signed: bool = True,
    qmin: int | None = None,
    qmax: int | None = None,
    axis: int | None = None,
    block: Mapping[int, int] | None = None,
) -> ir.Type:
    """`!quant.uniform` of `bits` bits; `scale` and `zero_point` are numbers, with `axis` arrays of one entry per index, with `block`
    (axis -> group size) arrays with one axis per entry of `block`.

    Raises QccError for a scale that is not positive and finite, an empty range and a zero point outside of the storage type.
    """
    low = -(1 << (bits - 1)) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    qmin, qmax = low if qmin is None else qmin, high if qmax is None else qmax
    scales = np.asarray(scale, np.float32)
    zeros = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape)
    if bad := [float(v) for v in scales.reshape(-1) if not (np.isfinite(v) and v > 0)]:
        raise QccError(f"quantization scale is {bad[0]}, expected a positive finite number")
    if not low <= qmin < qmax <= high:
        raise QccError(f"quantized range is {qmin}..{qmax}, expected an ascending range within {low}..{high} for {bits} bits")
    if bad := [int(v) for v in zeros.reshape(-1) if not low <= v <= high]:
        raise QccError(f"zero point is {bad[0]}, expected {low}..{high}")
    flags = quant.QuantizedType.FLAG_SIGNED if signed else 0
    storage, expressed = ir.IntegerType.get_signless(bits), ir.F32Type.get()
    if block is not None:
        zero_dtype = np.dtype(np.bool_ if bits == 1 else f"int{8 if bits <= 8 else 16 if bits <= 16 else 32}")
        wrapped = zeros if signed else np.where(zeros >= 1 << (bits - 1), zeros - (1 << bits), zeros)
        return quant.UniformQuantizedSubChannelType.get(
            flags,
            storage,
            expressed,
            weights.inline_attribute(scales),
            weights.inline_attribute(wrapped.astype(zero_dtype), storage),
            list(block),
            list(block.values()),
            qmin,
            qmax,
        )
    if axis is None:
        return quant.UniformQuantizedType.get(flags, storage, expressed, scales.item(), zeros.item(), qmin, qmax)
    values = [float(v) for v in scales.reshape(-1)]
    zero_points = [int(v) for v in zeros.reshape(-1)]
    return quant.UniformQuantizedPerAxisType.get(flags, storage, expressed, values, zero_points, axis, qmin, qmax)


def is_quantized(kind: ir.Type) -> bool:
    """Whether a tensor type (or element type) is `!quant...` or one of qcc's own."""
    element = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    return isinstance(element, UNIFORM | ext.Type)


def grouped_type(
    scales: np.ndarray,
    zero_points: np.ndarray,
    blocks: Mapping[int, int],
    *,
    bits: int = 8,
    signed: bool = True,
    qmin: int | None = None,
    qmax: int | None = None,
) -> ir.Type:
    """`!quant.uniform` with one scale per block: `blocks` is axis -> block size, `scales` and `zero_points` have one axis for each."""
    low = -(1 << (bits - 1)) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    storage, expressed = ir.IntegerType.get_signless(bits), ir.F32Type.get()
    container = np.dtype(f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}")
    zero_kind = ir.RankedTensorType.get(list(scales.shape), storage, loc=ir.Location.unknown())
    zeros = np.ascontiguousarray(zero_points.astype(container))
    return quant.UniformQuantizedSubChannelType.get(
        quant.QuantizedType.FLAG_SIGNED if signed else 0,
        storage,
        expressed,
        ir.DenseElementsAttr.get(np.ascontiguousarray(scales, np.float32)),
        ir.DenseElementsAttr.get(zeros.view(np.int8) if bits == 8 else zeros, type=zero_kind),
        list(blocks),
        list(blocks.values()),
        low if qmin is None else qmin,
        high if qmax is None else qmax,
    )


def transposed(a: Affine, order: Sequence[int]) -> ir.Type:
    """The element type after axis `i` of a tensor of parameters `a` became the old axis `order[i]`."""
    common: dict[str, Any] = {"bits": a.bits, "signed": a.signed, "qmin": a.qmin, "qmax": a.qmax}
    if a.block is None:
        axis = None if a.axis is None else list(order).index(a.axis)
        return affine_type(a.scales if axis is not None else a.scales[0], a.zero_points if axis is not None else a.zero_points[0],
                           axis=axis, **common)  # fmt: skip
    sizes = dict(zip(a.block_axes, a.block, strict=True))
    kept = [old for old in order if old in sizes]
    moved = [a.block_axes.index(old) for old in kept]
    blocks = {list(order).index(old): sizes[old] for old in kept}
    return grouped_type(a.scales.transpose(moved), a.zero_points.transpose(moved), blocks, **common)


def is_float(kind: ir.Type) -> bool:
    """Whether tensor type `kind` has a builtin float element type."""
    return isinstance(ir.RankedTensorType(kind).element_type, ir.FloatType)


def is_integer(kind: ir.Type) -> bool:
    """Whether tensor type `kind` has a builtin integer element type (an accumulator or index)."""
    return isinstance(ir.RankedTensorType(kind).element_type, ir.IntegerType)


def storage_dtype(kind: ir.Type) -> np.dtype[Any]:
    """numpy container of a tensor's stored elements."""
    from qcc.dialects import compressed_types as types

    element = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    if (a := affine(element)) is not None:
        return np.dtype(f"{'' if a.signed else 'u'}int{8 if a.bits <= 8 else 16 if a.bits <= 16 else 32}")
    match types.describe(element):
        case None:
            return weights.numpy_dtype(element)
        case types.Binary() | types.Ternary() | types.Log2(signed=True):
            return np.dtype(np.int8)
        case types.Scaled(element=inner) | types.Blockscaled(element=inner):
            return weights.numpy_dtype(inner)
        case types.Minifloat(bits=bits) if bits > 8:
            return np.dtype(np.uint16)
        case _:
            return np.dtype(np.uint8)


def bits_of(kind: ir.Type) -> int:
    """Bits of one stored element, without containers: 4 for `!quant.uniform<i4...>`, 1 for `!qcc.binary`, 32 for f32."""
    from qcc.dialects import compressed_types as types

    element: Any = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    found = affine(element) or types.describe(element)
    return found.bits if found is not None else 64 if isinstance(element, ir.IndexType) else element.width


def stored_range(kind: ir.Type) -> tuple[int, int] | None:
    """Least and greatest stored integer of a quantized tensor type; None where stored elements are floats or plain integers."""
    from qcc.dialects import compressed_types as types

    if (a := affine(kind)) is not None:
        return a.qmin, a.qmax
    match types.describe(kind):
        case types.Binary() | types.Ternary():
            return -1, 1
        case types.Log2() as d:
            return -d.most if d.signed else 0, d.most
        case types.Codebook() as d:
            return 0, d.levels.shape[-1] - 1
        case types.Minifloat(bits=bits):
            return 0, (1 << bits) - 1
        case types.Blockscaled(element=ir.IntegerType()):
            return -128, 127
        case _:
            return None


def has_integers(kind: ir.Type) -> bool:
    """Whether real values are integers times a scale, so that integer compute is possible (`formats.integers`)."""
    from qcc.dialects import compressed_types as types

    if affine(kind) is not None:
        return True
    match types.describe(kind):
        case types.Binary():
            return True
        case types.Ternary() as d:
            return d.symmetric
        case types.Log2() as d:
            return d.most <= 32
        case types.Codebook() as d:
            return d.levels.dtype.kind == "i"
        case _:
            return False


def verify(kind: ir.RankedTensorType) -> None:
    """Raise Invalid where the parameters of a tensor's element type or encoding are out of range or do not fit its shape."""
    from qcc.dialects import compressed_types, encodings

    compressed_types.verify(kind)
    if kind.encoding is not None:
        encodings.verify(encodings.encoding_of(kind), list(kind.shape))


def check_payload(value: np.ndarray, kind: ir.RankedTensorType) -> None:
    """Raise Invalid where a constant's payload does not fit its type."""
    from qcc.dialects import compressed_types

    verify(kind)
    if list(value.shape) != list(kind.shape):
        raise Invalid(f"'value' has shape {list(value.shape)}, the result {list(kind.shape)}")
    if not is_quantized(kind):
        return
    bounds, dtype = stored_range(kind), storage_dtype(kind)
    if (value.dtype.kind in "iu") != (bounds is not None) or (bounds is None and value.dtype != dtype):
        raise Invalid(f"'value' holds {value.dtype}, expected {dtype} for {kind.element_type}")
    if bounds is None or not value.size:
        return
    low, high = bounds
    if not (low <= int(value.min()) and int(value.max()) <= high):
        raise Invalid(f"'value' holds {int(value.min())}..{int(value.max())}, expected {low}..{high} from {kind.element_type}")
    if isinstance(compressed_types.describe(kind), compressed_types.Binary) and not value.all():
        raise Invalid(f"'value' holds 0, expected only -1 and 1 from {kind.element_type}")


def are_bfloat16(values: np.ndarray) -> bool:
    """Whether f32 `values` are all bfloat16 numbers."""
    return not (values.view(np.uint32) & 0xFFFF).any()
