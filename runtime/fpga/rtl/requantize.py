"""Lanes of the post unit: one value each per cycle, some cycles later.

Products of 32 x 32 bits are made of four of 17 x 17, which a multiplier block of 18 x 18 bits takes, and added in two steps; shifts go by
powers of four. So there is a register behind each multiplier, each carry chain and each two levels of a shifter.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcc.runtime.fpga.isa import RESIDUAL_BITS
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import PARAMETER

HALF = 16  # bits of a factor's lower part

_SHIFTS = ((4, 16), (2, 4), (0, 1))  # of a shift amount: the place of two bits, and what they count

SCALE = data.StructLayout({"shift": 6, "half_away": 1, "zero_point": signed(RESIDUAL_BITS), "low": signed(32), "high": signed(32)})
"""How a scaled sum becomes a stored value."""
ADDEND = data.StructLayout(
    {"multiplier_a": signed(32), "multiplier_b": signed(32), "zero_a": signed(RESIDUAL_BITS), "zero_b": signed(RESIDUAL_BITS)}
)
"""What scales the two values of a residual addition."""


def _multiply(m: Module, left: Any, right: Any) -> Any:
    """left * right of up to 33 x 32 bits, 3 cycles later."""

    def parts(value: Any) -> tuple[Any, Any]:
        return value[:HALF], value[HALF:].as_signed()

    if len(left) <= HALF + 2:
        low, high = (later(m, left * part) for part in parts(right))
        return later(m, later(m, low + (high << HALF)))
    (a, b), (c, d) = parts(left), parts(right)
    low, cross_0, cross_1, high = (later(m, x * y) for x, y in ((a, c), (a, d), (b, c), (b, d)))
    outer, cross = later(m, Cat(low, high).as_signed()), later(m, cross_0 + cross_1)
    return later(m, outer + (cross << HALF))


MULTIPLY_LATENCY = 3


class Scale(wiring.Component):
    """clamp(round(value / 2^shift) + zero_point, low, high), `SCALE_LATENCY` cycles later; `shift` belongs to the value, the rest stays."""

    def __init__(self, bits: int) -> None:
        super().__init__({"value": In(signed(bits)), "shift": In(6), "by": In(SCALE), "result": Out(signed(32))})

    def elaborate(self, platform: Any) -> Module:
        m, by = Module(), self.by
        # One more bit below: behind the shift it is the half. Whatever was shifted out below that is in `rest`.
        value, shift, rest = Cat(0, self.value).as_signed(), self.shift, None
        for place, unit in _SHIFTS:
            amount = shift.bit_select(place, 2)
            moved, lost = Signal(value.shape(), reset_less=True), Signal(reset_less=True)
            with m.Switch(amount):
                for i in range(4):
                    with m.Case(i):
                        out = value[: i * unit].any() if i else 0
                        m.d.sync += [moved.eq(value >> (i * unit)), lost.eq(out if rest is None else out | rest)]
            value, shift, rest = moved, later(m, shift), lost
        # Beyond 34 bits only the sign matters: the zero point cannot bring the value back into 32.
        floor = value[1:].as_signed()
        some, all_ones, up = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        ties_up = Mux(by.half_away, ~floor[-1], floor[0])
        m.d.sync += [some.eq(floor[33:].any()), all_ones.eq(floor[33:].all()), up.eq(value[0] & (rest | ties_up))]
        floor, narrow = later(m, floor), Signal(signed(34), reset_less=True)
        m.d.sync += narrow.eq(Mux(some & ~all_ones, Mux(floor[-1], -(1 << 33), (1 << 33) - 1), floor))
        moved = later(m, (Cat(1, narrow).as_signed() + Cat(later(m, up), by.zero_point).as_signed())[1:].as_signed())  # one carry chain
        under, over, kept = later(m, moved - by.low)[-1], later(m, by.high - moved)[-1], later(m, moved)
        m.d.sync += self.result.eq(Mux(under, by.low, Mux(over, by.high, kept)))
        return m


SCALE_LATENCY = len(_SHIFTS) + 5


class Requantize(wiring.Component):
    """The stored value of an accumulator."""

    def __init__(self) -> None:
        super().__init__({"accumulator": In(signed(32)), "parameter": In(PARAMETER), "by": In(SCALE), "result": Out(signed(32))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        total = later(m, (self.accumulator + self.parameter.bias)[:32].as_signed())
        m.submodules.scale = scale = Scale(64)
        m.d.comb += [
            scale.value.eq(_multiply(m, total, later(m, self.parameter.multiplier))),
            scale.shift.eq(later(m, self.parameter.shift, 1 + MULTIPLY_LATENCY)),
            scale.by.eq(self.by),
            self.result.eq(scale.result),
        ]
        return m


REQUANTIZE_LATENCY = 1 + MULTIPLY_LATENCY + SCALE_LATENCY


class AddResidual(wiring.Component):
    """The stored value of the sum of two scaled ones. `zeros` is zero_a * multiplier_a + zero_b * multiplier_b."""

    def __init__(self) -> None:
        value = signed(RESIDUAL_BITS)
        super().__init__(
            {
                "value": In(value),
                "residual": In(value),
                "addend": In(ADDEND),
                "zeros": In(signed(RESIDUAL_BITS + 33)),
                "by": In(SCALE),
                "result": Out(signed(32)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        value, residual = later(m, self.value), later(m, self.residual)  # which comes from a LUT RAM
        scaled = [_multiply(m, value, self.addend.multiplier_a), _multiply(m, residual, self.addend.multiplier_b)]
        total = later(m, later(m, scaled[0] + scaled[1]) - self.zeros)
        m.submodules.scale = scale = Scale(len(total))
        m.d.comb += [scale.value.eq(total), scale.shift.eq(self.by.shift), scale.by.eq(self.by), self.result.eq(scale.result)]
        return m


RESIDUAL_LATENCY = 1 + MULTIPLY_LATENCY + 2 + SCALE_LATENCY


class Zeros(wiring.Component):
    """What two zero points add to a residual sum, `ZEROS_LATENCY` cycles after they are set."""

    def __init__(self) -> None:
        super().__init__({"addend": In(ADDEND), "zeros": Out(signed(RESIDUAL_BITS + 33))})

    def elaborate(self, platform: Any) -> Module:
        m, by = Module(), self.addend
        m.d.sync += self.zeros.eq(_multiply(m, by.zero_a, by.multiplier_a) + _multiply(m, by.zero_b, by.multiplier_b))
        return m


ZEROS_LATENCY = MULTIPLY_LATENCY + 1
