"""The real architectures of the end-to-end tests, quantized by two tools, as files in `build/e2e-models`.

    python -m test.e2e.models                      # make all that are missing
    python -m test.e2e.models resnet18 --force     # make one anew

Weights are random and seeded. Batch-norm statistics come from smooth random images, so activations have the scale of a trained network.
For every model there are

    NAME.float.onnx    float, from torch.onnx
    NAME.onnx          8 bits by ONNX Runtime's static quantization: QDQ, u8 activations, s8 weights per channel
    NAME.pt2           8 bits by torchao's PT2E flow (x86 quantizer) as an exported program
    NAME.mlir          the same program in the torch dialect
    NAME.npz           test inputs [count, ...] and what float PyTorch, ONNX Runtime (on NAME.onnx) and PyTorch (on NAME.pt2) make of them

`NAME@16` is the same network for 16 inputs at once. `resnet50-2of4`, `-sparse90`, `-halved`, `-halved-shifted`, `-w4`, `-w2` and `-ternary`
are ResNet-50 compressed (`projections.py`), as .onnx.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import projections
from .networks import Chain, Encoder, MobileNetV2, ResNet, Vgg16

FOLDER = Path(__file__).parents[2] / "build" / "e2e-models"
CALIBRATION_INPUTS = 4
TEST_INPUTS = 4


@dataclass(frozen=True)
class Model:
    """How to make one network and its inputs; `quantize_ops` restricts ONNX Runtime's quantization to these operations. `project`
    compresses the float weights, of which `weight_bits` then say how wide their integers are."""

    network: Callable[[], nn.Module]
    sample: Callable[[torch.Generator], Tensor]
    macs: float
    quantize_ops: tuple[str, ...] | None = None
    project: projections.Projection | None = None
    weight_bits: int = 8


def smooth_image(generator: torch.Generator) -> Tensor:
    """[1, 3, 224, 224]: low frequencies as photographs have them, and some noise."""
    coarse = torch.randn(1, 3, 8, 8, generator=generator)
    image = functional.interpolate(coarse, size=(224, 224), mode="bilinear", align_corners=False)
    return image + 0.2 * torch.randn(image.shape, generator=generator)


def token_vectors(width: int) -> Callable[[torch.Generator], Tensor]:
    """Makes [1, 128, width]: what an embedding layer would give."""
    return lambda generator: torch.randn(1, 128, width, generator=generator)


MODELS = {
    "resnet18": Model(lambda: ResNet((2, 2, 2, 2), bottleneck=False), smooth_image, 1.81e9),
    "resnet50": Model(lambda: ResNet((3, 4, 6, 3), bottleneck=True), smooth_image, 4.09e9),
    "mobilenetv2": Model(MobileNetV2, smooth_image, 0.30e9),
    "vgg16": Model(Vgg16, smooth_image, 15.47e9),
    "encoder": Model(lambda: Encoder(6, 384, 12, 1536), token_vectors(384), 1.43e9, ("MatMul", "Gemm", "Add")),
    "encoder_base": Model(lambda: Encoder(12, 768, 12, 3072), token_vectors(768), 11.2e9, ("MatMul", "Gemm", "Add")),
}
CHAINS = {  # linear layers whose weights do not fit in a cache
    "gemv4096": Model(lambda: Chain(*[4096] * 17), lambda g: torch.randn(1, 4096, generator=g), 268e6),
    "gemv11008": Model(lambda: Chain(*[4096, 11008] * 3, 4096), lambda g: torch.randn(1, 4096, generator=g), 271e6),
    **{
        f"gemv11008_{percent}zeros": Model(
            lambda zeros=percent / 100: Chain(*[4096, 11008] * 3, 4096, zeros=zeros), lambda g: torch.randn(1, 4096, generator=g), 271e6
        )
        for percent in (50, 70, 90)
    },
    **{
        f"fc4096_{percent}zeros": Model(
            lambda zeros=percent / 100: Chain(4096, 4096, zeros=zeros), lambda g: torch.randn(1, 4096, generator=g), 16.8e6
        )
        for percent in (60, 70, 80, 90, 95)
    },
    "fc4096": Model(lambda: Chain(4096, 4096), lambda g: torch.randn(1, 4096, generator=g), 16.8e6),
}
_PROJECTED: dict[str, tuple[projections.Projection, int]] = {
    "2of4": (projections.two_of_four, 8),
    "sparse90": (projections.unstructured(0.9), 8),
    "halved": (projections.half_of_the_filters(shifts=False), 8),
    "halved-shifted": (projections.half_of_the_filters(shifts=True), 8),
    "w4": (projections.integers(4), 4),
    "w2": (projections.integers(2), 2),
    "ternary": (projections.ternary, 8),
}
COMPRESSED = {
    f"resnet50-{name}": Model(lambda: ResNet((3, 4, 6, 3), bottleneck=True), smooth_image, 4.09e9, None, project, bits)
    for name, (project, bits) in _PROJECTED.items()
}
KINDS = ("onnx", "pt2", "mlir")


def build(name: str) -> nn.Module:
    """The float network `name` in evaluation mode; the same weights in every process."""
    torch.manual_seed(0)
    network = model(name).network()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.02)
    if zeros := getattr(network, "zeros", 0.0):
        for layer in network.layers:
            keep_greatest(layer.weight, zeros)
    if (project := model(name).project) is not None:
        project(network)
    settle_batch_norms(network, torch.cat(samples(name.partition("@")[0], 8, seed=2)))
    return network.eval()


def settle_batch_norms(network: nn.Module, batch: Tensor) -> None:
    """Set every batch norm's statistics to those of `batch`."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average, here of one batch
    if norms:
        network.train()
        with torch.no_grad():
            network(batch)


def keep_greatest(weight: Tensor, zeros: float) -> None:
    """Set the share `zeros` of a weight to 0, the least in magnitude (by its first million elements)."""
    with torch.no_grad():
        least = weight.abs().flatten()[: 1 << 20].kthvalue(round(zeros * min(weight.numel(), 1 << 20))).values
        weight[weight.abs() <= least] = 0


def samples(name: str, count: int, *, seed: int) -> list[Tensor]:
    """`count` inputs [batch, ...] of model `name`."""
    generator = torch.Generator().manual_seed(seed)
    batch = int(name.partition("@")[2] or 1)
    return [torch.cat([model(name).sample(generator) for _ in range(batch)]) for _ in range(count)]


def model(name: str) -> Model:
    """The model of `NAME` or `NAME@BATCH`."""
    return (MODELS | CHAINS | COMPRESSED)[name.partition("@")[0]]


def path(name: str, kind: str) -> Path:
    """File `kind` (onnx, pt2, mlir, float.onnx or npz) of model `name`, made first where it is missing."""
    file = FOLDER / f"{name}.{kind}"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        MAKERS[kind](name, file)
    return file


def reference(name: str) -> dict[str, np.ndarray]:
    """`inputs` and the outputs `float`, `onnxruntime`, `pt2e` for them, each [count, ...]."""
    with np.load(path(name, "npz")) as held:
        return dict(held)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A temporary name beside `file` that becomes `file` when the block succeeds: tests run in several processes."""
    partial = file.with_name(f"{file.stem}.{os.getpid()}{file.suffix}")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def make_float_onnx(name: str, file: Path) -> None:
    with whole(file) as partial, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = samples(name, 1, seed=1)[0]
        torch.onnx.export(build(name), (example,), str(partial), opset_version=17, input_names=["x"], output_names=["y"], dynamo=False)


def make_onnx(name: str, file: Path) -> None:
    inputs = [{"x": x.numpy()} for x in samples(name, CALIBRATION_INPUTS, seed=3)]
    with whole(file) as partial, whole(file.with_suffix(".prepared")) as prepared:
        quantize_onnx(path(name, "float.onnx"), prepared, partial, inputs, model(name).quantize_ops)
        if model(name).weight_bits < 8:
            projections.narrow(partial, model(name).weight_bits)
    file.with_suffix(".prepared").unlink(missing_ok=True)


def quantize_onnx(
    source: Path, prepared: Path, target: Path, inputs: Sequence[Mapping[str, Any]], ops: Sequence[str] | None = None
) -> None:
    """ONNX Runtime's static quantization by the ranges that `inputs` have: u8 activations per tensor, s8 weights per channel, QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = list(inputs)

        def get_next(self) -> Any:
            return self.left.pop(0) if self.left else None

    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=None if ops is None else list(ops),
    )


def quantized_program(name: str) -> torch.export.ExportedProgram:
    """Post-training quantization by torchao: u8 activations per tensor, s8 weights per channel."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    example = (samples(name, 1, seed=1)[0],)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantizer = X86InductorQuantizer()
        quantizer.set_global(get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(torch.export.export(build(name), example).module(), quantizer)
        for x in samples(name, CALIBRATION_INPUTS, seed=3):
            prepared(x)
        return torch.export.export(convert_pt2e(prepared), example)


def make_pt2(name: str, file: Path) -> None:
    with whole(file) as partial:
        torch.export.save(quantized_program(name), partial)


def load_program(file: Path) -> torch.export.ExportedProgram:
    import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed

    return torch.export.load(file)


def make_mlir(name: str, file: Path) -> None:
    from torch_mlir.fx import export_and_import

    module: Any = export_and_import(load_program(path(name, "pt2")), output_type="raw", decomposition_table={})
    with whole(file) as partial, partial.open("w") as stream:
        stream.write(module.operation.get_asm(enable_debug_info=True))


def make_reference(name: str, file: Path) -> None:
    import onnxruntime

    inputs = samples(name, TEST_INPUTS, seed=4)
    network, program = build(name), load_program(path(name, "pt2")).module()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path(name, "onnx")), options, providers=["CPUExecutionProvider"])
    with torch.no_grad(), whole(file) as partial:
        held = {
            "inputs": torch.stack(inputs).numpy(),
            "float": np.stack([network(x).numpy() for x in inputs]),
            "onnxruntime": np.stack([session.run(None, {"x": x.numpy()})[0] for x in inputs]),
            "pt2e": np.stack([program(x).numpy() for x in inputs]),
        }
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **held)


MAKERS = {"float.onnx": make_float_onnx, "onnx": make_onnx, "pt2": make_pt2, "mlir": make_mlir, "npz": make_reference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--force", action="store_true", help="make files anew that are there already")
    arguments = parser.parse_args()
    for name in arguments.names:
        for kind in MAKERS:
            if arguments.force:
                (FOLDER / f"{name}.{kind}").unlink(missing_ok=True)
            print(f"{path(name, kind)}", file=sys.stderr)


if __name__ == "__main__":
    main()
