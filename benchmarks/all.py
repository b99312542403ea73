"""Every comparison of the project, one after the other; those that are there already are left alone, so an interrupted run goes on.

    python -m benchmarks.all                       # what is missing in results/
    python -m benchmarks.all --force               # everything anew
    python -m benchmarks.all --only int8 --threads 1
    python -m benchmarks.all --only streams        # chains of linear layers in every compressed format (`STREAMS`)
    python -m benchmarks.all --list

Then the table and the plot are made. The first run quantizes and compiles for every peer (about an hour); what they make stays in `build/`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import run, table
from .peers import PRUNED, PRUNED_LAYERS, STREAMS

NETWORKS = ("resnet50", "vgg16", "mobilenetv2", "resnet18", "encoder", "encoder_base")
QUICK = {"rounds": 7, "seconds": 0.3}
SLOW_PEERS = {"iree_int8", "iree_fp32"}  # a hundred times slower than the rest: measured once, on the smallest model
SLOW_MODEL = "resnet18"


@dataclass(frozen=True)
class Comparison:
    model: str
    precision: str = "int8"
    batch: int = 1
    cpu: str = "native"


COMPARISONS = (
    *(Comparison(model) for model in NETWORKS),
    Comparison("resnet50", batch=16),
    *(Comparison(model, cpu=cpu) for cpu in ("icelake-server", "x86-64-v3") for model in ("resnet50", "mobilenetv2", "encoder")),
    *(Comparison(model, "fp32") for model in ("resnet50", "encoder", "encoder_base")),
    *(Comparison(model, "bf16") for model in ("resnet50", "encoder", "encoder_base")),
    *(Comparison(model, precision) for precision in ("w8", "w4") for model in ("gemv4096", "fc4096")),
    *(Comparison("gemv11008", precision) for precision in STREAMS if precision != "sparse"),
    *(Comparison(model, "sparse") for model in PRUNED),
    *(Comparison(model, "sparse_fp32", batch=batch) for batch in (1, 64) for model in PRUNED_LAYERS),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="measure again what is there already")
    parser.add_argument("--only", help="comma-separated words, each a precision, a model, an instruction set or 'streams', all must fit")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only this thread count (default: 1 and 2)")
    parser.add_argument("--list", action="store_true", help="say what would be measured and stop")
    parser.add_argument("--exclusive", default=os.environ.get("QCC_BENCH_EXCLUSIVE", ""), metavar="COMMAND", help="see benchmarks.run")
    parser.add_argument("--out", type=Path, default=run.results_here())
    arguments = parser.parse_args()
    words = arguments.only.split(",") if arguments.only else []
    failed = 0
    for threads in (1, 2) if arguments.threads is None else (arguments.threads,):
        for one in COMPARISONS:
            kinds = ("streams",) if one.model.startswith("gemv11008") else ()
            if any(word not in (one.model, one.precision, one.cpu, f"batch{one.batch}", *kinds) for word in words):
                continue
            file = run.result_file(arguments.out, one.model, one.precision, one.batch, threads, one.cpu)
            if file.exists() and not arguments.force:
                continue
            print(f"{file.stem}", file=sys.stderr, flush=True)
            if not arguments.list:
                failed += not measure(one, threads, arguments.out, arguments.exclusive)
    if not arguments.list:
        table.write(arguments.out)
    sys.exit(1 if failed else 0)


def measure(one: Comparison, threads: int, out: Path, exclusive: str) -> bool:
    """Measure and write; whether qcc took part."""
    start = time.monotonic()
    peers = run.peers_of(one.precision, one.model)
    if (one.model, one.precision, one.cpu, threads) != (SLOW_MODEL, "int8", "native", 1):
        peers = [peer for peer in peers if peer.name not in SLOW_PEERS]
    name = one.model if one.batch == 1 else f"{one.model}@{one.batch}"
    result = run.measure(name, peers, threads, one.cpu, layers=False, exclusive=exclusive, **QUICK)
    run.write(result, out)
    best, mine = run.best_peer(result), table.against_best(result)
    print(f"  {time.monotonic() - start:.0f} s; best peer {best}, ratio {f'{mine:.2f}' if mine else 'unknown'}", file=sys.stderr)
    return table.own(result) is not None


if __name__ == "__main__":
    main()
