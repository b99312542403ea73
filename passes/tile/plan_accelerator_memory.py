"""Give every buffer of the accelerator's tiles its place in DRAM.

Before:

    %x = qtile.buffer {space = "input", offset_bytes = 0, size_bytes = 64, ...}
    %w = qtile.buffer {space = "weights", offset_bytes = 0, size_bytes = 96, ...}

After:

    module attributes {qcc.accelerator_memory = {arena_bytes = 192, weights_bytes = 96}}
    %x = qtile.buffer {space = "input", offset_bytes = 0, ...}         // within the arena
    %w = qtile.buffer {space = "weights", offset_bytes = 0, ...}       // behind the arena

Requires: tile-for-accelerator. Guarantees: buffers that are live together do not overlap; inputs and outputs share
the arena with everything
else, and so do the segments, which run one after the other. Offsets are multiples of 64 bytes.
Why: first fit in order of size comes within a few per cent of the lower bound for networks (Pisarchyk and Lee,
"Efficient memory management for
deep neural net inference", 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcc.dialects.mlir import ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext

ALIGNMENT = 64


@dataclass
class _Span:
    op: Any
    size: int
    first: int
    last: int
    offset: int = 0


class PlanAcceleratorMemoryPass(Pass):
    """See the module's docstring."""

    name = "plan-accelerator-memory"

    def run(self, module: ir.Module, context: PassContext) -> None:
        arena = weights = 0
        for function in walk(module, "func.func"):
            if "qtile.segment" not in function.attributes:
                continue
            spans = _spans(function)
            arena = max(arena, _place(spans))
            for span in spans:
                span.op.attributes["offset_bytes"] = to_attribute(span.offset)
            for op in walk(function, "qtile.buffer"):
                if op_attribute(op, "space") == "weights":
                    op.attributes["offset_bytes"] = to_attribute(weights)
                    weights += _aligned(op_attribute(op, "size_bytes"))
        module.operation.attributes["qcc.accelerator_memory"] = to_attribute({"arena_bytes": arena, "weights_bytes": weights})


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _spans(function: Any) -> list[_Span]:
    """The activations of a segment with the first and last operation that touches each."""
    operations = [view.operation for view in function.regions[0].blocks[0].operations]
    spans: list[_Span] = []
    for op in operations:
        if op.name != "qtile.buffer" or op_attribute(op, "space") == "weights":
            continue
        places = [i for i, user in enumerate(operations) if any(v == op.results[0] for v in user.operands)] or [0]
        space = op_attribute(op, "space")
        spans.append(
            _Span(
                op,
                _aligned(op_attribute(op, "size_bytes")),
                0 if space == "input" else places[0],
                len(operations) if space == "output" else places[-1],
            )
        )
    return spans


def _place(spans: list[_Span]) -> int:
    """Set the offsets; returns the size of the arena."""
    placed: list[_Span] = []
    for span in sorted(spans, key=lambda s: (-s.size, s.first)):
        offset = 0
        for other in sorted(placed, key=lambda s: s.offset):
            if (
                other.first <= span.last
                and span.first <= other.last
                and offset < other.offset + other.size
                and other.offset < offset + span.size
            ):
                offset = other.offset + other.size
        span.offset = offset
        placed.append(span)
    return max((s.offset + s.size for s in placed), default=0)
