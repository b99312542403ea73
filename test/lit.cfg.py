"""lit configuration: pass tests run `qcc-opt %s ... | filecheck %s` with the interpreter that runs lit."""

import os
import sys

import lit.formats

config.name = "qcc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["e2e", "Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(os.path.dirname(os.path.dirname(__file__)), "build", "lit")
for name in ("qcc", "qcc-opt", "qcc-run"):
    config.substitutions.append((rf"(?<![\w/.-]){name}(?= )", f"{sys.executable} -m qcc.tools.{name.replace('-', '_')}"))
config.substitutions.append((r"(?<![\w/.-])filecheck(?= )", f"{sys.executable} -m filecheck"))
config.environment["OPENBLAS_NUM_THREADS"] = "1"  # starting its threads takes longer than most passes
for variable in ("PYTHONPATH", "HOME"):
    if variable in os.environ:
        config.environment[variable] = os.environ[variable]
