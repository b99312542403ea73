"""Train, quantize, prune and export the two digits models of the demo.

    python examples/train_digits.py                    # both models, about a minute on one core
    python examples/train_digits.py --model mixer --out digits

Each model is trained in float first, then with quantizers of 8, 4 and 2 bits, a binary or ternary layer and a pruned one. It is
written three times, always the same numbers: `.onnx` (QuantizeLinear / DequantizeLinear, and QONNX Quant / BipolarQuant where ONNX has
no type), `.pt2` (torch.export) and `.mlir` (torch dialect). `digits.npz` holds the test images, their labels and PyTorch's logits.

The data are scikit-learn's digits: 1797 grey images of 8 x 8 pixels with values 0 to 16; the last 360 of a seeded shuffle are the test set.
The seed fixes everything; the same machine and the same versions give the same files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from export_onnx import write_onnx
from export_torch import export_program, write_mlir, write_pt2
from fake_quantize import QConv2d, QConvNorm, QLinear, Quantizer, disable, enable, freeze
from torch import Tensor, nn
from torch.nn import functional

TEST_IMAGES = 360


class DigitsCnn(nn.Module):
    """3x3 stem, depthwise separable pair, residual pair (one layer binary, one 2:4 pruned), 2-bit 1x1, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.input = Quantizer(5, scale=1 / 16)  # pixels are 0..16: 5 bits hold them exactly
        self.stem = QConvNorm(1, 16, 3, bits=8, source=self.input)
        self.stem_out = Quantizer(8)
        self.depthwise = QConvNorm(16, 16, 3, groups=16, bits=8, source=self.stem_out)
        self.depthwise_out = Quantizer(8)
        self.pointwise = QConvNorm(16, 32, 1, bits=4, source=self.depthwise_out)
        self.pointwise_out = Quantizer(4)
        self.binary = QConvNorm(32, 32, 3, bits="binary", source=self.pointwise_out, fold=False)  # its batch norm stays for the compiler
        self.binary_out = Quantizer(4)
        self.pruned = QConvNorm(32, 32, 3, bits=4, prune="2:4", source=self.binary_out)
        self.pruned_out = Quantizer(8, signed=True)
        self.sum_out = Quantizer(4)
        self.narrow = QConvNorm(32, 64, 1, bits=2, source=self.sum_out)
        self.narrow_out = Quantizer(8)
        self.pool_out = Quantizer(8)
        self.classifier = QLinear(64, 10, bits=8, source=self.pool_out)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, 1, 8, 8] in 0..1 -> logits [n, 10]"""
        x = self.stem_out(functional.relu(self.stem(self.input(x))))
        x = self.depthwise_out(functional.relu(self.depthwise(x)))
        x = self.pointwise_out(functional.relu(self.pointwise(x)))
        x = functional.max_pool2d(x, 2)  # [n, 32, 4, 4]
        y = self.binary_out(functional.relu(self.binary(x)))
        y = self.pruned_out(self.pruned(y))
        x = self.sum_out(functional.relu(x + y))
        x = self.narrow_out(functional.relu(self.narrow(x)))
        x = self.pool_out(functional.adaptive_avg_pool2d(x, 1))
        return self.classifier(x.flatten(1))


class Mlp(nn.Module):
    """Linear, GELU, linear over the last axis; the GELU stands between two 8-bit quantizers, so it is a table of 256 entries."""

    def __init__(self, width: int, hidden: int, bits: tuple[int | str, int | str], prune: float | str | None = None) -> None:
        super().__init__()
        self.input = Quantizer(8, signed=True)
        self.expand = QLinear(width, hidden, bits=bits[0], source=self.input)
        self.expand_out = Quantizer(8, signed=True)
        self.gelu_out = Quantizer(8, asymmetric=True)
        self.contract = QLinear(hidden, width, bits=bits[1], source=self.gelu_out, prune=prune)
        self.output = Quantizer(8, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand_out(self.expand(self.input(x)))
        return self.output(self.contract(self.gelu_out(functional.gelu(x))))


class MixerBlock(nn.Module):
    """Mixes tokens, then channels (Tolstikhin et al. 2021); x [n, tokens, channels]."""

    def __init__(
        self,
        tokens: int,
        channels: int,
        token_bits: tuple[int | str, int | str],
        channel_bits: tuple[int | str, int | str],
        prune: float | str | None = None,
    ) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.tokens = Mlp(tokens, 32, token_bits)
        self.middle = Quantizer(8, signed=True)
        self.channel_norm = nn.LayerNorm(channels)
        self.channels = Mlp(channels, 64, channel_bits, prune)
        self.output = Quantizer(8, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        x = self.middle(x + y)
        return self.output(x + self.channels(self.channel_norm(x)))


class DigitsMixer(nn.Module):
    """MLP-mixer over 16 patches of 2 x 2 pixels, 32 channels, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.input = Quantizer(5, scale=1 / 16)
        self.patches = QConv2d(1, 32, 2, stride=2, bits=8, source=self.input, bias=True)
        self.patches_out = Quantizer(8, signed=True)
        self.block0 = MixerBlock(16, 32, token_bits=(8, 4), channel_bits=(2, "ternary"))
        self.block1 = MixerBlock(16, 32, token_bits=(4, 4), channel_bits=(4, 4), prune=0.75)
        self.norm = nn.LayerNorm(32)
        self.norm_out = Quantizer(8, signed=True)
        self.mean_out = Quantizer(8, signed=True)
        self.classifier = QLinear(32, 10, bits=8, source=self.mean_out)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, 1, 8, 8] in 0..1 -> logits [n, 10]"""
        x = self.patches_out(self.patches(self.input(x)))
        x = x.flatten(2).transpose(1, 2)  # [n, 16, 32]
        x = self.block1(self.block0(x))
        x = self.norm_out(self.norm(x))
        return self.classifier(self.mean_out(x.mean(1)))


MODELS = {"cnn": DigitsCnn, "mixer": DigitsMixer}


def load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train images [1437, 1, 8, 8], train labels, test images [360, 1, 8, 8], test labels); pixels are multiples of 1/16."""
    from sklearn.datasets import load_digits as bundled

    data = bundled()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.tensor(data.images[order] / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target[order])
    return images[:-TEST_IMAGES], labels[:-TEST_IMAGES], images[-TEST_IMAGES:], labels[-TEST_IMAGES:]


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int, title: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // 64))
    for epoch in range(epochs):
        total = 0.0
        model.train()
        for batch in torch.randperm(len(images), generator=generator).split(64)[: len(images) // 64]:
            loss = functional.cross_entropy(model(images[batch]), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if sys.stderr.isatty() or epoch + 1 == epochs:
            print(f"\r{title}: epoch {epoch + 1}/{epochs}, loss {total / (len(images) // 64):.3f}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def make(name: str, out: Path, epochs: int, seed: int, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, np.ndarray]:
    """Train and export one model; what `digits.npz` keeps of it."""
    images, labels, test_images, test_labels = data
    torch.manual_seed(seed)
    model = MODELS[name]()
    weights = sum(
        p.numel()
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm)
        for p in m.parameters(recurse=False)
    )
    disable(model)
    train(model, images, labels, epochs, 4e-3, seed, f"{name}, float")
    model.eval()
    with torch.no_grad():
        float_accuracy = accuracy(model(test_images), test_labels)
    enable(model)
    train(model, images, labels, epochs, 2e-3, seed + 1, f"{name}, quantized")

    program = export_program(freeze(model), (test_images[:1],))
    with torch.no_grad():
        logits = torch.cat([program.module()(image[None]) for image in test_images])
    quantized_accuracy = accuracy(logits, test_labels)
    print(f"{name}: accuracy {100 * float_accuracy:.2f} % in float, {100 * quantized_accuracy:.2f} % quantized, {weights} parameters")
    write_pt2(program, out / f"digits_{name}.pt2")
    write_onnx(program, out / f"digits_{name}.onnx")
    write_mlir(program, out / f"digits_{name}.mlir")
    return {f"{name}_logits": logits.numpy(), f"{name}_parameters": np.int64(weights), f"{name}_float_accuracy": np.float64(float_accuracy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="directory of the files (default: examples/)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs in float, and again with quantizers (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    archive = arguments.out / "digits.npz"
    kept = dict(np.load(archive)) if archive.exists() else {}
    kept |= {"images": data[2].numpy(), "labels": data[3].numpy()}
    for name in MODELS if arguments.model == "all" else [arguments.model]:
        kept |= make(name, arguments.out, arguments.epochs, arguments.seed, data)
    np.savez_compressed(archive, **kept)


if __name__ == "__main__":
    main()
