"""From an `OnnxGraph` to MLIR: one `torch.operator "onnx.X"` per node, located by the node's name.

torch-mlir's importer builds the operations; this one only changes where constants come from and what carries them, so that weights are
numpy arrays in `dialects/weights.py` and never text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch_mlir.extras import onnx_importer

from qcc.compiler.frontend.onnx_graph import OnnxGraph
from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, ir

QUANTIZED_INPUT = {"QuantizeLinear": 0, "DequantizeLinear": 0, "Quant": 0, "BipolarQuant": 0}


def import_graph(graph: OnnxGraph, context: ir.Context) -> ir.Module:
    """A module with `func.func @main` in the torch dialect, ONNX operators still as `torch.operator`."""
    model = graph.skeleton()
    model.graph.name = "main"
    for name, (element, shape) in graph.kinds.items():
        if name not in graph.arrays:
            model.graph.value_info.append(helper.make_tensor_value_info(name, element, shape))
    info = onnx_importer.ModelInfo(model)
    module = info.create_module(context)
    cache = _Types(context)
    try:
        importer = _define_main(info, module, cache, graph)
        importer.import_all()
    except onnx_importer.OnnxImportError as error:
        raise QccError(f"the ONNX model cannot be imported: {str(error).splitlines()[0]}") from None
    return module


def _define_main(info: Any, module: ir.Module, cache: Any, graph: OnnxGraph) -> Any:
    made = onnx_importer.NodeImporter.define_function(info.main_graph, module.operation, cache)
    importer = _WeightImporter(
        info.main_graph,
        parent_op=made._p,
        block=made._b,
        context_cache=cache,
        module_op=module.operation,
        module_cache=made._mc,
    )
    importer._nv_map.update(made._nv_map)
    importer.arrays = graph.arrays
    importer.as_quantized = _quantized_inputs(graph.nodes)
    return importer


def _quantized_inputs(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Values that quantization operators read as data; `convert-onnx-quantization` wants their constants as `onnx.Constant`."""
    return {node.input[QUANTIZED_INPUT[node.op_type]] for node in nodes if node.op_type in QUANTIZED_INPUT}


class _Types(onnx_importer.ContextCache):
    """Adds the 2-bit integers, which torch types do not have: they travel in 8 bits and their operators carry `bits`."""

    def tensor_element_type(self, elem_type: int) -> ir.Type:
        wide: dict[int, int] = {onnx.TensorProto.INT2: onnx.TensorProto.INT8, onnx.TensorProto.UINT2: onnx.TensorProto.UINT8}
        return super().tensor_element_type(wide.get(elem_type, elem_type))


class _WeightImporter(onnx_importer.NodeImporter):
    """Takes constants from `arrays`. Floats too large for text become `qcc.constant`, which upstream's folders leave alone."""

    __slots__ = ("arrays", "as_quantized")

    arrays: dict[str, np.ndarray]
    as_quantized: set[str]

    def import_initializer(self, initializer: onnx.TensorProto, extern_name: str | None = None) -> ir.Value:
        name = extern_name or initializer.name
        arrays = getattr(self, "arrays", {})  # subgraphs are imported by an instance of the base class with their own constants
        array = arrays[name] if name in arrays else numpy_helper.to_array(initializer)
        with ir.InsertionPoint(self._b), ir.Location.name(name):
            kind = self._cc.tensor_proto_to_type(initializer)
            element = self._cc.tensor_element_type(initializer.data_type)
            if array.dtype.name in ("int4", "uint4", "int2", "uint2"):
                array = array.astype(np.int8 if array.dtype.name.startswith("int") else np.uint8)
                value = weights.constant_attribute(array, name)  # [..] one element per byte
            else:
                value = weights.constant_attribute(array, name, element)
            if array.size > weights.INLINE_ELEMENTS and array.dtype.kind == "f" and name not in self.as_quantized:
                constant = create("qcc.constant", [], [value.type], {"value": value}).result
                result = create("torch_c.from_builtin_tensor", [constant], [kind]).result
            else:
                constant = {"name": ir.StringAttr.get("onnx.Constant"), "torch.onnx.value": value}
                result = ir.Operation.create("torch.operator", results=[kind], attributes=constant).result
        self._nv_map[name] = result
        return result
