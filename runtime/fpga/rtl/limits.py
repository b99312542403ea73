"""Which configurations the RTL is built for. Needs no Amaranth."""

from __future__ import annotations

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError

LEAST_STEPS = 4  # of a tile in the post unit: it reads a word, adds to it and writes it back before the next tile wants it


def check(configuration: Configuration) -> None:
    """Raise QccError for what the simulators know and the RTL does not."""
    c = configuration
    most = c.rows * c.columns // LEAST_STEPS
    for name, built, expected in (
        ("bus_bytes_per_cycle", c.bus_bytes_per_cycle == c.word_bytes, f"{c.word_bytes}, a word of {c.word_bits} bits per cycle"),
        ("activation_codings", c.activation_codings <= 2, "1 (raw) or 2 (and zero flags)"),
        ("post_lanes", c.columns % c.post_lanes == 0 and c.post_lanes <= most, f"a divisor of columns ({c.columns}), at most {most}"),
    ):
        if not built:
            raise QccError(
                f"the RTL is not built for '{name}' of {getattr(c, name)}, expected {expected}; simulate at level cycle, or compile for "
                "another device"
            )
