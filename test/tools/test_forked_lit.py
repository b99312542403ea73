"""Lit files in forks of this process pass and fail where lit's own processes do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lit.LitTestCase import UnresolvedError

from test import forked_lit

MODULE = "func.func private @f()\n"
LONG = "".join(f"func.func private @f{i}()\n" for i in range(5000))  # more than a pipe holds
PASS = {
    "a check": "// RUN: qcc-opt %s | filecheck %s\n// CHECK: func.func private @f()",
    "not": "// RUN: not qcc-opt %s -p no-such-pass 2>&1 | filecheck %s\n// CHECK: no-such-pass",
    "files": "// RUN: qcc-opt < %s -o %t && filecheck %s --input-file=%t\n// CHECK: @f",
    "quotes": "// RUN: qcc-opt %s --pass-pipeline='builtin.module(canonicalize, cse)' | filecheck %s\n// CHECK: @f",
    "another command": "// RUN: echo 'func.func private @h()' | qcc-opt | cat | filecheck %s\n// CHECK: @h",
    "much output": f"// RUN: qcc-opt %s | filecheck %s\n// CHECK: @f4999\n{LONG}",
    "unread output": f"// RUN: qcc-opt %s | true\n{LONG}",
}
FAIL = {
    "a check": "// RUN: qcc-opt %s | filecheck %s\n// CHECK: func.func private @g()",
    "an excluded text": "// RUN: qcc-opt %s | filecheck %s\n// CHECK-NOT: @f",
    "the second run": "// RUN: qcc-opt %s\n// RUN: qcc-opt %s | filecheck %s --check-prefix=SECOND\n// SECOND: @g",
    "no check": "// RUN: qcc-opt %s | filecheck %s",
    "status": "// RUN: qcc-opt %s -p no-such-pass",
    "status of a pipe": "// RUN: qcc-opt %s -p no-such-pass 2>&1 | filecheck %s\n// CHECK: no-such-pass",
    "not": "// RUN: not qcc-opt %s",
    "standard error apart": "// RUN: not qcc-opt %s -p no-such-pass | filecheck %s\n// CHECK: no-such-pass",
    "diagnostics": "// RUN: qcc-opt %s --verify-diagnostics\n// expected-error@+1 {{nothing}}",
    "another command": "// RUN: qcc-opt %s | false",
    "a crash": f"// RUN: cd %S && {sys.executable} -m crash",
    "no command": "// no RUN line",
}


def _file(folder: Path, lines: str) -> Path:
    shutil.copy(Path(forked_lit.__file__).with_name("lit.cfg.py"), folder)
    (folder / "crash.py").write_text("import os; os.abort()")
    file = folder / "case.mlir"
    file.write_text(f"{lines}\n{MODULE}")
    return file


@pytest.mark.parametrize("lines", PASS.values(), ids=PASS)
def test_passes(tmp_path: Path, lines: str) -> None:
    forked_lit.run(_file(tmp_path, lines))


@pytest.mark.parametrize("lines", FAIL.values(), ids=FAIL)
def test_fails(tmp_path: Path, lines: str) -> None:
    with pytest.raises((AssertionError, UnresolvedError)):
        forked_lit.run(_file(tmp_path, lines))


@pytest.mark.slow
@pytest.mark.parametrize("lines", [*PASS.values(), *FAIL.values()], ids=[*PASS, *FAIL])
def test_lit_agrees(tmp_path: Path, lines: str) -> None:
    command = [sys.executable, "-c", "from lit.main import main; main()", str(_file(tmp_path, lines))]
    assert (subprocess.run(command, capture_output=True).returncode == 0) == (lines in PASS.values())
