"""Map codelets: element-wise operations and copies, over as few dimensions as their strides allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects import real_values
from qcc.dialects.codelet import Map, Step
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import SLACK_BYTES, Place
from qcc.passes.tile.codelets.program import FUSABLE, Program, choices
from qcc.passes.tile.codelets.tasks import even_chunk
from qcc.passes.values import shape_of, used_once

TASK_ELEMENTS = 32768
MOST_TASKS = 16
LANES = 16


def lower(lowering: Lowering, op: Any) -> set[Any]:
    """Lower element-wise `op` and what can be fused behind it; the operations lowered."""
    if op.name == "qcc.dequantize" and _folded(lowering, op):
        return {op}
    program = Program(lowering)
    result = op.results[0]
    value = _main_operand(lowering, op)
    program.append(op, value)
    absorbed = absorb(lowering, program, result)
    last = absorbed[-1].results[0] if absorbed else result
    source = lowering.place(value, narrow=True).broadcast(shape_of(result))
    run(lowering, program, source, lowering.result(last), lowering.halo_word(last))
    return {op, *absorbed}


def _folded(lowering: Lowering, op: Any) -> bool:
    """Keep the real values of a dequantized constant as a constant."""
    array, kind = lowering.constant_or_none(op.operands[0]), ir.RankedTensorType(op.operands[0].type)
    if array is None or "multiplier" in op.attributes:
        return False
    lowering.folded[op.results[0]] = np.ascontiguousarray(real_values.decode(array, kind), np.float32)
    lowering.stored[op.results[0]] = (array, kind)
    return True


def _main_operand(lowering: Lowering, op: Any) -> Any:
    """The operand that becomes the current value: the one that needs no broadcast, and no constant if possible."""
    shape = shape_of(op.results[0])
    return min(choices(op), key=lambda v: (shape_of(v) != shape, lowering.constant_or_none(v) is not None))


def absorb(lowering: Lowering, program: Program, value: Any) -> list[Any]:
    """Append to `program` the chain of element-wise operations that alone use `value`, in order."""
    chain: list[Any] = []
    while used_once(value):
        user = next(iter(value.uses)).owner.operation
        if user.name == "qcc.lut" and ISAS[lowering.isa].byte_lanes and not _goes_on(user):
            break  # a pass over bytes that were just written takes less time than a look-up in words behind the product
        if user.name not in FUSABLE or shape_of(user.results[0]) != shape_of(value):
            break
        if value not in choices(user):
            break
        if any(v != value and v not in lowering.places and lowering.constant_or_none(v) is None for v in user.operands):
            break
        program.append(user, value)
        chain.append(user)
        value = user.results[0]
    return chain


def _goes_on(lut: Any) -> bool:
    """Whether element-wise operations behind a table are fused with it."""
    value = lut.results[0]
    return used_once(value) and next(iter(value.uses)).owner.operation.name in FUSABLE


def run(lowering: Lowering, program: Program, source: Place, y: Place, halo_word: int = 0) -> None:
    """Call a map from `source` (broadcast to y's shape) through the program to `y`, filling y's border with `halo_word`."""
    if 0 in y.shape:
        return
    halo = None
    if any(y.halo):
        halo = y.fill(len(program.words))
        program.words.append(halo_word)
    operands = [source, *program.operands]
    order = _order([*operands, y])
    sizes, strides = collapse([y.shape[i] for i in order], [[p.strides[i] for i in order] for p in (*operands, y)])
    split, chunk = _split(sizes)
    places = list(operands)
    steps = tuple(Step(s.op, tuple(a if a >= 0 else a - 1 for a in s.args), s.kind, s.swapped) for s in program.steps)
    params = lowering.append_params(places, program.words)
    places.append(y)
    codelet = Map(
        isa=lowering.isa,
        sizes=tuple(sizes),
        operands=tuple(p.operand(i, strides[i]) for i, p in enumerate(operands)),
        steps=steps,
        y=y.operand(len(places) - 1, strides[-1]),
        split=split,
        chunk=chunk,
        params=params,
        halo=halo,
    )
    lowering.call(codelet, places)


def copy(lowering: Lowering, source: Place, y: Place, offset: int = 0, halo_word: int = 0) -> None:
    """y = source + offset, element by element, converting containers."""
    program = Program(lowering)
    program.offset(offset)
    run(lowering, program, source, y, halo_word)


def convert(lowering: Lowering, source: Place, element: str, offset: int) -> Place:
    """`source` in another container, every integer plus `offset`; images stay channels-last."""
    image = len(source.shape) == 4 and source.strides[1] == 1
    y = lowering.image(element, source.shape) if image else lowering.temporary(element, source.shape)
    copy(lowering, source, y, offset)
    return y


def widened(lowering: Lowering, source: Place) -> Place:
    """`source` (u8) with the same strides, offset and border in s16: its whole buffer (or slice), border included, is
    converted once."""
    if source.buffer not in lowering.widened:
        made = source.buffer.owner
        whole: int = op_attribute(made, "size_bytes") - (SLACK_BYTES if op_attribute(made, "space") == "arena" else 0)
        flat = Place(source.buffer, source.element, (lowering.slices.bytes_of.get(source.buffer, whole),), (1,))
        lowering.widened[source.buffer] = convert(lowering, flat, "s16", 0).buffer
    return replace(source, buffer=lowering.widened[source.buffer], element="s16")


def _order(places: Sequence[Place]) -> list[int]:
    """Dimensions from outermost to vector: by y's strides, but a short innermost one gives way to a long one the source reads in order."""
    y = places[-1]
    order = sorted(range(len(y.shape)), key=lambda i: (-y.strides[i] if y.shape[i] > 1 else -math.inf, i))
    real = [i for i in order if y.shape[i] > 1]
    if real and y.shape[real[-1]] < LANES:
        for i in real[:-1]:
            if y.shape[i] >= 2 * LANES and places[0].strides[i] == 1:
                order.remove(i)
                order.append(i)
                break
    return order


def collapse(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Merge neighbouring dimensions wherever every operand allows it and drop those of size 1: sizes, and strides per operand."""
    merged: list[tuple[int, list[int]]] = []
    for i, size in enumerate(sizes):
        if size == 1:
            continue
        here = [s[i] for s in strides]
        if merged and all(before == size * s for before, s in zip(merged[-1][1], here, strict=True)):
            merged[-1] = (merged[-1][0] * size, here)
        else:
            merged.append((size, here))
    if not merged:
        merged.append((1, [1 for _ in strides]))
    return [size for size, _ in merged], [tuple(s[k] for _, s in merged) for k in range(len(strides))]


def _split(sizes: Sequence[int]) -> tuple[int, int]:
    """(dimension, indices per task)"""
    wanted = min(MOST_TASKS, max(1, round(math.prod(sizes) / TASK_ELEMENTS)))
    split = max(range(len(sizes)), key=lambda i: (i < len(sizes) - 1 and sizes[i] >= wanted, min(sizes[i], 64), -i))
    if split < len(sizes) - 1:
        return split, even_chunk(sizes[split], wanted)
    return split, even_chunk(math.ceil(sizes[split] / 64), wanted) * 64
