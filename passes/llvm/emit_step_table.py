"""Turn `@main` of the planned tiled form into constant tables that the CPU runtime walks.

Before:
    func.func @main() attributes {qcc.inputs = [{name = "x", ...}], qcc.outputs = [...], qtile.arena_bytes = 0, qtile.weights_bytes = 64} {
      %x = "qtile.buffer"() {space = "input", index = 0, ...}    %w = "qtile.buffer"() {space = "weights", value = ..., ...}   %y = ...
      func.call @linear(%x, %w, %y) {qtile.tasks = 4, qtile.layer = "fc"} : ...
    }
    func.func private @linear(...) attributes {qtile.codelet = {...}}
After:
    module attributes {qcc.inputs, qcc.outputs, qcc.weights = [{offset_bytes, value, recipe?, looked_up?}], qcc.weights_bytes,
                       qcc.arena_bytes, qcc.steps = [{codelet, layer, tasks, bytes, weights, stored?, operation?}]}
    llvm.mlir.global internal constant @qcc_steps(dense<[[0, 3, 4, 0]]> : tensor<1x4xi64>) ...
    llvm.mlir.global constant @qcc_model_program ...           // struct qcc_program of runtime/cpu/include/qcc_runtime.h
    llvm.func @qcc_program_address() -> !llvm.ptr
    llvm.func @linear(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qtile.codelet = {...}}

The calls of a `qtile.group` give one step for every slice: all of the first slice, then all of the next.
Generic functions keep their bodies as `func.func private @<name>.body` for `lower-generic-functions`.

Requires: the tiled form of decision 0002 after `bufferize-generic-functions` and `plan-memory`.
Guarantees: no `qtile` operation is left; codelets without a body are declared for `generate-codelets`; weights stay out of LLVM.
Why: a table walked by a small runtime gives per-layer times, any number of threads and contexts, and compiles in no time, where a
function with one call per layer gives none of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qcc.dialects import qtile, weights
from qcc.dialects.codelet import weight_operands
from qcc.dialects.mlir import error_at, ir, layer_name, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext

MAGIC = 0x32474F5250434351  # QCC_PROGRAM_MAGIC of the runtime's header
# enum qcc_space; states and scratch lie in the arena
SPACES = {
    "input": 0,
    "output": 1,
    "state": 2,
    "arena": 2,
    "scratch": 2,
    "weights": 3,
}  # enum qcc_space
PROGRAM_TYPE = "!llvm.struct<(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, ptr, ptr, ptr, ptr, ptr)>"
_FUNC_ATTRIBUTES = ("sym_name", "function_type", "sym_visibility", "arg_attrs", "res_attrs", "llvm.emit_c_interface")


@dataclass
class _Tables:
    codelets: list[str] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    operands: list[list[int]] = field(default_factory=list)
    strings: bytearray = field(default_factory=bytearray)
    positions: dict[str, int] = field(default_factory=dict)

    def string(self, text: str) -> int:
        """Byte offset of `text` in the string table."""
        if text not in self.positions:
            self.positions[text] = len(self.strings)
            self.strings += text.encode() + b"\0"
        return self.positions[text]


@dataclass(frozen=True)
class StepTableOptions:
    """`cpu-features`: bits of the runtime's enum qcc_cpu_feature that the code will need."""

    cpu_features: int = 0


class EmitStepTablePass(Pass):
    name = "emit-step-table"
    Options = StepTableOptions

    def run(self, module: ir.Module, context: PassContext) -> None:
        functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
        main = functions.pop("main", None)
        if main is None:
            raise error_at(module.operation, "module has no function 'main', expected the tiled form")
        attributes = module.operation.attributes
        for key in ("qcc.inputs", "qcc.outputs", "qtile.arena_bytes", "qtile.weights_bytes"):
            if key not in main.attributes:
                raise error_at(main, f"'main' has no attribute '{key}', expected the tiled form after plan-memory")
            attributes[key.replace("qtile.", "qcc.")] = main.attributes[key]
        tables, calls = _Tables(), [op for op in main.regions[0].blocks[0].operations if op.operation.name == "func.call"]
        in_order = [(call.operation, i) for call, i in qtile.runs(calls)]
        for call, i in in_order:
            _add_step(tables, call, i)
        operands_of = {name: weight_operands(op_attribute(f, "qtile.codelet", {})) for name, f in functions.items()}
        states, initial = _states(main)
        if states:
            attributes["qcc.states"] = to_attribute(states)
        attributes["qcc.weights"] = _weights(main, _looked_up(calls, functions))
        attributes["qcc.steps"] = to_attribute(
            [
                {
                    "codelet": op_attribute(call, "callee"),
                    "layer": _layer(call),
                    "tasks": op_attribute(call, "qtile.tasks", 1),
                    "bytes": _bytes(call),
                    "weights": _weight_offsets(call),
                    **_stored(call, operands_of[op_attribute(call, "callee")]),
                    **({"operation": op_attribute(call, "qtile.operation")} if "qtile.operation" in call.attributes else {}),
                }
                for call, _ in in_order
            ]
        )
        scratch_bytes = max(
            (op_attribute(f, "qtile.scratch_bytes", 0) for f in walk(module) if "qtile.scratch_bytes" in f.attributes), default=0
        )
        state_bytes, arena_bytes, weights_bytes = (op_attribute(main, f"qtile.{space}_bytes", 0) for space in ("state", "arena", "weights"))
        sizes = [state_bytes, arena_bytes, scratch_bytes, weights_bytes]
        counts = [len(op_attribute(main, key)) for key in ("qcc.inputs", "qcc.outputs")]
        main.erase()
        for function in functions.values():
            _declare(function)
        numbers = [MAGIC, len(tables.steps), len(tables.operands), *counts, *sizes, self.options.cpu_features]
        _append(module, tables, numbers, initial)


def _layer(call: Any) -> str:
    return op_attribute(call, "qtile.layer") or layer_name(call.location)


def _bytes(call: Any) -> int:
    """Bytes of every buffer, or of its slice, that the call touches."""
    slices = [op_attribute(call, "qtile.slices", 1) if stride else 1 for stride in _strides(call)]
    return sum(op_attribute(operand.owner, "size_bytes", 0) // n for operand, n in zip(call.operands, slices, strict=True))


def _strides(call: Any) -> list[int]:
    return op_attribute(call, "qtile.slice_bytes") or [0] * len(call.operands)


def _weight_offsets(call: Any) -> list[int]:
    """Offsets in the block of weights of those that the call reads."""
    buffers = [operand.owner for operand in call.operands]
    return [op_attribute(b, "offset_bytes") for b in buffers if op_attribute(b, "space") == "weights"]


def _stored(call: Any, numbers: Sequence[int]) -> dict[str, list[int]]:
    """Offsets of all that a codelet keeps its weights in, where that is more than one buffer: operands `numbers`."""
    return {"stored": [op_attribute(call.operands[n].owner, "offset_bytes") for n in numbers]} if numbers else {}


def _add_step(tables: _Tables, call: Any, i: int) -> None:
    """The step of `call` for slice `i`."""
    begin = len(tables.operands)
    offsets = op_attribute(call, "qtile.offset_bytes") or [0] * len(call.operands)
    for operand, offset, stride in zip(call.operands, offsets, _strides(call), strict=True):
        buffer = operand.owner
        if not isinstance(buffer, ir.Operation | ir.OpView) or buffer.name != "qtile.buffer":
            raise error_at(call, f"call of '{op_attribute(call, 'callee')}' has an operand that is not a qtile.buffer")
        space = op_attribute(buffer, "space")
        begins = op_attribute(buffer, "offset_bytes") + offset + i * stride
        tables.operands.append([SPACES[space], op_attribute(buffer, "index", 0), begins])
    tables.codelets.append(op_attribute(call, "callee"))
    tables.steps.append([begin, len(call.operands), op_attribute(call, "qtile.tasks", 1), tables.string(_layer(call))])


def _states(main: Any) -> tuple[list[dict[str, Any]], bytes]:
    """[{name, type, offset_bytes}] of the states, and what their part of the arena holds at first: nothing where all are zeros."""
    buffers = [b for b in walk(main, "qtile.buffer") if op_attribute(b, "space") == "state"]
    offsets = {op_attribute(b, "index"): op_attribute(b, "offset_bytes") for b in buffers}
    named = main.attributes["qcc.states"] if buffers else []
    described = [{"name": n["name"], "type": n["type"], "offset_bytes": offsets[i]} for i, n in enumerate(named)]
    initial = bytearray(op_attribute(main, "qtile.state_bytes") if any("value" in b.attributes for b in buffers) else 0)
    for buffer in buffers:
        if "value" in buffer.attributes:
            first, held = op_attribute(buffer, "offset_bytes"), weights.array_of(buffer.attributes["value"]).tobytes()
            initial[first : first + len(held)] = held
    return described, bytes(initial)


def _looked_up(calls: Sequence[Any], functions: Mapping[str, Any]) -> set[Any]:
    """Buffers of which calls read a few rows only: tables of embeddings."""
    configs = {name: op_attribute(f, "qtile.codelet", {}) for name, f in functions.items()}
    tables = {name: config["table"]["buffer"] for name, config in configs.items() if config.get("kind") == "embedding"}
    return {call.operands[tables[callee]] for call in calls if (callee := op_attribute(call, "callee")) in tables}


def _weights(main: Any, looked_up: set[Any]) -> ir.Attribute:
    placed: dict[int, dict[str, ir.Attribute]] = {}
    for buffer in walk(main, "qtile.buffer"):
        if op_attribute(buffer, "space") == "weights":
            given = {name: buffer.attributes[name] for name in ("value", "recipe") if name in buffer.attributes}
            if buffer.results[0] in looked_up:
                given["looked_up"] = ir.UnitAttr.get()
            placed.setdefault(op_attribute(buffer, "offset_bytes"), given)
    return to_attribute([{"offset_bytes": offset, **placed[offset]} for offset in sorted(placed)])


def _declare(function: Any) -> None:
    """Declare a codelet as `llvm.func` with its attributes; a generic function's body becomes one of its own, `<name>.body`."""
    name, has_body = op_attribute(function, "sym_name"), bool(len(function.regions[0].blocks))
    if has_body and "qcc.generic" not in function.attributes:
        raise error_at(function, f"function '{name}' has a body but no 'qcc.generic', expected a codelet or a generic function")
    declared = ir.Operation.parse(f"llvm.func @{_symbol(name)}(!llvm.ptr, i64, i64, !llvm.ptr)", context=function.context)
    ir.InsertionPoint(function).insert(declared)
    for key in function.attributes:
        if key not in _FUNC_ATTRIBUTES:
            declared.attributes[key] = function.attributes[key]
    if has_body:
        function.attributes["sym_name"] = ir.StringAttr.get(f"{name}.body")
    else:
        function.erase()


def _symbol(name: str) -> str:
    return name if name.replace("_", "a").replace(".", "a").replace("$", "a").isalnum() and not name[0].isdigit() else f'"{name}"'


def _append(module: ir.Module, tables: _Tables, numbers: Sequence[int], initial: bytes) -> None:
    """Append the tables and the program structure, whose leading fields are `numbers`; `initial` is what states hold at first, if not 0."""
    steps, operands = len(tables.steps), len(tables.operands)
    fields = ["%u0 = llvm.mlir.undef : " + PROGRAM_TYPE]
    for i, number in enumerate(numbers):
        fields.append(f"%c{i} = llvm.mlir.constant({number} : i64) : i64")
        fields.append(f"%u{i + 1} = llvm.insertvalue %c{i}, %u{i}[{i}] : {PROGRAM_TYPE}")
    for i, table in enumerate(("codelets", "steps", "operands", "strings"), len(numbers)):
        fields.append(f"%c{i} = llvm.mlir.addressof @qcc_{table} : !llvm.ptr")
        fields.append(f"%u{i + 1} = llvm.insertvalue %c{i}, %u{i}[{i}] : {PROGRAM_TYPE}")
    last = len(numbers) + 4
    fields.append("%initial = llvm.mlir." + ("addressof @qcc_initial" if initial else "zero") + " : !llvm.ptr")
    fields.append(f"%u{last + 1} = llvm.insertvalue %initial, %u{last}[{last}] : {PROGRAM_TYPE}")
    fields.append(f"llvm.return %u{last + 1} : {PROGRAM_TYPE}")
    pointers = [f"%v0 = llvm.mlir.zero : !llvm.array<{steps} x ptr>"]
    for i, codelet in enumerate(tables.codelets):
        pointers.append(f"%f{i} = llvm.mlir.addressof @{_symbol(codelet)} : !llvm.ptr")
        pointers.append(f"%v{i + 1} = llvm.insertvalue %f{i}, %v{i}[{i}] : !llvm.array<{steps} x ptr>")
    pointers.append(f"llvm.return %v{steps} : !llvm.array<{steps} x ptr>")
    newline = "\n"
    held = {"strings": bytes(tables.strings) or b"\0"} | ({"initial": initial} if initial else {})
    constants = newline.join(f'llvm.mlir.global internal constant @qcc_{name}("{_text(data)}")' for name, data in held.items())
    declarations = "\n".join(f"llvm.func @{_symbol(name)}(!llvm.ptr, i64, i64, !llvm.ptr)" for name in dict.fromkeys(tables.codelets))
    text = f"""
{declarations}
llvm.mlir.global internal constant @qcc_steps({_dense(tables.steps, 4)}) : !llvm.array<{steps} x array<4 x i64>>
llvm.mlir.global internal constant @qcc_operands({_dense(tables.operands, 3)}) : !llvm.array<{operands} x array<3 x i64>>
{constants}
llvm.mlir.global internal constant @qcc_codelets() : !llvm.array<{steps} x ptr> {{
{newline.join(pointers)}
}}
llvm.mlir.global constant @qcc_model_program() : {PROGRAM_TYPE} {{
{newline.join(fields)}
}}
llvm.func @qcc_program_address() -> !llvm.ptr {{
  %a = llvm.mlir.addressof @qcc_model_program : !llvm.ptr
  llvm.return %a : !llvm.ptr
}}
"""
    parsed = ir.Module.parse(text, module.context)
    for op in list(parsed.body.operations):
        if op_attribute(op, "sym_name") not in tables.codelets:
            op.operation.detach_from_parent()
            module.body.append(op)


def _text(data: bytes) -> str:
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:02X}" for b in data)


def _dense(rows: list[list[int]], width: int) -> str:
    return f"dense<{rows if rows else '[]'}> : tensor<{len(rows)}x{width}xi64>"
