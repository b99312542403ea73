"""Run parts of a model a few images of the batch at a time, so that what is between layers stays in the second-level cache.

Before:
    %a = qcc.conv2d %x, %w ... : tensor<16x64x56x56xi32>
    %b = qcc.requantize %a ... : tensor<16x64x56x56x!quant.uniform<u8:f32, 0.5>>
    %c = qcc.conv2d %b, %v ...
After:
    %b = "qtile.for_each_slice"(%x) {callee = @slice_0, count = 16}
    %c = qcc.conv2d %b, %v ...
    func.func private @slice_0(%x: tensor<1x...>) { qcc.conv2d, qcc.requantize of one image }

Requires: integer form, after assign-layout; the batch is the first dimension.
Guarantees: every result is the same, because no operation taken looks across images. A part begins and ends where one value is live, and
never between a product and what is fused behind it. The number of operations does not grow with the batch.
Why: sixteen images of a stage of 1 MB leave the cache between any two layers, while the weights, which every slice reads again, are
prefetched. It is the fusion of layers of M. Alwani et al., "Fused-Layer CNN Accelerators" (MICRO 2016), with whole images for tiles, so
that no borders are computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.mlir import create, ir, layer_name, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile.codelets import winograd
from qcc.passes.tile.codelets.place import element_name
from qcc.passes.tile.codelets.register_tile import TYPICAL
from qcc.passes.values import attributes_of, constant_array, producer, rebuilt, shape_of

PRODUCTS = ("qcc.conv2d", "qcc.max_pool2d", "qcc.avg_pool2d")
"""What a part may begin with besides the model's first operation: nothing is fused in front of them."""
TAKEN = frozenset(
    (
        *PRODUCTS, "qcc.quantize", "qcc.dequantize", "qcc.requantize", "qcc.add", "qcc.sub", "qcc.mul", "qcc.div", "qcc.clamp", "qcc.unary",
        "qcc.lut",
    )
)  # fmt: skip
RESIDENT_BYTES = TYPICAL.cache_bytes["l2"] / 2  # of activations; the rest is for weights, in use and prefetched
EXPOSED_WEIGHTS = 0.5  # share of bringing weights nearer that is not hidden, though they are prefetched
TRANSFORMED = 2 * winograd.POINTS // 9  # bytes of Winograd's weights, 16 bits at 36 points, for a byte of those given
EXPOSED_WRITES = 2  # a line that is written comes from the far level and returns to it


class SliceBatchPass(Pass):
    name = "slice-batch"

    def run(self, module: ir.Module, context: PassContext) -> None:
        count = 0
        for function in list(walk(module, "func.func")):
            if "sym_visibility" in function.attributes or not function.regions[0].blocks:
                continue
            for part, images in _parts(function):
                for op in part:
                    context.fact(layer_name(op.location), images_at_once=images)
                _outline(function, part, images, f"slice_{count}")
                count += 1


@dataclass(frozen=True)
class _Traffic:
    """Bytes for one image of what an operation reads and writes, and of its weights."""

    reads: int
    writes: int
    weights: int


def _parts(function: Any) -> list[tuple[list[Any], int]]:
    """Operations of each part, and how many images it runs at a time; only parts for which that is not the whole batch."""
    block = function.regions[0].blocks[0]
    ops = [view.operation for view in block.operations if view.operation.name not in ("qcc.constant", "arith.constant")]
    batch = _batch(block)
    if batch < 2:
        return []
    sections = [ops[begin:end] for begin, end in pairwise(_cuts(block, ops))]
    chosen = [(section, _images(section, batch) if all(_sliceable(op, batch) for op in section) else batch) for section in sections]
    parts = [([op for section, _ in run for op in section], images) for images, run in groupby(chosen, key=lambda one: one[1])]
    return [(part, images) for part, images in parts if images < batch and any(op.name in PRODUCTS for op in part)]


def _batch(block: Any) -> int:
    sizes = {shape_of(a)[0] if isinstance(a.type, ir.RankedTensorType) and shape_of(a) else 0 for a in block.arguments}
    return sizes.pop() if len(sizes) == 1 else 0


def _cuts(block: Any, ops: Sequence[Any]) -> list[int]:
    """Positions before which exactly one value is live, and nothing waits to be fused."""
    position = {op: i for i, op in enumerate(ops)}
    last: list[int] = []  # of the values in the order they are made
    made: list[int] = []
    for i, value in [(-1, a) for a in block.arguments] + [(i, r) for i, op in enumerate(ops) for r in op.results]:
        made.append(i)
        last.append(max((position[use.owner.operation] for use in value.uses), default=i))
    change = [0] * (len(ops) + 2)
    for first, end in zip(made, last, strict=True):  # live before the positions first + 1 .. end
        change[first + 1] += 1
        change[end + 1] -= 1
    cuts, live = [], 0
    for i, op in enumerate(ops):
        live += change[i]
        if live == 1 and (i == 0 or op.name in PRODUCTS or op.name == "func.return"):
            cuts.append(i)
    return cuts


def _sliceable(op: Any, batch: int) -> bool:
    """Whether an image of every result depends on the same image of every operand, and on constants without a batch."""
    if op.name not in TAKEN:
        return False
    for value in (*op.operands, *op.results):
        shape = shape_of(value)
        if producer(value, "qcc.constant", "arith.constant") is not None:
            if len(shape) == 4 and shape[0] == batch and op.name != "qcc.conv2d":
                return False
        elif len(shape) != 4 or shape[0] != batch:
            return False
    return not (op.name == "qcc.conv2d" and constant_array(op.operands[1]) is None)


def _images(section: Sequence[Any], batch: int) -> int:
    """Images at a time with the least predicted time in memory."""
    traffic = [_traffic(op, batch) for op in section if op.name in PRODUCTS or op is section[0]]
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]
    return min(sizes, key=lambda size: (_bytes_from_afar(traffic, size, batch), -size))


def _bytes_from_afar(traffic: Sequence[_Traffic], size: int, batch: int) -> float:
    """Bytes for the whole batch that come from behind the second-level cache, or go there, with `size` images at a time."""
    total = 0.0
    for one in traffic:
        share = max(0.0, 1 - RESIDENT_BYTES / max(size * (one.reads + one.writes), 1))
        total += batch * share * (one.reads + EXPOSED_WRITES * one.writes)
        total += batch / size * EXPOSED_WEIGHTS * one.weights
    return total


def _traffic(op: Any, batch: int) -> _Traffic:
    """Of `op` and what will be fused behind it: the first result that is no accumulator is what is written."""
    reads = weights = 0
    for value in op.operands:
        if constant_array(value) is None:
            reads += _bytes(value) // batch
        else:
            weights += _bytes(value) * (TRANSFORMED if op.name == "qcc.conv2d" and winograd.suits(op) else 1)
    value = op.results[0]
    while len(uses := list(value.uses)) == 1 and (user := uses[0].owner.operation).name in TAKEN and user.name not in PRODUCTS:
        reads += sum(_bytes(v) // batch for v in user.operands if v != value and constant_array(v) is None)
        value = user.results[0]
    return _Traffic(reads, _bytes(value) // batch, weights)


def _bytes(value: Any) -> int:
    return math.prod(shape_of(value)) * ELEMENT_BYTES[element_name(value.type) or "f32"]


def _outline(function: Any, part: Sequence[Any], images: int, name: str) -> None:
    """Move `part` into a private function of `images` images, and put a loop over the batch in its place."""
    inside = set(part)
    source = next(v for op in part for v in op.operands if constant_array(v) is None and producer(v) not in inside)
    result = next(r for r in part[-1].results if any(use.owner.operation not in inside for use in r.uses))
    types = [_of_images(value.type, images) for value in (source, result)]
    attributes = {"sym_name": name, "sym_visibility": "private", "function_type": ir.FunctionType.get(types[:1], types[1:])}
    given = {key: to_attribute(value) for key, value in attributes.items()}
    outlined = ir.Operation.create("func.func", attributes=given, regions=1, loc=function.location, ip=ir.InsertionPoint(function))
    body = outlined.regions[0].blocks.append(types[0], arg_locs=[part[0].location])
    with ir.InsertionPoint(body):
        end = ir.Operation.create("func.return", loc=part[-1].location)
    known = {source: body.arguments[0]}
    for op in part:
        operands = []
        for value in op.operands:
            if value not in known:  # a constant
                made = producer(value)
                known[value] = create(
                    made.name, [], [value.type], attributes_of(made), loc=made.location, ip=ir.InsertionPoint(end)
                ).results[0]
            operands.append(known[value])
        known[op.results[0]] = rebuilt(op, operands, _of_images(op.results[0].type, images), before=end)
    with ir.InsertionPoint(end):
        ir.Operation.create("func.return", operands=[known[result]], loc=end.location)
    end.erase()
    count = shape_of(source)[0] // images
    looped = create(
        "qtile.for_each_slice",
        [source],
        [result.type],
        {"callee": ir.FlatSymbolRefAttr.get(name), "count": count},
        loc=part[-1].location,
        ip=ir.InsertionPoint(part[-1]),
    )
    result.replace_all_uses_with(looped.results[0])
    for op in reversed(part):
        op.erase()


def _of_images(kind: Any, images: int) -> Any:
    tensor = ir.RankedTensorType(kind)
    return ir.RankedTensorType.get([images, *list(tensor.shape)[1:]], tensor.element_type, tensor.encoding, loc=ir.Location.unknown())
