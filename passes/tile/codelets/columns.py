"""Linear layers of one row whose input is often 0: columns of weights that nothing multiplies are not read, where that is predicted to pay.

The input must be bytes whose zero point is 0, as they are behind a ReLU, and its share of zeros measured (`record-activation-zeros`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import codelet_cost
from qcc.dialects.codelet import Contraction, Operand
from qcc.dialects.column_codelet import COLUMNS, Columns, scratch_of, unit_order
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import layer_name, op_attribute
from qcc.passes.tile.codelets import channel_parts, packing
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import choose_tile
from qcc.passes.values import affine_of

GAIN = 0.9  # worth it below this part of the time of reading all
MOST_CHANNELS = 1024  # of a block: accumulators and the lines on their way fit the first-level cache
LEAST_CHANNELS = 256  # of a task on a thread of its own
STEPS_OF_DENSITY = 16  # the expectation is rounded, so that layers of one shape share code


@dataclass(frozen=True)
class Plan:
    """`compute` of COLUMNS, and what a block and the expectation are."""

    compute: str
    width: int
    density: float


def plan(lowering: Lowering, op: Any, place: Place, values: np.ndarray) -> Plan | None:
    """How to compute linear layer `op` of one row, x at `place`, integer weights [out, k], by columns; None where it does not pay."""
    zeros, kind, facts = op_attribute(op, "qcc.zeros"), affine_of(op.operands[0]), ISAS[lowering.isa]
    if zeros is None or kind is None or kind.axis is not None or place.element != "u8" or place.strides[-1] != 1:
        return None
    if int(kind.zero_points[0]) + stored_offset(op.operands[0].type) != 0 or values.dtype.kind == "f" or not values.size:
        return None
    if packing.narrowest(values) != "s8" or not (facts.dot4 or facts.dot2):
        return None
    out, k = values.shape
    compute = "dot4_u8s8" if facts.dot4 else "dot2_s16"
    blocks = max(math.ceil(out / MOST_CHANNELS), min(2, out // LEAST_CHANNELS), 1)
    width = math.ceil(out / blocks / 64) * 64
    density = math.ceil((1 - zeros) * STEPS_OF_DENSITY) / STEPS_OF_DENSITY
    found = Plan(compute, width, density)
    ours, theirs = _microseconds(lowering.isa, found, out, k)
    ratio = f"{zeros:.0%} of the input is 0: reading only the columns of the others predicted {theirs / ours:.1f}x as fast as reading all"
    lowering.fact(layer_name(op.location), skipping=ratio if ours < GAIN * theirs else ratio + ", not used")
    return found if ours < GAIN * theirs else None


def _microseconds(isa: str, found: Plan, out: int, k: int) -> tuple[float, float]:
    """Predicted times by columns and of the contraction that reads all."""
    x, w = Operand(0, "u8", (1,)), Operand(1, "s8", (0,))
    ours = codelet_cost.cost(Columns(isa, found.compute, (out, k), found.width, x, w, (), (), x, found.density), shipped(isa))
    return ours.microseconds if ours else math.inf, reading_all(isa, 1, out, k)


def reading_all(isa: str, rows: int, out: int, k: int) -> float:
    """Predicted microseconds of the contraction of `rows` rows of bytes with weights of bytes [out, k]."""
    compute = "dot4_u8s8" if ISAS[isa].dot4 else "dot2_s16"
    steps = math.ceil(k / codelet_cost.DEPTHS[compute])
    tile = choose_tile(isa, compute, "s8", 1, rows, out, steps, one_row=False, summed=False)
    row = Operand(0, "u8", (0, 0, 0, 0, 0))
    weights = Operand(1, "s8", (0, 0, 0, 0, 0))
    every = Contraction(isa, compute, (1, 1, 1, rows, out), row, weights, (1, 1), (0, 0), k, tile, (1, 1), (), (), row)
    found = codelet_cost.cost(every, shipped(isa))
    return found.microseconds if found else math.inf


def lower(
    lowering: Lowering, chosen: Plan, x: Place, values: np.ndarray, bias: np.ndarray | None, program: Program, y: Place,
    spread: Sequence[int],
) -> None:  # fmt: skip
    """Call the codelet, or for a few channels at a time: contiguous x [k], weights [out, k], bias [out] i32; `spread` has the strides over
    channels of the program's operands, then of y."""
    for first, count in channel_parts.cut(lowering, *values.shape):
        behind, result = channel_parts.take(program, y, (first, count), len(y.shape) - 1)
        start = None if bias is None else bias[first : first + count]
        narrow = replace(chosen, width=min(chosen.width, math.ceil(count / 64) * 64))
        _call(lowering, narrow, x, values[first : first + count], start, behind, result, spread)


def _call(
    lowering: Lowering, chosen: Plan, x: Place, values: np.ndarray, bias: np.ndarray | None, program: Program, y: Place,
    spread: Sequence[int],
) -> None:  # fmt: skip
    out, lanes = len(values), ISAS[lowering.isa].lanes
    places = [x, lowering.weights(packed(values, chosen, lanes), "s8")]
    bias_operand = None
    if bias is not None:
        bias_operand = Operand(len(places), "i32", (1,))
        wide = np.zeros(math.ceil(out / chosen.width) * chosen.width, np.int32)
        wide[:out] = bias
        places.append(lowering.weights(wide, "i32"))
    operands = tuple(p.operand(len(places) + i, (spread[i],)) for i, p in enumerate(program.operands))
    places += program.operands
    params = lowering.append_params(places, program.words)
    codelet = Columns(
        isa=lowering.isa,
        compute=chosen.compute,
        sizes=values.shape,
        width=chosen.width,
        x=x.operand(0, (1,)),
        w=Operand(1, "s8", (0,)),
        operands=operands,
        steps=tuple(program.steps),
        y=y.operand(len(places), (spread[-1],)),
        density=chosen.density,
        bias=bias_operand,
        params=params,
    )
    lowering.call(codelet, [*places, y], scratch_bytes=scratch_of(codelet).size)


def packed(values: np.ndarray, chosen: Plan, lanes: int) -> np.ndarray:
    """Weights [out, k] as [block][k][width] s8, the channels of every unit in the order that interleaving undoes."""
    out, k = values.shape
    blocks, unit = math.ceil(out / chosen.width), COLUMNS[chosen.compute] * lanes
    padded = np.zeros((blocks * chosen.width, k), np.int8)
    padded[:out] = values
    ordered = padded.reshape(-1, unit, k)[:, unit_order(chosen.compute, lanes)]
    return np.ascontiguousarray(ordered.reshape(blocks, chosen.width, k).transpose(0, 2, 1)).reshape(-1)
