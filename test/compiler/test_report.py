"""The report: one page that needs nothing else, with every plot drawn, a row for every layer, reasons, and the same data as JSON."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.compiler import report, report_advice, report_page, report_plots
from qcc.compiler.cost.weight_format import weight_format
from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, ir

EXAMPLES = Path(__file__).parents[2] / "examples"
BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
OFFLINE = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """The report of the digits CNN with coded weights and measured times."""
    exe = qcc.compile(EXAMPLES / "digits_cnn.mlir", threads=1, coding="auto")
    exe.profile()
    return {**exe.report, "accuracy": "99.44 % of 360", "seconds": [{"stage": "import", "seconds": 0.5}]}


@pytest.fixture(scope="module")
def page(digits: dict[str, Any]) -> str:
    pytest.importorskip("matplotlib")
    return report_page.html(digits)


class Reader(html.parser.HTMLParser):
    """What elements, ids, links and table rows a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")
        if tag in ("table", "tr", "td", "figure", "svg", "div", "g", "h2", "tbody", "thead"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("table", "tr", "td", "figure", "svg", "div", "g", "h2", "tbody", "thead"):
            assert self.open.pop() == tag, f"</{tag}> closes another element"


@pytest.mark.slow
def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    found = Reader(page)
    assert not found.open, "every element is closed"
    assert not {"script", "iframe", "object", "embed"} & set(found.tags)
    assert all(link.startswith(("#", "data:")) for link in found.links), "no address outside of the page"
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert len(found.ids) == len(set(found.ids)), "ids of the plots do not collide"
    used = {link[1:] for link in found.links if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(found.ids), "every reference inside a plot has its target"


@pytest.mark.slow
def test_every_plot_is_drawn(page: str, digits: dict[str, Any]) -> None:
    assert set(report_plots.PLOTS) == {"roofline", "time", "size", "energy", "bits", "memory"}
    for name in report_plots.PLOTS:
        figure = page[page.index(f'<figure id="plot-{name}">') :].split("</figure>")[0]
        assert figure.count("<path") > 5, name
        assert "<text" in figure, "axes have labels as text"
    memory = page[page.index('<figure id="plot-memory">') :].split("</figure>")[0]
    assert memory.count("memory-patch_") >= len(digits["memory"]["memory_plan"]), "a rectangle for every buffer"


@pytest.mark.slow
def test_the_table_has_every_layer_with_its_reasons(page: str, digits: dict[str, Any]) -> None:
    body = page[page.index('<table id="layers">') :].split("</table>")[0].split("<tbody>")[1].split("</tbody>")[0]
    assert body.count("<tr") == len(digits["layers"])
    for row in digits["layers"]:
        assert f"{row['predicted_us']:.1f}" in body or not row["predicted_us"]
    why = html.unescape(page[page.index('<table id="reasons">') :].split("</table>")[0])
    reasons = [text for row in digits["layers"] for text in report_advice.reasons(row)]
    assert len(reasons) > 5 and all(text in why for text in reasons)
    assert "hold the proven range" in why and "of the packed bytes" in why
    assert "99.44 % of 360" in page and "Horowitz" in page and "What would help most next" in page


def test_what_is_predicted_is_for_the_threads_that_were_measured(digits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_plots, "available", lambda: False)
    rows = [{**row, "measured_us": 1.0, "predicted_us": 700.0, "predicted_all_threads_us": 400.0} for row in digits["layers"]]
    one, two = (report_page.html({**digits, "layers": rows, "measured_threads": threads}) for threads in (1, 2))
    assert ">700.0<" in one and ">400.0<" not in one and ">400.0<" in two and ">700.0<" not in two
    assert "measured on 1 thread;" in one and f"measured on 2 threads; predicted {0.4 * len(rows):.3f} ms" in two


@pytest.mark.slow
def test_names_of_a_model_cannot_break_the_page(digits: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    evil = json.loads(json.dumps(digits))
    for row in evil["layers"]:
        row["name"] = "<script>alert(1)</script> & $x_1^2$"
    found = Reader(report_page.html(evil))
    assert "script" not in found.tags and not found.open


def test_json_has_the_same_data(digits: dict[str, Any], tmp_path: Path) -> None:
    report.write(digits, str(tmp_path / "r.json"))
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(report_advice.explained(digits), default=str))
    held = json.loads((tmp_path / "r.json").read_text())
    assert held["next_steps"] == report_advice.next_steps(digits) and any(row["reasons"] for row in held["layers"])
    with pytest.raises(QccError, match="expected a name ending in"):
        report.check_path("r.txt")


def test_without_matplotlib_the_page_says_how_to_get_plots(digits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_plots, "available", lambda: False)
    text = report_page.html(digits)
    assert "pip install" in text and "<svg" not in text and not Reader(text).open


def test_energy_and_sizes_add_up(digits: dict[str, Any]) -> None:
    rows = digits["layers"]
    assert digits["totals"]["energy_nj"] == pytest.approx(sum(sum(r["energy_parts_nj"].values()) for r in rows))
    directory = digits["coding"]["stored_bytes"] - sum(r.get("stored_bytes", 0) for r in rows)
    assert 0 < directory < 8192, "what no layer owns is the header, shared tables and padding"


def test_a_fused_layer_moves_only_what_the_others_do_not() -> None:
    parts = {"generic": "", "macs": 0, "nonzero_macs": 0, "weights": 0, "weight_bytes": 0, "predicted_us": 0.0}
    counts = {"multiplications": {}, "additions": {"int32": 100}, "weight_bytes": {}, "activation_bytes": {"cache_8k": 300}}
    add = {**parts, "name": "add", "input_bytes": 200, "output_bytes": 100, "energy_counts": counts}
    table = {"name": "", "add_pj": {"int8": 0.0, "int32": 0.1}, "multiply_pj": {}, "memory_64bit_pj": {"cache_8k": 8.0}}
    fused, alone = (
        report.with_storage({"layers": [add], "energy_table": table}, {}, stored)["layers"][0]
        for stored in ({}, {"add": {"codelets": ["map"], "stored_bytes": 0}})
    )
    assert fused["energy_nj"] == pytest.approx((100 * 0.1 + 100) / 1000), "one operand; the other and the sum stay in registers"
    assert alone["energy_nj"] == pytest.approx((100 * 0.1 + 300) / 1000)
    assert "fused: has no step of its own" in report_advice.reasons(fused) and not report_advice.reasons(alone)


def test_what_was_recognised_and_removed_is_a_reason() -> None:
    facts = {
        "recognized": "binary, scale per channel", "low_rank": "rank 3 of 8: two layers", "taps": "9, of which 3 are not zero everywhere",
        "channels": 32, "channels_removed": 8, "inputs_removed": 4, "weight_only": True, "activations": "int16, quantized in the call",
        "stored_format": "16 levels", "images_at_once": 4, "constants_merged": "9 constant inputs became 2", "density": 1.0,
    }  # fmt: skip
    found = report_advice.reasons({"generic": "", "facts": facts})
    for text in (
        "recognised: binary, scale per channel", "rank 3 of 8: two layers", "taps: 9, of which 3 are not zero everywhere",
        "8 of 32 output channels and 4 input channels are zero or constant, and gone", "9 constant inputs became 2", "4 images at once",
        "only the weights are quantized; input: int16, quantized in the call", "stored as 16 levels",
    ):  # fmt: skip
        assert text in found
    assert len(found) == 8, "and nothing of numbers that have a column"


def test_advice_rests_on_figures() -> None:
    base = {
        "generic": "",
        "op": "conv2d",
        "measured_us": None,
        "density": 1.0,
        "arithmetic": "int",
        "facts": {},
        "stored_bytes": 1000,
        "weight_bytes": 1000,
    }
    parts = {"energy_nj": 100.0, "energy_parts_nj": {"weights": 90.0, "compute": 5.0, "activations": 5.0}}
    rows = [
        {**base, **parts, "name": "big", "macs": 2_000_000, "predicted_us": 60.0},
        {**base, **parts, "name": "soft", "macs": 0, "predicted_us": 30.0, "generic": "softmax: no codelet"},
        {**base, **parts, "name": "fc", "macs": 1000, "predicted_us": 10.0, "density": 0.1},
    ]
    coding = {"codec": "none", "stored_bytes": 3000, "entropy_bytes": 1500}
    advice = report_advice.next_steps({"layers": rows, "coding": coding})
    assert any("big is the slowest layer with 60.0% of the time; with 2000 products" in text for text in advice)
    assert any("30% of the time, first soft" in text for text in advice)
    assert any("--coding auto would store about 1.5 KiB less, 50%" in text for text in advice)
    assert any("1 layer stores more than half zeros" in text for text in advice)
    assert any("90% of the energy is weights from DRAM" in text for text in advice)
    assert not any("coding" in text for text in report_advice.next_steps({"layers": rows, "coding": {**coding, "codec": "rans"}}))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed (Debian: apt install chromium)")
def test_the_page_in_a_browser(page: str, tmp_path: Path) -> None:
    """A real browser lays out every plot with a size and reports no error to its console."""
    check = """<script>
      const boxes = [...document.querySelectorAll('svg.plot')].map(s => [s.getBoundingClientRect(), s.querySelectorAll('path').length]);
      document.title = 'plots ' + boxes.filter(([b, n]) => b.width > 300 && b.height > 150 && n > 5).length
        + ' rows ' + document.querySelectorAll('#layers tbody tr').length;
    </script>"""
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", check + "</body>"))
    command = [
        str(BROWSER),
        *OFFLINE.split(),
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
    ]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    rows = page[page.index('<table id="layers">') :].split("</table>")[0].split("<tbody>")[1].split("</tbody>")[0].count("<tr")
    assert f"<title>plots {len(report_plots.PLOTS)} rows {rows}</title>" in done.stdout, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr


def test_every_format_has_words() -> None:
    """From the type alone, whichever road it came by."""
    with create_context(), ir.Location.unknown():
        scales = np.ones((8, 2), np.float32)
        kinds = {
            "int4, scale per group of 32": element_types.affine_type(scales, 0, bits=4, block={0: 1, 1: 32}),
            "uint8, scale and zero point per tensor": element_types.affine_type(0.5, 3, signed=False),
            "int8, scale per channel": element_types.affine_type(np.ones(8), axis=0),
            "binary, scale per channel": types.make_type(types.Binary(scales[:, :1])),
            "ternary, two scales per tensor": types.make_type(types.Ternary(scales[:1, :1], 2 * scales[:1, :1])),
            "powers of two of 4 bits": types.make_type(types.Log2(4, True, -6, np.ones(1, np.float32))),
            "codebook of 16": types.make_type(types.Codebook(np.arange(16, dtype=np.float32), np.ones(1, np.float32))),
            "codebook of 16, scale per group of 32": types.make_type(types.Codebook(np.arange(16, dtype=np.float32), scales)),
            "f8E4M3FN, scale per channel": types.make_type(types.Scaled(ir.Float8E4M3FNType.get(), scales[:, :1])),
            "E4M0 float, scale per tensor": types.make_type(types.Minifloat(4, 0, 7, "none", np.ones(1, np.float32))),
            "f32": ir.F32Type.get(),
        }
        for words, kind in kinds.items():
            assert weight_format(ir.RankedTensorType.get([8, 64], kind)) == words
