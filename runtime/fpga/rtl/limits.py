"""What the RTL is built for, and what others need to know of it. Needs no Amaranth."""

from __future__ import annotations

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError

LEAST_STEPS = 4  # of a tile in the post unit: it reads a word, adds to it and writes it back before the next tile wants it
PREFETCH_WORDS = 16  # of a program, before its instructions are wanted: what one LUT RAM holds


def check(configuration: Configuration) -> None:
    """Raise QccError for what the simulators know and the RTL does not."""
    c = configuration
    most = c.rows * c.columns // LEAST_STEPS
    _expect(c, "bus_bytes_per_cycle", c.bus_bytes_per_cycle == c.word_bytes, f"{c.word_bytes}, a word of {c.word_bits} bits per cycle")
    check_codings(c)
    lanes = c.columns % c.post_lanes == 0 and c.post_lanes <= most
    _expect(c, "post_lanes", lanes, f"a divisor of columns ({c.columns}), at most {most}")


def check_codings(configuration: Configuration) -> None:
    """Raise QccError for codings of activations that load and store are not built with."""
    _expect(configuration, "activation_codings", configuration.activation_codings <= 2, "1 (raw) or 2 (and zero flags)")


def _expect(configuration: Configuration, name: str, built: bool, expected: str) -> None:
    if not built:
        raise QccError(
            f"the RTL is not built for '{name}' of {getattr(configuration, name)}, expected {expected}; "
            "simulate at level cycle, or compile for another device"
        )
