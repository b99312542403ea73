"""Coded weights: the C decoders equal the numpy reference bit for bit, damage is an error, and every mode gives the same outputs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import qcc
from qcc.compiler.emit import coded_weights, machine_code, metadata, program
from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create, create_context, ir, parse_module, walk
from qcc.passes.values import make_constant
from qcc.runtime.cpu import artifact_file, executable, loader
from qcc.runtime.reference import codecs, weights_image
from test.tiers import draws, slow_except

ISAS = ("portable", "avx2", "avx512")
BAD_CPU, BAD_WEIGHTS = 3, 6


def aligned(size: int) -> np.ndarray:
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def decode_in_c(data: np.ndarray | bytes, size: int, isa: int = -1, threads: int = 1) -> tuple[int, np.ndarray]:
    image, block = aligned(len(data)), aligned(size)
    image[:] = np.frombuffer(data, np.uint8)
    return loader.runtime().qcc_weights_decode(image.ctypes.data, image.size, block.ctypes.data, size, threads, isa), block


def part(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    match kind:
        case "bell":
            return np.clip(np.rint(rng.standard_normal(size) * rng.uniform(1, 40)), -128, 127).astype(np.int8).view(np.uint8)
        case "ternary":
            return rng.choice(np.array([0, 1, 255], np.uint8), size)
        case "nibbles":
            low, high = (np.minimum(rng.geometric(0.4, size) - 1, 15) for _ in range(2))
            return (low | high << 4).astype(np.uint8)
        case "constant":
            return np.full(size, rng.integers(0, 256), np.uint8)
        case _:
            return rng.integers(0, 256, size).astype(np.uint8)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A block of weights and its spans: multiples of 64 bytes, gaps between some."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    kinds = draw(st.lists(st.sampled_from(["bell", "ternary", "nibbles", "constant", "noise"]), min_size=1, max_size=5))
    pieces, spans, end = [], [], 0
    for kind in kinds:
        gap, size = 64 * draw(st.integers(0, 2)), 64 * draw(st.integers(1, 60) | st.sampled_from([1024, 1025, 2500]))
        pieces += [np.zeros(gap, np.uint8), part(rng, kind, size)]
        spans.append((end + gap, size))
        end += gap + size
    return np.concatenate(pieces), spans


@draws(25)
@given(blocks(), st.sampled_from(["huffman", "rans", "auto"]))
def test_c_decoders_equal_the_reference(case: tuple[np.ndarray, list[tuple[int, int]]], codec: str) -> None:
    block, spans = case
    image = weights_image.encode(block, spans, codec)
    assert np.array_equal(weights_image.decode(image.data.tobytes()), block)
    assert sum(e.stored_bytes for e in image.entries) <= sum(e.size_bytes + 32 for e in image.entries), "the escape holds"
    for isa, name in enumerate(ISAS):
        for threads in (1, 3):
            status, found = decode_in_c(image.data, block.size, isa, threads)
            if status == BAD_CPU:
                continue
            assert status == 0, f"{name}: {loader.runtime().qcc_model_error().decode()}"
            assert np.array_equal(found, block), name


@pytest.mark.parametrize("codec", ["huffman", "rans"])
@pytest.mark.parametrize("kind", slow_except(["bell", "ternary", "nibbles", "constant"], "nibbles"))
@pytest.mark.parametrize("bits", slow_except([8, 4, 2], 8))
def test_every_symbol_width_decodes(codec: str, kind: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = part(np.random.default_rng(1), kind, 70080)
    tables = {8: 0, 4: 1, 2: 2}
    real = weights_image._choose

    def only(entries: Any, histograms: Any, modes: Any, raw: Any) -> Any:
        made = real(entries, histograms, modes, raw)
        entries[0].mode, entries[0].bits, entries[0].table, entries[0].own_table = modes[0], bits, tables[bits], False
        entries[0].tile_shift = 0
        return made

    monkeypatch.setattr(weights_image, "_choose", only)
    image = weights_image.encode(block, [(0, block.size)], codec)
    coded = image.entries[0].mode != codecs.RAW
    assert coded == (image.entries[0].stored_bytes < block.size)
    assert np.array_equal(weights_image.decode(image.data.tobytes()), block)
    for isa in range(3):
        status, found = decode_in_c(image.data, block.size, isa)
        assert status == BAD_CPU or (status == 0 and np.array_equal(found, block))


@pytest.mark.slow
def test_coded_int8_and_int4_and_ternary_come_near_the_order_0_bound() -> None:
    rng = np.random.default_rng(0)
    for values, bound in (
        (np.clip(np.rint(rng.standard_normal(1 << 20) * 25), -127, 127), 1.01),
        (np.clip(np.rint(rng.standard_normal(1 << 20) * 2.5), -7, 7), 1.02),
        (rng.choice([-1, 0, 1], 1 << 20, p=[0.25, 0.5, 0.25]), 1.05),
        (rng.choice([-1, 1], 1 << 20), 1.05),
    ):
        block = values.astype(np.int8).view(np.uint8)
        image = weights_image.encode(block, [(0, block.size)], "rans")
        assert image.data.size <= bound * codecs.entropy_bits(block) * block.size / 8


@pytest.mark.parametrize("codec", slow_except(["huffman", "rans"], "rans"))
def test_bytes_of_few_bits_have_long_tiles(codec: str) -> None:
    """Pruned by magnitude: nine of ten are 0, the others far from it."""
    rng = np.random.default_rng(2)
    values = np.clip(np.rint(rng.standard_normal(1 << 20) * 32), -127, 127)
    block = np.where(np.abs(values) > 53, values, 0).astype(np.int8)[:700032].view(np.uint8)
    image = weights_image.encode(block, [(0, block.size)], codec)
    assert image.entries[0].tile_shift == (2 if codec == "rans" else 0), "Huffman has at least one bit a symbol"
    assert codec == "huffman" or image.data.size <= 1.025 * image.entries[0].entropy_bytes
    assert np.array_equal(weights_image.decode(image.data.tobytes()), block)
    for isa in range(3):
        for threads in (1, 3):
            status, found = decode_in_c(image.data, block.size, isa, threads)
            assert status == BAD_CPU or (status == 0 and np.array_equal(found, block))


def test_small_tensors_share_a_table() -> None:
    rng = np.random.default_rng(0)
    block = np.concatenate([part(rng, "ternary", 512) for _ in range(40)])
    image = weights_image.encode(block, [(512 * i, 512) for i in range(40)], "huffman")
    assert all(e.mode == codecs.HUFFMAN and not e.own_table for e in image.entries)


SOUND = np.concatenate([part(np.random.default_rng(5), kind, 4096 + 64) for kind in ("bell", "ternary", "nibbles", "noise")])
IMAGES = {codec: weights_image.encode(SOUND, [(4160 * i, 4160) for i in range(4)], codec).data for codec in ("huffman", "rans")}


@draws(200)
@given(st.sampled_from(["huffman", "rans"]), st.data())
def test_damaged_images_are_an_error_or_other_bytes_but_never_a_crash(codec: str, data: st.DataObject) -> None:
    image = IMAGES[codec].copy()
    front = 64 + 4 * 32 + 64
    for _ in range(data.draw(st.integers(1, 3))):
        image[data.draw(st.integers(0, front) | st.integers(0, image.size - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(1, image.size - 1))
    size = data.draw(st.sampled_from([SOUND.size, SOUND.size, 64]))
    for isa in range(3):
        status, _ = decode_in_c(image[:cut], size, isa)
        assert status in (0, BAD_CPU, BAD_WEIGHTS)
        assert cut is None or status != 0


@pytest.mark.parametrize("codec", ["huffman", "rans"])
def test_a_damaged_payload_is_found(codec: str) -> None:
    image = IMAGES[codec].copy()
    found = 0
    for position in range(image.size - 4600, image.size - 100, 50):  # in the tiles, which lie last
        image[position] ^= 64
        found += decode_in_c(image, SOUND.size)[0] == BAD_WEIGHTS
        image[position] ^= 64
    assert found >= 60, f"{found} of 90 changed bytes of tiles were noticed"
    assert b"are damaged" in loader.runtime().qcc_model_error()


DIGITS = Path(__file__).parents[3] / "examples" / "digits_cnn.mlir"


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """An input of the digits CNN and its output with weights that are not coded."""
    plain = qcc.compile(DIGITS, threads=1)
    x = np.random.default_rng(0).standard_normal(plain.inputs[0].shape).astype(np.float32)
    return x, plain(x)


@pytest.mark.slow
@pytest.mark.parametrize(("coding", "decode"), [("huffman", "load"), ("rans", "load"), ("huffman", "stream"), ("auto", "stream")])
def test_every_mode_gives_the_same_outputs(coding: str, decode: str, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x, expected = digits
    made = qcc.compile(DIGITS, threads=2, coding=coding, decode=decode)
    made.save(tmp_path / "m.so")
    for exe in (made, qcc.load(tmp_path / "m.so", threads=1), qcc.load(tmp_path / "m.so", threads=2)):
        for _ in range(3):
            assert np.array_equal(exe(x), expected)
        assert exe.profile([x]).total_us > 0 and np.array_equal(exe(x), expected)
        assert exe.start_seconds > 0 and "start-up" in str(exe.benchmark(seconds=0.01))
    coding_report = made.report["coding"]
    assert coding_report["codec"] == coding and coding_report["stored_bytes"] < coding_report["decoded_bytes"]
    row = next(row for row in made.report["layers"] if row["weights"])
    assert 0 < row["entropy_bits"] <= row["weight_bits"] and row["stored_bits"] >= row["packed_entropy_bits"] * 0.99


def test_contexts_share_what_was_decoded_at_load(tmp_path: Path) -> None:
    path = tmp_path / "tiny.so"
    program.executable(tiny.llvm_module(), CpuTarget(), options=CompileOptions(coding="rans")).save(path)
    exe = qcc.load(path, threads=1)
    library, other = exe._program.library, ctypes.c_void_p()
    assert library.qcc_model_create(1, ctypes.byref(other)) == 0
    library.qcc_model_destroy(other)
    x = np.ones((4, 16), np.float32)
    assert np.array_equal(exe(x), x - 2.5), "destroying one context leaves the weights to the others"


def test_damage_under_a_checksum_that_fits_is_an_error_of_loading(tmp_path: Path) -> None:
    path = tmp_path / "tiny.so"
    program.executable(tiny.llvm_module(), CpuTarget(), options=CompileOptions(coding="rans")).save(path)
    body = path.read_bytes()[:-48]
    section = artifact_file.elf_section(body, ".qcc.weights")
    assert section is not None and section[:8] == weights_image.MAGIC
    for position in (0, 17, 64 + 8, len(section) - 64 - 100):  # magic, decoded size, an entry's size, a first state
        damaged = bytearray(body)
        damaged[body.index(section) + position] ^= 16
        place = tmp_path / f"damaged-{position}.so"  # a name of its own: the loader keeps what it mapped
        place.write_bytes(artifact_file.seal(bytes(damaged)))
        with pytest.raises(QccError, match=r"coded weights (are damaged|decode to)"):
            qcc.load(place)


def test_damage_found_while_streaming_is_an_error_of_the_run() -> None:
    module = tiny.llvm_module()
    code, stored = machine_code.MachineCode(module), coded_weights.stored_weights(module, "rans", "stream")
    info = metadata.metadata(module, CpuTarget(), stored.data)
    assert any(e.mode == codecs.RANS for e in stored.entries)
    sound = executable.from_program(code.program_address, stored.data, info, streams=True, threads=2)
    x = np.ones((4, 16), np.float32)
    assert np.array_equal(sound(x), x - 2.5)
    stored.data[-64 - 100] ^= 255  # a first state of the last tile
    with pytest.raises(QccError, match="coded weights are damaged"):
        executable.from_program(code.program_address, stored.data, info, streams=True, threads=2)(x)


def test_optimizing_for_size_codes_and_bad_choices_are_named() -> None:
    assert CompileOptions(optimize="size").weight_coding == "auto" and CompileOptions().weight_coding == "none"
    assert CompileOptions(optimize="size", coding="none").weight_coding == "none"
    assert CompileOptions(decode="stream").weight_coding == "auto", "what is not coded is not decoded"
    with pytest.raises(QccError, match="so there is nothing to decode; leave coding out"):
        CompileOptions(decode="stream", coding="none")
    with pytest.raises(QccError, match="coding is 'zip', expected one of none, huffman, rans, auto"):
        CompileOptions(coding="zip")
    with pytest.raises(QccError, match="decode is 'never', expected one of load, stream"):
        CompileOptions(decode="never")


@pytest.mark.parametrize("cpu", slow_except(["x86-64-v3", "alderlake", "icelake-server"], "x86-64-v3"))
def test_layers_of_bytes_are_coded_once_each(cpu: str) -> None:
    """Whatever order products read them in: an instruction set whose fastest order stores parts of weights codes the weights."""
    rng = np.random.default_rng(5)
    w = np.clip(np.rint(rng.standard_normal((256, 256, 1, 1)) * 32), -127, 127).astype(np.int8)
    q = "!quant.uniform<u8:f32, 0.05>"
    text = f"""func.func @main(%x: tensor<1x256x14x14x{q}>) -> tensor<1x256x14x14x{q}> {{
      %f = "qcc.dequantize"(%x) : (tensor<1x256x14x14x{q}>) -> tensor<1x256x14x14xf32>
      %y = "qcc.quantize"(%f) : (tensor<1x256x14x14xf32>) -> tensor<1x256x14x14x{q}>
      return %y : tensor<1x256x14x14x{q}> }}"""
    with create_context() as context, ir.Location.name("layer"):
        module = parse_module(text, context)
        end = next(walk(module, "qcc.quantize"))
        weight = make_constant(w, ir.Type.parse("!quant.uniform<i8:f32, 0.01>"), end)
        kind, ip = end.operands[0].type, ir.InsertionPoint(end)
        real = create("qcc.dequantize", [weight], [ir.RankedTensorType.get(list(w.shape), ir.F32Type.get())], ip=ip).results[0]
        attributes = {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1}
        end.operands[0] = create("qcc.conv2d", [end.operands[0], real], [kind], attributes, ip=ip).results[0]
        made = qcc.compile(module, target=CpuTarget(cpu), coding="rans", threads=1)
    row = next(row for row in made.report["layers"] if row["macs"])
    assert row["stored_bits"] <= 1.02 * row["entropy_bits"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["compressed rows", "bitmap", "columns"])
def test_index_streams_are_coded_and_counted(form: str) -> None:
    """Bits per weight are those of values and index together; coding takes both nearer to their entropy, and changes no result."""
    rng = np.random.default_rng(4)
    real, zeros = form == "compressed rows", 0.5 if form == "bitmap" else 0.9
    w = rng.standard_normal((1024, 1024)).astype(np.float32) if real else rng.integers(-127, 128, (1024, 1024)).astype(np.float32)
    w[rng.random(w.shape) < zeros] = 0
    w[:, :2] = 1, 127  # the step of integers
    kept = np.count_nonzero(w) / w.size
    with create_context(), ir.Location.unknown():
        text = "func.func @main(%x: tensor<1x1024xf32>) -> tensor<1x1024xf32> { return %x : tensor<1x1024xf32> }"
        module = parse_module(text, ir.Context.current)
        end = next(walk(module, "func.return"))
        weight = make_constant(w, ir.F32Type.get(), end)
        with ir.Location.name("layer"):
            y = create("qcc.linear", [end.operands[0], weight], [end.operands[0].type], ip=ir.InsertionPoint(end)).results[0]
        end.operands[0] = y
        source = module.operation.get_asm(enable_debug_info=True)
    rows, results = {}, []
    for coding in ("none", "rans"):
        with create_context() as context:
            module = parse_module(source, context)
            executable = qcc.compile(module, target=CpuTarget("icelake-server"), coding=coding, threads=1)
        rows[coding] = next(row for row in executable.report["layers"] if row["macs"])
        if executable.runs_here:
            results.append(executable(np.ones((1, 1024), np.float32)))
    assert form in rows["none"]["facts"]["stored_format"]
    index_bits = 16 * kept if real else 1 if form == "bitmap" else 8 * kept
    value_bits = (32 if real else 8) * kept
    assert rows["none"]["stored_bits"] > value_bits + 0.9 * index_bits, "the index is counted"
    assert rows["rans"]["codec"] == ("raw" if form == "bitmap" else "rans"), "bitmaps of half zeros are noise: raw is smaller"
    assert rows["rans"]["stored_bits"] <= 1.02 * rows["rans"]["packed_entropy_bits"] < rows["none"]["stored_bits"] + 0.1
    assert all(np.array_equal(y, results[0]) for y in results)
