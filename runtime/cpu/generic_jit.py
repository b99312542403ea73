"""Runs a function of upstream operations (linalg, tensor, arith, math, scf, tensor views) through MLIR's own pipeline, on numpy arrays.

The slow and general road: bufferization, loops, LLVM at -O2, no vectorization of ours. The reference uses it for the generic path, so
that what is compared with the compiled code has been made by other passes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, run_upstream

Array = np.ndarray[Any, Any]

PIPELINE = (
    "canonicalize,cse,func.func(convert-elementwise-to-linalg,tm-tensor-bufferize),"
    "one-shot-bufferize{copy-before-write bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map},"
    "buffer-results-to-out-params{modify-public-functions=true hoist-static-allocs=true},buffer-deallocation-pipeline,"
    "func.func(tm-tensor-to-loops,refback-munge-memref-copy,convert-linalg-to-loops,lower-affine),"
    "convert-scf-to-cf,func.func(refback-expand-ops-for-llvm,arith-expand),"
    "convert-math-to-llvm,convert-math-to-libm,convert-bufferization-to-memref,expand-strided-metadata,lower-affine,"
    "finalize-memref-to-llvm,convert-complex-to-llvm,convert-index-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts"
)


def run(module: ir.Module, name: str, inputs: Sequence[Array]) -> list[Array]:
    """Results of function `name` of `module` (which stays as it is), compiled anew at each call.

    Raises QccError where upstream's passes cannot lower the function.
    """
    from torch_mlir.execution_engine import ExecutionEngine

    with module.context, ir.Location.unknown():
        single, kind = _extract(module, name)
        for i, (array, expected) in enumerate(zip(inputs, kind.inputs, strict=True)):
            dtype = weights.numpy_dtype(expected.element_type)
            if array.shape != tuple(expected.shape) or array.dtype != dtype:
                raise QccError(
                    f"input {i} of function '{name}' is {array.dtype} {list(array.shape)}, expected {dtype} {list(expected.shape)}"
                )
        try:
            run_upstream(f"builtin.module({PIPELINE})", single.operation)
            engine = ExecutionEngine(single, opt_level=2)
        except (ir.MLIRError, RuntimeError) as problem:
            raise QccError(f"the generic path cannot compile function '{name}': {problem}") from None
        outputs = [np.empty(t.shape, weights.numpy_dtype(t.element_type)) for t in kind.results]
        arrays = [np.ascontiguousarray(a) for a in inputs] + outputs
        descriptors = [_descriptor(a) for a in arrays]
        pointers = [ctypes.pointer(ctypes.pointer(d)) for d in descriptors]
        engine.invoke(name, *pointers)
    return outputs


def _extract(module: ir.Module, name: str) -> tuple[ir.Module, ir.FunctionType]:
    """A module with a copy of function `name` and of the functions without qcc operations that it may call."""
    single = ir.Module.create()
    found: ir.FunctionType | None = None
    with ir.InsertionPoint(single.body):
        for view in module.body.operations:
            op = view.operation
            if op.name != "func.func":
                op.clone()
                continue
            symbol = op.attributes["sym_name"].value
            if symbol == name:
                copy = op.clone()
                copy.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
                copy.attributes["sym_visibility"] = ir.StringAttr.get("public")
                found = ir.FunctionType(op.attributes["function_type"].value)
            elif op.regions[0].blocks and f"@{symbol}" in str(_function(module, name)):
                op.clone()
    if found is None:
        raise QccError(f"the module has no function '{name}'")
    return single, found


def _function(module: ir.Module, name: str) -> Any:
    return next(op for op in module.body.operations if op.operation.name == "func.func" and op.attributes["sym_name"].value == name)


def _descriptor(array: Array) -> ctypes.Structure:
    """MLIR's strided memref descriptor of `array`, sizes and strides in elements."""
    rank = array.ndim
    fields: list[tuple[str, Any]] = [("allocated", ctypes.c_void_p), ("aligned", ctypes.c_void_p), ("offset", ctypes.c_int64)]
    if rank:
        fields += [("sizes", ctypes.c_int64 * rank), ("strides", ctypes.c_int64 * rank)]
    kind = type("MemRef", (ctypes.Structure,), {"_fields_": fields})
    descriptor = kind()
    descriptor.allocated = descriptor.aligned = array.ctypes.data
    descriptor.offset = 0
    if rank:
        descriptor.sizes = (ctypes.c_int64 * rank)(*array.shape)
        descriptor.strides = (ctypes.c_int64 * rank)(*[s // array.itemsize for s in array.strides])
    return descriptor
