"""Front ends: the one place that knows PyTorch and ONNX. `load` brings any source model to MLIR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qcc.compiler.frontend.model import ImportedModel, imported, main_function
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir

__all__ = ["ImportedModel", "imported", "load", "main_function"]

EXTENSIONS = (".mlir", ".mlirbc", ".onnx", ".pt2", ".pt", ".pth")


def load(model: Any, example_inputs: Sequence[Any] | None = None, batch: int = 1) -> ImportedModel:
    """Import `model`: a path (.mlir, .mlirbc, .onnx, .pt2, .pt of TorchScript), a `torch.nn.Module`, a `torch.export.ExportedProgram`,
    an `onnx.ModelProto` or an `ir.Module` whose context comes from `create_context`.

    `example_inputs` (torch tensors or numpy arrays, or one of them) fix the shapes; a `torch.nn.Module` needs them. Without them
    `batch` is the size of a first axis that the model leaves open. Raises QccError for everything qcc cannot take.
    """
    if hasattr(example_inputs, "shape"):
        example_inputs = [example_inputs]
    if isinstance(model, ir.Module):
        return imported(model)
    if isinstance(model, str | Path):
        return _load_file(Path(model), example_inputs, batch)
    package = type(model).__module__.partition(".")[0]
    if package == "onnx":
        from qcc.compiler.frontend import onnx as onnx_front_end

        return onnx_front_end.import_model(model, example_inputs, batch)
    from qcc.compiler.frontend import torch as torch_front_end

    return torch_front_end.import_model(model, example_inputs, batch)


def _load_file(path: Path, example_inputs: Sequence[Any] | None, batch: int) -> ImportedModel:
    if path.suffix not in EXTENSIONS:
        raise QccError(
            f"'{path}' ends in '{path.suffix}', expected one of {', '.join(EXTENSIONS)}; "
            "save a torch.nn.Module with torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
        )
    if not path.is_file():
        raise QccError(f"'{path}' is not a file; expected a model to read")
    if path.suffix == ".onnx":
        from qcc.compiler.frontend import onnx as onnx_front_end

        return onnx_front_end.import_model(path, example_inputs, batch)
    if path.suffix in (".pt2", ".pt", ".pth"):
        from qcc.compiler.frontend import torch as torch_front_end

        return torch_front_end.import_file(path, example_inputs, batch)
    from qcc.compiler.frontend import mlir_file

    return mlir_file.import_file(path, batch)
