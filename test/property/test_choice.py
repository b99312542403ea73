"""Codelets of comparisons, minimum and maximum, selections and arithmetic of integers against the reference, broadcast in every way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.qcc_choice import COMPARISONS
from test.property.test_codelets import EXAMPLES, ISAS, _tensor
from test.property.tiled_executor import Text, check
from test.tiers import draws

DTYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32, "i1": np.bool_}


def _values(rng: np.random.Generator, shape: tuple[int, ...], element: str) -> np.ndarray[Any, Any]:
    """Few different values, so that many are equal; of floats NaN, infinities and zeros of both signs too."""
    if element == "f32":
        return rng.choice(np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan], np.float32), shape)
    if element == "i1":
        return rng.integers(0, 2, shape).astype(np.bool_)
    return rng.choice(
        np.array([0, 1, -1, 5, (1 << 31) - 1, -(1 << 31), *([1 << 40, -(1 << 62)] if element == "i64" else [])]), shape
    ).astype(DTYPES[element])


@st.composite
def operands(draw: Any, count: int) -> list[tuple[int, ...]]:
    """The result's shape and `count` shapes that broadcast to it."""
    result = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 33]), min_size=1, max_size=4)))
    shapes = []
    for _ in range(count):
        kept = result[draw(st.integers(0, len(result) - 1)) :]
        shapes.append(tuple(n if draw(st.integers(0, 3)) else 1 for n in kept))
    shapes[draw(st.integers(0, count - 1))] = result
    return [result, *shapes]


def _arguments(t: Text, rng: np.random.Generator, shapes: Any, elements: Any) -> tuple[list[str], list[np.ndarray[Any, Any]]]:
    pairs = list(zip(shapes, elements, strict=True))
    return [t.argument(_tensor(s, e)) for s, e in pairs], [_values(rng, s, e) for s, e in pairs]


@pytest.mark.parametrize("isa", ISAS)
@draws(20, EXAMPLES)
@given(shapes=operands(2), kind=st.sampled_from(COMPARISONS), element=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_compare(isa: str, shapes: Any, kind: str, element: str, seed: int) -> None:
    t = Text()
    (a, b), inputs = _arguments(t, np.random.default_rng(seed), shapes[1:], [element] * 2)
    check(t.module(t.op("qcc.compare", [a, b], _tensor(shapes[0], "i1"), f'kind = "{kind}"')), inputs, isa)


@pytest.mark.parametrize("isa", ISAS)
@draws(20, EXAMPLES)
@given(
    shapes=operands(2), op=st.sampled_from(["maximum", "minimum", "add", "sub", "mul"]), element=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 99), number=st.booleans(),
)  # fmt: skip
def test_two_operands(isa: str, shapes: Any, op: str, element: str, seed: int, number: bool) -> None:
    if element == "i1" and op not in ("maximum", "minimum"):
        element = "i32"
    t, rng = Text(), np.random.default_rng(seed)
    (a, b), inputs = _arguments(t, rng, shapes[1:], [element] * 2)
    with np.errstate(over="ignore", invalid="ignore"):
        y = t.op(f"qcc.{op}", [a, b], _tensor(shapes[0], element))
        if number and element != "i1":
            y = t.op(f"qcc.{op}", [t.constant(_values(rng, (1,), element), _tensor([1], element)), y], _tensor(shapes[0], element))
        check(t.module(y), inputs, isa)


@pytest.mark.parametrize("isa", ISAS)
@draws(20, EXAMPLES)
@given(shapes=operands(3), element=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_select(isa: str, shapes: Any, element: str, seed: int) -> None:
    t = Text()
    values, inputs = _arguments(t, np.random.default_rng(seed), shapes[1:], ["i1", element, element])
    check(t.module(t.op("qcc.select", values, _tensor(shapes[0], element))), inputs, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("carried", ["condition", "a", "b"])
def test_a_chain_is_one_codelet(isa: str, carried: str) -> None:
    """The value that goes on may be any operand of a selection; a mask in between is never stored."""
    t, kind = Text(), _tensor([3, 40], "f32")
    (x, y), inputs = _arguments(t, np.random.default_rng(3), [(3, 40), (3, 40)], ["f32", "f32"])
    if carried == "condition":
        chosen = t.op("qcc.select", [t.op("qcc.compare", [x, y], _tensor([3, 40], "i1"), 'kind = "lt"'), y, x], kind)
    else:
        mask = t.argument(_tensor([40], "i1"))
        inputs.append(_values(np.random.default_rng(4), (40,), "i1"))
        moved = t.op("qcc.maximum", [x, y], kind)
        chosen = t.op("qcc.select", [mask, moved, y] if carried == "a" else [mask, y, moved], kind)
    tiled = check(t.module(t.op("qcc.unary", [chosen], kind, 'kind = "neg"')), inputs, isa)
    assert len(tiled.calls) == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["conv2d", "linear"])
def test_choices_are_epilogues_of_products(isa: str, op: str) -> None:
    """A bound, a mask and a comparison behind a product, in the layout of its result."""
    rng, t = np.random.default_rng(5), Text()
    image = op == "conv2d"
    shape, weights = ([2, 8, 5, 6], (20, 8, 3, 3)) if image else ([6, 30], (20, 30))
    out = [2, 20, 5, 6] if image else [6, 20]
    x = t.argument(_tensor(shape, "f32"))
    w = t.constant(rng.integers(-2, 3, weights).astype(np.float32), _tensor(weights, "f32"))
    attributes = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    y = t.op(f"qcc.{op}", [x, w], _tensor(out, "f32"), attributes if image else "")
    bound, mask = t.argument(_tensor(out[1:], "f32")), t.argument(_tensor(out[-2:], "i1"))
    y = t.op("qcc.select", [mask, t.op("qcc.minimum", [bound, y], _tensor(out, "f32")), bound], _tensor(out, "f32"))
    y = t.op("qcc.compare", [y, t.constant(np.zeros(1, np.float32), _tensor([1], "f32"))], _tensor(out, "i1"), 'kind = "gt"')
    inputs = [rng.integers(-3, 4, shape).astype(np.float32), rng.integers(0, 40, out[1:]).astype(np.float32)]
    check(t.module(y), [*inputs, _values(rng, tuple(out[-2:]), "i1")], isa)
