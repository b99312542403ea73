"""What every front end hands to the pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, to_attribute, walk

MAIN = "main"


@dataclass(frozen=True)
class ImportedModel:
    """A source model as MLIR: `func.func @main` in the torch dialect (backend contract), linalg on tensors, or a later form.

    `inputs` and `outputs` are the names of `@main`'s arguments and results, in order. They also stand on the function as
    `qcc.inputs` and `qcc.outputs`, so that they survive in files.
    """

    module: ir.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def main(self) -> Any:
        """The function `@main`."""
        return main_function(self.module)


def main_function(module: ir.Module) -> Any:
    """The function `@main` of `module`, or its only public function. Raises QccError where there is none or a choice."""
    functions = [op for op in walk(module, "func.func") if op.regions[0].blocks]
    names = {str(op.attributes["sym_name"].value): op for op in functions}
    if MAIN in names:
        return names[MAIN]
    public = [op for op in functions if "sym_visibility" not in op.attributes]
    if len(public) == 1:
        return public[0]
    found = ", ".join(f"@{name}" for name in names) or "none"
    raise QccError(f"the module has functions {found}, expected one public function or one named @{MAIN}")


def imported(module: ir.Module, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> ImportedModel:
    """Name `@main` and its arguments and results: as given, as written on the function, or `input_0`, `output_0`, ..."""
    main = main_function(module)
    kind = ir.FunctionType(main.attributes["function_type"].value)
    with module.context:
        main.attributes["sym_name"] = ir.StringAttr.get(MAIN)
        found = (
            _names(main, "qcc.inputs", inputs, len(kind.inputs), "input"),
            _names(main, "qcc.outputs", outputs, len(kind.results), "output"),
        )
        for attribute, types in (("qcc.unsigned_inputs", kind.inputs), ("qcc.unsigned_outputs", kind.results)):
            if unsigned := [i for i, t in enumerate(types) if re.search(r"[,x]ui(8|16|32)>$", str(t))]:
                main.attributes[attribute] = to_attribute(unsigned)  # builtin types, which follow, do not say so
    return ImportedModel(module, *found)


def _names(main: Any, attribute: str, given: Sequence[str], count: int, stem: str) -> tuple[str, ...]:
    names = list(given)
    if not names and attribute in main.attributes:
        names = [str(item.value) for item in main.attributes[attribute]]
    if len(names) != count or len(set(names)) != count:
        names = [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]
    main.attributes[attribute] = ir.ArrayAttr.get([to_attribute(name) for name in names])
    return tuple(names)
