"""The AMX emulator against numpy, on instructions as gcc encodes them; what hardware refuses ends the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from test.emulation import amx

FLAGS = ("-mamx-tile", "-mamx-int8", "-mamx-bf16")
SIGNS = {"dpbssd": (True, True), "dpbsud": (True, False), "dpbusd": (False, True), "dpbuud": (False, False)}


@pytest.fixture(scope="module")
def program() -> ctypes.CDLL:
    amx.install()
    return amx.build(amx.HERE / "amx_program.c", *FLAGS)


def config(shapes: dict[int, tuple[int, int]]) -> np.ndarray:
    """The 64 bytes of a tile configuration: tile number -> (rows, bytes of a row)."""
    data = np.zeros(64, np.uint8)
    data[0] = 1
    for tile, (rows, row_bytes) in shapes.items():
        data[16 + 2 * tile], data[48 + tile] = row_bytes, rows
    return data


def call(function: Any, *values: np.ndarray | int) -> None:
    """Arrays go as pointers and stay alive during the call."""
    function(*[ctypes.c_int64(v) if isinstance(v, int) else ctypes.c_void_p(v.ctypes.data) for v in values])


def product(program: ctypes.CDLL, name: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, m: int, k: int, n: int) -> np.ndarray:
    """c after the instruction, on tiles of m rows, n columns and k quadruples (or pairs)."""
    made = c.copy()
    call(getattr(program, name), config({5: (m, 4 * n), 6: (m, 4 * k), 7: (k, 4 * n)}), a, b, made)
    return made


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize(("m", "k", "n"), [(16, 16, 16), (7, 6, 16), (1, 1, 1), (14, 16, 3)])
def test_products_of_bytes(program: ctypes.CDLL, name: str, m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m)
    a, b = (rng.integers(0, 256, (16, 64), np.uint8) for _ in range(2))
    c = rng.integers(-(1 << 31), 1 << 31, (16, 16)).astype(np.int32)
    made = product(program, name, a, b, c, m, k, n)
    x, w = (v.view(np.int8 if signed else np.uint8).astype(np.int64) for v, signed in zip((a, b), SIGNS[name], strict=True))
    columns = w[:k, : 4 * n].reshape(k, n, 4).transpose(0, 2, 1).reshape(4 * k, n)
    want = c.copy()
    want[:m, :n] = (c[:m, :n] + x[:m, : 4 * k] @ columns).astype(np.uint64).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(made, want)


def _bf16_reference(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The manual's loop: denormals are zero on both sides; a product of two bf16 is exact, so a sum in f64 rounds as a fused one does
    (24 + 24 bits fit unless the exponents lie more than 29 apart, which the inputs here avoid)."""

    def flush(v: np.ndarray) -> np.ndarray:
        return np.where(np.abs(v) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), v), v).astype(np.float32)

    m, n = c.shape
    total = np.zeros((m, n, 2), np.float32)
    a, b = flush(a.astype(np.float32)), flush(b.astype(np.float32))
    for k in range(a.shape[1] // 2):
        for j in range(2):
            term = a[:, None, 2 * k + j].astype(np.float64) * b[k, j::2][None].astype(np.float64)
            total[:, :, j] = flush((total[:, :, j].astype(np.float64) + term).astype(np.float32))
    return flush(flush(c) + flush(total[:, :, 0] + total[:, :, 1]))


@pytest.mark.parametrize(("m", "k", "n"), [(16, 16, 16), (3, 5, 7)])
@pytest.mark.parametrize("scale", [1.0, 1e-20])
def test_products_of_bf16(program: ctypes.CDLL, m: int, k: int, n: int, scale: float) -> None:
    """At 1e-20 most products are denormal or vanish."""
    rng = np.random.default_rng(k)
    a, b = ((rng.integers(-255, 256, (16, 32)) * scale).astype(ml_dtypes.bfloat16) for _ in range(2))
    c = (rng.integers(-9, 9, (16, 16)) * scale * scale).astype(np.float32)
    made = product(program, "dpbf16ps", a, b, c, m, k, n)
    want = c.copy()
    want[:m, :n] = _bf16_reference(a[:m, : 2 * k], b[:k, : 2 * n], c[:m, :n])
    np.testing.assert_array_equal(made, want)


def test_addresses(program: ctypes.CDLL) -> None:
    rng = np.random.default_rng(1)
    memory = rng.integers(0, 256, (16, 96), np.uint8)
    made = np.full((6, 16, 64), 0xA5, np.uint8)
    call(program.addresses, config({3: (16, 64)}), memory, 96, made)
    rows = memory[:, :64]
    for got, want in zip(made, [rows, rows, rows, np.tile(rows[0], (16, 1)), rows[::-1], np.zeros_like(rows)], strict=True):
        np.testing.assert_array_equal(got, want)


def test_configurations(program: ctypes.CDLL) -> None:
    loaded = config({0: (16, 64), 7: (5, 12)})
    stored, released, relative = (np.full(64, 0xA5, np.uint8) for _ in range(3))
    call(program.store_config, loaded, stored, released)
    np.testing.assert_array_equal(stored, loaded)
    np.testing.assert_array_equal(released, np.zeros(64, np.uint8))
    call(program.relative_config, relative)
    np.testing.assert_array_equal(relative, config({0: (16, 64)}))


def test_every_thread_has_its_tiles(program: ctypes.CDLL) -> None:
    ones = np.full((16, 64), 1, np.uint8)
    wrong: list[Any] = []

    def run(rows: int) -> None:
        for _ in range(30):
            c = np.zeros((16, 16), np.int32)
            made = product(program, "dpbusd", ones, ones, c, rows, 16, 16)
            if not ((made[:rows] == 64).all() and (made[rows:] == 0).all()):
                wrong.append(made)

    threads = [threading.Thread(target=run, args=(rows,)) for rows in (3, 16, 7)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({5: (16, 64), 6: (16, 64), 7: (15, 64)}, "the shapes of its tiles do not fit"),
        ({5: (16, 64), 6: (16, 64)}, "the tile is not configured"),
        ({5: (17, 64)}, "larger than the palette allows"),
    ],
)
@pytest.mark.skipif(amx.machine_has_amx(), reason="hardware says so itself")
def test_what_hardware_refuses_ends_the_process(shapes: dict[int, tuple[int, int]], message: str) -> None:
    code = (
        "import numpy as np; from test.emulation import amx; from test.emulation.test_amx_emulator import FLAGS, call, config; "
        "amx.install(); a = np.zeros(1024, np.uint8); "
        f"call(amx.build(amx.HERE / 'amx_program.c', *FLAGS).dpbusd, config({shapes}), a, a, a)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=amx.HERE.parents[1])
    assert done.returncode < 0
    assert message in done.stderr


@pytest.mark.skipif(amx.machine_has_amx(), reason="nothing is emulated")
def test_other_illegal_instructions_stay_illegal() -> None:
    code = (
        "import ctypes, mmap; from test.emulation import amx; amx.install(); "
        "m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\x0f\\x0b'); "
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=amx.HERE.parents[1])
    assert done.returncode == -4  # SIGILL
