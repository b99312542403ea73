"""What a model keeps from call to call: as PyTorch's own buffers do, through files, threads and resets."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcc
from qcc.dialects.errors import QccError
from qcc.runtime.cpu import loader
from test.tiers import slow_except


class Decoder(nn.Module):
    """One layer of attention over the keys and values of all steps so far, and a count of steps."""

    def __init__(self, heads: int = 2, width: int = 6, longest: int = 9) -> None:
        super().__init__()
        self.longest, self.heads = longest, heads
        self.query, self.key, self.value = (nn.Linear(heads * width, heads * width) for _ in range(3))
        self.register_buffer("keys", torch.zeros(1, heads, longest, width))
        self.register_buffer("values", torch.zeros(1, heads, longest, width), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (layer(x).reshape(1, 1, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value))
        self.keys.index_copy_(2, position, k)
        self.values[:, :, position] = v
        self.steps.add_(1)
        mask = (torch.arange(self.longest) <= position)[None]
        y = nn.functional.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask)
        return y.transpose(1, 2).reshape(x.shape), self.steps * 1


class Exchange(nn.Module):
    """States that change places, that are returned as they were, and that are written twice."""

    def __init__(self) -> None:
        super().__init__()
        for i, name in enumerate(("first", "second", "third")):
            self.register_buffer(name, torch.arange(12.0).reshape(3, 4) + 100 * i)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        old, third = self.first.clone(), self.third.clone()
        self.first.copy_(self.second)
        self.second.copy_(old.flip(0))
        self.third[torch.tensor([1])] = x
        self.third[torch.tensor([0])] = x + 1
        return old + 0.0, third.sum(0), self.third * 2


def steps_of(model: nn.Module, count: int = 5) -> list[tuple[torch.Tensor, ...]]:
    torch.manual_seed(3)
    if isinstance(model, Decoder):
        return [(torch.randn(1, 1, 12), torch.tensor([i])) for i in (0, 1, 2, 2, 8)[:count]]
    return [(torch.randn(1, 4),) for _ in range(count)]


def follows(executable: Any, model: nn.Module, steps: list[tuple[torch.Tensor, ...]]) -> None:
    for inputs in steps:
        with torch.no_grad():
            wanted = model(*inputs)
        for found, want in zip(executable(*inputs), wanted, strict=True):
            torch.testing.assert_close(found, want)
    for name, value in executable.state.items():
        np.testing.assert_allclose(value, getattr(model, name).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", slow_except([Decoder, Exchange], Exchange))
@pytest.mark.parametrize("threads", slow_except([1, 2], 1))
def test_calls_follow_pytorch(make: Any, threads: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = make().eval()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    steps = steps_of(model)
    qcc.compile(model, example_inputs=steps[0], threads=1).save(tmp_path / "model.so")
    executable = qcc.load(tmp_path / "model.so", threads=threads)
    follows(executable, model, steps)
    other = make().eval()
    other.load_state_dict(fresh)
    executable.reset()
    follows(executable, other, steps)


@pytest.mark.slow
def test_rows_go_where_the_state_lies() -> None:
    """Keys and values are not copied: the steps write no more than the new row of each."""
    model = Decoder(heads=4, width=16, longest=512).eval()
    executable = qcc.compile(model, example_inputs=(torch.randn(1, 1, 64), torch.tensor([0])), threads=1)
    steps = [step for step in executable.info["steps"] if step["layer"] != "scaled_dot_product_attention"]
    assert sum(step["codelet"].startswith("insert") for step in steps) == 2
    keys_bytes = 4 * 512 * 16 * 4
    assert not [step for step in steps if step["bytes"] >= 2 * keys_bytes], "nothing reads and writes as much as all keys"


@pytest.mark.slow
def test_state_is_read_and_brought_back() -> None:
    model = Decoder().eval()
    steps = steps_of(model)
    executable = qcc.compile(model, example_inputs=steps[0], threads=1)
    assert [s.name for s in executable.states] == ["keys", "values", "steps"] and [s.name for s in executable.inputs] == ["x", "position"]
    executable(*steps[0])
    held = executable.state
    first = executable(*steps[1])
    executable.benchmark(seconds=0.01)
    executable.profile(runs=2)
    assert int(executable.state["steps"]) == 2, "measuring leaves no trace"
    executable.state = held
    assert int(executable.state["steps"]) == 1
    for a, b in zip(executable(*steps[1]), first, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(QccError, match="the model keeps no state 'cache', expected one of: keys, values, steps"):
        executable.state = {"cache": np.zeros(3)}
    with pytest.raises(QccError, match=r"state 'steps' has shape \[1\] and dtype int64, expected shape \[\] and dtype int64"):
        executable.state = {"steps": np.zeros(1, np.int64)}


def test_a_second_thread_is_refused() -> None:
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(1500, 1500))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x @ x)
            return self.total.sum(0)

    executable = qcc.compile(Slow().eval(), example_inputs=(x := torch.randn(1500, 1500),), threads=1)
    problems: list[str] = []

    def call() -> None:
        try:
            executable(x)
        except QccError as problem:
            problems.append(problem.message)

    workers = [threading.Thread(target=call) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems and set(problems) == {"the model keeps state and is running in another thread; load it once for each thread"}


@pytest.mark.slow
def test_every_context_of_the_c_interface_has_its_own_state(tmp_path: Path) -> None:
    model = Exchange().eval()
    (x,) = steps_of(model)[0]
    qcc.compile(model, example_inputs=(x,), threads=1).save(tmp_path / "model.so")
    header = (tmp_path / "model.h").read_text()
    assert "state 0: first float[3, 4]" in header and "int qcc_model_reset(qcc_model *model);" in header
    library = loader.bind(tmp_path / "model.so")
    results = [np.zeros(s, np.float32) for s in ((3, 4), (4,), (3, 4))]
    pointers = (ctypes.c_void_p * 3)(*(r.ctypes.data for r in results))
    given = (ctypes.c_void_p * 1)(x.data_ptr())
    contexts = [ctypes.c_void_p(), ctypes.c_void_p()]
    for context in contexts:
        assert library.qcc_model_create(1, ctypes.byref(context)) == 0
    seen: list[float] = []
    for context in (contexts[0], contexts[0], contexts[1]):
        assert library.qcc_model_run(context, given, pointers) == 0
        seen.append(float(results[0][0, 1]))
    assert seen == [1.0, 101.0, 1.0]
    assert library.qcc_model_reset(contexts[0]) == 0 and library.qcc_model_run(contexts[0], given, pointers) == 0
    assert results[0][0, 1] == 1.0
    for context in contexts:
        library.qcc_model_destroy(context)


def test_the_accelerator_says_that_it_keeps_no_state() -> None:
    model = Exchange().eval()
    with pytest.raises(QccError, match="the model keeps state from run to run, which the accelerator does not; compile it for the CPU"):
        qcc.compile(model, example_inputs=steps_of(model)[0], target="fpga")
