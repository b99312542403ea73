"""`factor-low-rank` finds the rank that weights were made with, never one that they do not have, and changes no result beyond rounding."""

from __future__ import annotations

import numpy as np
import pytest

from qcc.dialects import shapes
from qcc.dialects.mlir import create, create_context, ir, parse_module, to_attribute, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.integer import _low_rank
from qcc.passes.values import constant_array, make_constant, shape_of
from qcc.runtime.reference import interpreter
from test.tiers import slow_except

CONTEXT = create_context()
F32 = np.float32


def product(rng: np.random.Generator, n: int, k: int, rank: int, kind: str) -> np.ndarray:
    """[n, k] f32 of `rank`, multiplied out in binary32 as a tool does."""
    left, right = rng.standard_normal((n, rank)), rng.standard_normal((rank, k))
    if kind == "scaled":  # channels of very different size
        left, right = left * 10.0 ** rng.uniform(-3, 3, (n, 1)), right * 10.0 ** rng.uniform(-3, 3, (1, k))
    if kind == "graded":  # singular values as those of trained weights
        left, right = np.linalg.qr(left)[0] * np.geomspace(1, 1e-3, rank), np.linalg.qr(right.T)[0].T
    if kind == "positive":
        left, right = np.maximum(left, 0), np.abs(right)
    return left.astype(F32) @ right.astype(F32)


def scales(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    down = np.abs(matrix).max(axis=1)
    down[down == 0] = 1
    across = (np.abs(matrix) / down[:, None]).max(axis=0)
    across[across == 0] = 1
    return down, across


@pytest.mark.parametrize("kind", ["plain", "scaled", "graded", "positive"])
@pytest.mark.parametrize("seed", slow_except(range(8), 0, 1))
def test_a_rank_is_found(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = (int(size) for size in rng.integers(20, 300, 2))
    most = n * k // (n + k)
    rank = int(rng.integers(1, most))
    matrix = product(rng, n, k, rank, kind)
    down, across = scales(matrix)
    found = _low_rank.factors(matrix, down, across, most)
    assert found is not None and found.rank <= rank
    apart = np.abs(found.left.astype(np.float64) @ found.right.astype(np.float64) - matrix)
    assert (apart <= _low_rank.TOLERANCE * down[:, None] * across).all()


@pytest.mark.parametrize("seed", slow_except(range(8), 0))
def test_what_is_not_of_low_rank_is_not_factored(seed: int) -> None:
    """Not even where one element, or a faint noise everywhere, is all that is missing."""
    rng = np.random.default_rng(seed)
    n, k = (int(size) for size in rng.integers(20, 300, 2))
    most = n * k // (n + k)
    for matrix in (
        rng.standard_normal((n, k)).astype(F32),
        product(rng, n, k, most + 1, "plain"),
        product(rng, n, k, 3, "plain") + (1e-3 * rng.standard_normal((n, k))).astype(F32),
        np.zeros((n, k), F32),
    ):
        assert _low_rank.factors(matrix, *scales(matrix), most) is None
    matrix = product(rng, n, k, 3, "plain")
    matrix[rng.integers(n), rng.integers(k)] += 1e-2
    found = _low_rank.factors(matrix, *scales(matrix), most)
    assert found is None or found.rank == 4


@pytest.mark.parametrize("seed", slow_except(range(24), *range(4)))
def test_same_results(seed: int) -> None:
    rng = np.random.default_rng(seed)
    way = ["outputs", "inputs", "rows", "all"][seed % 4]
    out, inside = (int(v) for v in rng.integers(24, 48, 2))
    rows, columns = [int(v) for v in rng.integers(2, 5, 2)]
    strides, dilations = ([int(v) for v in rng.integers(1, 3, 2)] for _ in range(2))
    padding = [int(v) for v in rng.integers(0, 3, 4)]
    weights = rng.standard_normal((out, inside, rows, columns))
    if way == "outputs":
        weights = np.einsum("or,rihw->oihw", rng.standard_normal((out, 3)), weights[:3])
    elif way == "inputs":
        weights = np.einsum("orhw,ri->oihw", weights[:, :3], rng.standard_normal((3, inside)))
    elif way == "rows":
        weights = np.einsum("rih,orw->oihw", weights[:4, :, :, 0], rng.standard_normal((out, 4, columns)))
    else:  # Tucker-2
        weights = np.einsum("or,rshw,si->oihw", weights[:, :4, 0, 0], weights[:4, :5], rng.standard_normal((5, inside)))
    with CONTEXT, ir.Location.unknown():
        f32 = ir.F32Type.get()
        x = ir.RankedTensorType.get([2, inside, 13, 12], f32)
        y = ir.RankedTensorType.get(shapes.conv2d(list(x.shape), list(weights.shape), strides, padding, dilations), f32)
        cast = f"%y = builtin.unrealized_conversion_cast %x : {x} to {y}"
        text = f"func.func @main(%x: {x}, %b: tensor<{out}xf32>) -> {y} {{ {cast} return %y : {y} }}"
        module = parse_module(text, CONTEXT)
        cast = next(walk(module, "builtin.unrealized_conversion_cast"))
        attributes = {k: to_attribute(v) for k, v in {"strides": strides, "padding": padding, "dilations": dilations}.items()}
        operands = [cast.operands[0], make_constant(weights.astype(F32), f32, cast), cast.parent.regions[0].blocks[0].arguments[1]]
        conv = create("qcc.conv2d", operands, [y], {**attributes, "groups": 1}, ip=ir.InsertionPoint(cast))
        cast.results[0].replace_all_uses_with(conv.results[0])
        cast.erase()
        given = [rng.standard_normal(x.shape).astype(F32), rng.standard_normal(out).astype(F32)]
        expected = interpreter.run(module, given)[0]
        make_pass("factor-low-rank", "isa=avx2 optimize=size").run(module, PassContext())
        module.operation.verify()
        found = interpreter.run(module, given)[0]
        layers = [shape_of(op.operands[1]) for op in walk(module, "qcc.conv2d")]
        total = sum(w.size for op in walk(module, "qcc.conv2d") if (w := constant_array(op.operands[1])) is not None)
    bound = 2e-5 * np.abs(given[0]).max() * np.abs(weights).reshape(out, -1).sum(axis=1).max()
    np.testing.assert_allclose(found, expected, atol=bound, rtol=0)
    assert len(layers) == (3 if way == "all" else 2) and total < weights.size / 1.1
