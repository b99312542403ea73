"""The nodes that take the place of one ONNX operator.

QuantizeLinear and DequantizeLinear nodes carry two attributes of qcc's own for what ONNX cannot say: `bits` (a width that is not the
container's) and `narrow` (the least value is not used).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, error_at_node, label, node

MICROSOFT = "com.microsoft"
MEAN_AXES_OPSET = 18  # of ReduceMean: its axes became an input


@dataclass
class Expansion:
    """The nodes that take one node's place."""

    graph: OnnxGraph
    source: onnx.NodeProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    @property
    def name(self) -> str:
        return label(self.source)

    def add(self, op: str, inputs: list[str], output: str = "", **given: Any) -> str:
        output = output or self.graph.fresh(self.source.output[0])
        self.nodes.append(node(op, inputs, [output], self.name, **given))
        return output

    def dequantize(self, x: str, scale: str, zero_point: str = "", **given: Any) -> str:
        return self.add("DequantizeLinear", trim([x, scale, zero_point]), **given)

    def quantize(self, x: str, scale: str, zero_point: str = "", output: str = "", **given: Any) -> str:
        return self.add("QuantizeLinear", trim([x, scale, zero_point]), output, **given)

    def mean(self, x: str, axes: Sequence[int] = (-1,), **given: Any) -> str:
        if self.graph.opset < MEAN_AXES_OPSET:
            return self.add("ReduceMean", [x], axes=list(axes), **given)
        return self.add("ReduceMean", [x, self.integers(axes)], **given)

    def number(self, value: float) -> str:
        """A constant in binary32."""
        return self.graph.constant(np.asarray(value, np.float32), "number")

    def integers(self, values: Sequence[int]) -> str:
        """A constant of shapes, axes or bounds."""
        return self.graph.constant(np.asarray(values, np.int64), "integers")

    def reshape(self, x: str, shape: Sequence[int], output: str = "") -> str:
        return self.add("Reshape", [x, self.integers(shape)], output)

    def slice(self, x: str, first: int, stop: int, axis: int) -> str:
        """A part of one axis."""
        return self.add("Slice", [x, *(self.integers([v]) for v in (first, stop, axis))])

    def input(self, index: int) -> str:
        return self.source.input[index] if index < len(self.source.input) else ""

    def shape(self, index: int) -> list[int]:
        """Of an input whose sizes are known."""
        return [size or 0 for size in self.graph.kinds[self.input(index)][1]]

    def fake_quantize(
        self, stored: np.ndarray | None, scale: np.ndarray, zero: np.ndarray, bits: int, signed: bool, narrow: bool, of: str = ""
    ) -> None:
        """Quantize and dequantize input 0 (or value `of`), per tensor or along one axis; `stored` holds the levels of a constant."""
        container = np.dtype(f"{'' if signed else 'u'}int{8 if bits <= 8 else 16 if bits <= 16 else 32}")
        axis = self._parameter_axis(scale, zero)
        scales, zeros = np.broadcast_arrays(scale.astype(np.float32), zero) if axis is not None else (scale.reshape(-1)[0], zero)
        shape = () if axis is None else (-1,)
        scale_name = self.graph.constant(scales.astype(np.float32).reshape(shape), f"{self.name}.scale")
        zero_name = self.graph.constant(zeros.astype(container).reshape(shape), f"{self.name}.zero_point")
        given: dict[str, Any] = {"axis": axis, "bits": bits, "narrow": int(narrow)}
        if stored is None:
            x = self.quantize(of or self.input(0), scale_name, zero_name, **given)
        else:
            x = self.graph.constant(stored.astype(container), f"{self.name}.weight")
        self.add("DequantizeLinear", [x, scale_name, zero_name], self.source.output[0], **given)

    def _parameter_axis(self, scale: np.ndarray, zero: np.ndarray) -> int | None:
        """The axis, counted from the last, along which scale or zero point vary; None where there is one of each."""
        axes = {i - a.ndim for a in (scale, zero) for i, size in enumerate(a.shape) if size != 1}
        if len(axes) > 1:
            shapes = f"{list(scale.shape)} and {list(zero.shape)}"
            raise error_at_node(self.source, f"scale and zero point have shapes {shapes}, expected them to vary along one axis only")
        return axes.pop() if axes else None

    def constant_input(self, index: int, what: str) -> np.ndarray:
        """The value of an input that has to be known; raises QccError that says `what` it is."""
        array = self.graph.array(self.input(index))
        if array is None:
            raise error_at_node(
                self.source,
                f"{what} of {self.source.op_type} is computed at run time, expected a constant",
            )
        return array


Rule = Callable[[Expansion], None]


def expand(graph: OnnxGraph, rule_of: Callable[[onnx.NodeProto], Rule | None]) -> bool:
    """Replace in place every node that has a rule by what the rule adds; where it adds nothing the node stays. Whether there was one."""
    nodes: list[onnx.NodeProto] = []
    changed = False
    for source in graph.nodes:
        expansion = Expansion(graph, source)
        if (rule := rule_of(source)) is not None:
            rule(expansion)
        changed |= bool(expansion.nodes)
        nodes += expansion.nodes or [source]
    graph.nodes = nodes
    return changed


def trim(names: list[str]) -> list[str]:
    """`names` without empty ones at the end."""
    while names and not names[-1]:
        names.pop()
    return names
