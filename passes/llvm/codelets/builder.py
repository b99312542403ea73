"""A small front of the llvm, scf and arith dialects for code that is generated, so that loop nests read like loop nests.

Index arithmetic takes Python ints and i64 values alike and folds what is known, and vectors are llvm vectors whose type is written
`"16xf32"`. Nothing is contracted or reassociated: every float operation is rounded on its own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.mlir import ir

Index = Any  # int or an i64 value
Value = Any


@dataclass(frozen=True)
class Address:
    """A pointer value plus a byte offset known at compile time."""

    base: Value
    bytes: int = 0

    def __add__(self, more: int) -> Address:
        return Address(self.base, self.bytes + more)


class Builder:
    """Appends operations at the current insertion point. `instructions` is the module of the instruction set, where there is one."""

    def __init__(self, instructions: Any = None) -> None:
        self.instructions = instructions
        self._types: dict[str, ir.Type] = {}
        self._constants: list[dict[tuple[str, Any], Value]] = [{}]
        self._no_overflow = ir.Attribute.parse("#llvm.overflow<none>")

    # --- types and plain operations -----------------------------------------------------------------------------------------------

    def type(self, text: str) -> ir.Type:
        """`i64`, `f32`, `ptr`, `16xi32`: an llvm type."""
        if text not in self._types:
            spelled = "!llvm.ptr" if text == "ptr" else f"vector<{text}>" if "x" in text else text
            self._types[text] = ir.Type.parse(spelled)
        return self._types[text]

    def op(self, name: str, operands: Sequence[Value], result: str | None = None, **attributes: Any) -> Value:
        kinds = [self.type(result)] if result else []
        made = ir.Operation.create(name, results=kinds, operands=list(operands), attributes=attributes)
        return made.results[0] if result else None

    def call(self, intrinsic: str, operands: Sequence[Value], result: str | None) -> Value:
        """An LLVM intrinsic by name; None for one without a result."""
        count = len(operands)
        return self.op(
            "llvm.call_intrinsic",
            operands,
            result,
            intrin=ir.StringAttr.get(intrinsic),
            operandSegmentSizes=ir.DenseI32ArrayAttr.get([count, 0]),
            op_bundle_sizes=ir.DenseI32ArrayAttr.get([]),
        )

    def assembly(self, text: str, constraints: str, operands: Sequence[Value], result: str) -> Value:
        """One instruction without side effects, in AT&T syntax; `constraints` as LLVM's inline assembly has them."""
        return self.op("llvm.inline_asm", operands, result, asm_string=ir.StringAttr.get(text), constraints=ir.StringAttr.get(constraints))

    def opaque(self, vector: Value) -> Value:
        """`vector` as it is, in a register of x86: no instruction, but what comes before and after is not made one."""
        return self.assembly("", "=v,0", [vector], kind_of(vector))

    # --- constants and index arithmetic ---------------------------------------------------------------------------------------------

    def index(self, value: Index) -> Value:
        """`value` as an i64 value."""
        return self.constant(value, "i64") if isinstance(value, int) else value

    def constant(self, value: float, kind: str) -> Value:
        """A scalar or splat constant."""
        element = kind.rpartition("x")[2]
        for known in self._constants:
            if (kind, value) in known and math.copysign(1, value) == 1:
                return known[kind, value]
        scalar = self.type(element)
        attribute = ir.FloatAttr.get(scalar, value) if element.startswith("f") else ir.IntegerAttr.get(scalar, int(value))
        if "x" in kind:
            splat = ir.VectorType.get([int(kind.split("x")[0])], scalar)
            attribute = ir.DenseElementsAttr.get_splat(splat, attribute)
        made = self.op("llvm.mlir.constant", [], kind, value=attribute)
        self._constants[-1][kind, value] = made
        return made

    def add(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one == 0:
                return other
        return self.op("llvm.add", [self.index(a), self.index(b)], "i64", overflowFlags=self._no_overflow)

    def sub(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return self.op("llvm.sub", [self.index(a), self.index(b)], "i64", overflowFlags=self._no_overflow)

    def mul(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one in (0, 1):
                return other if one else 0
        return self.op("llvm.mul", [self.index(a), self.index(b)], "i64", overflowFlags=self._no_overflow)

    def bit_and(self, a: Index, mask: int) -> Index:
        return a & mask if isinstance(a, int) else self.op("llvm.and", [a, self.index(mask)], "i64")

    def divmod(self, a: Index, b: int) -> tuple[Index, Index]:
        """Quotient and remainder of a non-negative index by a constant."""
        if isinstance(a, int):
            return divmod(a, b)
        if b == 1:
            return a, 0
        divisor = self.index(b)
        return self.op("llvm.udiv", [a, divisor], "i64"), self.op("llvm.urem", [a, divisor], "i64")

    def minimum(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.op("llvm.intr.smin", [self.index(a), self.index(b)], "i64")

    def maximum(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.op("llvm.intr.smax", [self.index(a), self.index(b)], "i64")

    def dot(self, indices: Sequence[Index], strides: Sequence[int]) -> Index:
        """Sum of index times stride."""
        total: Index = 0
        for i, stride in zip(indices, strides, strict=True):
            total = self.add(total, self.mul(i, stride))
        return total

    # --- control flow ---------------------------------------------------------------------------------------------------------------

    def loop(
        self, low: Index, high: Index, step: int, body: Callable[..., Sequence[Value] | None], carried: Sequence[Value] = ()
    ) -> list[Value]:
        """for i in range(low, high, step), `carried` values going round; body(i, *carried) returns the next ones.

        A loop that is known to run once becomes its body.
        """
        if isinstance(low, int) and isinstance(high, int) and high - low <= step:
            return list(body(low, *carried) or []) if high > low else list(carried)
        made = ir.Operation.create(
            "scf.for",
            operands=[self.index(low), self.index(high), self.index(step), *carried],
            results=[v.type for v in carried],
            regions=1,
        )
        block = made.regions[0].blocks.append(self.type("i64"), *[v.type for v in carried])
        with self._inside(block):
            ir.Operation.create("scf.yield", operands=list(body(*block.arguments) or []))
        return list(made.results)

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """if condition: body(); decided here where the condition is a Python bool."""
        if isinstance(condition, bool):
            if condition:
                body()
            return
        made = ir.Operation.create("scf.if", operands=[condition], regions=2)
        block = made.regions[0].blocks.append()
        with self._inside(block):
            body()
            ir.Operation.create("scf.yield")

    def equal(self, a: Index, b: Index) -> Value:
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return self.op("llvm.icmp", [self.index(a), self.index(b)], "i1", predicate=ir.IntegerAttr.get(self.type("i64"), 0))

    def less(self, a: Index, b: Index) -> Value:
        """a < b, signed."""
        if isinstance(a, int) and isinstance(b, int):
            return a < b
        return self.op("llvm.icmp", [self.index(a), self.index(b)], "i1", predicate=self.integer(_INTEGER_PREDICATES["slt"], "i64"))

    def integer(self, value: int, kind: str) -> ir.Attribute:
        """An integer attribute."""
        return ir.IntegerAttr.get(self.type(kind), value)

    def _inside(self, block: ir.Block) -> Any:
        builder = self

        class Inside:
            def __enter__(self) -> None:
                builder._constants.append({})
                self.point = ir.InsertionPoint(block)
                self.point.__enter__()

            def __exit__(self, *error: Any) -> None:
                self.point.__exit__(*error)
                builder._constants.pop()

        return Inside()

    # --- memory ---------------------------------------------------------------------------------------------------------------------

    def at(self, base: Value | Address, offset: Index) -> Address:
        """`base` moved by `offset` bytes."""
        address = base if isinstance(base, Address) else Address(base)
        if isinstance(offset, int):
            return address + offset
        return Address(self._gep(address.base, offset), address.bytes)

    def _gep(self, base: Value, offset: Value) -> Value:
        return self.op(
            "llvm.getelementptr",
            [base, offset],
            "ptr",
            elem_type=ir.TypeAttr.get(self.type("i8")),
            rawConstantIndices=ir.DenseI32ArrayAttr.get([-(1 << 31)]),
            noWrapFlags=ir.IntegerAttr.get(self.type("i32"), 0),
        )

    def pointer(self, address: Address) -> Value:
        return self._gep(address.base, self.index(address.bytes)) if address.bytes else address.base

    def load(self, kind: str, address: Address, *, invariant: bool = False, single: bool = False) -> Value:
        """A load of any alignment; `invariant`: no store of this function touches the place; `single`: LLVM does not make a part of a
        gather of it."""
        extra = {name: ir.UnitAttr.get() for name, given in (("invariant", invariant), ("volatile_", single)) if given}
        return self.op("llvm.load", [self.pointer(address)], kind, alignment=ir.IntegerAttr.get(self.type("i64"), 1), **extra)

    def store(self, value: Value, address: Address) -> None:
        self.op("llvm.store", [value, self.pointer(address)], alignment=ir.IntegerAttr.get(self.type("i64"), 1))

    def prefetch(self, address: Address, *, level: int = 2) -> None:
        """Bring the line at `address` to the cache of `level` 1 or 2; does nothing where there is no memory."""
        hints = {"rw": 0, "hint": 4 - level, "cache": 1}  # read, L1 is 3 and L2 is 2, data
        self.op("llvm.intr.prefetch", [self.pointer(address)], **{k: self.integer(v, "i32") for k, v in hints.items()})

    def gather(self, base: Value, index: Value, element: str) -> Value:
        """base[index] for every lane of an i32 or i64 index vector."""
        lanes = lanes_of(index)
        pointers = self.op(
            "llvm.getelementptr",
            [base, index],
            f"{lanes}x!llvm.ptr",
            elem_type=ir.TypeAttr.get(self.type(element)),
            rawConstantIndices=ir.DenseI32ArrayAttr.get([-(1 << 31)]),
            noWrapFlags=ir.IntegerAttr.get(self.type("i32"), 0),
        )
        return self.op(
            "llvm.intr.masked.gather",
            [pointers, self.constant(1, f"{lanes}xi1")],
            f"{lanes}x{element}",
            alignment=ir.IntegerAttr.get(self.type("i32"), 1),
        )

    # --- vectors --------------------------------------------------------------------------------------------------------------------

    def splat(self, scalar: Value, lanes: int) -> Value:
        """A vector with `scalar` in every lane."""
        kind = f"{lanes}x{scalar.type}"
        undefined = self.op("llvm.mlir.poison", [], kind)
        first = self.op("llvm.insertelement", [undefined, scalar, self.constant(0, "i64")], kind)
        return self.shuffle(first, undefined, [0] * lanes) if lanes > 1 else first

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of a then b, by number."""
        element = ir.VectorType(a.type).element_type
        return self.op("llvm.shufflevector", [a, b], f"{len(lanes)}x{element}", mask=ir.DenseI32ArrayAttr.get(list(lanes)))

    def joined(self, parts: Sequence[Value]) -> Value:
        """The lanes of all `parts` (a power of two of them, of equal type) in order."""
        while len(parts) > 1:
            lanes = list(range(2 * lanes_of(parts[0])))
            parts = [self.shuffle(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def extract(self, vector: Value, lane: int) -> Value:
        return self.op("llvm.extractelement", [vector, self.constant(lane, "i64")], str(ir.VectorType(vector.type).element_type))

    def insert(self, vector: Value, scalar: Value, lane: int) -> Value:
        return self.op("llvm.insertelement", [vector, scalar, self.constant(lane, "i64")], kind_of(vector))

    def cast(self, name: str, value: Value, element: str) -> Value:
        """`llvm.<name>` (zext, sext, trunc, sitofp, ...) of every lane to `element`."""
        lanes = lanes_of(value)
        return self.op(f"llvm.{name}", [value], f"{lanes}x{element}" if lanes else element)

    def binary(self, name: str, a: Value, b: Value) -> Value:
        """`llvm.<name>` of two values of one type."""
        extra = {"overflowFlags": self._no_overflow} if name in ("add", "sub", "mul", "shl") else {}
        return self.op(f"llvm.{name}", [a, b], kind_of(a), **extra)

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """Lane-wise comparison: ogt, olt, oeq, ... of floats, sgt, slt, eq, ... of integers."""
        lanes = lanes_of(a)
        result = f"{lanes}xi1" if lanes else "i1"
        if predicate in _FLOAT_PREDICATES:
            return self.op("llvm.fcmp", [a, b], result, predicate=ir.IntegerAttr.get(self.type("i64"), _FLOAT_PREDICATES[predicate]))
        return self.op("llvm.icmp", [a, b], result, predicate=ir.IntegerAttr.get(self.type("i64"), _INTEGER_PREDICATES[predicate]))

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.op("llvm.select", [condition, a, b], kind_of(a))

    def like(self, value: float, vector: Value) -> Value:
        """A constant of `vector`'s type."""
        return self.constant(value, kind_of(vector))

    def bits(self, word: int, vector: Value) -> Value:
        """The float with binary32 pattern `word`, in every lane of `vector`'s type."""
        return self.like(struct.unpack("<f", struct.pack("<I", word))[0], vector)


_FLOAT_PREDICATES = {"oeq": 1, "ogt": 2, "oge": 3, "olt": 4, "ole": 5, "one": 6, "ord": 7, "uno": 14, "une": 13}
_INTEGER_PREDICATES = {"eq": 0, "ne": 1, "slt": 2, "sle": 3, "sgt": 4, "sge": 5, "ult": 6, "ule": 7, "ugt": 8, "uge": 9}


def lanes_of(value: Value) -> int:
    """Lanes of a vector value; 0 of a scalar."""
    return ir.VectorType(value.type).shape[0] if isinstance(value.type, ir.VectorType) else 0


def kind_of(value: Value) -> str:
    """The type of a value as `Builder.type` spells it."""
    lanes = lanes_of(value)
    return f"{lanes}x{ir.VectorType(value.type).element_type}" if lanes else "ptr" if str(value.type) == "!llvm.ptr" else str(value.type)
