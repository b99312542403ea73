"""What the operations of qcc's three dialects share: named operands, typed attributes, messages for people."""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ext, ir, layer_name, op_attribute, python_value


class Invalid(QccError):
    """Raised inside `check`; its text becomes the verifier's message. Outside of verifiers it is a user's error like any other."""


Kind = tuple[str, Callable[[Any], bool]]


def ints(count: int | None = None, least: int | None = None) -> Kind:
    """An attribute that is a list of integers, of `count` entries, each at least `least`."""
    size = "a list of integers" if count is None else f"{count} integers"
    words = size + ("" if least is None else f", each at least {least}")

    def holds(value: Any) -> bool:
        return (
            isinstance(value, list)
            and all(isinstance(v, int) for v in value)
            and (count is None or len(value) == count)
            and (least is None or all(v >= least for v in value))
        )

    return words, holds


def integer(least: int | None = None) -> Kind:
    words = "an integer" + ("" if least is None else f" of at least {least}")
    return words, lambda v: isinstance(v, int) and not isinstance(v, bool) and (least is None or v >= least)


def number() -> Kind:
    return "a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)


def boolean() -> Kind:
    return "true or false", lambda v: isinstance(v, bool)


def one_of(*words: str) -> Kind:
    return "one of " + ", ".join(words), lambda v: v in words


def elements() -> Kind:
    return "an elements attribute (dense or dense_resource)", lambda v: hasattr(v, "dtype")


def symbol() -> Kind:
    return "a symbol name", lambda v: isinstance(v, str)


def text() -> Kind:
    return "a string", lambda v: isinstance(v, str)


def anything() -> Kind:
    return "an attribute", lambda v: True


def base_of(dialect: Any) -> "type[ext.OperationBase]":
    """The base class of a dialect's operations, whose operands and attributes are checked in Python.

    Class keywords of the operations: `operands` ("x", "w", and at most one optional, the last: "bias?"), `results` (how many),
    `attributes` (name -> kind; a name ending in "?" is optional), `pure`. An operation may define `check(self)`, which raises `Invalid`
    with the words for the user.

    There are no variadic operands: the bindings would force all of them to one type. Operations that need them are upstream's
    (`tensor.concat`, `func.call`).
    """

    class Base(dialect.Operation):  # the bindings allow one base class only, so this cannot be a mixin
        def __init_subclass__(
            cls,
            *,
            name: str,
            operands: Sequence[str] = (),
            results: int = 1,
            attributes: Mapping[str, Kind] | None = None,
            pure: bool = True,
        ) -> None:
            cls.OPERANDS, cls.RESULTS, cls.ATTRIBUTES = tuple(operands), results, dict(attributes or {})
            fields: dict[str, Any] = {}
            for key in operands:
                fields[key.rstrip("?")] = ext.Operand[Any] | None if key.endswith("?") else ext.Operand[Any]
            for i in range(results):
                fields[f"y{i or ''}"] = ext.Result[Any]
            cls.__annotations__ = fields
            super().__init_subclass__(name=name, traits=[ext.Pure] if pure else [])
            for i, key in enumerate(operands):
                setattr(
                    cls,
                    key.rstrip("?"),
                    property(lambda self, i=i: self.operands[i] if i < len(self.operands) else None),
                )

        def attr(self, name: str, default: Any = None) -> Any:
            """Python value of attribute `name`, or `default`."""
            return op_attribute(self, name, default)

        def check(self) -> None:
            """Operation-specific rules; raises Invalid."""

        def verify_invariants(self) -> bool:
            try:
                _check_operands(self)
                _check_attributes(self)
                self.check()
            except QccError as problem:
                layer = layer_name(self.location)
                where = f" in layer '{layer}'" if layer else ""
                self.location.emit_error(f"'{self.OPERATION_NAME}'{where}: {problem.message}")
                return False
            return True

    return Base


def _check_operands(op: Any) -> None:
    found, names = len(op.operands), op.OPERANDS
    least = sum(not n.endswith("?") for n in names)
    if not least <= found <= len(names):
        raise Invalid(f"found {found} operands, expected {', '.join(names) or 'none'}")


def _check_attributes(op: Any) -> None:
    for key, (words, holds) in op.ATTRIBUTES.items():
        name = key.rstrip("?")
        if name not in op.attributes:
            if key.endswith("?"):
                continue
            raise Invalid(f"attribute '{name}' is missing, expected {words}")
        if not holds(python_value(op.attributes[name])):
            raise Invalid(f"attribute '{name}' is {op.attributes[name]}, expected {words}")


def tensor(value: ir.Value, name: str) -> ir.RankedTensorType:
    """The static tensor type of operand or result `name`; raises Invalid otherwise."""
    kind = value.type
    if not isinstance(kind, ir.RankedTensorType) or not kind.has_static_shape:
        raise Invalid(f"'{name}' is {kind}, expected a tensor of static shape; fix dynamic sizes by example inputs or --batch")
    return kind
