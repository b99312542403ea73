"""Every row of the compression methods that qcc serves: formats, sparsity and coding, each by its name in the literature.

Formats and sparsity: plain float weights that some tool projected, without annotations, in a linear layer, a 3x3 convolution and a
depthwise one, dense and with zeros in three patterns. They are compiled as an nn.Module, from .pt2 and from .onnx. The compiled layers
equal the reference of the integer form bit for bit where weights and activations are integers, else within `FLOAT_BOUND` of the greatest
output; and PyTorch within one more such bound.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import qcc
from qcc.compiler import driver, report_advice
from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types
from qcc.dialects.compressed_types import Minifloat
from qcc.dialects.encodings import Encoding, make_encoding
from qcc.dialects.minifloat import decode as decode_minifloat
from qcc.dialects.minifloat import encode as encode_minifloat
from qcc.dialects.mlir import create_context, ir
from qcc.runtime.reference import interpreter, storage
from test.tiers import slow_except

FLOAT_BOUND = 2e-5

Format = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def per_filter(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (0.05 + rng.random(shape[0])).astype(np.float32).reshape(-1, *[1] * (len(shape) - 1))


def integers(low: int, high: int, *, scale: float | None = None) -> Format:
    """Integers low..high times one scale, or one per filter."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.integers(low, high + 1, shape).astype(np.float32)
        values.reshape(shape[0], -1)[:, :2] = high, 1  # every filter reaches its range, and its step
        return values * (np.float32(scale) if scale else per_filter(rng, shape))

    return make


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, -1, 1).astype(np.float32)


def ttq(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.array([-0.31, 0.0, 0.17], np.float32)[rng.integers(0, 3, shape)]


def lognet(least: int) -> Format:
    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return (signs(rng, shape) * 2.0 ** rng.integers(least, 1, shape)).astype(np.float32)

    return make


def codebook(levels: int) -> Format:
    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        table = rng.standard_normal(levels).astype(np.float32)
        return table[rng.integers(0, levels, shape)]

    return make


def cast(dtype: torch.dtype) -> Format:
    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(dtype).float().numpy()

    return make


def minifloat(exponent: int, mantissa: int) -> Format:
    """Rounded to a float format of the user's own, without infinity and NaN; sums are binary32."""
    kind = Minifloat(exponent, mantissa, (1 << (exponent - 1)) - 1, "none", np.ones(1, np.float32))

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return decode_minifloat(encode_minifloat(rng.standard_normal(shape).astype(np.float32), kind), kind)

    return make


# row -> (weights, bits of the activations or None for float, whether every layer computes on integers, what is recognised)
FORMATS: dict[str, tuple[Format, int | None, bool, str]] = {
    "dynamic fixed point, no fine-tuning (8 / 10 bits)": (integers(-127, 127, scale=2.0**-7), 10, True, "8-bit integers"),
    "dynamic fixed point, fine-tuned (8 / 8 bits)": (integers(-127, 127, scale=2.0**-9), 8, True, "8-bit integers"),
    "ternary weight networks (TWN)": (lambda r, s: r.integers(-1, 2, s).astype(np.float32) * per_filter(r, s), None, False, "ternary"),
    "trained ternary quantization (TTQ)": (ttq, None, False, "ternary, two scales"),
    "BinaryConnect (BC)": (signs, None, False, "binary"),
    "binary weight network (BWN)": (lambda r, s: signs(r, s) * per_filter(r, s), None, False, "binary"),
    "binarized network (BNN)": (signs, 1, True, "binary"),
    "XNOR-Net": (lambda r, s: signs(r, s) * per_filter(r, s), 1, True, "binary"),
    "LogNet, fc (4-bit weights, 4-bit activations)": (lognet(-6), 4, True, "powers of two"),
    "LogNet, conv (5-bit weights, 4-bit activations)": (lognet(-12), 4, True, "powers of two"),
    "weight sharing, 16 levels": (codebook(16), None, False, "codebook of 16 levels"),
    "weight sharing, 256 levels": (codebook(64), 16, False, "codebook of 64 levels"),
    "post-training, quantization-aware and adaptive bit-width, 4 / 4": (integers(-7, 7), 4, True, "4-bit integers"),
    "post-training, quantization-aware and adaptive bit-width, 3 / 3": (integers(-3, 3), 3, True, "3-bit integers"),
    "post-training, quantization-aware and adaptive bit-width, 2 / 2": (integers(-1, 1), 2, True, "ternary"),
    "FP8 E4M3": (cast(torch.float8_e4m3fn), None, False, "codebook"),
    "FP8 E5M2": (cast(torch.float8_e5m2), None, False, "codebook"),
    "custom minifloat (E5M1)": (minifloat(5, 1), None, False, "codebook"),
}


def no_zeros(weight: np.ndarray) -> np.ndarray:
    return weight


def unstructured(weight: np.ndarray) -> np.ndarray:
    kept = np.random.default_rng(1).random(weight.shape) < 0.3
    return weight * kept


def kept_beside_steps(mask: np.ndarray) -> np.ndarray:
    mask.reshape(len(mask), -1)[:, :2] = True
    return mask


def by_magnitude(amount: float) -> Callable[[np.ndarray], np.ndarray]:
    """That part of the weights, the least ones, becomes 0; but not two of each filter, which show the step of integers."""

    def prune(weight: np.ndarray) -> np.ndarray:
        return weight * kept_beside_steps(np.abs(weight) > np.quantile(np.abs(weight), amount))

    return prune


def energy_aware(weight: np.ndarray) -> np.ndarray:
    """Yang 2017: the layers that spend most, here those with most weights, lose most."""
    return by_magnitude(0.9 if weight.size > 1000 else 0.5)(weight)


def optimal_brain_damage(weight: np.ndarray) -> np.ndarray:
    """LeCun 1989: least saliency w^2 h / 2 goes, h being the diagonal of the second derivatives."""
    saliency = weight**2 * np.random.default_rng(4).random(weight.shape)
    return weight * kept_beside_steps(saliency > np.quantile(saliency, 0.8))


def gradually(weight: np.ndarray) -> np.ndarray:
    """Pruned in steps while it is trained."""
    rng, trained = np.random.default_rng(5), weight
    for amount in (0.3, 0.6, 0.8):
        trained = by_magnitude(amount)(trained * rng.uniform(0.9, 1.1, weight.shape))
    return weight * (trained != 0)


def two_of_four(weight: np.ndarray) -> np.ndarray:
    return weight * (np.arange(weight.shape[1]) % 4 < 2).reshape(1, -1, *[1] * (weight.ndim - 2))


def blocks(weight: np.ndarray) -> np.ndarray:
    matrix = weight.reshape(weight.shape[0], -1).copy()
    matrix[::8, : matrix.shape[1] // 2] = 0
    for first in range(0, matrix.shape[0], 8):
        matrix[first : first + 4, matrix.shape[1] // 2 :] = 0
    return matrix.reshape(weight.shape)


def channels(weight: np.ndarray) -> np.ndarray:
    weight = weight.copy()
    weight[::2] = 0
    return weight


def patterns(weight: np.ndarray) -> np.ndarray:
    if weight.ndim != 4 or weight.shape[2] != 3:
        return two_of_four(weight)
    masks = np.array([[0, 1, 0, 1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0, 0, 0, 0]]).reshape(2, 3, 3)
    return weight * masks[np.random.default_rng(2).integers(0, 2, weight.shape[:2])]


def one_tap(weight: np.ndarray) -> np.ndarray:
    if weight.ndim != 4:
        return weight
    taps = np.random.default_rng(3).integers(0, 9, weight.shape[1])
    return weight * (np.arange(9).reshape(1, 1, 3, 3) == taps.reshape(1, -1, 1, 1))


SPARSITY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude pruning (Han 2015), 9x": by_magnitude(0.89),
    "element-wise magnitude pruning, 90 %": by_magnitude(0.9),
    "energy-aware pruning": energy_aware,
    "optimal brain damage": optimal_brain_damage,
    "gradual pruning": gradually,
    "unstructured": unstructured,
    "N:M": two_of_four,
    "structured, block": blocks,
    "structured, channel (filter)": channels,
    "structured, hardware-aware patterns per kernel": patterns,
    "shift attention layer (SAL)": one_tap,
}
CROSSED = {"dense": no_zeros, "unstructured": unstructured, "2:4": two_of_four, "block": blocks}


class Layers(nn.Module):
    """One linear, one 3x3 and one depthwise layer for every pattern of zeros, all on one input each; the activations round to `bits`."""

    def __init__(self, make: Format, zeros: list[Callable[[np.ndarray], np.ndarray]], bits: int | None, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.bits = bits
        self.linear = nn.ModuleList(nn.Linear(64, 24) for _ in zeros)
        self.conv = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=1) for _ in zeros)
        self.depthwise = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False) for _ in zeros)
        for kind in (self.linear, self.conv, self.depthwise):
            for layer, pattern in zip(kind, zeros, strict=True):
                layer.weight.data = torch.from_numpy(pattern(make(rng, tuple(layer.weight.shape))).astype(np.float32))

    def rounded(self, x: Tensor) -> Tensor:
        if self.bits is None:
            return x
        if self.bits == 1:
            return torch.sign(x)
        return torch.fake_quantize_per_tensor_affine(x, 2.0 ** (2 - self.bits), 0, -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)

    def forward(self, rows: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        rows, image = self.rounded(rows), self.rounded(image)
        return (
            *[layer(rows) for layer in self.linear],
            *[layer(image) for layer in self.conv],
            *[layer(image) for layer in self.depthwise],
        )


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 64, generator=generator), torch.randn(1, 16, 6, 6, generator=generator)


def saved(model: nn.Module, road: str, folder: Path) -> Any:
    """What `qcc.compile` is given: the module or a file."""
    if road == "module":
        return model
    file = folder / f"model.{road}"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if road == "pt2":
            torch.export.save(torch.export.export(model, inputs(0), strict=False), file)
        else:
            torch.onnx.export(model, inputs(0), str(file), opset_version=19, dynamo=False)
    return file


def check(model: Layers, road: str, folder: Path, exact: bool) -> Any:
    """Compile, run, compare with the reference and with PyTorch; the executable."""
    source = saved(model.eval(), road, folder)
    example = inputs(0) if road == "module" else None
    # quantized activations of weight-only layers have a bound of their own (test_streams.py)
    compilation = driver.start(source, CompileOptions(activations="float"), example_inputs=example)
    given = [x.numpy() for x in inputs(1)]
    expected = interpreter.run(compilation.run_to("integer"), given)
    executable = driver.finish(compilation, threads=1)
    found = executable(*given)
    with torch.no_grad():
        simulated = [y.numpy() for y in model(*inputs(1))]
    assert len(found) == len(expected) == len(simulated)
    for y, reference, pytorch in zip(found, expected, simulated, strict=True):
        bound = FLOAT_BOUND * max(float(np.abs(pytorch).max()), 1e-3)
        if exact:
            np.testing.assert_array_equal(y, reference)
        else:
            np.testing.assert_allclose(y, reference, atol=bound, rtol=0)
        np.testing.assert_allclose(y, pytorch, atol=2 * bound, rtol=0)
    return executable


@pytest.mark.parametrize("row", slow_except(FORMATS, *(r for r in FORMATS if r.startswith("dynamic fixed point, f"))))
def test_number_formats(row: str, tmp_path: Path) -> None:
    make, bits, exact, words = FORMATS[row]
    model = Layers(make, list(CROSSED.values()), bits, seed=len(row))
    executable = check(model, "module", tmp_path, exact)
    found = {r["name"]: r["facts"].get("recognized", "") for r in executable.report["layers"]}
    assert found["linear.0"].startswith(words) and found["conv.0"].startswith(words), found
    if exact:
        assert all(r["activation_bits"] <= 16 for r in executable.report["layers"] if r["op"] in ("conv2d", "linear"))


@pytest.mark.slow
@pytest.mark.parametrize("road", ["pt2", "onnx"])
@pytest.mark.parametrize("row", FORMATS)
def test_number_formats_from_file(row: str, road: str, tmp_path: Path) -> None:
    if road == "onnx" and FORMATS[row][1] not in (None, 1, 8):
        pytest.skip("torch's ONNX exporter writes fake quantization of 8 bits only")
    make, bits, exact, _ = FORMATS[row]
    check(Layers(make, list(CROSSED.values()), bits, seed=len(row)), road, tmp_path, exact)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8])
def test_sparsity(bits: int | None, tmp_path: Path) -> None:
    """All rows of SPARSITY in one model, with float weights and with 8-bit ones."""
    make: Format = integers(-127, 127) if bits else (lambda rng, shape: rng.standard_normal(shape).astype(np.float32))
    executable = check(Layers(make, list(SPARSITY.values()), bits, seed=5), "module", tmp_path, bits is not None)
    facts = {r["name"]: r["facts"] for r in executable.report["layers"]}
    names = {row: f"conv.{i}" for i, row in enumerate(SPARSITY)}
    layers = {r["name"]: r for r in executable.report["layers"]}
    for row, name in names.items():
        assert facts[name]["density"] < 0.7, row
        assert layers[name]["nonzero_macs"] == round(layers[name]["macs"] * layers[name]["density"]), row
    expected = {"N:M": "2:4", "structured, channel (filter)": "channel 0", "structured, hardware-aware patterns per kernel": "pattern"}
    for row, form in expected.items():
        assert form in facts[names[row]]["storage_bytes"], row


@pytest.mark.parametrize("bits", slow_except([None, 8], 8))
@pytest.mark.parametrize("row", slow_except(["SAL + BC", "SAL + BWN"], "SAL + BWN"))
def test_shift_layers_of_signs(row: str, bits: int | None, tmp_path: Path) -> None:
    """One tap per input channel, of -1 and 1 or of a scale per filter: a ninth of the products, in two bits each."""
    make = FORMATS["BinaryConnect (BC)" if row == "SAL + BC" else "binary weight network (BWN)"][0]
    executable = check(Layers(make, [one_tap], bits, seed=len(row)), "module", tmp_path, bits is not None)
    (layer,) = (r for r in executable.report["layers"] if r["name"] == "conv.0" and r["macs"])
    assert layer["facts"]["recognized"].startswith("ternary"), "signs, and zeros at the other taps"
    assert layer["macs"] == 9 * layer["nonzero_macs"] == 9 * 8 * 16 * 36, "8 filters of 16 taps at 36 places"


CODINGS = {
    "run-length coding (Eyeriss)": Encoding("run-length", {"run_bits": 5}),
    "zero-flag coding": Encoding("bitmap"),
    "entropy coding, Huffman": Encoding("dense", {}, "huffman"),
    "entropy coding, arithmetic (rANS)": Encoding("dense", {}, "rans"),
    "EIE: column-wise, 4-bit relative index": Encoding("csc", {"index_bits": 4, "relative": True}),
    "CSC (Dorrance 2014)": Encoding("csc", {"index_bits": 8, "relative": False}),
    "CSR": Encoding("csr", {"index_bits": 8, "relative": False}),
}


@pytest.mark.parametrize("row", CODINGS)
@pytest.mark.parametrize("bits", [4, 8])
def test_coding(row: str, bits: int) -> None:
    """The streams give the tensor back; four of five elements are zero, so each is smaller than the dense tensor."""
    rng = np.random.default_rng(bits)
    stored = rng.integers(1 - (1 << (bits - 1)), 1 << (bits - 1), (64, 128)).astype(np.int8)
    stored[rng.random(stored.shape) < 0.8] = 0
    with create_context(), ir.Location.unknown():
        kind = ir.RankedTensorType.get(stored.shape, element_types.affine_type(0.5, bits=bits), make_encoding(CODINGS[row]))
        streams = storage.pack(stored, kind)
        assert np.array_equal(storage.unpack(streams, kind), stored)
        wide_index = not CODINGS[row].parameters.get("relative", True)
        assert storage.size_bytes(streams) < stored.size * bits / 8 * (1.1 if wide_index else 0.75)


# row -> (its name in an accelerator's trace, a device that has it and whose words suit it)
ACTIVATION_CODINGS = {
    "run-length coding of activations (Eyeriss)": ("run_lengths", "ecp5-85k,word_bits=128,activation_codings=3"),
    "zero-flag coding of activations (Moons 2016)": ("flags", "ecp5-85k,activation_codings=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ACTIVATION_CODINGS)
def test_coding_of_activations_between_layers(row: str) -> None:
    """The same outputs from less than half of the bytes, of the tensors for which the coding was chosen."""
    coding, device = ACTIVATION_CODINGS[row]
    file = Path(__file__).parents[2] / "examples" / "digits_cnn.mlir"
    images = np.load(file.with_name("digits.npz"))["images"]
    devices = (device, f"{device},activation_codings=1")
    executable, raw = (qcc.compile(file, target=qcc.FpgaTarget(d), calibration=[images[1:9]]) for d in devices)
    image = images[:1]
    found, wanted = executable.simulate(image), raw.simulate(image)
    np.testing.assert_array_equal(found.outputs[0], wanted.outputs[0])
    moved, as_raw = found.trace.activations[coding]
    assert moved < as_raw / 2 and found.trace.dram_bytes == wanted.trace.dram_bytes - found.trace.saved_bytes
    reasons = [reason for layer in executable.report["layers"] for reason in report_advice.reasons(layer)]
    assert any(f"its output in DRAM: {coding}; words a pixel expected" in reason for reason in reasons)


class Factorised(nn.Module):
    """An SVD pair of linear layers, a Tucker-2 and a CP chain of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.svd = nn.Sequential(nn.Linear(64, 6, bias=False), nn.Linear(6, 24))
        self.tucker = nn.Sequential(nn.Conv2d(16, 4, 1, bias=False), nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.Conv2d(6, 12, 1))
        column, row = (nn.Conv2d(5, 5, k, padding=p, groups=5, bias=False) for k, p in (((3, 1), (1, 0)), ((1, 3), (0, 1))))
        self.cp = nn.Sequential(nn.Conv2d(16, 5, 1, bias=False), column, row, nn.Conv2d(5, 12, 1))

    def forward(self, rows: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        return self.svd(rows), self.tucker(image), self.cp(image)


@pytest.mark.slow
@pytest.mark.parametrize("road", ["module", "onnx"])
def test_factorisation_svd_tucker_cp(road: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    executable = check(Factorised(), road, tmp_path, exact=False)  # type: ignore[arg-type]
    products = [r for r in executable.report["layers"] if r["op"] in ("conv2d", "linear")]
    assert len(products) == 9, "the chains stay chains"


class MultipliedOut(nn.Module):
    """The same decompositions after a tool multiplied their factors: dense weights of a linear, a 1x1, a Tucker-2 3x3 and a separable
    layer (Jaderberg 2014), and one of full rank."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.full = nn.Linear(256, 192), nn.Linear(192, 64)
        self.one, self.tucker = nn.Conv2d(64, 96, 1), nn.Conv2d(96, 96, 3, padding=1)
        self.separable = nn.Conv2d(96, 64, 5, padding=2, stride=2)
        self.linear.weight.data = self.truncated(self.linear.weight.data, 12)
        self.one.weight.data = self.truncated(self.one.weight.data, 8)
        self.tucker.weight.data = torch.einsum("or,rshw,si->oihw", torch.randn(96, 10), torch.randn(10, 12, 3, 3), torch.randn(12, 96)) / 99
        self.separable.weight.data = torch.einsum("rih,orw->oihw", torch.randn(24, 96, 5), torch.randn(64, 24, 5)) / 99

    @staticmethod
    def truncated(weight: Tensor, rank: int) -> Tensor:
        u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        return ((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(weight.shape)

    def forward(self, rows: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        return self.full(torch.relu(self.linear(rows))), self.separable(torch.relu(self.tucker(torch.relu(self.one(image)))))


@pytest.mark.slow
@pytest.mark.parametrize("road", ["module", "onnx"])
def test_low_rank_is_recognised(road: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MultipliedOut().eval()
    example = torch.randn(3, 256), torch.randn(1, 64, 14, 14)
    source = model if road == "module" else tmp_path / "model.onnx"
    if road == "onnx":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, example, str(source), opset_version=19, dynamo=False)
    with torch.no_grad():
        expected = [y.numpy() for y in model(*example)]
    executables = {
        choice: qcc.compile(source, example_inputs=example if road == "module" else None, low_rank=choice, threads=1)
        for choice in ("auto", "off")
    }
    for executable in executables.values():
        for y, want in zip(executable(*(x.numpy() for x in example)), expected, strict=True):
            np.testing.assert_allclose(y, want, atol=FLOAT_BOUND * np.abs(want).max(), rtol=0)
    layers = {choice: [r for r in e.report["layers"] if r["op"] in ("conv2d", "linear")] for choice, e in executables.items()}
    assert [len(layers[choice]) for choice in ("off", "auto")] == [5, 10], "Tucker-2 is three layers, full rank is one"
    words = [r["facts"]["low_rank"] for r in layers["auto"] if "low_rank" in r["facts"]]
    ranks = ["rank 12 of 192", "rank above", "rank 8 of 64", "rank 1", "rank 24 of 320"]
    assert all(word.startswith(rank) for word, rank in zip(words, ranks, strict=True)), words
    assert "then rank 1" in words[3]
    weights, times = ({choice: sum(r[key] for r in rows) for choice, rows in layers.items()} for key in ("weights", "predicted_us"))
    assert weights["auto"] < weights["off"] / 3 and times["auto"] < times["off"] / 1.5


@pytest.mark.slow
@pytest.mark.parametrize("road", ["module", "pt2", "onnx"])
def test_masks_of_torch_prune_that_were_never_removed(road: str, tmp_path: Path) -> None:
    """torch.nn.utils.prune keeps weight_orig and weight_mask until `prune.remove`: their product is a constant, with its zeros."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 16)).eval()
    prune.l1_unstructured(model[0], "weight", 0.9)
    prune.ln_structured(model[2], "weight", 0.5, n=2, dim=0)
    example = (torch.randn(1, 256),)
    source: Any = model
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = model(*example).numpy()
        if road != "module":
            source = tmp_path / f"model.{road}"
        if road == "pt2":
            torch.export.save(torch.export.export(model, example, strict=False), source)
        elif road == "onnx":
            torch.onnx.export(model, example, str(source), opset_version=19, dynamo=False)
    executable = qcc.compile(source, example_inputs=example if road == "module" else None, threads=1)
    np.testing.assert_allclose(executable(example[0].numpy()), expected, atol=FLOAT_BOUND * np.abs(expected).max(), rtol=0)
    first, second, third = (row for row in executable.report["layers"] if row["macs"])
    assert 0.09 < first["density"] < 0.11 and first["nonzero_macs"] == round(first["macs"] * first["density"])
    assert second["output_shape"] == [1, 128] and third["weights"] == 128 * 16, "half of the channels are gone"
    assert "of 256 output channels" in " ".join(report_advice.reasons(second))


class LogActivations(nn.Module):
    """LogNet: 0 and 2^e of an activation, e from -6 to 0, in front of a convolution; two spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, rows: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        exponent = image.clamp(min=2.0**-30).log2().round()
        y = self.one(torch.exp2(exponent.clamp(max=0.0)) * (exponent >= -6).float())
        exponent = torch.round(torch.log2(torch.clamp(y, 2.0**-30, 1.0)))
        return y, self.two(2.0**exponent * (exponent > -7).float())


@pytest.mark.slow
def test_log2_activations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    executable = check(LogActivations(), "module", tmp_path, exact=False)  # type: ignore[arg-type]
    assert not any(row["generic"] for row in executable.report["layers"]), "logarithms, powers and comparisons are codelets"
