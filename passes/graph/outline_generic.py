"""outline-generic: every connected group of operations that are not qcc's moves into a private function, called with its reason.

Before:
    %1 = "qcc.linear"(%0, %w) ...
    %2 = linalg.generic ... { math.sin } : tensor<4x8xf32>
    %3 = "qcc.clamp"(%2) ...
After:
    %1 = "qcc.linear"(%0, %w) ...
    %2 = func.call @generic_0(%1) {qcc.generic = "sin: no codelet"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    %3 = "qcc.clamp"(%2) ...
    func.func private @generic_0(...)

Requires: no torch operation is left.
Guarantees: public functions hold qcc operations, `tensor.concat`, calls and constants of their own only; constants are `qcc.constant`,
or stand inside the function that uses them; only static tensors cross a call. The call's location begins with the layer's name.
Why: two generic operations share a function when one uses the other and no qcc operation lies on any path between them (same *level*: the
number of changes between qcc and generic on the longest path from the inputs), so that a call can never need its own result.
Computation of scalars is repeated where it is needed rather than passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from qcc.dialects.mlir import create, error_at, ir, layer_name, to_attribute, walk
from qcc.passes.base import Pass, PassContext

STEM = "generic_"


class OutlineGenericPass(Pass):
    """See the module's docstring."""

    name = "outline-generic"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in [op for op in walk(module, "func.func") if "sym_visibility" not in op.attributes]:
            if len(function.regions[0].blocks) != 1:
                raise error_at(function, "the function has control flow between blocks, expected a single block; "
                                         "qcc compiles straight-line models")  # fmt: skip
            block = _BlockGraph(function.regions[0].blocks[0])
            if block.groups:
                _outline(module, block, context)
            _own_constants(block)


class _BlockGraph:
    """The operations of a block by number, and what uses what.

    Operations are numbers here because the bindings hash an operation by its contents, which change while operands are replaced.
    """

    def __init__(self, block: ir.Block) -> None:
        self.ops = [op.operation for op in block.operations]
        self.terminator = len(self.ops) - 1
        number = {op: i for i, op in enumerate(self.ops)}
        nested = {inner: i for i, op in enumerate(self.ops) if list(op.regions) for inner in walk(op)}
        self.captures = [_captures(op) for op in self.ops]
        self.producers = [sorted({number[o] for v in values if (o := _owner(v)) in number}) for values in self.captures]
        self.users: list[set[int]] = [set() for _ in self.ops]
        self.uses: dict[Any, set[int]] = {}
        for op in self.ops:
            for result in op.results:
                owners = [use.owner.operation for use in result.uses]
                self.uses[result] = {number[o] if o in number else nested[o] for o in owners}
        for i, producers in enumerate(self.producers):
            for producer in producers:
                self.users[producer].add(i)
        self.copied = self._find_copied()
        self.generic = [i for i in range(self.terminator) if not is_ours(self.ops[i]) and i not in self.copied]
        self.groups = self._find_groups()

    def _find_copied(self) -> set[int]:
        """Constants, scalars and empty or filled tensors: cheaper to repeat inside a function than to hand over."""
        copied: set[int] = set()
        for i, op in enumerate(self.ops[: self.terminator]):
            initial = op.name in ("tensor.empty", "linalg.fill", "tensor.splat") and all(p in copied for p in self.producers[i])
            if not is_ours(op) and (op.name == "arith.constant" or initial or _only_scalars(op)):
                copied.add(i)
        return copied

    def real_producers(self, i: int) -> set[int]:
        """Operations whose tensors `i` uses, itself or through what is copied."""
        found: set[int] = set()
        for producer in self.producers[i]:
            found |= self.real_producers(producer) if producer in self.copied else {producer}
        return found

    def takes_argument(self, i: int) -> bool:
        """Whether `i` uses an argument of the block, itself or through what is copied."""
        copied = [p for p in self.producers[i] if p in self.copied]
        return any(isinstance(v.owner, ir.Block) for v in self.captures[i]) or any(self.takes_argument(p) for p in copied)

    def real_users(self, users: set[int]) -> set[int]:
        """`users`, with what is copied replaced by its own users."""
        found: set[int] = set()
        for user in users:
            found |= self.real_users(self.users[user]) if user in self.copied else {user}
        return found

    def _find_groups(self) -> list[list[int]]:
        """Connected generic operations of the same level, each group in program order."""
        generic = set(self.generic)
        level, sources = [0] * len(self.ops), set[int]()
        for i in range(self.terminator):
            if i in self.copied:
                continue
            producers = self.real_producers(i)
            level[i] = max((level[p] + ((i in generic) != (p in generic)) for p in producers), default=0)
            if i in generic and producers <= sources and not self.takes_argument(i):
                sources.add(i)
        for i in reversed(self.generic):
            if i in sources:  # needs no input: belongs to whoever uses it first
                users = self.real_users(self.users[i]) - {self.terminator}
                level[i] = min((level[u] - (u not in generic) for u in users), default=0)
        parent = {i: i for i in self.generic}

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for i in self.generic:
            for producer in self.real_producers(i) & generic:
                if level[producer] == level[i]:
                    parent[root(producer)] = root(i)
        members: dict[int, list[int]] = {}
        for i in self.generic:
            members.setdefault(root(i), []).append(i)
        return list(members.values())

    def interface(self, group: list[int]) -> tuple[list[int], list[Any], list[Any]]:
        """Operations in the order the group's function holds them, the values it takes, and those it gives."""
        inside, body, inputs = set(group), list[int](), list[Any]()
        number = {result: i for i in range(self.terminator) for result in self.ops[i].results}

        def need(i: int) -> None:
            for value in self.captures[i]:
                producer = number.get(value, -1)
                if producer in self.copied:
                    if producer not in body:
                        need(producer)
                        body.append(producer)
                elif producer not in inside and value not in inputs:
                    inputs.append(value)

        for i in group:
            need(i)
            body.append(i)
        outputs = [r for i in group for r in self.ops[i].results if self.real_users(self.uses[r]) - inside]
        return body, inputs, outputs


def _outline(module: ir.Module, block: _BlockGraph, context: PassContext) -> None:
    interfaces = [block.interface(group) for group in block.groups]
    group_of = {i: -1 - g for g, group in enumerate(block.groups) for i in group}  # groups are negative numbers
    units: dict[int, tuple[int, set[int]]] = {}  # unit -> (place in the source, units before it)
    for i in range(block.terminator):
        if is_ours(block.ops[i]):
            units[i] = (i, {group_of.get(p, p) for p in block.producers[i] if p not in block.copied})
    for g, group in enumerate(block.groups):
        before = {group_of.get(p, p) for i in group for p in block.real_producers(i)}
        units[-1 - g] = (group[0], before - {-1 - g})
    current: dict[Any, Any] = {}  # result of a generic operation -> result of the call
    moved: dict[int, Any] = {i: block.ops[i] for i in units if i >= 0}
    for g, (group, (body, inputs, outputs)) in enumerate(zip(block.groups, interfaces, strict=True)):
        ops = [block.ops[i] for i in group]
        names = ", ".join(kinds_of(ops))
        for value in [*inputs, *outputs]:
            if not isinstance(value.type, ir.RankedTensorType) or not value.type.has_static_shape:
                raise error_at(ops[0], f"{names} gives or takes a {value.type}, expected tensors of static shape; "
                                       "fix the input sizes by example inputs")  # fmt: skip
        inputs = [current.get(v, v) for v in inputs]
        symbol = _free_symbol(module)
        location = next((op.location for op in ops if layer_name(op.location)), ops[0].location)
        _define(module, symbol, [block.ops[i] for i in body], inputs, outputs, location, f"{names}: no codelet")
        attributes = {"callee": ir.FlatSymbolRefAttr.get(symbol), "qcc.generic": to_attribute(f"{names}: no codelet")}
        place = ir.InsertionPoint(block.ops[block.terminator])
        call = create("func.call", inputs, [v.type for v in outputs], attributes, loc=location, ip=place)
        for old, new in zip(outputs, call.results, strict=True):
            old.replace_all_uses_with(new)
            current[old] = new
        moved[-1 - g] = call
        context.fact(layer_name(location) or symbol, generic=f"{names}: no codelet")
    for unit in _sorted_units(units):
        moved[unit].move_before(block.ops[block.terminator])
    for i in reversed(range(block.terminator)):
        op = block.ops[i]
        if i in group_of or (i in block.copied and not any(list(r.uses) for r in op.results)):
            op.erase()
            block.copied.discard(i)


def _define(
    module: ir.Module, symbol: str, body: list[Any], inputs: list[Any], outputs: list[Any], location: ir.Location, reason: str
) -> None:
    """A private function of copies of `body`."""
    kind = ir.FunctionType.get([v.type for v in inputs], [v.type for v in outputs])
    attributes = {"sym_name": symbol, "function_type": kind, "sym_visibility": "private", "qcc.generic": reason}
    made = ir.Operation.create("func.func", attributes={k: to_attribute(v) for k, v in attributes.items()}, regions=1,
                               loc=location, ip=ir.InsertionPoint(module.body))  # fmt: skip
    block = made.regions[0].blocks.append(*kind.inputs, arg_locs=[location] * len(inputs))
    mapping: dict[Any, Any] = dict(zip(inputs, block.arguments, strict=True))
    end = ir.InsertionPoint(block)
    for op in body:
        copy = op.clone(ip=end).operation
        for nested in walk(copy):
            for i, operand in enumerate(nested.operands):
                if operand in mapping:
                    nested.operands[i] = mapping[operand]
        mapping.update(zip(op.results, copy.results, strict=True))
    create("func.return", [mapping[v] for v in outputs], [], loc=location, ip=end)


def _own_constants(block: _BlockGraph) -> None:
    """Tensor constants that qcc operations or the terminator still use become `qcc.constant`, unused ones go."""
    for i in sorted(block.copied, reverse=True):
        op = block.ops[i]
        if any(list(r.uses) for r in op.results):
            kind = op.results[0].type
            if op.name != "arith.constant" or not isinstance(kind, ir.RankedTensorType):
                raise error_at(op, f"{op.name} gives a {kind} to the model's result, expected a computed tensor")
            attributes = {"value": op.attributes["value"]}
            made = create("qcc.constant", [], [kind], attributes, loc=op.location, ip=ir.InsertionPoint(op))
            op.results[0].replace_all_uses_with(made.results[0])
        op.erase()


def is_ours(op: Any) -> bool:
    """Whether `op` belongs to the graph form itself rather than to the generic path."""
    if op.name == "tensor.concat":
        kinds = [value.type for value in (*op.operands, *op.results)]
        return all(k.has_static_shape and str(k.element_type).startswith(("f32", "!quant.", "!qcc.")) for k in kinds)
    return op.name.startswith(("qcc.", "qtile.", "qisa.")) or op.name == "func.call"


def kinds_of(group: Sequence[Any]) -> list[str]:
    """What the operations of `group` were called in the source, or are called in linalg; each once, at most eight."""
    found: dict[str, None] = {}
    for op in group:
        found.update(dict.fromkeys(_kinds(op)))
    names = [name for name in found if name not in _PLUMBING] or list(found)
    return [*names[:8], *(["..."] if len(names) > 8 else [])]


_PLUMBING = ("tensor.empty", "linalg.fill", "tensor.cast", "tensor.expand_shape", "tensor.collapse_shape")


def _kinds(op: Any) -> list[str]:
    location = op.location
    while isinstance(location, ir.NameLoc):
        name = str(location.name_str)
        if name.startswith("torch."):
            return [name.removeprefix("torch.").removeprefix("aten.")]
        location = location.child_loc
    if op.name == "linalg.generic":
        body = [o.operation.name.split(".")[-1] for o in op.regions[0].blocks[0].operations]
        return [name for name in body if name not in ("yield", "constant")] or ["linalg.generic"]
    return [op.name]


def _only_scalars(op: Any) -> bool:
    """Whether `op` gives results, none of them a tensor."""
    kinds = [r.type for r in op.results]
    return bool(kinds) and not any(isinstance(k, ir.ShapedType) for k in kinds)


def _owner(value: Any) -> Any:
    made_by = value.owner
    return None if isinstance(made_by, ir.Block) else made_by.operation


def _captures(op: Any) -> list[Any]:
    """Values that `op` or an operation nested in it uses and that are defined outside of it, each once."""
    if not list(op.regions):
        return list(dict.fromkeys(op.operands))
    nested = list(walk(op))
    blocks = {block for inner in nested for region in inner.regions for block in region.blocks}
    inside = {result for inner in nested for result in inner.results}
    values = dict.fromkeys(value for inner in nested for value in inner.operands)
    return [v for v in values if v not in inside and not (isinstance(v.owner, ir.Block) and v.owner in blocks)]


def _free_symbol(module: ir.Module) -> str:
    taken = {str(op.operation.attributes["sym_name"].value) for op in module.body.operations if "sym_name" in op.operation.attributes}
    number = 0
    while f"{STEM}{number}" in taken:
        number += 1
    return f"{STEM}{number}"


def _sorted_units(units: dict[int, tuple[int, set[int]]]) -> list[int]:
    """Units in an order in which every value is made before it is used, as near to the source's order as that allows."""
    waiting = {unit: set(before) for unit, (_, before) in units.items()}
    users: dict[int, list[int]] = {unit: [] for unit in units}
    for unit, before in waiting.items():
        for other in before:
            users[other].append(unit)
    ready = [(units[unit][0], unit) for unit, before in waiting.items() if not before]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        unit = heapq.heappop(ready)[1]
        order.append(unit)
        for user in users[unit]:
            waiting[user].discard(unit)
            if not waiting[user]:
                heapq.heappush(ready, (units[user][0], user))
    assert len(order) == len(units), "groups depend on each other in a circle"
    return order
