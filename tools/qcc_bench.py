"""qcc-bench: measure what cost models need to know of this machine, and of the accelerator on an FPGA."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qcc.tools.entry import Parser, guarded

EPILOG = """examples:
  qcc-bench machine                   # measure this machine once (some 15 s, better with nothing else running); qcc uses it from then on
  qcc-bench machine --out m.json      # into a file, for qcc --machine m.json
  qcc-bench machine --show            # what qcc would use now, without measuring
  qcc-bench place ecp5-85k            # place and route the accelerator (minutes): resources and clock, kept beside the presets
  qcc-bench place ecp5-85k,rows=2 --out small.json
"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return guarded("qcc-bench", lambda: {"machine": _machine, "place": _place}[args.command](args))


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="qcc-bench", description=__doc__, epilog=EPILOG)
    commands = p.add_subparsers(dest="command", required=True)
    m = commands.add_parser("machine", help="rates of products, bandwidths of caches and memory, cost of a step")
    m.add_argument("--out", metavar="FILE", help="where the description goes (default: qcc's cache directory)")
    m.add_argument("--show", action="store_true", help="print the description in use and stop")
    f = commands.add_parser("place", help="resources and clock of an accelerator, placed and routed out of its context")
    f.add_argument("device", help="a preset, or one with parameters changed, as of qcc --device")
    f.add_argument("--out", metavar="FILE", help="where the figures go (default: for presets, beside them; for others, nowhere)")
    f.add_argument("--target-mhz", type=float, help="clock that the placer works for (default: the preset's)")
    f.add_argument("--seed", type=int, default=1, help="of the placer (default: 1)")
    f.add_argument("--logs", metavar="DIR", help="keep what the tools read, wrote and said")
    return p


def _place(args: argparse.Namespace) -> int:
    from qcc.compiler.targets import place
    from qcc.compiler.targets.fpga import PRESETS, FpgaTarget
    from qcc.tools.progress import Progress

    target, folder = FpgaTarget(args.device), Path(args.logs) if args.logs else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        found = place.place(
            args.device,
            target.configuration,
            target.preset.part,
            target.megahertz if args.target_mhz is None else args.target_mhz,
            seed=args.seed,
            folder=folder,
            progress=progress.update,
        )
    path = Path(args.out) if args.out else place.FOLDER / f"{args.device}.json" if args.device in PRESETS else None
    print(found)
    if path is not None:
        found.write(path)
        print(f"written to {path}", file=sys.stderr)
    return 0


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
