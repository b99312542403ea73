"""qcc: an MLIR-based compiler for compressed neural networks.

    exe = qcc.compile(model, example_inputs=(x,), target="cpu")
    y = exe(x)
    exe.save("model.so");  exe = qcc.load("model.so")

`compile` takes an nn.Module, ExportedProgram, ScriptModule, ir.Module or the path of a .mlir, .onnx, .pt2 or .pt (TorchScript) file.
Importing qcc loads neither torch nor onnx nor the MLIR bindings; they come with the first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__version__ = "0.1.0"
__all__ = ["CpuTarget", "FpgaTarget", "QccError", "__version__", "compile", "load"]


def compile(
    model: Any,
    *,
    example_inputs: Sequence[Any] | None = None,
    target: Any = "cpu",
    threads: int | None = None,
    calibration: Any = None,
    **options: Any,
) -> Any:
    """Compile `model` and return its executable.

    `calibration` is the path of a .npz file, or arrays by input name or in order, of samples: zeros in activations are measured, reported
    per layer, and skipped where that is predicted to pay.
    `target` is "cpu", "fpga", a CpuTarget or an FpgaTarget; `options` are the fields of `qcc.compiler.options.CompileOptions`.
    Raises QccError for a model or option that qcc cannot accept.
    """
    from qcc.compiler import driver
    from qcc.compiler.options import CompileOptions

    if not isinstance(target, str):
        options = {**target.options(), **options}
        target = options.pop("target")
    known = CompileOptions.__dataclass_fields__
    if unknown := [name for name in options if name not in known]:
        from qcc.dialects.errors import QccError

        raise QccError(f"there is no option '{unknown[0]}', expected some of: {', '.join(known)}")
    run = {} if threads is None else {"threads": threads}
    return driver.compile_model(
        model, CompileOptions(target=target, **options), example_inputs=example_inputs, calibration=calibration, **run
    )


def load(path: Any, *, threads: int | None = None) -> Any:
    """Load an artefact that `qcc` or `exe.save` wrote, for CPU or accelerator.

    Raises QccError for a file that is missing, damaged, of another version, or for another CPU or device.
    """
    from qcc.runtime import artifact

    return artifact.load(path, threads=threads)


def __getattr__(name: str) -> Any:
    if name == "QccError":
        from qcc.dialects.errors import QccError

        return QccError
    if name == "CpuTarget":
        from qcc.compiler.targets.cpu import CpuTarget

        return CpuTarget
    if name == "FpgaTarget":
        from qcc.compiler.targets.fpga import FpgaTarget

        return FpgaTarget
    raise AttributeError(f"module 'qcc' has no attribute '{name}'")
