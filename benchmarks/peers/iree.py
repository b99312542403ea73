"""IREE's llvm-cpu back end with data tiling. Its names of dispatches say which element types they compute with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import Runner, Task, peer

NEEDS = ("iree.compiler", "iree.runtime", "onnx")
CPU = {"native": "host", "icelake-server": "icelake-server", "x86-64-v3": "x86-64-v3"}
COMPILE_SECONDS = 800


@peer("int8", files=("onnx",), needs=NEEDS, limit="iree")
def iree_int8(task: Task) -> Runner:
    """On the same QDQ file."""
    return session(task, task.file("onnx"), "int8")


@peer("fp32", files=("float.onnx",), needs=NEEDS, limit="iree")
def iree_fp32(task: Task) -> Runner:
    return session(task, task.file("float.onnx"), "fp32")


def build(task: Task, model: Path, path: Path) -> None:
    programs = Path(sys.executable).parent
    text = path.with_suffix(".mlir")
    subprocess.run([programs / "iree-import-onnx", model, "-o", text, "--opset-version", "17"], check=True)
    command = [
        programs / "iree-compile",
        text,
        "-o",
        path,
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
    ]
    command += [f"--iree-llvmcpu-target-cpu={CPU[task.cpu]}", "--iree-opt-level=O3", "--iree-opt-data-tiling"]
    subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
    text.unlink()


def session(task: Task, model: Path, precision: str) -> Runner:
    import importlib.metadata

    import iree.runtime as iree

    file = task.made(f"{precision}.{task.cpu}.vmfb", lambda path: build(task, model, path))
    if task.threads == 1:
        configuration = iree.Config("local-sync")
    else:
        iree.flags.parse_flags(f"--task_topology_group_count={task.threads}")
        configuration = iree.Config("local-task")
    context = iree.SystemContext(config=configuration)
    module = iree.VmModule.mmap(context.instance, str(file))
    context.add_vm_module(module)
    name = next(n for n in module.function_names if not n.startswith("__") and not n.endswith("$async"))
    function = getattr(context.modules[module.name], name)

    def run(x: Any) -> np.ndarray:
        return function(x).to_host()

    kernels: dict[str, int] = {}
    for found in re.findall(rb"dispatch_\d+_([a-z]\w*?(?:i8|i32|f32)[x\w]*)", file.read_bytes()):
        kind = re.sub(r"_?\d+(x\d+)*x?", "_", found.decode())
        kernels[kind] = kernels.get(kind, 0) + 1
    about = {
        "version": importlib.metadata.version("iree-base-runtime"),
        "checked by": "element types in names of dispatches",
        "kernels": kernels,
    }
    return Runner(run, about, prepare=lambda x: iree.asdevicearray(configuration.device, x))
