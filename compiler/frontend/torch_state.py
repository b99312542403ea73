"""State of an exported program: buffers that a run changes, such as the keys and values that a decoder has seen, go in and come out.

`prepare` gives the program another signature: every such buffer is the last of the inputs and its new value the last of the outputs, in
one order. What they mean to each other is in `State`, and on `@main` as `qcc.states`, until `separate-state` makes operations of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind

from qcc.compiler.frontend.torch_nodes import is_in_place
from qcc.dialects import weights
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import to_attribute

_DROPPED = OutputKind.USER_INPUT_MUTATION
"""Writing to the caller's input is left out: an in-place activation on the input is no part of the result."""


@dataclass(frozen=True)
class State:
    """One buffer: `value` is what it holds at first."""

    name: str
    value: Any


def name_state(program: Any) -> None:
    """Constants that the graph writes to become buffers.

    Tensors that a model keeps beside its buffers, as caches of `transformers` are, are exported as constants, of which no decomposition
    expects that they change. Where such a tensor is registered as a buffer too, which the graph does not use, that is its name.
    """
    specs, graph = program.graph_signature.input_specs, program.graph
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    unused = {_address(program, spec): spec for spec in specs if spec.kind == InputKind.BUFFER and not nodes[spec.arg.name].users}
    for spec in list(specs):
        if spec.kind != InputKind.CONSTANT_TENSOR or not any(map(is_in_place, nodes[spec.arg.name].users)):
            continue
        registered = unused.pop(_address(program, spec), None)
        spec.kind, spec.persistent = InputKind.BUFFER, False
        if registered is not None:
            spec.target, spec.persistent = registered.target, registered.persistent
            specs.remove(registered)
            graph.erase_node(nodes[registered.arg.name])


def _value(program: Any, spec: Any) -> Any:
    """The tensor behind a buffer or a constant."""
    return (program.state_dict if spec.target in program.state_dict else program.constants)[spec.target]


def _address(program: Any, spec: Any) -> int:
    return _value(program, spec).data_ptr()


def take_state(program: Any) -> list[State]:
    """The buffers that `program` changes, which become its last inputs and outputs.

    Raises QccError for a model that changes its parameters.
    """
    signature, output = program.graph_signature, next(node for node in program.graph.nodes if node.op == "output")
    pairs = [(spec, value) for spec, value in zip(signature.output_specs, output.args[0], strict=True) if spec.kind != _DROPPED]
    written = {spec.target: pair for pair in pairs if (spec := pair[0]).kind == OutputKind.BUFFER_MUTATION}
    for spec, _ in pairs:
        if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.BUFFER_MUTATION):
            raise QccError(
                f"the model writes to '{spec.target}' ({spec.kind.name.lower()}), expected one that changes no more than buffers"
            )
    _move_to_end(program, list(written))
    kept = [pair for pair in pairs if pair[0].kind == OutputKind.USER_OUTPUT] + list(written.values())
    output.args = (tuple(value for _, value in kept),)
    signature.output_specs = [spec for spec, _ in kept]
    found: list[State] = []
    for spec in (s for s in signature.input_specs if s.kind == InputKind.BUFFER and s.target in written):
        found.append(State(spec.target, _value(program, spec)))
        spec.kind, spec.target, spec.persistent = InputKind.USER_INPUT, None, None
    for spec, _ in written.values():
        spec.kind, spec.target = OutputKind.USER_OUTPUT, None
    return found


def _move_to_end(program: Any, targets: list[str]) -> None:
    """The placeholders of the buffers `targets` behind all others, in that order."""
    signature = program.graph_signature
    specs = {spec.target: spec for spec in signature.input_specs if spec.kind == InputKind.BUFFER}
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for target in targets:
        spec, last = specs[target], next(node for node in reversed(program.graph.nodes) if node.op == "placeholder")
        if nodes[spec.arg.name] is not last:
            last.append(nodes[spec.arg.name])
        signature.input_specs.remove(spec)
        signature.input_specs.append(spec)


def on_function(main: Any, states: list[State]) -> None:
    """Say on `@main` which of its last arguments and results are `states`."""
    if states:
        main.attributes["qcc.states"] = to_attribute([_described(state) for state in states])


def _described(state: State) -> dict[str, Any]:
    value = state.value.detach()
    if not torch.any(value):  # zeros need no bytes
        return {"name": state.name}
    return {"name": state.name, "value": weights.constant_attribute(value.contiguous().numpy(), state.name)}
