"""From a module in the llvm form to an executable in this process, which can save itself as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qcc.compiler import report as reports
from qcc.compiler.emit import coded_weights
from qcc.compiler.emit.machine_code import MachineCode
from qcc.compiler.emit.metadata import metadata
from qcc.compiler.emit.shared_object import write_artifact
from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.mlir import ir
from qcc.runtime.cpu.executable import Executable, from_program


def executable(
    module: ir.Module,
    target: CpuTarget,
    *,
    options: CompileOptions | None = None,
    report: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Executable:
    """The executable of `module`. Code for another CPU can be saved here and run elsewhere: calling it raises QccError."""
    options = options or CompileOptions()
    code = MachineCode(module)
    stored = coded_weights.stored_weights(module, options.weight_coding, options.decode)
    if report is not None:
        report = reports.with_storage(report, coded_weights.summary(module, stored), coded_weights.per_layer(module, stored))
    info = metadata(module, target, stored.data, fingerprint=options.fingerprint, report=report)

    if stored.streams:
        stored = replace(stored, block=stored.data)  # what is decoded while running need not stay in memory

    def save(path: Path) -> None:
        write_artifact(code, stored, info, path)

    # In this process the decoded weights are there already; streaming keeps the coded ones only.
    weights = stored.data if stored.streams else stored.block
    made = from_program(code.program_address, weights, info, streams=stored.streams, threads=threads, save=save)
    return made.prepare() if target.runs_here else made
