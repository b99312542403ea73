"""Turn every accelerator segment into layers that are cut to the accelerator's buffers, with their weights packed as bit-planes.

Before:

    func.func private @accelerator_1(%q: tensor<2x3x!x>) -> tensor<2x2x!y> attributes {qcc.segment = "accelerator"} {
    linear, requantize }

After:

    func.func private @accelerator_1(tensor<2x3x!x>) -> tensor<2x2x!y> attributes {qcc.segment = "accelerator",
    qtile.inputs = [...], ...}
    func.func private @accelerator_1_tiles() {
      %x = qtile.buffer {space = "input", ...} : memref<64xi8>
      %w = qtile.buffer {space = "weights", value = ..., ...} : memref<96xi8>
      %y = qtile.buffer {space = "output", ...} : memref<64xi8>
      qtile.matmul_tiles(%x, %w, %y) {window = {...}, chunks = [...], ...}

Requires: partition-accelerator. Options are the accelerator's configuration (dialects/accelerator.py).
Guarantees: one qtile.matmul_tiles per layer in execution order; every number format, tile size and packed byte is
decided; buffers have no
addresses yet. `qcc.accelerator` on the module states the configuration.
Why: weights are packed here because zero words are not stored, so the size of a tile is known only from its bits.
Planes follow the
values: 8-bit weights that use 5 bits take 5 planes, weights that are all -1 or 1 take one, a clamp at zero drops the sign plane.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qcc.dialects import bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.dialects.activation_codings import code
from qcc.dialects.mlir import create, ir, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile._accelerator import activation_coding, tiling
from qcc.passes.tile._accelerator.layer import Buffer, Layer, Placement
from qcc.passes.tile._accelerator.lowering import Lowering
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS


class TileForAcceleratorPass(Pass):
    """See the module's docstring."""

    name = "tile-for-accelerator"
    Options = Configuration

    def run(self, module: ir.Module, context: PassContext) -> None:
        configuration: Configuration = self.options
        module.operation.attributes["qcc.accelerator"] = ir.DictAttr.get(
            {k: ir.IntegerAttr.get(ir.IntegerType.get_signless(64), v) for k, v in configuration.to_dict().items()}
        )
        for function in walk(module, "func.func"):
            attributes = function.attributes
            if "qcc.segment" in attributes and attributes["qcc.segment"].value == "accelerator":
                _tile(module, function, configuration, context)


def _tile(module: ir.Module, function: Any, c: Configuration, context: PassContext) -> None:
    lowered = Lowering(function, c.word_bits).run()
    chunks = [tiling.cut(layer, c) for layer in lowered.layers]
    if c.activation_codings > 1:
        activation_coding.choose(lowered.layers, chunks, c, context)
    name = function.attributes["sym_name"].value
    tiles = ir.Operation.create(
        "func.func",
        regions=1,
        loc=function.location,
        ip=ir.InsertionPoint(module.body),
        attributes={
            "sym_name": ir.StringAttr.get(f"{name}_tiles"),
            "sym_visibility": ir.StringAttr.get("private"),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get([], [])),
            "qtile.segment": ir.FlatSymbolRefAttr.get(name),
        },
    )
    at = ir.InsertionPoint(ir.Block.create_at_start(tiles.regions[0], []))
    for _, placed in lowered.inputs:
        _buffer_of(placed, c, at, function.location)
    for placed in lowered.outputs:
        _buffer_of(placed, c, at, function.location)
    for layer, cut in zip(lowered.layers, chunks, strict=True):
        _emit(layer, cut, c, at, context)
    ir.Operation.create("func.return", operands=[], loc=function.location, ip=at)
    declaration = ir.Operation.create(
        "func.func",
        regions=1,
        loc=function.location,
        ip=ir.InsertionPoint(function),
        attributes={
            "sym_name": function.attributes["sym_name"],
            "function_type": function.attributes["function_type"],
            "sym_visibility": ir.StringAttr.get("private"),
            "qcc.segment": function.attributes["qcc.segment"],
        },
    )
    function.erase()
    ports = {"qtile.inputs": [(number, placed) for number, placed in lowered.inputs], "qtile.outputs": list(enumerate(lowered.outputs))}
    from qcc.dialects.mlir import to_attribute

    for key, found in ports.items():
        entries: list[dict[str, Any]] = []
        for number, placed in found:
            assert placed.buffer is not None
            known = {key: value for key, value in placed.as_dict().items() if value is not None}
            entries.append({**known, "value": number, "space": placed.buffer.use, "index": placed.buffer.index})
        declaration.attributes[key] = to_attribute(entries) if entries else ir.ArrayAttr.get([])


def _buffer_of(placed: Placement, c: Configuration, at: ir.InsertionPoint, location: Any) -> Any:
    """The qtile.buffer of a placement, made where it is first needed."""
    buffer = placed.buffer
    assert buffer is not None
    if buffer.value is None:
        size = buffer.pixels * buffer.pixel_words * c.word_bytes
        buffer.value = _make_buffer(buffer, size, None, at, location)
    return buffer.value


def _make_buffer(buffer: Buffer, size: int, value: np.ndarray | None, at: ir.InsertionPoint, location: Any) -> Any:
    kind = ir.MemRefType.get([size], ir.IntegerType.get_signless(8), loc=location)
    attributes = {
        "space": buffer.use,
        "offset_bytes": 0,
        "size_bytes": size,
        "name": buffer.name,
        "value": value,
        "index": buffer.index if buffer.use in ("input", "output") else None,
    }
    return create("qtile.buffer", [], [kind], attributes, loc=location, ip=at).results[0]


def _emit(layer: Layer, chunks: list[tiling.Chunk], c: Configuration, at: ir.InsertionPoint, context: PassContext) -> None:
    image, described = b"", []
    for chunk in chunks:
        blocks: list[int] = []
        for block in chunk.blocks:
            blocks += [
                block.first,
                block.tiles,
                block.part,
                block.lines,
                int(block.raw),
                len(image) // c.word_bytes,
                len(block.data) // c.word_bytes,
            ]
            image += block.data
        parts = [v for part in chunk.parts for v in dataclasses.astuple(part)]
        described.append(
            {
                "first": chunk.first,
                "words": chunk.words,
                "outputs": chunk.outputs,
                "groups": chunk.groups,
                "resident": int(chunk.resident),
                "parts": parts,
                "blocks": blocks,
            }
        )
    parameters_word = len(image) // c.word_bytes
    image += _parameters(layer, c)
    padding_word = len(image) // c.word_bytes
    if layer.window.padded:
        image += _padding(layer, c)
    constant_word = len(image) // c.word_bytes
    if layer.residual is not None and layer.residual.source.constant is not None:
        image += bitplanes.pack(layer.residual.source.constant, layer.residual.source.planes, c.word_bits).tobytes()
    weights = _make_buffer(
        Buffer(layer.name, 1, 1, "weights"), len(image), np.frombuffer(image, np.uint8).view(np.int8), at, layer.location
    )
    source, target, post, residual = layer.source, layer.destination, layer.post, layer.residual
    assert source.buffer is not None and target.buffer is not None
    layout = {
        "source_offset": source.offset,
        "source_pixel_words": source.buffer.pixel_words,
        "target_offset": target.offset,
        "target_pixel_words": target.buffer.pixel_words,
        "source_coding": ACTIVATION_CODINGS.index(source.buffer.coding),
        "target_coding": ACTIVATION_CODINGS.index(target.buffer.coding),
    }
    number_format = {
        "planes": source.planes,
        "signed": int(source.signed),
        "weight_planes": layer.weights.planes,
        "weight_signed": int(layer.weights.signed),
        "bipolar": int(layer.weights.bipolar),
        "pooled": layer.weights.window,
    }
    requantization = {"zero_point": post.zero_point, "low": post.low, "high": post.high, "bits": post.bits, "rounding": post.rounding}
    total = None
    if residual is not None:
        other = residual.source
        total = {
            **residual.scale,
            "zero_point": residual.zero_point,
            "low": residual.low,
            "high": residual.high,
            "planes": other.planes,
            "signed": int(other.signed),
            "offset": other.offset,
            "pixel_words": other.buffer.pixel_words if other.buffer is not None else 0,  # 0: one pixel for all
            "coding": 0 if other.buffer is None else ACTIVATION_CODINGS.index(other.buffer.coding),
        }
        if other.constant is not None:
            total["constant_word"] = constant_word
    operands = [_buffer_of(source, c, at, layer.location), weights, _buffer_of(target, c, at, layer.location)]
    if residual is not None and residual.source.constant is None:
        operands.append(_buffer_of(residual.source, c, at, layer.location))
    create(
        "qtile.matmul_tiles",
        operands,
        [],
        {
            "window": dataclasses.asdict(layer.window),
            "layout": layout,
            "format": number_format,
            "post": requantization,
            "sum": total,
            "chunks": described,
            "parameters_word": parameters_word,
            "padding_word": padding_word,
        },
        loc=layer.location,
        ip=at,
    )
    context.fact(
        layer.name,
        accelerator={
            "weight_planes": layer.weights.planes,
            "activation_planes": source.planes,
            "bipolar": layer.weights.bipolar,
            "weight_bytes": len(image),
            "stored_lines": sum(b.lines for k in chunks for b in k.blocks),
            "chunks": len(chunks),
            "dram_bytes": sum(k.traffic for k in chunks),
        },
    )


def _parameters(layer: Layer, c: Configuration) -> bytes:
    """Bias, multiplier, shift of every output, zero beyond them, up to whole channel tiles."""
    post, count = layer.post, -(-layer.weights.outputs // c.rows) * c.rows
    table = np.zeros((count, 4), np.int64)
    for column, values in enumerate((post.bias, post.multiplier, post.shift)):
        table[: len(values), column] = values
    wrapped = (table + (1 << 31)) % (1 << 32) - (1 << 31)
    return wrapped.astype("<i4").tobytes()


def _padding(layer: Layer, c: Configuration) -> bytes:
    """The pixel that surrounds the image."""
    values = np.zeros(layer.source.words * c.word_bits, np.int64)
    values[layer.source.positions] = layer.pad_value
    packed = bitplanes.pack(values, layer.source.planes, c.word_bits)
    assert layer.source.buffer is not None
    return code(layer.source.buffer.coding, packed.reshape(1, -1, c.word_bytes))[0].tobytes()
