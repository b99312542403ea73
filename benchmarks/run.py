"""Compare systems on one model in one interleaved run.

    python -m benchmarks.run resnet50                              # every int8 peer that is installed, one thread, batch 1
    python -m benchmarks.run resnet50 --threads 2 --batch 16
    python -m benchmarks.run encoder --precision fp32 --cpu x86-64-v3
    python -m benchmarks.run gemv4096 --precision w4               # float activations, 4-bit weights
    python -m benchmarks.run resnet50 --peers qcc_int8,onnxruntime_int8 --layers

Every peer lives in its own process and runs in short blocks, A B C A B C, so that a change of the machine's speed meets all of them. The
output of each is checked against the float network. Medians, ratios and evidence of what ran go to `benchmarks/results/MACHINE/` as JSON.

`--exclusive COMMAND` (or QCC_BENCH_EXCLUSIVE) names a command that holds the machine for us: it is started when all peers are ready, we
measure from its first line of output, and we close its standard input when done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.targets.cpu import CpuTarget
from test.e2e import models

from . import files
from .bandwidth import Bandwidth
from .peers import CPUS, PRECISIONS, ROOT, STREAMS, Peer, Task, all_peers, python_with, reason_to_skip

RESULTS = ROOT / "benchmarks" / "results"  # a folder for every kind of machine
FOLDER = ROOT / "build" / "bench-files"  # what peers make of the model files
START_SECONDS, BLOCK_SECONDS = 900, 120
LAYER_ROUNDS = 5
PAUSE_SECONDS = 0.05  # until threads of the peer before have stopped spinning


class Worker:
    """A peer's process."""

    def __init__(self, peer: Peer, task: Task) -> None:
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "QCC_NUM_THREADS"), str(task.threads))
        if (limit := CPUS[task.cpu]) is not None:
            environment |= {"ONEDNN_MAX_CPU_ISA": limit[0], "DNNL_MAX_CPU_ISA": limit[0], "ATEN_CPU_CAPABILITY": limit[1]}
        self.log = (FOLDER / f"{peer.name}.log").open("w")
        python = python_with(peer.needs)
        assert python
        command = [python, "-m", "benchmarks.worker", peer.name, json.dumps(vars(task))]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        self.ready = self.read(START_SECONDS)

    def read(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return {"error": f"no answer within {seconds:.0f} s"}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with status {self.process.wait()}"}

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except OSError:
            return {"error": f"the process ended with status {self.process.wait()}"}
        return self.read(BLOCK_SECONDS)

    def stop(self) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()


class Exclusive:
    """Holds `command` while measuring; without one, nothing."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __enter__(self) -> None:
        if self.command:
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.process = subprocess.Popen(shlex.split(self.command), **pipes)
            assert self.process.stdout
            self.process.stdout.readline()

    def __exit__(self, *_: Any) -> None:
        if self.command:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait()


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    found = {"cpu": fields.get("model name", platform.processor()), "processors": len(os.sched_getaffinity(0))}
    return found | {"flags": fields.get("flags", ""), "system": platform.platform(), "python": platform.python_version()}


def results_here() -> Path:
    """Where this machine's results are: under its CPU's name and the best instruction set that qcc has codelets for."""
    name = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor)\b", " ", machine()["cpu"].lower())
    return RESULTS / "-".join([*re.findall(r"\w+", name), CpuTarget().isa])


def revision() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def measure(
    model: str, peers: list[Peer], threads: int, cpu: str, *, rounds: int, seconds: float, layers: bool, exclusive: str = ""
) -> dict[str, Any]:
    """Everything about one interleaved run. A peer that could not take part has "skipped" or "error" with the reason."""
    facts = machine()
    result: dict[str, Any] = {"model": model.partition("@")[0], "batch": int(model.partition("@")[2] or 1), "threads": threads, "cpu": cpu}
    result |= {"precision": peers[0].precision, "time": time.strftime("%Y-%m-%d %H:%M:%S"), "revision": revision(), "machine": facts}
    found: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        for peer in peers:
            if (reason := reason_to_skip(peer, cpu, facts["flags"])) is not None:
                found[peer.name] = {"skipped": reason}
            else:
                try:
                    held = {kind: str(files.file(model, kind)) for kind in {"io.npz", *peer.files}}
                except Exception as problem:  # the exporters of other projects fail in their own ways; the other peers can go on
                    found[peer.name] = {"error": f"its files could not be made: {type(problem).__name__}: {problem}"[:500]}
                else:
                    worker = Worker(peer, Task(model, threads, cpu, held, str(FOLDER)))
                    found[peer.name] = worker.ready
                    if "error" in worker.ready:
                        worker.stop()
                    else:
                        workers[peer.name] = worker
            state = found[peer.name]
            words = state.get("skipped") or state.get("error") or f"ready after {state['prepare_seconds']:.0f} s"
            print(f"  {peer.name}: {words}", file=sys.stderr, flush=True)
        with Exclusive(exclusive):
            streams = result["model"] in models.CHAINS and result["precision"] in STREAMS
            probe = Bandwidth() if streams else None
            blocks, rates = interleave(workers, threads, rounds, seconds, probe)
            profiles = [{n: worker.ask(do="layers", runs=5) for n, worker in workers.items()} for _ in range(LAYER_ROUNDS * layers)]
    finally:
        for worker in workers.values():
            worker.stop()
    for name, measured in blocks.items():
        one = found[name]
        if failed := next((b["error"] for b in measured if "error" in b), None):
            one["error"] = failed
            continue
        one["median_ms"] = round(float(np.median([b["median_ms"] for b in measured])), 4)
        one["least_ms"] = round(min(b["least_ms"] for b in measured), 4)
        one["blocks_median_ms"] = [round(b["median_ms"], 4) for b in measured]
        one["blocks_count"] = [b["count"] for b in measured]
        if layers and (found_layers := [p[name]["layers_us"] for p in profiles if p[name].get("layers_us")]):
            one["layers_us"] = {layer: round(float(np.median([f[layer] for f in found_layers])), 2) for layer in found_layers[0]}
    result["peers"] = found
    if rates:
        result["memory_gbytes_per_s"] = [round(rate, 2) for rate in rates]
    return result


def interleave(
    workers: dict[str, Worker], threads: int, rounds: int, seconds: float, probe: Bandwidth | None
) -> tuple[dict[str, list[dict[str, Any]]], list[float]]:
    """Answers of each worker, one per round; where there is a probe, beside qcc the memory's read bandwidth in GB/s as well."""
    pinned = {"pin": max(os.sched_getaffinity(0))} if threads == 1 else {}
    blocks: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    rates: list[float] = []
    for _ in range(rounds):
        if probe is not None:
            time.sleep(PAUSE_SECONDS)
            rates.append(probe.gbytes(threads))
        for name, worker in workers.items():
            if any("error" in block for block in blocks[name]):
                continue
            time.sleep(PAUSE_SECONDS)
            blocks[name].append(worker.ask(do="block", seconds=seconds, **pinned))
    return blocks, rates


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Median over rounds of time of `one` / time of `other`: neighbours in time, so that a slow minute divides out."""
    return float(np.median(np.array(one["blocks_median_ms"]) / np.array(other["blocks_median_ms"])))


def of_memory(result: dict[str, Any], one: dict[str, Any]) -> float | None:
    """Time over stored bytes / the memory's bandwidth, median over rounds: 1 is the speed of memory. None where either is not known."""
    stored, rates = one.get("about", {}).get("weight bytes"), result.get("memory_gbytes_per_s")
    if not stored or not rates or "blocks_median_ms" not in one:
        return None
    return float(np.median(np.array(one["blocks_median_ms"]) * np.array(rates)) * 1e6 / stored)


def best_peer(result: dict[str, Any]) -> str | None:
    """The fastest system that is not qcc."""
    timed = {name: one["median_ms"] for name, one in result["peers"].items() if "median_ms" in one and not name.startswith("qcc")}
    return min(timed, key=timed.__getitem__) if timed else None


def table(result: dict[str, Any]) -> str:
    """Medians, and the ratio to the fastest of the others, as Markdown."""
    timed = {name: one for name, one in result["peers"].items() if "median_ms" in one}
    best = best_peer(result)
    lines = [
        f"{result['model']}, {result['precision']}, batch {result['batch']}, {result['threads']} thread(s), "
        f"{result['cpu']} on {result['machine']['cpu']}",
        "",
        f"| system | median ms | least ms | times {best} | error against float |",
        "|---|---|---|---|---|",
    ]
    for name, one in sorted(timed.items(), key=lambda item: item[1]["median_ms"]):
        against = f"{ratio(one, timed[best]):.2f}" if best else ""
        if (memory := of_memory(result, one)) is not None:
            name += f" ({memory:.2f} of the memory's time)"
        lines.append(f"| {name} | {one['median_ms']:.3f} | {one['least_ms']:.3f} | {against} | {one['relative_error']:.4f} |")
    for name, one in result["peers"].items():
        if name not in timed:
            lines.append(f"| {name} | {'failed: ' + one['error'] if 'error' in one else 'skipped: ' + one['skipped']} | | | |")
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


def result_file(folder: Path, model: str, precision: str, batch: int, threads: int, cpu: str) -> Path:
    limit = "" if cpu == "native" else f"-{cpu}"
    return folder / f"{model}-{precision}-batch{batch}-threads{threads}{limit}.json"


def peers_of(precision: str, model: str) -> list[Peer]:
    """Every peer of a precision that is for this model, qcc first."""
    return [p for p in all_peers().values() if p.precision == precision and (not p.only or model in p.only)]


def write(result: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = result_file(folder, result["model"], result["precision"], result["batch"], result["threads"], result["cpu"])
    file.write_text(json.dumps(result, indent=1) + "\n")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=[*models.MODELS, *models.CHAINS])
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="which peers (default: int8)")
    parser.add_argument("--peers", help=f"instead of all: of {', '.join(all_peers())}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--cpu", choices=CPUS, default="native", help="hold qcc and its peers to an instruction set (default: native)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a block (default: 0.5)")
    parser.add_argument("--layers", action="store_true", help="also the time per layer")
    parser.add_argument("--exclusive", default=os.environ.get("QCC_BENCH_EXCLUSIVE", ""), metavar="COMMAND")
    parser.add_argument("--out", type=Path, default=results_here(), help="directory of the JSON file (default: %(default)s)")
    arguments = parser.parse_args()
    peers = peers_of(arguments.precision, arguments.model)
    if arguments.peers:
        names = arguments.peers.split(",")
        if unknown := [name for name in names if name not in all_peers()]:
            parser.error(f"no peer is called {unknown[0]}, expected some of {', '.join(all_peers())}")
        peers = [all_peers()[name] for name in names]
    result = measure(
        arguments.model if arguments.batch == 1 else f"{arguments.model}@{arguments.batch}",
        peers,
        arguments.threads,
        arguments.cpu,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        layers=arguments.layers,
        exclusive=arguments.exclusive,
    )
    print(table(result))
    if arguments.layers:
        print("\n" + layer_table(result))
    print(f"\n{write(result, arguments.out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
