"""Forms of ONNX Resize that torch-mlir has no conversion for: along each axis constant places, or a constant matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator

from qcc.compiler.frontend.onnx_expansion import Expansion
from qcc.compiler.frontend.onnx_graph import attributes
from qcc.compiler.frontend.onnx_refusals import LENGTH_TOLERANCE

RARE = ("antialias", "exclude_outside", "keep_aspect_ratio_policy")


def resize(e: Expansion) -> None:
    """Gather at the places of mode nearest, MatMul with the weights of the others, which resize the last two axes only."""
    given, sizes = attributes(e.source), _sizes(e, e.input(0))
    results, mode = _sizes(e, e.source.output[0]), given.get("mode", "nearest")
    if 0 in results or given.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return
    stated, changed = _scales(e, given, len(sizes)), [axis for axis, n in enumerate(sizes) if n != results[axis]]
    changed = sorted({*changed, *(axis for axis, scale in stated.items() if scale != 1)})
    fractional = any(abs(sizes[axis] * scale - results[axis]) > LENGTH_TOLERANCE for axis, scale in stated.items())
    if not changed or not _is_rare(given) or (mode != "nearest" and changed[0] < len(sizes) - 2):
        return
    if given.get("coordinate_transformation_mode") == "align_corners" and fractional:
        return  # ONNX's reference and ONNX Runtime spread the corners over different lengths
    x = e.input(0)
    for axis in changed:
        weights = _weights(given, sizes[axis], results[axis], stated.get(axis))
        output = e.source.output[0] if axis == changed[-1] else ""
        if mode == "nearest":
            x = e.add("Gather", [x, e.graph.constant(weights.argmax(1), "places")], output, axis=axis)
        elif axis == len(sizes) - 1:
            x = e.add("MatMul", [x, e.graph.constant(weights.T, f"{e.name}.columns")], output)
        else:
            x = e.add("MatMul", [e.graph.constant(weights, f"{e.name}.rows"), x], output)


def _is_rare(given: dict[str, Any]) -> bool:
    """Whether torch-mlir does not convert this form."""
    aligned = given.get("coordinate_transformation_mode") == "align_corners"
    nearest = given.get("mode", "nearest") == "nearest"
    return (aligned and nearest) or "axes" in given or any(given.get(name, 0) not in (0, "stretch") for name in RARE)


def _sizes(e: Expansion, name: str) -> list[int]:
    return [size or 0 for size in e.graph.kinds[name][1]] if name in e.graph.kinds else [0]


def _scales(e: Expansion, given: dict[str, Any], rank: int) -> dict[int, float]:
    """Factor by axis where the node states factors, not sizes."""
    stated = e.graph.array(e.input(2))
    if stated is None or stated.size == 0:
        return {}
    axes = [axis % rank for axis in given.get("axes") or range(rank)]
    return dict(zip(axes, (float(s) for s in stated.reshape(-1)), strict=True))


def _weights(given: dict[str, Any], size: int, result: int, scale: float | None) -> np.ndarray:
    """[result, size] f32: what onnx's own implementation makes of the rows of an identity."""
    alone = {key: value for key, value in given.items() if key not in ("axes", "keep_aspect_ratio_policy")}
    inputs = ["x", "", "", "size"] if scale is None else ["x", "", "scale"]
    feeds = {"size": np.array([result])} if scale is None else {"scale": np.array([scale], np.float32)}
    node = helper.make_node("Resize", inputs, ["y"], axes=[1], **alone)
    (found,) = ReferenceEvaluator(node).run(None, {"x": np.eye(size, dtype=np.float32), **feeds})
    return np.ascontiguousarray(np.asarray(found, np.float32).T)
