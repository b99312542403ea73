"""One peer in one process. Commands come in as lines of JSON, answers go out as lines of JSON; `run.py` drives it.

{"do": "block", "seconds": 0.5}  ->  {"latencies_ms": [...]}
{"do": "layers", "runs": 20}     ->  {"layers_us": {...}}
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def main() -> int:
    peer, int8, float32, reference, threads = *sys.argv[1:5], int(sys.argv[5])
    os.environ["OMP_NUM_THREADS"] = os.environ["QCC_NUM_THREADS"] = str(threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a peer prints must not mix with the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        import numpy as np

        from benchmarks.peers import PEERS

        with np.load(reference) as held:
            inputs, expected = held["inputs"], held["float"]
        start = time.perf_counter()
        runner = PEERS[peer](Path(int8), Path(float32), threads)
        seconds = time.perf_counter() - start
        found = np.stack([np.asarray(runner.run(x)) for x in inputs])
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    except Exception as problem:
        traceback.print_exc()
        answer(error=f"{type(problem).__name__}: {problem}")
        return 1
    answer(prepare_seconds=seconds, relative_error=error, about=runner.about)
    x = np.ascontiguousarray(inputs[0])
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "layers":
            answer(layers_us=runner.layers(x, command["runs"]) if runner.layers else {})
            continue
        latencies: list[float] = []
        runner.run(x)
        end = time.perf_counter() + command["seconds"]
        while not latencies or time.perf_counter() < end:
            begin = time.perf_counter()
            runner.run(x)
            latencies.append((time.perf_counter() - begin) * 1e3)
        answer(latencies_ms=latencies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
