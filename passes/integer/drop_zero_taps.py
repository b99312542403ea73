"""Take whole zero taps out of convolutions: smaller kernels, and a shift with a 1x1 product where each input channel has one tap.

Before:

    %a = qcc.conv2d %x, %w {padding = [1, 1, 1, 1]} : (..., tensor<32x16x3x3x...>)     // one tap per input channel

After:

    %s = qcc.conv2d %x, %shift {padding = [1, 1, 1, 1], groups = 16}                   // a 1 in the tap of each channel
    %r = qcc.requantize %s {multiplier = [1.0]}                                        // x, each channel shifted by its tap
    %a = qcc.conv2d %r, %w' : (..., tensor<32x16x1x1x...>)

Rows and columns at the border of a kernel that are zero for all channels are cut off, and the padding (or a slice of x) makes up for it: a
3x3 layer with nothing but its centre becomes a 1x1 layer.

Requires: integer form (products may also be float), before rescaling is lowered to fixed point. `outputs`: the least number of output
channels for which a shift, which costs a depthwise layer, pays.
Guarantees: integer results are the same bit for bit: a shifted x is x, and outside of the image the shift reads the zero point, as the
layer did. Facts per layer: taps (before and after).
Why: Hacene et al., "Attention based pruning for shift networks", 2019: a shift layer multiplies 1/9 as often; pattern pruning leaves rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import element_types, shapes
from qcc.dialects.mlir import create, dense_f32, ir, layer_name, op_attribute, replace_op, to_attribute, walk
from qcc.dialects.operation import Invalid
from qcc.dialects.real_values import decode
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    affine_of,
    attributes_of,
    constant_array,
    dequantized,
    element_of,
    erase_dead,
    make_constant,
    make_float_constant,
    per_tensor,
    rebuilt,
    retyped,
    shape_of,
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Options:
    """`outputs`: see the module; `shift`: whether layers may be split into a shift and a 1x1 product."""

    outputs: int = 16
    shift: bool = True


class DropZeroTapsPass(Pass):
    """See the module's docstring."""

    name = "drop-zero-taps"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Every convolution with constant weights."""
        for op in walk(module, "qcc.conv2d"):
            filled = _filled(op)
            if filled is None or filled.shape[2:] == (1, 1) or not filled.any():
                continue
            before = int(np.prod(filled.shape[2:]))
            layer = layer_name(op.location)
            op, filled = _cropped(op, filled)
            if self.options.shift and filled.shape[0] >= self.options.outputs and _splits(op, filled):
                _split(op, filled)
                context.fact(layer, taps=f"{before}, of which each input channel has one: a shift and a 1x1 product")
            elif int(np.prod(filled.shape[2:])) < before:
                context.fact(layer, taps=f"{before}, of which {int(np.prod(filled.shape[2:]))} are not zero everywhere")
        erase_dead(module)


def _filled(op: Any) -> Array | None:
    """Where the constant weights of `op` are not zero, [o, i, kh, kw]; None where they are computed or of another type."""
    weight = _constant(op)
    stored, kind = constant_array(weight), affine_of(weight)
    if stored is None or ir.RankedTensorType(weight.type).encoding is not None:
        return None
    if weight != op.operands[1]:
        return decode(stored, ir.RankedTensorType(weight.type)) != 0 if _fits_any_kernel(weight) else None
    if kind is not None and kind.axis in (None, 0):
        return stored != kind.expand(kind.zero_points, stored.shape)
    return stored != 0 if stored.dtype == np.float32 else None


def _fits_any_kernel(weight: Any) -> bool:
    """Whether the element type of stored weights says nothing about single taps."""
    try:
        element_types.verify(retyped(weight, element_of(weight), [*shape_of(weight)[:2], 1, 1]))
    except Invalid:
        return False
    return True


def _constant(op: Any) -> Any:
    """The weights of `op` as they are stored, also behind a dequantize."""
    found = dequantized(op.operands[1])
    return op.operands[1] if found is None else found


def _replaced(op: Any, stored: Array) -> Any:
    """New weights for `op` of the type, or behind the dequantize, of those that it has."""
    old = _constant(op)
    made = make_constant(np.ascontiguousarray(stored), element_of(old), op, name=layer_name(op.location))
    if old == op.operands[1]:
        return made
    real = retyped(op.operands[1], element_of(op.operands[1]), stored.shape)
    return rebuilt(op.operands[1].owner.operation, [made], real, before=op)


def _cropped(op: Any, filled: Array) -> tuple[Any, Array]:
    """`op` without the zero rows and columns at the border of its kernel, and what is filled then."""
    used = [np.flatnonzero(filled.any(axis=tuple(i for i in range(4) if i != axis))) for axis in (2, 3)]
    first, last = [int(u[0]) for u in used], [int(u[-1]) + 1 for u in used]
    if first == [0, 0] and last == list(filled.shape[2:]):
        return op, filled
    dilations, padding = op_attribute(op, "dilations"), op_attribute(op, "padding")
    low = [padding[i] - first[i] * dilations[i] for i in (0, 1)]
    high = [padding[2 + i] - (filled.shape[2 + i] - last[i]) * dilations[i] for i in (0, 1)]
    x = _sliced(op, [max(-v, 0) for v in low], [max(-v, 0) for v in high])
    stored = constant_array(_constant(op))
    assert stored is not None, "filled says so"
    window = (slice(None), slice(None), slice(first[0], last[0]), slice(first[1], last[1]))
    w = _replaced(op, stored[window])
    inside = to_attribute([max(v, 0) for v in (*low, *high)])
    made = rebuilt(op, [x, w, *list(op.operands)[2:]], op.results[0].type, padding=inside)
    replace_op(op, [made])
    return made.owner.operation, filled[window]


def _sliced(op: Any, low: list[int], high: list[int]) -> Any:
    """The x of `op` without `low` rows and columns at its beginning and `high` at its end."""
    x = op.operands[0]
    if not any(low + high):
        return x
    shape = shape_of(x)
    size = [*shape[:2], *(shape[2 + i] - low[i] - high[i] for i in (0, 1))]
    attributes = {"offsets": [0, 0, *low], "strides": [1] * 4}
    return create("qcc.slice", [x], [retyped(x, element_of(x), size)], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results[0]


def _splits(op: Any, filled: Array) -> bool:
    """Whether each input channel of `op` has at most one tap, out of several, and x can be shifted as it is stored."""
    x = op.operands[0]
    taps = filled.any(axis=0).reshape(filled.shape[1], -1)
    one = op_attribute(op, "groups") == 1 and taps.shape[1] > 1 and int(taps.sum(axis=1).max()) == 1
    return one and (per_tensor(x) is not None or isinstance(element_of(x), ir.F32Type))


def _split(op: Any, filled: Array) -> None:
    """Replace `op` by a depthwise shift of x and a 1x1 product."""
    x, at = op.operands[0], ir.InsertionPoint(op)
    taps = np.asarray(filled.any(axis=0))  # [i, kh, kw]
    shift = taps[:, None].astype(np.int8)
    name, channels, kernel = layer_name(op.location), filled.shape[1], filled.shape[2:]
    window = [op_attribute(op, key) for key in ("strides", "padding", "dilations")]
    size = shapes.conv2d(shape_of(x), [channels, 1, *kernel], *window)
    attributes = {**attributes_of(op), "groups": channels}
    if isinstance(element_of(x), ir.F32Type):
        ones = make_float_constant(shift, op, name=name)
        moved = create(op.name, [x, ones], [retyped(x, element_of(x), size)], attributes, loc=op.location, ip=at).results[0]
    else:
        ones = make_constant(shift, element_types.affine_type(1.0, bits=2, qmin=-1, qmax=1), op, name=name)
        wide = retyped(x, ir.IntegerType.get_signless(32), size)
        acc = create(op.name, [x, ones], [wide], attributes, loc=op.location, ip=at).results[0]
        same = {"multiplier": dense_f32([1.0]), "mode": "f32"}
        moved = create("qcc.requantize", [acc], [retyped(x, element_of(x), size)], same, loc=op.location, ip=at).results[0]
    stored = constant_array(_constant(op))
    assert stored is not None, "filled says so"
    only = np.asarray(taps.reshape(channels, -1).argmax(axis=1))  # [i]; a channel without a tap has zeros everywhere
    one_by_one = stored.reshape(*stored.shape[:2], -1)[:, np.arange(channels), only]
    weight = _replaced(op, one_by_one[:, :, None, None])
    plain = {"strides": to_attribute([1, 1]), "padding": to_attribute([0] * 4), "dilations": to_attribute([1, 1])}
    replace_op(op, [rebuilt(op, [moved, weight, *list(op.operands)[2:]], op.results[0].type, **plain)])
