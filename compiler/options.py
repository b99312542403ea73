"""What a user may choose about a compilation: one frozen value with one fingerprint over all that changes the output."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from qcc.dialects.errors import QccError

FORMS = ("graph", "integer", "tiled", "llvm", "asm", "object", "isa")
TARGETS = ("cpu", "fpga")
OPTIMIZE = ("time", "size")
CODINGS = ("none", "huffman", "rans", "auto")
DECODES = ("load", "stream")
STORAGE = ("auto", "dense", "bitmap", "csr", "block")
ACTIVATIONS = ("auto", "float", "int16", "int8")
FLOAT_PRECISIONS = ("f32", "bf16")
LOW_RANK = ("auto", "off")


@dataclass(frozen=True)
class CompileOptions:
    """Options of `qcc` and of `qcc.compile`; every field is a command line option of the same name.

    `target` cpu or fpga; `cpu` native, an x86 level or a CPU name; `device` an accelerator preset; `batch` the size of a dynamic first
    axis; `optimize` time or size; `activations` how weight-only layers see their input (decision 0009): float, int16 or int8 quantized in
    the call, or auto, which is int16 where weights are integers and else float; `keep_layers` keeps every layer's output for comparison.
    `storage` of weights with zeros: auto (the fastest form by predicted time, or the smallest), dense, or bitmap, csr or block wherever
    there is a codelet for it.
    `low_rank` of float layers: auto splits those whose weights are the product of two thin matrices to the rounding of binary32, where that
    is predicted to pay; off leaves them whole.
    `coding` of stored weights: none, huffman, rans, or auto for the smallest per tensor; None is auto where `optimize` is size or
    `decode` is stream, else none.
    `decode` of coded weights: load (when the model is created) or stream (in every run, a few MB at a time: less memory, more time).
    `energy_table` is a JSON file of picojoules that the report's energy is counted with (`compiler/cost/energy.py`).
    `float_precision` f32 or bf16: what the products of float layers multiply (sums are f32).
    `machine` is a file of qcc-bench or the name of a shipped description, which times are predicted with ("": this machine's own where it
    was measured, else a shipped one for `cpu`).
    `zeros` states the share of each layer's input that is 0 (NAME=SHARE;...), as `calibration` data given to the compiler say.
    `autotune` measures register tiles on this machine, `tiles` states what it found (NAME=ROWSxCOLUMNS;...).
    """

    target: str = "cpu"
    cpu: str = "native"
    device: str = "ecp5-85k"
    batch: int = 1
    optimize: str = "time"
    activations: str = "auto"
    keep_layers: bool = False
    storage: str = "auto"
    coding: str | None = None
    decode: str = "load"
    energy_table: str | None = None
    float_precision: str = "f32"
    low_rank: str = "auto"
    machine: str = ""
    autotune: bool = False
    tiles: str = ""
    zeros: str = ""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise QccError(f"target is '{self.target}', expected one of {', '.join(TARGETS)}")
        if self.optimize not in OPTIMIZE:
            raise QccError(f"optimize is '{self.optimize}', expected one of {', '.join(OPTIMIZE)}")
        if self.storage not in STORAGE:
            raise QccError(f"storage is '{self.storage}', expected one of {', '.join(STORAGE)}")
        if self.coding is not None and self.coding not in CODINGS:
            raise QccError(f"coding is '{self.coding}', expected one of {', '.join(CODINGS)}")
        if self.decode not in DECODES:
            raise QccError(f"decode is '{self.decode}', expected one of {', '.join(DECODES)}")
        if self.decode == "stream" and self.coding == "none":
            raise QccError("decode is 'stream' and coding is 'none', so there is nothing to decode; leave coding out, or choose a codec")
        if self.activations not in ACTIVATIONS:
            raise QccError(f"activations is '{self.activations}', expected one of {', '.join(ACTIVATIONS)}")
        if self.float_precision not in FLOAT_PRECISIONS:
            raise QccError(f"float_precision is '{self.float_precision}', expected one of {', '.join(FLOAT_PRECISIONS)}")
        if self.low_rank not in LOW_RANK:
            raise QccError(f"low_rank is '{self.low_rank}', expected one of {', '.join(LOW_RANK)}")
        if self.batch < 1:
            raise QccError(f"batch is {self.batch}, expected at least 1")

    @property
    def weight_coding(self) -> str:
        """`coding`, or what it is where the user left it open."""
        return self.coding or ("auto" if self.optimize == "size" or self.decode == "stream" else "none")

    @property
    def fingerprint(self) -> str:
        """Short hash over every option that changes the artefact."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]
