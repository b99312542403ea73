"""The instruction set as a reference page: `python -m qcc.runtime.fpga.isa_page` prints it as Markdown."""

from __future__ import annotations

from qcc.runtime.fpga.isa import INSTRUCTION_BYTES, INSTRUCTIONS, MASK_BITS, OPCODE_BITS, UNITS


def markdown() -> str:
    """The page: one table per instruction with the bits of every field."""
    lines = [
        "# Accelerator instructions",
        "",
        f"Generated from `runtime/fpga/isa.py`. {INSTRUCTION_BYTES * 8} bits each, little-endian; bits not listed "
        f"are zero. Bits 0 to {OPCODE_BITS - 1} are the opcode, then {MASK_BITS} bits `wait` and {MASK_BITS} bits "
        f"`signal` (bit u: {', '.join(f'{i} {u}' for i, u in enumerate(UNITS))}).",
        "",
    ]
    for row in INSTRUCTIONS:
        lines += [f"## {row.name}", "", f"Opcode {row.opcode}, unit {row.unit}: {row.meaning}.", ""]
        if row.fields:
            lines += ["| bits | operand | range | meaning |", "|---|---|---|---|"]
        place = OPCODE_BITS + 2 * MASK_BITS
        for f in row.fields:
            span = f"{place}" if f.bits == 1 else f"{place}-{place + f.bits - 1}"
            choice = ", ".join(f"{i} {w}" for i, w in enumerate(f.words)) or f"{f.least}..{f.greatest}"
            lines.append(f"| {span} | `{f.name}` | {choice} | {f.meaning} |")
            place += f.bits
        lines += [""] if row.fields else []
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
