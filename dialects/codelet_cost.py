"""Predicted cycles and bytes of one call of a codelet on a machine: the one model that chooses tiles, picks formats and fills the report.

A call's time is that of its arithmetic, or of bringing its operands nearer where that takes longer, as in a roofline (Williams, Waterman,
Patterson, CACM 2009), but per loop nest: the arithmetic counts register tiles with their partial ones, and every operand comes from the
memory level in which its size lets it stay between two uses. Constants were fitted once to the layers of the end-to-end models; decision
0006 has the fit. It lives here, below the passes, because they choose by it and the compiler reports it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, ISAS, Contraction, Depthwise, Embedding, Map, Operand, Pack, Rows, Step, Window, tasks
from qcc.dialects.machine import Machine

LATENCY_CYCLES = {"dot4_u8s8": 5.0, "lane_f32": 4.0, "lane_i32": 5.0, "lane_i64": 5.0}
"""Least cycles between two multiply-adds on one accumulator."""
EMULATED_CYCLES = {"lane_i32": 1.5, "lane_i64": 3.0}
"""Cycles of a vector multiply-add that is no single instruction of the machine description."""

TILE_CYCLES = 20.0  # to begin and end a register tile
REDUCTION_CYCLES = 0.5  # loop overhead of one step of a reduction
LOADED_VECTOR_CYCLES = 1.0  # an operand of the step program, converted to 32 bits
STORED_VECTOR_CYCLES = 2.0  # narrowed and stored
ROW_CYCLES = 30.0  # to begin and end an innermost loop

STEP_CYCLES = {  # of one vector of 16 lanes
    "requantize": 3.5, "requantize_real": 3.0, "shift": 20.0, "add_quantized": 6.0, "mul_quantized": 7.0, "lut": 6.0, "dequantize": 2.0,
    "scale": 1.5, "quantize": 10.0, "round_to": 3.0, "float": 1.0, "clamp": 2.0, "keep": 2.0, "offset": 0.5, "limit": 1.0,
}  # fmt: skip
UNARY_CYCLES = {"neg": 0.5, "abs": 0.5, "sqrt": 16.0, "rsqrt": 24.0, "sign": 1.0, "leaky_relu": 1.5, "hardswish": 4.0, "hardsigmoid": 3.0}
OTHER_UNARY_CYCLES = 30.0  # exp, erf, tanh and what is made of them: polynomials


@dataclass(frozen=True)
class Cost:
    """Of one call: `cycles` of arithmetic on one thread, bytes read by level, time on the threads asked for."""

    cycles: float
    weight_bytes: int
    activation_bytes: int
    microseconds: float


def product_cycles(compute: str, lanes: int, machine: Machine) -> float:
    """Cycles of one vector multiply-add of a contraction's `compute` at full rate."""
    if compute in EMULATED_CYCLES:
        return EMULATED_CYCLES[compute]
    kind, elements = ("dot4", 4 * lanes) if compute == "dot4_u8s8" else ("fma", lanes)
    rate = machine.gmacs[f"{kind}_{512 if lanes == 16 else 256}"]
    return machine.ghz * elements / rate if rate else 2.0


def tile_cycles(compute: str, pixels: int, vectors: int, steps: int, rate: float, finish: float) -> float:
    """Cycles of one register tile of pixels x vectors: a reduction of `steps` steps, then `finish` cycles per result vector."""
    loads = (pixels + vectors) / 2
    reduction = steps * (max(pixels * vectors * rate, loads, LATENCY_CYCLES.get(compute, 5.0)) + REDUCTION_CYCLES)
    return reduction + finish * pixels * vectors + TILE_CYCLES


def parts(size: int, tile: int) -> list[tuple[int, int]]:
    """(tile size, how many) for the whole tiles and for the rest."""
    return [(t, n) for t, n in ((tile, size // tile), (size % tile, 1)) if t and n]


def steps_cycles(steps: Sequence[Step]) -> float:
    """Cycles of a step program on one vector."""
    cycles = 0.0
    for step in steps:
        cycles += UNARY_CYCLES.get(step.kind, OTHER_UNARY_CYCLES) if step.op == "unary" else STEP_CYCLES.get(step.op, 2.0)
        cycles += LOADED_VECTOR_CYCLES * sum(argument < 0 for argument in step.args)
    return cycles


def cost(codelet: Any, machine: Machine, *, threads: int = 1, weights_bytes: int = 0, arena_bytes: int = 0) -> Cost:
    """The predicted cost of a call. `weights_bytes` and `arena_bytes` are the whole model's: what does not fit in a cache with the rest of
    the model comes from further away in every run."""
    cycles, weights, activations = _work(codelet, machine)
    alone = _memory_cycles(machine, weights, activations, weights_bytes, arena_bytes, threads)
    count = tasks(codelet)
    share = math.ceil(count / threads) / count if count else 1.0  # of the busiest thread
    cycles_here = max(cycles * share, alone * share) + machine.step_ns[threads > 1] * machine.ghz
    return Cost(cycles, weights, activations, cycles_here / machine.ghz / 1000)


def _memory_cycles(machine: Machine, weights: int, activations: int, weights_bytes: int, arena_bytes: int, threads: int) -> float:
    """Cycles until all operands have come once from where the rest of the model left them."""
    from_weights = machine.level_of(max(weights_bytes, weights))
    from_arena = machine.level_of(max(min(arena_bytes, 2 * activations), activations))
    return weights / machine.read_bytes_per_cycle(from_weights, threads) + activations / machine.read_bytes_per_cycle(from_arena, threads)


def _work(codelet: Any, machine: Machine) -> tuple[float, int, int]:
    """Cycles of arithmetic, bytes of weights, bytes of activations read and written."""
    if isinstance(codelet, Contraction):
        return _contraction(codelet, machine)
    if isinstance(codelet, Depthwise):
        return _depthwise(codelet)
    if isinstance(codelet, Window):
        return _window(codelet)
    if isinstance(codelet, Rows):
        return _rows(codelet)
    if isinstance(codelet, Map):
        return _map(codelet)
    if isinstance(codelet, Pack):
        elements = math.prod(codelet.sizes)
        return elements / 16, 0, 2 * elements
    if isinstance(codelet, Embedding):
        elements = math.prod(codelet.sizes)
        return elements / 8, 0, elements * (ELEMENT_BYTES[codelet.table.element] + ELEMENT_BYTES[codelet.y.element])
    return 0.0, 0, 0


def _extra_bytes(operands: Sequence[Operand], elements: int) -> int:
    """Bytes of the step program's operands that are as large as the result."""
    return sum(elements * ELEMENT_BYTES[o.element] for o in operands if sum(s != 0 for s in o.strides) > 1)


def _contraction(c: Contraction, machine: Machine) -> tuple[float, int, int]:
    lanes = ISAS[c.isa].lanes
    n, g, height, width, channels = c.sizes
    dot4 = c.compute == "dot4_u8s8"
    depth, w_bytes = (4, 4) if dot4 else (1, ELEMENT_BYTES[c.w.element])
    steps = c.taps[0] * c.taps[1] * -(-c.run // depth)
    vectors = -(-channels // lanes)
    rate = product_cycles(c.compute, lanes, machine)
    finish = steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    cycles = 0.0
    for rows, down in parts(height, c.tile[0]):
        for columns, across in parts(width, c.tile[1]):
            for deep, count in parts(vectors, c.tile[2]):
                pixels = rows * columns
                block = steps * deep * lanes * w_bytes
                nearest = "l1" if block <= machine.cache_bytes["l1"] * 0.6 else machine.level_of(block)
                streamed = block / machine.read_bytes_per_cycle(nearest)
                one = tile_cycles(c.compute, pixels, deep, steps, rate, finish)
                cycles += down * across * count * max(one, streamed + finish * pixels * deep)
    elements = n * g * height * width * channels
    weights = (n if c.w.strides[0] else 1) * g * steps * vectors * lanes * w_bytes
    taps_rows = (height - 1) * c.x.strides[2] + (c.taps[0] - 1) * c.tap_strides[0] + 1
    x = n * max(abs(taps_rows), c.run * height * width if c.x.strides[3] == c.run else 1) * ELEMENT_BYTES[c.x.element]
    activations = x + elements * ELEMENT_BYTES[c.y.element] + _extra_bytes(c.operands, elements)
    return n * g * cycles, weights, activations


def _depthwise(c: Depthwise) -> tuple[float, int, int]:
    n, height, width, channels = c.sizes
    vectors = -(-channels // 16)
    taps = c.taps[0] * c.taps[1]
    multiply = {"lane_i64": 4.0, "lane_f32": 1.0}.get(c.compute, 1.5)  # the load widens, then one multiply-add
    one = taps * multiply + steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    cycles = n * height * vectors * (width * one + ROW_CYCLES * math.ceil(width / c.columns) / 4)
    elements = n * height * width * channels
    x = elements * ELEMENT_BYTES[c.x.element] * max(1, round(c.x.strides[2] / max(channels, 1))) ** 2
    return cycles, taps * vectors * 16 * ELEMENT_BYTES[c.w.element], x + elements * ELEMENT_BYTES[c.y.element]


def _window(c: Window) -> tuple[float, int, int]:
    n, height, width, channels = c.sizes
    vectors = math.ceil(channels / (64 if c.op == "max" and c.x.element == "u8" else 16))
    taps = math.prod(c.kernel)
    one = taps * (0.75 if c.op == "max" else 1.5) + steps_cycles(c.steps) + STORED_VECTOR_CYCLES
    elements = n * height * width * channels
    x = n * math.prod(c.image) * channels * ELEMENT_BYTES[c.x.element]
    return n * height * width * (vectors * one + 5.0), 0, x + elements * ELEMENT_BYTES[c.y.element]


def _rows(c: Rows) -> tuple[float, int, int]:
    rows, length = math.prod(c.sizes[:-1]), c.sizes[-1]
    vectors = math.ceil(length / 16)
    passes = {"softmax": 40.0, "normalize": 6.0}.get(c.op, 1.5)
    elements = rows * length
    one = vectors * (passes + steps_cycles(c.steps) + STORED_VECTOR_CYCLES) + ROW_CYCLES
    written = elements if c.op in ("softmax", "normalize") else rows
    return rows * one, 0, elements * ELEMENT_BYTES[c.x.element] + written * ELEMENT_BYTES[c.y.element]


def _map(c: Map) -> tuple[float, int, int]:
    elements, length = math.prod(c.sizes), c.sizes[-1]
    loaded = c.operands[0].strides[-1]
    scattered = 16.0 * sum(stride not in (0, 1) for stride in (loaded, c.y.strides[-1]))  # element by element
    copies = not c.steps and c.operands[0].element == c.y.element
    lanes = 64 // ELEMENT_BYTES[c.y.element] if copies else 16
    one = (1.0 if copies else LOADED_VECTOR_CYCLES + STORED_VECTOR_CYCLES) + steps_cycles(c.steps) + scattered * lanes / 16
    cycles = elements / length * (math.ceil(length / lanes) * one + (ROW_CYCLES / 4 if length < 256 else ROW_CYCLES))
    moved = elements * (ELEMENT_BYTES[c.operands[0].element] + ELEMENT_BYTES[c.y.element]) + _extra_bytes(c.operands[1:], elements)
    return cycles, 0, moved
