"""The instruction table and what derives from it: encoder, decoder, disassembler, reference page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.errors import QccError
from qcc.runtime.fpga.disassembler import disassemble
from qcc.runtime.fpga.encoder import Word, decode, decode_stream, encode, encode_stream
from qcc.runtime.fpga.isa import BY_OPCODE, INSTRUCTION_BYTES, INSTRUCTIONS, OPCODE_BITS, UNITS
from qcc.runtime.fpga.isa_page import markdown
from test.tiers import draws


@st.composite
def words(draw):
    row = draw(st.sampled_from(INSTRUCTIONS))
    others = [1 << i for i, unit in enumerate(UNITS) if unit != row.unit]
    masks = [sum(draw(st.lists(st.sampled_from(others), unique=True))) for _ in range(2)]
    return Word(row.name, {f.name: draw(st.integers(f.least, f.greatest)) for f in row.fields}, *masks)


def test_the_table_fits_its_words():
    assert len(BY_OPCODE) == len(INSTRUCTIONS)
    for row in INSTRUCTIONS:
        assert row.used_bits <= INSTRUCTION_BYTES * 8 and 0 < row.opcode < 1 << OPCODE_BITS and row.unit in UNITS
        assert len({f.name for f in row.fields}) == len(row.fields)


@draws(100)
@given(words())
def test_encode_and_decode_are_inverse(word):
    assert decode(encode(word)) == word


@draws(100)
@given(words(), st.data())
def test_an_operand_one_past_its_range_is_refused(word, data):
    if not word.row.fields:
        return
    field = data.draw(st.sampled_from(word.row.fields))
    value = data.draw(st.sampled_from([field.least - 1, field.greatest + 1]))
    with pytest.raises(QccError, match=rf"operand '{field.name}' is {value}, expected"):
        encode(Word(word.name, {**word.fields, field.name: value}))


@draws(100)
@given(st.binary(min_size=INSTRUCTION_BYTES, max_size=INSTRUCTION_BYTES))
def test_any_16_bytes_decode_to_themselves_or_to_an_error(data):
    try:
        word = decode(data)
    except QccError:
        return
    assert encode(word) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\0" * 17, "has 17 bytes"),
        (b"\0" * 16, "damaged at instruction 0: unknown opcode 0"),
        (encode(Word("finish")) * 2, "does not end with its only 'finish'"),
    ],
)
def test_a_damaged_stream_is_an_error(data, message):
    with pytest.raises(QccError, match=message):
        decode_stream(data)


def test_a_unit_cannot_wait_for_itself():
    with pytest.raises(QccError, match="wait mask is 0x8, expected other units than store only"):
        encode(Word("finish", wait=1 << UNITS.index("store")))


def test_disassembly_names_operands_and_tokens():
    stream = encode_stream(
        [
            Word("load_weights", {"address": 7, "line": 0, "tiles": 1, "words": 9, "planes": 2, "coding": 1, "size_words": 40}, signal=2),
            Word("finish"),
        ]
    )
    assert disassemble(stream) == (
        "     0  load    load_weights         address=7 line=0 tiles=1 words=9 planes=2 coding=runs size_words=40 signal=execute\n"
        "     1  store   finish\n"
    )


def test_the_reference_page_lists_every_operand():
    page = markdown()
    for row in INSTRUCTIONS:
        assert f"## {row.name}\n" in page
        assert all(f"`{f.name}`" in page for f in row.fields)
