"""PyTorch: Inductor with frozen weights, and eager mode. Which kernels run is counted in the code that Inductor wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Runner, Task, peer

NEEDS = ("torch",)
KERNELS = re.compile(
    r"torch\.ops\.(onednn\.\w+|mkldnn\.\w+|quantized\.\w+|mkl\.\w+|aten\._weight_int\w+)|extern_kernels\.(\w+)|(cpp_\w*gemm\w*)\("
)


@peer("int8", files=("pt2",), needs=("torch", "torchao"), limit="onednn")
def inductor_int8(task: Task) -> Runner:
    """The program that PT2E's x86 quantizer made of the network, the one qcc reads as .pt2."""
    import torch
    import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
    import torchao.quantization.pt2e  # registers its operators and the lowering to onednn
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401

    program = torch.export.load(task.file("pt2")).module()
    # with torchao 0.18 a fused residual sum overwrites the input, so each call gets a copy
    return compiled(task, lambda: program, copy_input=True)


@peer("fp32", files=("float.onnx",), needs=NEEDS, limit="onednn")
def inductor_fp32(task: Task) -> Runner:
    return compiled(task, lambda: network(task))


@peer("fp32", files=("float.onnx",), needs=NEEDS, limit="onednn")
def eager_fp32(task: Task) -> Runner:
    import torch

    torch.set_num_threads(task.threads)
    return runner(network(task), {"version": torch.__version__, "checked by": "nothing is compiled"})


@peer("bf16", files=("float.onnx",), needs=NEEDS, limit="onednn")
def inductor_bf16(task: Task) -> Runner:
    import torch

    return compiled(task, lambda: network(task).to(torch.bfloat16), bfloat16=True)


@peer("w8", files=("float.onnx",), needs=("torch", "torchao"), limit="onednn")
def inductor_w8(task: Task) -> Runner:
    """torchao's 8-bit weights with bfloat16 activations."""
    from torchao.quantization import Int8WeightOnlyConfig

    return weight_only(task, lambda: Int8WeightOnlyConfig())


@peer("w4", files=("float.onnx",), needs=("torch", "torchao"), limit="onednn")
def inductor_w4(task: Task) -> Runner:
    """torchao's 4-bit weights in groups of 128 with bfloat16 activations."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return weight_only(task, lambda: PrototypeInt4WeightOnlyConfig(group_size=128, set_inductor_config=False))


def network(task: Task) -> Any:
    import torch

    from test.e2e import models

    made = models.build(task.model)
    return made.to(memory_format=torch.channels_last) if any(isinstance(m, torch.nn.Conv2d) for m in made.modules()) else made


def weight_only(task: Task, configuration: Callable[[], Any]) -> Runner:
    import torch
    from torchao.quantization import quantize_

    def make() -> Any:
        made = network(task).to(torch.bfloat16)
        quantize_(made, configuration())
        return made

    return compiled(task, make, bfloat16=True, autotune=True)


def compiled(task: Task, make: Callable[[], Any], *, bfloat16: bool = False, copy_input: bool = False, autotune: bool = False) -> Runner:
    import torch
    from torch._inductor import config
    from torch._inductor.utils import run_and_get_code

    torch.set_num_threads(task.threads)
    config.freezing = True
    if autotune:
        config.max_autotune, config.max_autotune_gemm_backends = True, "CPP,ATEN"
    if task.cpu == "x86-64-v3":
        config.cpp.simdlen = 256
    with np.load(task.file("io.npz")) as held:
        x = torch.from_numpy(held["inputs"][0])
    x = x.to(torch.bfloat16) if bfloat16 else x
    with torch.no_grad():
        function = torch.compile(make())
        _, code = run_and_get_code(function, x.clone())
    counts: dict[str, int] = {}
    for found in KERNELS.finditer("\n".join(code)):
        name = next(group for group in found.groups() if group)
        counts[name] = counts.get(name, 0) + 1
    about = {"version": torch.__version__, "checked by": "calls in the code that Inductor wrote", "kernels": counts}
    return runner((lambda x: function(x.clone())) if copy_input else function, about, bfloat16=bfloat16)


def runner(function: Callable[[Any], Any], about: dict[str, Any], *, bfloat16: bool = False) -> Runner:
    import torch

    def prepare(x: np.ndarray) -> Any:
        return torch.from_numpy(x).to(torch.bfloat16) if bfloat16 else torch.from_numpy(x)

    def run(x: Any) -> Any:
        with torch.no_grad():
            return function(x)

    def output(y: Any) -> np.ndarray:
        return (y[0] if isinstance(y, tuple | list) else y).float().numpy().copy()

    return Runner(run, about, output=output, prepare=prepare)
