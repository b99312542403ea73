"""The forms that the IR passes through, as code: what each may contain, checked by the driver at every border.

Each form is one function that yields complaints about the operations that do not belong. A complaint names the operation, so that the
error names the layer. See compiler/decisions/0001 and 0002 for the words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import error_at, ir, op_attribute, walk

Complaint = tuple[Any, str]

_TENSOR_DIALECTS = frozenset({"builtin", "func", "qcc", "tensor", "arith", "math", "linalg"})
_GENERIC_DIALECTS = _TENSOR_DIALECTS | {
    "scf",
    "cf",
    "complex",
    "affine",
    "tm_tensor",
    "ml_program",
    "bufferization",
    "memref",
    "vector",
    "llvm",
}
_TILED_DIALECTS = frozenset({"builtin", "func", "qtile", "memref"})
_LLVM_DIALECTS = frozenset({"builtin", "llvm"})
_ISA_DIALECTS = frozenset({"builtin", "func", "qisa"})

_PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul")
_ACCUMULATOR_USERS = frozenset({"qcc.requantize", "qcc.dequantize", "qcc.reshape", "qcc.transpose", "qcc.slice", "func.return"})
_RESCALED = ("qcc.add", "qcc.sub", "qcc.mul", "qcc.avg_pool2d")


def check(form: str, module: ir.Module) -> None:
    """Raise QccError, naming the layer, where `module` is not in `form` (torch, graph, integer, tiled, llvm or isa)."""
    if form not in FORMS:
        raise QccError(f"no form is called '{form}', expected one of {', '.join(FORMS)}")
    for op, message in FORMS[form](module):
        raise error_at(op, f"{message} (found on the way to the {form} form)")


def _torch(module: ir.Module) -> Iterator[Complaint]:
    """Anything that parses and verifies."""
    return iter(())


def _graph(module: ir.Module) -> Iterator[Complaint]:
    """qcc and upstream tensor operations of static shape; float compute with explicit quantize and dequantize."""
    for op in walk(module):
        if (dialect := _dialect(op)) not in (_GENERIC_DIALECTS if _is_generic(op) else _TENSOR_DIALECTS):
            yield (
                op,
                f"'{op.name}' of dialect '{dialect}' has no conversion; expected one that torch-mlir lowers to linalg",
            )
        yield from _dynamic_shapes(op)


def _integer(module: ir.Module) -> Iterator[Complaint]:
    """As graph, but products are all float or all integer, and every quantized operation says how it rescales."""
    yield from _graph(module)
    for op in walk(module):
        if op.name == "qcc.batch_norm":
            yield op, "a batch normalisation is left, expected it folded; run fold-batch-norm"
        if op.name in _PRODUCTS and _is_integer(op.results[0]):
            for use in op.results[0].uses:
                if (user := use.owner.operation).name not in _ACCUMULATOR_USERS:
                    yield (
                        user,
                        f"'{user.name}' reads an accumulator of {_element(op.results[0])}, expected a qcc.requantize between",
                    )
        if op.name in _RESCALED and str(_element(op.results[0])).startswith("!") and op_attribute(op, "multipliers") is None:
            yield (
                op,
                f"'{op.name}' computes on quantized values without 'multipliers'; run fold-quantized-elementwise or fold-quantized-pooling",
            )


def _tiled(module: ir.Module) -> Iterator[Complaint]:
    """Buffers, codelet calls and, inside generic functions only, upstream code."""
    for op in walk(module):
        if (dialect := _dialect(op)) not in (_GENERIC_DIALECTS if _is_generic(op) else _TILED_DIALECTS):
            yield (
                op,
                f"'{op.name}' of dialect '{dialect}' is not tiled: no codelet computes it; expected qtile buffers and calls of codelets",
            )
        yield from _dynamic_shapes(op)
        if op.name == "func.func" and _public(op) and list(ir.FunctionType(_function_type(op)).inputs):
            yield op, "the entry function has arguments, expected its inputs as qtile.buffer"


def _llvm(module: ir.Module) -> Iterator[Complaint]:
    """LLVM dialect only."""
    yield from _only(module, _LLVM_DIALECTS, "is not lowered to LLVM")


def _isa(module: ir.Module) -> Iterator[Complaint]:
    """One qisa operation per accelerator instruction; segments that the host runs stay calls."""
    for op in walk(module):
        if _dialect(op) not in _ISA_DIALECTS and not _is_generic(op) and _dialect(op) not in _TENSOR_DIALECTS:
            yield op, f"'{op.name}' is neither an accelerator instruction nor part of a host segment"


FORMS: dict[str, Callable[[ir.Module], Iterator[Complaint]]] = {
    "torch": _torch,
    "graph": _graph,
    "integer": _integer,
    "tiled": _tiled,
    "llvm": _llvm,
    "isa": _isa,
}


def _function_type(function: Any) -> ir.Type:
    """The function type of a `func.func`."""
    return function.attributes["function_type"].value


def _only(module: ir.Module, dialects: frozenset[str], words: str) -> Iterator[Complaint]:
    for op in walk(module):
        if _dialect(op) not in dialects:
            yield op, f"'{op.name}' {words}"


def _dynamic_shapes(op: Any) -> Iterator[Complaint]:
    if op.name.startswith("qcc."):
        return  # the verifier of the operation says more
    types = [r.type for r in op.results]
    if op.name == "func.func" and _public(op):
        types += list(ir.FunctionType(_function_type(op)).inputs)
    for kind in types:
        if isinstance(kind, ir.RankedTensorType | ir.MemRefType) and not kind.has_static_shape and not _is_generic(op):
            yield op, f"found a value of dynamic shape {kind}, expected a static one; fix it by example inputs or --batch"


def _dialect(op: Any) -> str:
    return op.name.split(".")[0]


def _element(value: Any) -> ir.Type:
    return ir.RankedTensorType(value.type).element_type


def _is_integer(value: Any) -> bool:
    return isinstance(_element(value), ir.IntegerType)


def _public(function: Any) -> bool:
    return "sym_visibility" not in function.attributes


def _is_generic(op: Any) -> bool:
    """Whether `op` is, or stands inside, a private function of the generic path."""
    while op is not None and op.name != "builtin.module":
        if op.name == "func.func":
            return "qcc.generic" in op.attributes
        op = op.parent.operation if op.parent is not None else None
    return False
