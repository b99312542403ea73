"""Let a padded convolution read a few constant channels in place of many: pruned channels that a normalisation left a shift.

Before:

    %q = qcc.requantize %a : tensor<1x64x8x8x!quant.uniform<u8:f32, 0.5>>      // 32 channels are constants 7, 12, 3, ...
    %b = qcc.conv2d %q, %w {padding = [1, 1, 1, 1]}

After:

    %q = qcc.requantize %a'                                                  // three of them are 1, 255, 255
    %b = qcc.conv2d %q, %w'                                                  // the weights for the other 29 are zero

Inside of the image constant channels v[c] add sum over c of v[c] * w[o, c, tap] to output o, a number per output and tap; outside, where
padding is 0, they add nothing. A few channels of chosen constants u[j] add the same with weights d[o, j, tap] that are the digits of these
numbers in the units u[j]. `remove-zero-channels` then takes out the channels that nobody reads.

Requires: integer form; x of the convolution is the requantized accumulator of a product with constant weights, and has no other reader.
Guarantees: results unchanged, bit for bit. Nothing happens where the digits need more than half of the constant channels.
Facts per layer: constants_merged.
Why: such a constant cannot go into the bias, because at the border fewer taps see it (compiler/decisions/0008).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.mlir import create, dense_f32, ir, layer_name, op_attribute, replace_op, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.integer._channels.axes import channel_axes
from qcc.passes.integer._channels.constants import Constants
from qcc.passes.integer._channels.products import NAMES, Product, product
from qcc.passes.integer._rescaling import rescaling
from qcc.passes.values import affine_of, attributes_of, constant_array, element_of, make_constant, per_tensor, producer, used_once

Array = np.ndarray[Any, Any]
_GREATEST_BIAS = 1 << 30
_MOST_UNITS = 16


class MergeConstantChannelsPass(Pass):
    """See the module's docstring."""

    name = "merge-constant-channels"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Every padded convolution of the model."""
        for function in walk(module, "func.func"):
            if not function.regions[0].blocks or "qcc.generic" in function.attributes:
                continue
            operations = [view.operation for view in function.regions[0].blocks[0].operations]
            products = {op: found for op in operations if op.name in NAMES and (found := product(op)) is not None}
            constants = Constants(operations, channel_axes(operations), products)
            for op in [op for op in operations if op.name == "qcc.conv2d" and op in products]:
                if products[op].padded and products[op].groups == 1 and not products[op].is_float:
                    _merge(op, constants, products, context)


def _merge(op: Any, constants: Constants, products: dict[Any, Product], context: PassContext) -> None:
    x, kind, w_kind = op.operands[0], per_tensor(op.operands[0]), affine_of(op.operands[1])
    rescale = producer(x, "qcc.requantize")
    fixed = constants.fixed.get(x)
    if rescale is None or fixed is None or kind is None or w_kind is None or len(rescale.operands) > 1 or not used_once(x):
        return
    source = producer(rescale.operands[0], *NAMES)
    made, stored = products.get(source), constant_array(op.operands[1])
    if made is None or made.is_float or not used_once(rescale.operands[0]) or stored is None:
        return
    zero_x, zero_w = int(kind.zero_points[0]), w_kind.expand(w_kind.zero_points, stored.shape)
    centred = fixed.values - zero_x
    given = np.flatnonzero(fixed.known & (centred != 0) & ~made.touched.any(axis=1))
    low, high = op_attribute(rescale, "clamp", [kind.qmin, kind.qmax])
    most = int(np.minimum(w_kind.zero_points - w_kind.qmin, w_kind.qmax - w_kind.zero_points).min())  # magnitude of every weight
    w = stored.astype(np.int64) - zero_w
    total = np.einsum("c,ochw->ohw", centred[given], w[:, given])
    units = _units(int(np.abs(total).max(initial=0)), most, min(high, kind.qmax) - zero_x)
    if units is None or 2 * len(units) > given.size:
        return
    real = op_attribute(rescale, "mode") == "f32"
    biases = list(zip(given.tolist(), units, strict=False)) if real else _biases(rescale, kind, (low, high), units, given)
    if biases is None:
        return
    changed = w.copy()
    changed[:, given] = 0
    for unit, (channel, _) in reversed(list(zip(units, biases, strict=True))):
        changed[:, channel] = np.clip(np.rint(total / unit).astype(np.int64), -most, most)
        total = total - unit * changed[:, channel]
    assert not total.any(), "units reach every number up to the greatest"
    bias, multiplier = made.bias.copy(), op_attribute(rescale, "multiplier").reshape(-1)
    for channel, value in biases:
        bias[channel] = value
    _rebias(source, bias)
    if real:  # channels without weights may have any scale, such as one that leaves units out
        multiplier = np.broadcast_to(multiplier, bias.shape).copy()
        multiplier[[channel for channel, _ in biases]] = 1
        rescale.attributes["multiplier"], rescale.attributes["axis"] = dense_f32(multiplier), to_attribute(1)
    op.operands[1] = make_constant((changed + zero_w).astype(stored.dtype), element_of(op.operands[1]), op, name=layer_name(op.location))
    context.fact(layer_name(op.location), constants_merged=f"{given.size} constant inputs became {len(units)}")


def _units(greatest: int, most: int, top: int) -> list[int] | None:
    """Ascending units up to `top` such that digits of magnitude up to `most` reach every number up to `greatest`; None where too many."""
    if most < 1 or top < 1:
        return None
    units, reach = [1], most
    while reach < greatest:
        if len(units) == _MOST_UNITS:
            return None
        units.append(min(top, 2 * reach + 1))
        reach += most * units[-1]
    return units


def _biases(
    rescale: Any, kind: element_types.Affine, limits: tuple[int, int], units: list[int], given: Array
) -> list[tuple[int, int]] | None:
    """A channel of `given` for every unit, and the accumulator that fixed `rescale` makes that unit of; None where there is none."""
    zero = int(kind.zero_points[0])
    function = rescaling(rescale, zero, max(limits[0], kind.qmin), min(limits[1], kind.qmax))
    multiplier = op_attribute(rescale, "multiplier").reshape(-1) / 2.0 ** op_attribute(rescale, "shift").reshape(-1).astype(np.float64)
    count = int(given.max()) + 1 if multiplier.size == 1 else multiplier.size
    found: list[tuple[int, int]] = []
    left = [int(c) for c in given]
    for unit in units:
        near = np.rint(np.clip(unit / multiplier, -_GREATEST_BIAS, _GREATEST_BIAS)).astype(np.int64) * np.ones(count, np.int64)
        exact = {int(c): int(near[c]) + d for d in (-1, 1, 0) for c in np.flatnonzero(function(near + d) == unit + zero)}
        channel = next((c for c in left if c in exact), None)
        if channel is None:
            return None
        left.remove(channel)
        found.append((channel, exact[channel]))
    return found


def _rebias(source: Any, bias: Array) -> None:
    """Give product `source` another bias [out]."""
    constant = make_constant(bias.astype(np.int32), ir.IntegerType.get_signless(32), source, name=layer_name(source.location))
    if len(source.operands) > 2:
        source.operands[2] = constant
        return
    operands = [*source.operands, constant]
    at = ir.InsertionPoint(source)
    kinds = [r.type for r in source.results]
    replace_op(source, create(source.name, operands, kinds, attributes_of(source), loc=source.location, ip=at).results)
