"""From a module in the llvm form to an executable in this process, which can save itself as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcc.compiler.emit.machine_code import MachineCode
from qcc.compiler.emit.metadata import metadata
from qcc.compiler.emit.shared_object import write_artifact
from qcc.compiler.emit.weights_blob import weights_blob
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.mlir import ir
from qcc.runtime.cpu.executable import Executable, from_program


def executable(
    module: ir.Module, target: CpuTarget, *, fingerprint: str = "", report: Mapping[str, Any] | None = None, threads: int | None = None
) -> Executable:
    """The executable of `module`. Code for another CPU can be saved here and run elsewhere: calling it raises QccError."""
    code, blob = MachineCode(module), weights_blob(module)
    info = metadata(module, target, blob, fingerprint=fingerprint, report=report)

    def save(path: Path) -> None:
        write_artifact(code, blob, info, path)

    made = from_program(code.program_address, blob, info, threads=threads, save=save)
    return made.prepare() if target.runs_here else made
