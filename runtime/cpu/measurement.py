"""Times of a compiled model: latency percentiles over calls, and time per step and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Benchmark:
    """Latencies in seconds, sorted; `macs` and `bytes_moved` per run, 0 where unknown; `start_seconds` of making the first context,
    in which coded weights are decoded."""

    seconds: tuple[float, ...]
    threads: int
    macs: int = 0
    bytes_moved: int = 0
    start_seconds: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` of the calls do not exceed, in ms."""
        position = min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))
        return self.seconds[position] * 1000

    def __str__(self) -> str:
        median = self.percentile_ms(50)
        text = (
            f"{len(self.seconds)} runs, {self.threads} threads: median {median:.4f} ms, least {self.percentile_ms(0):.4f}, "
            f"90 % {self.percentile_ms(90):.4f}, 99 % {self.percentile_ms(99):.4f}"
        )
        if self.macs:
            text += f"; {self.macs / median / 1e6:.2f} GMAC/s"
        if self.bytes_moved:
            text += f"; {self.bytes_moved / median / 1e6:.2f} GB/s"
        if self.start_seconds:
            text += f"; start-up {self.start_seconds * 1000:.2f} ms"
        return text


@dataclass(frozen=True)
class Profile:
    """Time of every step in microseconds, in program order, and its sum per layer of the source model."""

    steps: tuple[tuple[str, str, float], ...]  # layer, codelet, us
    layer_us: Mapping[str, float]
    threads: int

    @staticmethod
    def of(steps: Sequence[Mapping[str, Any]], times_us: Sequence[float], threads: int) -> Profile:
        rows = tuple((s["layer"], s["codelet"], us) for s, us in zip(steps, times_us, strict=True))
        layers: dict[str, float] = {}
        for layer, _, us in rows:
            layers[layer] = layers.get(layer, 0.0) + us
        return Profile(rows, layers, threads)

    @property
    def total_us(self) -> float:
        return sum(us for _, _, us in self.steps)

    def __str__(self) -> str:
        total = max(self.total_us, 1e-9)
        spent: dict[tuple[str, str], list[float]] = {}  # what runs slice by slice over a batch gets one line
        for layer, codelet, us in self.steps:
            spent.setdefault((layer, codelet), []).append(us)
        lines = [
            f"{sum(each):10.2f} us {sum(each) / total:6.1%}  {layer or '-'}  ({codelet}{f', {len(each)} times' if len(each) > 1 else ''})"
            for (layer, codelet), each in spent.items()
        ]
        return "\n".join([*lines, f"{total:10.2f} us 100.0%  total, {self.threads} threads"])
