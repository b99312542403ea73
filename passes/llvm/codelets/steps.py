"""The step program: what happens to a vector of values between the load (or the accumulator) and the store.

The current value is a vector of i32, i64 (wide accumulators) or f32 lanes. Each function below is one `op` of `dialects.codelet.Step`
and does exactly what `runtime/reference/qcc.py` states for the operation it comes from. Zero points are those of the stored bytes
(see decision 0002), clamps are given relative to the zero point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import CURRENT, Step
from qcc.passes.llvm.codelets import functions
from qcc.passes.llvm.codelets.builder import Builder, Value, kind_of, lanes_of

Argument = Callable[[str], Value]  # fetches an argument as "i32" or "f32" lanes
Fetching = Callable[[int, str, int], Value]

# Operations that end in rounding to a stored integer: the number of the first of three arguments low, high (relative), zero point.
ROUNDED = {"requantize": 1, "add_quantized": 5, "mul_quantized": 4, "quantize": 1, "round_to": 0}


FLOAT_RELATIONS = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
INTEGER_RELATIONS = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}

TOGETHER = 4


class Steps:
    """Runs step programs. `fetch(arg, element, lanes)` gives an argument of a step as a vector."""

    def __init__(self, b: Builder, instructions: Any) -> None:
        self.b = b
        self.instructions = instructions

    def run(self, steps: Sequence[Step], value: Value, fetch: Fetching) -> Value:
        for step in steps:
            argument = _arguments(step, fetch, lanes_of(value))
            value = getattr(self, f"_{step.op}")(step, value, argument)
            if step.op in ROUNDED:
                value = self._round(value, argument, ROUNDED[step.op])
        return value

    @staticmethod
    def together(steps: Sequence[Step]) -> int:
        """How many vectors should go through the program side by side: a float function is one long chain, a scheduler's window short."""
        return TOGETHER if any(step.op == "unary" for step in steps) else 1

    def run_together(self, steps: Sequence[Step], values: Sequence[Value], fetches: Sequence[Fetching]) -> list[Value]:
        """As `run` on every value, step by step; a float function acts on four vectors of one length at once."""
        b, made = self.b, list(values)
        for step in steps:
            lanes = lanes_of(made[0])
            if step.op != "unary" or step.args or len(made) != TOGETHER or any(lanes_of(v) != lanes for v in made):
                made = [self.run([step], v, fetch) for v, fetch in zip(made, fetches, strict=True)]
                continue
            wide = functions.unary(b, step.kind, b.joined(made), None)
            made = [b.shuffle(wide, wide, list(range(i * lanes, (i + 1) * lanes))) for i in range(TOGETHER)]
        return made

    def packs(self, steps: Sequence[Step], element: str) -> bool:
        """Whether `run_packed` can run the program: it ends in rounding, with the same bounds everywhere, to bytes."""
        if not steps or element != "u8" or steps[-1].op not in ROUNDED or not hasattr(self.instructions, "pack_bytes"):
            return False
        first = ROUNDED[steps[-1].op]
        return all(arg >= 0 for arg in steps[-1].args[first : first + 3])

    def run_packed(self, steps: Sequence[Step], values: Sequence[Value], fetches: Sequence[Fetching]) -> Value:
        """As `run` on four whole vectors, as bytes: four of values[0], of values[1], [2], [3], then the next four of values[0] ...

        Rounding to bytes saturates, so that the bounds cost one operation for all four.
        """
        b, last = self.b, steps[-1]
        first, rounded = ROUNDED[last.op], []
        for value, fetch in zip(self.run_together(steps[:-1], values, fetches), fetches, strict=True):
            real = getattr(self, f"_{last.op}")(last, value, _arguments(last, fetch, lanes_of(value)))
            if not last.bounds:
                real = self._bounded(real, _arguments(last, fetch, lanes_of(value)), first)
            rounded.append(self.instructions.to_integer(b, real))
        argument = _arguments(last, fetches[0], lanes_of(values[0]))
        zero = b.extract(argument(first + 2, "i32"), 0)
        if last.bounds == "byte":
            return self.instructions.pack_bytes(b, rounded, zero)
        low, high = (b.binary("add", b.cast("fptosi", b.extract(argument(first + i, "f32"), 0), "i32"), zero) for i in (0, 1))
        return self.instructions.pack_bytes(b, rounded, zero, (low, high))

    # --- integers -------------------------------------------------------------------------------------------------------------------

    def _offset(self, step: Step, v: Value, arg: Any) -> Value:
        """v + args[0]"""
        amount = arg(0, "i32")
        return self.b.binary("add", v, self.b.cast("sext", amount, "i64") if kind_of(v).endswith("i64") else amount)

    def _limit(self, step: Step, v: Value, arg: Any) -> Value:
        """min(max(v, args[0]), args[1]) of i32."""
        b = self.b
        return b.binary("intr.smin", b.binary("intr.smax", v, arg(0, "i32")), arg(1, "i32"))

    def _requantize(self, step: Step, v: Value, arg: Any) -> Value:
        """args: multiplier, then the bounds."""
        return self.b.binary("fmul", self._to_float(v), arg(0, "f32"))

    def _requantize_real(self, step: Step, v: Value, arg: Any) -> Value:
        """As requantize, but f32 and without the zero point; args: multiplier, low, high."""
        scaled = self.b.binary("fmul", self._to_float(v), arg(0, "f32"))
        bounded = self._bounded(scaled, arg, 1)
        lanes = lanes_of(bounded)
        return self.b.call(f"llvm.rint.v{lanes}f32", [bounded], f"{lanes}xf32")

    def _shift(self, step: Step, v: Value, arg: Any) -> Value:
        """Mode fixed; args: multiplier, shift, low, high (absolute), zero point (i32); kind: the rounding."""
        b = self.b
        wide = v if kind_of(v).endswith("i64") else b.cast("sext", v, "i64")
        product = b.binary("mul", wide, b.cast("sext", arg(0, "i32"), "i64"))
        shift = b.cast("sext", arg(1, "i32"), "i64")
        one, zero = b.like(1, product), b.like(0, product)
        some = b.compare("sgt", shift, zero)
        half = b.select(some, b.binary("shl", one, b.binary("sub", b.select(some, shift, one), one)), zero)
        if step.kind == "half_away":
            negative = b.compare("slt", product, zero)
            magnitude = b.select(negative, b.binary("sub", zero, product), product)
            rounded = b.binary("ashr", b.binary("add", magnitude, half), shift)
            rounded = b.select(negative, b.binary("sub", zero, rounded), rounded)
        else:
            floor = b.binary("ashr", product, shift)
            rest = b.binary("sub", product, b.binary("shl", floor, shift))
            odd = b.compare("ne", b.binary("and", floor, one), zero)
            tie = b.binary("and", b.compare("eq", rest, half), odd)
            up = b.binary("and", b.binary("or", b.compare("sgt", rest, half), tie), some)
            rounded = b.binary("add", floor, b.cast("zext", up, "i64"))
        moved = b.binary("add", rounded, b.cast("sext", arg(4, "i32"), "i64"))
        low, high = (b.cast("sext", arg(i, "i32"), "i64") for i in (2, 3))
        moved = b.select(b.compare("slt", moved, low), low, moved)
        return b.cast("trunc", b.select(b.compare("sgt", moved, high), high, moved), "i32")

    def _add_quantized(self, step: Step, v: Value, arg: Any) -> Value:
        """args: other, za, m0, zb, m1, then the bounds; kind: add or sub. `swapped`: the value is b.

        add_real, sub_real: the value is f32 and its zero point is subtracted already.
        """
        b = self.b
        kind, _, real = step.kind.partition("_")

        def scaled(stored: Value, zero: int, multiplier: int) -> Value:
            centred = stored if real and stored is v else self._to_float(b.binary("sub", stored, arg(zero, "i32")))
            return b.binary("fmul", centred, arg(multiplier, "f32"))

        other = arg(0, "i32")
        first, second = (other, v) if step.swapped else (v, other)
        return b.binary("f" + kind, scaled(first, 1, 2), scaled(second, 3, 4))

    def _mul_quantized(self, step: Step, v: Value, arg: Any) -> Value:
        """args: other, za, zb, m0, then the bounds.

        Products of 16 bits need 34, and rounded to f32 they are the product of two floats, which hold 24 bits each.
        """
        b = self.b
        centred = [self._to_float(b.binary("sub", stored, arg(zero, "i32"))) for stored, zero in ((v, 1), (arg(0, "i32"), 2))]
        return b.binary("fmul", b.binary("fmul", *centred), arg(3, "f32"))

    def _lut(self, step: Step, v: Value, arg: Any) -> Value:
        """Table look-up; args: the table (an i32 operand, or one of 256 u8), the value of entry 0."""
        return arg(0, self.b.binary("sub", v, arg(1, "i32")))

    def _integer(self, step: Step, v: Value, arg: Any) -> Value:
        """kind: add, sub, mul, maximum, minimum of i32 or i64 with args[0]; booleans are 0 and 1."""
        a, b = self._ordered(step, v, arg)
        return self.b.binary({"maximum": "intr.smax", "minimum": "intr.smin"}.get(step.kind, step.kind), a, b)

    # --- between integers and floats ------------------------------------------------------------------------------------------------

    def _dequantize(self, step: Step, v: Value, arg: Any) -> Value:
        """f32(v - zero point) * scale; args: zero point, scale."""
        return self.b.binary("fmul", self._to_float(self.b.binary("sub", v, arg(0, "i32"))), arg(1, "f32"))

    def _scale(self, step: Step, v: Value, arg: Any) -> Value:
        """f32(acc) * multiplier."""
        return self.b.binary("fmul", self._to_float(v), arg(0, "f32"))

    def _centre(self, step: Step, v: Value, arg: Any) -> Value:
        """v - args[0] * args[1] of i32: the zero point of x, known while running, times the sums of the weights."""
        b = self.b
        return b.binary("sub", v, b.binary("mul", arg(0, "i32"), arg(1, "i32")))

    def _scale_product(self, step: Step, v: Value, arg: Any) -> Value:
        """f32(acc) * (args[0] * args[1])."""
        b = self.b
        return b.binary("fmul", self._to_float(v), b.binary("fmul", arg(0, "f32"), arg(1, "f32")))

    def _quantize(self, step: Step, v: Value, arg: Any) -> Value:
        """args: scale, then the bounds. NaN gives low.

        kind "reciprocal": three more, 1 / scale and the least and greatest value to divide; the quotient is corrected by its remainder
        (P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990) and rounds as a division would.
        """
        b, scale = self.b, arg(0, "f32")
        if step.kind != "reciprocal":
            return b.binary("fdiv", v, scale)
        reciprocal, v, kind = arg(4, "f32"), self._bounded(v, arg, 5), kind_of(v)
        near = b.binary("fmul", v, reciprocal)
        rest = b.op("llvm.intr.fma", [b.op("llvm.fneg", [near], kind), scale, v], kind)
        return b.op("llvm.intr.fma", [rest, reciprocal, near], kind)

    def _round_to(self, step: Step, v: Value, arg: Any) -> Value:
        """args: the bounds. NaN gives low."""
        return v

    # --- floats ---------------------------------------------------------------------------------------------------------------------

    def _float(self, step: Step, v: Value, arg: Any) -> Value:
        """kind: add, sub, mul, div, maximum, minimum with args[0]."""
        a, b = self._ordered(step, v, arg)
        if step.kind not in ("maximum", "minimum"):
            return self.b.binary(f"f{step.kind}", a, b)
        chosen = self.b.select(self.b.compare("ogt" if step.kind == "maximum" else "olt", a, b), a, b)  # b where either is NaN
        return self.b.select(self.b.compare("uno", a, a), a, chosen)

    def _clamp(self, step: Step, v: Value, arg: Any) -> Value:
        """min(max(v, low), high); NaN stays."""
        b, low, high = self.b, arg(0, "f32"), arg(1, "f32")
        raised = b.select(b.compare("ogt", low, v), low, v)
        return b.select(b.compare("olt", high, raised), high, raised)

    def _keep(self, step: Step, v: Value, arg: Any) -> Value:
        """v where args[0] (a boolean operand) is true, else -infinity."""
        kept = arg(0, "i32")
        return self.b.select(self.b.compare("ne", kept, self.b.like(0, kept)), v, self.b.like(-math.inf, v))

    def _unary(self, step: Step, v: Value, arg: Any) -> Value:
        """kind: of UNARY_KINDS; args: alpha where the function has one."""
        return functions.unary(self.b, step.kind, v, arg(0, "f32") if step.args else None)

    # --- choices --------------------------------------------------------------------------------------------------------------------

    def _compare(self, step: Step, v: Value, arg: Any) -> Value:
        """1 where v and args[0] (of any one type) stand in the relation `kind`, else 0; i32."""
        a, b = self._ordered(step, v, arg)
        relation = FLOAT_RELATIONS[step.kind] if kind_of(v).endswith("f32") else INTEGER_RELATIONS[step.kind]
        return self.b.cast("zext", self.b.compare(relation, a, b), "i32")

    def _select(self, step: Step, v: Value, arg: Any) -> Value:
        """args[1] where args[0] (i32) is not 0, else args[2]; any of them may be the value; kind: the type of the last two."""
        kinds = ("i32", step.kind, step.kind)
        condition, a, b = (v if n == CURRENT else arg(i, kind) for i, (n, kind) in enumerate(zip(step.args, kinds, strict=True)))
        return self.b.select(self.b.compare("ne", condition, self.b.like(0, condition)), a, b)

    # --- shared ---------------------------------------------------------------------------------------------------------------------

    def _ordered(self, step: Step, v: Value, arg: Any) -> tuple[Value, Value]:
        """The value and args[0], of its type, in the order the operation has them."""
        other = arg(0, kind_of(v).rpartition("x")[2])
        return (other, v) if step.swapped else (v, other)

    def _to_float(self, v: Value) -> Value:
        return v if kind_of(v).endswith("f32") else self.b.cast("sitofp", v, "f32")

    def _round(self, v: Value, arg: Any, first: int) -> Value:
        """clamp(rint(v), low, high) + zero point with args[first:]; clamping first gives the same and cannot overflow. NaN gives low."""
        bounded = self._bounded(v, arg, first)
        return self.b.binary("add", self.instructions.to_integer(self.b, bounded), arg(first + 2, "i32"))

    def _bounded(self, v: Value, arg: Any, first: int) -> Value:
        """min(max(v, args[first]), args[first + 1]); NaN gives the lower bound."""
        b, low, high = self.b, arg(first, "f32"), arg(first + 1, "f32")
        raised = b.select(b.compare("ogt", v, low), v, low)
        return b.select(b.compare("olt", raised, high), raised, high)


def _arguments(step: Step, fetch: Fetching, lanes: int) -> Callable[[int, str], Value]:
    """The step's arguments by number."""
    return lambda i, element: fetch(step.args[i], element, lanes)
