"""What a report says in words: the reasons for each choice, and what would help most next. Only from the report's own data."""

from __future__ import annotations

from typing import Any

from qcc.compiler.report import bytes_text

Row = dict[str, Any]
_MOST = 6  # pieces of advice
_IN_WORDS = {  # facts that are sentences, and how they begin; in the order in which a model meets the passes
    "recognized": "recognised: {}",
    "low_rank": "{}",
    "taps": "taps: {}",
    "constants_merged": "{}",
    "products": "products: {}",
    "skipping": "{}",
    "stored_format": "stored as {}",
    "streaming": "{}",
    "images_at_once": "{} images at once",
    "activation_coding": "its output in DRAM: {}",
}


def reasons(row: Row) -> list[str]:
    """Why a layer is as it is: its path, its widths, how its weights are stored."""
    facts = row.get("facts", {})
    found: list[str] = []
    if row["generic"]:
        found.append(f"generic path: {row['generic']}")
    if row.get("fused"):
        found.append("fused: has no step of its own")
    if "weight_format" in facts and row["arithmetic"] == "int":
        found.append(f"{facts['weight_format']} weights multiply as integers")
    if facts.get("weight_only"):
        found.append(f"only the weights are quantized; input: {facts.get('activations', 'float')}")
    found += [words.format(facts[name]) for name, words in _IN_WORDS.items() if name in facts]
    if "channels_removed" in facts:
        outputs = f"{facts['channels_removed']} of {facts['channels']} output channels"
        found.append(f"{outputs} and {facts['inputs_removed']} input channels are zero or constant, and gone")
    if "accumulator_range" in facts:
        low, high = facts["accumulator_range"]
        found.append(f"accumulator: {facts.get('accumulator_bits')} bits hold the proven range [{low}, {high}]")
    if "storage_reason" in facts:
        found.append(f"{facts.get('storage', 'dense')}: {facts['storage_reason']}")
    if row.get("stored_bits") and row.get("codec") not in (None, "raw"):
        bound = f"order-0 entropy of the packed bytes {row['packed_entropy_bits']:.2f}"
        found.append(f"{row['codec']}: {row['stored_bits']:.2f} bits per weight, {bound}")
    elif row.get("stored_bits") and row["packed_entropy_bits"] < 0.9 * row["stored_bits"]:
        held = "as codelets read them" if row["stored_bits"] > row["weight_bits"] + 0.5 else "stored"
        entropy = f"order-0 entropy {row['packed_entropy_bits']:.2f}"
        found.append(f"not coded (--coding auto): {row['stored_bits']:.2f} bits per weight {held}, {entropy}")
    if "runs_on" in facts:
        found.append(f"runs on the {facts['runs_on']}")
    return found


def explained(report: dict[str, Any]) -> dict[str, Any]:
    """`report` with the `reasons` of every layer and `next_steps`, so that JSON says what the page says."""
    return {**report, "layers": [{**row, "reasons": reasons(row)} for row in report["layers"]], "next_steps": next_steps(report)}


def time_text(us: float) -> str:
    """A time in us or ms."""
    return f"{us:.1f} us" if us < 1000 else f"{us / 1000:.2f} ms"


def _layers(rows: list[Row]) -> str:
    return "1 layer stores" if len(rows) == 1 else f"{len(rows)} layers store"


def time_us(row: Row) -> float:
    """Measured where it was measured, else predicted."""
    return row.get("measured_us") or row["predicted_us"]


def next_steps(report: dict[str, Any]) -> list[str]:
    """What would help most next, the largest gain first: each with the figure it rests on."""
    rows = report["layers"]
    total_us = sum(map(time_us, rows)) or 1.0
    total_nj = sum(row["energy_nj"] for row in rows) or 1.0
    found: list[tuple[float, str]] = []  # gain as a share, text
    generic = [row for row in rows if row["generic"]]
    share = sum(map(time_us, generic)) / total_us
    if generic:
        found.append(
            (share, f"{len(generic)} layers have no codelet and take the generic path: {share:.0%} of the time, first {generic[0]['name']}")
        )
    products = [row for row in rows if row["macs"]]
    if products:
        slowest = max(products, key=time_us)
        part = time_us(slowest) / total_us
        found.append((part / 2, f"{slowest['name']} is the slowest layer with {part:.1%} of the time; {_bound(slowest)}"))
    rates = sorted(row["macs"] / time_us(row) for row in products if time_us(row))
    if len(rates) > 3:
        usual = rates[len(rates) // 2]
        slow = [row for row in products if time_us(row) and row["macs"] / time_us(row) < usual / 2]
        saved = sum(time_us(row) - row["macs"] / usual for row in slow)
        if saved > 0.02 * total_us:
            words = f"{len(slow)} layers run at under half of the median rate of {usual / 1000:.0f} GMAC/s"
            found.append(
                (saved / total_us, f"{words}; at that rate they would save {time_text(saved)}, {saved / total_us:.0%} of the time")
            )
    wide = [row for row in products if row["arithmetic"] != "int"]
    part = sum(map(time_us, wide)) / total_us
    if wide and part > 0.02:
        found.append((part * 0.6, f"{len(wide)} layers with products compute in float, {part:.0%} of the time: quantize their operands"))
    elementwise = [row for row in rows if not row["macs"] and not row["generic"]]
    part = sum(map(time_us, elementwise)) / total_us
    if part > 0.05:
        longest = max(elementwise, key=time_us)
        found.append((part / 2, f"layers without products take {part:.0%} of the time, most of it {longest['name']} ({longest['op']})"))
    sparse = [row for row in products if row["density"] < 0.5 and row.get("facts", {}).get("storage", "dense") == "dense"]
    if sparse:
        part = sum(time_us(row) * (1 - row["density"]) for row in sparse) / total_us
        found.append((part / 2, f"{_layers(sparse)} more than half zeros densely; whole channels of zeros would pay"))
    coding = report.get("coding")
    if coding and coding["codec"] == "none" and (saved := coding["stored_bytes"] - coding["entropy_bytes"]) > 0.02 * coding["stored_bytes"]:
        part = saved / coding["stored_bytes"]
        found.append((part / 2, f"--coding auto would store about {bytes_text(saved)} less, {part:.0%} of the weights (order-0 entropy)"))
    moved = sum(row["energy_parts_nj"]["weights"] for row in rows) / total_nj
    if moved > 0.5:
        largest = max(products, key=lambda row: row["energy_parts_nj"]["weights"]) if products else None
        where = f", most in {largest['name']}" if largest else ""
        found.append((moved / 3, f"{moved:.0%} of the energy is weights from DRAM{where}; fewer bits per weight save it"))
    found.sort(key=lambda entry: -entry[0])
    return [text for _, text in found[:_MOST]]


def _bound(row: Row) -> str:
    """Whether arithmetic or bytes decide: multiply-accumulates per byte moved."""
    per_byte = row["macs"] / max(1, row.get("stored_bytes") or row["weight_bytes"])
    if per_byte < 16:
        return f"with {per_byte:.1f} products per stored byte its bytes decide: fewer bits, zeros or coding help"
    return f"with {per_byte:.0f} products per stored byte arithmetic decides: fewer channels or low rank help, fewer bytes do not"
