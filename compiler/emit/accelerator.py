"""From the isa form to an executable: programs, weight image, and host segments compiled for this CPU or kept for the reference."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import qcc
from qcc.compiler.emit.metadata import tensor_entry
from qcc.dialects import element_types, weights
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import error_at, ir, layer_name, op_attribute, python_value, walk
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import BY_NAME, INSTRUCTION_BYTES, UNITS
from qcc.runtime.fpga.package import Host, Package, Segment, Step
from qcc.runtime.fpga.ports import Port

if TYPE_CHECKING:
    from qcc.compiler.driver import Compilation


@dataclass
class Emitted:
    """Everything the isa form says about the accelerator."""

    configuration: Configuration
    arena_bytes: int
    weights: bytes
    segments: dict[str, Segment]


def emit(module: ir.Module) -> Emitted:
    """Read a module in isa form."""
    attributes = module.operation.attributes
    functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
    segments: dict[str, Segment] = {}
    for function in functions.values():
        if "qisa.segment" not in function.attributes:
            continue
        name = op_attribute(function, "qisa.segment")
        operations = [op for op in walk(function) if op.name.startswith("qisa.")]
        declared = functions[name].attributes
        ports = [tuple(Port.from_dict(found) for found in python_value(declared[key])) for key in ("qisa.inputs", "qisa.outputs")]
        layers = tuple(layer_name(op.location) for op in operations)
        segments[name] = Segment(tuple(word_of(op) for op in operations), layers, *ports)
    image = weights.array_of(attributes["qisa.weights"]) if "qisa.weights" in attributes else np.zeros(0, np.int8)
    memory = python_value(attributes["qcc.accelerator_memory"])
    return Emitted(Configuration.from_dict(python_value(attributes["qcc.accelerator"])), memory["arena_bytes"], image.tobytes(), segments)


def word_of(op: Any) -> Word:
    """The instruction that a qisa operation stands for."""
    row = BY_NAME[op.name.removeprefix("qisa.")]
    attributes = op.attributes
    fields = {f.name: f.words.index(attributes[f.name].value) if f.words else attributes[f.name].value for f in row.fields}
    masks = [sum(1 << UNITS.index(unit) for unit in op_attribute(op, key, [])) for key in ("wait", "signal")]
    return Word(row.name, fields, *masks)


def executable(compilation: Compilation, module: ir.Module, *, clock_mhz: float, threads: int | None = None) -> Any:
    """The executable of a compilation whose `module` is in isa form; `clock_mhz` turns its cycles into seconds."""
    from qcc.compiler import driver
    from qcc.runtime.fpga.executable import FpgaExecutable

    with module.context, ir.Location.unknown():
        emitted = emit(module)
        hosts = {name: _host(module, function, compilation) for name, function in _host_functions(module).items()}
        steps, results = _steps(module)
        info: dict[str, Any] = {
            "producer": f"qcc {qcc.__version__}",
            "target": "fpga",
            "device": compilation.options.device,
            "clock_mhz": clock_mhz,
            "fingerprint": compilation.options.fingerprint,
            "inputs": _specs(compilation, "inputs"),
            "outputs": _specs(compilation, "outputs"),
            "stream_bytes": sum(len(s.words) for s in emitted.segments.values()) * INSTRUCTION_BYTES,
            "weight_image_bytes": len(emitted.weights),
            "arena_bytes": emitted.arena_bytes,
        }
        layers = {name: segment.layers for name, segment in emitted.segments.items()}
        layers |= {name: [layer_name(op.location) for op in walk(function)] for name, function in _host_functions(module).items()}
    report = driver.report_base(compilation, {})
    info["report"] = {key: value for key, value in report.items() if key != "seconds"}
    info["report"]["partition"] = [
        {
            "segment": step.name,
            "runs_on": "accelerator" if step.name in emitted.segments else "host",
            "layers": [name for name in dict.fromkeys(layers[step.name]) if name],
        }
        for step in steps
    ]
    package = Package(
        emitted.configuration,
        emitted.arena_bytes,
        emitted.weights,
        emitted.segments,
        hosts,
        steps,
        results,
        json.loads(json.dumps(info, default=_plain)),
    )
    package.check()
    made = FpgaExecutable(package, threads=threads)
    _predict(made)
    made.report["seconds"] = report["seconds"]
    return made


def _predict(made: Any) -> None:
    """Put the predicted cycles into the report, and into its rows for layers that run on the accelerator."""
    trace = made.predict()
    made.report["accelerator"] = {
        "cycles": trace.cycles or 0,
        "milliseconds": trace.milliseconds or 0.0,
        "clock_mhz": trace.clock_mhz,
        "dram_bytes": trace.dram_bytes,
        "busy": trace.busy,
        "layers": trace.layers,
    }
    cycles = {row["name"]: row["busy"]["execute"] for row in trace.layers}
    for row in made.report["layers"]:
        row["predicted_cycles"] = cycles.get(row["name"])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _main(module: ir.Module) -> Any:
    return next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == "main")


def _specs(compilation: Compilation, which: str) -> list[dict[str, Any]]:
    main = _main(compilation.module)
    kind = ir.FunctionType(main.attributes["function_type"].value)
    names = op_attribute(main, f"qcc.{which}", getattr(compilation.imported, which))  # kept layers are outputs too
    return [tensor_entry(name, t) for name, t in zip(names, kind.inputs if which == "inputs" else kind.results, strict=True)]


def _host_functions(module: ir.Module) -> dict[str, Any]:
    return {op_attribute(f, "sym_name"): f for f in walk(module, "func.func") if op_attribute(f, "qcc.segment") == "host"}


def _steps(module: ir.Module) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The calls of `@main`, with values numbered from its arguments upward."""
    block = _main(module).regions[0].blocks[0]
    numbers: dict[Any, int] = {argument: i for i, argument in enumerate(block.arguments)}
    steps: list[Step] = []
    for view in block.operations:
        op = view.operation
        if op.name == "func.call":
            inputs = tuple(numbers[v] for v in op.operands)
            numbers |= {value: len(numbers) + i for i, value in enumerate(op.results)}
            dtypes = tuple(element_types.storage_dtype(v.type).name for v in op.results)
            steps.append(Step(op_attribute(op, "callee"), inputs, tuple(numbers[v] for v in op.results), dtypes))
        elif op.name == "func.return":
            if constant := [v for v in op.operands if v not in numbers]:
                raise error_at(constant[0].owner, "the model returns a constant, expected outputs that depend on its inputs")
            return tuple(steps), tuple(numbers[v] for v in op.operands)
    raise AssertionError("@main has no return")


def _host(module: ir.Module, function: Any, compilation: Compilation) -> Host:
    """A host segment compiled by the CPU's pipeline; as text for the reference where that pipeline cannot take it."""
    alone = _module_of(module, function)
    text = alone.operation.get_asm(enable_debug_info=True)
    try:
        return Host("elf", _compiled(alone, compilation.options.cpu))
    except QccError as error:
        compilation.context.remarks.append(f"{op_attribute(function, 'sym_name')}: interpreted on the host, because {error}")
        return Host("mlir", text.encode())


def _compiled(module: ir.Module, cpu: str) -> bytes:
    """The CPU artefact of a module in integer form, for CPU `cpu`."""
    from qcc.compiler import pipeline
    from qcc.compiler.emit import program
    from qcc.compiler.options import CompileOptions
    from qcc.compiler.targets.cpu import CpuTarget
    from qcc.passes.base import PassContext, run_pipeline

    options = CompileOptions(target="cpu", cpu=cpu)
    for name, stages in pipeline.forms(options):
        if name in ("tiled", "llvm"):
            run_pipeline(module, stages, PassContext())
    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        path = Path(folder) / "host.so"
        program.executable(module, CpuTarget(options.cpu)).save(path)
        return path.read_bytes()


def _module_of(module: ir.Module, function: Any) -> ir.Module:
    """A module with `function` as its `@main` and the functions that it calls."""
    alone = ir.Module.create(function.location)
    functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
    at = ir.InsertionPoint(alone.body)
    copy = function.clone(ip=at).operation
    copy.attributes["sym_name"] = ir.StringAttr.get("main")
    for name in ("sym_visibility", "qcc.segment"):
        del copy.attributes[name]
    waiting, done = [function], set()
    while waiting:
        for call in walk(waiting.pop(), "func.call"):
            callee = op_attribute(call, "callee")
            if callee not in done:
                done.add(callee)
                functions[callee].clone(ip=at)
                waiting.append(functions[callee])
    return alone
