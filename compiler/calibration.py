"""What calibration data say about a model: how much of every layer's input is 0.

The model is compiled for this CPU with every layer's output kept, run on the samples, and the zeros of what each product reads are
counted. The shares, one per layer, enter `CompileOptions.zeros`, hence the fingerprint; the data themselves do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qcc.compiler.options import CompileOptions
from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir, layer_name, op_attribute, walk
from qcc.passes.values import VIEWS

Array = np.ndarray[Any, Any]

MOST_SAMPLES = 64  # of what is given, evenly spread: a share of zeros settles after a few
_PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul", "qcc.dynamic_linear")
_MOVING = (*VIEWS, "qcc.broadcast")


@dataclass(frozen=True)
class _Source:
    """What a product reads: result `index` of @main (or its argument), and the stored number that means 0."""

    argument: bool
    index: int
    zero: int


def options_with(
    data: Any, options: CompileOptions, start: Callable[[CompileOptions], Any], finish: Callable[[Any], Any]
) -> CompileOptions:
    """`options` with what `data` say. `start` begins a compilation of the model, `finish` makes its executable.

    `data` is the path of a .npz file or a mapping, with one array for each of the model's inputs by name, or a sequence of arrays in their
    order. An array holds one input, or many along its first axis. Raises QccError for data that do not fit the model.
    """
    compilation = start(CompileOptions(batch=options.batch, activations="float", keep_layers=True))
    sources = _sources(compilation.run_to("integer"))
    executable = finish(compilation)
    zeros, counts = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0)
    for sample in samples(data, executable.inputs):
        made = executable(*sample)
        results = list(made) if isinstance(made, tuple | list) else [made]
        for name, source in sources.items():
            array = (sample if source.argument else results)[source.index]
            zeros[name] += int(np.count_nonzero(array == source.zero))
            counts[name] += array.size
    shares = {name: zeros[name] / counts[name] for name in sources if counts[name]}
    text = ";".join(f"{quote(name, safe='')}={share:.4f}" for name, share in shares.items())
    return replace(options, zeros=text)


def _sources(module: ir.Module) -> dict[str, _Source]:
    """Of every product of an integer-form module whose layers are kept, by its layer's name."""
    main = next(op for op in walk(module, "func.func") if op_attribute(op, "sym_name") == "main")
    block = main.regions[0].blocks[0]
    returned = {value: i for i, value in enumerate(block.operations[len(block.operations) - 1].operands)}
    arguments = {value: i for i, value in enumerate(block.arguments)}
    found: dict[str, _Source] = {}
    for op in walk(main):
        if op.name not in _PRODUCTS:
            continue
        value = op.operands[0]
        while value not in returned and value not in arguments and value.owner.name in _MOVING:
            value = value.owner.operands[0]
        kind = element_types.affine(ir.RankedTensorType(value.type))
        if kind is not None and (kind.axis is not None or kind.block is not None):
            continue
        zero = 0 if kind is None else int(kind.zero_points[0])
        if value in returned or value in arguments:
            argument = value not in returned
            found[layer_name(op.location)] = _Source(argument, arguments[value] if argument else returned[value], zero)
    return found


def samples(data: Any, inputs: Sequence[Any]) -> list[list[Array]]:
    """Lists of one array per input (`TensorSpec`) that `data` hold, at most MOST_SAMPLES."""
    arrays = _arrays(data, [spec.name for spec in inputs])
    parts = [_cut(array, spec) for array, spec in zip(arrays, inputs, strict=True)]
    counts = {len(part) for part in parts}
    if len(counts) != 1:
        held = ", ".join(f"{spec.name} {len(part)}" for spec, part in zip(inputs, parts, strict=True))
        raise QccError(f"calibration data hold a different number of samples for each input ({held}), expected the same for all")
    count = counts.pop()
    kept = sorted({i * count // MOST_SAMPLES for i in range(MOST_SAMPLES)}) if count > MOST_SAMPLES else range(count)
    return [[part[i] for part in parts] for i in kept]


def _arrays(data: Any, names: Sequence[str]) -> list[Array]:
    if isinstance(data, str | Path):
        try:
            held = np.load(data, allow_pickle=False)
            if isinstance(held, np.ndarray):
                data = [held]  # a .npy file
            else:
                with held:
                    data = {name: held[name] for name in held.files}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise QccError(
                f"cannot read calibration data from {data}: {error}; expected a .npz file, or a .npy file of one input"
            ) from None
    if isinstance(data, Mapping):
        if missing := [name for name in names if name not in data]:
            raise QccError(
                f"calibration data have no array '{missing[0]}', found {', '.join(map(repr, data)) or 'none'}; "
                f"expected one for each of the model's inputs: {', '.join(names)}"
            )
        return [np.asarray(data[name]) for name in names]
    found = [np.asarray(array) for array in (data if isinstance(data, Sequence) else [data])]
    if len(found) != len(names):
        raise QccError(f"calibration data have {len(found)} arrays, expected one for each of the model's inputs: {', '.join(names)}")
    return found


def _cut(array: Array, spec: Any) -> list[Array]:
    """The inputs of shape `spec.shape` that `array` holds along its first axis."""
    shape = tuple(spec.shape)
    if array.shape == shape:
        cut = array[None]
    elif array.shape[1:] == shape:
        cut = array
    elif shape and array.ndim == len(shape) and array.shape[1:] == shape[1:] and array.shape[0] >= shape[0]:
        cut = array[: array.shape[0] // shape[0] * shape[0]].reshape(-1, *shape)
    else:
        raise QccError(
            f"calibration data for input '{spec.name}' have shape {list(array.shape)}, "
            f"expected {list(shape)} or many of them along a first axis"
        )
    return [np.ascontiguousarray(one, spec.numpy) for one in cut]
