"""The plots of a report as SVG text, drawn by matplotlib (an optional dependency: `pip install qcc[report]`)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from qcc.compiler.report_advice import time_us

BLUE, ORANGE, GREEN, GREY, RED = "#3b76b5", "#dd8333", "#4f9d69", "#9aa3ab", "#b5413b"
MOST = 15  # layers in a plot of layers; the rest is one bar
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "qcc",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
}


def available() -> bool:
    """Whether matplotlib is installed."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def draw(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, caption and SVG of every plot that the report has data for."""
    import matplotlib
    from matplotlib.figure import Figure

    found: list[tuple[str, str, str]] = []
    with matplotlib.rc_context(_STYLE):
        for name, (caption, size, has_data, paint) in PLOTS.items():
            if not has_data(report):
                continue
            figure = Figure(figsize=size, layout="constrained")
            paint(figure.add_subplot(), report)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            found.append((name, caption, _inline(stream.getvalue(), name)))
    return found


def _inline(svg: str, name: str) -> str:
    """The svg element alone, with ids of its own, scaling with the page, named for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" class="plot" ', 1)


def _short(name: str, most: int = 34) -> str:
    name = name.strip("/")
    return (name if len(name) <= most else "..." + name[-(most - 3) :]).replace("$", r"\$")  # no mathematics in names


def _largest(report: dict[str, Any], key: Callable[[dict[str, Any]], float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The layers with the most of something, and the others."""
    rows = sorted((row for row in report["layers"] if key(row) > 0), key=key, reverse=True)
    return rows[:MOST], rows[MOST:]


def _names(axes: Any, rows: list[dict[str, Any]], rest: list[dict[str, Any]]) -> int:
    """Label the bars of a plot of layers and give their number."""
    labels = [_short(row["name"]) for row in rows] + ([f"{len(rest)} others"] if rest else [])
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return len(labels)


def _bars(key: Callable[[dict[str, Any]], float], rows: list[dict[str, Any]], rest: list[dict[str, Any]]) -> list[float]:
    return [key(row) for row in rows] + ([sum(map(key, rest))] if rest else [])


def _time(axes: Any, report: dict[str, Any]) -> None:
    rows, rest = _largest(report, time_us)
    count = _names(axes, rows, rest)
    measured = any(row.get("measured_us") for row in report["layers"])
    high = 0.4 if measured else 0.7
    offset = high / 2 if measured else 0.0
    predictions = _bars(lambda r: r["predicted_us"], rows, rest)
    axes.barh([i - offset for i in range(count)], predictions, high, color=GREY, label="predicted")
    if measured:
        axes.barh(
            [i + offset for i in range(count)], _bars(lambda r: r.get("measured_us") or 0, rows, rest), high, color=BLUE, label="measured"
        )
    axes.set_xlabel("us")
    axes.legend(frameon=False, loc="lower right" if not rest else "center right")


def _size(axes: Any, report: dict[str, Any]) -> None:
    rows, rest = _largest(report, lambda row: row.get("stored_bytes", 0))
    _names(axes, rows, rest)
    stored = _bars(lambda r: r.get("stored_bytes", 0) / 1024, rows, rest)
    bound = _bars(_bound_kib, rows, rest)
    axes.barh(range(len(stored)), stored, 0.7, color=BLUE, label="stored")
    axes.scatter(bound, range(len(bound)), marker="|", s=120, color=ORANGE, linewidth=2.0, label="order-0 entropy", zorder=3)
    axes.set_xlabel("KiB")
    axes.legend(frameon=False, loc="lower right" if not rest else "center right")


def _bound_kib(row: dict[str, Any]) -> float:
    bits = row.get("packed_entropy_bits")
    return (bits * row["weights"] / 8 if bits is not None else row.get("stored_bytes", 0)) / 1024


def _energy(axes: Any, report: dict[str, Any]) -> None:
    rows, rest = _largest(report, lambda row: row["energy_nj"])
    count = _names(axes, rows, rest)
    left = [0.0] * count
    for part, color in (("compute", ORANGE), ("weights", BLUE), ("activations", GREEN)):
        values = _bars(lambda r, part=part: r["energy_parts_nj"][part] / 1000, rows, rest)
        axes.barh(range(count), values, 0.7, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_xlabel("uJ")
    axes.legend(frameon=False, loc="lower right" if not rest else "center right")


def _moved(row: dict[str, Any]) -> int:
    return (row.get("stored_bytes") or row["weight_bytes"]) + row["input_bytes"] + row["output_bytes"]


def _roofline(axes: Any, report: dict[str, Any]) -> None:
    rows = [row for row in report["layers"] if row["macs"] and time_us(row) > 0]
    x = [row["macs"] / max(_moved(row), 1) for row in rows]
    y = [row["macs"] / time_us(row) / 1000 for row in rows]
    total = sum(map(time_us, report["layers"])) or 1.0
    axes.set_xscale("log")
    axes.set_yscale("log")
    for kind, color in (("int", BLUE), ("fp32", ORANGE), ("fp16", GREEN)):
        chosen = [i for i, row in enumerate(rows) if row["arithmetic"] == kind]
        if chosen:
            sizes = [12 + 1500 * time_us(rows[i]) / total for i in chosen]
            axes.scatter(
                [x[i] for i in chosen], [y[i] for i in chosen], s=sizes, color=color, alpha=0.55, linewidth=0, label=f"{kind} layers"
            )
    low, high = min(x) / 2, max(x) * 2
    rates = [(name, value) for name, value in report.get("machine", {}).get("gmacs", {}).items() if value > 0]
    bandwidth = report.get("machine", {}).get("read_gbytes", {}).get("dram")
    kinds = (("dot4", "amx_int8"), ("fma", "amx_bf16"))  # products of bytes and of floats, each at its best
    peaks = [max(found, key=lambda r: r[1]) for kind in kinds if (found := [r for r in rates if r[0].startswith(kind)])]
    for i, (name, rate) in enumerate(peaks):
        axes.plot([low, high], [rate, rate], color=RED, linewidth=1.0, linestyle=("-", "--")[i])
        axes.annotate(f"{name} {rate:g} GMAC/s", (high, rate), ha="right", va="bottom", fontsize=8, color=RED)
    if bandwidth:
        gbytes = bandwidth[0] if isinstance(bandwidth, list | tuple) else bandwidth
        top = max((rate for _, rate in rates), default=max(y))
        axes.plot([low, top / gbytes], [low * gbytes, top], color=RED, linewidth=1.0)
        axes.annotate(f"DRAM {gbytes:g} GB/s", (low, low * gbytes), xytext=(6, 2), textcoords="offset points", fontsize=8, color=RED)
    slowest = sorted(range(len(rows)), key=lambda i: -time_us(rows[i]))[:3]
    for rank, i in enumerate(sorted(slowest, key=lambda i: y[i])):  # the lowest one furthest down, so that names do not meet
        left = x[i] > (low * high) ** 0.5
        place = (-8 if left else 8, (-20, -2, 14)[rank])
        line = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.6}
        words, side = _short(rows[i]["name"], 40), "right" if left else "left"
        axes.annotate(words, (x[i], y[i]), xytext=place, textcoords="offset points", ha=side, fontsize=8, arrowprops=line)
    axes.set_xlim(low, high)
    axes.set_xlabel("multiply-accumulates per byte (stored weights, inputs, outputs)")
    axes.set_ylabel("GMAC/s, " + ("measured" if any(row.get("measured_us") for row in rows) else "predicted"))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right")


def _memory(axes: Any, report: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    memory = report["memory"]
    buffers = memory["memory_plan"]
    last = max(b["last"] for b in buffers) + 1
    colors = (BLUE, GREEN, ORANGE, GREY)
    for i, b in enumerate(buffers):
        place = (b["first"] - 0.5, b["offset_bytes"] / 1024)
        color = RED if b["space"] == "scratch" else colors[i % len(colors)]
        wide, high = b["last"] - b["first"] + 1, b["size_bytes"] / 1024
        axes.add_patch(Rectangle(place, wide, high, facecolor=color, alpha=0.75, edgecolor="white", linewidth=0.4))
    axes.axhline(memory["arena_bytes"] / 1024, color="#444444", linewidth=0.8)
    axes.set_xlim(-0.5, last - 0.5)
    axes.set_ylim(0, memory["arena_bytes"] / 1024 * 1.1)
    axes.set_xlabel("step of the program")
    axes.set_ylabel("offset in the arena, KiB")
    floor = memory["arena_floor_bytes"]
    words = f"arena {memory['arena_bytes'] / 1024:.0f} KiB; least possible {floor / 1024:.0f} KiB"
    axes.annotate(words, (last - 0.5, memory["arena_bytes"] / 1024), xytext=(-4, 3), textcoords="offset points", ha="right", fontsize=8)


def _bits(axes: Any, report: dict[str, Any]) -> None:
    rows = [row for row in report["layers"] if row.get("stored_bits")]
    places = range(len(rows))
    axes.bar(places, [row["stored_bits"] for row in rows], 0.8, color=BLUE, label="stored, with tables and padding")
    bound = [row["packed_entropy_bits"] for row in rows]
    axes.scatter(places, bound, marker="_", s=60, color=ORANGE, linewidth=1.8, label="order-0 entropy of the packed bytes", zorder=3)
    widths = [row["weight_bits"] for row in rows]
    axes.plot(places, widths, color="#444444", linewidth=0.8, label="bits of the format", drawstyle="steps-mid")
    axes.set_xlabel("layers with weights, in the order of the program")
    axes.set_ylabel("bits per weight")
    axes.set_ylim(0, 1.3 * max(*bound, *widths, *(row["stored_bits"] for row in rows)))
    axes.legend(frameon=False, loc="upper left", ncols=3, columnspacing=1.0, handlelength=1.2)


def _has_products(report: dict[str, Any]) -> bool:
    return any(row["macs"] and time_us(row) > 0 for row in report["layers"])


PLOTS: dict[str, tuple[str, tuple[float, float], Callable[[dict[str, Any]], bool], Callable[[Any, dict[str, Any]], None]]] = {
    "roofline": (
        "Roofline: how fast layers with products run against what they move. The area of a point is its share of the time.",
        (7.2, 4.2),
        _has_products,
        _roofline,
    ),
    "time": ("Time by layer.", (7.2, 4.2), lambda report: any(map(time_us, report["layers"])), _time),
    "size": (
        "Stored bytes by layer, and the order-0 entropy of the packed weights.",
        (7.2, 4.2),
        lambda report: any(row.get("stored_bytes") for row in report["layers"]),
        _size,
    ),
    "energy": ("Energy by layer.", (7.2, 4.2), lambda report: any(row["energy_nj"] for row in report["layers"]), _energy),
    "bits": (
        "Bits per weight.",
        (7.2, 4.2),
        lambda report: any(row.get("stored_bits") for row in report["layers"]),
        _bits,
    ),
    "memory": (
        "Memory plan: every activation's place in the arena while it lives; scratch memory in red.",
        (7.2, 4.2),
        lambda report: bool(report.get("memory", {}).get("memory_plan")),
        _memory,
    ),
}
