"""How fast products are that need no multiplier, beside products of bytes: the figures of decision 0010.

    python -m benchmarks.multiplier_free [--cpu native,x86-64-v3,x86-64]

Each loop keeps its accumulators in registers and its operands in the first-level cache, so a rate is what an ideal codelet could reach.
A multiply-accumulate is one weight times one activation of the stated widths, whatever computes it. A codelet shares loads among several
pixels and vectors, which serves products of bytes most.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import create_context, ir, passmanager
from qcc.passes.base import parse_pipeline, run_pipeline
from qcc.passes.llvm.codelets.builder import Address, Builder, Value
from qcc.passes.llvm.codelets.isa import isa

LOWER = "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-arith-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)"
ACCUMULATORS = 8
ROUNDS = 15
STEPS = 20000
MASK = 20480  # where in memory the mask of places is


@dataclass(frozen=True)
class Form:
    """`step(b, lanes, accumulator, w, x)`: one accumulator, addresses of its weights and of an activation; `macs` of it by lanes."""

    step: Callable[[Builder, int, Value, Address, Address], Value]
    macs: Callable[[int], int]
    needs: str = ""  # an instruction of the instruction set's module


def _broadcast(b: Builder, lanes: int, x: Address, kind: str, element: str) -> Value:
    return b.op("llvm.bitcast", [b.splat(b.load(kind, x), lanes)], f"{lanes * int(kind[1:]) // int(element[1:])}x{element}")


def _bytes(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    return b.instructions.dot4_u8s8(b, acc, _broadcast(b, lanes, x, "i32", "i8"), b.load(f"{4 * lanes}xi8", w))


def _pairs(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    """Four steps at a time, as weights of few bits are put together (decision 0002)."""
    total = None
    for i in range(4):
        products = b.instructions.pair_u8s8(b, _broadcast(b, lanes, x + 4 * i, "i32", "i8"), b.load(f"{4 * lanes}xi8", w + 4 * lanes * i))
        total = products if total is None else b.binary("add", total, products)
    return b.instructions.dot2_s16(b, acc, total, b.constant(1, f"{2 * lanes}xi16"))


def _lanes(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    weights = b.cast("sext", b.load(f"{lanes}xi8", w), "i32")
    return b.binary("add", acc, b.binary("mul", weights, b.splat(b.cast("zext", b.load("i8", x), "i32"), lanes)))


def _negate(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    """Add or subtract by a mask of weights that are stored as 0 and -1."""
    mask = b.cast("sext", b.load(f"{lanes}xi8", w), "i32")
    value = b.splat(b.cast("zext", b.load("i8", x), "i32"), lanes)
    return b.binary("add", acc, b.binary("sub", b.binary("xor", value, mask), mask))


def _masked(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    """Add where a bit is set, in lanes of 16 bits: twice the sum of what is added less the sum of all is the binary product."""
    mask = b.op("llvm.bitcast", [b.load(f"i{2 * lanes}", w)], f"{2 * lanes}xi1")
    narrow = b.op("llvm.bitcast", [acc], f"{2 * lanes}xi16")
    value = b.splat(b.load("i16", x), 2 * lanes)
    return b.op("llvm.bitcast", [b.select(mask, b.binary("add", narrow, value), narrow)], f"{lanes}xi32")


def _planes(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    """Binary weights times 8-bit activations, plane by plane: 32 of the reduction a lane."""
    weights = b.load(f"{lanes}xi32", w)
    for plane in range(8):
        both = b.binary("and", weights, b.splat(b.load("i32", x + 4 * plane), lanes))
        counted = b.call(f"llvm.ctpop.v{lanes}i32", [both], f"{lanes}xi32")
        acc = b.binary("add", acc, b.binary("shl", counted, b.like(plane, counted)) if plane else counted)
    return acc


def _shift(b: Builder, lanes: int, acc: Value, w: Address, x: Address) -> Value:
    """Log2 weights: shift by the exponent in the low bits, negate by the sign."""
    weights = b.cast("sext", b.load(f"{lanes}xi8", w), "i32")
    value = b.splat(b.cast("zext", b.load("i8", x), "i32"), lanes)
    shifted = b.binary("shl", value, b.binary("and", weights, b.like(15, weights)))
    mask = b.binary("ashr", weights, b.like(31, weights))
    return b.binary("add", acc, b.binary("sub", b.binary("xor", shifted, mask), mask))


FORMS = {
    "bytes": Form(_bytes, lambda lanes: 4 * lanes, "dot4_u8s8"),
    "bytes, vpmaddubsw in fours": Form(_pairs, lambda lanes: 16 * lanes, "pair_u8s8"),
    "bytes, 32-bit lanes": Form(_lanes, lambda lanes: lanes),
    "binary x 8 bits: add or subtract, 32-bit lanes": Form(_negate, lambda lanes: lanes),
    "binary x 8 bits: masked add, 16-bit lanes": Form(_masked, lambda lanes: 2 * lanes),
    "binary x 8 bits: eight planes of population counts": Form(_planes, lambda lanes: 32 * lanes),
    "log2 x 8 bits: shift and negate, 32-bit lanes": Form(_shift, lambda lanes: lanes),
}


def loop(form: Form, target: CpuTarget) -> Any:
    """The loop as a function of nothing; keeps its code and operands alive."""
    from torch_mlir.execution_engine import ExecutionEngine

    lanes = ISAS[target.isa].lanes
    context = create_context()
    with context, ir.Location.unknown():
        module = ir.Module.create()
        b = Builder(isa(target.isa))
        wide = [ir.ArrayAttr.get([ir.StringAttr.get("prefer-vector-width"), ir.StringAttr.get("512")])] if lanes == 16 else []
        attributes = {
            "sym_name": ir.StringAttr.get("loop"),
            "function_type": ir.TypeAttr.get(ir.Type.parse("!llvm.func<void (ptr, i64)>")),
            "CConv": ir.Attribute.parse("#llvm.cconv<ccc>"),
            "linkage": ir.Attribute.parse("#llvm.linkage<external>"),
            "visibility_": ir.IntegerAttr.get(b.type("i64"), 0),
            "llvm.emit_c_interface": ir.UnitAttr.get(),
        }
        if wide:
            attributes["passthrough"] = ir.ArrayAttr.get(wide)
        with ir.InsertionPoint(module.body):
            function = ir.Operation.create("llvm.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(b.type("ptr"), b.type("i64"))
        data, count = block.arguments
        with ir.InsertionPoint(block):
            mask = b.load("i64", Address(data, MASK))  # places go round, by a number that is not known, or all would be computed once

            def body(i: Value, *acc: Value) -> list[Value]:
                at = b.at(data, b.binary("and", b.mul(i, 64), mask))
                return [form.step(b, lanes, a, at + 256 * n, at + 8192 + 16 * (n % 2)) for n, a in enumerate(acc)]

            done = b.loop(0, count, 1, body, [b.constant(0, f"{lanes}xi32")] * ACCUMULATORS)
            for n, value in enumerate(done):
                b.store(value, Address(data, 16384 + 64 * n))
            ir.Operation.create("llvm.return")
        passmanager.PassManager.parse(LOWER).run(module.operation)
        options = target.stage_options()
        run_pipeline(module, parse_pipeline(f"attach-target{{cpu={options['cpu']} features={options['cpu_features']}}}"))
        engine = ExecutionEngine(module, opt_level=3)
    memory = np.random.default_rng(0).integers(0, 256, 1 << 15).astype(np.uint8)
    memory[MASK : MASK + 8] = np.array([15 * 64]).view(np.uint8)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.raw_lookup("loop"))
    values = [ctypes.c_void_p(memory.ctypes.data), ctypes.c_int64(STEPS)]
    packed = (ctypes.c_void_p * 2)(*[ctypes.addressof(v) for v in values])

    def run(alive: Any = (engine, memory, values)) -> None:
        call(ctypes.addressof(packed))

    return run


def measure(target: CpuTarget) -> dict[str, float]:
    """Multiply-accumulates per ns of every form, medians of an interleaved run."""
    instructions = isa(target.isa)
    forms = {name: form for name, form in FORMS.items() if not form.needs or hasattr(instructions, form.needs)}
    loops = {name: loop(form, target) for name, form in forms.items()}
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, run in loops.items():
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            found[name].append(forms[name].macs(ISAS[target.isa].lanes) * ACCUMULATORS * STEPS / seconds / 1e9)
    return {name: statistics.median(rates) for name, rates in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="native,cascadelake,x86-64-v4,x86-64-v3,x86-64", help="CPU names, this machine has to run them")
    for cpu in parser.parse_args().cpu.split(","):
        target = CpuTarget(cpu)
        rates = measure(target)
        best = max(rate for name, rate in rates.items() if name.startswith("bytes"))
        print(f"{cpu} ({target.isa})")
        for name, rate in rates.items():
            print(f"  {name:52} {rate:8.1f} GMAC/s  {rate / best:5.2f}x of bytes")


if __name__ == "__main__":
    main()
