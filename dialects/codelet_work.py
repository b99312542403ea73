"""What a codelet has to do, in cycles and bytes, as the models of `codelet_cost.py` and `compressed_cost.py` count it: products, step
programs, vectors read and written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.dialects.codelet import Step
from qcc.dialects.machine import Machine

EMULATED_CYCLES = {"lane_i32": 1.5, "lane_i64": 3.0, "pairs_u8s8": 1.0, "dot2_s16": 0.67, "dot2_s16_i64": 1.0}
EMULATED_CYCLES_256 = EMULATED_CYCLES | {"pairs_u8s8": 0.65, "dot2_s16": 0.35}  # in vectors of 256 bits, which have more ports
"""Cycles of a vector multiply-add that is no single instruction of the machine description."""

LOADED_VECTOR_CYCLES = 1.0  # an operand of the step program, converted to 32 bits
STORED_VECTOR_CYCLES = 2.0  # narrowed and stored
EXPOSED_WEIGHTS = 0.9  # share of reading weights from memory, once in a run, that arithmetic does not hide, although they are prefetched

STEP_CYCLES = {  # of one vector of 16 lanes
    "requantize": 3.0, "requantize_real": 3.0, "shift": 20.0, "add_quantized": 6.0, "mul_quantized": 7.0, "lut": 3.5, "dequantize": 2.0,
    "scale": 1.5, "quantize": 6.0, "round_to": 3.0, "float": 1.0, "clamp": 2.0, "keep": 2.0, "offset": 0.5, "limit": 1.0,
    "integer": 1.0, "compare": 1.5, "select": 1.5,
}  # fmt: skip
UNARY_CYCLES = {
    "neg": 0.5,
    "abs": 0.5,
    "sqrt": 16.0,
    "rsqrt": 24.0,
    "sign": 1.0,
    "binarize": 1.0,
    "leaky_relu": 1.5,
    "hardswish": 4.0,
    "hardsigmoid": 3.0,
    "gelu": 20.0,
}
MULTIPLIER_CYCLES = {
    "requantize": 1.0, "requantize_real": 3.0, "add_quantized": 2.0, "dequantize": 1.0, "scale": 1.0, "clamp": 2.0, "round_to": 0.0,
    "float": 1.0, "offset": 0.0,
}  # fmt: skip
"""Of a step the multiplications, minimum and maximum: what remains where products take a whole cycle of their pipes, because conversions,
additions and packing use others beside the products of the next tile. Steps that are not here remain whole."""
CLAMPED = ("requantize", "add_quantized", "round_to")  # steps that have a minimum and a maximum more where `bounds` does not save them
PACKED_VECTOR_CYCLES = 0.4  # of STORED_VECTOR_CYCLES what remains there: packing shares one pipe
OTHER_UNARY_CYCLES = 30.0  # exp, erf, tanh and what is made of them: polynomials


@dataclass(frozen=True)
class Work:
    """What a codelet has to do: cycles of arithmetic, bytes of weights, bytes of activations read and written; `exposed` is the share of
    bringing the weights nearer that arithmetic does not hide, None where it hides all that it has time for."""

    cycles: float
    weights: int
    activations: int
    exposed: float | None = EXPOSED_WEIGHTS


def product_cycles(compute: str, lanes: int, machine: Machine) -> float:
    """Cycles of one vector multiply-add of a contraction's `compute` at full rate."""
    if compute in EMULATED_CYCLES:
        return (EMULATED_CYCLES if lanes == 16 else EMULATED_CYCLES_256)[compute]
    kind, elements = ("dot4", 4 * lanes) if compute == "dot4_u8s8" else ("fma", lanes)
    rate = machine.gmacs[f"{kind}_{512 if lanes == 16 else 256}"]
    return machine.ghz * elements / rate if rate else 2.0


def steps_cycles(steps: Sequence[Step]) -> float:
    """Cycles of a step program on one vector."""
    cycles = 0.0
    for step in steps:
        cycles += UNARY_CYCLES.get(step.kind, OTHER_UNARY_CYCLES) if step.op == "unary" else STEP_CYCLES.get(step.op, 2.0)
        cycles += LOADED_VECTOR_CYCLES * sum(argument < 0 for argument in step.args)
    return cycles


def multiplier_cycles(steps: Sequence[Step]) -> float:
    """What remains of `steps_cycles` behind products that take a whole cycle."""
    return sum(
        MULTIPLIER_CYCLES[step.op] + 2.0 * (step.op in CLAMPED and not step.bounds)
        if step.op in MULTIPLIER_CYCLES
        else steps_cycles([step])
        for step in steps
    )
