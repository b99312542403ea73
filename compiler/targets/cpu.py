"""CPU targets: what instructions a CPU has, and how a compilation becomes an executable for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from qcc.dialects.errors import QccError

if TYPE_CHECKING:
    from qcc.compiler.driver import Compilation

# LLVM's target features that qcc knows, in the order of QCC_CPU_FEATURES in runtime/cpu/include/qcc_runtime.h (a test compares them).
FEATURES = (
    "sse4.2",
    "popcnt",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "bmi",
    "bmi2",
    "lzcnt",
    "movbe",
    "avxvnni",
    "avx512f",
    "avx512cd",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512vnni",
    "avx512ifma",
    "avx512vbmi",
    "avx512vbmi2",
    "avx512bitalg",
    "avx512vpopcntdq",
    "gfni",
    "avx512bf16",
    "avx512fp16",
    "amx-tile",
    "amx-int8",
    "amx-bf16",
)

_V2 = ("sse4.2", "popcnt")
_V3 = (*_V2, "avx", "f16c", "fma", "avx2", "bmi", "bmi2", "lzcnt", "movbe")
_V4 = (*_V3, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
_ICELAKE = (*_V4, "avx512vnni", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512vpopcntdq", "gfni")
_SAPPHIRE = (*_ICELAKE, "avxvnni", "avx512bf16", "avx512fp16", "amx-tile", "amx-int8", "amx-bf16")

PRESETS: dict[str, tuple[str, ...]] = {  # LLVM's CPU name -> features
    "x86-64": (),
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
    "haswell": _V3,
    "alderlake": (*_V3, "avxvnni", "gfni"),
    "skylake-avx512": _V4,
    "cascadelake": (*_V4, "avx512vnni"),
    "icelake-server": _ICELAKE,
    "sapphirerapids": _SAPPHIRE,
    "znver3": _V3,
    "znver4": (*_ICELAKE, "avx512bf16"),
}

_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

ISA_FEATURES: dict[str, frozenset[str]] = {  # of dialects.instruction_sets.ISAS, best first -> features it needs
    "amx": _AVX512 | {"avx512vnni", "avx512vbmi", "avx512bf16", "amx-tile", "amx-int8", "amx-bf16"},
    "avx512_bf16": _AVX512 | {"avx512vnni", "avx512vbmi", "avx512bf16"},
    "avx512_vbmi": _AVX512 | {"avx512vnni", "avx512vbmi"},
    "avx512_vnni": _AVX512 | {"avx512vnni"},
    "avx512": _AVX512,
    "avx_vnni": _AVX2 | {"avxvnni"},
    "avx2": _AVX2,
    "generic": frozenset(),
}


@dataclass(frozen=True)
class CpuTarget:
    """A CPU by name: `native` (this machine), or one of PRESETS. `qcc.compile(model, target=CpuTarget("x86-64-v3"))`."""

    cpu: str = "native"

    def __post_init__(self) -> None:
        if self.cpu != "native" and self.cpu not in PRESETS:
            raise QccError(f"cpu is '{self.cpu}', expected native or one of {', '.join(PRESETS)}")

    @property
    def features(self) -> tuple[str, ...]:
        """The features of FEATURES that the target has."""
        if self.cpu != "native":
            return tuple(f for f in FEATURES if f in PRESETS[self.cpu])
        mask = host_feature_mask()
        return tuple(f for i, f in enumerate(FEATURES) if mask >> i & 1)

    @property
    def feature_mask(self) -> int:
        """`features` as the bits that the runtime checks."""
        return sum(1 << FEATURES.index(f) for f in self.features)

    @property
    def isa(self) -> str:
        """The best instruction set that codelets are written for. The CPUs with avx512fp16 are Intel's, where vdpbf16ps is slower than f32
        (decision 0006)."""
        slow = {"avx512_bf16"} if "avx512fp16" in self.features else set[str]()
        return next(name for name, needed in ISA_FEATURES.items() if needed <= set(self.features) and name not in slow)

    @property
    def runs_here(self) -> bool:
        """Whether this machine has every feature."""
        return not self.feature_mask & ~host_feature_mask()

    def options(self) -> dict[str, str]:
        """The fields of CompileOptions that choose this target."""
        return {"target": "cpu", "cpu": self.cpu}

    def stage_options(self) -> dict[str, Any]:
        """What stages of the pipeline may name in braces."""
        features = "" if self.cpu == "native" else ",".join(f"+{f}" for f in self.features)
        return {
            "cpu": self.cpu,
            "cpu_features": features,
            "cpu_feature_mask": self.feature_mask,
            "isa": self.isa,
            "byte_expand": str("avx512vbmi2" in self.features).lower(),
            "popcount": str("avx512vpopcntdq" in self.features).lower(),
        }


def host_feature_mask() -> int:
    """Features of this machine, as the runtime finds them by CPUID."""
    from qcc.runtime.cpu import loader

    return int(loader.runtime().qcc_cpu_features())


def _autotune(compilation: Compilation, target: Any, machine: Any) -> None:
    """Measure register tiles on this machine and set them. Raises QccError where the target's code does not run here."""
    from qcc.compiler import pipeline
    from qcc.compiler.cost import autotune
    from qcc.compiler.emit import program
    from qcc.passes.base import PassContext, Stage, run_pipeline

    if not target.runs_here:
        raise QccError(
            f"--autotune measures on this machine, which cannot run code for {target.cpu}; leave it out or compile on such a machine"
        )

    def build(module: Any, tiles: str) -> Any:
        stages = dict(pipeline.forms(compilation.options))["llvm"]
        run_pipeline(module, [Stage("retile-contractions", f"tiles={tiles}"), *stages], PassContext())
        return program.executable(module, target, threads=1)

    tiles = autotune.choose(compilation.module, machine, build, features=target.features, progress=compilation.observer.progress)
    run_pipeline(compilation.module, [Stage("retile-contractions", f"tiles={tiles}")])
    compilation.options = replace(compilation.options, tiles=tiles)


def build(compilation: Compilation, *, threads: int | None = None) -> Any:
    """Run the pipeline to LLVM and make the executable."""
    from qcc.compiler import driver
    from qcc.compiler.cost import predict, probe
    from qcc.compiler.emit import program

    target: Any = CpuTarget(compilation.options.cpu)
    machine = probe.description(compilation.options.machine, target.isa, native=target.cpu == "native")
    module = compilation.run_to("tiled")
    if compilation.options.autotune:
        _autotune(compilation, target, machine)
    predicted = predict.steps(module, machine)
    module = compilation.run_to("llvm")
    report = driver.report_base(compilation, predict.layers(predicted)) | {"machine": asdict(machine)}
    return program.executable(module, target, options=compilation.options, report=report, threads=threads)
