"""Hand-made programs on the functional simulator against plain integer arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects import bitplanes
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga import functional
from qcc.runtime.fpga.encoder import Word, decode_stream, encode_stream
from qcc.runtime.fpga.machine import Machine, shift_right
from test.tiers import draws

C = Configuration(rows=4, columns=2, word_bits=32, weight_lines=256, activation_words=256, residual_words=64, output_words=128)


def integers(rng, shape, bits, signed):
    low = -(1 << bits - 1) if signed else 0
    return rng.integers(low, low + (1 << bits), shape)


def parameter_bytes(bias, multiplier, shift):
    return np.stack([bias, multiplier, shift, 0 * shift], axis=1).astype("<i4").tobytes()


class Image:
    """DRAM contents: pieces behind each other, then `free` words."""

    def __init__(self, configuration):
        self.word_bytes, self.data = configuration.word_bytes, b""

    def add(self, data):
        address = len(self.data) // self.word_bytes
        raw = bytes(data) if isinstance(data, bytes) else data.tobytes()
        self.data += raw + b"\0" * (-len(raw) % self.word_bytes)
        return address

    def dram(self, free):
        return np.frombuffer(self.data + b"\0" * (free * self.word_bytes), np.uint8).reshape(-1, self.word_bytes).copy()


def mode_words(a_bits, a_signed, w_bits, w_signed, bipolar, vector, bits, low, high, channels, zero=0, rounding=1, residual=None):
    off = {"enable": 0, "planes": 0, "signed": 0, "zero_point": 0, "low": 0, "high": 0, "residual_words": 0}
    return [
        Word(
            "execute_mode",
            {
                "planes": a_bits,
                "signed": int(a_signed),
                "weight_planes": w_bits,
                "weight_signed": int(w_signed),
                "bipolar": int(bipolar),
                "vector_words": vector,
            },
        ),
        Word("post_requantize", {"zero_point": zero, "low": low, "high": high, "bits": bits, "rounding": rounding, "channels": channels}),
        Word("post_residual", residual or off),
    ]


def linear_program(rng, n, k, out, a_bits, a_signed, w_bits, w_signed, *, bipolar=False, coding=1, density=1.0):
    """x [n, k] times w [out, k] to 32-bit accumulators; returns (program, machine, expected, where the result lies)."""
    x = integers(rng, (n, k), a_bits, a_signed)
    if bipolar:
        w = rng.integers(0, 2, (out, k)) * 2 - 1
        stored, w_bits, w_signed, coding = (w + 1) // 2, 1, False, 0
    else:
        w = integers(rng, (out, k), w_bits, w_signed) * (rng.random((out, k)) < density)
        stored = w
    words = bitplanes.words_for(k, C.word_bits)
    padded = np.zeros((out, words * C.word_bits), np.int64)
    padded[:, :k] = stored
    lines = bitplanes.weight_lines(padded, w_bits, C.rows, C.word_bits)
    coded = bitplanes.code_runs(lines) if coding else bitplanes.code_raw(lines)
    tiles = lines.shape[0]
    bias = rng.integers(-100, 100, tiles * C.rows)
    image = Image(C)
    at_x, at_w = image.add(bitplanes.pack(x, a_bits, C.word_bits)), image.add(coded)
    at_p = image.add(parameter_bytes(bias, 0 * bias + 1, 0 * bias))
    out_run = bitplanes.words_for(out, C.word_bits) * 32
    at_y = len(image.data) // C.word_bytes
    groups, vector = -(-n // C.columns), words * a_bits
    program = [
        Word(
            "load_geometry",
            {"height": 1, "width": n, "kernel_y": 1, "kernel_x": 1, "dilation_y": 1, "dilation_x": 1, "stride_x": 1, "run_words": vector},
        ),
        Word("load_layout", {"padding": 0, "pixel_words": vector, "row_words": 0, "vector_words": vector, "coding": 0}),
        Word("load_activations", {"address": at_x, "activation": 0, "first": 0, "count": n, "y": 0, "x": 0}),
        Word(
            "load_weights",
            {
                "address": at_w,
                "line": 0,
                "tiles": tiles,
                "words": words,
                "planes": w_bits,
                "coding": coding,
                "size_words": -(-len(coded) // C.word_bytes),
            },
        ),
        Word("load_parameters", {"address": at_p, "parameter": 0, "count": tiles * C.rows}, signal=0b110),
        *mode_words(a_bits, a_signed, w_bits, w_signed, bipolar, vector, 32, -(1 << 31), (1 << 31) - 1, out),
        Word("execute", {"line": 0, "activation": 0, "tiles": tiles, "groups": groups, "accumulate": 0, "emit": 1}, wait=1),
        Word(
            "post",
            {
                "tiles": tiles,
                "groups": groups,
                "window": 1,
                "parameter": 0,
                "channel": 0,
                "output": 0,
                "output_words": out_run,
                "residual": 0,
            },
            wait=1,
            signal=0b1000,
        ),
        Word(
            "store",
            {"address": at_y, "output": 0, "count": n, "run_words": out_run, "pixel_words": out_run, "output_words": out_run, "coding": 0},
            wait=4,
        ),
        Word("finish"),
    ]
    expected = x @ w.T + bias[:out]
    return program, Machine(C, image.dram(n * out_run)), expected, (at_y, n, out_run)


def result(machine, place, channels, planes=32, signed=True):
    address, n, run = place
    words = machine.dram[address : address + n * run].reshape(n, run // planes, planes, -1)
    return bitplanes.unpack(words, signed)[:, :channels]


@draws(40)
@given(
    n=st.integers(1, 5),
    k=st.integers(1, 70),
    out=st.integers(1, 9),
    a_bits=st.integers(1, 8),
    a_signed=st.booleans(),
    w_bits=st.integers(1, 8),
    w_signed=st.booleans(),
    coding=st.integers(0, 1),
    density=st.sampled_from([0.0, 0.05, 1.0]),
    seed=st.integers(0, 999),
)
def test_every_precision_and_sign_gives_the_integer_product(n, k, out, a_bits, a_signed, w_bits, w_signed, coding, density, seed):
    program, machine, expected, place = linear_program(
        np.random.default_rng(seed), n, k, out, a_bits, a_signed, w_bits, w_signed, coding=coding, density=density
    )
    functional.run(machine, decode_stream(encode_stream(program)))
    np.testing.assert_array_equal(result(machine, place, expected.shape[1]), expected)


@draws(20)
@given(
    n=st.integers(1, 5),
    k=st.integers(1, 70),
    out=st.integers(1, 9),
    a_bits=st.integers(1, 8),
    a_signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_bipolar_weights_take_one_plane(n, k, out, a_bits, a_signed, seed):
    program, machine, expected, place = linear_program(np.random.default_rng(seed), n, k, out, a_bits, a_signed, 1, False, bipolar=True)
    functional.run(machine, program)
    np.testing.assert_array_equal(result(machine, place, expected.shape[1]), expected)


def test_execute_equals_and_popcount_shift_accumulate():
    """The matrix product in the simulator against the definition of the hardware, bit by bit."""
    program, machine, _, _ = linear_program(np.random.default_rng(3), 4, 60, 6, 3, True, 4, True, density=0.3)
    at = [w.name for w in program].index("execute")
    functional.run(machine, program[: at + 1])
    line, first, planes = 0, 0, 3
    found = machine.pending[0].values.reshape(2, 2, C.rows, C.columns)  # [groups, tiles, R, C]
    for tile in range(2):
        total = np.zeros((2, C.rows, C.columns), np.int64)
        while True:
            weight_plane, index = machine.line_plane[line], machine.line_index[line]
            for a in range(planes):
                sign = (-1) ** (int(weight_plane == 3) + int(a == planes - 1))
                for group in range(2):
                    word = machine.activations[:, first + group * 6 + index * planes + a]  # [C, K/8]
                    count = np.bitwise_count(machine.lines[line][:, None] & word[None]).sum(axis=-1).astype(np.int64)
                    total[group] += sign * (count << (weight_plane + a))
            line += 1
            if machine.line_last[line - 1]:
                break
        np.testing.assert_array_equal(found[:, tile], total)


def test_units_may_run_in_any_order_the_tokens_allow():
    import random

    for seed in range(5):
        program, machine, expected, place = linear_program(np.random.default_rng(seed), 3, 40, 5, 4, False, 2, True)
        functional.run_in_token_order(machine, program, random.Random(seed))
        np.testing.assert_array_equal(result(machine, place, expected.shape[1]), expected)


def test_a_token_that_no_one_sends_is_a_deadlock():
    import random

    program, machine, _, _ = linear_program(np.random.default_rng(0), 3, 40, 5, 4, False, 2, True)
    program = [Word(w.name, w.fields, w.wait, 0) if w.name == "load_parameters" else w for w in program]
    with pytest.raises(QccError, match="deadlocked: execute before execute, post before post, store before store"):
        functional.run_in_token_order(machine, program, random.Random(0))


@pytest.mark.parametrize("rounding", ["half_away", "half_even"])
def test_shift_right_rounds_ties_as_stated(rounding):
    values = np.arange(-21, 22)
    exact = values / 4
    even = np.rint(exact)
    away = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    np.testing.assert_array_equal(shift_right(values, 2, rounding), even if rounding == "half_even" else away)
    np.testing.assert_array_equal(shift_right(values, 0, rounding), values)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("load_activations", "address", 10**6, "the program reaches DRAM words"),
        ("load_weights", "address", 10**6, "the program reaches DRAM word"),
        ("load_weights", "tiles", 7, "expected 7"),
        ("execute", "tiles", 4000, "the buffer holds"),
        ("execute", "groups", 4000, "of the activation buffer, which has 256"),
        ("post", "groups", 2, "accumulator tiles, execute emitted"),
        ("post", "window", 2, "expected a multiple of the window"),
        ("post", "output", 120, "of the output buffer, which has 128"),
        ("store", "address", 10**6, "the program reaches DRAM words"),
    ],
)
def test_leaving_a_buffer_is_an_error(name, field, value, message):
    program, machine, _, _ = linear_program(np.random.default_rng(0), 1, 40, 9, 4, False, 2, True)
    program = [Word(w.name, {**w.fields, field: value}) if w.name == name else w for w in program]
    with pytest.raises(QccError, match=message):
        functional.run(machine, program)
