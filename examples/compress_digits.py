"""Compress one small network by every method qcc knows, compile it, and print one table.

    python examples/compress_digits.py                     # all methods
    python examples/compress_digits.py BWN SAL --kind onnx

A CNN (3x3 stem, two 3x3 layers, two linear layers) is trained on scikit-learn's digits, then fine-tuned by each method; first and last
layer stay in float. Every model is compiled twice, as an nn.Module and from a file; neither says how it was compressed. `other` counts
the test images on which qcc and PyTorch answer differently.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compressed_layers as layers
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from train_digits import accuracy, load_digits, train

import qcc

BODY = ("first", "second", "hidden")  # the layers that are compressed


class Digits(nn.Module):
    """x [n, 1, 8, 8] in 0..1 -> logits [n, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.first, self.first_norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.second, self.second_norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.hidden, self.classifier = nn.Linear(128, 64), nn.Linear(64, 10)
        self.activation: nn.Module = nn.ReLU()
        self.rounding: nn.Module = nn.Identity()  # of activations, where the method has one

    def forward(self, x: Tensor) -> Tensor:
        x = self.rounding(self.activation(self.stem_norm(self.stem(x))))
        x = self.pool(self.activation(self.first_norm(self.first(self.rounding(x)))))
        x = self.pool(self.activation(self.second_norm(self.second(self.rounding(x)))))
        x = self.activation(self.hidden(self.rounding(x.flatten(1))))
        return self.classifier(x)


Apply = Callable[[Digits], None]


def projected(projection: layers.Projection) -> Apply:
    """Parametrize the body's weights by `projection`."""

    def apply(model: Digits) -> None:
        for name in BODY:
            parametrize.register_parametrization(getattr(model, name), "weight", layers.Projected(projection))

    return apply


def started(start: Callable[[Tensor], layers.Projection]) -> Apply:
    """The same for a projection that looks at the weight first."""

    def apply(model: Digits) -> None:
        for name in BODY:
            layer = getattr(model, name)
            parametrize.register_parametrization(layer, "weight", layers.Projected(start(layer.weight)))

    return apply


def masked(mask: layers.Projection) -> Apply:
    """Prune the body by torch.nn.utils.prune."""

    def apply(model: Digits) -> None:
        for name in BODY:
            layer = getattr(model, name)
            prune.custom_from_mask(layer, "weight", mask(layer.weight.detach()))

    return apply


def ttq(model: Digits) -> None:
    for name in BODY:
        layer = getattr(model, name)
        parametrize.register_parametrization(layer, "weight", layers.TrainedTernary(layer.weight.detach()))


def xnor(model: Digits) -> None:
    projected(layers.bwn)(model)
    model.activation = nn.Hardtanh()
    model.first, model.second = layers.XnorConv(model.first), layers.XnorConv(model.second)  # type: ignore[assignment]
    model.hidden = layers.XnorLinear(model.hidden)  # type: ignore[assignment]


def lognet(model: Digits) -> None:
    projected(layers.lognet)(model)
    model.rounding = layers.LogActivation()


def fp8(model: Digits) -> None:
    projected(layers.fp8)(model)
    model.rounding = layers.Fp8Activation()


def factorised(model: Digits) -> None:
    model.first, model.second = layers.tucker_conv(model.first, (8, 12)), layers.tucker_conv(model.second, (12, 12))  # type: ignore[assignment]
    model.hidden = layers.svd_linear(model.hidden, 12)  # type: ignore[assignment]


METHODS: dict[str, Apply] = {
    "float": lambda model: None,
    "BWN": projected(layers.bwn),
    "XNOR-Net": xnor,
    "TWN": projected(layers.twn),
    "TTQ": ttq,
    "LogNet weights": projected(layers.lognet),
    "LogNet": lognet,
    "weight sharing 16": started(layers.sharing(16)),
    "weight sharing 256": started(layers.sharing(256)),
    "FP8 weights": projected(layers.fp8),
    "FP8": fp8,
    "FP4": projected(layers.fp4),
    "2:4": masked(layers.two_of_four),
    "kernel patterns": masked(layers.kernel_patterns),
    "unstructured 90 %": masked(layers.greatest(0.1)),
    "channels 50 %": masked(layers.half_of_filters),
    "SVD, Tucker": factorised,
    "SAL shift": masked(layers.one_tap),
}


@dataclass(frozen=True)
class Row:
    """One method: correct answers of PyTorch, of qcc on the module and on the file; what the compiler reports."""

    name: str
    pytorch: int
    module: int
    file: int
    other: int
    weight_bytes: int
    artefact_bytes: int
    microseconds: float
    energy_nj: float
    recognized: str


def trained(name: str, base: Digits, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int, seed: int = 0) -> nn.Module:
    """A copy of `base`, fine-tuned by method `name`, with plain weights."""
    model = copy.deepcopy(base)
    METHODS[name](model)
    if name != "float":
        train(model, data[0], data[1], epochs, 2e-3, seed + 1, name)
    return layers.finish(model)


def write(model: nn.Module, example: Tensor, kind: str, folder: str) -> Path:
    """`model` as a .pt2 or .onnx file."""
    file = Path(folder) / f"digits.{kind}"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if kind == "pt2":
            torch.export.save(torch.export.export(model, (example,), strict=False), file)
        else:
            torch.onnx.export(model, (example,), str(file), opset_version=19, input_names=["x"], output_names=["y"], dynamo=False)
    return file


def answers(executable: Any, images: np.ndarray) -> np.ndarray:
    return np.array([int(np.asarray(executable(image[None])).argmax()) for image in images])


def measured(name: str, model: nn.Module, images: Tensor, labels: Tensor, kind: str) -> Row:
    """Compile `model` both ways and compare with PyTorch."""
    with torch.no_grad():
        simulated = model(images).argmax(1).numpy()
    example, truth = images[:1].clone(), labels.numpy()
    executable = qcc.compile(model, example_inputs=(example,), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        from_file = qcc.compile(write(model, example, kind, folder), threads=1)
        artefact = Path(folder) / "out"
        executable.save(artefact)
        size = artefact.stat().st_size
    found, again = answers(executable, images.numpy()), answers(from_file, images.numpy())
    rows = executable.report["layers"]
    words = dict.fromkeys(word for row in rows if (word := row["facts"].get("recognized")))
    return Row(
        name,
        *(int((given == truth).sum()) for given in (simulated, found, again)),
        other=int(max((found != simulated).sum(), (again != simulated).sum())),
        weight_bytes=sum(row["facts"].get("stored_bytes", row["weight_bytes"]) for row in rows),
        artefact_bytes=size,
        microseconds=1000 * executable.benchmark([example.numpy()], seconds=0.2).percentile_ms(50),
        energy_nj=executable.report["totals"]["energy_nj"],
        recognized="; ".join(words),
    )


def table(rows: list[Row], count: int) -> str:
    head = ("method", "PyTorch", "module", "file", "other", "weights", "artefact", "time", "energy", "recognized as")
    cells = [head]
    for r in rows:
        shares = (f"{100 * n / count:.2f} %" for n in (r.pytorch, r.module, r.file))
        sizes = (f"{r.weight_bytes / 1024:.1f} KiB", f"{r.artefact_bytes / 1024:.1f} KiB")
        cells.append((r.name, *shares, str(r.other), *sizes, f"{r.microseconds:.1f} us", f"{r.energy_nj:.0f} nJ", r.recognized))
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--kind", choices=["pt2", "onnx"], default="pt2", help="the file that is compiled beside the module")
    parser.add_argument("--epochs", type=int, default=15, help="epochs in float; a third of them for each method (default: 15)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.methods if name not in METHODS]:
        parser.error(f"no method is called {unknown[0]}, expected some of {', '.join(METHODS)}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_digits()
    base = Digits()
    train(base, data[0], data[1], arguments.epochs, 4e-3, 0, "float")
    rows: list[Row] = []
    for name in arguments.methods or METHODS:
        model = trained(name, base, data, max(1, arguments.epochs // 3))
        with torch.no_grad():
            print(f"{name}: {accuracy(model(data[2]), data[3]):.2%}", file=sys.stderr)
        rows.append(measured(name, model, data[2], data[3], arguments.kind))
    print(table(rows, len(data[3])))
    worst = max(abs(n - r.pytorch) for r in rows for n in (r.module, r.file))
    print(f"Accuracy is PyTorch's to within {worst} test image{'s' if worst != 1 else ''}.")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
