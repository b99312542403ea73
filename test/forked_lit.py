"""Runs a lit file without starting an interpreter for every command.

lit itself, as a library, parses the RUN lines and runs their pipelines: substitutions, redirections, `not` and exit statuses are its
own. Only how a process starts is changed: `python -m MODULE ...`, which is what `lit.cfg.py` makes of qcc-opt and filecheck, is a fork
of this process, where both are imported already. It still is a process of its own, so that a crash or a leak stays in it. Any other
command is started as ever.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any
from unittest import mock


def run(path: Path) -> None:
    """Run the lit file at `path`. Raises AssertionError with lit's output where it fails, lit's UnresolvedError where it cannot be run."""
    from lit.LitTestCase import load_test_suite

    _import_tools()
    (case,) = load_test_suite([str(path)])
    with mock.patch("subprocess.Popen", _Fork):
        case.runTest()


@functools.cache
def _import_tools() -> None:
    """Import once what every forked command would import for itself."""
    from qcc.dialects.mlir import create_context
    from qcc.passes.base import load_pass, pass_files

    for name in ("qcc.tools.qcc_opt", "filecheck.main"):
        importlib.import_module(name)
    for name in pass_files():
        load_pass(name)
    create_context()


class _Fork(subprocess.Popen):
    """`python -m MODULE ARGUMENTS` in a fork of this process; anything else in a new one."""

    def __init__(self, args: list[str], **options: Any) -> None:
        if args[:2] == [sys.executable, "-m"]:
            options["preexec_fn"] = functools.partial(_run_module, args[2], args[2:], options["env"])
        super().__init__(args, **options)


def _run_module(name: str, arguments: list[str], environment: dict[str, str]) -> None:
    """What `python -m` does, in a child whose standard streams and directory are in place already; does not return."""
    status = 1
    try:
        gc.freeze()  # what the parent left must not be destroyed here: threads it may wait for were not forked
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # among them the pipe that tells the parent's Popen that the command has started
        os.environ.update(environment)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
        sys.argv = arguments
        sys.path.insert(0, os.getcwd())
        warnings.simplefilter("ignore")  # that the module is imported already
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
