"""The accelerator's instruction set: one table, from which everything else derives.

Encoder, disassembler, the qisa dialect, the simulators, the RTL decoder and the reference page (`python -m
qcc.runtime.fpga.isa_page`) read
`INSTRUCTIONS`; nothing repeats a field's place or width. `compiler/decisions/0003-accelerator-isa.md` says why it is like this.

An instruction has 128 bits: opcode, the two token masks, then its fields from the least significant bit upward; the
rest is zero. Every
address counts *words* of K bits (`word_bits` of the configuration), in DRAM as on chip.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION_BYTES = 16
OPCODE_BITS = 5

# Bit u of the masks `wait` and `signal` stands for unit u. An instruction starts when it could take one token from the
# queue of every unit in `wait` (queue "from u to mine"), and when it is done it puts one token into the queue "from mine
# to u" of every unit in `signal`.
UNITS = ("load", "execute", "post", "store")
MASK_BITS = len(UNITS)

ACCUMULATOR_BITS = 32
PARAMETER_BYTES = 16  # one output channel: bias i32, multiplier i32, shift u32 (0..62), 4 bytes of zero
MAX_ACTIVATION_PLANES = 16
MAX_WEIGHT_PLANES = 17  # 16-bit weights minus a zero point
MAX_SHIFT = 62
RESIDUAL_BITS = 18  # of the values that a residual is added to, of zero points and of the sum

CODINGS = ("raw", "runs")
ACTIVATION_CODINGS = ("raw", "flags", "run_lengths")  # of the bytes of each pixel: dialects/zero_flags.py, dialects/run_lengths.py
ROUNDINGS = ("half_even", "half_away")


@dataclass(frozen=True)
class Field:
    """One operand of an instruction. `words` names the values of an enumerated field."""

    name: str
    bits: int
    meaning: str
    signed: bool = False
    words: tuple[str, ...] = ()

    @property
    def least(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def greatest(self) -> int:
        if self.words:
            return len(self.words) - 1
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1


@dataclass(frozen=True)
class Instruction:
    """One row of the table."""

    name: str
    opcode: int
    unit: str
    meaning: str
    fields: tuple[Field, ...] = ()

    @property
    def used_bits(self) -> int:
        return OPCODE_BITS + 2 * MASK_BITS + sum(f.bits for f in self.fields)


def _address(meaning: str) -> Field:
    return Field("address", 32, meaning)


INSTRUCTIONS: tuple[Instruction, ...] = (
    Instruction(
        "load_geometry",
        1,
        "load",
        "how the following load_activations walk a source tensor",
        (
            Field("height", 16, "rows of the source image; taps outside read the padding record"),
            Field("width", 20, "pixels in a row"),
            Field("kernel_y", 8, "taps per column of the window"),
            Field("kernel_x", 8, "taps per row of the window"),
            Field("dilation_y", 8, "rows between taps"),
            Field("dilation_x", 8, "pixels between taps"),
            Field("stride_x", 8, "pixels between the windows of neighbouring output pixels"),
            Field("run_words", 16, "consecutive words copied per tap"),
        ),
    ),
    Instruction(
        "load_layout",
        2,
        "load",
        "where a source tensor's pixels lie",
        (
            Field("padding", 32, "DRAM address of the run that stands for a tap outside the image"),
            Field("pixel_words", 16, "words from one pixel to the next"),
            Field("row_words", 24, "words from one row to the next"),
            Field("vector_words", 16, "words from one group's vectors to the next in the activation buffer"),
            Field("coding", 2, "of the pixels and of the padding", words=ACTIVATION_CODINGS),
        ),
    ),
    Instruction(
        "load_activations",
        3,
        "load",
        "gather the windows of `count` neighbouring output pixels of one output row into the activation buffer; pixel i "
        "of the tile goes to bank i mod C at activation + (i div C) * vector_words, tap after tap",
        (
            _address("DRAM address of pixel (0, 0) of the source image"),
            Field("activation", 16, "activation buffer address of the tile's pixel 0, tap 0"),
            Field("first", 12, "index in the tile of the first pixel"),
            Field("count", 12, "pixels"),
            Field("y", 16, "row of the first pixel's first tap", signed=True),
            Field("x", 20, "column of the first pixel's first tap", signed=True),
        ),
    ),
    Instruction(
        "load_weights",
        4,
        "load",
        "read the lines of `tiles` weight tiles; a line is R words, one per row of the array, and is stored with its "
        "plane, its index in the vector and whether it ends its tile",
        (
            _address("DRAM address of the coded lines"),
            Field("line", 16, "weight buffer line of the first"),
            Field("tiles", 12, "weight tiles"),
            Field("words", 13, "words of one plane of the vector"),
            Field("planes", 5, "weight planes (raw coding)"),
            Field("coding", 1, "raw: words * planes lines per tile; runs: a header word before each run of stored lines", words=CODINGS),
            Field("size_words", 24, "words read from DRAM"),
        ),
    ),
    Instruction(
        "load_parameters",
        5,
        "load",
        "read bias, multiplier and shift of `count` output channels, 16 bytes each",
        (_address("DRAM address"), Field("parameter", 16, "parameter buffer entry of the first"), Field("count", 16, "entries")),
    ),
    Instruction(
        "load_residual",
        6,
        "load",
        "read the residual operand of `count` consecutive output pixels into the residual buffer",
        (
            _address("DRAM address of the first pixel's run"),
            Field("residual", 16, "residual buffer address of the tile's pixel 0"),
            Field("first", 12, "index in the tile of the first pixel"),
            Field("count", 12, "pixels"),
            Field("run_words", 16, "words per pixel, and from one group to the next in the buffer"),
            Field("pixel_words", 16, "words from one pixel to the next in DRAM; 0 reads one pixel for all"),
            Field("coding", 2, "of the pixels", words=ACTIVATION_CODINGS),
        ),
    ),
    Instruction(
        "execute_mode",
        7,
        "execute",
        "number formats of the following execute instructions",
        (
            Field("planes", 5, "activation planes"),
            Field("signed", 1, "the top activation plane counts negative"),
            Field("weight_planes", 5, "weight planes"),
            Field("weight_signed", 1, "the top weight plane counts negative"),
            Field("bipolar", 1, "weight bits mean -1 and +1 instead of 0 and 1"),
            Field("vector_words", 16, "words from one group's vectors to the next"),
        ),
    ),
    Instruction(
        "execute",
        8,
        "execute",
        "for each group, for each weight tile: for each line of the tile and each activation plane add popcount(weight "
        "word and activation word) shifted by both planes to the R x C accumulators, then hand them to the post unit",
        (
            Field("line", 16, "weight buffer line where the first tile begins"),
            Field("activation", 16, "activation buffer address of group 0"),
            Field("tiles", 12, "weight tiles"),
            Field("groups", 12, "groups of C pixels"),
            Field("accumulate", 1, "keep what the accumulators hold (one tile and one group only)"),
            Field("emit", 1, "hand over the accumulators when a tile is done; otherwise keep them (one tile and one group only)"),
        ),
    ),
    Instruction(
        "post_requantize",
        9,
        "post",
        "clamp(round((accumulator + bias) * multiplier / 2^shift) + zero_point, low, high), stored in `bits` planes",
        (
            Field("zero_point", 18, "added after the shift", signed=True),
            Field("low", 32, "least stored value", signed=True),
            Field("high", 32, "greatest stored value", signed=True),
            Field("bits", 6, "planes written per word, 1 to 32"),
            Field("rounding", 1, "of all shifts", words=ROUNDINGS),
            Field("channels", 16, "channels that exist; bits of the others are written as zero"),
        ),
    ),
    Instruction(
        "post_residual_scale",
        10,
        "post",
        "clamp(round(((y - zero_a) * multiplier_a + (residual - zero_b) * multiplier_b) / 2^shift) + zero_point, low, high)",
        (
            Field("multiplier_a", 32, "of the requantized value", signed=True),
            Field("multiplier_b", 32, "of the residual", signed=True),
            Field("shift", 6, "right shift of the sum"),
            Field("zero_a", 18, "zero point of the requantized value", signed=True),
            Field("zero_b", 18, "zero point of the residual", signed=True),
        ),
    ),
    Instruction(
        "post_residual",
        11,
        "post",
        "switch the residual addition on or off and set the rest of it",
        (
            Field("enable", 1, "add the residual"),
            Field("planes", 5, "planes of the residual"),
            Field("signed", 1, "its top plane counts negative"),
            Field("zero_point", 18, "of the sum", signed=True),
            Field("low", 18, "least stored value", signed=True),
            Field("high", 18, "greatest stored value", signed=True),
            Field("residual_words", 16, "words from one group to the next in the residual buffer"),
        ),
    ),
    Instruction(
        "post",
        12,
        "post",
        "take groups * tiles accumulator tiles as execute emits them, requantize, keep the greatest of each `window` "
        "consecutive ones, add the residual, and write R channels of C pixels as bit-planes into the output buffer",
        (
            Field("tiles", 12, "accumulator tiles per group, a multiple of window"),
            Field("groups", 12, "groups of C pixels"),
            Field("window", 8, "consecutive tiles of which the greatest is kept; 1 where none is pooled"),
            Field("parameter", 16, "parameter buffer entry of the first channel"),
            Field("channel", 16, "first channel within the output run, a multiple of R"),
            Field("output", 16, "output buffer address of group 0"),
            Field("output_words", 16, "words from one group to the next in the output buffer"),
            Field("residual", 16, "residual buffer address of group 0"),
        ),
    ),
    Instruction(
        "store",
        13,
        "store",
        "write the runs of `count` pixels from the output buffer to DRAM",
        (
            _address("DRAM address of the first pixel's run"),
            Field("output", 16, "output buffer address of pixel 0"),
            Field("count", 12, "pixels"),
            Field("run_words", 16, "words per pixel"),
            Field("pixel_words", 16, "words from one pixel to the next in DRAM"),
            Field("output_words", 16, "words from one group to the next in the output buffer"),
            Field("coding", 2, "of the pixels", words=ACTIVATION_CODINGS),
        ),
    ),
    Instruction("finish", 14, "store", "the program has ended when everything before it is stored"),
)

BY_NAME: dict[str, Instruction] = {i.name: i for i in INSTRUCTIONS}
BY_OPCODE: dict[int, Instruction] = {i.opcode: i for i in INSTRUCTIONS}
