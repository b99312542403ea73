"""Compare systems on one model in one interleaved run.

    python -m benchmarks.run resnet50                         # qcc and ONNX Runtime, one thread
    python -m benchmarks.run resnet50 --threads 2 --rounds 12
    python -m benchmarks.run resnet50 --layers                # time per layer beside each other as well

Every peer lives in its own process and runs in short blocks, A B C A B C, so that a change of the machine's speed meets all of them. The
output of each is checked against the float network. Medians, ratios and every single latency go to `benchmarks/results/` as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from test.e2e import models

from .peers import PEERS

ROOT = Path(__file__).parents[1]
START_SECONDS = 600
LAYER_ROUNDS = 5


class Worker:
    """A peer's process."""

    def __init__(self, peer: str, model: str, threads: int) -> None:
        files = [models.path(model, kind) for kind in ("onnx", "float.onnx", "npz")]
        command = [sys.executable, "-m", "benchmarks.worker", peer, *map(str, files), str(threads)]
        self.log = (ROOT / "build" / f"benchmark-{peer}.log").open("w")
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.ready = self.read(START_SECONDS)

    def read(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return {"error": f"no answer within {seconds:.0f} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"died; see {self.log.name}"}

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.read(START_SECONDS)

    def stop(self) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {"cpu": fields.get("model name", platform.processor()), "flags": fields.get("flags", ""), "python": platform.python_version()}


def measure(model: str, peers: list[str], threads: int, rounds: int, seconds: float, layers: bool) -> dict[str, Any]:
    """Everything about one interleaved run; peers that failed have an "error"."""
    result: dict[str, Any] = {"model": model, "threads": threads, "batch": 1, "machine": machine(), "peers": {}}
    result["time"] = time.strftime("%Y-%m-%d %H:%M:%S")
    workers: dict[str, Worker] = {}
    try:
        for name in peers:
            worker = Worker(name, model, threads)
            result["peers"][name] = {**worker.ready, "blocks_ms": []}
            print(f"  {name}: {worker.ready.get('error') or 'ready'}", file=sys.stderr)
            if "error" in worker.ready:
                worker.stop()
            else:
                workers[name] = worker
        for index in range(rounds):
            print(f"\r  round {index + 1}/{rounds}", end="", file=sys.stderr, flush=True)
            for name, worker in workers.items():
                result["peers"][name]["blocks_ms"].append(worker.ask(do="block", seconds=seconds)["latencies_ms"])
        print(file=sys.stderr)
        profiles: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for _ in range(LAYER_ROUNDS if layers else 0):
            for name, worker in workers.items():
                profiles[name].append(worker.ask(do="layers", runs=5)["layers_us"])
        for name, found in profiles.items():
            if found:
                result["peers"][name]["layers_us"] = {layer: float(np.median([one[layer] for one in found])) for layer in found[0]}
    finally:
        for worker in workers.values():
            worker.stop()
    for name in workers:
        one = result["peers"][name]
        one["median_ms"] = float(np.median(np.concatenate(one["blocks_ms"])))
        one["least_ms"] = float(min(map(min, one["blocks_ms"])))
    return result


def table(result: dict[str, Any]) -> str:
    """Medians, and the ratio to the fastest of the others, as Markdown."""
    timed = {name: one for name, one in result["peers"].items() if "median_ms" in one}
    lines = [
        f"{result['model']}, batch 1, {result['threads']} thread(s), {result['machine']['cpu']}",
        "",
        "| system | median ms | least ms | times the fastest | error against float |",
        "|---|---|---|---|---|",
    ]
    fastest = min((one["median_ms"] for one in timed.values()), default=1.0)
    for name, one in sorted(timed.items(), key=lambda item: item[1]["median_ms"]):
        lines.append(
            f"| {name} | {one['median_ms']:.2f} | {one['least_ms']:.2f} | {one['median_ms'] / fastest:.2f} | {one['relative_error']:.4f} |"
        )
    lines += [f"| {name} | failed: {one['error']} | | | |" for name, one in result["peers"].items() if name not in timed]
    return "\n".join(lines)


def layer_table(result: dict[str, Any]) -> str:
    """Time per layer of every peer that gives it, in the order of the first one, as Markdown."""
    measured = {name: one["layers_us"] for name, one in result["peers"].items() if one.get("layers_us")}
    order: dict[str, None] = {}
    for layers in measured.values():
        order |= dict.fromkeys(layers)
    lines = ["| layer | " + " | ".join(f"{name} us" for name in measured) + " |", "|---" * (len(measured) + 1) + "|"]
    for layer in order:
        cells = [f"{layers[layer]:.0f}" if layer in layers else "" for layers in measured.values()]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    sums = [f"{sum(layers.values()):.0f}" for layers in measured.values()]
    return "\n".join([*lines, "| sum | " + " | ".join(sums) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(models.MODELS))
    parser.add_argument("--peers", default="qcc_int8,onnxruntime_int8", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a block (default: 0.5)")
    parser.add_argument("--layers", action="store_true", help="also the time per layer")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="directory of the JSON file")
    arguments = parser.parse_args()
    peers = arguments.peers.split(",")
    if unknown := [name for name in peers if name not in PEERS]:
        parser.error(f"no peer is called {unknown[0]}, expected some of {', '.join(PEERS)}")
    result = measure(arguments.model, peers, arguments.threads, arguments.rounds, arguments.seconds, arguments.layers)
    print(table(result))
    if arguments.layers:
        print("\n" + layer_table(result))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{arguments.model}-{arguments.threads}-threads.json"
    file.write_text(json.dumps(result) + "\n")
    print(f"\n{file}", file=sys.stderr)


if __name__ == "__main__":
    main()
