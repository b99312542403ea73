"""Write constants of level types (binary, ternary, log2, integer codebooks) as the affine integers they multiply as.

Before:

    %w = qcc.constant dense<[[1, -1]]> : tensor<1x2x!qcc.binary<dense<0.5>>>

After:

    %w = qcc.constant dense<[[1, -1]]> : tensor<1x2x!quant.uniform<i2<-1:1>:f32, 0.5>>

The range of the affine type is the one of the levels, so that later forms still see how few there are: powers of two become integers of
up to 16 bits, codebook indices the integer levels they name.

Requires: graph form; scales per tensor or per index of one axis.
Guarantees: real values unchanged. Constants without integer values (asymmetric ternary, real codebooks, small floats, powers of two over
more than 16 bits) stay where only linear layers and convolutions read them, which decode such weights on the way or before; elsewhere they
become float constants, and the context says so. Facts per layer: weight_format.
Why: one integer path for all of them; each level type gets a storage form and codelets of its own where that pays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import compressed_types, element_types
from qcc.dialects.integer_values import integer_scale, integers
from qcc.dialects.mlir import create, ir, layer_name, replace_op, walk
from qcc.dialects.real_values import decode
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import constant_array, make_constant, make_float_constant, users

_MOST_BITS = 16


class ConvertLevelsToAffinePass(Pass):
    """See the module's docstring."""

    name = "convert-levels-to-affine"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Convert every constant of a level type that is only dequantized."""
        for op in walk(module, "qcc.constant"):
            kind = ir.RankedTensorType(op.results[0].type)
            described = compressed_types.describe(kind)
            if described is not None and all(user.name == "qcc.dequantize" for user in users(op.results[0])):
                _convert(op, kind, type(described).__name__.lower(), context)


def _convert(op: Any, kind: ir.RankedTensorType, name: str, context: PassContext) -> None:
    layers = [layer_name(user.location) for dequantize in users(op.results[0]) for user in users(dequantize.results[0])]
    element, values = _affine(op, kind)
    if element is None or values is None:
        if not _read_as_weights(op):
            _make_float(op, kind)
            context.remarks.append(
                f"{', '.join(layers) or 'constant'}: {name} weights are multiplied in float: they are no integers times a scale"
            )
    else:
        constant = make_constant(values, element, op, name=layer_name(op.location))
        for user in users(op.results[0]):
            at = ir.InsertionPoint(user)
            replace_op(user, create("qcc.dequantize", [constant], [user.results[0].type], loc=user.location, ip=at).results)
        op.erase()
    for layer in layers:
        context.fact(layer, weight_format=name)


def _read_as_weights(op: Any) -> bool:
    """Whether the real values are nothing but weights of linear layers and convolutions."""
    reals = [user.results[0] for user in users(op.results[0])]
    return all(user.name in ("qcc.linear", "qcc.conv2d") and user.operands[1] == real for real in reals for user in users(real))


def _make_float(op: Any, kind: ir.RankedTensorType) -> None:
    """Replace the dequantized constant by its real values."""
    stored = constant_array(op.results[0])
    assert stored is not None
    real = make_float_constant(decode(stored, kind), op, name=layer_name(op.location))
    for user in users(op.results[0]):
        replace_op(user, [real])
    op.erase()


def _affine(op: Any, kind: ir.RankedTensorType) -> tuple[Any, np.ndarray | None]:
    """Element type and stored integers of the affine form, or (None, None) where there is none."""
    stored = constant_array(op.results[0])
    if stored is None or not stored.size or kind.encoding is not None or not element_types.has_integers(kind):
        return None, None
    scale = integer_scale(kind)
    axes = [i for i, n in enumerate(scale.shape) if n > 1]
    if len(axes) > 1 or not (np.isfinite(scale).all() and (scale > 0).all()):
        return None, None
    values = integers(stored, kind)
    low, high = _level_range(kind, values)
    bits = max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1
    if bits > _MOST_BITS:
        return None, None
    scales = scale.reshape(-1)
    element = element_types.affine_type(scales if axes else scales[0], bits=bits, qmin=low, qmax=high, axis=axes[0] if axes else None)
    return element, values.astype(np.int8 if bits <= 8 else np.int16)


def _level_range(kind: ir.RankedTensorType, values: np.ndarray) -> tuple[int, int]:
    """Least and greatest integer that the levels in use reach, at least one apart."""
    found = element_types.stored_range(kind)
    if found is not None and isinstance(compressed_types.describe(kind), compressed_types.Binary | compressed_types.Ternary):
        return found
    low, high = int(values.min()), int(values.max())
    return (low, high) if low < high else (min(low, 0), max(high, 1))
