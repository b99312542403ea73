"""How the compressed networks of the tests get their weights: seeded random ones, projected as pruning and quantization tools do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

Projection = Callable[[nn.Module], None]
PRODUCTS = (nn.Conv2d, nn.Linear)
SHIFT_STD = 0.3
TWN_THRESHOLD = 0.7  # of the mean magnitude (Li et al., "Ternary weight networks", 2016, section 2.1)


def layers(network: nn.Module) -> Iterator[Any]:
    """Convolutions and linear layers."""
    return (m for m in network.modules() if isinstance(m, PRODUCTS))


def two_of_four(network: nn.Module) -> None:
    """Of four neighbours along the input channels the two of least magnitude become 0; layers of fewer than four stay."""
    for layer in layers(network):
        w = layer.weight.data
        if w.shape[1] % 4:
            continue
        groups = w.movedim(1, -1).reshape(-1, 4)
        least = groups.abs().topk(2, dim=1, largest=False).indices
        kept = groups.scatter(1, least, 0.0)
        layer.weight.data = kept.reshape(w.movedim(1, -1).shape).movedim(-1, 1).contiguous()


def unstructured(amount: float) -> Projection:
    """Magnitude pruning: that part of every layer becomes 0."""

    def project(network: nn.Module) -> None:
        for layer in layers(network):
            prune.l1_unstructured(layer, "weight", amount)
            prune.remove(layer, "weight")

    return project


def half_of_the_filters(*, shifts: bool) -> Projection:
    """Half of the filters of every convolution become 0. `shifts`: batch norms keep shifts of their own, so that a pruned channel is a
    constant behind them, not 0."""

    def project(network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                prune.ln_structured(module, "weight", 0.5, n=1, dim=0)
                prune.remove(module, "weight")
            elif shifts and isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=SHIFT_STD)

    return project


def ternary(network: nn.Module) -> None:
    """TWN: -a, 0, a with a per output channel."""
    for layer in layers(network):
        w = layer.weight.data.flatten(1)
        kept = w.abs() > TWN_THRESHOLD * w.abs().mean(dim=1, keepdim=True)
        size = (w.abs() * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp(min=1)
        layer.weight.data = (w.sign() * kept * size).reshape(layer.weight.shape)


def _steps(w: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Integers low..high and their scale per row of w [o, n]; the scale of least square error of a few."""
    best: tuple[Tensor, Tensor] | None = None
    error = torch.full((len(w), 1), torch.inf)
    top = w.abs().amax(dim=1, keepdim=True) / max(-low, high)
    for part in (1.0, 0.85, 0.7, 0.55, 0.4):
        scale = top * part
        stored = (w / scale).round().clamp(low, high)
        found = ((stored * scale - w) ** 2).sum(dim=1, keepdim=True)
        if best is None:
            best, error = (stored, scale), found
        else:
            better = found < error
            best = torch.where(better, stored, best[0]), torch.where(better, scale, best[1])
            error = torch.minimum(found, error)
    assert best is not None
    return best


def integers(bits: int) -> Projection:
    """Integers of `bits` bits times a scale per output channel; symmetric from 3 bits on."""
    low, high = integer_range(bits)

    def project(network: nn.Module) -> None:
        for layer in layers(network):
            stored, scale = _steps(layer.weight.data.flatten(1), low, high)
            layer.weight.data = (stored * scale).reshape(layer.weight.shape)

    return project


def integer_range(bits: int) -> tuple[int, int]:
    return (-2, 1) if bits == 2 else (1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1)


def narrow(file: Path, bits: int) -> None:
    """Write the 8-bit weights of QDQ model `file`, which round weights of `integers(bits)`, as the integers of `bits` bits they were."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    constants = {i.name: i for i in model.graph.initializer}
    low, high = integer_range(bits)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale = (constants[name] for name in node.input[:2])
        stored, scales = numpy_helper.to_array(weight), numpy_helper.to_array(scale)
        if stored.dtype != np.int8 or stored.ndim < 2:
            continue
        rows = stored.reshape(len(stored), -1).astype(np.float64)
        top = np.where((-rows.min(axis=1) >= rows.max(axis=1)) | (bits > 2), max(-low, high), high)  # what the greatest 8-bit integer was
        count = np.abs(rows).max(axis=1) / top
        count = np.where(count > 0, count, 1)
        narrowed = np.clip(np.rint(rows / count[:, None]), low, high).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(narrowed.reshape(stored.shape), weight.name))
        scale.CopyFrom(numpy_helper.from_array((scales * count).astype(np.float32), scale.name))
    onnx.save(model, file)
