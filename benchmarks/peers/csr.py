"""Compressed sparse rows of binary32, by PyTorch (MKL) and SciPy: what there is for unstructured zeros. Weights are not quantized."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import PRUNED, PRUNED_LAYERS, Runner, Task, peer


@peer("sparse", files=("io.npz",), needs=("torch",), only=PRUNED)
def torch_csr(task: Task) -> Runner:
    import torch

    torch.set_num_threads(task.threads)
    layers = [torch.from_numpy(w).to_sparse_csr() for w in weights(task)]

    def run(x: Any) -> Any:
        with torch.no_grad():
            for w in layers[:-1]:
                x = torch.relu(torch.mv(w, x))
            return torch.mv(layers[-1], x)

    about = {"version": torch.__version__, "checked by": "the layout of the weights", "kernels": {f"mv {layers[0].layout}": len(layers)}}
    return Runner(run, about, output=lambda y: y.numpy()[None].copy(), prepare=lambda x: torch.from_numpy(x[0]))


@peer("sparse", files=("io.npz",), needs=("scipy", "torch"), only=PRUNED)
def scipy_csr(task: Task) -> Runner:
    """One thread, whatever is asked for."""
    import scipy
    from scipy import sparse

    layers = [sparse.csr_matrix(w) for w in weights(task)]

    def run(x: np.ndarray) -> np.ndarray:
        for w in layers[:-1]:
            x = np.maximum(w @ x, 0)
        return layers[-1] @ x

    about = {
        "version": scipy.__version__,
        "checked by": "the type of the weights",
        "kernels": {f"{layers[0].format} @ x": len(layers)},
    }
    return Runner(run, about, output=lambda y: y[None], prepare=lambda x: x[0])


@peer("sparse_fp32", files=("io.npz",), needs=("torch",), only=PRUNED_LAYERS)
def torch_csr_fp32(task: Task) -> Runner:
    """One layer; the product with x transposed is the fastest of those that PyTorch has for many rows."""
    import torch

    torch.set_num_threads(task.threads)
    (w,) = (torch.from_numpy(w).to_sparse_csr() for w in weights(task))

    def run(x: Any) -> Any:
        with torch.no_grad():
            return torch.mv(w, x[0])[None] if len(x) == 1 else (w @ x.T).T

    about = {"version": torch.__version__, "checked by": "the layout of the weights", "kernels": {f"@ {w.layout}": 1}}
    return Runner(run, about, output=lambda y: y.numpy().copy(), prepare=torch.from_numpy)


@peer("sparse_fp32", files=("io.npz",), needs=("scipy", "torch"), only=PRUNED_LAYERS)
def scipy_csr_fp32(task: Task) -> Runner:
    """One layer on one thread, whatever is asked for."""
    import scipy
    from scipy import sparse

    (w,) = (sparse.csr_matrix(w) for w in weights(task))

    def run(x: np.ndarray) -> np.ndarray:
        return (w @ x[0])[None] if len(x) == 1 else (w @ x.T).T

    return Runner(run, {"version": scipy.__version__, "checked by": "the type of the weights", "kernels": {f"{w.format} @ x": 1}})


def weights(task: Task) -> list[np.ndarray]:
    """Pruned weights [out, in] of the chain."""
    from benchmarks import files

    return files.linear_layers(task.model)
