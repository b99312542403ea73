"""What the cost model knows of a machine: rates of products, bandwidths by memory level, the cost of a step.

`qcc-bench machine` measures one once and keeps it as JSON; the defaults are what it gave on machines of a class. Rates are those of the
plainest loop, registers only, not those of a codelet: that is the cost model's business (`dialects/codelet_cost.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS

PRODUCTS = ("dot4_512", "dot4_256", "fma_512", "fma_256", "amx_int8", "amx_bf16")
LEVELS = ("l1", "l2", "l3", "dram")
FORMAT = 1


@dataclass(frozen=True)
class Machine:
    """`gmacs`: multiply-accumulates per ns of one thread by kind of product (PRODUCTS), 0 where the CPU lacks it.

    `cache_bytes` of l1, l2 (per core) and l3 (shared). `read_gbytes` and `step_ns` hold a pair: one thread, all `threads` together.
    """

    name: str
    cpu: str
    threads: int
    ghz: float
    gmacs: dict[str, float]
    cache_bytes: dict[str, int]
    read_gbytes: dict[str, tuple[float, float]]
    step_ns: tuple[float, float]

    def level_of(self, size_bytes: float) -> str:
        """The nearest memory level that keeps a working set of this size; half a cache is left to everything else."""
        return next((level for level in LEVELS[:3] if size_bytes <= self.cache_bytes[level] / 2), "dram")

    def read_bytes_per_cycle(self, level: str, threads: int = 1) -> float:
        """Bytes that one of `threads` threads reads from `level` in a cycle, while the others do the same."""
        alone, together = self.read_gbytes[level]
        return (alone if threads == 1 else min(alone, together / threads)) / self.ghz

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def read(path: Path) -> Machine:
    """The description in a JSON file. Raises QccError for anything else."""
    try:
        held: dict[str, Any] = json.loads(path.read_text())
        if held.pop("format") != FORMAT or set(held) != {f.name for f in fields(Machine)}:
            raise KeyError
        held["read_gbytes"] = {level: tuple(held["read_gbytes"][level]) for level in LEVELS}
        held["gmacs"] = {kind: float(held["gmacs"][kind]) for kind in PRODUCTS}
        held["step_ns"] = tuple(held["step_ns"])
        return Machine(**held)
    except OSError as error:
        raise QccError(f"cannot read {path}: {error}; make it with qcc-bench machine --out {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise QccError(f"{path} is no machine description of format {FORMAT}; make it again with qcc-bench machine --out {path}") from None


_EMERALD_RAPIDS = Machine(
    name="emerald-rapids-vnni",  # a virtual machine whose host keeps AMX to itself
    cpu="Intel Xeon, Emerald Rapids class, 2 threads",
    threads=2,
    ghz=2.9,
    gmacs={"dot4_512": 344.0, "dot4_256": 181.0, "fma_512": 83.0, "fma_256": 44.0, "amx_int8": 0.0, "amx_bf16": 0.0},
    cache_bytes={"l1": 48 << 10, "l2": 2 << 20, "l3": 64 << 20},
    read_gbytes={"l1": (215.0, 410.0), "l2": (117.0, 210.0), "l3": (25.0, 49.0), "dram": (12.5, 25.0)},
    step_ns=(6.0, 450.0),
)

DEFAULTS = {
    "emerald-rapids-vnni": _EMERALD_RAPIDS,
    "emerald-rapids-amx": replace(
        _EMERALD_RAPIDS, name="emerald-rapids-amx", gmacs=_EMERALD_RAPIDS.gmacs | {"amx_int8": 2000.0, "amx_bf16": 1000.0}
    ),
    "zen4": Machine(
        name="zen4",
        cpu="AMD EPYC, Zen 4, 2 threads",
        threads=2,
        ghz=3.65,
        gmacs={"dot4_512": 234.0, "dot4_256": 231.0, "fma_512": 57.5, "fma_256": 57.5, "amx_int8": 0.0, "amx_bf16": 0.0},
        cache_bytes={"l1": 32 << 10, "l2": 1 << 20, "l3": 32 << 20},
        read_gbytes={"l1": (224.0, 445.0), "l2": (116.0, 232.0), "l3": (78.0, 143.0), "dram": (29.5, 35.0)},
        step_ns=(3.1, 240.0),
    ),
    "x86-64-v3": Machine(
        name="x86-64-v3",
        cpu="any x86-64 with AVX2, 2 threads",
        threads=2,
        ghz=3.0,
        gmacs={"dot4_512": 0.0, "dot4_256": 0.0, "fma_512": 0.0, "fma_256": 48.0, "amx_int8": 0.0, "amx_bf16": 0.0},
        cache_bytes={"l1": 32 << 10, "l2": 1 << 20, "l3": 16 << 20},
        read_gbytes={"l1": (150.0, 300.0), "l2": (70.0, 140.0), "l3": (25.0, 45.0), "dram": (12.0, 20.0)},
        step_ns=(6.0, 450.0),
    ),
}


_DESCRIBED = {"amx": "emerald-rapids-amx", "avx512_bf16": "zen4"}


def shipped(isa: str) -> Machine:
    """The shipped description nearest to a CPU with instruction set `isa`: what passes choose by, because the same model must give the same
    code wherever it is compiled, and what times are predicted with where the machine was not measured."""
    if isa in _DESCRIBED:
        return DEFAULTS[_DESCRIBED[isa]]
    return DEFAULTS["emerald-rapids-vnni" if ISAS[isa].lanes == 16 or ISAS[isa].dot4 else "x86-64-v3"]
