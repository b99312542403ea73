"""Programs as text, one instruction per line, with token masks as arrows."""

from __future__ import annotations

from collections.abc import Iterable

from qcc.runtime.fpga.encoder import Word, decode_stream
from qcc.runtime.fpga.isa import UNITS


def text_of(word: Word) -> str:
    """`execute  line=0 activation=0 ...  wait=load signal=post`."""
    operands = [f"{f.name}={f.words[word[f.name]] if f.words else word[f.name]}" for f in word.row.fields]
    tokens = [
        f"{name}={'+'.join(u for i, u in enumerate(UNITS) if mask >> i & 1)}"
        for name, mask in (("wait", word.wait), ("signal", word.signal))
        if mask
    ]
    return " ".join([f"{word.row.unit:<8}{word.name:<20}", *operands, *tokens]).rstrip()


def disassemble(program: bytes | Iterable[Word]) -> str:
    """A whole program. Raises QccError where it is damaged."""
    words = decode_stream(program) if isinstance(program, bytes) else program
    return "".join(f"{i:6}  {text_of(word)}\n" for i, word in enumerate(words))
