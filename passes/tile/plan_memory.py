"""Give every buffer of the tiled form its place, so that nothing is allocated at run time.

Before:
    %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
    %b = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
    func.call @f(%x, %a)   func.call @f(%a, %b)   func.call @f(%b, %y)
After:
    %a ... offset_bytes = 0,   %b ... offset_bytes = 128,   @main has qtile.arena_bytes = 256, qtile.weights_bytes = 0

Requires: one `func.func @main` in tiled form whose buffers carry `size_bytes` (decision 0002).
A buffer that only calls of one `qtile.group` use is that of one slice; one that leaves or enters the group lives through all of it.
Guarantees: states lie at the beginning of the arena, where nothing else ever does; buffers of the arena whose lives overlap do not
overlap in memory; offsets are multiples of 64 bytes; weights with equal bytes share one place, in the order of their first use; the least
arena that is possible is recorded as `qtile.arena_floor_bytes`.
Why: offline planning by greedy placement in the best-fitting gap, largest buffer first, follows Pisarchyk and Lee, "Efficient
Memory Management for Deep Neural Net Inference" (2020), section 5; several orders are tried, since no single one wins on all networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from qcc.dialects import qtile, weights
from qcc.dialects.mlir import error_at, ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile._placement import Life, peak_bytes, place, round_up


class PlanMemoryPass(Pass):
    name = "plan-memory"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for main in walk(module, "func.func"):
            if op_attribute(main, "sym_name") == "main":
                _plan(main, context)


def _plan(main: Any, context: PassContext) -> None:
    calls = [op for op in main.regions[0].blocks[0].operations if op.operation.name == "func.call"]
    position = {call.operation: i for i, call in enumerate(calls)}
    spans = _spans(calls)
    lives: list[Life] = []
    states: list[Life] = []
    constants: list[tuple[int, Any]] = []
    for buffer in walk(main, "qtile.buffer"):
        uses = sorted(position[use.owner.operation] for use in buffer.results[0].uses if use.owner.operation in position)
        space = op_attribute(buffer, "space")
        if space in ("arena", "scratch"):
            if space == "scratch" and uses and uses[0] != uses[-1]:
                raise error_at(buffer, f"scratch buffer is an operand of calls {uses[0]} to {uses[-1]}, expected one call")
            first, last = _life(uses, spans) if uses else (0, -1)
            lives.append(Life(buffer, _size_bytes(buffer), first, last))
        elif space == "state":
            states.append(Life(buffer, _size_bytes(buffer), 0, len(calls) - 1, sum(state.size_bytes for state in states)))
        elif space == "weights":
            constants.append((uses[0] if uses else len(calls), buffer))
    state_bytes = sum(state.size_bytes for state in states)
    arena_bytes = state_bytes + place([life for life in lives if life.first <= life.last])
    floor_bytes = state_bytes + peak_bytes(lives)
    for life in lives:
        life.offset_bytes += state_bytes
    lives = states + lives
    for life in lives:
        _set(life.owner, "offset_bytes", life.offset_bytes)
    weights_bytes = _place_weights([op for _, op in sorted(constants, key=lambda entry: entry[0])])
    if states:
        _set(main, "qtile.state_bytes", state_bytes)
    _set(main, "qtile.arena_bytes", arena_bytes)
    _set(main, "qtile.arena_floor_bytes", floor_bytes)
    _set(main, "qtile.weights_bytes", weights_bytes)
    plan = [
        {
            "name": op_attribute(life.owner, "name", ""),
            "space": op_attribute(life.owner, "space"),
            "offset_bytes": life.offset_bytes,
            "size_bytes": life.size_bytes,
            "first": life.first,
            "last": life.last,
        }
        for life in lives
        if life.first <= life.last
    ]
    context.fact("", memory_plan=plan)
    context.fact("", arena_bytes=arena_bytes, arena_floor_bytes=floor_bytes, weights_bytes=weights_bytes)


def _spans(calls: Sequence[Any]) -> list[tuple[int, int]]:
    """For every call the first and the last of its group, which run again and again, slice by slice."""
    spans: list[tuple[int, int]] = []
    for _, group in qtile.groups(calls):
        spans += [(len(spans), len(spans) + len(group) - 1)] * len(group)
    return spans


def _life(uses: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last call of a buffer with sorted `uses`: what leaves or enters a group lives through all of it."""
    first, last = uses[0], uses[-1]
    if spans[first] != spans[last]:
        first, last = spans[first][0], spans[last][1]
    return first, last


def _set(op: Any, name: str, value: int) -> None:
    op.attributes[name] = to_attribute(value)


def _size_bytes(buffer: Any) -> int:
    size = op_attribute(buffer, "size_bytes")
    if size is None:
        raise error_at(buffer, "buffer has no 'size_bytes', which memory planning needs")
    return round_up(size)


def _place_weights(buffers: Sequence[Any]) -> int:
    known: dict[bytes, int] = {}
    end = 0
    for buffer in buffers:
        if "value" not in buffer.attributes:
            raise error_at(buffer, "buffer of space weights has no 'value', expected its bytes")
        array = weights.array_of(buffer.attributes["value"])
        size = max(_size_bytes(buffer), round_up(array.nbytes))
        key = hashlib.blake2b(array.tobytes() + size.to_bytes(8, "little"), digest_size=16).digest()
        if key not in known:
            known[key] = end
            end += size
        _set(buffer, "offset_bytes", known[key])
    return end
