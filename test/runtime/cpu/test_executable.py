"""The C runtime, just-in-time programs, artefacts and the Python call, on a hand-written program of two steps."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import qcc
from qcc.compiler.emit import program
from qcc.compiler.targets.cpu import FEATURES, PRESETS, CpuTarget
from qcc.dialects.errors import QccError
from qcc.runtime.cpu import loader

X = np.arange(64, dtype=np.float32).reshape(4, 16)  # [4, 16] f32


@pytest.fixture(scope="module")
def jit() -> Any:
    return program.executable(tiny.llvm_module(), CpuTarget(), threads=2)


@pytest.fixture(scope="module")
def artefact(jit: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artefact") / "tiny.so"
    jit.save(path)
    return path


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_a_program_and_its_artefact_compute_the_same(jit: Any, artefact: Path, threads: int) -> None:
    assert np.array_equal(jit(X), X - 2.5)
    assert np.array_equal(qcc.load(artefact, threads=threads)(X), X - 2.5)


def test_a_strided_input_is_made_contiguous(jit: Any) -> None:
    wide = np.arange(128, dtype=np.float32).reshape(4, 32)
    assert np.array_equal(jit(wide[:, ::2]), wide[:, ::2] - 2.5)


def test_torch_in_gives_torch_out(jit: Any) -> None:
    torch = pytest.importorskip("torch")
    y = jit(torch.from_numpy(X).requires_grad_())
    assert isinstance(y, torch.Tensor) and torch.equal(y, torch.from_numpy(X - 2.5))


def test_a_torch_tensor_of_another_dtype_is_named(jit: Any) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(QccError, match=r"input 'x' has shape \[4, 16\] and dtype torch.float64, .* convert it with .to\(torch.float32\)"):
        jit(torch.zeros(4, 16, dtype=torch.float64))


def test_a_strided_torch_tensor(jit: Any) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(64, dtype=torch.float32).reshape(16, 4).T
    assert torch.equal(jit(x), x - 2.5)


def test_a_read_only_input(jit: Any) -> None:
    x = X.copy()
    x.flags.writeable = False
    assert np.array_equal(jit(x), x - 2.5)


@pytest.mark.parametrize(
    "values, words",
    [
        ((), r"0 inputs given, expected 1: x \[4, 16\] float32"),
        ((X, X), "2 inputs given"),
        ((X[:2],), r"input 'x' has shape \[2, 16\] and dtype float32, expected shape \[4, 16\]"),
        ((X.astype(np.float64),), r"convert it with .astype\('float32'\)"),
        (([1.0],), "input 'x' has type list"),
    ],
)
def test_wrong_inputs_are_named(jit: Any, values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(QccError, match=words):
        jit(*values)


def test_inputs_by_name_and_in_sequences(jit: Any) -> None:
    assert np.array_equal(jit(x=X), jit(X))
    assert np.array_equal(jit((), [X]), jit(X))
    for given, words in (({"y": X}, "named y, expected x"), ({"x": X, "y": X}, "named x, y, expected x")):
        with pytest.raises(QccError, match=words):
            jit(**given)
    with pytest.raises(QccError, match="expected none by name"):
        jit(X, x=X)


def test_many_threads_share_one_executable(jit: Any) -> None:
    wrong: list[int] = []

    def work(k: int) -> None:
        for i in range(50):
            x = X + k * 1000 + i
            if not np.array_equal(jit(x), x - 2.5):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_no_threads_is_not_a_count() -> None:
    with pytest.raises(QccError, match="threads is 0, expected at least 1"):
        program.executable(tiny.llvm_module(), CpuTarget(), threads=0)


def test_profile_has_a_time_per_layer(artefact: Path) -> None:
    profile = qcc.load(artefact, threads=1).profile([X], runs=3)
    assert [row[:2] for row in profile.steps] == [("first", "add"), ("second", "add")]
    assert set(profile.layer_us) == {"first", "second"} and profile.total_us > 0
    assert "first  (add)" in str(profile)


def test_an_interrupted_run_says_nothing_of_a_step(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = qcc.load(artefact, threads=1)
    totals = iter([(1000, 2000), (2000, 90_000), (3000, 92_000)])  # ns of both steps up to each run

    def read(_: Any, address: int) -> None:
        ctypes.memmove(address, np.array(next(totals), np.int64).ctypes.data, 16)

    monkeypatch.setattr(executable._program.library, "qcc_model_profile_read", read)
    assert [us for *_, us in executable.profile([X], runs=3).steps] == [1.0, 2.0]


def test_benchmark_counts_runs(artefact: Path) -> None:
    found = qcc.load(artefact, threads=1).benchmark([X], seconds=0.02)
    assert len(found.seconds) >= 1 and found.percentile_ms(50) <= found.percentile_ms(99)


def test_artefacts_are_reproducible(jit: Any, artefact: Path, tmp_path: Path) -> None:
    again = program.executable(tiny.llvm_module(), CpuTarget())
    again.save(tmp_path / "again.so")
    assert (tmp_path / "again.so").read_bytes() == artefact.read_bytes()


def test_a_loaded_artefact_saves_itself(artefact: Path, tmp_path: Path) -> None:
    qcc.load(artefact).save(tmp_path / "copy.so")
    assert (tmp_path / "copy.so").read_bytes() == artefact.read_bytes()
    assert (tmp_path / "copy.h").exists()
    assert np.array_equal(qcc.load(tmp_path / "copy.so")(X), X - 2.5)


def test_metadata_survives_the_artefact(jit: Any, artefact: Path) -> None:
    loaded = qcc.load(artefact)
    assert loaded.info == jit.info
    assert (loaded.inputs[0].name, loaded.inputs[0].shape, loaded.inputs[0].dtype) == ("x", (4, 16), "float32")
    assert loaded.info["arena_bytes"] == 256 and loaded.info["weights_bytes"] == 512


def test_a_file_written_again_is_loaded_again(artefact: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(artefact.read_bytes())
    first = qcc.load(path)
    path.unlink()
    tiny_text = tiny.TEXT
    try:
        tiny.TEXT = tiny_text.replace("dense<1.5>", "dense<2.5>")
        program.executable(tiny.llvm_module(), CpuTarget()).save(path)
    finally:
        tiny.TEXT = tiny_text
    assert np.array_equal(qcc.load(path)(X), X - 1.5)
    assert np.array_equal(first(X), X - 2.5)


def test_a_c_program_uses_the_artefact(artefact: Path, tmp_path: Path) -> None:
    """The header and the ABI as a C program sees them, compiled with warnings as errors."""
    (tmp_path / "main.c").write_text("""
#include "tiny.h"
#include <stdio.h>
int main(void) {
    float x[QCC_MODEL_INPUT_0_ELEMENTS], y[QCC_MODEL_OUTPUT_0_ELEMENTS];
    for (int i = 0; i < QCC_MODEL_INPUT_0_ELEMENTS; i++) x[i] = (float)i;
    const void *inputs[QCC_MODEL_INPUTS] = {x};
    void *outputs[QCC_MODEL_OUTPUTS] = {y};
    qcc_model *model;
    if (qcc_model_create(2, &model)) return puts(qcc_model_error()), 1;
    if (qcc_model_run(model, 0, outputs) != 1) return 2;
    if (qcc_model_run(model, inputs, outputs)) return 3;
    qcc_model_destroy(model);
    for (int i = 0; i < QCC_MODEL_OUTPUT_0_ELEMENTS; i++) if (y[i] != x[i] - 2.5f) return 4;
    return qcc_model_info()[0] == '{' ? 0 : 5;
}
""")
    build = ["cc", "-Wall", "-Werror", "-I", str(artefact.parent), "main.c", str(artefact), "-o", "main"]
    subprocess.run(build, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_features_have_the_runtime_s_names_and_order() -> None:
    runtime = loader.runtime()
    names = [runtime.qcc_cpu_feature_name(i) for i in range(64)]
    assert [n.decode() for n in names if n] == list(FEATURES)
    assert all(set(features) <= set(FEATURES) for features in PRESETS.values())


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
def test_host_features_agree_with_the_kernel() -> None:
    flags = set(next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split())
    renamed = {"sse4.2": "sse4_2", "bmi": "bmi1", "lzcnt": "abm", "avxvnni": "avx_vnni", "amx-tile": "amx_tile", "amx-int8": "amx_int8"}
    renamed |= {f"avx512{n}": f"avx512_{n}" for n in ("vnni", "vbmi2", "bitalg", "vpopcntdq", "bf16", "fp16")} | {"amx-bf16": "amx_bf16"}
    assert set(CpuTarget().features) == {f for f in FEATURES if renamed.get(f, f) in flags}


def test_another_cpu_is_refused_with_the_features_it_lacks(tmp_path: Path) -> None:
    missing = [f for f in FEATURES if f not in CpuTarget().features]
    if not missing:
        pytest.skip("this CPU has every feature")
    pipeline = tiny.PIPELINE
    try:
        tiny.PIPELINE = pipeline.replace("cpu-features=0", f"cpu-features={1 << FEATURES.index(missing[0])}")
        module = tiny.llvm_module()
    finally:
        tiny.PIPELINE = pipeline
    with pytest.raises(QccError, match=f"this CPU lacks {missing[0]}, which the model was compiled for"):
        program.executable(module, CpuTarget())


def test_code_for_a_lesser_cpu_uses_no_wider_registers(tmp_path: Path) -> None:
    from qcc.compiler.emit import machine_code
    from qcc.passes.base import parse_pipeline, run_pipeline

    module = tiny.llvm_module()
    features = ",".join(f"+{f}" for f in PRESETS["x86-64-v2"])
    run_pipeline(module, parse_pipeline(f"attach-target{{cpu=x86-64-v2 features={features}}}"))
    text = machine_code.assembly(module)
    body = text[text.index("<add>:") :].split("\n\n")[0]
    assert "%xmm" in body and "%ymm" not in body and "%zmm" not in body and "\tv" not in body


def test_unknown_cpu_names_the_known_ones() -> None:
    with pytest.raises(QccError, match="cpu is 'pentium', expected native or one of x86-64, "):
        CpuTarget("pentium")


def test_no_compiler_says_what_to_install(jit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QccError, match=r"no C compiler found .* apt install gcc"):
        jit.save(tmp_path / "model.so")
    assert not list(tmp_path.iterdir())


def test_a_linker_that_fails_is_quoted(jit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(QccError, match="linking the artefact failed"):
        jit.save(tmp_path / "model.so")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist(jit: Any, tmp_path: Path) -> None:
    with pytest.raises(QccError, match="cannot write"):
        jit.save(tmp_path / "nowhere" / "model.so")


def test_the_thread_count_comes_from_the_environment(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCC_NUM_THREADS", "3")
    assert qcc.load(artefact).threads == 3
    assert qcc.load(artefact, threads=1).threads == 1
    monkeypatch.setenv("QCC_NUM_THREADS", "many")
    with pytest.raises(QccError, match="QCC_NUM_THREADS is 'many', expected a number"):
        qcc.load(artefact)


def test_a_damaged_program_is_refused() -> None:
    """The C side checks the magic number itself: another ABI version never runs."""
    runtime, model = loader.runtime(), ctypes.c_void_p()
    empty = (ctypes.c_int64 * 13)()
    assert runtime.qcc_model_create_from(empty, None, 1, ctypes.byref(model)) == 2
    assert b"compiled for another version" in runtime.qcc_model_error()
    assert model.value is None


class Program(ctypes.Structure):
    """struct qcc_program."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("magic", "step_count", "operand_count", "input_count", "output_count", "state_bytes")),
        *((name, ctypes.c_int64) for name in ("arena_bytes", "scratch_bytes", "weights_bytes", "cpu_features")),
        *((name, ctypes.c_void_p) for name in ("codelets", "steps", "operands", "strings", "initial")),
    ]


def one_step(codelet: Any, *, tasks: int = 1, operand: tuple[int, int, int] = (2, 0, 0)) -> tuple[Program, list[Any]]:
    """A program of one step with one operand, and what must stay alive beside it."""
    codelets, steps, operands = (ctypes.c_void_p * 1)(ctypes.cast(codelet, ctypes.c_void_p)), (ctypes.c_int64 * 4)(0, 1, tasks, 0), None
    operands = (ctypes.c_int64 * 3)(*operand)
    tables = [ctypes.cast(t, ctypes.c_void_p) for t in (codelets, steps, operands, ctypes.create_string_buffer(1))]
    return Program(0x32474F5250434351, 1, 1, 0, 0, 0, 64, 0, 0, 0, *tables, None), [codelets, steps, operands]


CODELET = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def test_a_context_refuses_to_run_twice_at_once() -> None:
    runtime, model, inner = loader.runtime(), ctypes.c_void_p(), []
    codelet = CODELET(lambda *_: inner.append(runtime.qcc_model_run(model, None, None)))
    made, alive = one_step(codelet)
    assert runtime.qcc_model_create_from(ctypes.byref(made), None, 1, ctypes.byref(model)) == 0
    assert runtime.qcc_model_run(model, None, None) == 0
    assert inner == [5] and b"running in another thread" in runtime.qcc_model_error()
    assert runtime.qcc_model_run(model, None, None) == 0
    runtime.qcc_model_destroy(model)
    assert alive


@pytest.mark.parametrize("tasks", [0, 1, 2, 5, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_task_runs_exactly_once(tasks: int, threads: int) -> None:
    runtime, model, ranges = loader.runtime(), ctypes.c_void_p(), []
    codelet = CODELET(lambda _, begin, end, __: ranges.append((begin, end)))
    made, alive = one_step(codelet, tasks=tasks)
    assert runtime.qcc_model_create_from(ctypes.byref(made), None, threads, ctypes.byref(model)) == 0
    assert runtime.qcc_model_run(model, None, None) == 0
    assert sorted(t for begin, end in ranges for t in range(begin, end)) == list(range(tasks))
    runtime.qcc_model_destroy(model)
    assert alive


@pytest.mark.parametrize("operand", [(2, 0, 65), (2, 0, -1), (0, 0, 0), (1, 0, 0), (9, 0, 0)])
def test_operands_outside_their_space_are_refused(operand: tuple[int, int, int]) -> None:
    runtime, model = loader.runtime(), ctypes.c_void_p()
    made, alive = one_step(CODELET(lambda *_: None), operand=operand)
    assert runtime.qcc_model_create_from(ctypes.byref(made), None, 1, ctypes.byref(model)) == 2
    assert b"operand 0" in runtime.qcc_model_error() and alive


def test_loading_needs_neither_torch_nor_the_mlir_bindings(artefact: Path) -> None:
    code = f"import sys, qcc, numpy as np; e = qcc.load({str(artefact)!r}); e(np.zeros((4, 16), np.float32)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "torch_mlir"} & set(done.stdout.split())


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs binutils")
def test_a_whole_artefact_for_a_lesser_cpu_has_no_wider_registers(tmp_path: Path) -> None:
    """Through the whole pipeline: codelets, generic functions, wrappers and the runtime, but for the decoders of coded weights, which ask
    the CPU when they run (their functions for vectors are `rows_avx*`)."""
    (tmp_path / "model.mlir").write_text("""
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = math.atan %x : tensor<4x64xf32>
  return %y : tensor<4x64xf32>
}""")
    exe = qcc.compile(tmp_path / "model.mlir", target=CpuTarget("x86-64-v2"), threads=1)
    exe.save(tmp_path / "model.so")
    text = subprocess.run(["objdump", "-d", tmp_path / "model.so"], capture_output=True, text=True, check=True).stdout
    functions = [f for f in text.split("\n\n") if not re.match(r"[0-9a-f]+ <rows_avx", f)]
    assert len(functions) < text.count("\n\n"), "the decoders are there, and left out"
    text = "\n".join(functions)
    assert "%xmm" in text and "%ymm" not in text and "%zmm" not in text
    x = np.linspace(-3, 3, 256, dtype=np.float32).reshape(4, 64)
    np.testing.assert_allclose(qcc.load(tmp_path / "model.so")(x), np.arctan(x), rtol=1e-6)
