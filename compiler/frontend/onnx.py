"""ONNX front end: a `.onnx` file or `onnx.ModelProto` becomes a module in the torch dialect's backend contract.

The order of things:

1. `onnx_graph` reads the model and takes its weights out of the protobuf; `onnx_half` makes floats of halves; `onnx_contrib` writes out
   what ONNX Runtime's optimizer fused;
2. `onnx_shapes` fixes dynamic sizes and evaluates what follows from constants and static shapes; `onnx_functions` and `onnx_fused`
   write out what has to know them;
3. `onnx_quantization` and `onnx_integers` spell every quantized operator (QLinearConv, com.microsoft's, QONNX's, ...) as
   DequantizeLinear -> float operator -> QuantizeLinear, so that all of them take one road; `onnx_clips` reads widths from ranges;
   `onnx_dynamic` finds products of activations that are quantized while running;
4. `onnx_recurrent` unrolls RNN, GRU and LSTM; `onnx_spelling` spells operators by others that are converted right; `onnx_refusals`
   turns down forms of operators whose conversion is known to compute wrong numbers;
5. `onnx_import` makes MLIR of it, still one `torch.operator "onnx.X"` per node;
6. the stages `pipeline.ONNX` turn quantization operators into qcc's, and torch-mlir turns the rest into torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from qcc.compiler.frontend import (
    onnx_clips,
    onnx_contrib,
    onnx_dynamic,
    onnx_functions,
    onnx_fused,
    onnx_graph,
    onnx_half,
    onnx_import,
    onnx_integers,
    onnx_quantization,
    onnx_recurrent,
    onnx_refusals,
    onnx_shapes,
    onnx_spelling,
)
from qcc.compiler.frontend.contract import onnx_to_backend_contract
from qcc.compiler.frontend.model import ImportedModel, imported
from qcc.dialects.mlir import create_context


def import_model(source: str | Path | onnx.ModelProto, example_inputs: Sequence[Any] | None = None, batch: int = 1) -> ImportedModel:
    """Import a model. Its own input, output and node names become those of the result.

    `example_inputs` (anything with a shape) fix all dynamic sizes, `batch` that of a dynamic first axis. Raises QccError for a file that
    is damaged or incomplete, for sizes that stay dynamic, and for operators that nothing can lower, each named with its node.
    """
    graph = onnx_graph.read(Path(source) if isinstance(source, str) else source)
    onnx_half.widen(graph)
    onnx_contrib.write_out(graph)
    onnx_shapes.fix_input_shapes(graph, example_inputs, batch)
    onnx_shapes.fold_constants(graph)
    _write_out(graph)
    onnx_quantization.expand(graph)
    graph = onnx_graph.with_quantized_types(graph)
    onnx_shapes.fold_constants(graph)
    _write_out(graph)
    onnx_shapes.require_known_operators(graph)
    onnx_recurrent.unroll(graph)
    onnx_spelling.spell_out(graph)
    onnx_clips.state_ranges(graph)
    onnx_dynamic.recognise(graph)
    onnx_integers.connect(graph)
    onnx_shapes.fold_constants(graph)
    graph.remove_dead()
    onnx_shapes.require_static_shapes(graph)
    onnx_refusals.require_right_conversions(graph)
    inputs, outputs = [i.name for i in graph.inputs], [o.name for o in graph.outputs]
    module = onnx_import.import_graph(graph, create_context())
    del graph
    onnx_to_backend_contract(module)
    return imported(module, inputs, outputs)


def _write_out(graph: onnx_graph.OnnxGraph) -> None:
    """Operators whose spelling depends on types, as far as these are known."""
    while onnx_fused.write_out(graph) or onnx_functions.expand_functions(graph):
        onnx_shapes.fold_constants(graph)
