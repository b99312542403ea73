"""Reading torch IR for `convert-torch-to-qcc`: constants, shapes, and values as builtin tensors.

A rule is a function `rule(reader, op) -> list of builtin values, one per result` registered by `@rule("torch.aten.relu")`. It
raises `Declined` with a reason where the operation must take the generic path, before it creates anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qcc.dialects import shapes, weights
from qcc.dialects.mlir import create, error_at, ir

Rule = Callable[["Reader", Any], Sequence[Any]]
RULES: dict[str, Rule] = {}


class Declined(Exception):
    """The operation stays as it is; the text says why."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the torch operations `names`."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def require(condition: bool, reason: str) -> None:
    """Decline for `reason` unless `condition` holds."""
    if not condition:
        raise Declined(reason)


class Reader:
    """Operands of one torch operation after the other, with the insertion point before it."""

    def __init__(self) -> None:
        self.op: Any = None
        self.name = ""  # layer name, for resource keys
        self._constants: dict[Any, Any] = {}  # torch literal -> qcc.constant of the same elements

    def at(self, op: Any, name: str) -> None:
        """Move to `op`, whose layer is `name`."""
        self.op, self.name = op, name

    # -- constants ---------------------------------------------------------------------------------------------------

    def is_none(self, value: Any) -> bool:
        return owner(value) is not None and owner(value).name == "torch.constant.none"

    def scalar(self, value: Any) -> int | float | bool | str:
        """Python value of a torch scalar constant; declines where it is computed at run time."""
        op = owner(value)
        if op is not None and op.name in ("torch.constant.int", "torch.constant.float", "torch.constant.str"):
            return op.attributes["value"].value
        if op is not None and op.name == "torch.constant.bool":
            return bool(op.attributes["value"].value)
        if op is not None and op.name == "torch.derefine":
            return self.scalar(op.operands[0])
        if op is not None and op.name in ("torch.aten.Float.Scalar", "torch.aten.Int.Scalar", "torch.aten.Int.bool"):
            return self.scalar(op.operands[0])
        if op is not None and op.name == "torch.aten.item":
            array = self.array(op.operands[0])
            return array.reshape(-1)[0].item()
        raise Declined("an argument is computed at run time")

    def optional(self, value: Any) -> int | float | bool | str | None:
        """As `scalar`, with None for `torch.constant.none`."""
        op = owner(value)
        if op is not None and op.name == "torch.derefine":
            return self.optional(op.operands[0])
        return None if self.is_none(value) else self.scalar(value)

    def integer(self, value: Any) -> int:
        return int(self.scalar(value))

    def number(self, value: Any) -> float:
        return float(self.scalar(value))

    def flag(self, value: Any) -> bool:
        return bool(self.scalar(value))

    def integers(self, value: Any) -> list[int]:
        """A list of integer constants."""
        return [self.integer(item) for item in self.items(value)]

    def pair(self, value: Any) -> list[int]:
        """Two integers, from a list of one or two."""
        found = self.integers(value)
        return found * 2 if len(found) == 1 else found

    def items(self, value: Any) -> list[Any]:
        """Operands of the `torch.prim.ListConstruct` that makes `value`."""
        op = owner(value)
        if op is not None and op.name == "torch.derefine":
            return self.items(op.operands[0])
        if op is None or op.name != "torch.prim.ListConstruct":
            raise Declined("a list is computed at run time")
        return list(op.operands)

    def array(self, value: Any) -> np.ndarray:
        """Elements of a constant tensor, torch literal or qcc.constant; declines otherwise."""
        found = self.known(value)
        if found is None:
            raise Declined("a tensor argument is computed at run time, expected a constant")
        return found

    def known(self, value: Any) -> np.ndarray | None:
        """Elements of `value` where it is a constant tensor, else None."""
        op = owner(value)
        if op is None:
            return None
        if op.name in ("torch.vtensor.literal", "qcc.constant", "arith.constant"):
            return weights.array_of(op.attributes["value"])
        if op.name == "torch.prim.NumToTensor.Scalar":
            return np.asarray(self.scalar(op.operands[0]))
        if op.name in ("torch_c.from_builtin_tensor", "torch_c.to_builtin_tensor", *IDENTITIES):
            return self.known(op.operands[0])
        return None

    # -- tensors -----------------------------------------------------------------------------------------------------

    def type(self, value: Any) -> ir.RankedTensorType:
        """Builtin type of a torch tensor; declines where its shape is not static."""
        kind = tensor_type(value.type)
        require(kind is not None, f"{value.type} is not a tensor of known shape and element type")
        assert kind is not None
        require(kind.has_static_shape, f"{value.type} has a dynamic shape")
        return kind

    def shape(self, value: Any) -> list[int]:
        return list(self.type(value).shape)

    def f32(self, *values: Any) -> None:
        """Decline unless all `values` are f32 tensors: other float types have no fast path and stay exact on the generic one."""
        for value in values:
            kind = self.type(value)
            require(isinstance(kind.element_type, ir.F32Type), f"computes in {kind.element_type}, expected f32")

    def builtin(self, value: Any) -> Any:
        """`value` as a builtin tensor: what it was cast from, a qcc.constant, or a cast."""
        kind = self.type(value)
        op = owner(value)
        if op is not None and op.name == "torch_c.from_builtin_tensor":
            return op.operands[0]
        if op is not None and op.name in IDENTITIES and op.operands[0].type == value.type:
            return self.builtin(op.operands[0])
        if op is not None and op.name == "torch.vtensor.literal":
            return self._literal(op, kind)
        if op is not None and op.name == "torch.prim.NumToTensor.Scalar":
            dtype = weights.numpy_dtype(kind.element_type)
            return self.constant(np.asarray(self.scalar(op.operands[0]), dtype))
        return self.make("torch_c.to_builtin_tensor", [value], kind)

    def _literal(self, op: Any, kind: ir.RankedTensorType) -> Any:
        if op.result not in self._constants:
            attribute = op.attributes["value"]
            if ir.RankedTensorType(attribute.type) != kind:  # si8 and ui8 become i8
                array = weights.array_of(attribute)
                attribute = weights.constant_attribute(array, _key_stem(attribute), kind.element_type)
            made = create("qcc.constant", [], [kind], {"value": attribute}, loc=op.location, ip=ir.InsertionPoint(op))
            self._constants[op.result] = made.results[0]
        return self._constants[op.result]

    def constant(self, array: np.ndarray, kind: ir.Type | None = None) -> Any:
        """A new qcc.constant before the current operation, of type `kind` or the one `array.dtype` gives."""
        attribute = weights.constant_attribute(array, self.name)
        return self.make("qcc.constant", [], kind or attribute.type, value=attribute)

    def filled(self, shape: Sequence[int], value: float) -> Any:
        return self.constant(np.full(shape, value, np.float32))

    def make(self, name: str, operands: Sequence[Any], result: ir.Type, **attributes: Any) -> Any:
        """Create an operation before the current one and return its result."""
        made = create(name, operands, [result], attributes, loc=self.op.location, ip=ir.InsertionPoint(self.op))
        return made.results[0]

    def replace_early(self, op: Any, value: Any) -> None:
        """Replace the one result of a later operation by `value` (builtin); the pass erases unused operations when it meets them."""
        op.results[0].replace_all_uses_with(self.make("torch_c.from_builtin_tensor", [value], op.results[0].type))

    def reshape(self, value: Any, shape: Sequence[int]) -> Any:
        """`value` (builtin) in another shape; constants are reshaped here."""
        kind = ir.RankedTensorType(value.type)
        if list(kind.shape) == list(shape):
            return value
        op = owner(value)
        result = like(kind, shape)
        if op is not None and op.name == "qcc.constant" and not str(kind.element_type).startswith("!"):
            array = weights.array_of(op.attributes["value"]).reshape(shape)
            return self.make("qcc.constant", [], result, value=weights.constant_attribute(array, self.name, kind.element_type))
        return self.make("qcc.reshape", [value], result)

    def broadcast_shape(self, *values: Any) -> list[int]:
        found = shapes.broadcast(*(ir.RankedTensorType(v.type).shape for v in values))
        require(found is not None, "the operands do not broadcast")
        assert found is not None
        return found

    def only_first_result(self) -> None:
        """Decline where a result behind the first one is used."""
        for result in list(self.op.results)[1:]:
            require(not list(result.uses), "a secondary result is used")


# Operations that give their first operand back (where the types agree).
IDENTITIES = (
    "torch.aten.contiguous", "torch.aten.clone", "torch.aten.detach", "torch.aten.alias", "torch.aten.lift_fresh_copy",
    "torch.aten.detach_copy", "torch.aten.to.dtype", "torch.aten._to_copy", "torch.tensor_static_info_cast",
)  # fmt: skip


def owner(value: Any) -> Any:
    """The operation that makes `value`, or None for a block argument."""
    made_by = value.owner
    return None if isinstance(made_by, ir.Block) else made_by


def like(kind: ir.RankedTensorType, shape: Sequence[int], element: ir.Type | None = None) -> ir.RankedTensorType:
    """A tensor type of `shape` with the element type of `kind`."""
    return ir.RankedTensorType.get(list(shape), element or kind.element_type)


def tensor_type(kind: ir.Type) -> ir.RankedTensorType | None:
    """The builtin type of `!torch.vtensor<[2,?],f32>`: `tensor<2x?xf32>`, integers signless; None where rank or dtype is unknown."""
    match = re.fullmatch(r"!torch\.v?tensor<\[([\d?,]*)\],(\w+)>", str(kind))
    if match is None:
        return None
    sizes = [ir.ShapedType.get_dynamic_size() if s == "?" else int(s) for s in match[1].split(",") if s]
    element = re.sub(r"^[su](i\d+)$", r"\1", match[2])
    return ir.RankedTensorType.get(sizes, ir.Type.parse(element, kind.context), loc=ir.Location.unknown(kind.context))


def axis_of(axis: int, rank: int, op: Any) -> int:
    """`axis` counted from the front."""
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise error_at(op, f"axis {axis} is outside a tensor of {rank} axes")
    return axis % max(rank, 1)


def _key_stem(attribute: ir.Attribute) -> str:
    match = (
        re.match(r'dense_resource<"?([\w.]+?)(_\d+)*"?>', str(attribute)) if isinstance(attribute, ir.DenseResourceElementsAttr) else None
    )
    return match[1] if match else ""
