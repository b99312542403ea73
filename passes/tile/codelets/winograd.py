"""3x3 convolutions by Winograd's F(4x4, 3x3), where it is exact and predicted faster than the direct loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects.codelet import Operand
from qcc.dialects.codelet_cost import winograd_cycles, winograd_rates
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.machine import shipped
from qcc.dialects.mlir import op_attribute
from qcc.dialects.weight_recipes import WINOGRAD_F32, WINOGRAD_S16, Recipe
from qcc.dialects.winograd_codelet import POINTS, Winograd, pitches, products
from qcc.passes.tile.codelets import packing
from qcc.passes.tile.codelets.level_codes import LevelCodes
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.values import shape_of

EDGE, VECTORS = 4, 2
CHANNELS = 32  # x comes in whole vectors of 16 bits, results in whole blocks of two vectors
LARGEST_WEIGHT = 32767 // 12**2  # whose transform fits 16 bits
FACTOR = 576  # of integer sums
RESULT_BITS = 26  # what is left of 32 after the factor is taken off

SCRATCH_BYTES = 800_000  # of a task, that stay in the second-level cache
MOST_SCRATCH_BYTES = 2_300_000  # what is beyond that is worth it where large weights are then read only once
FURTHER_BYTES_PER_CYCLE = 48  # of transformed x that comes from the third level, less what products hide of it
RESIDENT_BYTES = 1_000_000  # of weights that stay there from strip to strip
GAIN = 0.9  # worth it below this part of the direct loop's time


@dataclass(frozen=True)
class Plan:
    """`strips` of `strip` tiles, in `compute` arithmetic; `narrow` ones at edges of 2 results."""

    compute: str
    narrow: bool
    strip: int
    strips: int
    microseconds: float  # predicted


def plan(lowering: Lowering, op: Any, place: Place, values: np.ndarray, bias: np.ndarray | None) -> Plan | None:
    """How to compute conv2d `op` with weights [out, c, kh, kw] and sums that start at `bias` [1, out], or None where the direct loop is to
    be used."""
    n, out, height, width = shape_of(op.results[0])
    channels, facts = shape_of(op.operands[0])[1], ISAS[lowering.isa]
    if not suits(op) or not facts.dot2 or place.strides[1] != 1:
        return None
    compute = "lane_f32" if values.dtype.kind == "f" else "dot2_s16"
    if compute == "dot2_s16" and (place.element != "u8" or not _exact(values, 0 if bias is None else bias.reshape(-1))):
        return None
    return fastest(lowering.isa, compute, (n, height, width), channels, out, place.element)


def fastest(isa: str, compute: str, pixels: tuple[int, int, int], channels: int, out: int, x: str = "") -> Plan | None:
    """The plan for results [n, h, w, out] of 3x3 kernels over `channels` of elements `x`; None where there is none, or it is predicted
    slower than the direct loop."""
    n, height, width = pixels
    if not _divisible(height, width, channels, out):
        return None
    image, plans = -(-height // EDGE) * -(-width // EDGE), list[Plan]()
    for narrow in (False, True) if {height % EDGE, width % EDGE} in ({2}, {0, 2}) else (False,):
        count = n * products(height, width, narrow)
        strips = [d * image for d in _divisors(n)] if narrow else _divisors(n * image)
        plans += [_predict(isa, compute, n * image, count, channels, out, strip, narrow) for strip in strips]
    best = min(plans, key=lambda p: p.microseconds * (math.ceil(p.strips / 2) * 2 / p.strips if p.strips > 1 else 1))
    direct = n * height * width * channels * out * 9 / winograd_rates(isa, compute, x)[0] * 1.1
    return best if best.microseconds < GAIN * direct / shipped(isa).ghz / 1000 else None


def suits(op: Any) -> bool:
    """Whether the sizes of conv2d `op` allow it."""
    (_, out, height, width), (_, channels, *kernel) = shape_of(op.results[0]), shape_of(op.operands[1])
    strides, dilations, groups = (op_attribute(op, name) for name in ("strides", "dilations", "groups"))
    return [*kernel, *strides, *dilations, groups] == [3, 3, 1, 1, 1, 1, 1] and _divisible(height, width, channels, out)


def _divisible(height: int, width: int, channels: int, out: int) -> bool:
    return min(height, width) >= EDGE and not (channels % CHANNELS or out % CHANNELS)


def _exact(values: np.ndarray, bias: np.ndarray | int) -> bool:
    """Whether no bias + sum of x * w, x in 0..255, leaves RESULT_BITS bits, and transformed weights fit 16 bits."""
    flat = values.reshape(values.shape[0], -1)
    most = (255 * np.maximum(flat, 0).sum(axis=1, dtype=np.int64) + bias).max(initial=0)
    least = (255 * np.minimum(flat, 0).sum(axis=1, dtype=np.int64) + bias).min(initial=0)
    limit = 1 << (RESULT_BITS - 1)
    return bool(np.abs(values).max(initial=0) <= LARGEST_WEIGHT and -limit < least and most < limit)


def _divisors(tiles: int) -> list[int]:
    return [d for d in range(1, min(tiles, 256) + 1) if tiles % d == 0]


def _predict(isa: str, compute: str, tiles: int, count: int, channels: int, out: int, strip: int, narrow: bool) -> Plan:
    """The larger of arithmetic and of reading the weights once per strip, on the shipped machine: where a model is compiled must not change
    its code."""
    facts, machine, size = ISAS[isa], shipped(isa), 2 if compute == "dot2_s16" else 4
    arithmetic = winograd_cycles(isa, compute, tiles, count, channels, out, strip)
    weight_bytes = POINTS * channels * out * size
    strips = tiles // strip
    times = strips if weight_bytes > RESIDENT_BYTES else 1
    cycles = max(arithmetic, times * weight_bytes / machine.read_bytes_per_cycle("dram"))
    scratch = POINTS * strip * (channels * size + VECTORS * facts.lanes * 4)
    if scratch > SCRATCH_BYTES:
        blocks = out // (VECTORS * facts.lanes)
        cycles += strips * blocks * POINTS * strip * channels * size / FURTHER_BYTES_PER_CYCLE
    if scratch > MOST_SCRATCH_BYTES:
        cycles = math.inf
    return Plan(compute, narrow, strip, strips, cycles / machine.ghz / 1000)


def lower(
    lowering: Lowering,
    chosen: Plan,
    x: Place,
    border: tuple[int, int],
    values: np.ndarray,
    bias: np.ndarray | None,
    program: Program,
    y: Place,
    halo_word: int,
    codes: LevelCodes | None = None,
) -> None:
    """Call the codelet: x with rows and columns of `border` before its first element, weights [out, c, 3, 3] (and the codes that they are
    decoded from), bias [1, out]."""
    n, out, height, width = y.shape
    facts, channels, element = ISAS[lowering.isa], values.shape[1], "s16" if chosen.compute == "dot2_s16" else "f32"
    halo = None
    if any(y.halo):
        halo = y.fill(len(program.words))
        program.words.append(halo_word)
    places = [x, _weights(lowering, values, codes, facts.lanes, element)]
    bias_operand = None
    if bias is not None:
        bias_operand = Operand(len(places), "f32" if element == "f32" else "i32", (0, 0, 0, 1))
        scaled = bias.astype(np.float32) if element == "f32" else (FACTOR * bias).astype(np.uint32).view(np.int32)  # sums wrap
        places.append(lowering.constant_place(scaled.reshape(-1)))
    operands = tuple(_pixels(p, len(places) + i) for i, p in enumerate(program.operands))
    places += program.operands
    params = lowering.append_params(places, program.words)
    blocks = out // (VECTORS * facts.lanes)
    source, most = _pixels(x, 0), (facts.registers - VECTORS - 2) // VECTORS
    codelet = Winograd(
        isa=lowering.isa,
        compute=chosen.compute,
        sizes=(n, height, width, out),
        channels=channels,
        x=replace(source, offset=source.offset - border[0] * x.strides[2] - border[1] * x.strides[3]),
        w=Operand(1, element, (0, 0, 0, 0)),
        tile=(1, most if chosen.narrow else _columns(chosen.strip, most), VECTORS),
        narrow=chosen.narrow,
        strip=chosen.strip,
        chunk=blocks if chosen.strips > 1 else -(-blocks // 2),
        operands=operands,
        steps=tuple(program.steps),
        y=_pixels(y, len(places)),
        bias=bias_operand,
        params=params,
        halo=halo,
    )
    lowering.call(codelet, [*places, y], scratch_bytes=POINTS * sum(pitches(codelet)))


def _columns(strip: int, most: int) -> int:
    """Columns of the register tile of the products, at most `most`: tiles of one size if they are not small, else as equal as possible."""
    return max((c for c in range(8, most + 1) if strip % c == 0), default=math.ceil(strip / math.ceil(strip / most)))


def _weights(lowering: Lowering, values: np.ndarray, codes: LevelCodes | None, lanes: int, element: str) -> Place:
    """G w G^T of [out, c, 3, 3], packed [block][36][step][vector][lane][depth]."""
    layout = WINOGRAD_S16 if element == "s16" else WINOGRAD_F32
    narrow = packing.narrowest(values) == "s8" if element == "s16" else True
    source = values.reshape(1, len(values), -1).astype(np.float32 if element == "f32" else np.int8 if narrow else np.int16)
    recipe = Recipe(layout, lanes, VECTORS, source)
    shorter = None if codes is None else codes.winograd(lanes, VECTORS)
    return lowering.weights(recipe.apply(), element, shorter or (recipe if narrow else None))


def _pixels(place: Place, number: int) -> Operand:
    """A [n, c, h, w] place over (n, h, w, c)."""
    n, c, h, w = place.strides
    return place.operand(number, (n, h, w, c))
