"""DeepSparse 1.8 (its last version), which runs QDQ files of convolutional networks on VNNI."""

from __future__ import annotations

import numpy as np

from . import Runner, Task, peer


@peer("int8", files=("onnx",), needs=("deepsparse",))
def deepsparse_int8(task: Task) -> Runner:
    """On the same QDQ file."""
    import deepsparse

    engine = deepsparse.compile_model(str(task.file("onnx")), batch_size=int(task.model.partition("@")[2] or 1), num_cores=task.threads)
    about = {
        "version": deepsparse.__version__,
        "checked by": "the engine's own account of the instructions it uses and the share of operations it supports",
        "kernels": {str(engine.cpu_avx_type): 1, f"vnni {engine.cpu_vnni}": 1, f"supported {engine.fraction_of_supported_ops}": 1},
    }
    return Runner(lambda x: engine([x])[0], about, output=np.array)
