"""Emitters: forms as text, machine code, shared objects, instruction streams."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.dialects.errors import QccError

if TYPE_CHECKING:
    from qcc.compiler.driver import Compilation


def write_form(compilation: Compilation, form: str, path: str) -> None:
    """Run `compilation` to `form` and write it to `path` (`-` is standard output).

    The forms are MLIR text; `asm` is disassembly and `object` a relocatable file. Raises QccError for a form that the target
    does not have and a file that cannot be written.
    """
    data = form_bytes(compilation, form)
    if path == "-":
        sys.stdout.buffer.write(data)
        return
    from qcc.runtime.atomic_file import atomic_write

    with atomic_write(path) as stream:
        stream.write(data)


def form_bytes(compilation: Compilation, form: str) -> bytes:
    """Contents of the file that `write_form` writes."""
    if form not in ("asm", "object"):
        module = compilation.run_to(form)
        return module.operation.get_asm(enable_debug_info=True).encode() + b"\n"
    if compilation.options.target != "cpu":
        raise QccError(f"target {compilation.options.target} has no form '{form}', expected graph, integer or isa")
    from qcc.compiler.emit import machine_code

    module = compilation.run_to("llvm")
    if form == "asm":
        return machine_code.assembly(module).encode()
    with tempfile.TemporaryDirectory(prefix="qcc-") as folder:
        target = Path(folder) / "program.o"
        machine_code.MachineCode(module).write_object(target)
        return target.read_bytes()
