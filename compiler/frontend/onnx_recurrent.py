"""Recurrent operators (RNN, GRU and LSTM), unrolled into their steps.

One product serves the inputs of all steps; then every step multiplies the state before it. Weights are cut and transposed once per
direction, which folds where they are constant. Among the names of values "" stands for zeros, as the first state often is.
Source: ONNX operators RNN, GRU and LSTM, opset 7 to 22.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.compiler.frontend import onnx_expansion
from qcc.compiler.frontend.onnx_expansion import Expansion
from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node

DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}  # whether each goes backwards
FUNCTIONS = ("Relu", "Sigmoid", "Softplus", "Tanh")  # those that have no parameters
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}

State = list[str]  # h, and c of an LSTM, [batch, hidden] each


def unroll(graph: OnnxGraph) -> None:
    """Rewrite in place; needs `graph.kinds`, and leaves them inferred. Raises QccError that says which form of an operator is not known."""
    if onnx_expansion.expand(graph, lambda source: _unroll if source.op_type in _STEPS and not source.domain else None):
        graph.infer()


def _unroll(e: Expansion) -> None:
    given = attributes(e.source)
    swapped, x = bool(given.get("layout", 0)), e.input(0)
    shape = [size or 0 for size in e.graph.kinds[x][1]]
    steps, batch = (shape[1], shape[0]) if swapped else (shape[0], shape[1])
    _require_known_form(e, given, steps)
    x = e.add("Transpose", [x], perm=[1, 0, 2]) if swapped else x  # [steps, batch, input]
    of_steps: list[str] = []
    last: list[State] = []
    for direction, backwards in enumerate(DIRECTIONS[given.get("direction", "forward")]):
        cell = _Cell(e, given, direction)
        inputs = cell.sum(e.add("MatMul", [x, cell.weights(1)]), cell.bias(0))  # [steps, batch, gates * hidden]
        state = [cell.state(5, swapped), *([cell.state(6, swapped)] if e.source.op_type == "LSTM" else [])]
        made: list[str] = []
        for t in reversed(range(steps)) if backwards else range(steps):
            state = _STEPS[e.source.op_type](cell, _take(e, inputs, t), state)
            made.append(state[0])
        of_steps.append(_joined(e, made[::-1] if backwards else made, [steps, 1, batch, cell.hidden]))
        last.append(state)
    y = of_steps[0] if len(of_steps) == 1 else e.add("Concat", of_steps, axis=1)  # [steps, directions, batch, hidden]
    results = [(y, [2, 0, 1, 3])]
    results += [(_joined(e, list(values), [len(last), batch, given["hidden_size"]]), [1, 0, 2]) for values in zip(*last, strict=True)]
    for (value, order), name in zip(results, e.source.output, strict=False):
        if name:
            e.add("Transpose" if swapped else "Identity", [value], name, perm=order if swapped else None)


def _require_known_form(e: Expansion, given: dict[str, Any], steps: int) -> None:
    kind = f"onnx.{e.source.op_type}"
    lengths, peepholes = e.graph.array(e.input(4)), e.graph.array(e.input(7))
    if e.input(4) and (lengths is None or np.any(lengths != steps)):
        raise error_at_node(e.source, f"{kind} has sequences of different lengths (sequence_lens), expected {steps} steps of every one")
    if e.input(7) and (peepholes is None or np.any(peepholes)):
        raise error_at_node(e.source, f"{kind} has peephole weights (input P), expected none; export the model without them")
    if given.get("input_forget"):
        raise error_at_node(e.source, f"{kind} couples input and forget gates, expected gates of their own; export the model with these")
    for name in _functions(e, given):
        if name not in FUNCTIONS:
            raise error_at_node(e.source, f"{kind} has the activation {name}, expected one of {', '.join(FUNCTIONS)}")


def _functions(e: Expansion, given: dict[str, Any]) -> list[str]:
    names = [name.decode() for name in given.get("activations", [])]
    return names or DEFAULTS[e.source.op_type] * len(DIRECTIONS[given.get("direction", "forward")])


class _Cell:
    """One direction: its weights, cut once for all steps, and arithmetic that knows zeros."""

    def __init__(self, e: Expansion, given: dict[str, Any], direction: int) -> None:
        self.e, self.given, self.direction = e, given, direction
        self.hidden: int = given["hidden_size"]
        self.functions = _functions(e, given)[direction * len(DEFAULTS[e.source.op_type]) :]
        self._recurrent, self._bias = self.weights(2), self.bias(1)
        self._parts: dict[tuple[int, int], tuple[str, str]] = {}

    def weights(self, index: int) -> str:
        """[input or hidden, gates * hidden]"""
        return self.e.add("Transpose", [_take(self.e, self.e.input(index), self.direction)], perm=[1, 0])

    def bias(self, half: int) -> str:
        """[gates * hidden], of the inputs (0) or of the state (1)."""
        if not (name := self.e.input(3)):
            return ""
        both = _take(self.e, name, self.direction)
        width = (self.e.graph.kinds[name][1][1] or 0) // 2
        return self.e.slice(both, half * width, (half + 1) * width, -1)

    def state(self, index: int, swapped: bool) -> str:
        """An initial state."""
        name = self.e.input(index)
        known = self.e.graph.array(name)
        if not name or (known is not None and not known.any()):
            return ""
        return _take(self.e, self.e.add("Transpose", [name], perm=[1, 0, 2]) if swapped else name, self.direction)

    def gates(self, x: str, first: int, count: int) -> str:
        """The part of x [.., gates * hidden] that belongs to `count` gates."""
        return self.e.slice(x, first * self.hidden, (first + count) * self.hidden, -1)

    def of_state(self, h: str, first: int, count: int) -> str:
        """What the state adds to `count` gates: its product with their weights, and their bias."""
        if (first, count) not in self._parts:
            self._parts[first, count] = (self.gates(self._recurrent, first, count), self._bias and self.gates(self._bias, first, count))
        weights, bias = self._parts[first, count]
        return self.sum(h and self.e.add("MatMul", [h, weights]), bias)

    def activated(self, number: int, x: str) -> str:
        """Activation function `number` of the (clipped) sum x."""
        if clip := self.given.get("clip"):
            x = self.e.add("Clip", [x, *(self.e.graph.constant(np.array(bound, np.float32), "bound") for bound in (-clip, clip))])
        return self.e.add(self.functions[number], [x])

    def sum(self, a: str, b: str) -> str:
        return self.e.add("Add", [a, b]) if a and b else a or b

    def product(self, a: str, b: str) -> str:
        return a and b and self.e.add("Mul", [a, b])


def _rnn(cell: _Cell, x: str, state: State) -> State:
    return [cell.activated(0, cell.sum(x, cell.of_state(state[0], 0, 1)))]


def _gru(cell: _Cell, x: str, state: State) -> State:
    """h' = (1 - z) * n + z * h, written as n + z * (h - n)."""
    (h,) = state
    both = cell.activated(0, cell.sum(cell.gates(x, 0, 2), cell.of_state(h, 0, 2)))
    z, r = cell.gates(both, 0, 1), cell.gates(both, 1, 1)
    if cell.given.get("linear_before_reset"):
        of_state = cell.product(r, cell.of_state(h, 2, 1))
    else:
        of_state = cell.of_state(cell.product(r, h), 2, 1)
    n = cell.activated(1, cell.sum(cell.gates(x, 2, 1), of_state))
    difference = cell.e.add("Sub", [h, n]) if h else cell.e.add("Neg", [n])
    return [cell.sum(n, cell.product(z, difference))]


def _lstm(cell: _Cell, x: str, state: State) -> State:
    h, c = state
    total = cell.sum(x, cell.of_state(h, 0, 4))
    three, candidate = cell.activated(0, cell.gates(total, 0, 3)), cell.activated(1, cell.gates(total, 3, 1))
    i, o, f = (cell.gates(three, number, 1) for number in range(3))
    c = cell.sum(cell.product(f, c), cell.product(i, candidate))
    return [cell.product(o, cell.e.add(cell.functions[2], [c])), c]


_STEPS: dict[str, Callable[[_Cell, str, State], State]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def _take(e: Expansion, x: str, number: int) -> str:
    """One index of the first axis, which goes."""
    bounds = [e.graph.constant(np.array([v]), "bound") for v in (number, number + 1, 0)]
    return e.add("Squeeze", [e.add("Slice", [x, *bounds]), bounds[2]])


def _joined(e: Expansion, parts: list[str], shape: list[int]) -> str:
    """Values [batch, hidden] one after the other, in `shape`."""
    return e.add("Reshape", [e.add("Concat", parts, axis=0), e.graph.constant(np.array(shape), "shape")])
