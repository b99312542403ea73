"""Comparisons, minimum and maximum, selections, logic, and arithmetic of positions: what torch computes, without the generic path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import qcc
from qcc.dialects.mlir import walk
from test.frontend import onnx_models
from test.frontend.test_torch import Function, graph_form
from test.tiers import slow_except

INF, NAN = float("inf"), float("nan")
NUMBERS = torch.tensor([1.0, -1.0, 0.5, INF, -INF, NAN, 0.25, -2.5] * 5).reshape(5, 8)
A, B = NUMBERS, NUMBERS.roll(3, 1) * torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0]).reshape(5, 1)
ROW = torch.tensor([[0.5, NAN, -1.0, 2.0, -INF, INF, 0.0, 0.25]])
MASK = (torch.arange(40) % 3 == 0).reshape(5, 8)
OTHER = (torch.arange(8) % 2 == 0).reshape(1, 8)
PLACES = torch.arange(40).reshape(5, 8) - 17
SHORT = (PLACES * 3).to(torch.int32)

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "eq": (torch.eq, (A, B)),
    "ne": (torch.ne, (A, ROW)),
    "lt": (torch.lt, (ROW, A)),
    "le of a number": (lambda x: x <= 0.5, (A,)),
    "gt": (torch.gt, (A, B)),
    "ge of a number": (lambda x: x >= 0, (A,)),
    "number on the left": (lambda x: 0.25 < x, (A,)),
    "isnan": (torch.isnan, (A,)),
    "maximum": (torch.maximum, (A, B)),
    "minimum": (torch.minimum, (A, ROW)),
    "maximum of a row": (torch.maximum, (ROW, A)),
    "maximum of a number": (lambda x: torch.maximum(x, torch.tensor(0.5)), (A,)),
    "clamp by tensors": (torch.clamp, (A, ROW, B)),
    "clamp below": (lambda x, low: torch.clamp(x, min=low), (A, ROW)),
    "clamp above": (lambda x, high: torch.clamp(x, max=high), (A, B)),
    "where": (torch.where, (MASK, A, ROW)),
    "where of numbers": (lambda m: torch.where(m, 0.0, -1e9), (MASK,)),
    "where of a comparison": (lambda x, y: torch.where(x > y, x * 2, y - 1), (A, B)),
    "where, a condition that broadcasts": (lambda m, x: torch.where(m, x, 0.0), (OTHER, A)),
    "where of integers": (torch.where, (MASK, PLACES, PLACES.flip(0))),
    "where of booleans": (torch.where, (MASK, OTHER, MASK.flip(0))),
    "masked fill": (lambda x, m: x.masked_fill(m, -INF), (A, MASK)),
    "and": (torch.logical_and, (MASK, OTHER)),
    "or": (lambda a, b: a | b, (MASK, OTHER)),
    "xor": (torch.logical_xor, (MASK, OTHER)),
    "not": (lambda m: ~m, (MASK,)),
    "an inverted mask": (lambda m: (1.0 - m.float()) * -1e9, (MASK,)),
    "a mask as a factor": (lambda x, m: torch.nan_to_num(x) * m, (A, MASK)),
    "a number as a boolean": (lambda x: x.bool(), (A,)),
    "positions": (lambda i: (i + 2) * 3 - i, (PLACES,)),
    "positions in 32 bits": (lambda i: i * 70000 * 70000 - i, (SHORT,)),
    "positions beyond 32 bits": (lambda i: torch.where(i > 2**40, i, i + 2**41), (PLACES * 2**39,)),
    "a causal mask": (lambda i: i.reshape(8, 5, 1) >= i.reshape(8, 1, 5), (PLACES,)),
    "a window of positions": (lambda i: (i > -3) & (i <= 12) & (i != 4), (PLACES,)),
    "a clamped position": (lambda i: torch.minimum(i, i.new_tensor([3])), (PLACES,)),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_except(CASES, "ne", "maximum", "clamp by tensors", "where of a comparison", "positions"))
def test_torch(name: str) -> None:
    function, inputs = CASES[name]
    executable = qcc.compile(Function(function).eval(), example_inputs=inputs, threads=1)
    found, expected = executable(*inputs), function(*inputs)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


QUICK = ("le of a number", "maximum of a row", "clamp below", "where", "masked fill", "xor", "an inverted mask", "a causal mask")


@pytest.mark.parametrize("name", slow_except(CASES, *QUICK))
def test_no_generic_path(name: str) -> None:
    function, inputs = CASES[name]
    assert not list(walk(graph_form(Function(function), *inputs).module, "func.call"))


@pytest.mark.parametrize("function", [torch.maximum, torch.minimum])
@pytest.mark.parametrize("dtype", slow_except([torch.float64, torch.float16, torch.bfloat16], torch.float64))
def test_a_nan_of_either_operand_survives_on_the_generic_path(function: Any, dtype: torch.dtype) -> None:
    a, b = A.to(dtype), ROW.to(dtype)
    found = qcc.compile(Function(function).eval(), example_inputs=(a, b), threads=1)(a, b)
    assert torch.equal(found.isnan(), function(a, b).isnan()) and torch.equal(found.nan_to_num(), function(a, b).nan_to_num())


def test_the_sign_of_nan_is_0() -> None:
    np.testing.assert_array_equal(qcc.compile(Function(torch.sign).eval(), example_inputs=(A,), threads=1)(A), torch.sign(A))


def test_selections_behind_a_product_are_its_epilogue() -> None:
    """A mask of scores costs no pass over memory of its own."""
    q, k, mask = torch.randn(2, 5, 16), torch.randn(2, 8, 16), MASK[None]

    def scores(q: Any, k: Any, mask: Any) -> Any:
        return torch.where(mask, q @ k.transpose(1, 2), -1e9).softmax(-1)

    executable = qcc.compile(Function(scores).eval(), example_inputs=(q, k, mask), threads=1)
    torch.testing.assert_close(executable(q, k, mask), scores(q, k, mask), rtol=1e-5, atol=1e-6)


ONNX: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Where": ([helper.make_node("Greater", ["a", "b"], ["m"]), helper.make_node("Where", ["m", "a", "b"], ["y"])], {}),
    "Max": ([helper.make_node("Max", ["a", "b"], ["m"]), helper.make_node("Min", ["m", "c"], ["y"])], {"c": np.float32([0.75])}),
    "Not": (
        [
            helper.make_node("LessOrEqual", ["a", "b"], ["m"]),
            helper.make_node("Equal", ["a", "c"], ["e"]),
            helper.make_node("Or", ["m", "e"], ["o"]),
            helper.make_node("Not", ["o"], ["n"]),
            helper.make_node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        {"c": np.float32([0.25])},
    ),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name: str) -> None:
    nodes, constants = ONNX[name]
    source = onnx_models.model(nodes, {"a": (onnx_models.FLOAT, [5, 8]), "b": (onnx_models.FLOAT, [5, 8])}, ["y"], constants, opset=17)
    a, b = torch.nan_to_num(A).numpy(), torch.nan_to_num(B).numpy()
    expected = onnx.reference.ReferenceEvaluator(source).run(None, {"a": a, "b": b})[0]
    np.testing.assert_array_equal(qcc.compile(source, threads=1)(a, b), expected)
    assert not list(walk(onnx_models.graph_form(source), "func.call"))
