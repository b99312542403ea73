"""From a model to an executable: runs the stages of `pipeline.py`, checks the form at each border, and explains failures.

A model error raises QccError. Anything else that a pass raises is a bug of qcc: the driver writes a reproducer (the IR before the failing
pass and the command that runs it) and raises InternalError, which names it. The IR is verified at borders and before upstream's passes:
verifying behind every pass is a quarter of the time that long models take. After a failure it is done, to find the pass.
"""

from __future__ import annotations

import functools
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qcc.compiler import frontend, pipeline, report
from qcc.compiler.cost import energy, layers
from qcc.compiler.options import CompileOptions
from qcc.dialects import forms
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir
from qcc.passes.base import PassContext, Stage, pass_files, run_stage


class InternalError(Exception):
    """A bug in qcc, with the path of its reproducer."""

    def __init__(self, message: str, reproducer: Path | None) -> None:
        super().__init__(message)
        self.reproducer = reproducer


@dataclass
class Observer:
    """What a caller may watch: every member may be replaced."""

    progress: Callable[[str, float], None] = lambda text, fraction: None  # text and the fraction of stages done
    after_stage: Callable[[Stage, float, ir.Module], None] = lambda stage, seconds, module: None
    at_form: Callable[[str, ir.Module], None] = lambda form, module: None


@dataclass
class Compilation:
    """One model on its way through the forms. `module` is changed in place; `seconds` holds the time of every stage run so far."""

    imported: frontend.ImportedModel
    reload: Callable[[], frontend.ImportedModel]
    options: CompileOptions
    observer: Observer = field(default_factory=Observer)
    context: PassContext = field(default_factory=PassContext)
    seconds: list[tuple[str, float]] = field(default_factory=list)
    layers: list[layers.LayerCount] = field(default_factory=list)
    energy_table: energy.EnergyTable = field(default_factory=energy.EnergyTable)
    form: str = "torch"

    @property
    def module(self) -> ir.Module:
        return self.imported.module

    def run_to(self, form: str) -> ir.Module:
        """Run every stage up to `form` (graph, integer, tiled, llvm or isa) and return the module in it."""
        steps = pipeline.forms(self.options)
        names = [name for name, _ in steps]
        if form not in names:
            more = ["asm", "object"] if self.options.target == "cpu" else []
            raise QccError(f"target {self.options.target} has no form '{form}', expected one of {', '.join([*names, *more])}")
        total = sum(len(stages) for _, stages in steps[: names.index(form) + 1])
        for name, stages in steps[names.index(self.form) + 1 if self.form in names else 0 : names.index(form) + 1]:
            for index, stage in enumerate(stages):
                self.observer.progress(stage.name, (len(self.seconds) - 1) / max(total, 1))
                start = time.perf_counter()
                ours_follows = index + 1 < len(stages) and stages[index + 1].name in pass_files()
                self._run(stage, verify=not ours_follows)
                self.seconds.append((stage.name, time.perf_counter() - start))
                self.observer.after_stage(stage, self.seconds[-1][1], self.module)
            forms.check(name, self.module)
            if name == "integer":
                self.layers = layers.count(self.module)
            self.form = name
            self.observer.at_form(name, self.module)
        return self.module

    def _run(self, stage: Stage, *, verify: bool) -> None:
        try:
            run_stage(stage, self.module, self.context, verify=verify)
        except QccError:
            raise
        except Exception as error:
            name, path = self._reproducer(stage)
            raise InternalError(f"pass '{name}' failed: {type(error).__name__}: {error}", path) from error

    def _reproducer(self, failed: Stage) -> tuple[str, Path | None]:
        """Import again and verify behind every stage: the name of the first that fails, and a folder with the IR before it and the command
        that runs it and the rest; `failed` and the module as it is, where that does not happen again."""
        folder = Path(tempfile.mkdtemp(prefix="qcc-reproducer-"))
        stages = [s for _, group in pipeline.forms(self.options) for s in group]
        try:
            done, module = _count_sound(stages, self.reload().module), self.reload().module
            _count_sound(stages[:done], module)
            rest = stages[done:] or [failed]
        except Exception:  # of the import
            module, rest = self.module, [failed]
        saved = folder / "before.mlir"
        saved.write_text(module.operation.get_asm(enable_debug_info=True))
        command = ["qcc-opt", str(saved), "--pass-pipeline=builtin.module(" + ",".join(s.text for s in rest) + ")"]
        (folder / "command.sh").write_text(shlex.join(command) + "\n")
        return rest[0].name, folder


def _count_sound(stages: Sequence[Stage], module: ir.Module) -> int:
    """Run `stages` until one fails or leaves invalid IR; how many did not."""
    for done, stage in enumerate(stages):
        try:
            run_stage(stage, module, PassContext())
        except Exception:
            return done
    return len(stages)


def start(
    model: Any,
    options: CompileOptions,
    *,
    example_inputs: Sequence[Any] | None = None,
    observer: Observer | None = None,
    calibration: Any = None,
) -> Compilation:
    """Import `model` (anything that `frontend.load` takes).

    `calibration` data (`compiler/calibration.py` says in which form) are run through the model first: it is compiled twice.
    Raises QccError for a file that cannot be read or a model that cannot be imported.
    """
    observer = observer or Observer()
    if calibration is not None:
        from qcc.compiler import calibration as measuring

        observer.progress("calibration", 0.0)
        options = measuring.options_with(
            calibration, options, lambda given: start(model, given, example_inputs=example_inputs), functools.partial(finish, threads=1)
        )
    observer.progress("import", 0.0)
    begin = time.perf_counter()

    def load() -> frontend.ImportedModel:
        return frontend.load(model, example_inputs, options.batch)

    table = energy.read_table(options.energy_table)
    compilation = Compilation(load(), load, options, observer, energy_table=table)
    compilation.seconds.append(("import", time.perf_counter() - begin))
    return compilation


def compile_model(
    model: Any,
    options: CompileOptions,
    *,
    example_inputs: Sequence[Any] | None = None,
    observer: Observer | None = None,
    calibration: Any = None,
    **run: Any,
) -> Any:
    """Compile `model` to an executable of the chosen target. `run` goes to the executable (threads)."""
    compilation = start(model, options, example_inputs=example_inputs, observer=observer, calibration=calibration)
    return finish(compilation, **run)


def finish(compilation: Any, **run: Any) -> Any:
    """Run what is left of the pipeline of a `Compilation` and build the executable."""
    if compilation.options.target == "fpga":
        from qcc.compiler.targets import fpga

        return fpga.build(compilation, **run)
    from qcc.compiler.targets import cpu

    return cpu.build(compilation, **run)


def report_base(compilation: Compilation, predicted: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """What both targets' reports start from: options, stage times, layers with facts and predicted times (us), remarks."""
    rows = report.layer_rows(compilation.layers, compilation.context.facts, predicted, compilation.energy_table)
    return {
        "options": asdict(compilation.options),
        "seconds": [{"stage": name, "seconds": seconds} for name, seconds in compilation.seconds],
        "layers": rows,
        "memory": compilation.context.facts.get("", {}),
        "totals": report.totals(rows),
        "energy_table": asdict(compilation.energy_table),
        "remarks": compilation.context.remarks,
    }
