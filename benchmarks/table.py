"""The recorded results of each machine as a page beside them: `TABLE.md`, and `plot.svg` where matplotlib is installed.

    python -m benchmarks.table                                # of every machine in results/
    python -m benchmarks.table --results build/my-results

The ratio of a row is time of qcc / time of the fastest peer in the same interleaved run; below 1 is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .run import RESULTS, best_peer, of_memory, ratio

PAGE, PLOT = "TABLE.md", "plot.svg"
NAMES = {
    "int8": "8-bit integers",
    "fp32": "binary32",
    "bf16": "bfloat16",
    **{f"w{bits}": f"{bits}-bit weights" for bits in (8, 4, 3, 2)},
    "ternary": "ternary weights",
    "binary": "binary weights",
    "codebook16": "16 levels",
    "nf4": "NF4",
    "fp4": "FP4",
    "sparse": "pruned weights",
    "sparse_fp32": "binary32 weights with zeros, one layer of 4096 x 4096",
}
TICKS = (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 30, 100, 300)
Result = dict[str, Any]


COMPRESSED, DECODER = "compressed-*.json", "decoder-*.json"


def read(folder: Path) -> list[Result]:
    own_pages = {*folder.glob(COMPRESSED), *folder.glob(DECODER)}
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json")) if file not in own_pages]


def compressed(folder: Path) -> list[str]:
    """What `benchmarks.compressed` found: compressed networks beside their dense 8-bit version, and their sizes beside the entropy."""
    lines: list[str] = []
    for file in sorted(folder.glob(COMPRESSED)):
        result = json.loads(file.read_text())
        lines += ["", f"## Compressed networks, batch 1, {result['threads']} thread{'s' if result['threads'] > 1 else ''}", ""]
        head = (
            "network",
            "ms",
            "time / dense 8 bits",
            "ms of rANS",
            "time / dense",
            "million MACs",
            "weights",
            "bound, MB",
            "rANS, MB",
            "over the bound",
            "rest, MB",
        )
        lines += ["| " + " | ".join(head) + " |"]
        lines += ["|---" * len(head) + "|"]
        for name, row in result["networks"].items():
            bound, stored, rest = (row[key] / 1e6 for key in ("bound_bytes", "stored_bytes", "rest_bytes"))
            coded = f"{row['rans_ms']:.3g} | {row['rans_ratio']:.2f}" if "rans_ms" in row else "- | -"
            lines.append(
                f"| {name} | {row['median_ms']:.3g} | {row['ratio']:.2f} | {coded} | {row['macs'] / 1e6:.0f} | {row['weights']} | "
                f"{bound:.2f} | {stored:.2f} | {row['over_bound'] - 1:.1%} | {rest:.2f} |"
            )
    if lines:
        lines += [
            "",
            "Bound: order-0 entropy of the integers of every weight tensor, zeros included. rANS: the same network with coded weights, "
            "which are decoded when it is loaded; with tables, directories and padding.",
        ]
    return lines


def decoders(folder: Path) -> list[str]:
    """What `benchmarks.decoder` found: milliseconds of one token."""
    results = [json.loads(file.read_text()) for file in sorted(folder.glob(DECODER))]
    if not results:
        return []
    names = list(dict.fromkeys(name for result in results for name in result["ms"]))
    lines = ["", "## One token of a decoder, 12 layers of 768, weights of 4 bits", ""]
    lines += ["| keys in the cache | threads | " + " | ".join(names) + " | fastest peer | ratio |", "|---|---|" + "---|" * (len(names) + 2)]
    for result in results:
        times = (f"{result['ms'][n]:.3g} ({result['errors'][n]:.3f})" if n in result["ms"] else "-" for n in names)
        row = [result["position"] + 1, result["threads"], *times, result["fastest_peer"], f"{result['ratio']:.2f}"]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return [*lines, "", "In brackets: relative error of the logits against the float module's."]


def own(result: Result) -> dict[str, Any] | None:
    """qcc's entry where it was measured."""
    return next((one for name, one in result["peers"].items() if name.startswith("qcc") and "median_ms" in one), None)


def against_best(result: Result) -> float | None:
    """Time of qcc / time of the fastest peer."""
    mine, best = own(result), best_peer(result)
    return ratio(mine, result["peers"][best]) if mine and best else None


def group_of(result: Result) -> tuple[str, str, int, int]:
    return result["precision"], result["cpu"], result["batch"], result["threads"]


def page(results: list[Result], more: Sequence[str] = ()) -> str:
    """Markdown: one table for each (precision, instruction set, batch, threads), the ratios in sum, `more`, and what was found to run."""
    groups: dict[tuple[str, str, int, int], list[Result]] = {}
    for result in sorted(results, key=lambda r: (list(NAMES).index(r["precision"]), r["cpu"] != "native", *group_of(r)[1:], r["model"])):
        groups.setdefault(group_of(result), []).append(result)
    lines = ["# Measured side by side", ""]
    lines += [
        "Median milliseconds; all systems of a row in one interleaved run. Made by `python -m benchmarks.table` of the files beside it."
    ]
    lines += ["", "![plot](plot.svg)", "", "## In sum: time of qcc / time of the fastest peer", ""]
    lines += ["| precision | instruction set | batch | threads | models | geometric mean | worst |", "|---|---|---|---|---|---|---|"]
    for (precision, cpu, batch, threads), found in groups.items():
        ratios = {r["model"]: value for r in found if (value := against_best(r)) is not None}
        if ratios:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            worst = max(ratios, key=ratios.__getitem__)
            row = [NAMES[precision], cpu, batch, threads, len(ratios), f"**{mean:.2f}**", f"{worst} {ratios[worst]:.2f}"]
            lines.append("| " + " | ".join(map(str, row)) + " |")
    lines += streams(results)
    for (precision, cpu, batch, threads), found in groups.items():
        lines += ["", f"## {NAMES[precision]}, {cpu}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}", ""]
        lines += table(found)
    lines += [*more, "", "## What ran", "", *evidence(results), "", *machines(results)]
    return "\n".join(lines) + "\n"


def streams(results: list[Result]) -> list[str]:
    """The chains of linear layers whose weights stream from memory: every format against the memory's speed and the fastest peer."""
    rows: list[tuple[int, str]] = []
    for result in results:
        best = best_peer(result)
        for name, one in result["peers"].items():
            if not name.startswith("qcc") or (memory := of_memory(result, one)) is None:
                continue
            others = {n: p for n, p in result["peers"].items() if not n.startswith("qcc") and "median_ms" in p}
            times = ", ".join(f"{n} {p['median_ms']:.3g}" for n, p in sorted(others.items(), key=lambda item: item[1]["median_ms"]))
            cells = [result["model"], one["about"]["stored"], result["threads"], f"{one['about']['weight bytes'] / 1e6:.1f}"]
            cells += [f"{one['median_ms']:.3g}", f"{float(np.median(result['memory_gbytes_per_s'])):.1f}", f"**{memory:.2f}**"]
            cells += [f"{ratio(one, result['peers'][best]):.2f}" if best else "-", times or "none has this format"]
            order = list(NAMES).index(result["precision"])
            rows.append((order, "| " + " | ".join(map(str, cells)) + " |"))
    if not rows:
        return []
    head = ["chain", "stored", "threads", "MB", "qcc ms", "memory GB/s", "time / memory's time", "ratio to the fastest peer", "peers, ms"]
    lines = ["", "## Compressed weights that stream from memory, batch 1", ""]
    lines += [
        "The memory's time is stored bytes / read bandwidth, which is measured in the same run (`benchmarks.all --only streams`).",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + [row for _, row in sorted(rows, key=lambda item: item[0])]


def table(found: list[Result]) -> list[str]:
    names = list(dict.fromkeys(name for r in found for name, one in r["peers"].items() if "median_ms" in one))
    lines = ["| model | " + " | ".join(names) + " | fastest peer | ratio |", "|---" * (len(names) + 3) + "|"]
    for result in found:
        cells = []
        for name in names:
            one = result["peers"].get(name, {})
            cells.append(f"{one['median_ms']:.3g} ({one['relative_error']:.3f})" if "median_ms" in one else "-")
        value, best = against_best(result), best_peer(result)
        lines.append(f"| {result['model']} | " + " | ".join(cells) + f" | {best or '-'} | {f'{value:.2f}' if value else '-'} |")
    lines += ["", "In brackets: relative error of the outputs against the float network."]
    reasons: dict[str, list[str]] = {}
    for result in found:
        for name, one in result["peers"].items():
            if reason := one.get("error") or one.get("skipped"):
                reasons.setdefault(f"{name}: {reason.splitlines()[0][:160]}", []).append(result["model"])
    return [*lines, *(f"- not measured: {reason} ({', '.join(models)})" for reason, models in reasons.items())]


def evidence(results: list[Result]) -> list[str]:
    """Per system: how it was checked what it runs, with the kernels of one model as an example."""
    lines: list[str] = []
    shown: set[str] = set()
    for result in results:
        for name, one in result["peers"].items():
            if name not in shown and (about := one.get("about")):
                shown.add(name)
                kernels = ", ".join(f"{kernel} x{count}" for kernel, count in list(about.get("kernels", {}).items())[:6])
                text = f"- **{name}** {about.get('version', '')}: {about.get('checked by', '')}"
                lines.append(text + (f"; {result['model']}: {kernels}" if kernels else ""))
    return sorted(lines)


def machines(results: list[Result]) -> list[str]:
    facts = {(r["machine"]["cpu"], r["machine"]["processors"], r["machine"]["system"]) for r in results}
    lines = [f"Machine: {cpu}, {count} processors, {system}." for cpu, count, system in sorted(facts)]
    flags = next((r["machine"]["flags"] for r in results), "")
    kinds = [flag for flag in flags.split() if flag.startswith(("avx", "amx"))]
    return [*lines, "", "Vector extensions: " + ", ".join(kinds) + "."]


def plot(results: list[Result], path: Path) -> None:
    """Every peer's time relative to qcc (above 1: qcc is faster), one panel for each precision and thread count at batch 1."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "qcc"  # the same file for the same results
    from matplotlib import pyplot, ticker

    chosen = [r for r in results if own(r) and best_peer(r)]
    panels: dict[str, list[Result]] = {}
    for r in chosen:
        limit = "" if r["cpu"] == "native" else f", {r['cpu']}"
        panels.setdefault(f"{NAMES[r['precision']]}, batch {r['batch']}, {r['threads']} thread(s){limit}", []).append(r)
    if not panels:
        return
    columns = 2
    rows = math.ceil(len(panels) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(14, 3.4 * rows), squeeze=False)
    systems = list(dict.fromkeys(n for r in chosen for n, one in r["peers"].items() if "median_ms" in one and not n.startswith("qcc")))
    colours = {name: pyplot.get_cmap("tab20")(index % 20) for index, name in enumerate(systems)}
    for axis, (title, found) in zip(axes.flat, panels.items(), strict=False):
        for index, result in enumerate(found):
            mine = own(result)
            assert mine
            times = {n: ratio(one, mine) for n, one in result["peers"].items() if "median_ms" in one and not n.startswith("qcc")}
            width = 0.85 / max(len(times), 1)
            for position, (name, value) in enumerate(sorted(times.items(), key=lambda item: item[1])):
                axis.bar(index + (position - len(times) / 2 + 0.5) * width, value, width, color=colours[name])
        axis.axhline(1, color="black", linewidth=1)
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.5), max(high, 2) * 1.1)
        axis.set_yticks([tick for tick in TICKS if min(low, 0.5) <= tick <= max(high, 2) * 1.1])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xticks(range(len(found)), [r["model"] for r in found], fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("time / time of qcc", fontsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in systems]
    figure.legend(handles, systems, loc="lower center", ncols=6, fontsize=8)
    figure.tight_layout(rect=(0, 0.03 + 0.12 / rows, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def write(folder: Path) -> bool:
    """Write the page and the plot of the results in `folder`; whether there are any."""
    results = read(folder)
    if not results:
        return False
    (folder / PAGE).write_text(page(results, [*decoders(folder), *compressed(folder)]))
    print(folder / PAGE)
    if importlib.util.find_spec("matplotlib"):
        plot(results, folder / PLOT)
        print(folder / PLOT)
    else:
        print("no plot: matplotlib is not installed; pip install -e '.[bench]'")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="one machine's folder (default: all)")
    arguments = parser.parse_args()
    folders = [arguments.results] if arguments.results else sorted(folder for folder in RESULTS.iterdir() if folder.is_dir())
    if not sum([write(folder) for folder in folders]):
        parser.error(f"no results in {arguments.results or RESULTS}; run python -m benchmarks.all")


if __name__ == "__main__":
    main()
