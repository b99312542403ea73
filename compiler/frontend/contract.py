"""The torch dialect's backend contract: value semantics, known ranks and element types, and a closed set of operations.

Upstream's pipeline reaches it by decomposing what it can. The operations qcc has a word for are kept whole: a layer norm
taken apart into eight element-wise operations cannot be recognised again.
"""

from __future__ import annotations

import re

from qcc.compiler import pipeline
from qcc.dialects.mlir import ir, run_upstream, walk
from qcc.passes.base import PassContext, run_stage
from qcc.passes.graph.lower_torch_to_linalg import unsupported

# Names without the leading `torch.`. `convert-torch-to-qcc` has a rule for each; where the rule declines (a dynamic padding, a
# dtype qcc does not compute in) `lower-torch-to-linalg` decomposes the operation after all.
KEPT_OPS: tuple[str, ...] = (
    "aten.conv1d", "aten.conv2d", "aten.conv2d.padding", "aten.conv1d.padding", "aten.linear", "aten.mm", "aten.addmm",
    "aten.matmul", "aten.bmm", "aten.batch_norm", "aten.native_batch_norm", "aten.layer_norm",
    "aten.native_layer_norm", "aten.rms_norm", "aten.relu", "aten.relu6", "aten.hardtanh", "aten.clamp", "aten.gelu", "aten.silu",
    "aten.sigmoid", "aten.tanh", "aten.hardswish", "aten.hardsigmoid", "aten.leaky_relu", "aten.elu", "aten.softplus",
    "aten.mish", "aten.reciprocal", "aten.sign", "aten.sgn", "aten.max_pool1d", "aten.max_pool2d", "aten.max_pool2d_with_indices",
    "aten.avg_pool1d", "aten.avg_pool2d", "aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d",
    "aten._adaptive_avg_pool2d", "aten.mean", "aten.mean.dim", "aten.amax", "aten.amin", "aten.cat", "aten.view", "aten.reshape",
    "aten._unsafe_view", "aten.flatten.using_ints", "aten.unflatten.int", "aten.unsqueeze", "aten.squeeze",
    "aten.squeeze.dim", "aten.permute", "aten.transpose.int", "aten.t", "aten.numpy_T", "aten.expand",
    "aten.broadcast_to", "aten.slice.Tensor", "aten.select.int", "aten.narrow", "aten.pad", "aten.constant_pad_nd",
    "aten.softmax.int", "aten._softmax", "aten.scaled_dot_product_attention", "aten.embedding", "aten.index_put",
    "aten.square", "aten.rsub.Scalar", "aten.prelu", "aten.roll", "aten.max.dim", "aten.min.dim", "aten.adaptive_max_pool2d",
    "aten.linalg_vector_norm", "aten.group_norm", "aten.instance_norm", "aten.upsample_bilinear2d", "aten.upsample_bilinear2d.vec",
    "aten.fake_quantize_per_tensor_affine",
    "aten.fake_quantize_per_tensor_affine.tensor_qparams", "aten.fake_quantize_per_channel_affine",
    "aten.fake_quantize_per_tensor_affine_cachemask", "aten.fake_quantize_per_channel_affine_cachemask",
    "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)  # fmt: skip


def to_backend_contract(module: ir.Module) -> None:
    """Bring a module in the torch dialect (raw or already in the contract) into the backend contract, in place.

    Raises QccError that names the operation and its layer where upstream's pipeline cannot.
    """
    options = f"{{backend-legal-ops={','.join(KEPT_OPS)}}}"
    try:
        run_upstream(f"builtin.module({_upstream_pipeline(module)}{options})", module.operation)
    except ir.MLIRError as error:
        raise unsupported(error) from None


def onnx_to_backend_contract(module: ir.Module) -> None:
    """The same for ONNX operators as torch-mlir imports them: run `pipeline.ONNX`, then upstream's conversion to torch's operations.

    Inferring shapes costs 0.2 s even where nothing is open, so it runs only where the conversion left a shape to infer.
    """
    for stage in pipeline.ONNX:
        run_stage(stage, module, PassContext())
    try:
        run_upstream("builtin.module(func.func(convert-torch-onnx-to-torch,canonicalize))", module.operation)
        way = _upstream_pipeline(module)
        if way == "torch-function-to-torch-backend-pipeline":
            way = "torch-onnx-to-torch-backend-pipeline"
        run_upstream(f"builtin.module({way}{{backend-legal-ops={','.join(KEPT_OPS)}}})", module.operation)
    except ir.MLIRError as error:
        raise unsupported(error) from None


def _upstream_pipeline(module: ir.Module) -> str:
    """Which of upstream's ways leads from `module` to the contract: what is missing depends on the importer that made it.

    Exported programs have value semantics and static types already; anything else needs both inferred, which is slower.
    """
    ops = list(walk(module))
    if any(op.name == "torch.nn_module" for op in ops):
        return "torchscript-module-to-torch-backend-pipeline"
    types = {str(result.type) for op in ops for result in op.results}
    types |= {
        str(op.attributes[name]) for op in ops if op.name == "func.func" for name in ("function_type", "arg_attrs") if name in op.attributes
    }
    open_type = re.compile(r"!torch\.tensor|!torch\.vtensor(?!<)|vtensor<[^>]*(\?|\*|unk)|torch\.type_bound")
    if any(open_type.search(text) for text in types):
        return "torch-function-to-torch-backend-pipeline"
    return "torchdynamo-export-to-torch-backend-pipeline"
