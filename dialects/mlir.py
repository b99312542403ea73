"""The one module that imports the MLIR bindings and loads qcc's dialects.

Everything else says `from qcc.dialects.mlir import ir`, so that a change of the bindings costs one file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from torch_mlir import ir, passmanager, rewrite
from torch_mlir.dialects import ext

from qcc.dialects.errors import QccError

__all__ = [
    "create",
    "create_context",
    "dense_f32",
    "diagnosed",
    "error_at",
    "ext",
    "ir",
    "layer_name",
    "load_dialects",
    "op_attribute",
    "parse_module",
    "passmanager",
    "python_value",
    "replace_op",
    "rewrite",
    "run_upstream",
    "to_attribute",
    "walk",
]


def create_context() -> ir.Context:
    """A context with every upstream, torch-mlir and qcc dialect loaded; single-threaded and reproducible."""
    context = ir.Context()
    context.enable_multithreading(False)
    load_dialects(context)
    return context


def load_dialects(context: ir.Context) -> None:
    """Load the torch dialects and qcc's own into `context`; does nothing where they are loaded already."""
    from torch_mlir.dialects import torch as torch_dialect

    from qcc.dialects import compressed_types, encodings, qcc, qcc_choice, qcc_state, qisa, qtile

    # Importing them is what adds their types, attributes and operations to the dialect.
    assert compressed_types.Qcc is encodings.Qcc is qcc_choice.Qcc is qcc_state.Qcc is qcc.Qcc
    # For every operation it wraps the binding imports `torch_mlir.dialects.<namespace>`, and searches the disk each time for one that
    # is not there: half of the time to import ResNet-50.
    for name, module in {"qcc": qcc, "qtile": qtile, "qisa": qisa, "torch_c": None, "tm_tensor": None}.items():
        sys.modules.setdefault(f"torch_mlir.dialects.{name}", module or ModuleType(name))
    torch_dialect.register_dialect(context)
    with context, ir.Location.unknown():
        for dialect in (qcc.Qcc, qtile.Qtile, qisa.Qisa):
            if not context.is_dialect_loaded(dialect.DIALECT_NAMESPACE):
                dialect.load()
        if not context.is_dialect_loaded("torch_c"):
            _load_conversion_dialects()


def _load_conversion_dialects() -> None:
    """Load `torch_c` and `tm_tensor`, which the bindings register only as dependents of the passes that make them."""
    passes = "func.func(convert-torch-to-tmtensor,torch-finalizing-backend-type-conversion)"
    run_upstream(f"builtin.module({passes})", ir.Module.create().operation)


def run_upstream(pipeline: str, operation: Any) -> None:
    """Run upstream passes, `builtin.module(...)`, and verify once behind them rather than behind each.

    Raises ValueError for a pipeline that cannot be parsed and MLIRError where a pass or the verifier fails.
    """
    manager = passmanager.PassManager.parse(pipeline, operation.context)
    manager.enable_verifier(False)
    manager.run(operation)
    operation.verify()


def parse_module(text: str, context: ir.Context, *, name: str = "-") -> ir.Module:
    """Parse and verify a module with its resources. Raises QccError with the parser's own words."""
    from qcc.dialects import weights

    text = weights.read_resources(text, context)
    try:
        return ir.Module.parse(text, context)
    except ir.MLIRError as error:
        raise diagnosed(f"cannot parse {name} as MLIR", error) from None


def diagnosed(what: str, error: ir.MLIRError) -> QccError:
    """The QccError that says `what` went wrong in the words and at the place of MLIR's own diagnostics."""
    found = list(error.error_diagnostics)
    words = "; ".join(f"{d.location}: {d.message}" for d in found)
    return QccError(f"{what}: {words}", location=str(found[0].location) if found else "")


def walk(root: Any, name: str | None = None) -> Iterator[Any]:
    """Every operation below `root` in program order, as a list taken before the caller changes anything."""
    found: list[Any] = []

    def visit(op: Any) -> ir.WalkResult:
        if name is None or op.name == name:
            found.append(op)
        return ir.WalkResult.ADVANCE

    operation = root.operation if hasattr(root, "operation") else root
    operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return iter(found)


def to_attribute(value: Any) -> ir.Attribute:
    """The attribute for a Python value: bool, int (i64), float (f64), str, list of int, list of str, numpy array, mapping."""
    if isinstance(value, ir.Attribute):
        return value
    if isinstance(value, ir.Type):
        return ir.TypeAttr.get(value)
    if isinstance(value, bool):
        return ir.BoolAttr.get(value)
    if isinstance(value, int | np.integer):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), int(value))
    if isinstance(value, float | np.floating):
        return ir.FloatAttr.get(ir.F64Type.get(), float(value))
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if isinstance(value, np.ndarray):
        from qcc.dialects import weights

        return weights.constant_attribute(value)
    if isinstance(value, Mapping):
        return ir.DictAttr.get({str(k): to_attribute(v) for k, v in value.items()})
    if isinstance(value, Sequence):
        if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in value):
            return ir.DenseI64ArrayAttr.get([int(v) for v in value])
        return ir.ArrayAttr.get([to_attribute(v) for v in value])
    raise TypeError(f"no MLIR attribute for a {type(value).__name__}")


def python_value(attribute: ir.Attribute) -> Any:
    """The inverse of `to_attribute`; elements attributes become numpy arrays."""
    if isinstance(attribute, ir.BoolAttr | ir.IntegerAttr | ir.FloatAttr | ir.StringAttr | ir.TypeAttr | ir.FlatSymbolRefAttr):
        return attribute.value
    if isinstance(attribute, ir.DenseI64ArrayAttr | ir.DenseI32ArrayAttr):
        return [int(v) for v in attribute]
    if isinstance(attribute, ir.DictAttr):
        return {item.name: python_value(item.attr) for item in attribute}
    if isinstance(attribute, ir.ArrayAttr):
        return [python_value(item) for item in attribute]
    from qcc.dialects import weights

    if weights.is_elements(attribute):
        return weights.array_of(attribute)
    return attribute


def op_attribute(op: Any, name: str, default: Any = None) -> Any:
    """Python value of attribute `name` of `op`, or `default` where the op does not have it."""
    attributes = op.attributes
    return python_value(attributes[name]) if name in attributes else default


def create(
    name: str,
    operands: Sequence[Any],
    results: Sequence[ir.Type],
    attributes: Mapping[str, Any] | None = None,
    *,
    loc: ir.Location | None = None,
    ip: ir.InsertionPoint | None = None,
) -> Any:
    """Create operation `name`. `None` among `operands` (an absent optional one) and attributes is left out."""
    given = {k: to_attribute(v) for k, v in (attributes or {}).items() if v is not None}
    flat = [o for o in operands if o is not None]
    return ir.Operation.create(name, results=list(results), operands=flat, attributes=given, loc=loc, ip=ip)


def replace_op(op: Any, values: Sequence[Any]) -> None:
    """Replace all uses of `op`'s results by `values` and erase it."""
    operation = op.operation if hasattr(op, "operation") else op
    for result, value in zip(operation.results, values, strict=True):
        result.replace_all_uses_with(value)
    operation.erase()


def dense_f32(values: Sequence[float] | np.ndarray) -> ir.Attribute:
    """A rank-1 f32 elements attribute, as `multiplier` and `multipliers` use it."""
    return to_attribute(np.asarray(values, dtype=np.float32).reshape(-1))


def layer_name(location: ir.Location) -> str:
    """The source model's layer name carried by `location` (the first name inside a fused one); '' where there is none."""
    if type(location) is ir.Location:  # as diagnostics carry it
        location = next((kind(location) for kind in (ir.NameLoc, ir.FusedLoc, ir.CallSiteLoc) if _is_a(location, kind)), location)
    if isinstance(location, ir.NameLoc):
        return str(location.name_str)
    if isinstance(location, ir.FusedLoc):
        return next((name for part in location.locations if (name := layer_name(part))), "")
    if isinstance(location, ir.CallSiteLoc):
        return layer_name(location.callee)
    return ""


def _is_a(location: ir.Location, kind: Any) -> bool:
    try:
        return bool(kind(location))
    except ValueError:  # the bindings' way to say no
        return False


def error_at(op: Any, message: str) -> QccError:
    """A QccError that names the layer and place of `op`; raise what this returns."""
    location = op.location
    return QccError(message, layer=layer_name(location), location=str(location))
