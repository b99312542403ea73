"""Random pruned networks give the same integers after `remove-zero-channels`, in both modes of rescaling, and do become smaller."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from qcc.compiler import pipeline
from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types, forms
from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, Stage, run_pipeline
from qcc.passes.values import shape_of
from qcc.runtime.reference import interpreter

CONTEXT = create_context()
SIZE = 5  # height and width of every image
SEEDS = 60


@dataclass
class Image:
    """A dequantized value [1, channels, SIZE, SIZE]."""

    name: str
    channels: int


class Network:
    """Text of a graph-form network of quantized layers, most of which have zero output or input channels."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.lines: list[str] = []
        self.count = 0
        self.input_kind = f"tensor<1x4x{SIZE}x{SIZE}x{self.element()}>"
        image = Image(self.emit(f'"qcc.dequantize"(%x) : ({self.input_kind})', self.real(4)), 4)
        for _ in range(int(self.rng.integers(2, 7))):
            image = self.layer(image)
        self.result, self.result_kind = self.classifier(image)

    def emit(self, text: str, kind: str) -> str:
        self.count += 1
        self.lines.append(f"%{self.count} = {text} -> {kind}")
        return f"%{self.count}"

    def real(self, channels: int) -> str:
        return f"tensor<1x{channels}x{SIZE}x{SIZE}xf32>"

    def element(self) -> str:
        bits, signed = int(self.rng.integers(3, 9)), bool(self.rng.integers(2))
        low = -(1 << (bits - 1)) if signed else 0
        zero = int(self.rng.choice([low, low + self.rng.integers(1 << bits)]))
        return f"!quant.uniform<{'i' if signed else 'u'}{bits}:f32, {2.0 ** -int(self.rng.integers(5))}:{zero}>"

    def quantized(self, name: str, channels: int) -> Image:
        """Often with an activation in front, which makes constants of biases."""
        if self.rng.random() < 0.7:
            top = self.rng.choice(["6.0", "0x7FF0000000000000 : f64"])
            name = self.emit(f'"qcc.clamp"({name}) {{min = 0.0, max = {top}}} : ({self.real(channels)})', self.real(channels))
        kind = f"tensor<1x{channels}x{SIZE}x{SIZE}x{self.element()}>"
        stored = self.emit(f'"qcc.quantize"({name}) : ({self.real(channels)})', kind)
        return Image(self.emit(f'"qcc.dequantize"({stored}) : ({kind})', self.real(channels)), channels)

    def weights(self, shape: list[int]) -> str:
        """A dequantized constant with zero channels; its name."""
        zero = int(self.rng.integers(-2, 3))
        values = self.rng.integers(-8, 8, shape)
        for axis in (0, 1):
            if self.rng.random() < 0.7:
                np.moveaxis(values, axis, 0)[self.rng.random(shape[axis]) < 0.6] = zero
        size = "x".join(map(str, shape))
        scales = ",".join(f"{2.0 ** -int(v)}:{zero}" for v in self.rng.integers(0, 4, shape[0]))
        element = self.rng.choice([f"!quant.uniform<i4:f32:0, {{{scales}}}>", f"!quant.uniform<i4:f32, 0.5:{zero}>"])
        constant = self.emit(f'"qcc.constant"() {{value = dense<{values.tolist()}> : tensor<{size}xi8>}} : ()', f"tensor<{size}x{element}>")
        return self.emit(f'"qcc.dequantize"({constant}) : (tensor<{size}x{element}>)', f"tensor<{size}xf32>")

    def conv(self, x: Image, outputs: int, kernel: int, padding: int, groups: int = 1) -> str:
        shape = [outputs, x.channels // groups, kernel, kernel]
        w, size = self.weights(shape), "x".join(map(str, shape))
        bias = self.rng.integers(-20, 20, outputs).astype(float) * self.rng.integers(2)  # half of the layers: zeros stay zeros
        b = self.emit(f'"qcc.constant"() {{value = dense<{bias.tolist()}> : tensor<{outputs}xf32>}} : ()', f"tensor<{outputs}xf32>")
        inside = SIZE + 2 * padding - kernel + 1
        attributes = f"strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, padding = array<i64: {str([padding] * 4)[1:-1]}>"
        y = self.emit(
            f'"qcc.conv2d"({x.name}, {w}, {b}) {{{attributes}, groups = {groups} : i64}} : '
            f"({self.real(x.channels)}, tensor<{size}xf32>, tensor<{outputs}xf32>)",
            f"tensor<1x{outputs}x{inside}x{inside}xf32>",
        )
        if inside != SIZE:  # keep all images of one size
            rest = SIZE - inside
            y = self.emit(
                f'"qcc.pad"({y}) {{low = array<i64: 0, 0, {rest}, 0>, high = array<i64: 0, 0, 0, {rest}>, value = 0.0}} : '
                f"(tensor<1x{outputs}x{inside}x{inside}xf32>)",
                self.real(outputs),
            )
        return y

    def layer(self, x: Image) -> Image:
        match self.rng.choice(["conv", "conv", "conv", "depthwise", "grouped", "residual", "residual", "concat", "pool", "scale"]):
            case "conv":
                return self.plain(x, int(self.rng.integers(4, 9)))
            case "depthwise":
                return self.quantized(self.conv(x, x.channels, 3, 1, x.channels), x.channels)
            case "grouped":
                even = self.plain(x, 6)
                return self.quantized(self.conv(even, 9, 3, 1, 3), 9)
            case "residual":
                branch = self.plain(self.plain(x, 6), x.channels)
                name = self.rng.choice(["add", "sub", "mul"])
                kinds = f"{self.real(x.channels)}, {self.real(x.channels)}"
                y = self.emit(f'"qcc.{name}"({branch.name}, {x.name}) : ({kinds})', self.real(x.channels))
                return self.quantized(y, x.channels)
            case "concat":
                other = self.plain(x, 5)
                channels = x.channels + 5
                y = self.emit(
                    f"tensor.concat dim(1) {x.name}, {other.name} : ({self.real(x.channels)}, {self.real(5)})", self.real(channels)
                )
                return self.plain(self.quantized(y, channels), 6)
            case "pool":
                window = "kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>"
                name, last = (("max", "dilations = array<i64: 1, 1>"), ("avg", "count_include_pad = true"))[int(self.rng.integers(2))]
                kind = self.real(x.channels)
                return self.quantized(self.emit(f'"qcc.{name}_pool2d"({x.name}) {{{window}, {last}}} : ({kind})', kind), x.channels)
            case _:  # what a normalisation that found no layer becomes
                values = (2.0 ** self.rng.integers(-2, 2, x.channels) * self.rng.integers(0, 2, x.channels)).reshape(1, -1, 1, 1)
                kind = f"tensor<1x{x.channels}x1x1xf32>"
                factor = self.emit(f'"qcc.constant"() {{value = dense<{values.tolist()}> : {kind}}} : ()', kind)
                y = self.emit(f'"qcc.mul"({x.name}, {factor}) : ({self.real(x.channels)}, {kind})', self.real(x.channels))
                return self.plain(self.quantized(y, x.channels), 5)

    def plain(self, x: Image, outputs: int) -> Image:
        kernel, padding = ((1, 0), (3, 1), (3, 0))[int(self.rng.integers(3))]
        return self.quantized(self.conv(x, outputs, kernel, padding), outputs)

    def classifier(self, x: Image) -> tuple[str, str]:
        flat = x.channels * SIZE * SIZE
        name = self.emit(f'"qcc.reshape"({x.name}) : ({self.real(x.channels)})', f"tensor<1x{flat}xf32>")
        w = self.weights([3, flat])
        y = self.emit(f'"qcc.linear"({name}, {w}) : (tensor<1x{flat}xf32>, tensor<3x{flat}xf32>)', "tensor<1x3xf32>")
        return y, "tensor<1x3xf32>"

    def text(self) -> str:
        body = "\n".join(self.lines)
        return f"func.func @main(%x: {self.input_kind}) -> {self.result_kind} {{\n{body}\nreturn {self.result} : {self.result_kind}\n}}"


def elements(module: ir.Module) -> int:
    """Elements of all products' results and weights together."""
    products = [op for op in walk(module) if op.name in ("qcc.conv2d", "qcc.linear")]
    return sum(int(np.prod(shape_of(op.results[0]))) + int(np.prod(shape_of(op.operands[1]))) for op in products)


def check(seed: int) -> float:
    """Compare the results before and after; the size of the network after by that before."""
    network = Network(seed)
    rng = np.random.default_rng(seed)
    module = parse_module(network.text(), CONTEXT)
    with CONTEXT, ir.Location.unknown():
        kind = next(walk(module, "qcc.dequantize")).operands[0].type
        affine = element_types.affine(kind)
        assert affine is not None
        inputs = [rng.integers(affine.qmin, affine.qmax + 1, kind.shape).astype(element_types.storage_dtype(kind)) for _ in range(2)]
        stages = next(stages for name, stages in pipeline.forms(CompileOptions()) if name == "integer")
        at = [s.name for s in stages].index("remove-zero-channels")
        fixed = seed % 2 == 1
        before = [replace(s, options="enabled=true") if fixed and s.name == "lower-requantize-to-fixed" else s for s in stages[:at]]
        run_pipeline(module, before)
        expected = [interpreter.run(module, [x]) for x in inputs]
        dense = elements(module)
        for later in ([Stage("remove-zero-channels", f"granule={1 + seed % 3}")], stages[at + 1 :]):
            run_pipeline(module, later, PassContext())
            forms.check("integer", module)
            for x, one in zip(inputs, expected, strict=True):
                for a, b in zip(one, interpreter.run(module, [x]), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"seed {seed}\n{module}")
        return elements(module) / dense


@pytest.mark.slow
def test_smaller_networks_give_the_same_integers() -> None:
    ratios = [check(seed) for seed in range(SEEDS)]
    assert max(ratios) <= 1
    assert np.median(ratios) < 0.7, "the networks are pruned, so most should lose channels"
