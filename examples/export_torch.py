"""Write a frozen model as an exported program (.pt2) and as torch-dialect MLIR (.mlir)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn


def export_program(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    """`model` as an ExportedProgram without stack traces, which would name files of the machine that trained it."""
    inputs = tuple(x.clone() for x in inputs)  # a slice would be saved with all of its storage
    program = torch.export.export(model, inputs, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
        for key in ("from_node", "torch_fn", "source_fn_stack"):
            node.meta.pop(key, None)
    return program


def layer_names(program: torch.export.ExportedProgram) -> dict[fx.Node, str]:
    """A name for every node: of the module it came from, such as `block0.tokens.expand`; inside a module that has parts of its own,
    and for the model itself, followed by the node's name (`block0.add`)."""
    paths = {node: next(reversed(node.meta.get("nn_module_stack", {"": ("", None)}).values()))[0] for node in program.graph.nodes}
    parents = {path.rpartition(".")[0] for path in paths.values()}
    parents |= {parent.rpartition(".")[0] for parent in parents}
    return {node: f"{path}.{node.name}".removeprefix(".") if path in parents else path for node, path in paths.items()}


def write_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def write_mlir(program: torch.export.ExportedProgram, path: Path) -> None:
    """Torch dialect as torch-mlir's FX importer makes it, undecomposed, every operation located by its layer's name."""
    from torch_mlir import fx as torch_mlir_fx
    from torch_mlir import ir
    from torch_mlir.dialects import torch as torch_dialect
    from torch_mlir.extras.fx_importer import ContextCache, FxImporter

    names = {node.name: name for node, name in layer_names(program).items()}

    class NamedLayers(ContextCache):
        def get_node_location(self, node: fx.Node) -> ir.Location:
            return ir.Location.name(names[node.name], context=self._c)

    context = ir.Context()
    torch_dialect.register_dialect(context)
    importer: Any = FxImporter(context=context)
    importer._cc = NamedLayers(context, py_attr_tracker=importer._py_attr_tracker)
    program = copy.deepcopy(program)  # the importer takes its argument apart
    module = torch_mlir_fx.export_and_import(program, fx_importer=importer, output_type="raw", decomposition_table={})
    path.write_text(module.operation.get_asm(enable_debug_info=True))
