"""Attention of decoders as ONNX Runtime's exporter of language models writes it: RotaryEmbedding and GroupQueryAttention, written out.

Query heads that share keys and values are rows of one head, so that nothing is repeated. New keys and values are rows that are inserted
into the past ones where `seqlens_k` says, which may be known at run time only; what is behind them is masked.
Read from ONNX Runtime's list of contributed operators.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_attention import attended, joined, refuse
from qcc.compiler.frontend.onnx_expansion import Expansion, Rule
from qcc.compiler.frontend.onnx_graph import attributes, error_at_node


def _rotary(e: Expansion) -> None:
    """x [batch, positions, heads * size] or [batch, heads, positions, size], numbers of positions, cosines, sines.

    ONNX Runtime reads the attribute `scale` but computes without it.
    """
    given, shape = attributes(e.source), e.shape(0)
    if given.get("is_packed_batching"):
        raise error_at_node(e.source, "RotaryEmbedding has is_packed_batching = 1, expected 0; export the model with batches of one length")
    positions, half = e.input(1), e.shape(2)[1]
    if len(shape) == 4:
        axis, whole = 1, shape
    else:
        batch, length, width = shape
        size = width // given["num_heads"] if given.get("rotary_embedding_dim") else 2 * half
        axis, whole = 2, [batch, length, width // size, size]
    if e.shape(1) == [1]:
        positions = e.reshape(e.add("Add", [positions, e.integers(range(whole[3 - axis]))]), [1, -1])
    x = e.input(0) if whole == shape else e.reshape(e.input(0), whole)
    e.reshape(_turned(e, x, whole, _angles(e, 2, positions, axis), half, given.get("interleaved", 0)), shape, e.source.output[0])


def _angles(e: Expansion, table: int, positions: str, axis: int) -> list[str]:
    """Cosine and sine, the input `table` and the next, at `positions` [batch or 1, length], with an `axis` for the heads."""
    return [e.add("Unsqueeze", [e.add("Gather", [e.input(i), positions]), e.integers([axis])]) for i in (table, table + 1)]


def _turned(e: Expansion, x: str, shape: list[int], angles: list[str], half: int, interleaved: int) -> str:
    """The first 2 * half values of the last axis of x, turned: pairs are value i and half + i, or neighbours where `interleaved`."""
    cosine, sine = angles
    if interleaved:
        pairs = e.reshape(e.slice(x, 0, 2 * half, -1), [*shape[:3], half, 2])
        a, b = (e.reshape(e.slice(pairs, i, i + 1, -1), [*shape[:3], half]) for i in (0, 1))
    else:
        a, b = (e.slice(x, i * half, (i + 1) * half, -1) for i in (0, 1))
    real = e.add("Sub", [e.add("Mul", [a, cosine]), e.add("Mul", [b, sine])])
    imaginary = e.add("Add", [e.add("Mul", [b, cosine]), e.add("Mul", [a, sine])])
    parts = [real, imaginary]
    if interleaved:
        stacked = e.add("Concat", [e.reshape(part, [*shape[:3], half, 1]) for part in parts], axis=-1)
        parts = [e.reshape(stacked, [*shape[:3], 2 * half])]
    if 2 * half < shape[3]:
        parts.append(e.slice(x, 2 * half, shape[3], -1))
    return parts[0] if len(parts) == 1 else e.add("Concat", parts, axis=-1)


@dataclass
class _Cache:
    """Where the new keys and values of a node go: from position `start` on, a number or, for every sequence, the name of [batch] i32."""

    batch: int
    length: int  # new positions
    before: int  # positions of the past
    total: int  # positions of the present
    start: int | str

    def insert(self, e: Expansion, past: int, rows: str, heads: int, size: int) -> str:
        """[batch, heads, total, size]: the input `past` with new `rows` [batch, heads, length, size]."""
        if isinstance(self.start, int):
            end = self.start + self.length
            front = [e.slice(e.input(past), 0, self.start, 2)] if self.start else []
            back = [e.slice(e.input(past), end, self.total, 2)] if end < self.total else []
            return e.add("Concat", [*front, rows, *back], axis=2) if front or back else rows
        x = e.input(past)
        if self.total > self.before:
            rest = np.zeros((self.batch, heads, self.total - self.before, size), np.float32)
            x = e.add("Concat", [x, e.graph.constant(rest, f"{e.name}.rest")], axis=2)
        first = np.arange(self.batch * heads, dtype=np.int32).reshape(self.batch, heads, 1) * self.total + np.arange(self.length)
        starts = e.reshape(self.start, [self.batch, 1, 1])
        numbers = e.reshape(e.add("Add", [e.graph.constant(first.astype(np.int32), f"{e.name}.rows"), starts]), [-1, 1])
        indices = e.add("Cast", [numbers], to=onnx.TensorProto.INT64)
        inserted = e.add("ScatterND", [e.reshape(x, [-1, size]), indices, e.reshape(rows, [-1, size])])
        return e.reshape(inserted, [self.batch, heads, self.total, size])

    def positions(self, e: Expansion) -> str:
        """Of the new keys: [batch or 1, length] i32."""
        steps = np.arange(self.length, dtype=np.int32)[None]
        if isinstance(self.start, int):
            return e.graph.constant(steps + np.int32(self.start), "positions")
        return e.add("Add", [e.reshape(self.start, [self.batch, 1]), e.graph.constant(steps, "steps")])

    def mask(self, e: Expansion, causal: bool, window: int) -> str:
        """0 for the keys that a query sees, minus infinity for those behind it or before its window: [batch or 1, 1, length, total]."""
        keys = np.arange(self.total, dtype=np.int32)
        last = np.arange(self.length, dtype=np.int32)[:, None] if causal else np.full((self.length, 1), self.length - 1, np.int32)
        if isinstance(self.start, int):
            distance = last + self.start - keys
            seen = (distance >= 0) & (distance < window) if window > 0 else distance >= 0
            return e.graph.constant(np.where(seen, 0, -np.inf).astype(np.float32)[None, None], f"{e.name}.mask")
        limit = e.add("Add", [e.reshape(self.start, [self.batch, 1, 1, 1]), e.graph.constant(last, "steps")])
        numbers = e.graph.constant(keys, "keys")
        seen = e.add("LessOrEqual", [numbers, limit])
        if window > 0:
            seen = e.add(
                "And", [seen, e.add("Greater", [numbers, e.add("Sub", [limit, e.graph.constant(np.array(window, np.int32), "window")])])]
            )
        return e.add("Where", [seen, e.number(0), e.number(-math.inf)])


def _grouped(e: Expansion) -> None:
    """Queries, keys, values (or all in the first), past keys and values, last position of every sequence, their greatest number, cosines,
    sines, numbers of positions, term of the scores, scores of a key without a value."""
    given = attributes(e.source)
    heads, groups = given["num_heads"], given["kv_num_heads"]
    _require_known_form(e, given)
    (batch, length, width), packed = e.shape(0), not e.input(1)
    size = width // (heads + 2 * groups) if packed else width // heads
    cache = _cache(e, batch, length)
    if packed:
        ends = [0, heads * size, (heads + groups) * size, width]
        parts = [e.slice(e.input(0), first, stop, -1) for first, stop in itertools.pairwise(ends)]
    else:
        parts = [e.input(i) for i in range(3)]
    shapes = [[batch, length, n, size] for n in (heads, groups, groups)]
    parts = [e.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    if given.get("do_rotary"):
        angles = _angles(e, 7, e.input(9) or cache.positions(e), 2)
        half, interleaved = e.shape(7)[1], given.get("rotary_interleaved", 0)
        parts[:2] = [_turned(e, parts[i], shapes[i], angles, half, interleaved) for i in (0, 1)]
    q, k, v = (e.add("Transpose", [x], perm=[0, 2, 1, 3]) for x in parts)
    k, v = (cache.insert(e, past, x, groups, size) for past, x in ((3, k), (4, v)))
    for x, result in zip((k, v), e.source.output[1:3], strict=False):
        if result:
            e.add("Identity", [x], result)
    shared = heads // groups
    mask, term = cache.mask(e, bool(given.get("causal", 1)), given.get("local_window_size", -1)), e.input(10)
    if length > 1:  # rows are all queries of the first head of a group, then those of the next
        mask = e.add("Concat", [mask] * shared, axis=2)
    if term and e.shape(10)[1] == heads:
        term = e.reshape(term, [e.shape(10)[0], groups, shared * length, cache.total])
    elif term and length > 1:
        term = e.add("Concat", [term] * shared, axis=2)
    sink = ""
    if e.input(11) or given.get("smooth_softmax", 0) == 1:
        one = e.reshape(e.input(11), [1, groups, shared, 1, 1]) if e.input(11) else e.reshape(e.number(0), [1, 1, 1, 1, 1])
        spread = e.add("Expand", [one, e.integers([batch, groups, shared, length, 1])])
        sink = e.reshape(spread, [batch, groups, shared * length, 1])
    scale = given.get("scale") or 1 / math.sqrt(size)
    y = attended(e, e.reshape(q, [batch, groups, shared * length, size]), k, v, scale, [mask, term], given.get("softcap", 0), sink)
    joined(e, e.reshape(y, [batch, heads, length, size]))


def _cache(e: Expansion, batch: int, length: int) -> _Cache:
    """A greatest number of positions that is computed at run time is that of the past, which then is a buffer for all there will be."""
    before, whole, last = e.shape(3)[2] if e.input(3) else 0, e.graph.array(e.input(6)), e.graph.array(e.input(5))
    if before == 0 or (whole is not None and int(whole.reshape(-1)[0]) == length):  # the first positions
        return _Cache(batch, length, before, max(length, before), 0)
    total = before if whole is None else max(int(whole.reshape(-1)[0]), before)
    if last is not None and np.all(last == last.reshape(-1)[0]):
        return _Cache(batch, length, before, total, int(last.reshape(-1)[0]) + 1 - length)
    start = e.reshape(e.input(5), [batch])
    start = start if length == 1 else e.add("Add", [start, e.graph.constant(np.array(1 - length, np.int32), "back")])
    return _Cache(batch, length, before, total, start)


def _require_known_form(e: Expansion, given: dict[str, Any]) -> None:
    refuse(e, (12, "k_scale"), (13, "v_scale"), (14, "q_norm_weight"), (15, "k_norm_weight"))
    for name in ("sliding_window_cache", "qk_output"):
        if given.get(name):
            raise error_at_node(e.source, f"GroupQueryAttention has {name} = {given[name]}, expected 0; export the model without it")


RULES: dict[str, Rule] = {"RotaryEmbedding": _rotary, "GroupQueryAttention": _grouped}
