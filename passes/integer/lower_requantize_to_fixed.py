"""Replace every binary32 rescaling of integers by an integer multiplier and a shift, for hardware without floats.

Before:

    %q = qcc.requantize %a {multiplier = [0.3], mode = "f32"}
    %s = qcc.add %q, %r {multipliers = [1.0, 0.5]}

After:

    %q = qcc.requantize %a {multiplier = [1288490240 : i32], shift = [32], mode = "fixed", rounding = "half_even"}
    %s = qcc.add %q, %r {multipliers = [1073741824, 536870912], shift = [30], mode = "fixed", rounding = "half_even"}

Each multiplier m becomes round(m * 2^shift) with the shift that puts the greatest one of the operation (for requantize that of each
channel) into [2^(bits-1), 2^bits), but not more than 62; the exact multiplier 1 becomes 1 with shift 0. Average pooling takes the
window's count into the multiplier. `bits` is the option, or fewer where the product would leave 63 bits.

Requires: integer form; accumulators with their types (an i32 after folding, or the proven width).
Guarantees: no `mode = "f32"` is left but where a window's count varies (average pooling that does not count its padding) or where the
multiplier has no such form; a result differs from the f32 mode by at most one step, and only near ties.
Why: Jacob et al., "Quantization and training of neural networks ...", CVPR 2018, section 2.2; compiler/decisions/0001.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, layer_name, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import element_of, per_tensor

_MOST_SHIFT = 62


@dataclass(frozen=True)
class Options:
    """`bits` of a multiplier, 2 to 31; `rounding` of ties, half_even or half_away; `enabled` false leaves the module as it is."""

    bits: int = 31
    rounding: str = "half_even"
    enabled: bool = True


class LowerRequantizeToFixedPass(Pass):
    """See the module's docstring."""

    name = "lower-requantize-to-fixed"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Rewrite the attributes of every rescaling operation."""
        if not 2 <= self.options.bits <= 31:
            raise QccError(f"multipliers of {self.options.bits} bits, expected 2 to 31")
        if self.options.rounding not in ("half_even", "half_away"):
            raise QccError(f"rounding is '{self.options.rounding}', expected half_even or half_away")
        if not self.options.enabled:
            return
        for op in walk(module):
            if op.name == "qcc.requantize":
                self.requantize(op, context)
            elif op.name in ("qcc.add", "qcc.sub", "qcc.mul", "qcc.avg_pool2d") and "multipliers" in op.attributes:
                self.elementwise(op, context)

    def requantize(self, op: Any, context: PassContext) -> None:
        if op_attribute(op, "mode") == "fixed":
            return
        bits = min(self.options.bits, _MOST_SHIFT - _centred_bits(op.operands[0]) - (len(op.operands) > 1))
        pairs = [fixed_point([float(m)], bits) for m in op_attribute(op, "multiplier").reshape(-1)]
        self.apply(op, "multiplier", [p[0][0] for p in pairs if p], [p[1] for p in pairs if p], len(pairs), context)

    def elementwise(self, op: Any, context: PassContext) -> None:
        if op_attribute(op, "mode", "f32") == "fixed":
            return
        multipliers = [float(m) for m in op_attribute(op, "multipliers").reshape(-1)]
        widths = [_centred_bits(operand) for operand in op.operands]
        width = max(widths) + 1 if op.name in ("qcc.add", "qcc.sub") else sum(widths)
        if op.name == "qcc.avg_pool2d":
            count = math.prod(op_attribute(op, "kernel"))
            if any(op_attribute(op, "padding")) and not op_attribute(op, "count_include_pad"):
                context.remarks.append(
                    f"{layer_name(op.location) or op.name}: stays in f32 mode, because its windows have different counts"
                )
                return
            multipliers, width = [m / count for m in multipliers], width + count.bit_length()
        found = fixed_point(multipliers, min(self.options.bits, _MOST_SHIFT - width))
        self.apply(op, "multipliers", found[0] if found else [], [found[1]] if found else [], len(multipliers), context)

    def apply(self, op: Any, name: str, integers: list[int], shifts: list[int], count: int, context: PassContext) -> None:
        if len(integers) != count:
            context.remarks.append(f"{layer_name(op.location) or op.name}: stays in f32 mode, because a multiplier has no fixed-point form")
            return
        op.attributes[name] = to_attribute(np.array(integers, np.int32))
        op.attributes["shift"] = to_attribute(np.array(shifts, np.int32))
        op.attributes["mode"] = to_attribute("fixed")
        op.attributes["rounding"] = to_attribute(self.options.rounding)


def fixed_point(multipliers: list[float], bits: int) -> tuple[list[int], int] | None:
    """Integers m and one shift with multiplier = m / 2^shift, the greatest m in [2^(bits-1), 2^bits); None where there are none."""
    greatest = max(multipliers)
    if multipliers == [1.0]:
        return [1], 0
    if bits < 2 or not (math.isfinite(greatest) and greatest > 0):
        return None
    shift = min(bits - math.frexp(greatest)[1], _MOST_SHIFT)
    if round(math.ldexp(greatest, shift)) >= 1 << bits:
        shift -= 1
    if shift < 0:
        return None
    return [round(math.ldexp(m, shift)) for m in multipliers], shift


def _centred_bits(value: Any) -> int:
    """Bits of the magnitude of an integer that `value` may hold once its zero point is subtracted."""
    kind = per_tensor(value)
    if kind is None:
        element = element_of(value)
        return element.width - 1 if isinstance(element, ir.IntegerType) else 32
    zero = int(kind.zero_points[0])
    return max(abs(kind.qmin - zero), abs(kind.qmax - zero)).bit_length()
