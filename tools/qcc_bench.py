"""qcc-bench: measure what the cost model needs to know of this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qcc.tools.entry import Parser, guarded

EPILOG = """examples:
  qcc-bench machine                   # measure this machine once (some 15 s, better with nothing else running); qcc uses it from then on
  qcc-bench machine --out m.json      # into a file, for qcc --machine m.json
  qcc-bench machine --show            # what qcc would use now, without measuring
"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return guarded("qcc-bench", lambda: _machine(args))


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="qcc-bench", description=__doc__, epilog=EPILOG)
    commands = p.add_subparsers(dest="command", required=True)
    m = commands.add_parser("machine", help="rates of products, bandwidths of caches and memory, cost of a step")
    m.add_argument("--out", metavar="FILE", help="where the description goes (default: qcc's cache directory)")
    m.add_argument("--show", action="store_true", help="print the description in use and stop")
    return p


def _machine(args: argparse.Namespace) -> int:
    from qcc.compiler.cost import probe
    from qcc.compiler.targets.cpu import CpuTarget

    if args.show:
        print(probe.description(args.out or "", CpuTarget().isa, native=True).to_json(), end="")
        return 0

    def progress(text: str) -> None:
        print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    found = probe.measure(progress)
    path = Path(args.out) if args.out else probe.kept_description()
    probe.keep(found, path)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(found.to_json(), end="")
    print(f"written to {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
