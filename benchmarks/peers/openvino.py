"""OpenVINO's CPU plugin (oneDNN), one stream, latency hint.

What really runs is read from the compiled runtime model: the primitive and the execution precision of every convolution and product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer

PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul", "MHA", "ScaledDotProductAttention", "Subgraph")
NEEDS = ("openvino",)
EVERYWHERE = {"ratio": 1.0, "all_layers": True}  # also the first and the last layer


@peer("int8", files=("onnx",), needs=NEEDS, limit="onednn")
def openvino_int8(task: Task) -> Runner:
    """On the same QDQ file as qcc and ONNX Runtime."""
    return session(task, task.file("onnx"))


@peer("int8", files=("float.onnx", "io.npz"), needs=("openvino", "nncf"), limit="onednn")
def openvino_nncf(task: Task) -> Runner:
    """On what NNCF's post-training quantization makes of the float model: OpenVINO's own choice of what to quantize."""
    return session(task, task.made("nncf.xml", lambda path: quantize(task, path)))


@peer("fp32", files=("float.onnx",), needs=NEEDS, limit="onednn")
def openvino_fp32(task: Task) -> Runner:
    return session(task, task.file("float.onnx"), INFERENCE_PRECISION_HINT="f32")


@peer("bf16", files=("float.onnx",), needs=NEEDS, limit="onednn")
def openvino_bf16(task: Task) -> Runner:
    return session(task, task.file("float.onnx"), INFERENCE_PRECISION_HINT="bf16")


@peer("w8", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_w8(task: Task) -> Runner:
    return session(task, task.made("nncf-w8.xml", lambda path: compress(task, path, "INT8_SYM")))


@peer("w4", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_w4(task: Task) -> Runner:
    """4 bits, groups of 128; activations quantized on the fly, as OpenVINO does by default."""
    return session(task, task.made("nncf-w4.xml", lambda path: compress(task, path, "INT4_SYM", group_size=128, **EVERYWHERE)))


@peer("w3", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_w3(task: Task) -> Runner:
    return session(task, task.made("nncf-w3.xml", lambda path: compress(task, path, "INT3_SYM", group_size=128, **EVERYWHERE)))


@peer("w2", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_w2(task: Task) -> Runner:
    return session(task, task.made("nncf-w2.xml", lambda path: compress(task, path, "INT2_SYM", group_size=128, **EVERYWHERE)))


@peer("codebook16", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_cb4(task: Task) -> Runner:
    """16 levels of NNCF's own codebook, groups of 128."""
    return session(task, task.made("nncf-cb4.xml", lambda path: compress(task, path, "CB4", group_size=128, **EVERYWHERE)))


@peer("nf4", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_nf4(task: Task) -> Runner:
    """NF4, groups of 64."""
    return session(task, task.made("nncf-nf4.xml", lambda path: compress(task, path, "NF4", group_size=64, **EVERYWHERE)))


@peer("fp4", files=("float.onnx",), needs=("openvino", "nncf"), limit="onednn")
def openvino_mxfp4(task: Task) -> Runner:
    """E2M1 in groups of 32 with powers of two."""
    return session(task, task.made("nncf-mxfp4.xml", lambda path: compress(task, path, "MXFP4", group_size=32, **EVERYWHERE)))


def quantize(task: Task, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(task.file("float.onnx"))
    inputs = [{model.input(0).any_name: x} for x in task.calibration()]
    transformer = task.model.startswith("encoder")
    quantized = nncf.quantize(
        model,
        nncf.Dataset(inputs),
        subset_size=len(inputs),
        preset=nncf.QuantizationPreset.MIXED if transformer else nncf.QuantizationPreset.PERFORMANCE,
        target_device=nncf.TargetDevice.CPU,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    write(quantized, path)


def compress(task: Task, path: Path, mode: str, **options: Any) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(task.file("float.onnx"))
    write(nncf.compress_weights(model, mode=getattr(nncf.CompressWeightsMode, mode), **options), path)


def write(model: Any, path: Path) -> None:
    """The .xml as `path`, its .bin under the name that `Task.made` will give the .xml."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    final = path.name.replace(f".{path.stem.rpartition('.')[2]}.xml", ".bin")
    path.with_suffix(".bin").replace(path.with_name(final))


def session(task: Task, file: Path, **properties: Any) -> Runner:
    import openvino

    core = openvino.Core()
    configuration = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(task.threads),
        "ENABLE_CPU_PINNING": False,
        **properties,
    }
    compiled, refused = compile_or_in_f32(core, file, configuration)
    request = compiled.create_infer_request()

    def prepare(x: np.ndarray) -> np.ndarray:
        request.set_input_tensor(0, openvino.Tensor(x))
        return x

    def run(x: np.ndarray) -> np.ndarray:
        request.infer()
        return request.get_output_tensor(0).data

    about = {
        "version": openvino.__version__,
        "checked by": "primitiveType and runtimePrecision in the compiled runtime model",
        "kernels": kernels(compiled),
        "inference precision": str(compiled.get_property("INFERENCE_PRECISION_HINT")),
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
    }
    if refused:
        about["with INFERENCE_PRECISION_HINT f32, because without it"] = refused
    return Runner(run, about, output=np.array, prepare=prepare)


def compile_or_in_f32(core: Any, file: Path, configuration: dict[str, Any]) -> tuple[Any, str]:
    """The compiled model and ''; where OpenVINO refuses, with what is not 8 bits in f32, and the words of its refusal.

    Its default on a CPU with bfloat16 stays bfloat16 when oneDNN is held to AVX2, which has no softmax of it.
    """
    try:
        return core.compile_model(core.read_model(file), "CPU", configuration), ""
    except RuntimeError as problem:
        hint = "INFERENCE_PRECISION_HINT"
        if hint in configuration:
            raise
        compiled = core.compile_model(core.read_model(file), "CPU", configuration | {hint: "f32"})
        return compiled, " ".join(str(problem).split())[-200:]


def kernels(compiled: Any) -> dict[str, int]:
    """How often each (layer type, primitive, precision) runs."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind, primitive, precision = (
            str(getattr(facts[key], "value", facts[key])) if key in facts else "?"
            for key in ("layerType", "primitiveType", "runtimePrecision")
        )
        if kind in PRODUCTS:
            name = f"{kind} {primitive} {precision}"
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
