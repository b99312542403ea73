"""The call of a contraction whose weights are packed: its operands, its tasks, and the steps behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction, Listed, Operand
from qcc.dialects.codelet_cost import DEPTHS
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.sign_codelet import Signs
from qcc.passes.tile.codelets import byte_pairs
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.reading import Reading
from qcc.passes.tile.codelets.register_tile import choose_chunks

SIGNS_PER_MAC = 11  # multiply-accumulates in the time of one word of signs, for the size of tasks


@dataclass
class Contracting:
    """What `emit` needs besides the program: weights' strides over (n, g, h, w, block), bias and zero [groups, c padded to blocks]."""

    compute: str
    sizes: tuple[int, int, int, int, int]
    reading: Reading
    w: Place
    w_strides: tuple[int, int, int, int, int]
    bias: Place | None
    zero: Place | None
    tile: tuple[int, int, int]
    bias_strides: tuple[int, int, int, int, int] | None = None
    listed: byte_pairs.Listed | None = None
    signs: Signs | None = None
    segment: int = 0


def emit(lowering: Lowering, c: Contracting, program: Program, y: Place, halo_word: int, spread: Sequence[tuple[int, ...]]) -> None:
    """Call the contraction; `spread` has the strides over (n, g, h, w, c) of the program's operands, then of y."""
    n, groups, height, _, channels = c.sizes
    width = c.tile[2] * ISAS[lowering.isa].lanes
    halo = None
    if any(y.halo):
        halo = y.fill(len(program.words))
        program.words.append(halo_word)
    reading = c.reading
    places: list[Place] = [reading.place, c.w]
    bias = zero = None
    sums = -1
    per_channel = (0, -(-channels // width) * width, 0, 0, 1)
    if c.bias is not None:
        bias = Operand(len(places), c.bias.element, c.bias_strides or per_channel)
        places.append(c.bias)
    if c.zero is not None:
        zero = Operand(len(places), "i32", per_channel)
        places.append(c.zero)
        sums = len(places)
        places.append(_ones(lowering, reading.run, DEPTHS[c.compute]))
    listed = None
    if (table := c.listed) is not None:
        listed = Listed(len(places), len(places) + 1, table.classes)
        places += [lowering.weights(table.index, "i32"), lowering.weights(table.offsets, "i32")]
    operands = [place.operand(len(places) + i, spread[i]) for i, place in enumerate(program.operands)]
    places += program.operands
    params = lowering.append_params(places, program.words)
    count = -(-channels // width)
    macs = math.prod(c.sizes) * math.prod(reading.taps) * reading.run * (SIGNS_PER_MAC if c.signs else 1)
    codelet = Contraction(
        isa=lowering.isa,
        compute=c.compute,
        sizes=c.sizes,
        x=Operand(0, reading.place.element, reading.strides, reading.place.offset + reading.offset),
        w=Operand(1, c.w.element, c.w_strides),
        taps=reading.taps,
        tap_strides=reading.tap_strides,
        run=reading.run,
        tile=c.tile,
        chunks=choose_chunks(c.tile, n * groups, count, height, macs, count * c.w_strides[-1] * ELEMENT_BYTES[c.w.element]),
        operands=tuple(operands),
        steps=tuple(program.steps),
        y=y.operand(len(places), spread[-1]),
        bias=bias,
        zero=zero,
        ahead=c.w.buffer.owner.attributes["space"].value == "weights",
        sums=sums,
        params=params,
        halo=halo,
        listed=listed,
        signs=c.signs,
        segment=c.segment,
    )
    lowering.call(codelet, [*places, y])


def _ones(lowering: Lowering, run: int, depth: int) -> Place:
    """[steps, depth] in u8 quadruples or s16 pairs: 1 where a run has an element."""
    ones = np.zeros(-(-run // depth) * depth, np.int16)
    ones[:run] = 1
    return lowering.weights(ones, "u8" if depth == 4 else "s16")
