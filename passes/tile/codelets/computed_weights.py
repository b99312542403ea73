"""conv2d and linear whose weights or bias are computed at run time: packed by copies before the contraction.

Integers are converted first, zero points subtracted, so that no sums of the weights are needed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from qcc.dialects.codelet import Step
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets import elementwise, products
from qcc.passes.tile.codelets.border import read_border
from qcc.passes.tile.codelets.contracting import Contracting, emit
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.matmul import accumulation, multiplicand, multiply
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.reading import over_groups, reading_of
from qcc.passes.tile.codelets.register_tile import choose_tile
from qcc.passes.values import affine_of, shape_of


def conv2d(lowering: Lowering, op: Any) -> set[Any]:
    """Constant weights and bias go to `products.conv2d`."""
    if _constant(lowering, op):
        return products.conv2d(lowering, op)
    (x, w), result, compute = op.operands[:2], op.results[0], accumulation(op)
    groups, (out, _, _, _) = op_attribute(op, "groups"), shape_of(w)
    program, absorbed, y = _frame(lowering, op, 1)
    kind = affine_of(x)
    element = "f32" if compute == "lane_f32" else "s16" if kind is None or kind.bits <= 8 else "i32"
    image = lowering.image(element, shape_of(x), read_border(op))
    elementwise.copy(lowering, lowering.place(x), image, 0 if kind is None else -int(kind.zero_points[0]) - stored_offset(x.type))
    reading = reading_of(op, image)
    (n, _, height, width), per = shape_of(result), out // groups
    taps = math.prod(reading.taps) * reading.run
    tile = choose_tile(lowering.isa, compute, element, height, width, per, taps, one_row=False, summed=False)
    packed, group = _pack(lowering, multiplicand(lowering, op, w), groups, tile[2])
    block = taps * tile[2] * ISAS[lowering.isa].lanes
    contracting = Contracting(compute, (n, groups, height, width, per), reading, packed, (0, group, 0, 0, block), None, None, tile)
    word = lowering.halo_word(products.last_of(op, absorbed))
    emit(lowering, contracting, program, y, word, over_groups([*program.operands, y], per))
    return {op, *absorbed}


def linear(lowering: Lowering, op: Any) -> set[Any]:
    """Constant weights and bias go to `products.linear`; otherwise a matmul with w transposed."""
    if _constant(lowering, op):
        return products.linear(lowering, op)
    program, absorbed, y = _frame(lowering, op, len(shape_of(op.results[0])) - 1)
    x, w = (multiplicand(lowering, op, v) for v in op.operands[:2])
    if len(x.shape) == 1:
        x, y, program.operands[:] = _row(x), _row(y), [_row(p) for p in program.operands]
    multiply(lowering, x, w.transposed([1, 0]), program, y, accumulation(op))
    return {op, *absorbed}


def _constant(lowering: Lowering, op: Any) -> bool:
    return all(lowering.constant_or_none(v) is not None for v in list(op.operands)[1:])


def _frame(lowering: Lowering, op: Any, axis: int) -> tuple[Program, list[Any], Place]:
    """The steps behind the product, the bias along `axis` first, what they absorbed, and where the result goes."""
    program, shape = Program(lowering), shape_of(op.results[0])
    if len(op.operands) > 2:
        bias = lowering.place(op.operands[2])
        along = tuple(i == axis for i in range(len(shape)))
        bias = replace(bias, shape=tuple(shape), strides=tuple(bias.strides[0] if here else 0 for here in along))
        argument = program.operand(bias)
        program.steps.append(Step("float", (argument,), kind="add") if bias.element == "f32" else Step("offset", (argument,)))
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    return program, absorbed, lowering.result(products.last_of(op, absorbed))


def _row(place: Place) -> Place:
    return replace(place, shape=(1, *place.shape), strides=(0, *place.strides))


def _pack(lowering: Lowering, w: Place, groups: int, vectors: int) -> tuple[Place, int]:
    """w [o, c, kh, kw] as [group][block][kh][kw][c][vector][lane], and the stride of a group."""
    lanes = ISAS[lowering.isa].lanes
    (_, c, kh, kw), per, width = w.shape, w.shape[0] // groups, vectors * lanes
    full, rest = divmod(per, width)
    tail = -(-rest // lanes) * lanes
    taps = kh * kw * c
    group = taps * (full * width + tail)
    packed = lowering.temporary(w.element, [groups * group])
    so, sc, sh, sw = w.strides
    for blocks, channels, inner, first in ((full, width, width, 0), (min(rest, 1), rest, tail, full * width)):
        if not blocks:
            continue
        shape = (groups, blocks, kh, kw, c, channels)
        source = replace(w, shape=shape, strides=(per * so, width * so, sh, sw, sc, so), offset=w.offset + first * so, halo=(0, 0, 0, 0))
        strides = (group, taps * width, kw * c * inner, c * inner, inner, 1)
        elementwise.copy(lowering, source, replace(packed, shape=shape, strides=strides, offset=taps * first))
    return packed, group
