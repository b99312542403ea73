"""Fold inference-time batch normalisation into the layer before it, or into one multiply and one add per channel.

Before:

    %y = qcc.conv2d %x, %w, %b
    %z = qcc.batch_norm %y, %scale, %bias, %mean, %var {epsilon = 1.0e-5}

After:

    %z = qcc.conv2d %x, %w', %b'    // w' = w * f per output channel, b' = (b - mean) * f + bias, f = scale / sqrt(var + epsilon)

Quantized weights (`dequantize(constant)`) keep their stored integers: `f` goes into their per-channel scales, and where `f` is negative
the stored integers change their sign, provided the zero point is 0 and the storage range allows it.

Requires: graph form; constant parameters of the normalisation.
Guarantees: no `qcc.batch_norm` remains. Where folding is impossible (no layer before it, the layer's result is used elsewhere or
quantized before the normalisation, weights that are not constant), it becomes `qcc.mul` and `qcc.add`.
Why: two fewer passes over the activations; Jacob et al., "Quantization and training of neural networks ...", CVPR 2018, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, error_at, ir, layer_name, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    affine_of,
    constant_array,
    dequantized,
    erase_dead,
    float_array,
    make_constant,
    make_float_constant,
    producer,
    rebuilt,
    shape_of,
    used_once,
)


class FoldBatchNormPass(Pass):
    """See the module's docstring."""

    name = "fold-batch-norm"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Replace every normalisation; raises QccError where its parameters are not constants."""
        for op in walk(module, "qcc.batch_norm"):
            factor, offset = _affine_form(op)
            if not _fold_into_layer(op, factor, offset):
                _make_multiply_add(op, factor, offset)
        erase_dead(module)


def _affine_form(op: Any) -> tuple[np.ndarray, np.ndarray]:
    """(factor, offset), both [channels] f64, such that the result is x * factor + offset."""
    values: list[np.ndarray] = []
    for name, operand in zip(("scale", "bias", "mean", "var"), list(op.operands)[1:], strict=True):
        array = float_array(operand)
        if array is None:
            raise error_at(op, f"'{name}' of the batch normalisation is computed, expected a constant; export the model in evaluation mode")
        values.append(array)
    scale, bias, mean, var = values
    if float(np.min(var, initial=0.0)) + op_attribute(op, "epsilon") < 0:
        raise error_at(op, f"the variance of the batch normalisation is {float(var.min())}, expected at least -epsilon")
    with np.errstate(divide="ignore"):
        factor = scale / np.sqrt(var + op_attribute(op, "epsilon"))
    if not np.isfinite(factor).all():
        raise error_at(op, "variance plus epsilon of the batch normalisation is 0, expected a positive number")
    return factor, bias - mean * factor


def _fold_into_layer(op: Any, factor: np.ndarray, offset: np.ndarray) -> bool:
    x = op.operands[0]
    layer = producer(x, "qcc.conv2d", "qcc.linear")
    if layer is None or not used_once(x) or (layer.name == "qcc.linear" and len(shape_of(x)) != 2):
        return False
    bias = float_array(layer.operands[2]) if len(layer.operands) > 2 else np.zeros(1)
    if bias is None:
        return False
    weight = _scaled_weight(layer, factor, op)
    if weight is None:
        return False
    new_bias = make_float_constant((bias * factor + offset).astype(np.float32), op, loc=layer.location, name=layer_name(layer.location))
    replace_op(op, [rebuilt(layer, [layer.operands[0], weight, new_bias], op.results[0].type, before=op)])
    return True


def _scaled_weight(layer: Any, factor: np.ndarray, before: Any) -> Any:
    """The layer's weight times `factor` per output channel, made before operation `before`; None where that is impossible."""
    weight = layer.operands[1]
    name = layer_name(layer.location)
    if (array := constant_array(weight)) is not None and array.dtype == np.float32:
        scaled = array * factor.reshape([-1] + [1] * (array.ndim - 1))
        return make_float_constant(scaled, before, loc=weight.owner.location, name=name)
    stored = dequantized(weight)
    kind = None if stored is None else affine_of(stored)
    array = None if stored is None else constant_array(stored)
    if stored is None or array is None or kind is None or kind.axis not in (None, 0) or (kind.axis is None and kind.scales.size != 1):
        return None
    flipped = _with_signs(array, kind, factor)
    scales = np.abs(kind.scales * factor).astype(np.float32)
    if flipped is None or not (np.isfinite(scales).all() and (scales > 0).all()):
        return None
    storage: dict[str, Any] = {"bits": kind.bits, "signed": kind.signed, "qmin": kind.qmin, "qmax": kind.qmax}
    element = element_types.affine_type(scales, kind.zero_points, **storage, axis=0)
    constant = make_constant(flipped, element, before, loc=stored.owner.location, name=name)
    return create("qcc.dequantize", [constant], [weight.type], loc=weight.owner.location, ip=ir.InsertionPoint(before)).results[0]


def _with_signs(stored: np.ndarray, kind: Affine, factor: np.ndarray) -> np.ndarray | None:
    """`stored` with the sign of channels of negative `factor` changed, or None where the storage range does not hold that."""
    if (factor >= 0).all():
        return stored
    zero = kind.zero_points if kind.axis == 0 else np.broadcast_to(kind.zero_points, (stored.shape[0],))
    wide, negative = stored.astype(np.int64), factor < 0
    wide[negative] = 2 * zero[negative].reshape([-1] + [1] * (stored.ndim - 1)) - wide[negative]
    return wide.astype(stored.dtype) if kind.qmin <= wide.min() and wide.max() <= kind.qmax else None


def _make_multiply_add(op: Any, factor: np.ndarray, offset: np.ndarray) -> None:
    x = op.operands[0]
    shape = [1, -1] + [1] * (len(shape_of(x)) - 2)
    for name, values in (("qcc.mul", factor), ("qcc.add", offset)):
        constant = make_float_constant(values.reshape(shape), op)
        x = create(name, [x, constant], [op.results[0].type], loc=op.location, ip=ir.InsertionPoint(op)).results[0]
    replace_op(op, [x])
