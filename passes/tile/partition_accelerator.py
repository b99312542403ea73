"""Split the model into segments that the accelerator runs and segments that the host CPU runs.

Before:

    func.func @main(%x: tensor<1x8xf32>) -> tensor<1x4xf32> {
      %q = qcc.quantize %x
      %a = qcc.linear %q, %w
      %r = qcc.requantize %a {mode = "fixed", ...}
      %f = qcc.dequantize %r
      %s = qcc.softmax %f
      return %s

After:

    func.func @main(%x) { %q = call @host_0(%x);  %r = call @accelerator_1(%q);  %s = call @host_2(%r);  return %s }
    func.func private @host_0(%x) attributes {qcc.segment = "host"} { %q = qcc.quantize %x; return %q }
    func.func private @accelerator_1(%q) attributes {qcc.segment = "accelerator"} { linear, requantize }
    func.func private @host_2(%r) attributes {qcc.segment = "host"} { dequantize, softmax }

Requires: integer form with `mode = "fixed"` (lower-requantize-to-fixed); anything in mode f32 stays on the host.
Guarantees: `@main` holds calls of segments and constants only; accelerator segments hold what
`_accelerator/rules.py` allows; every
operation on the host has its reason among the remarks. Segments are in dependence order; an operation stands in the
earliest segment it can.
Why: a segment border costs a conversion between bytes and bit-planes and a wait for the other side, so there are as few as the
dependences allow. A segment that only moves data is not worth one; one that only adds or rescales is, because CPU
codelets compute in
mode f32 and the integer form says fixed.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create, error_at, ir, layer_name, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile._accelerator import rules
from qcc.passes.values import users

_WORTH_A_SEGMENT = (*rules.PRODUCTS, "qcc.max_pool2d", "qcc.avg_pool2d", "qcc.add", "qcc.sub", "qcc.requantize")
_HOST_OPERATIONS = ("qcc.quantize", "qcc.dequantize", *rules.VIEWS)  # not worth a remark


class PartitionAcceleratorPass(Pass):
    """See the module's docstring."""

    name = "partition-accelerator"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in [op for op in walk(module, "func.func") if "sym_visibility" not in op.attributes]:
            _partition(module, function, context)


def _partition(module: ir.Module, function: Any, context: PassContext) -> None:
    body = function.regions[0].blocks[0]
    operations = [view.operation for view in body.operations]
    work = [op for op in operations if op.name not in ("qcc.constant", "arith.constant", "func.return")]
    if state := next((op for op in work if op.name in ("qcc.read_state", "qcc.write_state")), None):
        raise error_at(state, "the model keeps state from run to run, which the accelerator does not; compile it for the CPU")
    decision = rules.decide(work)
    stages = _stages(work, decision.reasons)
    while poor := _stages_not_worth_it(stages) or _stranded_views(stages, decision.axes):
        for op in poor:
            decision.reasons[op] = "nothing that computes stands beside it"
        stages = _stages(work, decision.reasons)
    for op in work:
        reason = decision.reasons[op]
        if not reason or op.name not in _HOST_OPERATIONS:
            context.fact(layer_name(op.location) or op.name, runs_on="host" if reason else "accelerator")
        if reason and op.name not in _HOST_OPERATIONS:
            context.remarks.append(f"{layer_name(op.location) or op.name}: {op.name.split('.')[-1]} runs on the host: {reason}")
    name = function.attributes["sym_name"].value
    _outline(module, body, work, stages, "" if name == "main" else f"{name}_")


def _stages(work: list[Any], reasons: dict[Any, str | None]) -> dict[Any, int]:
    """Stage of every operation: even ones run on the host, odd ones on the accelerator, each after all before it."""
    stages: dict[Any, int] = {}
    for op in work:
        least = 0 if reasons[op] else 1
        for value in op.operands:
            made_by = None if isinstance(value.owner, ir.Block) else value.owner.operation
            if made_by in stages:
                before = stages[made_by]
                least = max(least, before if before % 2 == least % 2 else before + 1)
        stages[op] = least
    return stages


def _stranded_views(stages: dict[Any, int], axes: dict[Any, int]) -> list[Any]:
    """Views on the accelerator that only later segments read; of a flattened tensor, that any later segment reads."""
    for op, stage in stages.items():
        if op.name in rules.VIEWS and stage % 2:
            beside = [stages.get(user) == stage for user in users(op.results[0])]
            if not (all(beside) if axes[op.results[0]] == rules.FLAT else any(beside)):
                return [op]
    return []


def _stages_not_worth_it(stages: dict[Any, int]) -> list[Any]:
    for stage in sorted({s for s in stages.values() if s % 2}):
        members = [op for op, s in stages.items() if s == stage]
        if not any(op.name in _WORTH_A_SEGMENT for op in members):
            return members
    return []


def _outline(module: ir.Module, body: Any, work: list[Any], stages: dict[Any, int], prefix: str) -> None:
    """Move the operations of each stage into a private function of their own and call them in order."""
    terminator = body.operations[len(body.operations) - 1].operation
    replaced: dict[Any, Any] = {}
    for stage in sorted(set(stages.values())):
        members = [op for op in work if stages[op] == stage]
        inside = {result for op in members for result in op.results}
        inputs: list[Any] = []
        constants: list[Any] = []
        for op in members:
            for value in op.operands:
                made_by = None if isinstance(value.owner, ir.Block) else value.owner.operation
                if made_by is not None and made_by.name in ("qcc.constant", "arith.constant"):
                    if made_by not in constants:
                        constants.append(made_by)
                elif value not in inside and value not in inputs:
                    inputs.append(value)
        outputs = [r for op in members for r in op.results if any(use.owner.operation not in members for use in r.uses)]
        name = prefix + f"{'accelerator' if stage % 2 else 'host'}_{stage}"
        _make_function(module, name, "accelerator" if stage % 2 else "host", constants, members, inputs, outputs)
        call = create(
            "func.call",
            [replaced.get(v, v) for v in inputs],
            [v.type for v in outputs],
            {"callee": ir.FlatSymbolRefAttr.get(name)},
            loc=members[0].location,
            ip=ir.InsertionPoint(terminator),
        )
        replaced |= dict(zip(outputs, call.results, strict=True))
    for old, new in replaced.items():
        old.replace_all_uses_with(new)
    for op in reversed(work):
        op.erase()
    for view in reversed(list(body.operations)):
        op = view.operation
        if op.name in ("qcc.constant", "arith.constant") and not any(True for _ in op.results[0].uses):
            op.erase()


def _make_function(
    module: ir.Module, name: str, segment: str, constants: list[Any], members: list[Any], inputs: list[Any], outputs: list[Any]
) -> None:
    kind = ir.FunctionType.get([v.type for v in inputs], [v.type for v in outputs])
    function = ir.Operation.create(
        "func.func",
        regions=1,
        loc=members[0].location,
        ip=ir.InsertionPoint(module.body),
        attributes={
            "sym_name": ir.StringAttr.get(name),
            "function_type": ir.TypeAttr.get(kind),
            "sym_visibility": ir.StringAttr.get("private"),
            "qcc.segment": ir.StringAttr.get(segment),
        },
    )
    block = ir.Block.create_at_start(function.regions[0], [v.type for v in inputs], [members[0].location] * len(inputs))
    mapped: dict[Any, Any] = dict(zip(inputs, block.arguments, strict=True))
    at = ir.InsertionPoint(block)
    for op in [*constants, *members]:
        copy = op.clone(ip=at).operation
        for index, value in enumerate(op.operands):
            copy.operands[index] = mapped[value]
        mapped |= dict(zip(op.results, copy.results, strict=True))
    ir.Operation.create("func.return", operands=[mapped[v] for v in outputs], loc=members[0].location, ip=at)
