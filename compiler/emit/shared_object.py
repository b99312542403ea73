"""The CPU artefact: object file, weights, metadata and the static runtime, linked by the system's compiler and sealed.

Weights and metadata go through the assembler's `.incbin`, never through LLVM or text. Everything is written under fixed names in a fresh
folder, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcc.compiler.emit.c_header import c_header
from qcc.compiler.emit.coded_weights import StoredWeights
from qcc.compiler.emit.machine_code import MachineCode
from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write
from qcc.runtime.cpu import artifact_file, loader
from qcc.runtime.toolchain import find_compiler

_DATA = f"""\
    .section .qcc.weights,"a",@progbits
    .balign 4096
    .globl qcc_model_weights
    .hidden qcc_model_weights
    .type qcc_model_weights, @object
qcc_model_weights:
    .incbin "weights.bin"
    .balign 64
    .size qcc_model_weights, . - qcc_model_weights
    .globl qcc_model_weights_form
    .hidden qcc_model_weights_form
    .type qcc_model_weights_form, @object
qcc_model_weights_form:
    .quad {{form}}
    .size qcc_model_weights_form, . - qcc_model_weights_form
    .section {artifact_file.METADATA_SECTION},"a",@progbits
    .globl qcc_model_metadata
    .hidden qcc_model_metadata
    .type qcc_model_metadata, @object
qcc_model_metadata:
    .incbin "metadata.json"
    .byte 0
    .size qcc_model_metadata, . - qcc_model_metadata
    .section .note.GNU-stack,"",@progbits
"""
_EXPORTED = ("info", "create", "run", "state", "reset", "destroy", "threads", "profile", "profile_read", "error")
_EXPORTS = "{ global: " + " ".join(f"qcc_model_{name};" for name in _EXPORTED) + " local: *; };\n"


def write_artifact(code: MachineCode, weights: StoredWeights, info: Mapping[str, Any], path: Path) -> None:
    """Write the shared object to `path` and its C header beside it. Raises QccError without a compiler or where it cannot be written."""
    compiler = system_compiler()
    library = loader.library_path(loader.MODEL_LIBRARY)
    header = path.with_suffix(".h")
    if header == path:
        raise QccError(f"cannot write artefact {path}: its header has the same name; end the name in .so")
    with tempfile.TemporaryDirectory(prefix="qcc-") as name:
        folder = Path(name)
        code.write_object(folder / "program.o")
        weights.data.tofile(folder / "weights.bin")
        (folder / "metadata.json").write_text(json.dumps(info, sort_keys=True))
        form = f"{int(weights.is_image)}, {int(weights.streams)}, {weights.data.size}"  # coded or not, enum qcc_decode, bytes
        (folder / "data.s").write_text(_DATA.format(form=form))
        (folder / "exports.map").write_text(_EXPORTS)
        shutil.copyfile(library, folder / "libqcc_model.a")
        _run([*compiler, "-c", "data.s", "-o", "data.o"], folder)
        link = ["-shared", "-o", "model.so", "program.o", "data.o", "-Wl,--whole-archive", "libqcc_model.a", "-Wl,--no-whole-archive"]
        options = ["-Wl,--version-script=exports.map", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,defs", "-Wl,--strip-debug"]
        _run([*compiler, *link, *options, "-fopenmp", "-lm"], folder)
        sealed = artifact_file.seal((folder / "model.so").read_bytes())
    with atomic_write(path, mode=0o755) as stream:
        stream.write(sealed)
    with atomic_write(header) as stream:
        stream.write(c_header(info, path.name).encode())


def system_compiler() -> list[str]:
    """The C compiler that links artefacts: $CC, or the first found of cc, gcc, clang. Raises QccError where there is none."""
    missing = (
        "no C compiler found to link the artefact, expected cc, gcc or clang; install one (Debian: apt install gcc), or set CC; "
        "qcc.compile() without saving needs none"
    )
    return find_compiler("CC", ("cc", "gcc", "clang"), "C", missing)


def _run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise QccError(f"cannot run '{command[0]}': {error.strerror}; install a C compiler (Debian: apt install gcc)") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-1500:]
        missing = "; install the linker and OpenMP (Debian: apt install gcc binutils)" if "cannot find" in words else ""
        raise QccError(f"linking the artefact failed{missing}: '{' '.join(command)}' says: {words}")
