"""MLIR files: the torch dialect (raw or backend contract), linalg on tensors, and qcc's own forms."""

from __future__ import annotations

import re
from pathlib import Path

from qcc.compiler.frontend.contract import to_backend_contract
from qcc.compiler.frontend.model import ImportedModel, imported
from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir, parse_module, walk


def import_file(path: Path) -> ImportedModel:
    """Import a `.mlir` (text) or `.mlirbc` (bytecode) file. Raises QccError with the parser's words for a malformed one."""
    data = path.read_bytes()
    if data.startswith(b"ML\xefR"):
        context = create_context()
        try:
            return import_module(ir.Module.parse(data, context))
        except ir.MLIRError as error:
            raise QccError(f"cannot read '{path}' as MLIR bytecode: {error}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise QccError(f"'{path}' is neither MLIR text nor MLIR bytecode; expected one of them") from None
    return import_text(text, str(path))


def import_text(text: str, name: str = "-") -> ImportedModel:
    """Import module text, with the weights of its `dialect_resources`."""
    context = create_context()
    module = parse_module(text, context, name=name)
    weights.read_resources(text, context)
    return import_module(module)


def import_module(module: ir.Module) -> ImportedModel:
    """Bring a parsed module into the state every front end gives; linalg and qcc's own forms stay as they are."""
    if any(op.name.startswith("torch.") for op in walk(module)):
        to_backend_contract(module)
    model = imported(module)
    _check_static(model)
    return model


def _check_static(model: ImportedModel) -> None:
    kind = ir.FunctionType(model.main.attributes["function_type"].value)
    for name, value in zip(model.inputs, kind.inputs, strict=True):
        if re.search(r"\?|\[\*\]|unk>", str(value)):
            raise QccError(f"input '{name}' is {value}, expected a static shape; fix its dynamic sizes in the file")
