"""What the parts of the accelerator say to each other.

Memory does what it is asked in the order in which it accepted the requests, so a read behind a write sees it; answers to reads come in
that order too, whenever they are ready, and cannot be refused.

Units get their instructions from a sequencer that has seen to the tokens. A unit pulses `done` once per instruction it took, in order,
when all that the instruction does can be seen by the others. Buffers answer a read `READ_LATENCY` cycles after its address.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from qcc.dialects.accelerator import Configuration
from qcc.dialects.bitplanes import INDEX_BITS, LAST_BITS, PLANE_BITS
from qcc.runtime.fpga.isa import ACCUMULATOR_BITS, BY_NAME, INSTRUCTION_BYTES, MASK_BITS, OPCODE_BITS

ADDRESS_BITS = 32  # of words in DRAM
BUFFER_BITS = 16  # of addresses in buffers
INSTRUCTION_BITS = 8 * INSTRUCTION_BYTES
READ_LATENCY = 2  # a block RAM and its output register

TAG = data.StructLayout({"plane": PLANE_BITS, "index": INDEX_BITS, "last": LAST_BITS})
"""What the weight buffer holds beside a line."""
PARAMETER = data.StructLayout({"bias": signed(32), "multiplier": signed(32), "shift": 6})
"""Of one output channel."""


def instruction(name: str) -> data.StructLayout:
    """The 128 bits of instruction `name`; its fields are where the table (isa.py) has them."""
    row = BY_NAME[name]
    fields = {f.name: signed(f.bits) if f.signed else unsigned(f.bits) for f in row.fields}
    return data.StructLayout(
        {"opcode": OPCODE_BITS, "wait": MASK_BITS, "signal": MASK_BITS, **fields, "rest": INSTRUCTION_BITS - row.used_bits}
    )


def memory(word_bits: int) -> wiring.Signature:
    """The accelerator's side of its memory."""
    request = data.StructLayout({"address": ADDRESS_BITS, "write": 1, "data": word_bits})
    return wiring.Signature({"request": Out(stream.Signature(request)), "answer": In(stream.Signature(word_bits, always_ready=True))})


def reader(word_bits: int) -> wiring.Signature:
    """The side of a part that reads memory: addresses out, words in."""
    return wiring.Signature({"request": Out(stream.Signature(ADDRESS_BITS)), "answer": In(stream.Signature(word_bits, always_ready=True))})


def writer(word_bits: int) -> stream.Signature:
    """The side of a part that writes memory."""
    return stream.Signature(data.StructLayout({"address": ADDRESS_BITS, "data": word_bits}))


def unit() -> dict[str, wiring.Member]:
    """What every unit has: instructions in (`instruction` says how to look at them), an end each out."""
    return {"instructions": In(stream.Signature(INSTRUCTION_BITS)), "done": Out(1)}


def bank_write(c: Configuration) -> wiring.Signature:
    """A word into one bank of the activation or residual buffer."""
    return wiring.Signature({"enable": Out(1), "bank": Out(range(c.columns)), "address": Out(BUFFER_BITS), "data": Out(c.word_bits)})


def bank_read(c: Configuration) -> wiring.Signature:
    """One address of every bank of a buffer."""
    return wiring.Signature({"address": Out(BUFFER_BITS), "data": In(data.ArrayLayout(c.word_bits, c.columns))})


def line_write(c: Configuration) -> wiring.Signature:
    """A word into row `row` of a line of the weight buffer; `tag` is written with the last row."""
    members = {"enable": Out(1), "row": Out(range(c.rows)), "address": Out(BUFFER_BITS), "data": Out(c.word_bits), "tag": Out(TAG)}
    return wiring.Signature(members)


def line_read(c: Configuration) -> wiring.Signature:
    """The words of a line of the weight buffer."""
    return wiring.Signature({"address": Out(BUFFER_BITS), "data": In(data.ArrayLayout(c.word_bits, c.rows))})


def tag_read() -> wiring.Signature:
    """The tag of a line; what is on its way waits while `enable` is off."""
    return wiring.Signature({"address": Out(BUFFER_BITS), "enable": Out(1), "data": In(TAG)})


def banks_write(c: Configuration) -> wiring.Signature:
    """A word into each bank of the output buffer."""
    return wiring.Signature({"enable": Out(1), "address": Out(BUFFER_BITS), "data": Out(data.ArrayLayout(c.word_bits, c.columns))})


def parameter_write() -> wiring.Signature:
    """An entry into the parameter buffer."""
    return wiring.Signature({"enable": Out(1), "address": Out(BUFFER_BITS), "data": Out(PARAMETER)})


def parameter_read() -> wiring.Signature:
    """An entry of the parameter buffer."""
    return wiring.Signature({"address": Out(BUFFER_BITS), "data": In(PARAMETER)})


def tile(c: Configuration, bits: int = ACCUMULATOR_BITS) -> data.ArrayLayout:
    """R x C numbers: the accumulators of the units, or what belongs to each."""
    return data.ArrayLayout(data.ArrayLayout(signed(bits), c.columns), c.rows)


def steps(c: Configuration) -> int:
    """Steps of a tile in the post unit, which takes `post_lanes` numbers at a time."""
    return c.rows * c.columns // c.post_lanes


def lanes_of(c: Configuration, tile: Any, step: int) -> list[Any]:
    """The numbers of step `step` of a tile, row by row."""
    places = range(step * c.post_lanes, (step + 1) * c.post_lanes)
    return [tile[place // c.columns][place % c.columns] for place in places]


def place_of(c: Configuration, channel: Value) -> tuple[Value, Value]:
    """In which word of a plane an output channel is, and in which R bits of it."""
    bits = exact_log2(c.word_bits)
    return channel >> bits, channel[:bits] // c.rows
