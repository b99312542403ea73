"""Whole segments through the accelerator's passes and the functional simulator, bit for bit against the reference.

Layers, formats and accelerator configurations are random; small buffers force every way of cutting a layer.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from qcc.compiler.emit import accelerator
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, parse_module
from qcc.passes.base import PassContext, parse_pipeline, run_pipeline
from qcc.runtime.fpga import cycle, functional
from qcc.runtime.fpga.encoder import decode_stream, encode_stream
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.reference import interpreter
from test.tiers import draws

SMALL = Configuration(
    rows=4, columns=2, word_bits=32, weight_lines=128, activation_words=256, residual_words=64, output_words=64, parameter_entries=64
)
TINY = Configuration(
    rows=2, columns=3, word_bits=32, weight_lines=24, activation_words=48, residual_words=32, output_words=32, parameter_entries=32
)
LARGE = Configuration()
FLAGS = dataclasses.replace(SMALL, activation_codings=2)
RUN_LENGTHS = dataclasses.replace(SMALL, activation_codings=3, word_bits=128, parameter_entries=128)  # few channels of a word: chosen often
CONFIGURATIONS = [SMALL, TINY, LARGE, FLAGS, RUN_LENGTHS]


def dense(array, element):
    return f"dense<{np.asarray(array).tolist()}> : tensor<{'x'.join(map(str, np.shape(array)))}x{element}>"


class Builder:
    """Text of a function `@main` with one quantized argument."""

    def __init__(self, rng, shape, bits, signed, zero):
        self.rng, self.lines, self.count = rng, [], 0
        self.argument = (self.quantized(bits, signed, zero), list(shape), bits, signed, zero)

    @staticmethod
    def quantized(bits, signed, zero):
        return f"!quant.uniform<{'i' if signed else 'u'}{bits}:f32, 0.5:{zero}>"

    def tensor(self, shape, element):
        return f"tensor<{'x'.join(map(str, shape))}x{element}>"

    def emit(self, op, operands, attributes, result):
        """Append an operation on (name, type) operands."""
        self.count += 1
        names, types = ", ".join(n for n, _ in operands), ", ".join(t for _, t in operands)
        self.lines.append(f"%{self.count} = {op}({names}) {{{attributes}}} : ({types}) -> {result}")
        return f"%{self.count}", result

    def constant(self, array, container, element):
        return self.emit('"qcc.constant"', [], f"value = {dense(array, container)}", self.tensor(np.shape(array), element))

    def fixed(self, entries, key="multiplier", least=1):
        multiplier = self.rng.integers(least, 1 << 12, entries)
        shift = self.rng.integers(8, 16, entries if key == "multiplier" else 1)
        rounding = self.rng.choice(["half_even", "half_away"])
        return f'mode = "fixed", {key} = {dense(multiplier, "i32")}, shift = {dense(shift, "i32")}, rounding = "{rounding}"'

    def clamp(self, kind):
        if self.rng.random() < 0.5:
            return ""
        return f", clamp = array<i64: {max(kind[4], kind[5][0])}, {kind[5][1]}>"

    def result_kind(self):
        bits, signed = int(self.rng.integers(1, 9)), bool(self.rng.integers(0, 2))
        low = -(1 << bits - 1) if signed else 0
        high = low + (1 << bits) - 1
        zero = int(self.rng.integers(low, high + 1))
        return self.quantized(bits, signed, zero), bits, signed, None, zero, (low, high)

    def weights(self, shape, per_channel):
        bits = int(self.rng.integers(1, 9))
        signed = bits > 1 and bool(self.rng.integers(0, 2))
        low = -(1 << bits - 1) if signed else 0
        values = self.rng.integers(low, low + (1 << bits), shape)
        if self.rng.random() < 0.3:
            values = np.where(self.rng.random(shape) < 0.7, max(low, 0), values)
        zero = f"0.25:{int(self.rng.integers(0, 2))}"
        element = f"!quant.uniform<{'i' if signed else 'u'}{bits}:f32, {zero}>"
        if self.rng.random() < 0.2:  # -1 and 1 only: one plane
            values, element = self.rng.integers(0, 2, shape) * 2 - 1, "!quant.uniform<i2:f32, 0.25>"
            return self.constant(values, "i8", element)
        return self.constant(values, "i8" if signed else "ui8", element)

    def requantize(self, acc, shape, axis, per_channel=True):
        kind = self.result_kind()
        entries = shape[axis] if per_channel and self.rng.random() < 0.7 else 1
        attributes = f"{self.fixed(entries)}, axis = {axis} : i64{self.clamp(kind)}"
        return (*self.emit('"qcc.requantize"', [acc], attributes, self.tensor(shape, kind[0])), shape, kind)

    def conv(self, x, shape, outputs, kernel, strides, dilations, padding, groups):
        w = self.weights([outputs, shape[1] // groups, *kernel], True)
        spatial = [(shape[2 + i] + padding[i] + padding[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
        result = [shape[0], outputs, *spatial]
        operands = [x, w]
        if self.rng.random() < 0.7:
            operands.append(self.constant(self.rng.integers(-500, 500, outputs), "i32", "i32"))
        text = ", ".join(
            f"{k} = array<i64: {', '.join(map(str, v))}>" for k, v in (("strides", strides), ("dilations", dilations), ("padding", padding))
        )
        acc = self.emit('"qcc.conv2d"', operands, f"{text}, groups = {groups} : i64", self.tensor(result, "i32"))
        return acc, result

    def linear(self, x, shape, outputs):
        w = self.weights([outputs, shape[-1]], True)
        result = [*shape[:-1], outputs]
        return self.emit('"qcc.linear"', [x, w], "", self.tensor(result, "i32")), result

    def text(self, result):
        kind = self.tensor(self.argument[1], self.argument[0])
        body = "\n  ".join([*self.lines, f"return {result[0]} : {result[1]}"])
        return f"func.func @main(%x: {kind}) -> {result[1]} {{\n  {body}\n}}\n"


def compiled(builder, result, configuration):
    """The function as the accelerator has it: what `emit` gives, its segment, an input, and what the reference makes of that."""
    text = builder.text(result)
    context = create_context()
    module, reference = parse_module(text, context), parse_module(text, context)
    options = " ".join(f"{k.replace('_', '-')}={v}" for k, v in configuration.to_dict().items())
    remarks = PassContext()
    run_pipeline(
        module,
        parse_pipeline(
            f"partition-accelerator,tile-for-accelerator{{{options}}},plan-accelerator-memory,select-instructions,schedule-tokens"
        ),
        remarks,
    )
    with context:
        emitted = accelerator.emit(module)
    assert len(emitted.segments) == 1 and not remarks.remarks, remarks.remarks
    segment = next(iter(emitted.segments.values()))
    _, shape, bits, signed, _ = builder.argument
    low = -(1 << bits - 1) if signed else 0
    x = builder.rng.integers(low, low + (1 << bits), shape).astype(np.int8 if signed else np.uint8)
    return emitted, segment, x, interpreter.run(reference, [x])[0]


def memory(rng, emitted, segment, x):
    """DRAM in front of a run, with garbage in the arena: a program may not depend on what lies there."""
    word = emitted.configuration.word_bytes
    image = np.frombuffer(emitted.weights, np.uint8).reshape(-1, word)
    dram = rng.integers(0, 256, (emitted.arena_bytes // word + len(image), word)).astype(np.uint8)
    dram[emitted.arena_bytes // word :] = image
    for port in segment.inputs:
        port.write(dram, x)
    return dram


def check(builder, result, configuration, seed):
    emitted, segment, x, wanted = compiled(builder, result, configuration)
    words = decode_stream(encode_stream(segment.words))
    tight = dataclasses.replace(emitted.configuration, queue_instructions=1, accumulator_tiles=1, token_limit=16)
    for order in ("stream", "tokens", "cycles"):
        dram = memory(builder.rng, emitted, segment, x)
        machine = Machine(tight if order == "cycles" else emitted.configuration, dram)
        if order == "stream":
            functional.run(machine, words)
        elif order == "cycles":  # the shortest queues that the hardware may have
            timing = cycle.run(machine, words)
            predicted = cycle.predict(tight, dram, words)
            if any(machine.coding(w) != "raw" for w in words if w.name in ("load_residual", "store")):  # moves at most so much
                assert timing.write_bytes <= predicted.write_bytes and timing.read_bytes <= predicted.read_bytes
            else:
                assert timing.cycles == predicted.cycles
        else:
            functional.run_in_token_order(machine, words, random.Random(seed))
        np.testing.assert_array_equal(segment.outputs[0].read(dram), wanted, err_msg=f"{order} order\n{builder.text(result)}")


FORMATS = st.tuples(st.integers(1, 8), st.booleans(), st.integers(0, 999))
SLOW = draws(15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def start(seed, shape, fmt):
    bits, signed, z = fmt
    low = -(1 << bits - 1) if signed else 0
    builder = Builder(np.random.default_rng(seed), shape, bits, signed, low + z % (1 << bits))
    return builder, ("%x", builder.tensor(shape, builder.argument[0]))


@SLOW
@given(
    seed=st.integers(0, 10**6),
    fmt=FORMATS,
    rows=st.integers(1, 7),
    inside=st.integers(1, 80),
    outputs=st.integers(1, 70),
    configuration=st.sampled_from(CONFIGURATIONS),
    raw=st.booleans(),
)
def test_linear(seed, fmt, rows, inside, outputs, configuration, raw):
    builder, x = start(seed, [rows, inside], fmt)
    acc, shape = builder.linear(x, [rows, inside], outputs)
    result = acc if raw else builder.requantize(acc, shape, 1)
    check(builder, result, configuration, seed)


@SLOW
@given(seed=st.integers(0, 10**6), fmt=FORMATS, data=st.data(), configuration=st.sampled_from(CONFIGURATIONS))
def test_convolution_of_any_window_and_grouping(seed, fmt, data, configuration):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    channels, outputs = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 5))
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    dilations, strides = [draw(st.integers(1, 2)) for _ in range(2)], [draw(st.integers(1, 2)) for _ in range(2)]
    padding = [draw(st.integers(0, 2)) for _ in range(4)]
    size = [draw(st.integers(max(1, dilations[i] * (kernel[i] - 1) + 1 - padding[i] - padding[i + 2]), 8)) for i in (0, 1)]
    shape = [draw(st.integers(1, 2)), channels, *size]
    builder, x = start(seed, shape, fmt)
    acc, result = builder.conv(x, shape, outputs, kernel, strides, dilations, padding, groups)
    check(builder, builder.requantize(acc, result, 1), configuration, seed)


@SLOW
@given(
    seed=st.integers(0, 10**6),
    fmt=FORMATS,
    channels=st.integers(1, 40),
    configuration=st.sampled_from([SMALL, LARGE, FLAGS, RUN_LENGTHS]),
    kind=st.sampled_from(["add", "sub"]),
    stranger=st.booleans(),
)
def test_residual_sums(seed, fmt, channels, configuration, kind, stranger):
    """Sums behind a layer, of two layers, and of a layer and the segment's own input."""
    shape = [1, channels, 3, 4]
    builder, x = start(seed, shape, fmt)
    acc, result = builder.conv(x, shape, channels, [1, 1], [1, 1], [1, 1], [0] * 4, 1)
    a = builder.requantize(acc, result, 1)
    other = (*x, shape, None)
    if not stranger:
        acc, result = builder.conv(a[:2], shape, channels, [3, 3], [1, 1], [1, 1], [1] * 4, 1)
        other = builder.requantize(acc, result, 1)
    operands = [a[:2], other[:2]] if builder.rng.random() < 0.5 else [other[:2], a[:2]]
    out = builder.result_kind()
    total = builder.emit(f'"qcc.{kind}"', operands, builder.fixed(2, "multipliers") + builder.clamp(out), builder.tensor(shape, out[0]))
    again = builder.emit(f'"qcc.{kind}"', [total, operands[0]], builder.fixed(2, "multipliers"), builder.tensor(shape, out[0]))
    check(builder, again, configuration, seed)


@SLOW
@example(seed=0, fmt=(4, False, 0), channels=27, configuration=SMALL, behind=True)  # two roundings, and a tie
@given(
    seed=st.integers(0, 10**6),
    fmt=FORMATS,
    channels=st.integers(1, 40),
    configuration=st.sampled_from(CONFIGURATIONS),
    behind=st.booleans(),
)
def test_sums_with_a_constant_per_channel(seed, fmt, channels, configuration, behind):
    shape = [2, 3, channels]
    builder, x = start(seed, shape, fmt)
    value = x
    if behind:
        acc, result = builder.linear(x, shape, channels)
        value = builder.requantize(acc, result, 2)[:2]
    constant = builder.constant(builder.rng.integers(-100, 100, [channels]), "i8", "!quant.uniform<i8:f32, 0.5:3>")
    operands = [value, constant] if builder.rng.random() < 0.5 else [constant, value]
    kind, out = builder.rng.choice(["add", "sub"]), builder.result_kind()
    y = builder.emit(f'"qcc.{kind}"', operands, builder.fixed(2, "multipliers") + builder.clamp(out), builder.tensor(shape, out[0]))
    check(builder, y, configuration, seed)


@SLOW
@given(
    seed=st.integers(0, 10**6),
    fmt=FORMATS,
    channels=st.integers(1, 40),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    kind=st.sampled_from(["max", "avg"]),
    configuration=st.sampled_from(CONFIGURATIONS),
)
def test_pooling(seed, fmt, channels, kernel, stride, pad, kind, configuration):
    shape = [2, channels, 5, 6]
    pad = min(pad, kernel // 2)
    spatial = [(n + 2 * pad - kernel) // stride + 1 for n in shape[2:]]
    too_large = kind == "max" and kernel * kernel * fmt[0] > configuration.activation_words
    builder, x = start(seed, shape, fmt)
    pairs = {"kernel": [kernel] * 2, "strides": [stride] * 2, "padding": [pad] * 4}
    window = ", ".join(f"{k} = array<i64: {', '.join(map(str, v))}>" for k, v in pairs.items())
    result = shape[:2] + spatial
    if kind == "max":
        y = builder.emit('"qcc.max_pool2d"', [x], window + ", dilations = array<i64: 1, 1>", builder.tensor(result, builder.argument[0]))
    else:
        out = builder.result_kind()
        y = builder.emit(
            '"qcc.avg_pool2d"',
            [x],
            f"{window}, count_include_pad = true, {builder.fixed(1, 'multipliers')}{builder.clamp(out)}",
            builder.tensor(result, out[0]),
        )
    if too_large:
        with pytest.raises(QccError, match=rf"pooling {kernel * kernel} taps of {fmt[0]} planes needs \d+ activation words"):
            check(builder, y, configuration, seed)
    else:
        check(builder, y, configuration, seed)


@SLOW
@given(
    seed=st.integers(0, 10**6),
    fmt=FORMATS,
    first=st.integers(1, 40),
    second=st.integers(1, 40),
    nested=st.booleans(),
    configuration=st.sampled_from([SMALL, LARGE]),
)
def test_concatenation_is_placement(seed, fmt, first, second, nested, configuration):
    """Parts made by layers, the segment's input, and a concatenation inside another, read by a layer behind."""
    shape = [1, 5, 3, 3]
    builder, x = start(seed, shape, fmt)
    element = builder.argument[0]
    parts = []
    for outputs in (first, second):
        acc, result = builder.conv(x, shape, outputs, [1, 1], [1, 1], [1, 1], [0] * 4, 1)
        made = builder.emit('"qcc.requantize"', [acc], builder.fixed(1) + ", axis = 1 : i64", builder.tensor(result, element))
        parts.append((*made, result))

    def concat(values):
        channels = sum(v[2][1] for v in values)
        return (
            *builder.emit('"tensor.concat"', [v[:2] for v in values], "dim = 1 : i64", builder.tensor([1, channels, 3, 3], element)),
            [1, channels, 3, 3],
        )

    whole = concat([parts[0], (*x, shape), parts[1]])
    if nested:
        whole = concat([parts[1], whole, whole])
    acc, result = builder.conv(whole[:2], whole[2], 6, [2, 2], [1, 1], [1, 1], [1, 0, 0, 1], 1)
    y = builder.requantize(acc, result, 1)
    check(builder, y, configuration, seed)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_flatten_and_token_views(configuration, seed):
    """A flattened image feeds a linear layer; [n, c, h, w] to [n, h w, c] is a view."""
    shape = [2, 3, 4, 4]
    builder, x = start(seed, shape, (4, True, 3))
    acc, result = builder.conv(x, shape, 7, [2, 2], [2, 2], [1, 1], [0] * 4, 1)
    a = builder.requantize(acc, result, 1)
    element = a[1].split("x", 4)[4][:-1]
    if seed % 2:
        flat = builder.emit('"qcc.reshape"', [a[:2]], "", builder.tensor([2, 28], element))
        acc, result = builder.linear(flat, [2, 28], 9)
        y = builder.requantize(acc, result, 1)
    else:
        tokens = builder.emit('"qcc.reshape"', [a[:2]], "", builder.tensor([2, 7, 4], element))
        moved = builder.emit('"qcc.transpose"', [tokens], "permutation = array<i64: 0, 2, 1>", builder.tensor([2, 4, 7], element))
        acc, result = builder.linear(moved, [2, 4, 7], 9)
        y = builder.requantize(acc, result, 2)
    check(builder, y, configuration, seed)
