"""What qcc says about a compilation: per layer format, bits, density, bytes, MACs, codelet, time and energy; as text, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qcc.compiler.cost import energy, layers
from qcc.dialects.errors import QccError
from qcc.runtime.atomic_file import atomic_write


def layer_rows(
    counts: Sequence[layers.LayerCount],
    facts: dict[str, dict[str, Any]],
    predicted: Mapping[str, tuple[float, float]],
    table: energy.EnergyTable,
) -> list[dict[str, Any]]:
    """One row per layer, with the facts that passes recorded, the energy (nJ) and the predicted time (us on one thread and on all threads
    of the machine description; 0 where another target than the CPU runs it). The first row of a name has the time of all steps of it."""
    left = dict(predicted)
    rows: list[dict[str, Any]] = []
    for layer in counts:
        row = layer.as_dict()
        row["output_shape"] = list(layer.output_shape)
        row["predicted_us"], row["predicted_all_threads_us"] = left.pop(layer.name, (0.0, 0.0))
        row |= energy.row_entries(energy.count(layer), table)
        row["facts"] = facts.get(layer.name, {})
        if (name := row["facts"].get("weight_format")) and row["weight_format"].startswith("int"):  # levels that multiply as integers
            row["weight_format"] = name + row["weight_format"][row["weight_format"].index(",") :]
        row["activation_zeros"] = row["facts"].get("activation_zeros") if layer.macs else None
        row["weight_bytes"] = row["facts"].get("stored_bytes", row["weight_bytes"])  # as packed, with scales and padding
        rows.append(row)
    return rows


def with_storage(report: Mapping[str, Any], coding: dict[str, Any], stored: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """`report` with how the weights are stored: `coding` of the whole model, and per layer its bytes, codec and bits per weight beside the
    order-0 entropy of the packed bytes (`stored_bits`, `packed_entropy_bits`; codes, tables and padding counted).
    Energy follows the bytes."""
    rows: list[dict[str, Any]] = []
    table = energy.EnergyTable(**report["energy_table"])
    owners: dict[str, int] = {}  # a name may have several rows: its bytes belong to the one with weights, else to the first
    for i, row in enumerate(report["layers"]):
        if row["name"] not in owners or (row["weights"] and not report["layers"][owners[row["name"]]]["weights"]):
            owners[row["name"]] = i
    for i, row in enumerate(report["layers"]):
        found = stored.get(row["name"])
        counts = energy.EnergyCount(**row["energy_counts"])
        if found is None:  # no step of its own: its value comes from the layer before in registers, and is not written for it
            moved = max(0, row["input_bytes"] + row["output_bytes"] - 2 * row["output_bytes"])
            row = {**row, "fused": True, **energy.row_entries(counts.with_activation_bytes(moved), table)}
        elif owners[row["name"]] == i:
            counts = counts.with_weight_bytes(found["stored_bytes"])
            row = {**row, "codelets": found["codelets"], "stored_bytes": found["stored_bytes"], **energy.row_entries(counts, table)}
            if row["weights"] and "codec" in found:
                row["codec"] = found["codec"]
                row["stored_bits"] = 8 * found["weights_stored_bytes"] / row["weights"]
                row["packed_entropy_bits"] = 8 * found["weights_entropy_bytes"] / row["weights"]
        rows.append(row)
    return {**report, "layers": rows, "totals": totals(rows), "coding": coding}


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over layers."""
    keys = ("macs", "nonzero_macs", "weights", "weight_bytes", "predicted_us", "energy_nj")
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in keys}
    total["fp32_bytes"] = 4 * total["weights"]
    return total


def write(report: dict[str, Any], path: str) -> None:
    """Write the report as .json or .html. Raises QccError where the file cannot be written."""
    if path.endswith(".json"):
        from qcc.compiler import report_advice

        data = json.dumps(report_advice.explained(report), indent=2, default=str)
    else:
        from qcc.compiler import report_page

        data = report_page.html(report)
    with atomic_write(path) as stream:
        stream.write(data.encode())


def summary(report: dict[str, Any], model: Path, output: Path) -> str:
    """The few lines that `qcc` prints: size, what was generic and why, predicted time."""
    total = report.get("totals") or totals(report["layers"])
    size = output.stat().st_size if output.exists() else 0
    cpu = report.get("options", {}).get("target", "cpu") == "cpu"
    predicted = f", predicted {total['predicted_us'] / 1000:.2f} ms on one core" if cpu else ""
    if (found := report.get("accelerator")) is not None:
        predicted = (
            f", predicted {found['cycles']} cycles ({found['milliseconds']:.3f} ms at {found['clock_mhz']:g} MHz) on the accelerator"
        )
    coding = report.get("coding")
    held = coding["stored_bytes"] if coding else total["weight_bytes"]
    lines = [
        f"{model.name} -> {output.name}: {bytes_text(size)}, weights {bytes_text(held)} "
        f"(fp32: {bytes_text(total['fp32_bytes'])}), {total['macs'] / 1e6:.1f} M multiply-accumulates{predicted}"
    ]
    if coding and coding["codec"] != "none":
        over = coding["stored_bytes"] / max(coding["entropy_bytes"], 1)
        lines.append(
            f"{coding['codec']} coding: {bytes_text(coding['decoded_bytes'])} of packed weights in {bytes_text(coding['stored_bytes'])}, "
            f"{over:.3f} of their order-0 entropy; decode: {coding['decode']}, {bytes_text(coding['at_once_bytes'])} at a time"
        )
    generic = [row for row in report["layers"] if row["generic"]]
    if generic:
        lines.append(f"generic path: {len(generic)} of {len(report['layers'])} layers")
        lines += [f"  {row['name']}: {row['generic']}" for row in generic]
    lines += partition(report.get("partition", []))
    lines += [f"remark: {text}" for text in report.get("remarks", [])]
    return "\n".join(lines)


def partition(segments: list[dict[str, Any]]) -> list[str]:
    """Which layers run where on an accelerator target: one line for each segment, in the order in which they run."""
    if not segments:
        return []
    counts = {place: sum(s["runs_on"] == place for s in segments) for place in ("accelerator", "host")}
    lines = [f"partition: segments on the accelerator: {counts['accelerator']}, on the host CPU between them: {counts['host']}"]
    for segment in segments:
        names = segment["layers"]
        shown = ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}, {len(names)} layers"
        lines.append(f"  {segment['runs_on']:<11}  {shown}")
    return lines


def bytes_text(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def check_path(path: str) -> None:
    """Raise QccError where `path` is not a report's name."""
    if Path(path).suffix not in (".html", ".json"):
        raise QccError(f"report is '{path}', expected a name ending in .html or .json")
