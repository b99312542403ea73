"""Random programs on the RTL of random configurations, beyond what the test suite has time for.

    python -m test.rtl.sweep --configurations 10 --programs 200

A simulator is built for every configuration (some 15 s). Prints the cycles of the RTL over those of level cycle; a failure names its
configuration and seed, which `programs.run` takes.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga import rtl_simulation
from qcc.runtime.fpga.rtl import limits
from qcc.tools.progress import Progress
from test.rtl import programs


def draw(seed: int) -> Configuration:
    """A configuration that the RTL is built for."""
    rng = np.random.default_rng(seed)

    def one(*values: int) -> int:
        return int(rng.choice(values))

    while True:
        word_bits, rows, columns = one(32, 64, 128), one(1, 2, 4, 8), one(1, 2, 3, 4)
        if rows * columns * word_bits > 1024:  # larger ones take long to build
            continue
        found = Configuration(
            rows=rows,
            columns=columns,
            word_bits=word_bits,
            weight_lines=one(64, 100, 256, 1024),
            activation_words=one(96, 128, 500),
            residual_words=one(64, 100),
            output_words=one(64, 100),
            parameter_entries=one(2, 5) * word_bits,
            bus_bytes_per_cycle=word_bits // 8,
            dram_latency_cycles=one(1, 2, 10, 32, 100),
            post_lanes=one(1, 2, 3, 4),
            queue_instructions=one(1, 2, 5, 32),
            token_limit=one(16, 255),
            accumulator_tiles=one(1, 2, 4),
        )
        try:
            limits.check(found)
        except QccError:
            continue
        return found


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m test.rtl.sweep", description=__doc__.splitlines()[0])
    p.add_argument("--configurations", type=int, default=10)
    p.add_argument("--programs", type=int, default=100, help="per configuration, each with a steady and an unsteady memory")
    p.add_argument("--first", type=int, default=0, help="seed of the first configuration")
    args = p.parse_args()
    failures = 0
    for number in range(args.first, args.first + args.configurations):
        configuration = draw(number)
        with Progress() as progress:
            rtl_simulation.simulator(configuration, progress.update)
        found = predicted = refused = 0
        for seed in range(args.programs):
            try:
                timing, expected = programs.run(seed, configuration)
                found, predicted = found + timing.cycles, predicted + expected.cycles
                programs.run(seed, configuration, unsteady=seed + 1)
            except QccError as error:
                if "RTL" in str(error) or "program" in str(error):
                    failures += 1
                    print(f"FAILED: sweep.draw({number}), program {seed}: {error}")
                else:
                    refused += 1  # a layer that does not fit such small buffers
            except AssertionError as error:
                failures += 1
                print(f"FAILED: sweep.draw({number}), program {seed}: {str(error)[:500]}")
        print(
            f"{number}: {configuration}\n   {args.programs} programs, {refused} do not fit, RTL / cycle {found / max(predicted, 1):.3f}",
            flush=True,
        )
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
