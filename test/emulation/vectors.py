"""AVX-512 and AVX-VNNI for machines without them: `emulate(text)` makes calls of the C functions in vector_instructions.c out of the
instructions in a module of codelets, so that codelets for every instruction set run and are compared with the reference everywhere.

What is a plain vector operation in LLVM needs nothing: LLVM spells it in the instructions that there are.
"""

from __future__ import annotations

import re
from pathlib import Path

from qcc.compiler.targets.cpu import FEATURES, host_feature_mask
from test.emulation import amx

SOURCE = Path(__file__).resolve().with_name("vector_instructions.c")
INTRINSICS = {  # what LLVM calls it, without the width -> instruction
    "x86.avx512.vpdpbusd": "vpdpbusd",
    "x86.avx512.vpdpwssd": "vpdpwssd",
    "x86.avx512.pmaddw.d": "vpmaddwd",
    "x86.avx512.pmaddubs.w": "vpmaddubsw",
    "x86.avx512.packssdw": "vpackssdw",
    "x86.avx512.packuswb": "vpackuswb",
    "x86.avx512.pshuf.b": "vpshufb",
    "x86.avx512.permvar.qi": "vpermb",
    "x86.avx512.permvar.sf": "vpermps",
    "x86.avx512.vpermi2var.qi": "vpermi2b",
    "x86.avx512.vpermi2var.d": "vpermi2d",
    "x86.avx512.vpermi2var.ps": "vpermi2d",
    "x86.avx512.mask.scalef.ps": "vscalefps",
    "x86.avx512bf16.dpbf16ps": "vdpbf16ps",
    "masked.expandload.v64i8": "vpexpandb",
    "masked.expandload.v16f32": "vexpandps",
}
CALL = re.compile(r'llvm\.call_intrinsic "llvm\.((?:x86\.avx512(?:bf16)?|masked\.expandload)[^"]*)"\((.*?)\) : \((.*)\) -> (.*)')
ASSEMBLY = re.compile(r'llvm\.inline_asm "(\w+) ([^"]*)", "[^"]*" (.*?) : \((.*)\) -> (.*)')
OF_AVX2 = {"vpaddd"}  # instructions in assembly that stay what they are
IN_MEMORY = re.compile(r"(\d+)\(\$\d\)")


def host_features() -> frozenset[str]:
    mask = host_feature_mask()
    return frozenset(name for i, name in enumerate(FEATURES) if mask >> i & 1)


def library() -> str:
    """The compiled functions, to be loaded by whoever runs the module."""
    return amx.build(SOURCE, "-ffp-contract=off", "-mfma", "-lm")._name


def emulate(text: str) -> str:
    """The module of codelets `text`, in the LLVM dialect, with calls instead of instructions."""
    wrappers: dict[str, str] = {}

    def call(instruction: str, operands: str, kinds: str, result: str, memory: int | None = None) -> str:
        name = f"emulated_{instruction}_{re.sub(r'[^a-z0-9]+', '_', kinds)}" + (f"_{memory}" if memory is not None else "")
        wrappers[name] = _wrapper(name, instruction, re.findall(r"vector<\w+>|!llvm\.ptr|\w+", kinds), result, memory)
        return f"llvm.call @{name}({operands}) : ({kinds}) -> {result}"

    def intrinsic(found: re.Match[str]) -> str:
        name, *rest = found.groups()
        return call(INTRINSICS[re.sub(r"\.\d+$", "", name)], *rest)

    def assembly(found: re.Match[str]) -> str:
        instruction, written, *rest = found.groups()
        if instruction in OF_AVX2:
            return found[0]
        memory = IN_MEMORY.search(written)
        return call(instruction, *rest, memory=int(memory[1]) if memory else None)

    text = ASSEMBLY.sub(assembly, CALL.sub(intrinsic, text))
    used = {w for wrapper in wrappers.values() for w in re.findall(r"@(v\w+)\(", wrapper)}
    declared = [f"llvm.func @{name}(!llvm.ptr, i64, !llvm.ptr)" for name in sorted(used)]
    end = text.rindex("}")
    return "\n".join([text[:end], *declared, *wrappers.values(), text[end:]])


def _wrapper(name: str, instruction: str, kinds: list[str], result: str, memory: int | None) -> str:
    """A function of values around the one of places in memory. With `memory`, the last operand is read so many bytes behind a pointer."""
    lines = ["%one = llvm.mlir.constant(1 : i64) : i64", f"%result = llvm.alloca %one x {result} : (i64) -> !llvm.ptr"]
    lines += [f"%count = llvm.mlir.constant({len(kinds)} : i64) : i64", "%table = llvm.alloca %count x !llvm.ptr : (i64) -> !llvm.ptr"]
    for i, kind in enumerate(kinds):
        if memory is not None and i == len(kinds) - 1:
            lines.append(f"%at{i} = llvm.getelementptr %v{i}[{memory}] : (!llvm.ptr) -> !llvm.ptr, i8")
        else:
            lines += [f"%at{i} = llvm.alloca %one x {kind} : (i64) -> !llvm.ptr", f"llvm.store %v{i}, %at{i} : {kind}, !llvm.ptr"]
        lines += [f"%entry{i} = llvm.getelementptr %table[{i}] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr"]
        lines += [f"llvm.store %at{i}, %entry{i} : !llvm.ptr, !llvm.ptr"]
    count, element = re.fullmatch(r"vector<(\d+)x[if](\d+)>", result).groups()  # type: ignore[union-attr]
    lines += [f"%size = llvm.mlir.constant({int(count) * int(element) // 8} : i64) : i64"]
    lines += [f"llvm.call @{instruction}(%result, %size, %table) : (!llvm.ptr, i64, !llvm.ptr) -> ()"]
    lines += [f"%value = llvm.load %result : !llvm.ptr -> {result}", f"llvm.return %value : {result}"]
    arguments = ", ".join(f"%v{i}: {kind}" for i, kind in enumerate(kinds))
    body = "\n  ".join(lines)
    return f'llvm.func internal @{name}({arguments}) -> {result} attributes {{passthrough = ["noinline"]}} {{\n  {body}\n}}'
