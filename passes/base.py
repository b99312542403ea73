"""What a pass is, and how pipelines of qcc's and upstream's passes are written and run.

A pass is one file `passes/<room>/<its_name>.py` with one class `<ItsName>Pass(Pass)`, named `its-name`; the registry is derived from the
file names, so that starting `qcc-opt` imports only the passes it runs.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import diagnosed, ir, run_upstream

ROOMS = ("graph", "integer", "tile", "llvm", "isa")


@dataclass(frozen=True)
class NoOptions:
    """Options of a pass that has none."""


@dataclass
class PassContext:
    """What passes may leave for the driver and the report: remarks and facts per layer, in the order found."""

    remarks: list[str] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # layer name -> fact name -> value
    progress: Callable[[str], None] = lambda text: None

    def fact(self, layer: str, **values: Any) -> None:
        """Record facts about a layer for the report."""
        self.facts.setdefault(layer, {}).update(values)


class Pass:
    """Base class. `Options` is a frozen dataclass whose fields are the options in `name{field=value}` (underscores become dashes)."""

    name: ClassVar[str] = ""
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: Any = None) -> None:
        self.options: Any = options if options is not None else self.Options()

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Transform `module` in place; raises QccError for what the user must change."""
        raise NotImplementedError  # abstract


@dataclass(frozen=True)
class Stage:
    """One entry of a pipeline: a pass by name with options as written, and the reason it stands here."""

    name: str
    options: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        return f"{self.name}{{{self.options}}}" if self.options else self.name


@functools.cache
def pass_files() -> dict[str, Path]:
    """Every pass of qcc by name, from the file names."""
    root = Path(__file__).resolve().parent
    return {
        path.stem.replace("_", "-"): path for room in ROOMS for path in sorted((root / room).glob("*.py")) if not path.stem.startswith("_")
    }


def load_pass(name: str) -> type[Pass]:
    """The class of qcc pass `name`; raises KeyError for an unknown name."""
    path = pass_files()[name]
    module = importlib.import_module(f"qcc.passes.{path.parent.name}.{path.stem}")
    return getattr(module, "".join(part.capitalize() for part in path.stem.split("_")) + "Pass")


def make_pass(name: str, options: str = "") -> Pass:
    """An instance of pass `name` with options written as `key=value key=value`."""
    cls = load_pass(name)
    fields = {f.name: f for f in dataclasses.fields(cls.Options)}
    values: dict[str, Any] = {}
    for item in options.split():
        key, _, text = item.partition("=")
        known = fields.get(key.replace("-", "_"))
        if known is None:
            choices = ", ".join(sorted(f.replace("_", "-") for f in fields)) or "none"
            raise QccError(f"pass '{name}' has no option '{key}', expected one of: {choices}")
        values[known.name] = _option_value(name, key, text, str(known.type))
    return cls(cls.Options(**values))


def _option_value(pass_name: str, key: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text not in ("true", "false", ""):
            raise QccError(f"option '{key}' of pass '{pass_name}' is '{text}', expected true or false")
        return text != "false"
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise QccError(f"option '{key}' of pass '{pass_name}' is '{text}', expected a number") from None
    return text


def parse_pipeline(text: str) -> list[Stage]:
    """`builtin.module(a,b{x=1},func.func(c))` or a plain list, as stages. Raises QccError where brackets do not match."""
    text = text.strip()
    if match := re.fullmatch(r"builtin\.module\((.*)\)", text, re.DOTALL):
        text = match[1]
    stages: list[Stage] = []
    for item in _split(text):
        if match := re.fullmatch(r"([\w.\-]+)\s*(?:\{(.*)\})?", item, re.DOTALL):
            stages.append(Stage(match[1], (match[2] or "").strip()))
        else:
            stages.append(Stage(item))  # nested, such as func.func(...): upstream's own syntax
    return stages


def _split(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for i, char in enumerate(text):
        if char in "({[":
            depth += 1
        elif char in ")}]":
            depth -= 1
            if depth < 0:
                raise QccError(f"pass pipeline has an unexpected '{char}' after '{text[:i]}'")
        elif char == "," and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    if depth:
        raise QccError(f"pass pipeline '{text}' has an unclosed bracket")
    if text[start:].strip():
        yield text[start:].strip()


def run_stage(stage: Stage, module: ir.Module, context: PassContext, *, verify: bool = True) -> None:
    """Run one stage, ours or upstream's, and verify the module after it; not after ours without `verify`."""
    if stage.name in pass_files():
        with module.context, ir.Location.unknown():
            make_pass(stage.name, stage.options).run(module, context)
        if verify:
            _verify(stage, module)
        return
    try:
        run_upstream(f"builtin.module({stage.text})", module.operation)
    except ValueError as error:
        raise QccError(f"no pass or pipeline '{stage.name}': {str(error).strip()}; `qcc-opt --list-passes` prints qcc's own") from None
    except ir.MLIRError as error:
        raise diagnosed(f"pass '{stage.name}' failed", error) from None


def _verify(stage: Stage, module: ir.Module) -> None:
    try:
        module.operation.verify()
    except ir.MLIRError as error:
        raise AssertionError(str(diagnosed(f"invalid IR behind pass '{stage.name}'", error))) from None


def run_pipeline(
    module: ir.Module,
    stages: Sequence[Stage],
    context: PassContext | None = None,
    after: Callable[[Stage, float], None] | None = None,
) -> PassContext:
    """Run `stages` in order; `after(stage, seconds)` is called behind each."""
    context = context or PassContext()
    for stage in stages:
        start = time.perf_counter()
        context.progress(stage.name)
        run_stage(stage, module, context)
        if after is not None:
            after(stage, time.perf_counter() - start)
    return context
