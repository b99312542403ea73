"""Arguments of steps: words of the params buffer and operands at the current place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import NOTHING, Operand
from qcc.passes.llvm.codelets.access import load
from qcc.passes.llvm.codelets.builder import Address, Builder, Value, kind_of


class Fetch:
    """`fetch(arg, element, lanes)` for `Steps.run`; `place(operand)` gives the address of an operand at the current element."""

    def __init__(self, b: Builder, operands: Sequence[Operand], buffers: Sequence[Value], params: int, instructions: Any) -> None:
        self.b, self.operands, self.buffers, self.params = b, operands, buffers, params
        self.instructions = instructions
        self.place: Callable[[int], Address] = lambda number: Address(buffers[0])
        self.cache: dict[Any, Value] = {}  # what does not change between vectors of one tile; emptied by the loop nest
        self.key: Any = None  # of the current channel vector

    def __call__(self, arg: int, element: Any, lanes: int) -> Value:
        if not isinstance(element, str):  # an index vector: look up in a table
            table = self.operands[-1 - arg]
            if table.element == "u8":
                return self.instructions.look_up_bytes(self.b, Address(self.buffers[table.buffer]), element)
            return self.b.gather(self.buffers[table.buffer], element, table.element)
        if arg == NOTHING:
            return self.b.constant(0, f"{lanes}x{element}")
        if arg >= 0:
            key: Any = (arg, element, lanes)
            if key not in self.cache:
                narrow = "i32" if element == "i64" else element  # a word has 32 bits
                word = self.b.splat(self.b.load(narrow, Address(self.buffers[self.params], 4 * arg), invariant=True), lanes)
                self.cache[key] = word if narrow == element else self.b.cast("sext", word, element)
            return self.cache[key]
        operand = self.operands[-1 - arg]
        varies = any(operand.strides[:-1])
        key = (arg, element, lanes, self.key)
        if not varies and key in self.cache:
            return self.cache[key]
        value = load(self.b, operand.element, self.place(-1 - arg), operand.strides[-1], lanes)
        if kind_of(value).rpartition("x")[2] != element:
            raise TypeError(f"a step reads operand {-1 - arg} as {element}, which is {operand.element}")
        if not varies:
            self.cache[key] = value
        return value
