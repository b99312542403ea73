"""DeepSparse 1.8 (its last version), which runs QDQ files of convolutional networks on VNNI."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import PRUNED_LAYERS, Runner, Task, peer


@peer("int8", files=("onnx",), needs=("deepsparse", "onnx"))
def deepsparse_int8(task: Task) -> Runner:
    """On the same QDQ file."""
    return compiled(task, "onnx")


@peer("sparse_fp32", files=("float.onnx",), needs=("deepsparse", "onnx"), only=PRUNED_LAYERS)
def deepsparse_fp32(task: Task) -> Runner:
    """On the float network, whose zeros it finds."""
    return compiled(task, "float.onnx")


def compiled(task: Task, kind: str) -> Runner:
    import deepsparse

    file = task.made(f"deepsparse.{kind}", lambda path: old_opsets(task.file(kind), path))
    engine = deepsparse.compile_model(str(file), batch_size=int(task.model.partition("@")[2] or 1), num_cores=task.threads)
    about = {
        "version": deepsparse.__version__,
        "checked by": "the engine's own account of the instructions it uses and the share of operations it supports",
        "kernels": {str(engine.cpu_avx_type): 1, f"vnni {engine.cpu_vnni}": 1, f"supported {engine.fraction_of_supported_ops}": 1},
    }
    return Runner(lambda x: engine([x])[0], about, output=np.array)


def old_opsets(model: Path, path: Path) -> None:
    """A copy without what this engine's reader is too old for: unused operator sets, and the file format's version."""
    import onnx

    held = onnx.load(model)
    kept = [opset for opset in held.opset_import if opset.domain in ("", "ai.onnx")]
    del held.opset_import[:]
    held.opset_import.extend(kept)
    held.ir_version = min(held.ir_version, 8)
    onnx.save(held, path)
