"""Activations that are quantized while running: written as one operator that qcc has a word for.

PT2E's have one range, which `choose_qparams` finds: 256 levels of it that are dequantized again become `qcc::round_dynamic`, whatever least
scale torch would choose. torchao's have a range for each row.

`quantize_affine` of what `choose_qparams_affine` found for the same tensor becomes `qcc::round_dynamic` where it is dequantized again
(Int8DynamicActivationIntxWeightConfig), and where it is multiplied in integers and scaled behind the product
(Int8DynamicActivationInt8WeightConfig) the whole chain becomes a linear layer of the rounded activations and the dequantized weights.
What does not match is left to `torch_program`, which makes plain arithmetic of it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qcc.compiler.frontend.torch_nodes import arguments, block_sizes, meta_like
from qcc.dialects.mlir import ir, layer_name, op_attribute, walk
from qcc.passes.graph._torch_reader import Reader

_LIBRARY = torch.library.Library("qcc", "DEF")
_LIBRARY.define("round_dynamic(Tensor x, str rows, float epsilon) -> Tensor")


def _round_dynamic(x: Any, rows: str, epsilon: float) -> Any:
    """Meaning of `qcc.round_dynamic`, for tracing: `rows` is "" where all of x has one range."""
    axes = [-1] if rows else list(range(x.dim()))
    low, high = torch.clamp(x.amin(axes, keepdim=True), max=0.0), torch.clamp(x.amax(axes, keepdim=True), min=0.0)
    scale = torch.maximum(-low, high) / 127.5 if rows == "symmetric" else (high - low) / 255
    scale = torch.clamp(scale, min=epsilon)
    zero = torch.full_like(scale, 128) if rows == "symmetric" else torch.clamp(torch.round(-low / scale), 0, 255)
    return (torch.clamp(torch.round(x * (1.0 / scale)) + zero, 0, 255) - zero) * scale


_LIBRARY.impl("round_dynamic", _round_dynamic, "CompositeExplicitAutograd")

SHIFT = 128  # makes unsigned bytes of signed ones
_MAPPINGS = {"SYMMETRIC": "symmetric", "ASYMMETRIC": "asymmetric"}
_VIEWS = ("aten.view.", "aten.reshape.", "aten._to_copy.", "aten.to.", "aten.flatten.", "aten.unsqueeze.", "aten.squeeze.", "aten.clone.")


@dataclass(frozen=True)
class _Levels:
    """A quantize_affine node by a range of each row of `x`."""

    x: Any
    scale: Any
    zero: Any
    rows: str
    epsilon: float


def recognise(program: Any) -> None:
    """Rewrite in place."""
    graph = program.graph
    for node in [n for n in graph.nodes if _is(n, "quantized_decomposed.dequantize_per_tensor.tensor")]:
        if (x := _of_one_range(node)) is not None:
            with graph.inserting_before(node):
                made = _made(graph, torch.ops.qcc.round_dynamic.default, (x, "", 0.0), x.meta["val"], node)
            _replace(graph, node, made)
    graph.eliminate_dead_code()
    if not any(_is(node, "torchao.quantize_affine.") for node in graph.nodes):
        return
    for node in [n for n in graph.nodes if _is(n, "aten._int_mm.")]:
        _take_shift_back(graph, node)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if _is(node, "torchao.quantize_affine.") and (levels := _levels(node)) is not None:
            for user in list(node.users):
                if _is(user, "torchao.dequantize_affine."):
                    given = arguments(user)
                    if (given["scale"], given["zero_point"]) == (levels.scale, levels.zero):
                        with graph.inserting_before(user):
                            _replace(graph, user, _rounded(graph, levels, user))
                elif (product := _only(user, "aten._int_mm.")) is not None:
                    _replace_product(graph, product, levels)
    graph.eliminate_dead_code()


def to_qcc(module: ir.Module) -> None:
    """The imported operators as `qcc.round_dynamic`, before upstream's passes, which accept no operators they do not know."""
    reader = Reader()
    with module.context, ir.Location.unknown(module.context):
        for op in walk(module, "torch.operator"):
            if op_attribute(op, "name") == "torch.qcc.round_dynamic":
                reader.at(op, layer_name(op.location))
                x, rows, epsilon = op.operands
                given = {"rows": str(reader.scalar(rows)), "epsilon": reader.number(epsilon)}
                y = reader.make("qcc.round_dynamic", [reader.builtin(x)], reader.type(x), **(given if given["rows"] else {}))
                reader.replace_early(op, y)
                op.erase()


def _levels(node: Any) -> _Levels | None:
    given = arguments(node)
    scale, zero = given["scale"], given["zero_point"]
    maker, other = (part.args[0] if getattr(part, "target", None) is operator.getitem else None for part in (scale, zero))
    if maker is not other or not _is(maker, "torchao.choose_qparams_affine."):
        return None
    found, x = arguments(maker), given["input"]
    shape = list(x.meta["val"].shape)
    block = block_sizes(found["block_size"], shape)
    whole = (found["target_dtype"], found["quant_min"], found["quant_max"]) in ((torch.int8, -128, 127), (torch.int8, None, None))
    limits = (given["quant_min"], given["quant_max"]) in ((-128, 127), (None, None))
    if found["input"] is not x or list(given["block_size"]) != list(found["block_size"]) or block != [*[1] * (len(shape) - 1), shape[-1]]:
        return None
    if not whole or not limits or x.meta["val"].dtype != torch.float32 or found["mapping_type"] not in _MAPPINGS:
        return None
    epsilon = torch.finfo(torch.float32).eps if found["eps"] is None else float(found["eps"])
    return _Levels(x, scale, zero, _MAPPINGS[found["mapping_type"]], epsilon)


def _of_one_range(dequantize: Any) -> Any:
    """What was quantized to 256 levels between its extremes and is dequantized here, or None."""
    levels = dequantize.args[0]
    if not _is(levels, "quantized_decomposed.quantize_per_tensor.tensor") or levels.args[1:] != dequantize.args[1:]:
        return None
    x, scale, zero, low, high, _ = levels.args
    makers = [n.args if getattr(n, "target", None) is operator.getitem else (None, 0) for n in (scale, zero)]
    maker: Any = makers[0][0]
    if makers != [(maker, 0), (maker, 1)] or not _is(maker, "quantized_decomposed.choose_qparams.tensor"):
        return None
    fits = maker.args[:3] == (x, low, high) and high - low == 255 and x.meta["val"].dtype == torch.float32
    return x if fits else None


def _take_shift_back(graph: Any, product: Any) -> None:
    """_int_mm(q, w) for _int_mm(q + 128, w) - 128 * sum(w): how torchao multiplies on CPUs that take unsigned bytes (VNNI)."""
    shifted, w = product.args
    added = _source(shifted)
    if not _is(added, "aten.add.") or added.args[1] != SHIFT or shifted.meta["val"].dtype != torch.uint8 or len(product.users) != 1:
        return
    taken = next(iter(product.users))
    if not _is(taken, "aten.sub.", "aten.sub_.") or taken.args[0] is not product:
        return
    lacking = taken.args[1]
    total: Any = lacking.args[0] if _is(lacking, "aten.mul.") and lacking.args[1] == SHIFT else None
    if _is(total, "aten.sum.") and total.args[0] is w and list(total.args[1]) == [0]:
        product.args = (_source_of_type(added.args[0], torch.int8), w)
        _replace(graph, taken, product)


def _source_of_type(node: Any, dtype: torch.dtype) -> Any:
    """What `node` was converted from, in `dtype`."""
    while node.meta["val"].dtype != dtype and _is(node, *_VIEWS):
        node = node.args[0]
    return node


def _replace_product(graph: Any, product: Any, levels: _Levels) -> None:
    """linear(rounded x, dequantized w) for the last multiplication behind the integer product `product`."""
    weight = product.args[1]
    if not _is(weight, "aten.t.") or levels.rows != "symmetric":
        return
    scales: list[Any] = []
    last = product
    while len(scales) < 2:
        if len(last.users) != 1:
            return
        behind = next(iter(last.users))
        if _is(behind, "aten.mul."):
            scales += [a for a in behind.args if a is not last]
        elif not _is(behind, *_VIEWS):
            return
        last = behind
    of_rows, of_channels = scales
    if _source(of_rows) is not levels.scale or of_channels.meta["val"].numel() != weight.meta["val"].shape[1]:
        return
    outs, ins = weight.args[0].meta["val"].shape
    with graph.inserting_before(last):
        flat = _made(graph, torch.ops.aten.view.default, (of_channels, [outs]), of_channels.meta["val"].reshape(outs), last)
        dequantize = torch.ops.quantized_decomposed.dequantize_per_channel.default
        real = _made(graph, dequantize, (weight.args[0], flat, None, 0, -128, 127, torch.int8), last.meta["val"].new_empty(outs, ins), last)
        rounded = _rounded(graph, levels, last)
        like = levels.x.meta["val"]
        y = _made(graph, torch.ops.aten.linear.default, (rounded, real), like.new_empty(*like.shape[:-1], outs), last)
        shaped = _made(graph, torch.ops.aten.view.default, (y, list(last.meta["val"].shape)), last.meta["val"], last)
    _replace(graph, last, shaped)


def _rounded(graph: Any, levels: _Levels, of: Any) -> Any:
    arguments = (levels.x, levels.rows, levels.epsilon)
    return _made(graph, torch.ops.qcc.round_dynamic.default, arguments, levels.x.meta["val"], of)


def _made(graph: Any, target: Any, arguments: Sequence[Any], value: Any, of: Any) -> Any:
    """A node with the module path of node `of`, named after what it calls."""
    made = graph.create_node("call_function", target, tuple(arguments), name=target._schema.name.split("::")[1])
    made.meta = meta_like(of, value)
    return made


def _replace(graph: Any, old: Any, new: Any) -> None:
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def _is(node: Any, *names: str) -> bool:
    return str(getattr(node, "target", "")).startswith(names)


def _only(node: Any, name: str) -> Any:
    """The one user called `name` that `node` reaches through views, None where there is another."""
    while _is(node, *_VIEWS):
        if len(node.users) != 1:
            return None
        node = next(iter(node.users))
    return node if _is(node, name) else None


def _source(node: Any) -> Any:
    """What `node` is a view of."""
    while _is(node, *_VIEWS):
        node = node.args[0]
    return node
