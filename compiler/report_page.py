"""The report as one self-contained HTML page: no scripts, no network, plots as inline SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qcc.compiler import report_advice, report_plots
from qcc.compiler.report import bytes_text


def html(report: dict[str, Any]) -> str:
    """The page. Without matplotlib it has no plots, and says how to get them."""
    from jinja2 import Environment
    from markupsafe import Markup

    report = report_advice.explained(_as_measured(report))
    rows = [{**row, "time_us": report_advice.time_us(row)} for row in report["layers"]]
    plots = [(name, caption, Markup(svg)) for name, caption, svg in report_plots.draw(report)] if report_plots.available() else None
    template = (Path(__file__).parent / "report.html.j2").read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["bytes"] = bytes_text
    environment.filters["number"] = number
    return environment.from_string(template).render(
        report=report,
        rows=rows,
        cards=cards(report),
        advice=report["next_steps"],
        plots=plots,
        slowest=max((row["time_us"] for row in rows), default=0) or 1,
    )


def _as_measured(report: dict[str, Any]) -> dict[str, Any]:
    """`report` with what is predicted for as many threads as it was measured on, and what the machine can do with them."""
    if (threads := report.get("measured_threads", 1)) == 1:
        return report
    rows = [{**row, "predicted_us": row["predicted_all_threads_us"]} for row in report["layers"]]
    totals = {**report["totals"], "predicted_us": sum(row["predicted_us"] for row in rows)}
    machine = dict(report.get("machine", {}))
    if machine:
        machine["gmacs"] = {name: rate * threads for name, rate in machine["gmacs"].items()}
        machine["read_gbytes"] = {level: rates[::-1] for level, rates in machine["read_gbytes"].items()}  # that of all threads first
    return {**report, "layers": rows, "totals": totals, "machine": machine}


def cards(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The summary: what, how much, and beside it what that is to be compared with."""
    totals, coding = report["totals"], report.get("coding")
    measured = sum(row.get("measured_us") or 0 for row in report["layers"])
    predicted = f"{totals['predicted_us'] / 1000:.3f} ms"
    found: list[tuple[str, str, str]] = []
    if found_accelerator := report.get("accelerator"):
        found.append(("time", f"{found_accelerator['milliseconds']:.3f} ms", f"{found_accelerator['cycles']} cycles, predicted"))
    elif measured:
        threads = report.get("measured_threads", 1)
        how = f"sum over layers, measured on {threads} thread{'s' if threads > 1 else ''}; predicted {predicted}"
        found.append(("time", f"{measured / 1000:.3f} ms", how))
    else:
        found.append(("time", predicted, "predicted"))
    size = coding["stored_bytes"] if coding else totals["weight_bytes"]
    ratio = totals["fp32_bytes"] / max(size, 1)
    found.append(
        ("stored weights", bytes_text(size), f"{ratio:.1f} times smaller than the weights in fp32, {bytes_text(totals['fp32_bytes'])}")
    )
    if coding:
        bound = coding["entropy_bytes"]
        over = f"{size / bound:.3f} of the order-0 entropy, {bytes_text(bound)}" if bound else ""
        how = "not coded" if coding["codec"] == "none" else f"{coding['codec']}, decoded {_WHEN[coding['decode']]}"
        how += f", {bytes_text(coding['at_once_bytes'])} at a time" if coding["codec"] != "none" else ""
        found.append(("coding", how, over))
    found.append(("energy", f"{totals['energy_nj'] / 1000:.1f} uJ", report.get("energy_table", {}).get("name", "")))
    macs = f"{totals['nonzero_macs'] / 1e6:.1f} M with non-zero weights"
    found.append(("multiply-accumulates", f"{totals['macs'] / 1e6:.1f} M", macs))
    if memory := report.get("memory", {}).get("arena_bytes"):
        found.append(("activation memory", bytes_text(memory), f"least possible {bytes_text(report['memory']['arena_floor_bytes'])}"))
    if accuracy := report.get("accuracy"):
        found.append(("accuracy", str(accuracy), "as given"))
    return found


_WHEN = {"load": "when loading", "stream": "in every run, right before it is read"}


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table's cell; nothing for none and 0."""
    return f"{value:,.{digits}f}".replace(",", "\u202f") if value else ""
