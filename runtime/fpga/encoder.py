"""Instructions to bytes and back; places and widths come from the table alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qcc.dialects.errors import QccError
from qcc.runtime.fpga.isa import (
    BY_NAME,
    BY_OPCODE,
    INSTRUCTION_BYTES,
    MASK_BITS,
    OPCODE_BITS,
    UNITS,
    Field,
    Instruction,
)

_NO_FIELDS: Mapping[str, int] = {}
_UNIT_OF = {name: UNITS.index(row.unit) for name, row in BY_NAME.items()}


@dataclass(frozen=True)
class Word:
    """One instruction with its operands. `wait` and `signal` are masks of units (see isa.UNITS)."""

    name: str
    fields: Mapping[str, int] = field(default_factory=lambda: _NO_FIELDS)
    wait: int = 0
    signal: int = 0

    @property
    def row(self) -> Instruction:
        return BY_NAME[self.name]

    @property
    def unit(self) -> int:
        """Index of the unit that runs it."""
        return _UNIT_OF[self.name]

    def __getitem__(self, name: str) -> int:
        return self.fields[name]


def check_word(word: Word) -> None:
    """Raise QccError where the table does not allow `word`."""
    row = BY_NAME.get(word.name)
    if row is None:
        raise QccError(f"no instruction '{word.name}', expected one of {', '.join(BY_NAME)}")
    missing = [f.name for f in row.fields if f.name not in word.fields]
    extra = sorted(set(word.fields) - {f.name for f in row.fields})
    if missing or extra:
        raise QccError(f"instruction {row.name}: " + (f"operand '{missing[0]}' is missing" if missing else f"no operand '{extra[0]}'"))
    for f in row.fields:
        check_value(row, f, word.fields[f.name])
    own = 1 << UNITS.index(row.unit)
    for mask, name in ((word.wait, "wait"), (word.signal, "signal")):
        if not 0 <= mask < 1 << MASK_BITS or mask & own:
            raise QccError(f"instruction {row.name}: {name} mask is {mask:#x}, expected other units than {row.unit} only")


def check_value(row: Instruction, f: Field, value: int) -> None:
    """Raise QccError where `value` does not fit field `f`."""
    if not f.least <= value <= f.greatest:
        raise QccError(f"instruction {row.name}: operand '{f.name}' is {value}, expected {f.least}..{f.greatest}")


def encode(word: Word) -> bytes:
    """The 16 bytes of one instruction, least significant first. Raises QccError where an operand does not fit."""
    check_word(word)
    row = word.row
    value, place = row.opcode, OPCODE_BITS
    for mask in (word.wait, word.signal):
        value |= mask << place
        place += MASK_BITS
    for f in row.fields:
        value |= (word.fields[f.name] & ((1 << f.bits) - 1)) << place
        place += f.bits
    return value.to_bytes(INSTRUCTION_BYTES, "little")


def encode_stream(words: Iterable[Word]) -> bytes:
    """The bytes of a program."""
    return b"".join(encode(word) for word in words)


def decode(data: bytes) -> Word:
    """The inverse of `encode`. Raises QccError for an unknown opcode, an operand outside its range or bits that must be zero."""
    if len(data) != INSTRUCTION_BYTES:
        raise QccError(f"an instruction has {len(data)} bytes, expected {INSTRUCTION_BYTES}")
    rest = int.from_bytes(data, "little")

    def take(bits: int) -> int:
        nonlocal rest
        low = rest & ((1 << bits) - 1)
        rest >>= bits
        return low

    opcode = take(OPCODE_BITS)
    row = BY_OPCODE.get(opcode)
    if row is None:
        raise QccError(f"unknown opcode {opcode}")
    wait, signal = take(MASK_BITS), take(MASK_BITS)
    values: dict[str, int] = {}
    for f in row.fields:
        value = take(f.bits)
        values[f.name] = value - (1 << f.bits) if f.signed and value >> (f.bits - 1) else value
    if rest:
        raise QccError(f"instruction {row.name} has bits set behind its last operand, expected zero")
    word = Word(row.name, values, wait, signal)
    check_word(word)
    return word


def decode_stream(data: bytes) -> list[Word]:
    """The instructions of a program that ends with `finish`. Raises QccError with the place of the first damaged one."""
    if not data or len(data) % INSTRUCTION_BYTES:
        raise QccError(f"the instruction stream has {len(data)} bytes, expected a multiple of {INSTRUCTION_BYTES}")
    words: list[Word] = []
    for place in range(0, len(data), INSTRUCTION_BYTES):
        try:
            words.append(decode(data[place : place + INSTRUCTION_BYTES]))
        except QccError as error:
            raise QccError(f"the instruction stream is damaged at instruction {place // INSTRUCTION_BYTES}: {error.message}") from None
    ends = [i for i, word in enumerate(words) if word.name == "finish"]
    if ends != [len(words) - 1]:
        raise QccError("the instruction stream does not end with its only 'finish'")
    return words


def program(words: Sequence[Word]) -> bytes:
    """Encode `words` and prove that they decode to themselves."""
    data = encode_stream(words)
    assert decode_stream(data) == list(words), "encoder and decoder disagree"
    return data
