"""MLIR files: the torch dialect (raw or backend contract), linalg on tensors, and qcc's own forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qcc.compiler.frontend.contract import onnx_to_backend_contract, to_backend_contract
from qcc.compiler.frontend.model import ImportedModel, imported, main_function
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, create_context, ir, parse_module, walk


def import_file(path: Path, batch: int = 1) -> ImportedModel:
    """Import a `.mlir` (text) or `.mlirbc` (bytecode) file. Raises QccError with the parser's words for a malformed one."""
    data = path.read_bytes()
    if data.startswith(b"ML\xefR"):
        context = create_context()
        try:
            return import_module(ir.Module.parse(data, context), batch)
        except ir.MLIRError as error:
            raise QccError(f"cannot read '{path}' as MLIR bytecode: {error}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise QccError(f"'{path}' is neither MLIR text nor MLIR bytecode; expected one of them") from None
    return import_text(text, str(path), batch)


def import_text(text: str, name: str = "-", batch: int = 1) -> ImportedModel:
    """Import module text, with the weights of its `dialect_resources`."""
    return import_module(parse_module(text, create_context(), name=name), batch)


def import_module(module: ir.Module, batch: int = 1) -> ImportedModel:
    """Bring a parsed module into the state every front end gives; linalg and qcc's own forms stay as they are.

    A first axis that `@main` leaves open gets size `batch` in the torch dialect, whose shapes upstream infers again.
    """
    ops = list(walk(module))
    if any(op.name == "torch.operator" and str(op.attributes["name"].value).startswith("onnx.") for op in ops):
        _fix_first_axes(main_function(module), batch)
        onnx_to_backend_contract(module)
    elif any(op.name.startswith("torch.") for op in ops):
        _fix_first_axes(main_function(module), batch)
        to_backend_contract(module)
    model = imported(module)
    _check_static(model)
    return model


def _fix_first_axes(main: Any, batch: int) -> None:
    """Give arguments `!torch.vtensor<[?,...]>` the static type and cast it back inside, where shape inference starts from it."""
    block = main.regions[0].blocks[0]
    with main.context, main.location:
        kind = ir.FunctionType(main.attributes["function_type"].value)
        for argument in block.arguments:
            open_type = argument.type
            if not str(open_type).startswith("!torch.vtensor<[?"):
                continue
            argument.set_type(ir.Type.parse(str(open_type).replace("[?", f"[{batch}", 1)))
            cast = create("torch.tensor_static_info_cast", [argument], [open_type], ip=ir.InsertionPoint.at_block_begin(block))
            argument.replace_all_uses_except(cast.results[0], cast.operation)
        fixed = ir.FunctionType.get([a.type for a in block.arguments], kind.results)
        main.attributes["function_type"] = ir.TypeAttr.get(fixed)


def _check_static(model: ImportedModel) -> None:
    kind = ir.FunctionType(model.main.attributes["function_type"].value)
    for name, value in zip(model.inputs, kind.inputs, strict=True):
        if re.search(r"\?|\[\*\]|unk>", str(value)):
            raise QccError(f"input '{name}' is {value}, expected a static shape; fix its dynamic sizes in the file")
