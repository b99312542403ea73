"""Operators that ONNX Runtime's optimizer and quantizer write, against ONNX Runtime itself, or by formula where its CPU has no kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnxruntime import quantization

import qcc
from qcc.dialects.errors import QccError
from test.frontend.onnx_models import FLOAT, check, contributed, model
from test.tiers import slow_except

BOOL, INT32, INT64 = onnx.TensorProto.BOOL, onnx.TensorProto.INT32, onnx.TensorProto.INT64
RNG = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(low: int, high: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "alpha": ((2, 3, 4, 5), (2, 3, 5, 6), {"alpha": 0.125}),
    "transposed": ((2, 3, 5, 4), (2, 3, 6, 5), {"transA": 1, "transB": 1}),
    "rows first": ((4, 2, 3, 5), (2, 3, 5, 6), {"transBatchA": 1}),
    "columns first": ((5, 2, 3, 4), (5, 2, 3, 6), {"transBatchA": 1, "transA": 1, "transBatchB": 1}),
}


@pytest.mark.parametrize("name", slow_except(PRODUCTS, "columns first"))
def test_fused_matmul(name: str) -> None:
    a, b, given = PRODUCTS[name]
    check(*contributed("FusedMatMul", "A B", {"A": real(*a), "B": real(*b)}, **given))


CONVOLVED: dict[str, list[float]] = {
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "LeakyRelu": [0.2],
    "Clip": [-0.5, 0.7],
    "HardSigmoid": [0.3, 0.4],
}


@pytest.mark.parametrize("activation", slow_except(CONVOLVED, "Clip"))
def test_fused_convolution(activation: str) -> None:
    given: dict[str, Any] = {"activation_params": CONVOLVED[activation]} if CONVOLVED[activation] else {}
    constants: dict[str, Any] = {"X": real(1, 3, 6, 6), "w": real(4, 3, 3, 3), "b": real(4)}
    check(*contributed("FusedConv", "X w b", constants, activation=activation, pads=[1, 0, 1, 2], **given))


def test_fused_convolution_with_a_sum() -> None:
    constants: dict[str, Any] = {"X": real(1, 3, 6, 6), "w": real(4, 3, 3, 3), "b": real(4), "Z": real(1, 4, 4, 4)}
    check(*contributed("FusedConv", "X w b Z", constants, activation="Relu"))


MULTIPLIED: dict[str, dict[str, Any]] = {
    "Relu": {},
    "Tanh": {},
    "Softplus": {},
    "Elu": {"activation_alpha": 0.5},
    "LeakyRelu": {"activation_alpha": 0.2},
    "HardSigmoid": {"activation_alpha": 0.3, "activation_beta": 0.4},
}


@pytest.mark.parametrize("activation", slow_except(MULTIPLIED, "HardSigmoid"))
def test_fused_gemm(activation: str) -> None:
    constants: dict[str, Any] = {"X": real(3, 6), "w": real(5, 6), "b": real(5)}
    check(*contributed("FusedGemm", "X w b", constants, transB=1, alpha=0.5, activation=activation, **MULTIPLIED[activation]))


def test_an_activation_that_is_not_known_is_refused() -> None:
    source, _ = contributed("FusedGemm", "X w", {"X": real(3, 6), "w": real(6, 5)}, activation="Gelu")
    with pytest.raises(QccError, match=r"layer.*FusedGemm has the activation Gelu, expected one of Relu, .*export"):
        qcc.compile(source)


@pytest.mark.parametrize("quantized", [False, True])
def test_embeddings_of_bert(quantized: bool) -> None:
    """Words, positions and segments; the mask's length is computed on the generic path."""
    tables = {"words": (9, 16), "places": (8, 16), "segments": (2, 16), "gamma": (16,), "beta": (16,)}
    numbers = {"IDS": whole(0, 9, (2, 5), np.int32), "SEGMENTS": whole(0, 2, (2, 5), np.int32)}
    operands, results = ["IDS", "SEGMENTS", *tables], "y lengths sum"
    if not quantized:
        constants: dict[str, Any] = {name: real(*shape) for name, shape in tables.items()}
        numbers["MASK"] = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0]], np.int32)
        source, inputs = contributed("EmbedLayerNormalization", " ".join([*operands, "MASK"]), numbers | constants, results)
    else:
        constants: dict[str, Any] = {name: whole(0, 256, shape, np.uint8) for name, shape in tables.items()}
        constants |= {f"{name}.s": np.float32(0.01 + 0.01 * i) for i, name in enumerate(tables)}
        constants |= {f"{name}.z": np.uint8(100 + i) for i, name in enumerate(tables)}
        operands += ["-", *(f"{name}.{what}" for what in "sz" for name in tables)]
        source, inputs = contributed("QEmbedLayerNormalization", " ".join(operands), numbers | constants, "y lengths")
    source.graph.output[1].type.tensor_type.elem_type = INT32
    check(source, inputs, 2e-5, generic=int(not quantized))


@pytest.mark.parametrize("zero", slow_except([False, True], True))
@pytest.mark.parametrize("kind", slow_except(["int4", "uint4", 2, 4, 8], "int4", 4))
def test_rows_of_a_table_in_blocks(kind: str | int, zero: bool) -> None:
    """The table is stored in its own bits."""
    rows, columns, block = 50, 64, 32
    if isinstance(kind, str):
        dtype = getattr(ml_dtypes, kind)
        low, high, bits, shapes = int(ml_dtypes.iinfo(dtype).min), int(ml_dtypes.iinfo(dtype).max) + 1, 4, ((rows, columns), (rows, 2))
    else:
        dtype, low, high, bits = np.uint8, 0, 256, kind
        shapes = ((rows, columns * bits // 8), (rows, -(-2 * bits // 8)))
    constants: dict[str, Any] = {"I": whole(-rows, rows, (2, 3), np.int64), "w": whole(low, high, shapes[0], dtype), "s": real(rows, 2)}
    constants |= {"z": whole(low, high, shapes[1], dtype)} if zero else {}
    source, inputs = contributed(
        "GatherBlockQuantized", "w I s z" if zero else "w I s", constants, block_size=block, quantize_axis=1, gather_axis=0, bits=bits
    )
    executable = check(source, inputs, 1e-6)
    stored = sum(row.get("stored_bytes") or 0 for row in executable.report["layers"])
    assert stored <= rows * (columns * bits // 8 + 2 * 5) + 512


def test_a_table_in_blocks_along_its_rows_is_refused() -> None:
    constants: dict[str, Any] = {"I": whole(0, 64, (2, 3), np.int64), "w": whole(-8, 8, (64, 50), ml_dtypes.int4), "s": real(2, 50)}
    source, _ = contributed("GatherBlockQuantized", "w I s", constants, block_size=32, quantize_axis=0, gather_axis=1)
    with pytest.raises(
        QccError, match=r"layer.*table of shape \[64, 50\].*quantize_axis 0, expected a matrix, whole blocks, and axes 0 and 1; "
    ):
        qcc.compile(source)


@pytest.mark.parametrize("bias", slow_except([False, True], True))
@pytest.mark.parametrize("operator", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products_that_are_quantized_while_running(operator: str, bias: bool) -> None:
    constants: dict[str, Any] = {
        "X": real(3, 8),
        "w": whole(-128, 128, (8, 5), np.int8),
        "s": np.abs(real(5)),
        "z": np.zeros(5, np.int8),
        "b": real(5),
    }
    if not bias:
        del constants["b"]
    last = ["b"] if bias else []
    if operator == "DynamicQuantizeMatMul":
        source, inputs = contributed(operator, " ".join(["X w s z", *last]), constants)
    else:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["X"], ["q", "qs", "qz"]),
            helper.make_node(operator, ["q", "w", "qs", "s", "qz", "z", *last], ["y"], domain="com.microsoft"),
        ]
        inputs = {"X": constants.pop("X")}
        source = model(nodes, {"X": (FLOAT, [3, 8])}, ["y"], constants)
    executable = check(source, inputs, 1e-5)
    assert [row["op"] for row in executable.report["layers"]] == ["dynamic_linear"]


def test_a_choice_of_integers() -> None:
    constants: dict[str, Any] = {
        "s": np.float32(0.03), "z": np.uint8(128), "k": np.uint8(7), "ks": np.float32(0.02), "kz": np.uint8(100), "yz": np.uint8(120),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "s", "z"], ["q"]),
        helper.make_node("QLinearWhere", ["C", "q", "s", "z", "k", "ks", "kz", "s", "yz"], ["c"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["c", "s", "yz"], ["y"]),
    ]
    source = model(nodes, {"C": (BOOL, [3, 8]), "X": (FLOAT, [3, 8])}, ["y"], constants)
    check(source, {"C": real(3, 8) > 0, "X": real(3, 8)}, 1e-6)


# -- no kernel in ONNX Runtime's CPU provider: by formula ----------------------------------------------------------------------------


def test_a_mean_of_integers() -> None:
    """A mean may fall on either side of a half, so one step of the result is allowed."""
    constants: dict[str, Any] = {"s": np.float32(0.03), "z": np.uint8(128), "ys": np.float32(0.01), "yz": np.uint8(120)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearReduceMean", ["q", "s", "z", "ys", "yz"], ["m"], axes=[2, 3], keepdims=0, domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["m", "ys", "yz"], ["y"]),
    ]
    x = real(2, 3, 4, 5)
    levels = np.clip(np.rint(x / np.float32(0.03)) + 128, 0, 255)
    expected = (np.clip(np.rint((levels - 128).mean((2, 3)) * 0.03 / 0.01) + 120, 0, 255) - 120) * 0.01
    found = qcc.compile(model(nodes, {"x": (FLOAT, x.shape)}, ["y"], constants), threads=1)(x)
    np.testing.assert_allclose(found, expected, atol=0.0101)


def test_a_sum_and_a_softmax_of_a_sum() -> None:
    values = {"X": real(2, 5, 6), "b": real(6), "SKIP": real(2, 5, 6)}
    source, inputs = contributed("BiasAdd", "X b SKIP", values)
    np.testing.assert_allclose(qcc.compile(source, threads=1)(*inputs.values()), values["X"] + values["b"] + values["SKIP"], rtol=1e-6)
    source, inputs = contributed("BiasSoftmax", "X b", {"X": values["X"], "b": values["b"]}, axis=2, is_inner_broadcast=1)
    e = np.exp(values["X"] + values["b"])
    np.testing.assert_allclose(qcc.compile(source, threads=1)(*inputs.values()), e / e.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("last", slow_except([0, 1], 1))
@pytest.mark.parametrize("skip", [False, True])
def test_group_norm(skip: bool, last: int) -> None:
    x, gamma, beta, add, bias = real(2, 6, 4, 5), real(6), real(6), real(2, 6), real(6)
    t = x + (add[:, :, None, None] + bias[:, None, None] if skip else 0)
    groups = t.reshape(2, 3, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    y = normal.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
    expected = [y / (1 + np.exp(-y)), t][: 1 + skip]
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    values = {"X": x.transpose(order).copy(), "gamma": gamma, "beta": beta} | ({"SKIP": add, "bias": bias} if skip else {})
    operator, results = ("SkipGroupNorm", "y t") if skip else ("GroupNorm", "y")
    source, inputs = contributed(
        operator, "X gamma beta" + " SKIP bias" * skip, values, results, groups=3, activation=1, channels_last=last
    )
    found = qcc.compile(source, threads=1)(*inputs.values())
    for a, b in zip(found if skip else [found], expected, strict=True):
        np.testing.assert_allclose(a, b.transpose(order), rtol=1e-4, atol=1e-5)


# -- whole models that went through ONNX Runtime's tools -----------------------------------------------------------------------------


EXTENDED, ALL = (getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{name}") for name in ("EXTENDED", "ALL"))


def optimized(source: onnx.ModelProto, path: Path, level: Any = EXTENDED) -> onnx.ModelProto:
    """What ONNX Runtime makes of `source` before it runs it, up to `EXTENDED` without layouts of this machine's own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(source.SerializeToString(), options, ["CPUExecutionProvider"])
    return onnx.load(path)


def network() -> onnx.ModelProto:
    """A convolution, two pools, and two layers, as exporters write them."""
    constants: dict[str, Any] = {
        "k": real(8, 3, 3, 3) / 5,
        "kb": real(8),
        "shape": np.array([2, 8]),
        "w": real(8, 16) / 3,
        "wb": real(16),
        "v": real(16, 8) / 4,
    }
    nodes = [
        helper.make_node("Conv", ["X", "k", "kb"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["h"], name="halves", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"], name="pool"),
        helper.make_node("Reshape", ["p", "shape"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "wb"], ["g"], name="gemm"),
        helper.make_node("LeakyRelu", ["g"], ["l"], name="leaky"),
        helper.make_node("MatMul", ["l", "v"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "f"], ["y"], name="add"),
    ]
    return model(nodes, {"X": (FLOAT, [2, 3, 8, 8])}, ["y"], constants, 17)


class Samples(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"X": real(2, 3, 8, 8)} for _ in range(4)]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("way", ["float", pytest.param("dynamic", marks=pytest.mark.slow), pytest.param("static", marks=pytest.mark.slow)])
def test_models_of_onnx_runtimes_tools(way: str, tmp_path: Path) -> None:
    """Quantized by its tools, then optimized: fused operators of its own, which qcc computes without the generic path."""
    source, path = network(), tmp_path / "quantized.onnx"
    if way == "dynamic":
        quantization.quantize_dynamic(source, path, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
    elif way == "static":
        quantization.quantize_static(source, path, Samples(), quant_format=quantization.QuantFormat.QOperator, per_channel=True)
    made = optimized(source if way == "float" else onnx.load(path), tmp_path / "optimized.onnx")
    operators = {node.op_type for node in made.graph.node}
    assert operators >= {"float": {"FusedConv", "FusedGemm"}, "dynamic": {"DynamicQuantizeMatMul"}, "static": {"QLinearConv", "QGemm"}}[way]
    check(made, {"X": real(2, 3, 8, 8)}, 0.05 if way == "static" else 1e-4)


@pytest.mark.parametrize(
    ("form", "symmetric"), slow_except([(f, s) for f in ("QOperator", "QDQ") for s in (True, False)], ("QOperator", True))
)
def test_4_bit_weights_of_its_quantizer(form: str, symmetric: bool) -> None:
    """Its scales are negative where the greatest value of a block is, and zero for a block of zeros."""
    from onnxruntime.quantization import matmul_nbits_quantizer as quantizer

    w = real(64, 32)
    w[:32, 3] = 0
    source = model([helper.make_node("MatMul", ["X", "w"], ["y"])], {"X": (FLOAT, [2, 64])}, ["y"], {"w": w})
    config = quantizer.DefaultWeightOnlyQuantConfig(32, symmetric, quant_format=quantization.QuantFormat[form])
    made: Any = quantizer.MatMulNBitsQuantizer(source, algo_config=config)
    made.process()
    scales = next(onnx.numpy_helper.to_array(t) for t in made.model.model.graph.initializer if "scales" in t.name)
    assert (scales == 0).any() and (scales < 0).any() == symmetric
    executable = check(made.model.model, {"X": real(2, 64)}, 2e-3)
    assert [row["weight_bits"] for row in executable.report["layers"]] == [4]
