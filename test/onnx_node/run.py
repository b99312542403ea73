"""The node tests of the onnx package through qcc: front end, pipeline, machine code, comparison.

    python -m test.onnx_node.run                      # everything, against expected_failures.toml
    python -m test.onnx_node.run --filter 'conv|pool' # names that match
    python -m test.onnx_node.run --level graph        # graph form on the numpy reference instead of compiled code
    python -m test.onnx_node.run --level import       # front end and conversion to the graph form only: quick
    python -m test.onnx_node.run --json results.json  # one entry per test: status and message
    python -m test.onnx_node.run --expanded           # also the variants that spell an operator by its function body

Exit status 1 when a test fails that is not in `expected_failures.toml`, and when one that is there passes. Every test runs in a worker
process, so a crash or an endless loop costs one test. `--level import` passes tests that only execution fails, and says nothing of those.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
import tomllib
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from test.onnx_node.cases import Case, collect

TABLE = Path(__file__).with_name("expected_failures.toml")
Result = tuple[str, str]  # status, message


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="test.onnx_node.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", help="regular expression that names must contain")
    parser.add_argument("--level", choices=("cpu", "graph", "import"), default="cpu", help="how far each test goes (cpu)")
    parser.add_argument("--expanded", action="store_true", help="also operators spelled by their function bodies")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--timeout", type=float, default=120, help="seconds per test")
    parser.add_argument("--json", type=Path, help="write name -> [status, message] here")
    options = parser.parse_args(arguments)
    cases = [case for case in collect() if re.search(options.filter, case.name) and (options.expanded or "_expanded" not in case.name)]
    results = run(cases, options.level, options.jobs, options.timeout, options.json)
    return report(results, expected_failures(options.level), options.level)


def expected_failures(level: str) -> dict[str, str]:
    """Test name -> reason. Groups with a `level` hold at that level only."""
    groups = tomllib.loads(TABLE.read_text())["group"]
    return {name: group["reason"] for group in groups if group.get("level", level) == level for name in group["tests"]}


def report(results: dict[str, Result], expected: dict[str, str], level: str) -> int:
    """Print what is not as expected and a summary; the exit status."""
    surprises = 0
    for name, (status, message) in sorted(results.items()):
        if status == "pass" and name in expected and level != "import":
            print(f"{name} passes, but is expected to fail: {expected[name]}; take it out of {TABLE.name}")
            surprises += 1
        elif status != "pass" and name not in expected:
            print(f"{name}: {status}: {message}")
            surprises += 1
    counts = Counter(status for status, _ in results.values())
    print(f"{len(results)} tests: " + ", ".join(f"{n} {status}" for status, n in counts.most_common()) + f"; {surprises} not as expected")
    return int(surprises > 0)


def run(cases: Sequence[Case], level: str, jobs: int, timeout: float, save: Path | None = None) -> dict[str, Result]:
    """Status and message per test, also written to `save`.

    Workers are forked with the cases in memory, and replaced when they die or hang.
    """
    forks = multiprocessing.get_context("fork")
    waiting = list(range(len(cases)))[::-1]
    results: dict[str, Result] = {}
    workers: dict[Connection, tuple[Any, int, float]] = {}

    def start() -> None:
        ours, theirs = forks.Pipe()
        process = forks.Process(target=_work, args=(theirs, cases, level), daemon=True)
        process.start()
        theirs.close()
        give(ours, process)

    def give(connection: Connection, process: Any) -> None:
        index = waiting.pop()
        workers[connection] = (process, index, time.monotonic())
        connection.send(index)

    def finish(connection: Connection, result: Result) -> None:
        _, index, _ = workers.pop(connection)
        results[cases[index].name] = result
        if save is not None and (len(results) % 50 == 0 or len(results) == len(cases)):
            save.write_text(json.dumps(results, indent=1))
        if sys.stderr.isatty():
            print(f"\r{len(results)}/{len(cases)}", end="", file=sys.stderr)

    while waiting or workers:
        while waiting and len(workers) < jobs:
            start()
        for connection in wait(list(workers), timeout=1):
            assert isinstance(connection, Connection)
            process = workers[connection][0]
            try:
                result = connection.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                finish(connection, ("crash", f"the process ended with status {process.exitcode}"))
                continue
            finish(connection, result)
            if waiting:
                give(connection, process)
            else:
                connection.close()
        for connection, (process, _, since) in list(workers.items()):
            if time.monotonic() - since > timeout:
                process.kill()
                process.join()
                finish(connection, ("timeout", f"took more than {timeout:.0f} s"))
    return results


def _work(connection: Connection, cases: Sequence[Case], level: str) -> None:
    warnings.simplefilter("ignore")
    while True:
        try:
            index = connection.recv()
        except EOFError:
            return
        connection.send(_result(cases[index], level))


def _result(case: Case, level: str) -> Result:
    from qcc.compiler.driver import InternalError
    from qcc.dialects.errors import QccError

    try:
        found = _execute(case, level)
        if level == "import":
            return "pass", ""
        return _compare(case, found)
    except QccError as error:
        return "refused", str(error)
    except InternalError as error:
        return "internal error", str(error).splitlines()[0]
    except Exception as error:  # the point is to find every way of failing
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = (str(error).splitlines() or [""])[0]
        return "internal error", f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"


def _execute(case: Case, level: str) -> list[np.ndarray]:
    inputs = [np.asarray(value) for value in case.inputs]
    if level == "cpu":
        import qcc

        executable = qcc.compile(case.model, example_inputs=inputs, threads=1)
        found = executable(*[_as_container(value, spec.numpy) for value, spec in zip(inputs, executable.inputs, strict=True)])
        return list(found) if isinstance(found, tuple | list) else [found]
    from qcc.dialects import element_types
    from qcc.runtime.reference import interpreter
    from test.frontend.onnx_models import graph_form

    module = graph_form(case.model, example_inputs=inputs)
    if level == "import":
        return []
    main = next(op for op in module.body.operations if op.operation.name == "func.func" and op.attributes["sym_name"].value == "main")
    kinds = [argument.type for argument in main.regions[0].blocks[0].arguments]
    containers = [_as_container(value, element_types.storage_dtype(kind)) for value, kind in zip(inputs, kinds, strict=True)]
    return interpreter.run(module, containers)


def _as_container(value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The same numbers in the program's container: builtin integers have no sign, 4-bit numbers have a byte each."""
    if value.dtype.name in ("int4", "uint4", "int2", "uint2"):
        value = value.astype(np.int8 if value.dtype.name.startswith("int") else np.uint8)
    same_bits = value.dtype != dtype and value.dtype.itemsize == dtype.itemsize and value.dtype.kind in "iu" and dtype.kind in "iu"
    return value.view(dtype) if same_bits else value


def _compare(case: Case, found: Sequence[np.ndarray]) -> Result:
    if len(found) != len(case.outputs):
        return "wrong", f"{len(found)} outputs, expected {len(case.outputs)}"
    for index, (value, expected) in enumerate(zip(found, case.outputs, strict=True)):
        expected = np.asarray(expected)
        value = np.asarray(value)
        wanted = _as_container(expected, value.dtype)
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            return "wrong", f"output {index} is {value.dtype}{list(value.shape)}, expected {expected.dtype}{list(expected.shape)}"
        if not np.allclose(value.astype(np.float64), wanted.astype(np.float64), case.rtol, case.atol, equal_nan=True):
            error = np.max(np.abs(value.astype(np.float64) - wanted.astype(np.float64)))
            return "wrong", f"output {index} differs by up to {error:.3g}"
    return "pass", ""


if __name__ == "__main__":
    sys.exit(main())
