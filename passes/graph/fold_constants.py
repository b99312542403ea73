"""Compute at compile time what depends on constants only, without ever expanding a compressed constant.

Before:

    %w = qcc.constant : tensor<2x3xf32>
    %q = qcc.quantize %w : tensor<2x3x!quant.uniform<i8:f32, 0.5>>
    %t = qcc.transpose %q {permutation = [1, 0]}

After:

    %t = qcc.constant : tensor<3x2x!quant.uniform<i8:f32, 0.5>>

Folded are: quantize of a float constant; data movement of a constant (a per-channel axis moves along), also when a dequantize stands
between; element-wise float arithmetic of constants. Dequantize of a constant is kept: its stored integers are what the later forms
compute with. Only biases of 32 bits, which are as large as floats, become those.

Requires: graph form.
Guarantees: values unchanged; no `qcc.transpose` or `qcc.reshape` of a constant is left unless it splits a quantized axis.
Why: exporters store weights in their own axis order and leave the transposition to the graph (ONNX MatMul, torch linear).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, real_values
from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import ir, layer_name, op_attribute, replace_op, walk
from qcc.dialects.unary_functions import unary
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    VIEWS,
    affine_of,
    constant_array,
    dequantized,
    element_of,
    erase_dead,
    make_constant,
    make_float_constant,
    quantized_levels,
    rebuilt,
    shape_of,
)

_ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "qcc.add": np.add,
    "qcc.sub": np.subtract,
    "qcc.mul": np.multiply,
    "qcc.div": np.divide,
}


@dataclass(frozen=True)
class Options:
    """`max_elements`: largest result of float arithmetic and broadcasting that is stored instead of computed."""

    max_elements: int = 1 << 20


class FoldConstantsPass(Pass):
    """See the module's docstring."""

    name = "fold-constants"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold in program order, so that chains of operations fold in one sweep."""
        for op in walk(module):
            if op.name == "qcc.quantize":
                _fold_quantize(op)
            elif op.name == "qcc.dequantize":
                _fold_bias(op)
            elif op.name in VIEWS:
                _fold_movement(op)
            elif op.name == "qcc.broadcast":
                _fold_broadcast(op, self.options.max_elements)
            elif op.name in _ARITHMETIC or op.name in ("qcc.unary", "qcc.clamp"):
                _fold_arithmetic(op, self.options.max_elements)
        erase_dead(module)


def _fold_quantize(op: Any) -> None:
    kind = affine_of(op.results[0])
    array = constant_array(op.operands[0])
    if array is None or kind is None or array.dtype != np.float32:
        return
    stored = quantized_levels(array, kind).astype(element_types.storage_dtype(op.results[0].type))
    replace_op(op, [make_constant(stored, element_of(op.results[0]), op, name=layer_name(op.location))])


def _fold_bias(op: Any) -> None:
    kind, array = affine_of(op.operands[0]), constant_array(op.operands[0])
    if array is not None and kind is not None and kind.bits == 32:
        replace_op(op, [make_float_constant(real_values.decode(array, op.operands[0].type), op)])


def _fold_movement(op: Any) -> None:
    source = dequantized(op.operands[0])
    stored = op.operands[0] if source is None else source
    array = constant_array(stored)
    if array is None:
        return
    kind = element_types.affine(stored.type)
    element = element_of(stored)
    if str(element).startswith("!") and kind is None:
        if (described := types.describe(element)) is None or op.name != "qcc.transpose":
            return
        element = types.transposed(described, op_attribute(op, "permutation"))
    if kind is not None and (kind.axis is not None or kind.block is not None):
        element = _moved_element(op, kind, array.shape)
        if element is None:
            return
    moved = make_constant(_moved(op, array), element, op, loc=stored.owner.location, name=layer_name(stored.owner.location))
    if source is None:
        replace_op(op, [moved])
    else:
        dequantize = op.operands[0].owner.operation
        replace_op(op, [rebuilt(dequantize, [moved], op.results[0].type, before=op)])


def _moved(op: Any, array: np.ndarray) -> np.ndarray:
    if op.name == "qcc.reshape":
        return array.reshape(shape_of(op.results[0]))
    if op.name == "qcc.transpose":
        return np.transpose(array, op_attribute(op, "permutation"))
    return array[_slices(op)]


def _slices(op: Any) -> tuple[slice, ...]:
    offsets, strides, sizes = op_attribute(op, "offsets"), op_attribute(op, "strides"), shape_of(op.results[0])
    return tuple(slice(o, o + (n - 1) * s + 1, s) for o, s, n in zip(offsets, strides, sizes, strict=True))


def _moved_element(op: Any, kind: Affine, shape: tuple[int, ...]) -> Any:
    """The element type after `op` moved a tensor quantized per axis or block, or None where that does not survive."""
    if op.name == "qcc.transpose":
        return element_types.transposed(kind, op_attribute(op, "permutation"))
    axis, scales, zeros = kind.axis, kind.scales, kind.zero_points
    if axis is None:
        return None
    if op.name == "qcc.slice":
        chosen = _slices(op)[axis]
        scales, zeros = scales[chosen], zeros[chosen]
    else:
        before, result = int(np.prod(shape[:axis])), shape_of(op.results[0])
        places = [i for i, n in enumerate(result) if int(np.prod(result[:i])) == before and n == shape[axis]]
        if not places:
            return None
        axis = places[0]
    return element_types.affine_type(scales, zeros, bits=kind.bits, signed=kind.signed, qmin=kind.qmin, qmax=kind.qmax, axis=axis)


def _fold_broadcast(op: Any, max_elements: int) -> None:
    source, shape = op.operands[0], shape_of(op.results[0])
    array, kind = constant_array(source), affine_of(source)
    if array is None or int(np.prod(shape)) > max_elements:
        return
    if array.dtype == np.float32 or (kind is not None and kind.axis is None and kind.block is None):
        replace_op(op, [make_constant(np.broadcast_to(array, shape), element_of(source), op)])


def _fold_arithmetic(op: Any, max_elements: int) -> None:
    arrays = [constant_array(operand) for operand in op.operands]
    if any(a is None or a.dtype != np.float32 for a in arrays) or int(np.prod(shape_of(op.results[0]))) > max_elements:
        return
    real = [a for a in arrays if a is not None]
    with np.errstate(all="ignore"):
        if op.name in _ARITHMETIC:
            value = _ARITHMETIC[op.name](*real)
        elif op.name == "qcc.clamp":
            value = np.clip(real[0], np.float32(op_attribute(op, "min")), np.float32(op_attribute(op, "max")))
        else:
            value = unary(op_attribute(op, "kind"), real[0], op_attribute(op, "alpha"))
    replace_op(op, [make_float_constant(value, op)])
