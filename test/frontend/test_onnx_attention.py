"""Attention as ONNX Runtime's optimizer and its exporter of language models write it, against ONNX Runtime itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnxruntime import quantization
from torch import nn

import qcc
from qcc.dialects.errors import QccError
from test.frontend.onnx_models import FLOAT, check, check_import, contributed, evaluate, model
from test.tiers import slow_except

RNG = np.random.default_rng(1)
BATCH, LENGTH, HEADS, SIZE, WIDTH = 2, 5, 4, 16, 24
INNER = HEADS * SIZE
Case = tuple[dict[str, np.ndarray], dict[str, Any]]


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def some(*shape: int) -> np.ndarray:
    """Zeros and ones, no row without a one: scores that all have -10000 added are rounded to a thousandth."""
    mask = RNG.integers(0, 2, shape).astype(np.int32)
    mask[..., 0] = 1
    return mask


KEPT = whole([1, 1, 1, 0, 0], [0, 1, 1, 1, 1])
LAST = whole([1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1, 1])
SELF: dict[str, Case] = {
    "plain": ({}, {}),
    "scale": ({}, {"scale": 0.3}),
    "causal": ({}, {"unidirectional": 1}),
    "keys": ({"MASK": KEPT}, {}),
    "keys, another number": ({"MASK": KEPT}, {"mask_filter_value": -3.0}),
    "keys, causal": ({"MASK": KEPT}, {"unidirectional": 1}),
    "queries": ({"MASK": some(BATCH, LENGTH, LENGTH)}, {}),
    "lengths": ({"MASK": whole(3, 5)}, {}),
    "lengths, causal": ({"MASK": whole(3, 5)}, {"unidirectional": 1}),
    "ends and starts": ({"MASK": whole(3, 5, 1, 2)}, {}),
    "term": ({"MASK": KEPT, "TERM": real(1, HEADS, LENGTH, LENGTH)}, {}),
    "past": ({"PAST": real(2, BATCH, HEADS, 3, SIZE)}, {}),
    "past, causal, keys": ({"PAST": real(2, BATCH, HEADS, 3, SIZE), "MASK": LAST}, {"unidirectional": 1}),
}


def operands(order: str, given: dict[str, Any]) -> str:
    return " ".join(name if name in given else "-" for name in order.split()).rstrip(" -")


@pytest.mark.parametrize("name", slow_except(SELF, *list(SELF)[1::3]))
def test_attention(name: str) -> None:
    inputs, given = SELF[name]
    constants = {"X": real(BATCH, LENGTH, WIDTH), "w": real(WIDTH, 3 * INNER) / 4, "b": real(3 * INNER), **inputs}
    results = "y present" if "PAST" in inputs else "y"
    check_import(*contributed("Attention", operands("X w b MASK PAST TERM", constants), constants, results, num_heads=HEADS, **given))


def test_attention_whose_values_are_wider() -> None:
    constants = {"X": real(BATCH, LENGTH, WIDTH), "w": real(WIDTH, 4 * INNER) / 4, "b": real(4 * INNER)}
    check_import(*contributed("Attention", "X w b", constants, num_heads=HEADS, qkv_hidden_sizes=[INNER, INNER, 2 * INNER]))


Q, K, V = real(BATCH, LENGTH, INNER), real(BATCH, 7, INNER), real(BATCH, 7, INNER)
OWN = {"Q": Q, "K": real(BATCH, LENGTH, INNER), "V": real(BATCH, LENGTH, INNER)}
PAST = {"PK": real(BATCH, HEADS, 3, SIZE), "PV": real(BATCH, HEADS, 3, SIZE)}
MULTI: dict[str, Case] = {
    "cross": ({"Q": Q, "K": K, "V": V, "b": real(3 * INNER)}, {}),
    "wider values": ({"Q": Q, "K": K, "V": real(BATCH, 7, 2 * INNER)}, {}),
    "lengths": ({"Q": Q, "K": K, "V": V, "MASK": whole(3, 7)}, {"mask_filter_value": -5.0}),
    "keys": ({"Q": Q, "K": K, "V": V, "MASK": some(BATCH, 7)}, {}),
    "queries and a term": (
        {"Q": Q, "K": K, "V": V, "MASK": some(BATCH, LENGTH, 7), "TERM": real(1, HEADS, LENGTH, 7)}, {},
    ),
    "causal": (OWN, {"unidirectional": 1}),
    "of another sequence": ({"Q": Q, "K": real(BATCH, HEADS, 7, SIZE), "V": real(BATCH, HEADS, 7, SIZE), "b": real(3 * INNER)}, {}),
    "past": (OWN | PAST, {}),
    "past, causal": (OWN | PAST, {"unidirectional": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_except(MULTI, *list(MULTI)[::3]))
def test_multi_head_attention(name: str) -> None:
    values, given = MULTI[name]
    results = "y keys values" if "PK" in values else "y"
    order = operands("Q K V b MASK TERM PK PV", values)
    check_import(*contributed("MultiHeadAttention", order, values, results, num_heads=HEADS, **given))


def test_one_query_reads_keys_where_they_lie() -> None:
    values = {"Q": real(1, 1, INNER), "K": real(1, 1, INNER), "V": real(1, 1, INNER), "PK": PAST["PK"][:1], "PV": PAST["PV"][:1]}
    source = contributed("MultiHeadAttention", operands("Q K V b MASK TERM PK PV", values), values, "y keys values", num_heads=HEADS)
    executable = check(*source)
    assert any(step["codelet"].startswith("attend") for step in executable.info["steps"])


@pytest.mark.parametrize("parts", [3, 2])
def test_packed_operands(parts: int) -> None:
    """The same as apart; ONNX Runtime's CPU has no kernel for these."""
    apart = [real(BATCH, LENGTH, HEADS, SIZE) for _ in range(3)]
    packed = np.stack(apart[3 - parts :], 3)
    values = {"Q": packed} if parts == 3 else {"Q": apart[0].reshape(BATCH, LENGTH, INNER), "K": packed}
    source, inputs = contributed("MultiHeadAttention", " ".join(values), values, num_heads=HEADS)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in apart)
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(SIZE))
    expected = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(BATCH, LENGTH, INNER)
    np.testing.assert_allclose(evaluate(source, *inputs.values())[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dynamic", "columns"), slow_except([(False, False), (True, True)], (True, True)))
def test_quantized_attention(dynamic: bool, columns: bool) -> None:
    wide = (3 * INNER,) if columns else ()
    constants: dict[str, Any] = {
        "w": RNG.integers(-128, 128, (WIDTH, 3 * INNER)).astype(np.int8), "b": real(3 * INNER), "wz": np.zeros(wide, np.int8),
        "ws": RNG.uniform(0.005, 0.01, wide).astype(np.float32),
    }  # fmt: skip
    if dynamic:
        first = helper.make_node("DynamicQuantizeLinear", ["X"], ["q", "s", "z"])
    else:
        first = helper.make_node("QuantizeLinear", ["X", "s", "z"], ["q"])
        constants |= {"s": np.float32(0.03), "z": np.uint8(128)}
    given: dict[str, Any] = {"domain": "com.microsoft", "num_heads": HEADS, "unidirectional": 1}
    last = helper.make_node("QAttention", ["q", "w", "b", "s", "ws", "MASK", "z", "wz"], ["y"], name="layer", **given)
    inputs = {"X": real(BATCH, LENGTH, WIDTH), "MASK": KEPT}
    source = model([first, last], {"X": (FLOAT, inputs["X"].shape), "MASK": (onnx.TensorProto.INT32, KEPT.shape)}, ["y"], constants, 17)
    made = [row["op"] for row in check(source, inputs, 1e-5).report["layers"]]
    assert made[-1] == "attention" and ("dynamic_linear" in made) == dynamic


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (
            {"MASK": np.ones((BATCH, 1, 9, 9), np.int32)},
            {},
            r"the mask of Attention has shape \[2, 1, 9, 9\], expected \[2, 5\], \[2, 5, 5\], ",
        ),
        ({}, {"do_rotary": 1}, "Attention has do_rotary = 1, expected 0; export the model without this fusion"),
    ],
)
def test_forms_that_are_refused(inputs: dict[str, Any], given: dict[str, Any], message: str) -> None:
    constants = {"X": real(BATCH, LENGTH, WIDTH), "w": real(WIDTH, 3 * INNER), "b": real(3 * INNER), **inputs}
    source, _ = contributed("Attention", operands("X w b MASK", constants), constants, num_heads=HEADS, **given)
    with pytest.raises(QccError, match=f"layer.*{message}"):
        qcc.compile(source)


# -- models of onnxruntime.transformers ----------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A layer of BERT, as its Python code is."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(INNER, INNER) for _ in range(4))
        self.up, self.down = nn.Linear(INNER, 2 * INNER), nn.Linear(2 * INNER, INNER)
        self.first, self.second = nn.LayerNorm(INNER), nn.LayerNorm(INNER)

    def forward(self, x: Any, mask: Any) -> Any:
        q, k, v = (f(x).view(BATCH, 12, HEADS, SIZE).permute(0, 2, 1, 3) for f in (self.query, self.key, self.value))
        weights = torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(SIZE) + mask, -1)
        y = torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous().view(BATCH, 12, INNER)
        x = self.first(self.output(y) + x)
        return self.second(self.down(nn.functional.gelu(self.up(x))) + x)


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.segments = (nn.Embedding(n, INNER) for n in (50, 32, 2))
        self.norm, self.blocks = nn.LayerNorm(INNER), nn.ModuleList(Block() for _ in range(2))
        self.register_buffer("numbers", torch.arange(12)[None])

    def forward(self, words: Any, mask: Any, segments: Any) -> Any:
        term = (1.0 - mask.unsqueeze(1).unsqueeze(2).to(torch.float32)) * -10000.0
        x = self.norm(self.words(words) + self.segments(segments) + self.places(self.numbers))
        for block in self.blocks:
            x = block(x, term)
        return x


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("fused", "quantized"), [("Attention", False), ("MultiHeadAttention", False), ("Attention", True)])
def test_bert_of_its_optimizer(fused: str, quantized: bool, tmp_path: Path) -> None:
    from onnxruntime.transformers import fusion_options, optimizer

    torch.manual_seed(0)
    path, made = tmp_path / "bert.onnx", tmp_path / "optimized.onnx"
    mask = torch.ones(BATCH, 12, dtype=torch.int64)
    mask[0, 8:] = 0
    inputs = (torch.randint(0, 50, (BATCH, 12)), mask, torch.randint(0, 2, (BATCH, 12)))
    torch.onnx.export(Bert().eval(), inputs, path, dynamo=False, opset_version=14, input_names=["words", "mask", "segments"])
    options = fusion_options.FusionOptions("bert")
    options.use_multi_head_attention = fused == "MultiHeadAttention"
    optimizer.optimize_model(str(path), "bert", HEADS, INNER, options, opt_level=0).save_model_to_file(str(made))
    if quantized:
        quantization.quantize_dynamic(made, path, extra_options={"DefaultTensorType": FLOAT})
    source = onnx.load(path if quantized else made)
    operators = {node.op_type for node in source.graph.node}
    assert operators >= {"QAttention" if quantized else fused, "SkipLayerNormalization", "BiasGelu"}
    check(
        source, dict(zip(("words", "mask", "segments"), (x.numpy() for x in inputs), strict=True)), 0.05 if quantized else 1e-5, generic=1
    )


class Step(nn.Module):
    """A step of a decoder whose `shared` query heads have the same keys."""

    def __init__(self, shared: int) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, q: Any, k: Any, v: Any, keys: Any, values: Any, mask: Any) -> Any:
        k, v = torch.cat((keys, k), 2), torch.cat((values, v), 2)
        heads, length, size = k.shape[1:]
        more = [x[:, :, None].expand(1, heads, self.shared, length, size).reshape(1, -1, length, size) for x in (k, v)]
        return nn.functional.scaled_dot_product_attention(q, *more, attn_mask=mask), k, v


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [1, 2])
def test_attention_as_torch_writes_it_in_onnx(shared: int, tmp_path: Path) -> None:
    """Products, factors of queries and keys, and keys repeated for every head: one operation, which copies no keys."""
    heads = HEADS // shared
    one, past = (torch.randn(1, heads, n, SIZE) for n in (1, 11))
    inputs = (torch.randn(1, HEADS, 1, SIZE), one, one + 1, past, past + 1, torch.randn(1, 1, 1, 12))
    torch.onnx.export(Step(shared).eval(), inputs, tmp_path / "step.onnx", dynamo=True, verbose=False)
    source = onnx.load(tmp_path / "step.onnx")
    executable = check(source, dict(zip((i.name for i in source.graph.input), (x.numpy() for x in inputs), strict=True)))
    assert [row["op"] for row in executable.report["layers"]] == ["tensor.concat", "tensor.concat", "attention"]
    largest = 4 * heads * 12 * SIZE
    assert all(step["bytes"] <= 2 * largest + 100 for step in executable.info["steps"] if step["codelet"].startswith("map"))
