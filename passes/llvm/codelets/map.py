"""The loop nest of everything element by element: quantize, dequantize, add, look-up, copies, transposes, float functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Map
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets import halo
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import TOGETHER, Steps

BYTES = 64  # of a vector, where bytes stay bytes
LANES = 16  # also where registers have 8: LLVM splits, and the tail is found at compile time


def emit(b: Builder, codelet: Map, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    halo.fill_once(b, c, buffers, task)
    copies = not c.steps and STORAGE[c.operands[0].element] == STORAGE[c.y.element]
    bytewise = looks_up_bytes(c)
    lanes = BYTES if bytewise else BYTES // ELEMENT_BYTES[c.y.element] if copies else TOGETHER * LANES if _has_function(c) else LANES
    fetch = Fetch(b, c.operands, buffers, c.params, instructions)
    steps = Steps(b, instructions)
    low = b.mul(task, c.chunk)
    high = b.minimum(b.add(low, c.chunk), c.sizes[c.split])
    last = len(c.sizes) - 1

    def vector(place: tuple[Index, ...], count: int) -> None:
        fetch.cache = {}
        fetch.place = lambda number: b.at(buffers[c.operands[number].buffer], bytes_of(c.operands[number], place, b))
        address = b.at(buffers[c.y.buffer], bytes_of(c.y, place, b))
        if copies:
            raw = {"u8": "s8"}.get(c.y.element, c.y.element)
            value = _raw(b, raw, fetch.place(0), c.operands[0].strides[-1], count)
            _store_raw(b, raw, address, c.y.strides[-1], value)
            return
        first = c.operands[0]
        if bytewise:
            b.store(_look_up(b, c, buffers, instructions, fetch.place(0), count), address)
            return
        value = load(b, first.element, fetch.place(0), first.strides[-1], count)
        store(b, c.y.element, address, c.y.strides[-1], steps.run(c.steps, value, fetch))

    def innermost(place: tuple[Index, ...]) -> None:
        size = c.sizes[last]
        whole = size // lanes * lanes
        start, end = (low, b.minimum(high, whole)) if c.split == last else (0, whole)
        b.loop(start, end, lanes, lambda i: vector((*place, i), lanes))

        def tail() -> None:
            for first, count in pieces(size - whole, lanes):
                vector((*place, whole + first), count)

        if whole < size:
            b.when(b.equal(high, size) if c.split == last else True, tail)

    def nest(dimension: int, place: tuple[Index, ...]) -> None:
        if dimension == last:
            innermost(place)
            return
        start, end = (low, high) if dimension == c.split else (0, c.sizes[dimension])
        b.loop(start, end, 1, lambda i: nest(dimension + 1, (*place, i)))

    nest(0, ())


def _has_function(c: Map) -> bool:
    return any(step.op == "unary" for step in c.steps) and all(o.element == "f32" and o.strides[-1] in (0, 1) for o in (*c.operands, c.y))


def looks_up_bytes(c: Map) -> bool:
    """Whether the codelet is one table of bytes between contiguous bytes, on an instruction set that looks up 64 at once."""
    if not ISAS[c.isa].byte_lanes or [step.op for step in c.steps] != ["lut"]:
        return False
    table = c.operands[-1 - c.steps[0].args[0]]
    ends = (c.operands[0], c.y)
    return table.element == "u8" and all(o.element == "u8" and o.strides[-1] == 1 for o in ends)


def _look_up(b: Builder, c: Map, buffers: Sequence[Value], instructions: Any, source: Any, count: int) -> Value:
    """`count` bytes from `source`, looked up."""
    table = Address(buffers[c.operands[-1 - c.steps[0].args[0]].buffer])
    parts = [b.load(f"{BYTES}xi8", table + BYTES * i, invariant=True) for i in range(4)]
    word = b.load("i32", Address(buffers[c.params], 4 * c.steps[0].args[1]), invariant=True)
    least = b.splat(b.op("llvm.trunc", [word], "i8"), BYTES)
    found = b.load(f"{count}xi8", source)
    if count < BYTES:
        found = b.shuffle(found, found, [min(i, count - 1) for i in range(BYTES)])
    found = instructions.look_up_lanes(b, parts, b.binary("sub", found, least))
    return found if count == BYTES else b.shuffle(found, found, list(range(count)))


def _raw(b: Builder, element: str, address: Any, stride: int, lanes: int) -> Value:
    """`lanes` elements as they are stored."""
    storage, size = STORAGE[element], ELEMENT_BYTES[element]
    if stride == 0:
        return b.splat(b.load(storage, address), lanes)
    if stride == 1:
        return b.load(f"{lanes}x{storage}", address)
    vector = b.op("llvm.mlir.poison", [], f"{lanes}x{storage}")
    for lane in range(lanes):
        vector = b.insert(vector, b.load(storage, address + lane * stride * size), lane)
    return vector


def _store_raw(b: Builder, element: str, address: Any, stride: int, value: Value) -> None:
    if stride == 1:
        b.store(value, address)
        return
    for lane in range(_lanes(value)):
        b.store(b.extract(value, lane), address + lane * stride * ELEMENT_BYTES[element])


def _lanes(value: Value) -> int:
    return value.type.shape[0]
