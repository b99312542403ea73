"""Random and damaged instruction streams: an error or an end, never a crash or a hang."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga import cycle, functional
from qcc.runtime.fpga.encoder import Word, decode_stream, encode_stream
from qcc.runtime.fpga.isa import INSTRUCTIONS, UNITS
from qcc.runtime.fpga.machine import Machine
from test.tiers import draws

C = Configuration(
    rows=2,
    columns=2,
    word_bits=32,
    weight_lines=16,
    activation_words=32,
    residual_words=16,
    output_words=16,
    parameter_entries=16,
    activation_codings=3,
)


@st.composite
def instruction(draw):
    row = draw(st.sampled_from([i for i in INSTRUCTIONS if i.name != "finish"]))
    small = st.integers(0, 5)
    fields = {}
    for f in row.fields:
        value = draw(st.one_of(small, small, small, st.integers(f.least, f.greatest)))
        fields[f.name] = min(value, f.greatest)
    others = [1 << i for i, unit in enumerate(UNITS) if unit != row.unit]
    wait, signal = (sum(draw(st.lists(st.sampled_from(others), unique=True, max_size=1))) for _ in range(2))
    return Word(row.name, fields, wait, signal)


@draws(200)
@given(words=st.lists(instruction(), max_size=24), seed=st.integers(0, 99))
def test_random_programs_end_or_fail_cleanly(words, seed):
    words = decode_stream(encode_stream([*words, Word("finish")]))
    for simulate in (functional.run, cycle.run):
        dram = np.random.default_rng(seed).integers(0, 256, (64, 4)).astype(np.uint8)
        try:
            simulate(Machine(C, dram), words)
        except QccError as error:
            assert str(error)


@draws(200)
@given(data=st.binary(max_size=160))
def test_random_bytes_are_a_program_or_an_error(data):
    try:
        words = decode_stream(data)
    except QccError:
        return
    assert encode_stream(words) == data
