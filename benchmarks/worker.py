"""One peer in one process. Commands come in as lines of JSON, answers go out as lines of JSON; `run.py` drives it.

{"do": "block", "seconds": 0.5}  ->  {"median_ms": ..., "least_ms": ..., "count": ...}
{"do": "layers", "runs": 20}     ->  {"layers_us": {...}}
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any


def main() -> int:
    name, task_text = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints must not mix with the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values, default=str) + "\n")
        answers.flush()

    try:
        import numpy as np

        from benchmarks.peers import Task, all_peers

        task = Task(**json.loads(task_text))
        with np.load(task.file("io.npz")) as held:
            inputs, expected = held["inputs"], held["float"]
        start = time.perf_counter()
        runner = all_peers()[name].load()(task)
        seconds = time.perf_counter() - start
        found = np.stack([np.array(runner.output(runner.run(runner.prepare(x)))).reshape(expected[0].shape) for x in inputs])
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        x = runner.prepare(np.ascontiguousarray(inputs[0]))
        runner.run(x)
    except Exception as problem:
        traceback.print_exc()
        answer(error=f"{type(problem).__name__}: {problem}"[:500])
        return 1
    answer(prepare_seconds=round(seconds, 2), relative_error=round(error, 5), about=runner.about)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "layers":
            answer(layers_us=runner.layers(x, command["runs"]) if runner.layers else {})
            continue
        if "pin" in command:
            pin(command["pin"])
        latencies: list[float] = []
        runner.run(x)
        end = time.perf_counter() + command["seconds"]
        while not latencies or time.perf_counter() < end:
            begin = time.perf_counter()
            runner.run(x)
            latencies.append((time.perf_counter() - begin) * 1e3)
        answer(median_ms=float(np.median(latencies)), least_ms=min(latencies), count=len(latencies))
    return 0


def pin(processor: int) -> None:
    """All threads of this process to one processor: a single-threaded peer must not be moved about, nor share work with helpers."""
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), {processor})
        except OSError:
            pass  # the thread ended


if __name__ == "__main__":
    sys.exit(main())
