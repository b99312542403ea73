"""ResNet-50 compressed in seven ways beside its dense 8-bit version: time in one interleaved run, and size beside the entropy.

    python -m benchmarks.compressed                      # compile what is missing, measure, write compressed-*.json
    python -m benchmarks.compressed --prepare            # only compile
    python -m benchmarks.compressed --threads 2 --names w4,ternary

Weights are random, seeded and projected (`test/e2e/projections.py`), activations have 8 bits. Every network is compiled twice: as it is,
and with `--coding rans`, whose size counts; both are timed, against the dense network as it is. The bound is the order-0 entropy of the
integers of every weight tensor, zeros included, as the compiled network has them (without removed channels); what codes them counts with
tables, directories and padding. `rest` are biases and the numbers that rescale: they are no weights, and stand beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import qcc
from test.e2e import models

from .peers import ROOT
from .run import machine, results_here, revision

DENSE = "resnet50"
NAMES = [DENSE, *models.COMPRESSED]
FOLDER = ROOT / "build" / "compressed"
BLOCK_RUNS = 3


def prepare(name: str, folder: Path) -> dict[str, Path]:
    """The artefacts `plain` and `rans` of model `name`, made where `folder` does not hold them."""
    made: dict[str, Path] = {}
    for coding, option in (("plain", "none"), ("rans", "rans")):
        made[coding] = folder / f"{name}.{coding}.so"
        if not made[coding].exists():
            folder.mkdir(parents=True, exist_ok=True)
            qcc.compile(models.path(name, "onnx"), coding=option, threads=1).save(made[coding])
    return made


def sizes(path: Path) -> dict[str, Any]:
    """Bytes of a coded artefact: its weights beside their order-0 entropy, the rest of the constants, and the file."""
    report = qcc.load(path, threads=1).report
    rows = [row for row in report["layers"] if row["weights"] and "stored_bits" in row]
    stored = sum(row["stored_bits"] * row["weights"] for row in rows) / 8
    bound = sum(row["entropy_bits"] * row["weights"] for row in rows) / 8
    return {
        "weights": sum(row["weights"] for row in rows),
        "macs": report["totals"]["macs"],
        "bound_bytes": round(bound),
        "stored_bytes": round(stored),
        "over_bound": stored / bound,
        "rest_bytes": round(report["coding"]["stored_bytes"] - stored),
        "file_bytes": path.stat().st_size,
    }


def times(paths: dict[tuple[str, str], Path], threads: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Milliseconds per run of every artefact (name, coding), one entry per round; all take turns in short blocks."""
    x = np.ascontiguousarray(np.load(models.path(DENSE, "npz"))["inputs"][0])
    executables = {name: qcc.load(path, threads=threads) for name, path in paths.items()}
    found: dict[tuple[str, str], list[float]] = {name: [] for name in paths}
    for executable in (*executables.values(), *executables.values()):
        executable(x)
    for _ in range(rounds):
        for name, executable in executables.items():
            executable(x)
            spent: list[float] = []
            for _ in range(BLOCK_RUNS):
                start = time.perf_counter()
                executable(x)
                spent.append((time.perf_counter() - start) * 1e3)
            found[name].append(min(spent))
    return found


def against(mine: list[float], dense: list[float]) -> tuple[float, float]:
    """Median milliseconds, and the median over rounds of the ratio to the dense network's neighbouring block."""
    return statistics.median(mine), statistics.median(a / b for a, b in zip(mine, dense, strict=True))


def show(rows: dict[str, dict[str, Any]]) -> None:
    head = ("ms", "ratio", "rANS", "ratio", "MMAC", "weights", "bound", "rANS", "over", "rest", "file")
    widths = (7, 6, 7, 6, 6, 9, 9, 9, 6, 8, 9)
    print(f"{'network':26s} " + " ".join(f"{text:>{width}s}" for text, width in zip(head, widths, strict=True)))
    for name, r in rows.items():
        print(
            f"{name:26s} {r['median_ms']:7.2f} {r['ratio']:6.3f} {r['rans_ms']:7.2f} {r['rans_ratio']:6.3f} {r['macs'] / 1e6:6.0f} "
            f"{r['weights']:9d} {r['bound_bytes']:9d} {r['stored_bytes']:9d} {r['over_bound']:6.4f} {r['rest_bytes']:8d} "
            f"{r['file_bytes']:9d}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=",".join(NAMES[1:]), help="of %(default)s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--artifacts", type=Path, default=FOLDER, help="folder of the compiled networks, which are not made again")
    parser.add_argument("--prepare", action="store_true", help="only compile")
    parser.add_argument("--out", type=Path, default=results_here())
    arguments = parser.parse_args()
    names = [DENSE, *(n if n.startswith(DENSE) else f"{DENSE}-{n}" for n in arguments.names.split(","))]
    paths = {name: prepare(name, arguments.artifacts) for name in names}
    if arguments.prepare:
        return
    artefacts = {(name, coding): path for name, made in paths.items() for coding, path in made.items()}
    measured = times(artefacts, arguments.threads, arguments.rounds)
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        (ms, part), (rans_ms, rans_part) = (against(measured[name, coding], measured[DENSE, "plain"]) for coding in ("plain", "rans"))
        rows[name] = {"median_ms": ms, "ratio": part, "rans_ms": rans_ms, "rans_ratio": rans_part} | sizes(paths[name]["rans"])
    show(rows)
    result = {"threads": arguments.threads, "rounds": arguments.rounds, "revision": revision(), "machine": machine(), "networks": rows}
    file = arguments.out / f"compressed-resnet50-threads{arguments.threads}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
