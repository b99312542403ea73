"""Expand the accelerator's layers into instructions, with addresses in DRAM and in the on-chip buffers.

Before:

    func.func private @accelerator_1_tiles() { %x = qtile.buffer ...; qtile.matmul_tiles(%x, %w, %y) {chunks = ...} }

After:

    func.func private @accelerator_1_program() {
      qisa.load_geometry ...   qisa.load_layout ...   qisa.execute_mode ...   qisa.post_requantize ...
      qisa.load_parameters {address = 7, parameter = 0, count = 64}
      qisa.load_weights {address = 2, line = 0, ...}
      qisa.load_activations {...}    qisa.execute {...}    qisa.post {...}    qisa.store {...}
      qisa.finish
    }

Requires: plan-accelerator-memory. Guarantees: run one after the other, the instructions compute the segment; nothing
says yet how the units may
overlap (schedule-tokens does). Every post directly follows its execute. `qisa.inputs` and `qisa.outputs` of the
segment's declaration
say where the driver finds its tensors, in words; `qisa.weights` on the module holds the weight image.
Why: consecutive loads alternate between the halves of a buffer, so that the tokens can let them overlap with computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qcc.dialects import weights as constants
from qcc.dialects.accelerator import Configuration
from qcc.dialects.mlir import ir, op_attribute, python_value, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.runtime.fpga.isa import BY_NAME, PARAMETER_BYTES

_OFF = {"enable": 0, "planes": 0, "signed": 0, "zero_point": 0, "low": 0, "high": 0, "residual_words": 0}


class SelectInstructionsPass(Pass):
    """See the module's docstring."""

    name = "select-instructions"

    def run(self, module: ir.Module, context: PassContext) -> None:
        attributes = module.operation.attributes
        if "qcc.accelerator" not in attributes:
            return
        configuration = Configuration.from_dict(python_value(attributes["qcc.accelerator"]))
        memory = python_value(attributes["qcc.accelerator_memory"])
        image = np.zeros(memory["weights_bytes"], np.int8)
        for function in [f for f in walk(module, "func.func") if "qtile.segment" in f.attributes]:
            _program(module, function, configuration, memory["arena_bytes"], image)
            function.erase()
        if image.size:
            attributes["qisa.weights"] = constants.constant_attribute(image, "accelerator_weights")


def _program(module: ir.Module, function: Any, c: Configuration, arena_bytes: int, image: np.ndarray) -> None:
    segment = function.attributes["qtile.segment"].value
    program = ir.Operation.create(
        "func.func",
        regions=1,
        loc=function.location,
        ip=ir.InsertionPoint(module.body),
        attributes={
            "sym_name": ir.StringAttr.get(f"{segment}_program"),
            "sym_visibility": ir.StringAttr.get("private"),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get([], [])),
            "qisa.segment": ir.FlatSymbolRefAttr.get(segment),
        },
    )
    emit = _Emitter(ir.InsertionPoint(ir.Block.create_at_start(program.regions[0], [])))
    address: dict[Any, int] = {}
    places: dict[tuple[str, int], int] = {}
    for op in walk(function, "qtile.buffer"):
        space, offset = op_attribute(op, "space"), op_attribute(op, "offset_bytes")
        base = offset + (arena_bytes if space == "weights" else 0)
        address[op.results[0]] = base // c.word_bytes
        if space == "weights":
            data = constants.array_of(op.attributes["value"])
            image[offset : offset + data.size] = data
        elif "index" in op.attributes:
            places[space, op_attribute(op, "index")] = base // c.word_bytes
    nest = _Nest(emit, c)
    location = function.location
    for op in walk(function, "qtile.matmul_tiles"):
        nest.layer(op, address)
        location = op.location
    emit("finish", {}, location)
    ir.Operation.create("func.return", operands=[], loc=function.location, ip=emit.at)
    declaration = next(f for f in walk(module, "func.func") if f.attributes["sym_name"].value == segment)
    for old, new in (("qtile.inputs", "qisa.inputs"), ("qtile.outputs", "qisa.outputs")):
        ports = python_value(declaration.attributes[old])
        found = [{**port, "address": places[port["space"], port["index"]]} for port in ports]
        declaration.attributes[new] = to_attribute(found) if found else ir.ArrayAttr.get([])
        del declaration.attributes[old]


class _Emitter:
    """Appends instructions; an instruction that only sets a unit's state is left out where it would change nothing."""

    def __init__(self, at: ir.InsertionPoint) -> None:
        self.at = at
        self._integer = ir.IntegerType.get_signless(64)
        self._held: dict[str, Mapping[str, Any]] = {}

    def __call__(self, name: str, fields: dict[str, Any], location: Any, line_count: int | None = None) -> None:
        attributes = {f.name: self._attribute(f.words[fields[f.name]] if f.words else fields[f.name]) for f in BY_NAME[name].fields}
        if line_count is not None:  # not encoded: what schedule-tokens cannot see in the coded bytes
            attributes["line_count"] = self._attribute(line_count)
        ir.Operation.create(f"qisa.{name}", results=[], operands=[], attributes=attributes, loc=location, ip=self.at)

    def state(self, name: str, fields: dict[str, Any], location: Any) -> None:
        """Emit a state-setting instruction unless its unit holds `fields` already."""
        if self._held.get(name) != fields:
            self._held[name] = fields
            self(name, fields, location)

    def _attribute(self, value: Any) -> ir.Attribute:
        return ir.StringAttr.get(value) if isinstance(value, str) else ir.IntegerAttr.get(self._integer, int(value))


class _Halves:
    """Where the next piece of a buffer goes: the halves in turn, the whole buffer where it needs more than half."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.second = capacity, False

    def take(self, size: int) -> int:
        if size > self.capacity // 2:
            self.second = True  # what follows starts in the first half again
            return 0
        self.second = not self.second
        return 0 if self.second else self.capacity // 2


class _Nest:
    """Writes the loops of a layer, unrolled; see tiling.py for their order."""

    def __init__(self, emit: _Emitter, c: Configuration) -> None:
        self.emit, self.c = emit, c
        self.activations, self.weights, self.outputs = _Halves(c.activation_words), _Halves(c.weight_lines), _Halves(c.output_words)
        self.residuals, self.parameters = _Halves(c.residual_words), _Halves(c.parameter_entries)

    def layer(self, op: Any, address: Mapping[Any, int]) -> None:
        """All chunks of one qtile.matmul_tiles."""
        self.loc = op.location
        self.window, self.layout = op_attribute(op, "window"), op_attribute(op, "layout")
        self.format, self.post, self.sum = op_attribute(op, "format"), op_attribute(op, "post"), op_attribute(op, "sum")
        operands = list(op.operands)
        self.source = address[operands[0]] + self.layout["source_offset"]
        self.image = address[operands[1]]
        self.target = address[operands[2]] + self.layout["target_offset"]
        self.residual = 0
        if self.sum:
            self.residual = (
                self.image + self.sum["constant_word"] if "constant_word" in self.sum else address[operands[3]] + self.sum["offset"]
            )
        self.padding = self.image + op_attribute(op, "padding_word")
        self.parameter_table = self.image + op_attribute(op, "parameters_word")
        self.pixels = self.window["images"] * self.window["out_height"] * self.window["out_width"]
        for chunk in op_attribute(op, "chunks"):
            self._chunk(chunk)

    def _chunk(self, chunk: dict[str, Any]) -> None:
        c, bits = self.c, self.post["bits"]
        parts = [tuple(chunk["parts"][i : i + 6]) for i in range(0, len(chunk["parts"]), 6)]
        blocks = [tuple(chunk["blocks"][i : i + 7]) for i in range(0, len(chunk["blocks"]), 7)]
        self._post_state(chunk)
        entries = -(-chunk["outputs"] // c.rows) * c.rows
        parameter = self.parameters.take(entries)
        table = self.parameter_table + chunk["first"] * c.word_bits * PARAMETER_BYTES // c.word_bytes
        self.emit("load_parameters", {"address": table, "parameter": parameter, "count": entries}, self.loc)
        lines = [self.weights.take(sum(b[3] for b in blocks))] if chunk["resident"] else []
        for block in blocks if chunk["resident"] else ():
            self._load_weights(block, parts[block[2]], lines[-1])
            lines.append(lines[-1] + block[3])
        step = chunk["groups"] * c.columns
        for first in range(0, self.pixels, step):
            count = min(step, self.pixels - first)
            groups = -(-count // c.columns)
            output_words = chunk["words"] * bits
            output = self.outputs.take(groups * output_words)
            residual = self._load_residual(chunk, first, count, groups)
            place = {"groups": groups, "parameter": parameter, "output": output, "output_words": output_words, "residual": residual}
            if len(parts) == 1:
                self._pixel_tile(blocks, parts[0], lines, first, count, groups, place)
            else:
                self._accumulated(blocks, parts, first, count, place)
            target = self.target + first * self.layout["target_pixel_words"] + chunk["first"] * bits
            self.emit(
                "store",
                {
                    "address": target,
                    "output": output,
                    "count": count,
                    "run_words": output_words,
                    "pixel_words": self.layout["target_pixel_words"],
                    "output_words": output_words,
                    "coding": self.layout["target_coding"],
                },
                self.loc,
            )

    def _pixel_tile(
        self, blocks: list[Any], part: Any, lines: list[int], first: int, count: int, groups: int, place: dict[str, int]
    ) -> None:
        vector = part[1] * part[3] * part[5] * self.format["planes"]
        activation = self.activations.take(groups * vector)
        self._gather(part, first, count, activation, vector)
        self._execute_state(vector)
        for number, block in enumerate(blocks):
            if lines:
                line = lines[number]
            else:
                line = self.weights.take(block[3])
                self._load_weights(block, part, line)
            self.emit(
                "execute",
                {"line": line, "activation": activation, "tiles": block[1], "groups": groups, "accumulate": 0, "emit": 1},
                self.loc,
                block[3],
            )
            self._post(block, place)

    def _accumulated(self, blocks: list[Any], parts: list[Any], first: int, count: int, place: dict[str, int]) -> None:
        """One group of pixels, every weight tile summed over all parts of the reduction."""
        for block in blocks:
            part = parts[block[2]]
            vector = part[1] * part[3] * part[5] * self.format["planes"]
            activation, line = self.activations.take(vector), self.weights.take(block[3])
            self._gather(part, first, count, activation, vector)
            self._load_weights(block, part, line)
            self._execute_state(vector)
            last = block[2] == len(parts) - 1
            self.emit(
                "execute",
                {"line": line, "activation": activation, "tiles": 1, "groups": 1, "accumulate": int(block[2] > 0), "emit": int(last)},
                self.loc,
                block[3],
            )
            if last:
                self._post(block, place)

    def _post(self, block: Any, place: dict[str, int]) -> None:
        pooled = self.format["pooled"]
        channel = block[0] // pooled * self.c.rows
        self.emit(
            "post", {**place, "tiles": block[1], "window": pooled, "parameter": place["parameter"] + channel, "channel": channel}, self.loc
        )

    def _load_weights(self, block: Any, part: Any, line: int) -> None:
        _, tiles, _, lines, raw, address, size = block
        self.emit(
            "load_weights",
            {
                "address": self.image + address,
                "line": line,
                "tiles": tiles,
                "words": part[1] * part[3] * part[5],
                "planes": self.format["weight_planes"],
                "coding": 0 if raw else 1,
                "size_words": size,
            },
            self.loc,
            lines,
        )

    def _gather(self, part: Any, first: int, count: int, activation: int, vector: int) -> None:
        """Loads of the windows of `count` output pixels, one instruction per row of them."""
        w, planes = self.window, self.format["planes"]
        y0, rows, x0, columns, word, words = part
        pixel = self.layout["source_pixel_words"]
        self.emit.state(
            "load_geometry",
            {
                "height": w["height"],
                "width": w["width"],
                "kernel_y": rows,
                "kernel_x": columns,
                "dilation_y": w["dilations"][0],
                "dilation_x": w["dilations"][1],
                "stride_x": w["strides"][1],
                "run_words": words * planes,
            },
            self.loc,
        )
        self.emit.state(
            "load_layout",
            {
                "padding": self.padding + word * planes,
                "pixel_words": pixel,
                "row_words": w["width"] * pixel,
                "vector_words": vector,
                "coding": self.layout["source_coding"],
            },
            self.loc,
        )
        done = 0
        while done < count:
            row, column = divmod(first + done, w["out_width"])
            image, row = divmod(row, w["out_height"])
            length = min(count - done, w["out_width"] - column)
            self.emit(
                "load_activations",
                {
                    "address": self.source + word * planes + image * w["height"] * w["width"] * pixel,
                    "activation": activation,
                    "first": done,
                    "count": length,
                    "y": row * w["strides"][0] - w["top"] + y0 * w["dilations"][0],
                    "x": column * w["strides"][1] - w["left"] + x0 * w["dilations"][1],
                },
                self.loc,
            )
            done += length

    def _load_residual(self, chunk: dict[str, Any], first: int, count: int, groups: int) -> int:
        if not self.sum:
            return 0
        planes = self.sum["planes"]
        run = chunk["words"] * planes
        place = self.residuals.take(groups * run)
        self.emit(
            "load_residual",
            {
                "address": self.residual + first * self.sum["pixel_words"] + chunk["first"] * planes,
                "residual": place,
                "first": 0,
                "count": count,
                "run_words": run,
                "pixel_words": self.sum["pixel_words"],
                "coding": self.sum["coding"],
            },
            self.loc,
        )
        return place

    def _execute_state(self, vector: int) -> None:
        keys = ("planes", "signed", "weight_planes", "weight_signed", "bipolar")
        self.emit.state("execute_mode", {**{k: self.format[k] for k in keys}, "vector_words": vector}, self.loc)

    def _post_state(self, chunk: dict[str, Any]) -> None:
        rounding = BY_NAME["post_requantize"].fields[4].words.index(self.post["rounding"])
        self.emit.state(
            "post_requantize",
            {**{k: self.post[k] for k in ("zero_point", "low", "high", "bits")}, "rounding": rounding, "channels": chunk["outputs"]},
            self.loc,
        )
        if not self.sum:
            self.emit.state("post_residual", _OFF, self.loc)
            return
        scale = ("multiplier_a", "multiplier_b", "shift", "zero_a", "zero_b")
        self.emit.state("post_residual_scale", {k: self.sum[k] for k in scale}, self.loc)
        self.emit.state(
            "post_residual",
            {
                "enable": 1,
                **{k: self.sum[k] for k in ("planes", "signed", "zero_point", "low", "high")},
                "residual_words": chunk["words"] * self.sum["planes"],
            },
            self.loc,
        )
