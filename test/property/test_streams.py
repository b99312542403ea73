"""Weight-only linear layers: every decoder of every instruction set against the reference, over random shapes, groups and rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, encodings, weights
from qcc.dialects.mlir import create, create_context, ir
from qcc.dialects.real_values import decode
from qcc.passes.tile.codelets import stream, stream_zeros
from qcc.passes.tile.codelets.weight_codes import codes_of
from qcc.runtime.reference import formats, interpreter
from test.property.tiled_executor import Tiled
from test.tiers import draws, slow_except

EXAMPLES = draws(10, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
BOUNDS = {"float": 2.0**-20, "int16": 2.0**-15, "int8": 2.0**-7}
"""Greatest error, as a part of max |x| * sum |w|: rounding of x to half a step, and of the f32 sums."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "n:m": {"n": 2, "m": 4, "axis": 1},
    "csr": {"index_bits": 16, "relative": False},
    "run-length": {"run_bits": 4},
}
"""Of encodings."""


@st.composite
def shapes(draw: Any) -> dict[str, Any]:
    group = draw(st.sampled_from([0, 0, 4, 12, 16, 32, 64]))
    return {
        "seed": draw(st.integers(0, 1 << 30)),
        "rows": draw(st.sampled_from([1, 1, 1, 2, 3, 5, 8, 9])),
        "n": draw(st.sampled_from([1, 5, 16, 31, 64, 70, 130])),
        "k": group * draw(st.integers(1, 5)) if group else draw(st.integers(1, 150)),
        "group": group,
        "bias": draw(st.booleans()),
        "relu": draw(st.booleans()),
        "quantized_result": draw(st.booleans()),
    }


def module_of(case: dict[str, Any], stored: np.ndarray, element: Any, rng: np.random.Generator, *, zeros: str = "dense") -> ir.Module:
    """The current context's module: dequantized weights, linear, and what the case fuses behind it."""
    rows, (n, k) = case["rows"], stored.shape
    f32, tensor = ir.F32Type.get(), ir.RankedTensorType.get
    result = tensor([rows, n], element_types.affine_type(0.05, 3, bits=8)) if case["quantized_result"] else tensor([rows, n], f32)
    module = ir.Module.create()
    kind = ir.FunctionType.get([tensor([rows, k], f32)], [result])
    with ir.InsertionPoint(module.body):
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
        function = ir.Operation.create("func.func", attributes=attributes, regions=1)
    block = function.regions[0].blocks.append(*kind.inputs)
    with ir.InsertionPoint(block):
        encoding = encodings.make_encoding(encodings.Encoding(zeros, PARAMETERS.get(zeros, {}))) if zeros != "dense" else None
        constant = create(
            "qcc.constant", [], [tensor([n, k], element, encoding)], {"value": weights.constant_attribute(stored, "w")}
        ).results[0]
        operands = [block.arguments[0], create("qcc.dequantize", [constant], [tensor([n, k], f32)]).results[0]]
        if case["bias"]:
            bias = rng.normal(size=n).astype(np.float32)
            operands.append(create("qcc.constant", [], [tensor([n], f32)], {"value": weights.constant_attribute(bias, "b")}).results[0])
        y = create("qcc.linear", operands, [tensor([rows, n], f32)]).results[0]
        if case["relu"]:
            y = create("qcc.clamp", [y], [y.type], {"min": 0.0, "max": float("inf")}).results[0]
        if case["quantized_result"]:
            y = create("qcc.quantize", [y], [result]).results[0]
        ir.Operation.create("func.return", operands=[y])
    return module


def check(case: dict[str, Any], make: Any, isa: str, activations: str, *, zeros: str = "dense") -> dict[str, str]:
    """Compare with the reference; the codelet's configuration. `zeros`: how they are left out."""
    rng = np.random.default_rng(case["seed"])
    context = create_context()
    with context, ir.Location.unknown():
        stored, element = make(rng, case)
        module = module_of(case, stored, element, rng, zeros=zeros)
        real = decode(stored, ir.RankedTensorType.get(list(stored.shape), element))
        x = (rng.normal(size=(case["rows"], case["k"])) * rng.uniform(0.1, 10)).astype(np.float32)
        x = np.full_like(x, 3.0) if case.get("level") else x
        want = interpreter.run(module, [x])[0]
        tiled = Tiled(module, isa, activations, byte_expand=zeros not in ("dense", "n:m"))
    got = tiled(x)[0].view(want.dtype).reshape(want.shape)
    declaration = next(line for line in tiled.text.splitlines() if 'kind = "stream"' in line)
    configuration = dict(re.findall(r'(\w+) = "(\w+)"', declaration))
    used = "float" if configuration["compute"] == "f32" else configuration["compute"]
    bound = BOUNDS[used] * np.abs(x).max(axis=1, keepdims=True) * np.abs(real).sum(axis=1)[None, :] + 1e-6
    if configuration["decoder"] == "products":  # of the greatest level, or twice that, rounded to 16 bits each
        bound += 2.0**-15 * np.abs(x).max(axis=1, keepdims=True) * real.shape[1] * np.abs(real).max()
    if case["quantized_result"]:
        bound = bound / 0.05 + 1
    assert (np.abs(got.astype(np.float64) - want.astype(np.float64)) <= bound).all()
    return configuration


def powers(case: dict[str, Any], scales: np.ndarray) -> np.ndarray:
    """`scales`, as powers of two where the case asks for that."""
    return np.exp2(np.floor(np.log2(scales))) if case.get("powers") else scales


def affine(bits: int, *, zeros: bool) -> Any:
    def make(rng: np.random.Generator, case: dict[str, Any]) -> tuple[np.ndarray, Any]:
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits > 1 else (0, 1)
        n, k, group = case["n"], case["k"], case["group"]
        stored = rng.integers(low, high + 1, (n, k)).astype(np.int8 if bits > 1 else np.uint8)
        scales = powers(case, rng.uniform(0.01, 0.2, (n, k // group) if group else n).astype(np.float32))
        zero = rng.integers(low, high + 1, scales.shape) if zeros else np.zeros(scales.shape, np.int64)
        where: dict[str, Any] = {"block": {0: 1, 1: group}} if group else {"axis": 0}
        return stored, element_types.affine_type(scales, zero, bits=bits, signed=bits > 1, **where)

    return make


def described(make: Any) -> Any:
    """Random real weights encoded in the type that `make(scales)` describes."""

    def encoded(rng: np.random.Generator, case: dict[str, Any]) -> tuple[np.ndarray, Any]:
        n, k, group = case["n"], case["k"], case["group"]
        scales = powers(case, rng.uniform(0.3, 1.0, (n, k // group if group else 1)).astype(np.float32))
        element = types.make_type(make(rng, scales, group or k))
        return formats.encode(rng.normal(size=(n, k)).astype(np.float32), ir.RankedTensorType.get([n, k], element)), element

    return encoded


def _codebook(count: int, *, integers: bool = False) -> Any:
    def make(rng: np.random.Generator, scales: np.ndarray, group: int) -> Any:
        levels = np.sort(rng.normal(size=count)).astype(np.float32)
        return types.Codebook((levels * 50).astype(np.int8) if integers else levels, scales)

    return described(make)


def _mx(element: str) -> Any:
    return described(lambda rng, scales, group: types.Blockscaled(ir.Type.parse(element), (1, group), scales))


FORMATS: dict[str, Any] = {
    **{f"int{bits}": affine(bits, zeros=False) for bits in range(1, 9)},
    **{f"int{bits}_zeros": affine(bits, zeros=True) for bits in range(1, 9)},
    "binary": described(lambda rng, scales, group: types.Binary(scales)),
    "ternary": described(lambda rng, scales, group: types.Ternary(scales, scales)),
    "ternary_asymmetric": described(lambda rng, scales, group: types.Ternary(np.full(1, 0.7, np.float32), np.full(1, 0.4, np.float32))),
    "ttq": described(lambda rng, scales, group: types.Ternary(scales * np.float32(1.6), scales)),
    "ttq_per_channel": described(lambda rng, scales, group: types.Ternary(*rng.uniform(0.3, 1, (2, len(scales), 1)).astype("f4"))),
    "log2": described(lambda rng, scales, group: types.Log2(4, True, -5, scales)),
    **{f"codebook{count}": _codebook(count) for count in (2, 4, 7, 16, 32, 64, 256)},
    "codebook16_integers": _codebook(16, integers=True),
    "fp4": _mx("f4E2M1FN"),
    "fp6_e2m3": _mx("f6E2M3FN"),
    "fp6_e3m2": _mx("f6E3M2FN"),
    "fp8_e4m3": _mx("f8E4M3FN"),
    "fp8_e5m2": _mx("f8E5M2"),
    "mxint8": _mx("i8"),
    "minifloat_e3m3": described(lambda rng, scales, group: types.Minifloat(3, 3, 3, "none", scales)),
    "minifloat_e4m3": described(lambda rng, scales, group: types.Minifloat(4, 3, 7, "none", scales)),
}


WIDE = ["avx512_vnni", "avx512_vbmi"]
QUANTIZING = [*WIDE, "avx2"]


@pytest.mark.parametrize("isa", slow_except(QUANTIZING, "avx2"))
@pytest.mark.parametrize("name", ["int8", "int4_zeros", "int3", "binary", "ternary", "codebook16", "codebook256", "fp8_e4m3"])
@draws(2, EXAMPLES)
@given(case=shapes())
def test_each_decoder(name: str, isa: str, case: dict[str, Any]) -> None:
    check(case, FORMATS[name], isa, "auto")


@pytest.mark.slow
@pytest.mark.parametrize("isa", QUANTIZING)
@pytest.mark.parametrize("name", FORMATS)
@draws(4, EXAMPLES)
@given(case=shapes())
def test_formats(name: str, isa: str, case: dict[str, Any]) -> None:
    check(case, FORMATS[name], isa, "auto")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("isa", ["avx512_vnni", "avx2"])
@draws(2, EXAMPLES)
@given(case=shapes())
def test_activations(name: str, isa: str, activations: str, case: dict[str, Any]) -> None:
    check(case, FORMATS[name], isa, activations)


@pytest.mark.parametrize("name", slow_except([f"int{bits}{zeros}" for bits in range(1, 9) for zeros in ("", "_zeros")], "int4_zeros"))
@draws(2, EXAMPLES)
@given(case=shapes(), k=st.sampled_from([130, 700, 1500, 5000]))
def test_pairs_of_16_bits(name: str, case: dict[str, Any], k: int) -> None:
    """Groups longer than 32 bits can sum, and x that is largest and of one sign all along."""
    case |= {"group": 0, "k": k, "n": min(case["n"], 30) + 40, "level": True}
    assert check(case, FORMATS[name], "avx2", "auto")["compute"] == "int16"


@pytest.mark.parametrize("name", slow_except(["int8", "int4_zeros", "int3", "codebook16", "fp8_e4m3"], "int8"))
@draws(2, EXAMPLES)
@given(case=shapes())
def test_generic_vectors(name: str, case: dict[str, Any]) -> None:
    check(case, FORMATS[name], "generic", "auto")


@pytest.mark.parametrize("name", slow_except(["int1", "int2_zeros", "int3", "binary", "ternary"], "ternary"))
@pytest.mark.parametrize("isa", slow_except(["avx512_vbmi", "avx2"], "avx2"))
@draws(4, EXAMPLES)
@given(case=shapes(), groups=st.sampled_from([0, 0, 32, 64]), k=st.sampled_from([7, 150, 1024, 2500]), n=st.sampled_from([32, 60, 95, 160]))
def test_sums_of_x_are_looked_up(name: str, isa: str, case: dict[str, Any], groups: int, k: int, n: int) -> None:
    case |= {"rows": 1, "n": n, "group": groups, "k": 3 * groups or k}
    assert check(case, FORMATS[name], isa, "auto")["decoder"] == "sums"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codebook16", "fp4"])
@draws(4, EXAMPLES)
@given(case=shapes(), groups=st.sampled_from([0, 0, 32, 64]), k=st.sampled_from([33, 150, 511, 1200]), n=st.sampled_from([32, 95, 160]))
def test_products_of_x_are_looked_up(name: str, case: dict[str, Any], groups: int, k: int, n: int) -> None:
    case |= {"n": n, "group": groups, "k": 3 * groups or k}
    assert check(case, FORMATS[name], "avx2", "auto")["decoder"] == "products"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int4", "int2", "int8", "fp4", "codebook256"])
@draws(3, EXAMPLES)
@given(case=shapes(), isa=st.sampled_from(["avx512_vnni", "avx512_vbmi", "avx2", "generic"]))
def test_short_scales(name: str, isa: str, case: dict[str, Any]) -> None:
    """Scales that are powers of two take a byte."""
    case |= {"group": 32, "k": 96, "n": case["n"] + 64, "rows": min(case["rows"], 2)}  # vectors in pairs
    found = check(case | {"powers": True}, FORMATS[name], isa, "auto")
    assert found["scale"] == "e8m0"


@pytest.mark.slow
@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("name", ["codebook16", "fp4"])
def test_sums_of_levels_beyond_32_bits(name: str, isa: str) -> None:
    """Groups so long that both places of a sum are joined as floats."""
    case = {"seed": 6, "rows": 2, "n": 70, "k": 700, "group": 0, "bias": True, "relu": False, "quantized_result": False}
    assert check(case, FORMATS[name], isa, "auto")["decoder"] == "shuffle"


def sparse(bits: int, density: float) -> Any:
    def make(rng: np.random.Generator, case: dict[str, Any]) -> tuple[np.ndarray, Any]:
        stored, element = affine(bits, zeros=False)(rng, case)
        return stored * (rng.uniform(size=stored.shape) < density), element

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "density"), [(8, 0.5), (8, 0.1), (4, 0.3), (4, 0.05)])
@draws(3, EXAMPLES)
@given(case=shapes())
def test_bitmaps(bits: int, density: float, case: dict[str, Any]) -> None:
    check(case, sparse(bits, density), "avx512_vnni", "auto", zeros="bitmap")


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["indexed", "relative"])
@pytest.mark.parametrize(
    ("bits", "density"), slow_except([(8, 0.3), (8, 0.1), (8, 0.01), (8, 0.0), (4, 0.3), (4, 0.08), (3, 0.05)], (8, 0.1))
)
@draws(4, EXAMPLES)
@given(case=shapes(), k=st.sampled_from([7, 64, 130, 700]))
def test_columns_of_values(decoder: str, bits: int, density: float, case: dict[str, Any], k: int) -> None:
    case |= {"group": 0, "k": k, "n": case["n"] + 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_zeros, "_faster_columns", lambda isa, c, compute, rows: stream_zeros._columns(c, compute, decoder))
        found = check(case, sparse(bits, density), "avx512_vbmi", "int16", zeros="csr")["decoder"]
    assert found == decoder or bits < 8 or density < 0.1 or k < 64, "many values need all their bits"


def quads(bits: int, kept: int) -> Any:
    """At most `kept` values in every 4 k."""

    def make(rng: np.random.Generator, case: dict[str, Any]) -> tuple[np.ndarray, Any]:
        stored, element = affine(bits, zeros=False)(rng, case)
        order = np.argsort(np.argsort(rng.uniform(size=(*stored.shape[:1], -(-stored.shape[1] // 4), 4))))
        return stored * (order < kept).reshape(len(stored), -1)[:, : stored.shape[1]], element

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "kept"), [(8, 2), (8, 1), (4, 2), (4, 1)])
@draws(4, EXAMPLES)
@given(case=shapes(), k=st.sampled_from([64, 128, 192]), grouped=st.booleans(), odd=st.sampled_from([0, 0, 3, 9, 20]))
def test_quads(bits: int, kept: int, case: dict[str, Any], k: int, grouped: bool, odd: int) -> None:
    case |= {"group": 64 if grouped else 0, "k": k if grouped else k + odd, "n": case["n"] + 60}  # many values need all their bits
    assert check(case, quads(bits, kept), "avx512_vbmi", "auto", zeros="n:m")["decoder"] == "quads"


@pytest.mark.slow
def test_zeros_are_not_stored() -> None:
    case = {"seed": 4, "rows": 1, "n": 40, "k": 64, "group": 0, "bias": False, "relu": False, "quantized_result": False}
    assert check(case, sparse(8, 0.2), "avx512_vnni", "auto", zeros="bitmap")["decoder"] == "bitmap"
    assert check(case, sparse(8, 0.2), "avx512_vnni", "auto")["decoder"] == "planes"
    assert check(case, sparse(8, 0.1), "avx512_vbmi", "auto", zeros="csr")["decoder"] == "relative"
    assert check(case | {"n": 130, "k": 700}, sparse(8, 0.03), "avx512_vbmi", "auto", zeros="csr")["decoder"] == "indexed"
    assert check(case, sparse(8, 0.1), "avx512_vnni", "auto", zeros="csr")["decoder"] == "planes"
    assert check(case, sparse(8, 0.95), "avx512_vnni", "auto", zeros="bitmap")["decoder"] == "planes"
    assert check(case, sparse(8, 0.2), "avx512_vbmi", "auto", zeros="run-length")["decoder"] == "bitmap"


@pytest.mark.parametrize(("activations", "compute"), [("auto", "int16"), ("float", "f32"), ("int16", "int16"), ("int8", "int8")])
@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx2"], "avx2"))
def test_option_decides(isa: str, activations: str, compute: str) -> None:
    case = {"seed": 1, "rows": 2, "n": 40, "k": 64, "group": 0, "bias": True, "relu": False, "quantized_result": False}
    assert check(case, FORMATS["int4"], isa, activations)["compute"] == compute


@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx512_vbmi", "avx2"], "avx2"))
@pytest.mark.parametrize("name", slow_except(["int8", "int4", "int3", "codebook16"], "int4"))
@pytest.mark.parametrize("quantized", slow_except([False, True], True))
def test_many_rows_in_parts(isa: str, name: str, quantized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where asked for, x is quantized and multiplied a few rows a call, with what stands behind the product; not with levels of a table."""
    monkeypatch.setattr(stream, "QUANTIZED_BYTES", 0)
    case = {"seed": 5, "rows": 37, "n": 52, "k": 128, "group": 0, "bias": True, "relu": True, "quantized_result": quantized}
    assert check(case, FORMATS[name], isa, "int16")["compute"] == ("f32" if name == "codebook16" else "int16")
    assert check(case, FORMATS[name], isa, "auto")["compute"] == "f32"


@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx2", "generic"], "avx2"))
@pytest.mark.parametrize("name", ["int8", "int4_zeros", "codebook16", "codebook256", "fp4", "fp8_e4m3", "ternary"])
@pytest.mark.parametrize("rows, n, k, group", slow_except([(17, 52, 96, 32), (40, 21, 70, 0)], (17, 52, 96, 32)))
def test_weights_decoded_once_for_many_rows(isa: str, name: str, rows: int, n: int, k: int, group: int) -> None:
    case = {"seed": 7, "rows": rows, "n": n, "k": k, "group": group, "bias": True, "relu": True, "quantized_result": False}
    assert check(case, FORMATS[name], isa, "float")["compute"] == "f32"


@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx2"], "avx2"))
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_not_finite_inputs_give_nan(bad: float, isa: str) -> None:
    """Quantizing x must not hide an overflow of the layer before."""
    case = {"seed": 2, "rows": 2, "n": 20, "k": 64, "group": 0, "bias": False, "relu": False, "quantized_result": False}
    rng, context = np.random.default_rng(2), create_context()
    with context, ir.Location.unknown():
        stored, element = FORMATS["int4"](rng, case)
        module = module_of(case, stored, element, rng)
        x = rng.normal(size=(2, 64)).astype(np.float32)
        x[1, 5] = bad
        got = Tiled(module, isa, "int16")(x)[0].view(np.float32).reshape(2, 20)
    assert np.isfinite(got[0]).all() and np.isnan(got[1]).all()


@pytest.mark.parametrize("isa", slow_except(["avx512_vnni", "avx2"], "avx2"))
def test_extreme_inputs(isa: str) -> None:
    """All zero, subnormal and huge rows."""
    case = {"seed": 3, "rows": 3, "n": 20, "k": 64, "group": 0, "bias": False, "relu": False, "quantized_result": False}
    rng, context = np.random.default_rng(3), create_context()
    with context, ir.Location.unknown():
        stored, element = FORMATS["int4"](rng, case)
        module = module_of(case, stored, element, rng)
        real = decode(stored, ir.RankedTensorType.get([20, 64], element))
        x = rng.normal(size=(3, 64)).astype(np.float32) * np.array([[0.0], [1e-40], [1e30]], np.float32)
        got = Tiled(module, isa, "int16")(x)[0].view(np.float32).reshape(3, 20)
    bound = BOUNDS["int16"] * np.abs(x).max(axis=1, keepdims=True) * np.abs(real).sum(axis=1) + 1e-38
    assert (np.abs(got - x.astype(np.float64) @ real.T.astype(np.float64)) <= bound).all()


@pytest.mark.parametrize(
    ("used", "bits", "named"),
    [(range(-127, 128, 2), 7, False), ([*range(-90, 91, 2), 1, 3], 8, False), ((-90, 0, 1, 7), 2, True)],
)
def test_integers_become_levels_only_where_that_saves_bits(used: Sequence[int], bits: int, named: bool) -> None:
    """Levels are no integers: their sums are floats and no form leaves out their zeros."""
    stored = np.resize(np.array(used, np.int8), (8, 512))
    with create_context(), ir.Location.unknown():
        codes = codes_of(stored, ir.RankedTensorType.get([8, 512], element_types.affine_type(0.5, bits=8)))
    assert codes is not None and codes.bits == bits and (codes.levels is not None) == named
