"""From the llvm form to machine code through the bindings' ExecutionEngine: in memory, as an object file, and as text."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir

PROGRAM_ADDRESS = "qcc_program_address"  # the function that `emit-step-table` makes


class MachineCode:
    """Machine code of one module; compiled at the first use, once for both uses."""

    def __init__(self, module: ir.Module) -> None:
        self._module = module
        self._engine: Any = None

    def _compiled(self) -> Any:
        if self._engine is None:
            from torch_mlir.execution_engine import ExecutionEngine

            _align_loops()
            self._engine = ExecutionEngine(self._module, opt_level=3, enable_pic=True)
        return self._engine

    def program_address(self) -> int:
        """Address of the `qcc_program` in this process; valid as long as this object lives."""
        # The engine finds functions by wrappers that take an array of pointers to arguments, the last to the result.
        result = ctypes.c_size_t()
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._wrapper())((ctypes.c_void_p * 1)(ctypes.addressof(result)))
        return result.value

    def _wrapper(self) -> int:
        wrapper = self._compiled().raw_lookup(PROGRAM_ADDRESS)
        if not wrapper:
            raise RuntimeError("the code generator made no program: the just-in-time linker found an undefined symbol")
        return wrapper

    def write_object(self, path: Path) -> None:
        """Write the relocatable object file."""
        self._wrapper()  # compiles; without code the engine would look up every function first, and give up at an internal one
        self._compiled().dump_to_object_file(str(path))
        if not path.is_file():
            raise RuntimeError("the code generator wrote no object file")


@functools.cache
def _align_loops() -> None:
    """Innermost loops begin at a line of 64 bytes. Where they do is else an accident of what stands before them, and moves the time of a
    codelet by up to 7 % (decision 0005). Only LLVM's command line has this."""
    from torch_mlir import _mlir_libs

    library = ctypes.CDLL(str(Path(_mlir_libs.__file__).parent / "libTorchMLIRAggregateCAPI.so"))
    arguments = [b"qcc", b"-x86-experimental-pref-innermost-loop-alignment=6"]
    library.LLVMParseCommandLineOptions(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments), None)


def llvm_ir(module: ir.Module) -> str:
    """LLVM IR of a module in the llvm form, before optimisation."""
    from torch_mlir.dialects import llvm

    return llvm.translate_module_to_llvmir(module.operation)


def assembly(module: ir.Module) -> str:
    """Disassembly of the module's machine code. Raises QccError without binutils."""
    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        path = Path(folder) / "program.o"
        MachineCode(module).write_object(path)
        try:
            done = subprocess.run(["objdump", "-d", "-r", "--no-show-raw-insn", path.name], cwd=folder, capture_output=True, text=True)
        except FileNotFoundError:
            raise QccError("cannot disassemble: 'objdump' is not installed; install binutils (Debian: apt install binutils)") from None
        if done.returncode:
            raise RuntimeError(f"objdump failed: {done.stderr.strip()}")
        return done.stdout
