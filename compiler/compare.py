"""Compare a compiled model with the numpy reference layer by layer and name the first layer that leaves it.

The compiled side returns every layer's output (option `keep_layers`, pass `keep-layer-outputs`). The reference runs the same integer form.
Each layer is judged twice:

* by itself: the reference computes the layer from what the *compiled* model fed to it, so a wrong layer does not blame those after it.
  Quantized results must be equal; float results may differ by `FLOAT_TOLERANCE` of the layer's largest value, because the order of sums
  and the polynomials of exponentials are the target's own;
* since the input: against the reference run from the model's input, which shows how errors of float layers travel.

`artefact` adds two figures from the source model: its graph form, before any integer pass.

* source: against that form, computed in float. It shows what the passes themselves changed: ties that round to the other side, and
  biases rounded to the accumulator's step;
* rounding: what the model's own quantization costs there, against the same form without any rounding of activations. A layer whose range
  or scale is wrong stands out, wherever in the model the accuracy drops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcc.compiler import driver
from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, layer_name, op_attribute, walk
from qcc.passes.values import per_tensor
from qcc.runtime.reference import formats, interpreter

Array = np.ndarray[Any, Any]

FLOAT_TOLERANCE = 1e-4
POOR_DB = 20.0  # of 8 bits with a fitting range, normal values have some 40


@dataclass(frozen=True)
class Error:
    """How far `found` is from `expected`, both real. `sqnr_db`: 10 log10(signal power / error power), infinite where equal."""

    differing: int
    count: int
    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float

    @staticmethod
    def of(found: Array, expected: Array) -> Error:
        a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        off = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=~same))  # equal infinities have no difference
        noise, signal = float(off @ off), float(b @ b)
        lengths = math.sqrt(float(a @ a)) * math.sqrt(signal)
        return Error(
            differing=int(np.count_nonzero(~same)),
            count=a.size,
            max_abs=float(off.max(initial=0.0)),
            mean_abs=float(off.mean()) if a.size else 0.0,
            cosine=float(a @ b) / lengths if lengths else float(noise == 0),
            sqnr_db=math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf,
        )


@dataclass(frozen=True)
class Rounding:
    """What quantizing a value costs: `sqnr_db` as in `Error`, the share of values `outside` of `range`, and what values `reach`."""

    sqnr_db: float
    range: tuple[float, float]
    reach: tuple[float, float]
    outside: float

    @staticmethod
    def of(real: Array, stored: Array, kind: ir.RankedTensorType) -> Rounding:
        """Of `real` values that became `stored` ones, integers with one scale."""
        low, high, half = _range(kind)
        outside = float(np.mean((real < low - half) | (real > high + half)))
        return Rounding(Error.of(_real(stored, kind), real).sqnr_db, (low, high), (float(real.min()), float(real.max())), outside)

    @property
    def words(self) -> str:
        reach, within = (f"{low:.3g}..{high:.3g}" for low, high in (self.reach, self.range))
        return f"{self.outside:.1%} of its values, which reach {reach}, lie outside of {within}"


def _range(kind: ir.RankedTensorType) -> tuple[float, float, float]:
    """Least and greatest value of integers with one scale, and half a step."""
    a = element_types.affine(kind)
    assert a is not None
    low, high = ((bound - int(a.zero_points[0])) * float(a.scales[0]) for bound in (a.qmin, a.qmax))
    return low, high, float(a.scales[0]) / 2


@dataclass(frozen=True)
class Layer:
    """One layer's output. `steps` is the greatest difference of stored integers, None for a float output."""

    name: str
    op: str
    own: Error
    since_input: Error
    steps: int | None
    largest: float
    source: Error | None = None
    rounding: Rounding | None = None

    @property
    def leaves(self) -> bool:
        """Whether the layer by itself leaves the reference."""
        if self.steps is not None:
            return self.steps > 0
        return not self.own.max_abs <= FLOAT_TOLERANCE * self.largest  # also where it is NaN


@dataclass(frozen=True)
class Comparison:
    """All layers in program order."""

    layers: Sequence[Layer]

    @property
    def first(self) -> Layer | None:
        """The first layer that leaves the reference."""
        return next((layer for layer in self.layers if layer.leaves), None)

    @property
    def same(self) -> bool:
        return self.first is None

    @property
    def text(self) -> str:
        """A table, and one sentence that names the first layer that leaves the reference."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        heads = f"{'differing':>13} {'max abs':>10} {'mean abs':>10} {'cosine':>9} {'SQNR dB':>8} {'since input':>12} {'source':>8}"
        lines = [f"{'layer':{width}}  {heads} {'rounding':>9}"]
        for layer in self.layers:
            e = layer.own
            source, rounding = ("" if given is None else _decibel(given.sqnr_db) for given in (layer.source, layer.rounding))
            lines.append(
                f"{layer.name:{width}}  {f'{e.differing}/{e.count}':>13} {e.max_abs:10.3g} {e.mean_abs:10.3g} {e.cosine:9.6f} "
                f"{_decibel(e.sqnr_db):>8} {_decibel(layer.since_input.sqnr_db):>12} {source:>8} {rounding:>9}"
                f"{'  <- leaves the reference' if layer.leaves else ''}"
            )
        return "\n".join([*lines, self.verdict, *([self.costliest] if self.costliest else [])])

    @property
    def verdict(self) -> str:
        if (layer := self.first) is None:
            exact = sum(layer.own.differing == 0 for layer in self.layers)
            return (
                f"no layer leaves the reference: {exact} of {len(self.layers)} are equal bit for bit, the others within {FLOAT_TOLERANCE}"
            )
        e = layer.own
        steps = "" if layer.steps is None else f", by at most {layer.steps} steps"
        return (
            f"first layer that leaves the reference: '{layer.name}' ({layer.op}): {e.differing} of {e.count} values differ{steps}; "
            f"max abs {e.max_abs:.3g}, mean abs {e.mean_abs:.3g}, cosine {e.cosine:.6f}, SQNR {_decibel(e.sqnr_db)} dB"
        )

    @property
    def costliest(self) -> str:
        """A sentence about the layer that quantization costs most, '' where nothing is known of it."""
        found = [(layer.rounding.sqnr_db, layer.name, layer.rounding) for layer in self.layers if layer.rounding is not None]
        if not found:
            return ""
        sqnr, name, r = min(found, key=lambda each: each[0])
        words = f"quantization costs most at '{name}': SQNR {_decibel(sqnr)} dB"
        return words if sqnr >= POOR_DB else f"{words}; {r.words}; calibrate it again, or give it more bits"


def _decibel(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}"


def artefact(executable: Any, model: Any, inputs: Sequence[Array], *, source: bool = True) -> Comparison:
    """Compare `executable`, compiled from `model` with `keep_layers`, on `inputs`; with the `source` graph in float as well.

    Raises QccError where it was compiled without, or from another model.
    """
    options = CompileOptions(**executable.info.get("report", {}).get("options", {}))
    if not options.keep_layers:
        raise QccError("the artefact does not keep its layers' outputs; compile it with --keep-layers to compare it")
    compilation = driver.start(model, options, example_inputs=inputs)
    graph = compilation.run_to("graph")
    values, costs = (_source_values(graph, inputs), roundings(graph, inputs)) if source else ({}, {})
    module = compilation.run_to("integer")
    outputs = executable(*inputs)
    return module_outputs(module, inputs, list(outputs) if isinstance(outputs, tuple | list) else [outputs], values, costs)


Place = tuple[str, str]  # name of a layer, type of a quantized value
Source = dict[Place, Array]  # what the source graph computes there


def _source_values(module: ir.Module, inputs: Sequence[Array]) -> Source:
    """Every quantized value of a graph-form module, under the names of the layers between it and the previous quantized value."""
    found: Source = {}

    def collect(op: Any, results: Sequence[Array]) -> None:
        if op.name != "qcc.quantize":
            return
        for place in _places(op):
            found.setdefault(place, results[0])

    interpreter.run(module, list(inputs), on_op=collect)
    return found


def _places(quantize: Any) -> Iterator[Place]:
    maker, kind = quantize, str(quantize.results[0].type)
    while maker is not None and maker.name != "qcc.dequantize":
        yield layer_name(maker.location), kind
        maker = None if not maker.operands or isinstance(maker.operands[0].owner, ir.Block) else maker.operands[0].owner.operation


def roundings(module: ir.Module, inputs: Sequence[Array]) -> dict[Place, Rounding]:
    """What every quantize of a graph-form module costs by itself: dequantize gives back what was quantized."""
    main = next(op for op in walk(module, "func.func") if op_attribute(op, "sym_name") == "main")
    real: dict[Any, Array] = dict(zip(main.regions[0].blocks[0].arguments, inputs, strict=True))
    found: dict[Place, Rounding] = {}

    def pass_on(op: Any, results: Sequence[Array]) -> Sequence[Array] | None:
        if op.name == "qcc.quantize" and op.operands[0] in real:
            x, kind = real[op.operands[0]], op.results[0].type
            if per_tensor(op.results[0]) is not None and x.size:
                low, high, _ = _range(kind)  # a bound of zero is a ReLU that the exporter left out
                x = np.maximum(x, 0) if low == 0 else np.minimum(x, 0) if high == 0 else x
                for place in _places(op):
                    found.setdefault(place, Rounding.of(x, results[0], kind))
            real[op.results[0]] = x
            return None
        results = [real[op.operands[0]]] if op.name == "qcc.dequantize" and op.operands[0] in real else results
        quantized = [v for v in op.results if any(use.owner.name == "qcc.quantize" for use in v.uses)]
        real.update({value: array for value, array in zip(op.results, results, strict=True) if value in quantized})
        return results

    interpreter.run(module, list(inputs), on_op=pass_on)
    return found


def module_outputs(
    module: ir.Module, inputs: Sequence[Array], outputs: Sequence[Array], source: Source | None = None,
    roundings: Mapping[Place, Rounding] | None = None,
) -> Comparison:  # fmt: skip
    """Compare `outputs`, all results of a compiled integer-form `module` whose layers are kept, with the reference on `inputs`."""
    main = next(op for op in walk(module, "func.func") if op_attribute(op, "sym_name") == "main")
    block = main.regions[0].blocks[0]
    returned = list(block.operations[len(block.operations) - 1].operands)
    names = op_attribute(main, "qcc.outputs", [str(i) for i in range(len(returned))])
    if len(returned) != len(outputs):
        raise QccError(f"the artefact gives {len(outputs)} values, the model {len(returned)}; expected the model it was compiled from")
    for name, value, found in zip(names, returned, outputs, strict=True):
        if list(value.type.shape) != list(found.shape):
            raise QccError(
                f"the artefact gives {list(found.shape)}, the model {list(value.type.shape)}; expected the model it was compiled from",
                layer=name,
            )
    judge = _Judge(dict(zip(returned, zip(names, outputs, strict=True), strict=True)), source or {}, roundings or {})
    interpreter.run(module, list(inputs), on_op=judge.remember)
    interpreter.run(module, list(inputs), on_op=judge.judge)
    return Comparison(judge.layers)


@dataclass
class _Judge:
    """`kept`: value -> (name, what the compiled model gave)."""

    kept: dict[Any, tuple[str, Array]]
    source: Source
    roundings: Mapping[Place, Rounding]
    expected: dict[str, Array] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def remember(self, op: Any, results: Sequence[Array]) -> None:
        """First run: what the reference makes of the model's input."""
        for value, array in zip(op.results, results, strict=True):
            if value in self.kept:
                self.expected[self.kept[value][0]] = array

    def judge(self, op: Any, results: Sequence[Array]) -> list[Array] | None:
        """Second run: judge each layer, then go on with what the compiled model gave."""
        replaced = list(results)
        for i, (value, array) in enumerate(zip(op.results, results, strict=True)):
            if value not in self.kept:
                continue
            name, found = self.kept[value]
            found = found.astype(array.dtype, copy=False)
            quantized = str(value.type.element_type).startswith("!")
            reals = [_real(v, value.type) if quantized else v for v in (found, array, self.expected[name])]
            steps = int(np.abs(found.astype(np.int64) - array.astype(np.int64)).max(initial=0)) if quantized else None
            largest = float(np.abs(reals[1]).max(initial=0.0))
            place = (name.partition("#")[0], str(value.type))
            origin = self.source.get(place)
            against = None if origin is None else Error.of(reals[0], _real(origin, value.type))
            own, since = Error.of(reals[0], reals[1]), Error.of(reals[0], reals[2])
            self.layers.append(Layer(name, op.name, own, since, steps, largest, against, self.roundings.get(place)))
            replaced[i] = found
        return replaced


def _real(stored: Array, kind: ir.RankedTensorType) -> Array:
    """Real values of a quantized tensor."""
    a = element_types.affine(kind)
    if a is None:
        return formats.decode(stored, kind)
    return (stored.astype(np.float64) - a.expand(a.zero_points, kind.shape)) * a.expand(a.scales, kind.shape)
