"""The format of a layer's weights in a few words, from their type alone: `int4, scale per group of 32`, `codebook of 16`."""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.mlir import ir


def weight_format(kind: ir.RankedTensorType) -> str:
    """Words for the element type of weights of `kind`."""
    shape = list(kind.shape)
    if (a := element_types.affine(kind)) is not None:
        zeros = " and zero point" if a.zero_points.any() else ""
        what = f"{'' if a.signed else 'u'}int{a.bits}"
        return f"{what}, scale{zeros} {_per(a.aligned(a.scales, len(shape)).shape, shape)}"
    match types.describe(kind):
        case types.Binary(scales=scales):
            return f"binary, scale {_per(scales.shape, shape)}"
        case types.Ternary() as d:
            return f"ternary, {'scale' if d.symmetric else 'two scales'} {_per(d.positive.shape, shape)}"
        case types.Log2() as d:
            return f"powers of two of {d.bits} bits"
        case types.Codebook(levels=levels, scales=scales):
            per = f" {_per(levels.shape[:-1], shape)}" if levels.ndim > 1 else ""
            return f"codebook of {levels.shape[-1]}{per}" + (f", scale {_per(scales.shape, shape)}" if scales.size > 1 else "")
        case types.Scaled(element=element, scales=scales):
            return f"{element}, scale {_per(scales.shape, shape)}"
        case types.Blockscaled(element=element, block=block):
            return f"{element} in blocks of {max(block)}"
        case types.Minifloat() as d:
            return f"E{d.exponent}M{d.mantissa} float, scale {_per(d.scales.shape, shape)}"
        case None:
            return str(kind.element_type)


def _per(blocks: Sequence[int], shape: Sequence[int]) -> str:
    """What shares one scale, where there are `blocks` of them along the axes of `shape`."""
    several = [axis for axis, count in enumerate(blocks) if count > 1] if len(blocks) == len(shape) else []
    if not several:
        return "per tensor"
    last = several[-1]
    if last == 0:
        return "per channel" if blocks[0] == shape[0] else f"per {shape[0] // blocks[0]} channels"
    return f"per group of {shape[last] // blocks[last]}"
