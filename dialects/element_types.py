"""Element types and encodings of compressed tensors: what the stored numbers mean."""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir.dialects import quant

from qcc.dialects.mlir import ir
from qcc.dialects.operation import Invalid


@dataclass(frozen=True, eq=False)
class Affine:
    """real = (stored - zero_point) * scale.

    `scales` f32 and `zero_points` i64 have one entry, or one per index of `axis`. Sub-channel (group) types have `axis` None: along
    `block_axes[i]` every `block[i]` neighbours share an entry, and the arrays have one axis per blocked axis.
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

    def expand(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """`values` (scales or zero points, of any kind of type) shaped to broadcast against a tensor of `shape`."""
        if self.block is None:
            return self.per_axis(values, len(shape))
        sizes = [1] * len(shape)
        for axis, size in zip(self.block_axes, values.shape, strict=True):
            sizes[axis] = size
        values = values.reshape(sizes)
        for axis, block in zip(self.block_axes, self.block, strict=True):
            values = np.repeat(values, block, axis=axis)
        return values


def affine(kind: ir.Type) -> Affine | None:
    """The affine parameters of a tensor type (or element type), or None where its elements are not `!quant.uniform`."""
    element: Any = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    uniform = (
        quant.UniformQuantizedType,
        quant.UniformQuantizedPerAxisType,
        quant.UniformQuantizedSubChannelType,
    )
    if not isinstance(element, uniform):
        return None
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
    from qcc.dialects import weights

    zero_points = weights.array_of(element.zero_points).astype(np.int64)
    if not element.is_signed:  # the attribute's elements are signless, so its text shows the upper half as negative
        zero_points = zero_points & ((1 << common["bits"]) - 1)
    return Affine(
        **common,
        scales=weights.array_of(element.scales).astype(np.float32),
        zero_points=zero_points,
        block=tuple(element.block_sizes),
        block_axes=tuple(element.quantized_dimensions),
    )


def affine_type(
    scale: Any,
    zero_point: Any = 0,
    *,
    bits: int = 8,
    signed: bool = True,
    qmin: int | None = None,
    qmax: int | None = None,
    axis: int | None = None,
) -> ir.Type:
    """`!quant.uniform` of `bits` bits; `scale` and `zero_point` are numbers or, with `axis`, arrays of one entry per index."""
    low = -(1 << (bits - 1)) if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    qmin, qmax = low if qmin is None else qmin, high if qmax is None else qmax
    flags = quant.QuantizedType.FLAG_SIGNED if signed else 0
    storage, expressed = ir.IntegerType.get_signless(bits), ir.F32Type.get()
    if axis is None:
        return quant.UniformQuantizedType.get(flags, storage, expressed, float(np.float32(scale)), int(zero_point), qmin, qmax)
    scales = [float(v) for v in np.asarray(scale, np.float32).reshape(-1)]
    zeros = [int(v) for v in np.broadcast_to(np.asarray(zero_point), (len(scales),))]
    return quant.UniformQuantizedPerAxisType.get(flags, storage, expressed, scales, zeros, axis, qmin, qmax)


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


def storage_dtype(kind: ir.Type) -> np.dtype[Any]:
    """numpy container of a tensor's stored elements."""
    from qcc.dialects import weights

    element = kind.element_type if isinstance(kind, ir.RankedTensorType) else kind
    if (a := affine(element)) is not None:
        return np.dtype(f"{'' if a.signed else 'u'}int{8 if a.bits <= 8 else 16 if a.bits <= 16 else 32}")
    return weights.numpy_dtype(element)


def check_payload(value: np.ndarray, kind: ir.RankedTensorType) -> None:
    """Raise Invalid where a constant's payload does not fit its type."""
    if list(value.shape) != list(kind.shape):
        raise Invalid(f"'value' has shape {list(value.shape)}, the result {list(kind.shape)}")
    if (a := affine(kind)) is not None and value.size and not (a.qmin <= int(value.min()) and int(value.max()) <= a.qmax):
        raise Invalid(f"'value' holds {int(value.min())}..{int(value.max())}, expected {a.qmin}..{a.qmax} from {kind.element_type}")
