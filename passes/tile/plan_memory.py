"""Give every buffer of the tiled form its place, so that nothing is allocated at run time.

Before:
    %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
    %b = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
    func.call @f(%x, %a)   func.call @f(%a, %b)   func.call @f(%b, %y)
After:
    %a ... offset_bytes = 0,   %b ... offset_bytes = 128,   @main has qtile.arena_bytes = 256, qtile.weights_bytes = 0

Requires: one `func.func @main` in tiled form whose buffers carry `size_bytes` (decision 0002).
Guarantees: buffers of the arena whose lives overlap do not overlap in memory; offsets are multiples of 64 bytes; weights with equal bytes
share one place, in the order of their first use; the least arena that is possible is recorded as `qtile.arena_floor_bytes`.
Why: offline planning by greedy placement in the best-fitting gap, largest buffer first, follows Pisarchyk and Lee, "Efficient
Memory Management for Deep Neural Net Inference" (2020), section 5; several orders are tried, since no single one wins on all networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects import weights
from qcc.dialects.mlir import error_at, ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext

ALIGNMENT_BYTES = 64


@dataclass
class Life:
    """A buffer of the arena: live from call `first` to call `last`, both included."""

    op: Any
    size_bytes: int
    first: int
    last: int
    offset_bytes: int = 0


class PlanMemoryPass(Pass):
    name = "plan-memory"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for main in walk(module, "func.func"):
            if op_attribute(main, "sym_name") == "main":
                _plan(main, context)


def _plan(main: Any, context: PassContext) -> None:
    calls = [op for op in main.regions[0].blocks[0].operations if op.operation.name == "func.call"]
    position = {call.operation: i for i, call in enumerate(calls)}
    lives: list[Life] = []
    constants: list[tuple[int, Any]] = []
    for buffer in walk(main, "qtile.buffer"):
        uses = sorted(position[use.owner.operation] for use in buffer.results[0].uses if use.owner.operation in position)
        space = op_attribute(buffer, "space")
        if space in ("arena", "scratch"):
            if space == "scratch" and uses and uses[0] != uses[-1]:
                raise error_at(buffer, f"scratch buffer is an operand of calls {uses[0]} to {uses[-1]}, expected one call")
            lives.append(Life(buffer, _size_bytes(buffer), uses[0] if uses else 0, uses[-1] if uses else -1))
        elif space == "weights":
            constants.append((uses[0] if uses else len(calls), buffer))
    arena_bytes = place([life for life in lives if life.first <= life.last])
    floor_bytes = peak_bytes(lives)
    for life in lives:
        _set(life.op, "offset_bytes", life.offset_bytes)
    weights_bytes = _place_weights([op for _, op in sorted(constants, key=lambda entry: entry[0])])
    _set(main, "qtile.arena_bytes", arena_bytes)
    _set(main, "qtile.arena_floor_bytes", floor_bytes)
    _set(main, "qtile.weights_bytes", weights_bytes)
    context.fact("", arena_bytes=arena_bytes, arena_floor_bytes=floor_bytes, weights_bytes=weights_bytes)


def _set(op: Any, name: str, value: int) -> None:
    op.attributes[name] = to_attribute(value)


def _size_bytes(buffer: Any) -> int:
    size = op_attribute(buffer, "size_bytes")
    if size is None:
        raise error_at(buffer, "buffer has no 'size_bytes', which memory planning needs")
    return round_up(size)


def round_up(size_bytes: int) -> int:
    """The least multiple of the alignment that holds `size_bytes`."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def peak_bytes(lives: Sequence[Life]) -> int:
    """The largest sum of sizes live in one call: no plan can need less."""
    change: dict[int, int] = {}
    for life in lives:
        if life.first <= life.last:
            change[life.first] = change.get(life.first, 0) + life.size_bytes
            change[life.last + 1] = change.get(life.last + 1, 0) - life.size_bytes
    peak = now = 0
    for moment in sorted(change):
        now += change[moment]
        peak = max(peak, now)
    return peak


_ORDERS: tuple[Callable[[Life], tuple[int, ...]], ...] = (
    lambda life: (-life.size_bytes, life.first),
    lambda life: (-life.size_bytes * (life.last - life.first + 1), life.first),
    lambda life: (-(life.last - life.first), -life.size_bytes, life.first),
    lambda life: (life.first, -life.size_bytes),
)


def place(lives: Sequence[Life]) -> int:
    """Set `offset_bytes` of each by the best of several orders; the size of the arena in bytes."""
    floor_bytes, best_bytes, best = peak_bytes(lives), -1, [0] * len(lives)
    for order in _ORDERS:
        total = _place_in_order(sorted(lives, key=order))
        if best_bytes < 0 or total < best_bytes:
            best_bytes, best = total, [life.offset_bytes for life in lives]
        if best_bytes == floor_bytes:
            break
    for life, offset in zip(lives, best, strict=True):
        life.offset_bytes = offset
    return max(best_bytes, 0)


def _place_in_order(lives: Sequence[Life]) -> int:
    placed: list[Life] = []  # by offset
    total = 0
    for life in lives:
        best_offset, best_gap, end = -1, -1, 0
        for other in placed:
            if other.last < life.first or life.last < other.first:
                continue
            gap = other.offset_bytes - end
            if gap >= life.size_bytes and (best_gap < 0 or gap < best_gap):
                best_offset, best_gap = end, gap
            end = max(end, other.offset_bytes + other.size_bytes)
        life.offset_bytes = best_offset if best_gap >= 0 else end
        total = max(total, life.offset_bytes + life.size_bytes)
        placed.append(life)
        placed.sort(key=lambda entry: entry.offset_bytes)
    return total


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
