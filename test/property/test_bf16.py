"""Float products of bfloat16 numbers on every instruction set against the reference: on AMX tiles, in pairs, and in f32 with weights of
two bytes.

The products are exact in f32, so what differs is the order of f32 sums: of n terms, at most about n/2 units in the last place of the sum
of magnitudes, and mostly sqrt(n); the inputs are about 1 and the tolerance is that of the other float products.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.dialects import instruction_sets
from qcc.dialects.unary_functions import unary
from qcc.passes.llvm.codelets.isa import isa as instructions_of
from test.emulation import amx
from test.property.test_codelets import _tensor
from test.property.tiled_executor import Text, check
from test.tiers import slow_except

ISAS = slow_except(instruction_sets.ISAS, "avx2")

COMPUTES = {"amx": "tile_bf16", "avx512_bf16": "dot2_bf16"}


def _computes(text: str) -> set[str]:
    return set(re.findall(r'compute = "(\w+_(?:f32|bf16))"', text))


def test_everything_else_is_as_without_bf16() -> None:
    ours, others = instructions_of("avx512_bf16"), instructions_of("avx512_vbmi")
    assert set(ours.__all__) == {*others.__all__, "dot2_bf16", "dot2_bf16_at"}
    assert all(getattr(ours, name) is getattr(others, name) for name in others.__all__)
    facts = instruction_sets.ISAS["avx512_bf16"]
    same = replace(facts, dot2_bf16=False, asks_ahead=True, gathers=True, from_memory=facts.from_memory - {("dot2_bf16", "bf16")})
    assert same == instruction_sets.ISAS["avx512_vbmi"]


def _numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return unary("round_bf16", rng.standard_normal(shape).astype(np.float32))


def _rounded(t: Text, value: str) -> str:
    return t.op("qcc.unary", [value], t.types[value], 'kind = "round_bf16"')


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "kernel", "stride"),
    slow_except([(64, 3, 1), (48, 1, 1), (16, 3, 2), (3, 3, 1)], (16, 3, 2)),
    ids=["3x3", "1x1", "stride 2", "odd run"],
)
def test_convolution(isa: str, channels: int, kernel: int, stride: int) -> None:
    """The second convolution reads what the first one stored, in bf16 where tiles read it, and so does an addition.

    Where the first one's sum lies near a tie, it may be rounded to the other side: one step of bf16, 2^-8.
    """
    rng = np.random.default_rng(channels)
    t = Text()
    image = t.argument(_tensor([1, channels, 9, 20], "f32"))
    pad = kernel // 2
    attributes = f"padding = array<i64: {pad}, {pad}, {pad}, {pad}>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    x = _rounded(t, image)
    w, bias = (t.constant(v, _tensor(v.shape, "f32")) for v in (_numbers(rng, (32, channels, kernel, kernel)), _numbers(rng, (32,))))
    y = t.op("qcc.conv2d", [x, w, bias], _tensor([1, 32, 9, 20], "f32"), f"strides = array<i64: 1, 1>, {attributes}")
    y = _rounded(t, t.op("qcc.clamp", [y], t.types[y], "min = 0.0 : f64, max = 6.0 : f64"))
    out = [1, 70, -(-9 // stride), -(-20 // stride)]
    v = t.constant(_numbers(rng, (70, 32, kernel, kernel)), _tensor([70, 32, kernel, kernel], "f32"))
    z = t.op("qcc.conv2d", [y, v], _tensor(out, "f32"), f"strides = array<i64: {stride}, {stride}>, {attributes}")
    total = t.op("qcc.add", [y, y], t.types[y])
    inputs = [rng.standard_normal((1, channels, 9, 20)).astype(np.float32)]
    tiled = check(t.module(z, total), inputs, isa, tolerance=1e-2)
    assert COMPUTES.get(isa, "lane_f32") in _computes(tiled.text)


@pytest.mark.parametrize("isa", ISAS)
def test_linear(isa: str) -> None:
    rng = np.random.default_rng(3)
    t = Text()
    x = t.argument(_tensor([2, 20, 96], "f32"))
    y = t.op("qcc.unary", [x], t.types[x], 'kind = "exp"')
    y = t.op("qcc.reshape", [_rounded(t, y)], _tensor([40, 96], "f32"))
    y = t.op("qcc.linear", [y, t.constant(_numbers(rng, (50, 96)), _tensor([50, 96], "f32"))], _tensor([40, 50], "f32"))
    tiled = check(t.module(y), [rng.standard_normal((2, 20, 96)).astype(np.float32)], isa, tolerance=1e-3)
    assert _computes(tiled.text) == {COMPUTES.get(isa, "lane_f32")}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("batch", "shared", "m", "k", "n", "turned"),
    slow_except(
        [
            ((2, 3), (2, 3), 9, 64, 37, True),
            ((2, 3), (2, 3), 5, 37, 64, False),
            ((3,), (1,), 4, 35, 20, True),
            ((), (), 3, 2, 5, False),
            ((2, 2, 3), (2, 1, 3), 6, 48, 70, False),
            ((2,), (2,), 1, 1, 8, False),
        ],
        ((2, 3), (2, 3), 9, 64, 37, True),
    ),
)
def test_matmul_of_two_computed_factors(
    isa: str, batch: tuple[int, ...], shared: tuple[int, ...], m: int, k: int, n: int, turned: bool
) -> None:
    """As of attention: keys lie along the reduction, values across it; the last pair of an odd one has a weight of 0."""
    rng, t = np.random.default_rng(k), Text()
    shapes = [(*batch, m, k), (*shared, n, k) if turned else (*shared, k, n)]
    a, b = (_rounded(t, t.op("qcc.unary", [t.argument(_tensor(shape, "f32"))], _tensor(shape, "f32"), 'kind = "tanh"')) for shape in shapes)
    if turned:
        order = [*range(len(shared)), len(shared) + 1, len(shared)]
        b = t.op("qcc.transpose", [b], _tensor((*shared, k, n), "f32"), f"permutation = array<i64: {', '.join(map(str, order))}>")
    y = t.op("qcc.matmul", [a, b], _tensor((*batch, m, n), "f32"))
    tiled = check(t.module(y), [rng.standard_normal(shape).astype(np.float32) for shape in shapes], isa, tolerance=1e-3)
    in_pairs = isa == "avx512_bf16" and k > 1
    assert _computes(tiled.text) == {"dot2_bf16" if in_pairs else "lane_f32"}
    assert ('kind = "pack_bf16"' in tiled.text) == in_pairs


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("isa", COMPUTES)
def test_pooling_reads_what_products_read(isa: str, kind: str) -> None:
    """Both readers of one rounded value take the two bytes of it."""
    rng = np.random.default_rng(6)
    t = Text()
    x = _rounded(t, t.argument(_tensor([1, 83, 7, 8], "f32")))
    w = t.constant(_numbers(rng, (32, 83, 1, 1)), _tensor([32, 83, 1, 1], "f32"))
    window = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>"
    one = "strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    z = t.op("qcc.conv2d", [x, w], _tensor([1, 32, 7, 8], "f32"), one)
    more = "dilations = array<i64: 1, 1>" if kind == "max" else "count_include_pad = true"
    y = t.op(f"qcc.{kind}_pool2d", [x], t.types[x], f"kernel = array<i64: 3, 3>, {window}, {more}")
    tiled = check(t.module(y, z), [rng.standard_normal((1, 83, 7, 8)).astype(np.float32)], isa, tolerance=1e-5)
    (pool,) = re.findall(r"qtile.codelet = \{[^\n]*kind = \"window\"[^\n]*", tiled.text)
    assert 'element = "bf16"' in pool


@pytest.mark.parametrize("isa", COMPUTES)
def test_concatenations_are_stored_in_two_bytes(isa: str) -> None:
    """With the border that the convolution behind reads; their parts are too, also where another operation reads them."""
    rng = np.random.default_rng(7)
    t = Text()
    parts = [_rounded(t, t.argument(_tensor([1, channels, 6, 7], "f32"))) for channels in (8, 17)]
    x = t.op("tensor.concat", parts, _tensor([1, 25, 6, 7], "f32"), "dim = 1 : i64")
    w = t.constant(_numbers(rng, (32, 25, 3, 3)), _tensor([32, 25, 3, 3], "f32"))
    one = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    y = t.op("qcc.conv2d", [x, w], _tensor([1, 32, 6, 7], "f32"), one)
    total = t.op("qcc.add", [parts[0], parts[0]], t.types[parts[0]])
    inputs = [rng.standard_normal((1, channels, 6, 7)).astype(np.float32) for channels in (8, 17)]
    tiled = check(t.module(y, total), inputs, isa, tolerance=1e-3)
    assert "memref<1x25x6x7xi16" in tiled.text and "memref<1x25x6x7xf32" not in tiled.text


@pytest.mark.parametrize("channels", [40, 37])
@pytest.mark.parametrize("isa", COMPUTES)
def test_nothing_behind_a_run_is_read(isa: str, channels: int) -> None:
    """What is no number in the channels behind a group's must not reach it, as 0 times it would."""
    rng = np.random.default_rng(4)
    t = Text()
    image = t.argument(_tensor([1, 2 * channels, 4, 16], "f32"))
    w = t.constant(_numbers(rng, (64, channels, 1, 1)), _tensor([64, channels, 1, 1], "f32"))
    attributes = "strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 2 : i64"
    y = t.op("qcc.conv2d", [_rounded(t, image), w], _tensor([1, 64, 4, 16], "f32"), attributes)
    half = t.op("qcc.slice", [y], _tensor([1, 32, 4, 16], "f32"), "offsets = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1, 1, 1>")
    x = rng.standard_normal((1, 2 * channels, 4, 16)).astype(np.float32)
    x[:, channels:] = np.nan
    found = _computes(check(t.module(half), [x], isa, tolerance=1e-3).text)
    assert found == {COMPUTES[isa] if channels % 2 == 0 or isa != "amx" else "lane_f32"}


def test_the_option_reaches_tiles() -> None:
    """`float_precision = "bf16"` on a float model for sapphirerapids, whole, against the same model in f32."""
    rng = np.random.default_rng(5)
    t = Text()
    x = t.argument(_tensor([32, 128], "f32"))
    y = t.op("qcc.linear", [x, t.constant(_numbers(rng, (64, 128)), _tensor([64, 128], "f32"))], _tensor([32, 64], "f32"))
    y = t.op("qcc.unary", [y], t.types[y], 'kind = "gelu"')
    y = t.op("qcc.linear", [y, t.constant(_numbers(rng, (32, 64)), _tensor([32, 64], "f32"))], _tensor([32, 32], "f32"))
    from qcc.dialects.mlir import create_context, parse_module

    values = rng.standard_normal((32, 128)).astype(np.float32)
    results: list[Any] = []
    before = amx.count("tdpbf16ps")
    with amx.sapphire_rapids() as target:
        for precision in ("f32", "bf16"):
            module = parse_module(t.module(y), create_context())
            results.append(qcc.compile(module, target=target, float_precision=precision, threads=1)(values))
    assert amx.machine_has_amx() or amx.count("tdpbf16ps") > before
    error = np.abs(results[1] - results[0]).max() / np.abs(results[0]).max()
    assert 0 < error < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_within_the_rounding_of_its_factors(causal: bool, tmp_path: Path) -> None:
    """Of queries, keys, values and weights, 2^-9 each: the scores move by at most 2^-8 of the sum of magnitudes, which moves weights by as
    much, and weights sum up to 1."""
    rng, t = np.random.default_rng(9), Text()
    shapes = [(2, 3, 20, 16), (2, 3, 20, 16), (2, 3, 20, 24)]
    q, k, v = (t.argument(_tensor(shape, "f32")) for shape in shapes)
    given = f"scale = 0.25 : f64, causal = {str(causal).lower()}"
    (tmp_path / "model.mlir").write_text(t.module(t.op("qcc.attention", [q, k, v], _tensor([2, 3, 20, 24], "f32"), given)))
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    found = qcc.compile(tmp_path / "model.mlir", float_precision="bf16")(*inputs)
    exact = qcc.compile(tmp_path / "model.mlir")(*inputs)
    moved = 2.0**-8 * 0.25 * np.einsum("bhtd,bhsd->bhts", np.abs(inputs[0]), np.abs(inputs[1])).max()
    assert 0 < np.abs(found - exact).max() <= (2 * np.expm1(moved) + 2.0**-8) * np.abs(inputs[2]).max()
