"""What a run touches: not a byte beside the caller's arrays, and nothing that an executable or a result has let go of.

Both tests run in a process of their own, which a stray access ends: inputs and outputs lie between pages that may not be touched.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.dialects.errors import QccError

Array = np.ndarray[Any, Any]
PAGE = mmap.PAGESIZE
CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runs_between_guards", "outlives_what_made_it"])
def test_in_a_process(name: str) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-X", "faulthandler", "-c", f"from test.runtime.cpu import test_memory as t; t.CASES[{name!r}]()"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


class Guarded:
    """An array with a page in front of it or behind it that may not be touched."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], *, behind: bool) -> None:
        size = int(np.prod(shape)) * dtype.itemsize
        pages = -(-size // PAGE)
        self.memory = mmap.mmap(-1, (pages + 1) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        guard = base + (pages * PAGE if behind else 0)
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) == 0
        self.array = np.frombuffer(self.memory, dtype, size // dtype.itemsize, pages * PAGE - size if behind else PAGE).reshape(shape)


def layers() -> Any:
    """Layers of odd sizes in every kind of codelet that meets the caller's memory: f32, few levels, zeros, images, rows, ids, bytes."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.levels, self.zeros = nn.Linear(131, 7), nn.Linear(131, 45), nn.Linear(131, 301)
            self.levels.weight.data = torch.randint(-7, 8, (45, 131)) * torch.rand(45, 1)
            self.zeros.weight.data *= torch.rand(301, 131) < 0.1
            self.conv, self.depthwise = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 3, 3, groups=3)
            self.norm, self.table = nn.LayerNorm(131), nn.Embedding(11, 9)

        def forward(self, x: Any, image: Any, ids: Any) -> Any:
            rounded = torch.fake_quantize_per_tensor_affine(x, 0.03, 128, 0, 255)
            integer = nn.functional.linear(rounded, torch.fake_quantize_per_tensor_affine(self.linear.weight, 0.01, 0, -127, 127))
            rows = self.linear(x), self.levels(x), self.levels(x[:1]), self.zeros(x[:1]), integer, self.norm(x), torch.softmax(x, -1)
            images = self.conv(image), self.depthwise(image), torch.max_pool2d(image, 2), image.mean((2, 3))
            return *rows, *images, self.table(ids), x @ x.T, torch.tanh(x), x[:, 1:].T.contiguous()

    example = torch.randn(3, 131), torch.randn(1, 3, 7, 5), torch.tensor([3, 10, 0])
    return qcc.compile(Model().eval(), example_inputs=example, threads=2), [v.numpy() for v in example]


@case
def runs_between_guards() -> None:
    exe, given = layers()
    expected = exe(*given)
    for behind in (True, False):
        inputs, outputs = ([Guarded(spec.shape, spec.numpy, behind=behind) for spec in specs] for specs in (exe.inputs, exe.outputs))
        for guarded, value in zip(inputs, given, strict=True):
            guarded.array[...] = value
        exe.run_into([g.array for g in inputs], [g.array for g in outputs])
        for guarded, want in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(guarded.array, want)


TEXT = """func.func @main(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {{
  %w = "qcc.constant"() {{value = dense<{value}> : tensor<8x8xf32>}} : () -> tensor<8x8xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  return %y : tensor<8x8xf32>
}}"""


@case
def outlives_what_made_it() -> None:
    """Executables come and go, from code in memory and from files, in one order and the other; results stay."""
    import tempfile

    x, kept = np.ones((8, 8), np.float32), []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(12):
            source, file = Path(folder) / "model.mlir", Path(folder) / f"model{turn % 3}.so"
            source.write_text(TEXT.format(value=float(turn)))
            made = qcc.compile(str(source), threads=1 + turn % 2, coding=("none", "rans")[turn % 2])
            made.save(file)  # also over a file that is loaded
            loaded = qcc.load(file, threads=1)
            results = [made(x), loaded(x.copy()), made(np.ones((8, 8), np.float32))]
            try:
                made(x[:4])
            except QccError:
                pass
            if turn % 2:
                del made
                gc.collect()
                results.append(loaded(x))
            else:
                del loaded
                gc.collect()
                results.append(made(x))
            kept.append((turn, results, [r[1:] for r in results]))
    made = loaded = None
    gc.collect()
    for turn, results, views in kept:
        for result, view in zip(results, views, strict=True):
            assert (result == 8 * turn).all() and (view == 8 * turn).all(), turn
