"""Turn the bodies of generic functions from tensors to buffers without allocations.

Before:
    func.call @generic_0(%x, %y) : (memref<4x8xf32>, memref<4x8xf32>) -> ()        // in @main
    func.func private @generic_0(%x: memref<4x8xf32>, %y: memref<4x8xf32>) attributes {qcc.generic = "cumsum"} {
      %t = bufferization.to_tensor %x restrict ...
      ...
      bufferization.materialize_in_destination %r in restrict writable %y ...
    }
After:
    %c = "qtile.buffer"() {space = "weights", value = ...}    %s = "qtile.buffer"() {space = "scratch", size_bytes = 256}
    func.call @generic_0(%x, %c, %s, %y)
    func.func private @generic_0(%x, %c: memref<...>, %s: memref<256xi8>, %y) {
      %a = memref.view %s[%c128][] : memref<256xi8> to memref<4x8xf32>
      linalg.generic ...                                                       // on memrefs, loops in the order that vectorizes

Requires: the tiled form before `plan-memory`; generic functions as decision 0002 describes them.
Guarantees: no tensor is left. Temporaries of static size lie in one scratch operand, packed by their lives; constants of more than 64
elements are weights operands; indices that come from data are kept inside their tensors; both stand before the results, so that the
last operands are still those that are written. What must be allocated while running (sizes or lives known only then) stays
`memref.alloc` with its `memref.dealloc`, and a remark says so.
Why: upstream's one-shot bufferization works in place where it can; what it does not do is decide where temporaries live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects import weights
from qcc.dialects.mlir import create, error_at, ir, op_attribute, python_value, run_upstream, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile._index_bounds import keep_indices_inside
from qcc.passes.tile._loop_order import vectorizable_loops_innermost
from qcc.passes.tile._placement import Life, place, round_up

FUSE = "inline,symbol-dce,convert-elementwise-to-linalg,linalg-fuse-elementwise-ops,linalg-generalize-named-ops,canonicalize,cse"
BUFFERIZE = "eliminate-empty-tensors,one-shot-bufferize{allow-return-allocs-from-loops}"
# Scans, sorts and scatters (tm_tensor) have a bufferization of their own, behind which upstream's analysis refuses to work in place.
BUFFERIZE_WITH_TM_TENSOR = "func.func(tm-tensor-bufferize),one-shot-bufferize{copy-before-write allow-return-allocs-from-loops}"
TIDY = "canonicalize,cse,func.func(buffer-hoisting,buffer-loop-hoisting),canonicalize,cse"
_CONSTANTS = ("arith.constant", "qcc.constant")
_LOOPS = ("scf.for", "scf.while", "scf.forall", "scf.parallel")


class BufferizeGenericFunctionsPass(Pass):
    name = "bufferize-generic-functions"

    def run(self, module: ir.Module, context: PassContext) -> None:
        functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
        calls = [c for c in walk(functions["main"], "func.call")] if "main" in functions else []
        called: dict[str, list[Any]] = {}
        for call in calls:
            called.setdefault(op_attribute(call, "callee"), []).append(call)
        for name, function in functions.items():
            if "qcc.generic" in function.attributes and name in called:
                _bufferize(module, function, called[name], context)
        for function in walk(module, "func.func"):
            if "qcc.generic" in function.attributes and op_attribute(function, "sym_name") not in called:
                function.erase()  # was inlined, or nothing needs it


def _bufferize(module: ir.Module, function: Any, calls: Sequence[Any], context: PassContext) -> None:
    reason, name = op_attribute(function, "qcc.generic"), op_attribute(function, "sym_name")
    alone = _extract(module, function)
    try:
        for copied in walk(alone, "func.func"):
            keep_indices_inside(copied)
        constants = _take_constants(alone)
        _run(alone, FUSE)
        body = _function(alone, name)
        vectorizable_loops_innermost(body)
        tm_tensor = any(op.name.startswith("tm_tensor.") for op in walk(body))
        _run(alone, BUFFERIZE_WITH_TM_TENSOR if tm_tensor else BUFFERIZE)
        _run(alone, TIDY)
        body = _function(alone, name)
        scratch_bytes = _move_temporaries(body)
        left = len(list(walk(body, "memref.alloc")))
        if left:
            _run(alone, "buffer-deallocation-pipeline,convert-bufferization-to-memref,canonicalize,cse")
            body = _function(alone, name)
            context.remarks.append(f"generic path: {reason}: {left} temporaries are allocated in each run")
    except ir.MLIRError as error:
        words = "; ".join(d.message for d in error.error_diagnostics) or str(error)
        raise error_at(calls[0], f"the generic path cannot compile '{reason}': {words}") from None
    results = len(calls[0].operands) - len(_inputs_of(function))
    added = _reorder_arguments(body, constants, results, scratch_bytes)
    _move_globals(alone, module, name)
    body.detach_from_parent()
    ir.InsertionPoint(function).insert(body)
    function.erase()
    for call in calls:
        _extend_call(call, constants, results, added)


def _function(module: ir.Module, name: str) -> Any:
    """The `func.func` called `name`, looked up anew because passes replace functions."""
    return next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == name)


def _run(module: ir.Module, pipeline: str) -> None:
    run_upstream(f"builtin.module({pipeline})", module.operation)


def _extract(module: ir.Module, function: Any) -> ir.Module:
    """A module with copies of `function`, made public so that it stays, and of every function that it reaches."""
    alone = ir.Module.create(loc=function.location)
    functions = {op_attribute(f, "sym_name"): f for f in walk(module, "func.func")}
    wanted, seen = [op_attribute(function, "sym_name")], set[str]()
    while wanted:
        if (name := wanted.pop()) in seen:
            continue
        seen.add(name)
        copy = functions[name].clone()
        alone.body.append(copy)
        wanted += [op_attribute(call, "callee") for call in walk(copy, "func.call")]
    del _function(alone, op_attribute(function, "sym_name")).attributes["sym_visibility"]
    return alone


def _inputs_of(function: Any) -> list[int]:
    """Indices of the arguments that are read: those that become tensors."""
    found: list[int] = []
    for i, argument in enumerate(function.regions[0].blocks[0].arguments):
        users = [use.owner.operation.name for use in argument.uses]
        if "bufferization.materialize_in_destination" not in users:
            found.append(i)
    return found


def _take_constants(module: ir.Module) -> list[tuple[ir.Type, ir.Attribute]]:
    """Replace large constants of the entry function by new trailing arguments; types and values of these."""
    taken: list[tuple[ir.Type, ir.Attribute]] = []
    for function in walk(module, "func.func"):
        entry = function.regions[0].blocks[0]
        for op in [op for name in _CONSTANTS for op in walk(function, name)]:
            kind, value = op.results[0].type, op.attributes["value"]
            if not isinstance(kind, ir.RankedTensorType) or "sym_visibility" in function.attributes:
                continue
            if isinstance(value, ir.DenseElementsAttr) and (value.is_splat or _count(kind) <= weights.INLINE_ELEMENTS):
                continue
            memref = ir.MemRefType.get(kind.shape, kind.element_type)
            argument = entry.add_argument(memref, op.location)
            with ir.InsertionPoint.at_block_begin(entry):
                tensor = create("bufferization.to_tensor", [argument], [kind], {"restrict": ir.UnitAttr.get()}, loc=op.location)
            op.results[0].replace_all_uses_with(tensor.results[0])
            op.operation.erase()
            taken.append((memref, value))
        _update_type(function)
    return taken


def _update_type(function: Any) -> None:
    """Make the function's type agree with its entry block."""
    results = ir.FunctionType(python_value(function.attributes["function_type"])).results
    kinds = [argument.type for argument in function.regions[0].blocks[0].arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(kinds, results))


def _move_globals(alone: ir.Module, module: ir.Module, name: str) -> None:
    """Move small constants, which bufferization makes global, into `module`; every function numbers them anew, so its name comes first."""
    for op in list(alone.body.operations):
        if op.operation.name == "memref.global":
            found = op_attribute(op, "sym_name")
            op.attributes["sym_name"] = ir.StringAttr.get(f"{name}.{found}")
            for use in walk(alone, "memref.get_global"):
                if op_attribute(use, "name") == found:
                    use.attributes["name"] = ir.FlatSymbolRefAttr.get(f"{name}.{found}")
            op.operation.detach_from_parent()
            module.body.append(op)


def _count(kind: ir.RankedTensorType) -> int:
    total = 1
    for size in kind.shape:
        total *= size
    return total


def _move_temporaries(function: Any) -> int:
    """Give `memref.alloc`s of static size a place in a new last argument; its size in bytes."""
    entry = function.regions[0].blocks[0]
    moments = {op.operation: i for i, op in enumerate(entry.operations)}
    lives: list[Life] = []
    for alloc in walk(function, "memref.alloc"):
        kind = ir.MemRefType(alloc.results[0].type)
        if not kind.has_static_shape or not _is_contiguous(kind):
            continue
        aliases = _aliases(alloc)
        if aliases is None:
            continue
        used = [moments[_ancestor(use.owner.operation, entry)] for value in aliases for use in value.uses]
        first = moments[_ancestor(alloc.operation, entry)]
        lives.append(Life(alloc, round_up(_count(kind) * _element_bytes(kind.element_type)), first, max([first, *used])))
    if not lives:
        return 0
    size = place(lives)
    i8 = ir.IntegerType.get_signless(8)
    scratch = entry.add_argument(ir.MemRefType.get([size], i8), function.location)
    for life in lives:
        alloc = life.owner
        with ir.InsertionPoint(alloc):
            index = ir.IntegerAttr.get(ir.IndexType.get(), life.offset_bytes)
            offset = create("arith.constant", [], [ir.IndexType.get()], {"value": index}, loc=alloc.location)
            view = create("memref.view", [scratch, offset.results[0]], [alloc.results[0].type], loc=alloc.location)
        alloc.results[0].replace_all_uses_with(view.results[0])
        alloc.operation.erase()
    _update_type(function)
    return size


def _is_contiguous(kind: ir.MemRefType) -> bool:
    return kind.layout == ir.AffineMapAttr.get(ir.AffineMap.get_identity(len(kind.shape)))


def _element_bytes(kind: ir.Type) -> int:
    if isinstance(kind, ir.ComplexType):
        return 2 * _element_bytes(kind.element_type)
    return weights.numpy_dtype(kind).itemsize


def _aliases(alloc: Any) -> list[Any] | None:
    """Every value that may be memory of `alloc`; None where an iteration of a loop around it hands it to the next."""
    found, wanted = list[Any](), [alloc.results[0]]
    while wanted:
        value = wanted.pop()
        if any(value == known for known in found):
            continue
        found.append(value)
        for use in value.uses:
            user = use.owner.operation
            if user.name in ("scf.yield", "scf.condition"):
                parent = user.parent.operation
                if parent.name in _LOOPS and _inside(alloc.operation, parent):
                    return None
                user = parent
            wanted += [result for result in user.results if isinstance(result.type, ir.MemRefType)]
            if user.name in _LOOPS:
                wanted += [
                    a for region in user.regions for block in region.blocks for a in block.arguments if isinstance(a.type, ir.MemRefType)
                ]
    return found


def _inside(op: Any, ancestor: Any) -> bool:
    while op is not None:
        if op == ancestor:
            return True
        op = op.parent.operation if op.parent is not None else None
    return False


def _ancestor(op: Any, block: ir.Block) -> Any:
    """The operation of `block` that `op` is or lies inside."""
    while op.block != block:
        op = op.parent.operation
    return op


def _reorder_arguments(function: Any, constants: Sequence[Any], results: int, scratch_bytes: int) -> int:
    """Move constants and scratch, which are the last arguments, in front of the results; the number of arguments moved."""
    entry = function.regions[0].blocks[0]
    arguments = list(entry.arguments)
    added = len(constants) + (1 if scratch_bytes else 0)
    inputs = len(arguments) - added - results
    order = [*arguments[:inputs], *arguments[inputs + results :], *arguments[inputs : inputs + results]]
    moved = [entry.add_argument(argument.type, function.location) for argument in order]
    for old, new in zip(order, moved, strict=True):
        old.replace_all_uses_with(new)
    for _ in arguments:
        entry.erase_argument(0)
    _update_type(function)
    function.attributes["sym_visibility"] = ir.StringAttr.get("private")
    for name in ("arg_attrs", "res_attrs"):
        if name in function.attributes:
            del function.attributes[name]
    return added


def _extend_call(call: Any, constants: Sequence[tuple[ir.Type, ir.Attribute]], results: int, added: int) -> None:
    operands = list(call.operands)
    with ir.InsertionPoint(call):
        buffers = [
            create(
                "qtile.buffer",
                [],
                [kind],
                {"space": "weights", "offset_bytes": 0, "size_bytes": _bytes_of(kind), "value": value},
                loc=call.location,
            )
            for kind, value in constants
        ]
        if added > len(constants):
            kind = _callee_types(call)[len(operands) - results + len(constants)]
            facts = {"space": "scratch", "offset_bytes": 0, "size_bytes": ir.MemRefType(kind).shape[0]}
            buffers.append(create("qtile.buffer", [], [kind], facts, loc=call.location))
        split = len(operands) - results
        given = [*operands[:split], *(b.results[0] for b in buffers), *operands[split:]]
        attributes = {name: call.attributes[name] for name in call.attributes}
        create("func.call", given, [], attributes, loc=call.location)
    call.operation.erase()


def _callee_types(call: Any) -> list[ir.Type]:
    module = call.operation
    while module.parent is not None:
        module = module.parent.operation
    function = next(f for f in walk(module, "func.func") if op_attribute(f, "sym_name") == op_attribute(call, "callee"))
    return [argument.type for argument in function.regions[0].blocks[0].arguments]


def _bytes_of(kind: ir.Type) -> int:
    memref = ir.MemRefType(kind)
    return _count(memref) * _element_bytes(memref.element_type)
