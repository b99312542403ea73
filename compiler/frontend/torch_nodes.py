"""Nodes of FX graphs: their arguments by name, and what is known of the values of those that are put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def is_open(value: Any) -> bool:
    """Whether a size of tensor `value` is known only at run time."""
    return any(isinstance(size, torch.SymInt) for size in value.shape)


def is_in_place(node: Any) -> bool:
    """Whether a node writes to one of its arguments."""
    return node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)


def arguments(node: Any) -> dict[str, Any]:
    """Arguments of an operator's node by name, defaults included."""
    schema = node.target._schema.arguments
    given = {a.name: a.default_value for a in schema if a.has_default_value()}
    return given | {a.name: value for a, value in zip(schema, node.args, strict=False)} | dict(node.kwargs)


def block_sizes(block: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Elements of a block along every axis; -1 stands for the whole axis."""
    return [n if b == -1 else b for b, n in zip(block, shape, strict=True)]


def meta_like(node: Any, value: Any) -> dict[str, Any]:
    """The meta data of `node`, its module's path among them, for a node whose (fake) value is `value`."""
    return {**{key: held for key, held in node.meta.items() if key != "tensor_meta"}, "val": value}


def module_path(node: Any) -> tuple[str, bool]:
    """Path of the innermost module of `node`, and whether that is one of torch's own layers."""
    for path, kind in reversed(list((node.meta.get("nn_module_stack") or {}).values())):
        text = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        if "torch.export" in text:
            continue
        return str(path), text.startswith(_LEAVES)
    return "", False


_LEAVES = ("torch.nn.modules", "torch.ao.nn", "qcc.compiler.frontend.torch_eager")
