"""Recurrent layers, unrolled into their steps.

Torch unrolls them too, but traces every operation of every step anew. Here one step is written, with its shapes, and copied for the
others. One product serves the inputs of all steps; then every step multiplies the state before it.
Source: the definitions of torch.nn.RNN, GRU and LSTM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.node import map_arg

from qcc.compiler.frontend.torch_nodes import arguments, meta_like

aten = torch.ops.aten
Cell = Callable[..., list[Any]]  # of a writer, a step's part of the product with x, the state and weights: the next state


def unroll(program: Any) -> None:
    """Replace every recurrent layer of an exported program, in place."""
    graph = program.graph
    for node in [n for n in graph.nodes if n.target in CELLS]:
        with graph.inserting_before(node):
            results = _layers(_Writer(graph, node), CELLS[node.target], arguments(node))
        for user in list(node.users):  # operator.getitem
            made = results[user.args[1]]
            user.replace_all_uses_with(made)
            program.graph_signature.replace_all_uses(user.name, made.name)
            graph.erase_node(user)
        graph.erase_node(node)


class _Writer:
    """Writes operations of `source`'s layer to a graph."""

    def __init__(self, graph: Any, source: Any) -> None:
        self.graph, self.source = graph, source

    def __call__(self, target: Any, *args: Any) -> Any:
        made = self.graph.call_function(target, args)
        made.meta = meta_like(self.source, target(*map_arg(args, lambda node: node.meta["val"])))
        return made

    def part(self, x: Any, number: int, size: int, axis: int = -1) -> Any:
        """Elements `number * size` to `(number + 1) * size` of an axis."""
        return self(aten.slice.Tensor, x, axis, number * size, (number + 1) * size)


def _layers(write: _Writer, cell: Cell, given: dict[str, Any]) -> list[Any]:
    """Output, [steps, batch, directions * hidden] or `batch_first`, and last states, [layers * directions, batch, hidden]."""
    y = write(aten.transpose.int, given["input"], 0, 1) if given["batch_first"] else given["input"]
    first = given["hx"] if isinstance(given["hx"], list | tuple) else [given["hx"]]
    directions = 2 if given["bidirectional"] else 1
    count = len(given["params"]) // (given["num_layers"] * directions)  # of weights
    last: list[list[Any]] = []
    for _ in range(given["num_layers"]):
        x, made = y, []
        for backwards in (False, True)[:directions]:
            number = len(last)
            weights = list(given["params"][number * count : (number + 1) * count])
            biases = [weights.pop(2), weights.pop(2)] if given["has_biases"] else [None, None]
            state = [write.part(h, number, 1, 0) for h in first]
            inputs = write(aten.linear.default, x, weights[0], biases[0])  # [steps, batch, gates * hidden]
            y, state = _steps(write, cell, inputs, state, [weights[1], biases[1], *weights[2:]], backwards=backwards)
            made.append(y)
            last.append(state)
        y = made[0] if directions == 1 else write(aten.cat.default, made, -1)
    y = write(aten.transpose.int, y, 0, 1) if given["batch_first"] else y
    return [y, *(write(aten.cat.default, list(states)) for states in zip(*last, strict=True))]


def _steps(
    write: _Writer, cell: Cell, inputs: Any, first: list[Any], weights: Sequence[Any], *, backwards: bool
) -> tuple[Any, list[Any]]:  # fmt: skip
    """States after every step [steps, batch, hidden], and the last one; `weights` are of the state, its bias and of a projection."""
    parts = [write.part(inputs, t, 1, 0) for t in range(inputs.meta["val"].shape[0])]
    step = torch.fx.Graph()
    held = {node: _placeholder(step, node) for node in (parts[0], *first, *weights) if node is not None}
    step.output(tuple(cell(_Writer(step, write.source), held[parts[0]], [held[h] for h in first], [held.get(w) for w in weights])))
    state, made = first, dict[int, Any]()
    for t in reversed(range(len(parts))) if backwards else range(len(parts)):
        now = dict(zip((parts[0], *first), (parts[t], *state), strict=True))
        state = list(write.graph.graph_copy(step, {placeholder: now.get(node, node) for node, placeholder in held.items()}))
        made[t] = state[0]
    return write(aten.cat.default, [made[t] for t in range(len(parts))]), state


def _placeholder(graph: Any, like: Any) -> Any:
    made = graph.placeholder(like.name)
    made.meta = dict(like.meta)
    return made


def _lstm(write: _Writer, x: Any, state: list[Any], weights: list[Any]) -> list[Any]:
    h, c = state
    size = c.meta["val"].shape[-1]
    gates = write(aten.add.Tensor, write(aten.linear.default, h, *weights[:2]), x)
    i, f, o = (write(aten.sigmoid.default, write.part(gates, number, size)) for number in (0, 1, 3))
    g = write(aten.tanh.default, write.part(gates, 2, size))
    c = write(aten.add.Tensor, write(aten.mul.Tensor, f, c), write(aten.mul.Tensor, i, g))
    h = write(aten.mul.Tensor, o, write(aten.tanh.default, c))
    return [write(aten.linear.default, h, weights[2]) if weights[2:] else h, c]


def _gru(write: _Writer, x: Any, state: list[Any], weights: list[Any]) -> list[Any]:
    """h' = n + z * (h - n)."""
    (h,) = state
    size = h.meta["val"].shape[-1]
    of_state = write(aten.linear.default, h, *weights)
    gates = [(write.part(of_state, number, size), write.part(x, number, size)) for number in range(3)]
    r, z = (write(aten.sigmoid.default, write(aten.add.Tensor, *gates[number])) for number in range(2))
    n = write(aten.tanh.default, write(aten.add.Tensor, gates[2][1], write(aten.mul.Tensor, gates[2][0], r)))
    return [write(aten.add.Tensor, write(aten.mul.Tensor, write(aten.sub.Tensor, h, n), z), n)]


def _rnn(activation: Any, write: _Writer, x: Any, state: list[Any], weights: list[Any]) -> list[Any]:
    return [write(activation, write(aten.add.Tensor, write(aten.linear.default, state[0], *weights), x))]


CELLS: dict[Any, Cell] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _gru,
    aten.rnn_tanh.input: lambda *given: _rnn(aten.tanh.default, *given),
    aten.rnn_relu.input: lambda *given: _rnn(aten.relu.default, *given),
}
