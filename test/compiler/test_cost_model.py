"""Machine descriptions and what codelets are predicted to cost on them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import qcc
from qcc.compiler.cost import probe
from qcc.dialects import machine
from qcc.dialects.codelet import Contraction, Map, Operand, Step, Stream
from qcc.dialects.codelet_cost import cost
from qcc.dialects.errors import QccError
from qcc.dialects.instruction_sets import ISAS
from qcc.runtime.cpu import loader
from qcc.tools import qcc_bench

ROOT = Path(__file__).parents[2]
VNNI, NARROW = machine.DEFAULTS["emerald-rapids-vnni"], machine.DEFAULTS["x86-64-v3"]


def contraction(channels: int = 64, size: int = 14, run: int = 64, taps: tuple[int, int] = (3, 3)) -> Contraction:
    """A 3x3 convolution of [size, size, run] to `channels`."""
    row = run * (size + 2)
    return Contraction(
        isa="avx512_vnni", compute="dot4_u8s8", sizes=(1, 1, size, size, channels),
        x=Operand(0, "u8", (0, 0, row, run, 0)), w=Operand(1, "s8", (0, 0, 0, 0, taps[0] * taps[1] * run * 64)),
        taps=taps, tap_strides=(row, run), run=run, tile=(1, 7, 4), chunks=(1, size), operands=(),
        steps=(Step("requantize", (0, 1, 2, 3)),), y=Operand(2, "u8", (0, 0, channels * size, channels, 1)),
    )  # fmt: skip


def test_a_description_survives_its_file(tmp_path: Path) -> None:
    probe.keep(VNNI, tmp_path / "new" / "m.json")
    assert machine.read(tmp_path / "new" / "m.json") == VNNI


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}', json.dumps({"format": 1, "name": "x"})])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(text)
    with pytest.raises(QccError, match="no machine description"):
        machine.read(file)


def test_a_missing_description_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(QccError, match="qcc-bench machine"):
        machine.read(tmp_path / "none.json")


@pytest.mark.parametrize("isa", ISAS)
def test_the_shipped_description_of_an_instruction_set_has_its_products(isa: str) -> None:
    facts, found = ISAS[isa], machine.shipped(isa)
    width = 32 * facts.lanes
    assert found.gmacs[f"fma_{width}"] > 0
    assert (found.gmacs[f"dot4_{width}"] > 0) >= facts.dot4
    assert (found.gmacs["amx_int8"] > 0) == facts.tiles


def test_probes_have_the_order_of_the_runtime() -> None:
    text = (ROOT / "runtime" / "cpu" / "src" / "machine_probe.c").read_text()
    names = re.findall(r"PROBE_(\w+),", text[: text.index("PROBE_COUNT")])
    assert tuple(name.lower() for name in names) == probe.PROBES


def test_the_machine_can_be_probed() -> None:
    run = loader.runtime().qcc_machine_probe
    for name, size_bytes in (("clock", 0), ("read", 16 << 10), ("lone_step", 0)):  # how fast it is depends on who else runs
        assert 0 < run(probe.PROBES.index(name), 1, size_bytes, 2e6) < 1e4
    assert run(len(probe.PROBES), 1, 0, 1e6) == -1


def test_arithmetic_bounds_a_layer_with_long_reductions() -> None:
    found = cost(contraction(256, run=256), VNNI)
    macs = 14 * 14 * 256 * 9 * 256
    least = macs / VNNI.gmacs["dot4_512"] / 1000
    assert least < found.microseconds < 1.6 * least


def test_weights_from_memory_bound_a_layer_that_reads_each_once() -> None:
    layer = contraction(channels=4096, size=1, run=4096, taps=(1, 1))
    streamed = cost(layer, VNNI, weights_bytes=1 << 30)
    assert streamed.weight_bytes == 4096 * 4096
    least = 4096 * 4096 / VNNI.read_gbytes["dram"][0] / 1000
    assert least < streamed.microseconds < 2 * least
    nearer = cost(layer, VNNI)
    assert nearer and nearer.microseconds < streamed.microseconds


@pytest.mark.parametrize(
    ("decoder", "compute", "bits", "least", "most"),
    [
        ("planes", "int16", 8, 1, 1.3),
        ("planes", "int16", 4, 1, 1.3),
        ("sums", "int16", 1, 1, 2),
        ("products", "int16", 4, 1, 2),
        ("table", "f32", 4, 6, 20),
    ],
)
def test_narrow_streams_take_as_many_times_the_time_of_memory_as_was_measured(
    decoder: str, compute: str, bits: int, least: float, most: float
) -> None:
    n = k = 4096
    codelet = Stream(
        isa="avx2", compute=compute, decoder=decoder, bits=bits, sizes=(1, n, k), group=k, vectors=2, chunk=1, x=Operand(0, "f32", (k, 1)),
        w=Operand(1, "u8", (1,)), operands=(), steps=(), y=Operand(2, "f32", (n, 1)),
    )  # fmt: skip
    found = cost(codelet, NARROW, weights_bytes=1 << 30)
    memory = n * k * bits / 8 / NARROW.read_gbytes["dram"][0] / 1000
    assert least <= found.microseconds / memory < most


def test_a_faster_machine_is_predicted_faster() -> None:
    slow = replace(VNNI, gmacs={**VNNI.gmacs, "dot4_512": VNNI.gmacs["dot4_512"] / 4})
    assert cost(contraction(256, run=256), slow).microseconds > 2.5 * cost(contraction(256, run=256), VNNI).microseconds


def test_threads_share_tasks_and_pay_for_meeting() -> None:
    big, small = replace(contraction(256, run=256), chunks=(1, 7)), replace(contraction(16, size=2, run=4), chunks=(1, 1))
    assert cost(big, VNNI, threads=2).microseconds < 0.6 * cost(big, VNNI).microseconds
    assert cost(small, VNNI, threads=2).microseconds > cost(small, VNNI).microseconds


def test_a_longer_step_program_costs_more() -> None:
    x, y = Operand(0, "u8", (1000, 1)), Operand(1, "u8", (1000, 1))
    copy = Map("avx512_vnni", (100, 1000), (x,), (), y, 0, 100)
    table = replace(copy, steps=(Step("lut", (-1, 0)),))
    assert cost(copy, VNNI).microseconds < cost(table, VNNI).microseconds


@pytest.mark.parametrize(("run", "channels", "size", "residual", "measured_us"), [(16, 96, 112, False, 113), (64, 256, 56, True, 297)])
def test_an_epilogue_beside_products_takes_as_long_as_was_measured(
    run: int, channels: int, size: int, residual: bool, measured_us: float
) -> None:
    """1x1 layers of few channels on Zen 4, whose epilogue is as long as their products."""
    steps = (Step("requantize_real", (0, 1, 2)), Step("add_quantized", (-1, 3, 4, 5, 6, 7, 8, 9), bounds="byte"))
    layer = replace(contraction(channels, size, run, (1, 1)), isa="avx512_bf16", tile=(1, 2, 4))
    layer = replace(layer, steps=steps if residual else (Step("requantize", (0, 1, 2, 3), bounds="byte"),))
    found = cost(layer, machine.DEFAULTS["zen4"])
    assert found and 0.8 < measured_us / found.microseconds < 1.25


def test_every_layer_of_a_model_has_a_prediction() -> None:
    executable = qcc.compile(ROOT / "examples" / "digits_cnn.onnx", machine="emerald-rapids-vnni", threads=1)
    assert executable.report["machine"]["name"] == "emerald-rapids-vnni"
    assert all(row["predicted_us"] > 0 for row in executable.report["layers"] if row["macs"])  # others may be fused into these
    assert executable.report["totals"]["predicted_us"] == pytest.approx(sum(row["predicted_us"] for row in executable.report["layers"]))


def test_qcc_bench_shows_a_description(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    probe.keep(VNNI, file)
    assert qcc_bench.main(["machine", "--show", "--out", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == VNNI.name
    assert qcc_bench.main(["machine", "--show", "--out", str(tmp_path / "none.json")]) == 1
    assert "qcc-bench machine" in capsys.readouterr().err
