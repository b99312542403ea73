"""Runs tiled form without the runtime: every buffer on its own and full of garbage, every task of a codelet by itself and backwards."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from torch_mlir.execution_engine import ExecutionEngine

from qcc.compiler.targets.cpu import ISA_FEATURES
from qcc.dialects.mlir import create_context, ir, op_attribute, parse_module, passmanager
from qcc.passes.base import PassContext, make_pass, parse_pipeline, run_pipeline
from qcc.runtime.reference import interpreter
from test.emulation import amx, vectors

LOWER = "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-arith-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)"
GARBAGE = 0xA5
AMX_FEATURES = frozenset({"amx-tile", "amx-int8", "amx-bf16"})


class Tiled:
    """A module in integer form, compiled; call it with numpy arrays."""

    streamed = False  # weights are decoded right before they are read, so that large layers are cut into parts

    def __init__(
        self, module: ir.Module, isa: str, activations: str = "auto", *, byte_expand: bool = False, popcount: bool = False
    ) -> None:
        wanted = ISA_FEATURES[isa] | ({"avx512vbmi2"} if byte_expand else set())
        options = f"isa={isa} activations={activations} byte-expand={str(byte_expand).lower()} popcount={str(popcount).lower()}"
        options += f" streamed={str(self.streamed).lower()}"
        run_pipeline(module, parse_pipeline(f"assign-layout,lower-to-codelets{{{options}}}"))
        self.text = str(module)
        self.inputs: dict[int, np.ndarray] = {}
        self.outputs: dict[int, np.ndarray] = {}
        self.behind: list[np.ndarray] = []  # what lies behind the caller's arrays
        self.calls: list[tuple[str, list[np.ndarray], int]] = []
        self.scratch = _aligned(1 << 22)
        self._read_main(module)
        with module.context, ir.Location.unknown():
            for function in list(module.body.operations):
                if op_attribute(function, "qtile.codelet") is None:
                    function.operation.erase()
            make_pass("generate-codelets").run(module, PassContext())
            passmanager.PassManager.parse(LOWER).run(module.operation)
            here, libraries = vectors.host_features(), []
            if not wanted - AMX_FEATURES <= here:
                module, libraries = parse_module(vectors.emulate(str(module)), module.context), [vectors.library()]
            if isa == "amx":
                features = ",".join(f"+{name}" for name in sorted(wanted & here | AMX_FEATURES))
                run_pipeline(module, parse_pipeline(f"attach-target{{cpu=x86-64 features={features}}}"))
            self.engine = ExecutionEngine(module, opt_level=2, shared_libs=libraries)
        if isa == "amx":
            amx.install()  # last, because LLVM may have taken the signal for itself
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.functions = {name: kind(self.engine.raw_lookup(name)) for name, _, _ in self.calls}

    def _read_main(self, module: ir.Module) -> None:
        main = next(f for f in module.body.operations if op_attribute(f, "sym_name") == "main")
        places: dict[Any, np.ndarray] = {}
        for view in main.regions[0].blocks[0].operations:
            op = view.operation
            if op.name == "qtile.buffer":
                size = op_attribute(op, "size_bytes")
                memory = _aligned(size + 64)
                memory, behind = memory[:size], memory[size:]
                value = op_attribute(op, "value")
                if value is not None:
                    memory[: value.nbytes] = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
                spaces = {"input": self.inputs, "output": self.outputs}
                if (space := op_attribute(op, "space")) in spaces:
                    spaces[space][op_attribute(op, "index")] = memory
                    self.behind.append(behind)
                places[op.results[0]] = memory
            elif op.name == "func.call":
                offsets = op_attribute(op, "qtile.offset_bytes") or [0] * len(op.operands)
                operands = [places[v][offset:] for v, offset in zip(op.operands, offsets, strict=True)]
                self.calls.append((op_attribute(op, "callee"), operands, op_attribute(op, "qtile.tasks")))

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        for i, array in enumerate(arrays):
            self.inputs[i][:] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        for name, operands, tasks in self.calls:
            table = (ctypes.c_void_p * len(operands))(*[b.ctypes.data for b in operands])
            for task in reversed(range(tasks)):
                values = [
                    ctypes.c_void_p(ctypes.addressof(table)),
                    ctypes.c_int64(task),
                    ctypes.c_int64(task + 1),
                    ctypes.c_void_p(self.scratch.ctypes.data),
                ]
                packed = (ctypes.c_void_p * 4)(*[ctypes.addressof(v) for v in values])
                self.functions[name](ctypes.addressof(packed))
        assert all((behind == GARBAGE).all() for behind in self.behind), "written behind the caller's memory"
        return [self.outputs[i] for i in range(len(self.outputs))]


def _aligned(size: int) -> np.ndarray:
    memory = np.full(size + 64, GARBAGE, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def check(
    text: str, inputs: list[np.ndarray], isa: str, *, tolerance: float = 0.0, activations: str = "auto", popcount: bool = False,
    byte_expand: bool = False,
) -> Tiled:  # fmt: skip
    """Assert that codelets for `isa` give what the reference gives for `text`: bit for bit, or within `tolerance` for floats."""
    context = create_context()
    expected = interpreter.run(parse_module(text, context), inputs)
    tiled = Tiled(parse_module(text, context), isa, activations, popcount=popcount, byte_expand=byte_expand)
    for want, raw in zip(expected, tiled(*inputs), strict=True):
        got = raw.view(want.dtype).reshape(want.shape)
        if tolerance:
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(got, want)
    return tiled


class Text:
    """Integer-form module text, written line by line: `t.op("qcc.add", [a, b], kind, attributes)` returns the new value."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.types: dict[str, str] = {}
        self.arguments: list[str] = []

    def argument(self, kind: str) -> str:
        name = f"%x{len(self.arguments)}"
        self.arguments.append(name)
        self.types[name] = kind
        return name

    def op(self, name: str, operands: list[str], kind: str, attributes: str = "") -> str:
        value = f"%{len(self.types)}"
        self.types[value] = kind
        types = ", ".join(self.types[v] for v in operands)
        self.lines.append(f'{value} = "{name}"({", ".join(operands)}) {{{attributes}}} : ({types}) -> {kind}')
        return value

    def constant(self, array: np.ndarray, kind: str) -> str:
        container = {"int8": "i8", "uint8": "ui8", "int16": "i16", "int32": "i32", "float32": "f32", "int64": "i64", "uint16": "ui16"}[
            str(array.dtype)
        ]
        return self.op("qcc.constant", [], kind, f"value = {dense(array, container)}")

    def module(self, *results: str) -> str:
        arguments = ", ".join(f"{a}: {self.types[a]}" for a in self.arguments)
        types = ", ".join(self.types[r] for r in results)
        body = "\n  ".join(self.lines)
        return f"func.func @main({arguments}) -> ({types}) {{\n  {body}\n  return {', '.join(results)} : {types}\n}}"


def dense(array: np.ndarray, container: str) -> str:
    """`dense<...> : tensor<...>`; floats by their exact bits."""
    shape = "x".join(map(str, array.shape)) + "x" if array.ndim else ""
    if array.dtype == np.float32:
        body = _nested(array, lambda v: f"0x{int(np.float32(v).view(np.uint32)):08X}")
    else:
        body = str(array.tolist())
    return f"dense<{body}> : tensor<{shape}{container}>"


def _nested(array: np.ndarray, spell: Any) -> str:
    if array.ndim == 0:
        return spell(array[()])
    return "[" + ", ".join(_nested(part, spell) for part in array) + "]"


def quantized(bits: int, signed: bool, scale: float, zero: int) -> str:
    """`!quant.uniform` with one scale."""
    return f"!quant.uniform<{'i' if signed else 'u'}{bits}:f32, {scale!r}:{zero}>"
