"""ONNX models through the front end: what they compute, their names and shapes, and the errors of bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import qcc
from qcc.compiler.frontend import load
from qcc.compiler.frontend.onnx import import_model
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import layer_name, walk
from test.frontend.onnx_models import FLOAT, evaluate, graph_form, model, operations, relu_quantized_convolution, runtime_result
from test.tiers import slow_except


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 1, 2, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_qdq_convolution(groups: int, pads: tuple[int, ...], bias: bool) -> None:
    source = relu_quantized_convolution(groups, pads, bias)
    x = np.random.default_rng(0).normal(0, 2, (2, 3 * groups, 7, 9)).astype(np.float32)
    (found,) = evaluate(source, x)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= np.float32(0.11) * 1.001  # float sums may round a tie the other way: one step
    assert np.mean(found != expected) < 0.02


def test_layers_keep_their_names() -> None:
    module = graph_form(relu_quantized_convolution())
    names = {op.name: layer_name(op.location) for op in walk(module)}
    assert names["qcc.conv2d"] == "layer1/conv"
    assert names["qcc.clamp"] == "layer1/relu"


def test_quantized_convolution_is_all_qcc() -> None:
    found = operations(graph_form(relu_quantized_convolution()))
    assert set(found) == {"qcc.quantize", "qcc.dequantize", "qcc.constant", "qcc.conv2d", "qcc.clamp", "func.return"}


def test_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["left", "right"], ["total"]), helper.make_node("Relu", ["total"], ["positive"])]
    source = model(nodes, {"left": (FLOAT, [3]), "right": (FLOAT, [3])}, ["positive", "total"], {})
    path = tmp_path / "named.onnx"
    onnx.save(source, path)
    imported = load(path)
    assert imported.inputs == ("left", "right")
    assert imported.outputs == ("positive", "total")


def test_dynamic_batch_and_shape_arithmetic() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "minus_one"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "minus_one": np.array([-1])}
    source = model(nodes, {"x": (FLOAT, ["N", 2, 3])}, ["y"], constants)
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    (y,) = evaluate(source, x, batch=4)
    assert np.array_equal(y, x.reshape(4, 6))
    (y,) = evaluate(source, x, example_inputs=[x])
    assert np.array_equal(y, x.reshape(4, 6))


def test_the_option_batch_is_the_size_of_an_open_first_axis() -> None:
    source = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["N", 3])}, ["y"], {})
    assert qcc.compile(source, batch=4).inputs[0].shape == (4, 3)
    assert qcc.compile(source, batch=4, example_inputs=[np.zeros((2, 3), np.float32)]).inputs[0].shape == (2, 3)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_branch_that_shapes_decide_is_chosen(batch: int) -> None:
    value = helper.make_tensor_value_info("r", FLOAT, None)
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "then", [], [value]),
        "else_branch": helper.make_graph([helper.make_node("Add", ["x", "two"], ["r"])], "else", [], [value]),
    }
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Equal", ["shape", "one"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], **branches),
    ]
    source = model(nodes, {"x": (FLOAT, ["N", 2])}, ["y"], {"one": np.array([1]), "two": np.float32(2)})
    x = np.ones((batch, 2), np.float32)
    assert np.array_equal(evaluate(source, x, batch=batch)[0], -x if batch == 1 else x + 2)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", slow_except([[0, 0, 0, 0], [1, 1, 1, 1], [0, 2, 1, 0]], [0, 2, 1, 0]))
@pytest.mark.parametrize("strides", [[2, 2], [2, 3]])
@pytest.mark.parametrize("counted", [0, 1])
def test_pooling_in_ceil_mode(operator: str, pads: list[int], strides: list[int], counted: int) -> None:
    """Windows that would begin behind the image are left out; what they reach beyond the padding does not count."""
    given = {"count_include_pad": counted} if operator == "AveragePool" else {}
    nodes = [helper.make_node(operator, ["x"], ["y"], kernel_shape=[2, 3], strides=strides, pads=pads, ceil_mode=1, **given)]
    source = model(nodes, {"x": (FLOAT, [2, 3, 9, 11])}, ["y"], {}, opset=20)
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 11)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-5, atol=1e-6)
    pool = {"MaxPool": "qcc.max_pool2d", "AveragePool": "qcc.avg_pool2d"}[operator]
    assert set(operations(graph_form(source))) <= {pool, "func.return", *(["qcc.pad"] if counted and any(pads) else [])}


@pytest.mark.parametrize(("given", "image", "kernel"), [({}, [5, 8], [2, 3]), ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, [6, 8], [3, 3])])
def test_columns_to_image(given: dict[str, Any], image: list[int], kernel: list[int]) -> None:
    columns, positions = 3 * kernel[0] * kernel[1], 24 if not given else 12
    constants = {"image": np.array(image), "kernel": np.array(kernel)}
    source = model(
        [helper.make_node("Col2Im", ["x", *constants], ["y"], **given)], {"x": (FLOAT, [2, columns, positions])}, ["y"], constants
    )
    x = np.random.default_rng(0).normal(size=(2, columns, positions)).astype(np.float32)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(source, x)[0], expected, rtol=1e-5, atol=1e-5)
    assert "func.call" not in operations(graph_form(source))


@pytest.mark.parametrize(
    "given",
    [
        {"pads": [0, 1, 2, 1], "strides": [2, 3]},
        {"pads": [1, 0, 0, 0], "strides": [2, 2], "output_padding": [1, 0], "dilations": [1, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"output_shape": [9, 12], "strides": [2, 3]},
    ],
    ids=str,
)
def test_transposed_convolution_with_uneven_borders(given: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((4, 3, 3, 4)).astype(np.float32), "b": rng.standard_normal(6).astype(np.float32)}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=2, **given)
    source = model([node], {"x": (FLOAT, [2, 4, 5, 4])}, ["y"], constants)
    x = rng.standard_normal((2, 4, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "sizes", "given"),
    [
        ([], [2, 3, 8, 4], {"mode": "nearest", "coordinate_transformation_mode": "align_corners", "nearest_mode": "floor"}),
        ([], [8, 4], {"mode": "nearest", "axes": [2, 3]}),
        ([0.6, 1.7], [], {"mode": "linear", "axes": [3, 2]}),
        ([1, 1, 0.6, 0.7], [], {"mode": "linear", "antialias": 1}),
        ([], [2, 3, 4, 11], {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}),
    ],
    ids=str,
)
def test_rare_forms_of_resize(scales: list[float], sizes: list[int], given: dict[str, Any]) -> None:
    constants = {"s": np.array(scales, np.float32), **({"z": np.array(sizes)} if sizes else {})}
    node = helper.make_node("Resize", ["x", "", "s", "z"] if sizes else ["x", "", "s"], ["y"], **given)
    source = model([node], {"x": (FLOAT, [2, 3, 6, 7])}, ["y"], constants)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [2, 1.5])
def test_upsampling_of_old_models(mode: str, scale: float) -> None:
    nodes = [helper.make_node("Upsample", ["x", "s"], ["y"], mode=mode)]
    source = model(nodes, {"x": (FLOAT, [1, 2, 4, 6])}, ["y"], {"s": np.array([1, 1, scale, 3], np.float32)}, opset=9)
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("left", "right"), [([4], [2, 4, 5]), ([2, 3, 4], [4]), ([3, 4], [4]), ([4], [4, 5])])
def test_products_with_vectors(left: list[int], right: list[int]) -> None:
    source = model([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": (FLOAT, left), "b": (FLOAT, right)}, ["y"], {})
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in (left, right))
    np.testing.assert_allclose(evaluate(source, a, b)[0], a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("third", [False, True])
def test_gemm_with_factors(third: bool) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(5, 4)).astype(np.float32)} | ({"c": rng.normal(size=5).astype(np.float32)} if third else {})
    nodes = [helper.make_node("Gemm", ["x", *constants], ["y"], transB=1, alpha=0.5, beta=2.0)]
    source = model(nodes, {"x": (FLOAT, [3, 4])}, ["y"], constants)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-5, atol=1e-5)


def test_hard_sigmoid_of_any_slope_is_a_clamp() -> None:
    source = model([helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4)], {"x": (FLOAT, [2, 50])}, ["y"], {})
    x = np.random.default_rng(0).normal(0, 3, (2, 50)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], ReferenceEvaluator(source).run(None, {"x": x})[0], rtol=1e-6, atol=1e-6)
    assert set(operations(graph_form(source))) == {"qcc.constant", "qcc.mul", "qcc.add", "qcc.clamp", "func.return"}


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 3]}, {"pads": [1, 0, 1, 0], "count_include_pad": 1}, {"dilations": [2, 2]}])
def test_average_pooling(attributes: dict[str, Any]) -> None:
    source = model(
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 3], **attributes)], {"x": (FLOAT, [2, 3, 8, 9])}, ["y"], {}
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 9)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], ReferenceEvaluator(source).run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize(("operator", "shape"), [("DepthToSpace", [2, 18, 4, 5]), ("SpaceToDepth", [2, 5, 6, 9])])
def test_depth_and_space(operator: str, shape: list[int], mode: str) -> None:
    """Sizes that differ: depth 2, blocks of 3 x 3, as no conversion that confuses them survives."""
    source = model([helper.make_node(operator, ["x"], ["y"], blocksize=3, mode=mode)], {"x": (FLOAT, shape)}, ["y"], {}, opset=28)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], ReferenceEvaluator(source).run(None, {"x": x})[0])


@pytest.mark.parametrize(
    ("numbers", "axis", "made"),
    [
        (np.array(2), 0, {"slice", "reshape"}),
        (np.array(-1), 1, {"slice", "reshape"}),
        (np.array([0, 2, 4]), 1, {"slice"}),
        (np.array([-3, -2, -1]), 2, {"slice"}),
        (np.array([[3, 0], [1, 1]]), 0, {"slice", "concat", "reshape"}),
        (np.array([4, -5, 2]), 1, {"slice", "concat"}),
    ],
)
def test_gather_by_constants(numbers: np.ndarray, axis: int, made: set[str]) -> None:
    source = model([helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)], {"x": (FLOAT, [4, 5, 6])}, ["y"], {"i": numbers})
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], x.take(numbers, axis))
    assert set(operations(graph_form(source))) - {"qcc.constant", "func.return"} == {
        "tensor.concat" if name == "concat" else f"qcc.{name}" for name in made
    }


@pytest.mark.parametrize(
    ("numbers", "made"),
    [
        (np.array([[-2]]), "slice"),
        (np.array([[[1], [3]], [[0], [-1]]]), "slice"),
        (np.array([[1, 2], [-1, 0], [0, 0]]), "slice"),
    ],
)
def test_gather_nd_by_constants(numbers: np.ndarray, made: str) -> None:
    nodes = [helper.make_node("GatherND", ["x", "i"], ["g"]), helper.make_node("Unsqueeze", ["g", "first"], ["y"])]
    source = model(nodes, {"x": (FLOAT, [4, 5, 6])}, ["y"], {"i": numbers, "first": np.array([0])})
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], ReferenceEvaluator(source).run(None, {"x": x})[0])
    assert set(operations(graph_form(source))) - {"qcc.constant", "func.return", "qcc.reshape", "tensor.concat"} == {f"qcc.{made}"}


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT64, onnx.TensorProto.INT32])
def test_gather_by_numbers_of_run_time_counts_from_either_end(kind: int) -> None:
    """A table in bytes, as of a quantized embedding, stays in bytes."""
    rng = np.random.default_rng(1)
    nodes = [helper.make_node("DequantizeLinear", ["t", "s", "z"], ["table"]), helper.make_node("Gather", ["table", "i"], ["y"])]
    constants = {"t": rng.integers(0, 256, (9, 8)).astype(np.uint8), "s": np.float32(0.1), "z": np.uint8(128)}
    source = model(nodes, {"i": (kind, [2, 7])}, ["y"], constants)
    numbers = rng.integers(-9, 9, (2, 7)).astype(helper.tensor_dtype_to_np_dtype(kind))
    (expected,) = ReferenceEvaluator(source).run(None, {"i": numbers})
    assert np.array_equal(evaluate(source, numbers)[0], expected)
    executable = qcc.compile(source, threads=1)
    assert np.array_equal(executable(numbers), expected)
    assert {row["op"] for row in executable.report["layers"]} == {"embedding", "dequantize"}, "no arithmetic on numbers"


def test_a_slice_that_steps_backwards() -> None:
    constants = {"start": np.array([-1]), "end": np.array([-100]), "axis": np.array([1]), "step": np.array([-2])}
    source = model([helper.make_node("Slice", ["x", *constants], ["y"])], {"x": (FLOAT, [2, 7])}, ["y"], constants)
    x = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], x[:, ::-2])


def test_an_operator_without_conversion_is_written_out_by_its_definition() -> None:
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="block0/attention", q_num_heads=2, kv_num_heads=2)]
    source = model(nodes, {name: (FLOAT, [1, 4, 8]) for name in "qkv"}, ["y"], {}, opset=23)
    inputs = np.random.default_rng(0).normal(size=(3, 1, 4, 8)).astype(np.float32)
    (expected,) = ReferenceEvaluator(source).run(None, dict(zip("qkv", inputs, strict=True)))
    np.testing.assert_allclose(evaluate(source, *inputs)[0], expected, rtol=1e-5, atol=1e-6)
    names = {layer_name(op.location) for op in walk(graph_form(source)) if op.name in ("qcc.matmul", "qcc.softmax")}
    assert names == {"block0/attention"}


def test_large_constants_are_not_text() -> None:
    w = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    source = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 30])}, ["y"], {"w": w.T.copy()})
    text = str(graph_form(source).operation.get_asm(large_resource_limit=10, large_elements_limit=10))
    assert "dense_resource" in text
    assert len(text) < 2000


def test_old_opsets_are_converted() -> None:
    nodes = [helper.make_node("Unsqueeze", ["x"], ["u"], axes=[1]), helper.make_node("Softmax", ["u"], ["y"], axis=2)]
    source = model(nodes, {"x": (FLOAT, [2, 5])}, ["y"], {}, opset=11)
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    (y,) = evaluate(source, x)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_weights_in_another_file(tmp_path: Path) -> None:
    w = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    source = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 30])}, ["y"], {"w": w})
    path = tmp_path / "model.onnx"
    onnx.save(source, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.random.default_rng(1).normal(size=(2, 30)).astype(np.float32)
    np.testing.assert_allclose(evaluate(path, x)[0], x @ w, rtol=1e-4, atol=1e-5)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(QccError, match=r"keeps weights in another file that cannot be read"):
        load(path)


# -- bad models ----------------------------------------------------------------------------------------------------------------------


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"this is not a protobuf")
    with pytest.raises(QccError, match=r"not a readable ONNX file"):
        load(path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    with pytest.raises(QccError, match=r"no graph with outputs"):
        load(path)


def test_an_unknown_operator_is_named_with_its_node() -> None:
    nodes = [helper.make_node("Wobble", ["x"], ["y"], name="stage3/wobble", domain="acme")]
    with pytest.raises(QccError, match=r"layer 'stage3/wobble': ONNX operator acme\.Wobble is not known"):
        load(model(nodes, {"x": (FLOAT, [3])}, ["y"], {}))


def test_an_operator_that_cannot_be_lowered_is_named_with_its_node() -> None:
    nodes = [helper.make_node("StringNormalizer", ["x"], ["y"], name="text/normalise")]
    source = model(nodes, {"x": (onnx.TensorProto.STRING, [3])}, ["y"], {}, output_type=onnx.TensorProto.STRING)
    with pytest.raises(QccError, match=r"StringNormalizer|STRING"):
        load(source)


def test_a_size_that_stays_dynamic() -> None:
    source = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 3, "height", 8])}, ["y"], {})
    with pytest.raises(QccError, match=r"input 'x' has the dynamic size 'height' on axis 2"):
        load(source)


def test_sizes_that_depend_on_data() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"], name="find")]
    source = model(nodes, {"x": (FLOAT, [3, 4])}, ["y"], {}, output_type=onnx.TensorProto.INT64)
    with pytest.raises(QccError, match=r"layer 'find': output 'y' of NonZero has the dynamic shape"):
        load(source)


def test_a_batch_that_the_model_does_not_have() -> None:
    source = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, ["y"], {})
    with pytest.raises(QccError, match=r"batch is 4 but no input of the model has a dynamic first axis"):
        import_model(source, batch=4)


def test_an_example_of_another_shape() -> None:
    source = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, ["y"], {})
    with pytest.raises(QccError, match=r"the example for input 'x' has size 4 on axis 1, expected 3"):
        load(source, example_inputs=[np.zeros((1, 4), np.float32)])


def test_shapes_that_contradict_each_other() -> None:
    source = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"x": (FLOAT, [2, 3])}, ["y"], {"w": np.zeros((4, 5), np.float32)}
    )
    with pytest.raises(QccError, match=r"the ONNX model is inconsistent: .*fc"):
        load(source)


def test_a_scale_of_zero_is_named_with_its_layer() -> None:
    source = relu_quantized_convolution()
    scale = next(t for t in source.graph.initializer if t.name == "ys")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32(0), "ys"))
    with pytest.raises(QccError, match=r"layer 'y/(de)?quantize': a scale is 0.0, expected a positive finite number"):
        load(source)
