"""RotaryEmbedding, GroupQueryAttention, and a decoder of 4-bit weights as ONNX Runtime's exporter of language models writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import qcc
from qcc.dialects.errors import QccError
from test.frontend.onnx_models import FLOAT, check, check_import, contributed, model, runtime_results
from test.tiers import slow_except

RNG = np.random.default_rng(2)
HEADS, GROUPS, SIZE = 4, 2, 16
INT64 = onnx.TensorProto.INT64


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


TURNS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "heads side by side": ((2, 5, HEADS * SIZE), 8, {}),
    "neighbours": ((2, 5, HEADS * SIZE), 8, {"interleaved": 1}),
    "heads in front": ((2, HEADS, 5, SIZE), 8, {}),
    "a part": ((2, 5, HEADS * SIZE), 4, {"rotary_embedding_dim": 8, "num_heads": HEADS}),
    "a part of neighbours": ((2, HEADS, 5, SIZE), 4, {"rotary_embedding_dim": 8, "num_heads": HEADS, "interleaved": 1}),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", slow_except(TURNS, "heads side by side", "a part of neighbours"))
def test_rotary_embedding(name: str, first: bool) -> None:
    """Of positions one by one, or of the `first` one only."""
    shape, half, given = TURNS[name]
    positions = np.array([7]) if first else RNG.integers(0, 32, (2, 5))
    values = {"X": real(*shape), "I": positions, "c": real(32, half), "s": real(32, half)}
    check_import(*contributed("RotaryEmbedding", "X I c s", values, **given))


def grouped(
    length: int, past: int, last: list[int], *, running: str = "last", packed: bool = False, term: int = 0, **given: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """`length` new positions behind which the last ones are `last`, `past` positions in the buffers; `running` says what is an input."""
    batch, width = len(last), SIZE
    values: dict[str, Any] = {}
    if packed:
        values["QKV"] = real(batch, length, (HEADS + 2 * GROUPS) * width)
    else:
        values |= {
            "Q": real(batch, length, HEADS * width),
            "K": real(batch, length, GROUPS * width),
            "V": real(batch, length, GROUPS * width),
        }
    if past:
        values |= {"PK": real(batch, GROUPS, past, width), "PV": real(batch, GROUPS, past, width)}
        for row, end in enumerate(last):  # ONNX Runtime gives zeros behind the new positions, qcc what was there
            values["PK"][row, :, end + 1 - length :] = values["PV"][row, :, end + 1 - length :] = 0
    values["LAST" if running else "last"] = np.array(last, np.int32)
    values["TOTAL" if running == "all" else "total"] = np.array(max(last) + 1, np.int32)
    if given.get("do_rotary"):
        values |= {"c": real(32, 8), "s": real(32, 8)}
    if term:
        values["TERM"] = real(1, term, length, past)
    if given.pop("sink", False):
        values["sink"] = real(HEADS)
    if given.pop("placed", False):
        values["I"] = RNG.integers(0, 32, (batch, length))
    operands = ["QKV", "-", "-"] if packed else ["Q", "K", "V"]
    for choice in ("PK", "PV", "LAST last", "TOTAL total", "c", "s", "I", "TERM", "sink"):
        operands.append(next((name for name in choice.split() if name in values), "-"))
    inputs = {name: values[name] for name in operands if name in values}
    given = {"num_heads": HEADS, "kv_num_heads": GROUPS, **given}
    return contributed("GroupQueryAttention", " ".join(operands).rstrip(" -"), inputs, "y keys values", **given)


FORMS: dict[str, tuple[int, int, list[int], dict[str, Any]]] = {
    "first": (5, 0, [4, 4], {"do_rotary": 1}),
    "first, packed, neighbours": (5, 0, [4, 4], {"do_rotary": 1, "packed": True, "rotary_interleaved": 1}),
    "first, in a buffer": (5, 12, [4], {"do_rotary": 1}),
    "first, both ways": (5, 0, [4], {"causal": 0}),
    "first, in windows": (5, 0, [4], {"local_window_size": 3}),
    "a step": (1, 12, [6], {"do_rotary": 1}),
    "a step, all at run time": (1, 12, [6], {"do_rotary": 1, "running": "all"}),
    "a step, known": (1, 12, [6], {"do_rotary": 1, "running": ""}),
    "a step that grows": (1, 6, [6], {"do_rotary": 1}),
    "a step that grows, known": (1, 6, [6], {"do_rotary": 1, "running": ""}),
    "a step of two": (1, 12, [6, 4], {"do_rotary": 1}),
    "several": (3, 12, [6], {"do_rotary": 1, "scale": 0.7}),
    "several, both ways": (3, 12, [6], {"causal": 0}),
    "several, in windows": (3, 12, [6], {"local_window_size": 2}),
    "several, placed": (3, 12, [6], {"do_rotary": 1, "placed": True}),
    "softcap": (3, 12, [6], {"softcap": 1.5}),
    "smooth": (3, 12, [6], {"smooth_softmax": 1}),
    "sink": (3, 12, [6], {"sink": True}),
    "term of heads": (3, 7, [6], {"term": HEADS}),
    "term": (3, 7, [6], {"term": 1}),
}


@pytest.mark.parametrize("name", slow_except(FORMS, *list(FORMS)[1::4]))
def test_grouped_attention(name: str) -> None:
    length, past, last, given = FORMS[name]
    check_import(*grouped(length, past, last, **given))


@pytest.mark.parametrize("length", slow_except([1, 3], 1))
def test_a_step_inserts_rows_and_reads_keys_where_they_lie(length: int) -> None:
    executable = check(*grouped(length, 12, [6], do_rotary=1), tolerance=1e-5)
    made = [step["codelet"].split("_")[0] for step in executable.info["steps"]]
    assert made.count("insert") == 2 and made.count("attend") == 1 and "generic" not in made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sliding_window_cache": 1, "local_window_size": 4}, "GroupQueryAttention has sliding_window_cache = 1, expected 0"),
        ({"qk_output": 1}, "GroupQueryAttention has qk_output = 1, expected 0"),
    ],
)
def test_forms_that_are_refused(given: dict[str, Any], message: str) -> None:
    source, _ = grouped(1, 12, [6], **given)
    with pytest.raises(QccError, match=f"layer.*{message}"):
        qcc.compile(source)


VOCABULARY, WIDTH, BUFFER = 50, 64, 12


def decoder() -> onnx.ModelProto:
    """One layer, weights of 4 bits in blocks of 32; how far the sequence is follows from the length of its mask."""
    constants: dict[str, Any] = {
        "table": RNG.integers(0, 256, (VOCABULARY, WIDTH // 2)).astype(np.uint8), "scales": RNG.uniform(0.05, 0.1, (VOCABULARY, 2)),
        "norm": real(WIDTH), "c": np.cos(np.arange(32)[:, None] / np.arange(1, 9)), "s": np.sin(np.arange(32)[:, None] / np.arange(1, 9)),
        "one": np.array([1]), "axis": np.array([1]),
    }  # fmt: skip
    constants = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in constants.items()}
    nodes: list[onnx.NodeProto] = []

    def node(kind: str, operands: str, results: str, domain: str = "com.microsoft", **given: Any) -> str:
        nodes.append(
            helper.make_node(
                kind, [n.strip("-") for n in operands.split()], results.replace("-", "").split(" "), results, domain=domain, **given
            )
        )
        return results.split()[0]

    def linear(x: str, name: str, k: int, n: int) -> str:
        constants[f"{name}.w"] = RNG.integers(0, 256, (n, k // 32, 16)).astype(np.uint8)
        constants[f"{name}.s"] = RNG.uniform(0.01, 0.02, n * k // 32).astype(np.float32)
        return node("MatMulNBits", f"{x} {name}.w {name}.s", name, K=k, N=n, bits=4, block_size=32)

    node("ReduceSum", "mask axis", "length", "", keepdims=0)
    node("Sub", "length one", "last64", "")
    node("Cast", "last64", "last", "", to=onnx.TensorProto.INT32)
    node("Shape", "mask", "shape", "")
    node("Gather", "shape one", "total64", "", axis=0)
    node("Cast", "total64", "total", "", to=onnx.TensorProto.INT32)
    x = node("GatherBlockQuantized", "table ids scales", "x", bits=4, block_size=32, gather_axis=0, quantize_axis=1)
    n = node("SimplifiedLayerNormalization", f"{x} norm", "n", "", epsilon=1e-6)
    q, k, v = (linear(n, name, WIDTH, count * SIZE) for name, count in (("q", HEADS), ("k", GROUPS), ("v", GROUPS)))
    given: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": GROUPS, "do_rotary": 1}
    y = node("GroupQueryAttention", f"{q} {k} {v} keys values last total c s", "a keys.new values.new", **given)
    y = linear(y, "o", HEADS * SIZE, WIDTH)
    n = node("SkipSimplifiedLayerNormalization", f"{x} {y} norm", "m - - sum", epsilon=1e-6)
    gate, up = linear(n, "gate", WIDTH, 96), linear(n, "up", WIDTH, 96)
    node("Sigmoid", gate, "sigmoid", "")
    node("Mul", f"{gate} sigmoid", "silu", "")
    down = linear(node("Mul", f"silu {up}", "product", ""), "down", 96, WIDTH)
    linear(node("SkipSimplifiedLayerNormalization", f"sum {down} norm", "z", epsilon=1e-6), "logits", WIDTH, VOCABULARY)
    cache = (FLOAT, [1, GROUPS, "past", SIZE])
    inputs = {"ids": (INT64, [1, "new"]), "mask": (INT64, [1, "all"]), "keys": cache, "values": cache}
    return model(nodes, inputs, ["logits", "keys.new", "values.new"], constants, 17)


@pytest.mark.slow
@pytest.mark.parametrize("buffer", [True, False])
def test_a_decoder_of_4_bit_weights(buffer: bool) -> None:
    """A prompt and two steps; past and present are of one length where they share a `buffer`, else the present is longer."""
    source, ids = decoder(), RNG.integers(0, VOCABULARY, 6)
    caches = [np.zeros((1, GROUPS, BUFFER if buffer else 0, SIZE), np.float32)] * 2
    for first, stop in ((0, 4), (4, 5), (5, 6)):
        inputs = {"ids": ids[None, first:stop], "mask": np.ones((1, stop), np.int64), "keys": caches[0], "values": caches[1]}
        if not buffer and not first:
            caches = runtime_results(source, **inputs)[1:]  # nothing is of length 0 here
            continue
        executable = qcc.compile(source, example_inputs=tuple(inputs.values()), threads=1)
        expected = runtime_results(source, **inputs)
        found = executable(*inputs.values())
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
        generic = [row["name"] for row in executable.report["layers"] if row["generic"]]
        assert set(generic) <= {"length", "last"}, "the sum of the mask"
        stored = sum(row.get("stored_bytes") or 0 for row in executable.report["layers"])
        assert stored < 30_000, "4 bits a weight"
        caches = expected[1:]
