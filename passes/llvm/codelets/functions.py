"""Float functions in generated code: line for line `runtime/reference/float_ops.py`, with the same coefficients, so the bits agree."""

from __future__ import annotations

import math
from collections.abc import Callable

from qcc.dialects import approximations as table
from qcc.passes.llvm.codelets.builder import Builder, Value, lanes_of
from qcc.passes.llvm.codelets.lanes import Lanes, fma, horner

INFINITY, NAN = math.inf, math.nan


def unary(b: Builder, kind: str, value: Value, alpha: Value | None) -> Value:
    """Function `kind` of `qcc.unary` on f32 lanes."""
    x = Lanes(b, value)
    return (UNARY[kind](x) if alpha is None else UNARY[kind](x, Lanes(b, alpha))).value


def exp(x: Lanes) -> Lanes:
    cut = x.minimum(table.EXP_GREATEST)  # below EXP_LEAST any y will do
    n = (cut * table.LOG2_E).rint()
    r = fma(-n, table.LN2_LOW, fma(-n, table.LN2_HIGH, cut))
    p = fma(horner(table.EXP, r), r * r, r) + 1.0
    return Lanes(x.b, x.b.like(0.0, x.value)).where(x.compare("olt", table.EXP_LEAST), _times_power_of_two(p, n))


def _times_power_of_two(p: Lanes, n: Lanes) -> Lanes:
    """p * 2^n with one rounding, n whole."""
    scale = getattr(p.b.instructions, "scale_by_power", None)
    if scale is not None and (lanes_of(p.value) in (4, 8) or lanes_of(p.value) % 16 == 0):
        return Lanes(p.b, scale(p.b, p.value, n.value))
    k = n.to_int()
    return p * _power_of_two(k >> 1) * _power_of_two(k - (k >> 1))


def _power_of_two(k: Lanes) -> Lanes:
    return ((k + 127) << 23).bits("f32")


def exp2(x: Lanes) -> Lanes:
    return _constant(x, 0.0).where(x.compare("olt", -150.0), _exp2(x.minimum(128.0)))  # below -150 any y will do


def _exp2(x: Lanes) -> Lanes:
    n = x.rint()
    return _times_power_of_two(horner(table.EXP2, x - n), n)


def log(x: Lanes) -> Lanes:
    f, k = _fraction(x)
    z = f * f
    y = (horner(table.LOG, f) * f * z + k * table.LN2_LOW) - 0.5 * z
    return _of_logarithms(x, (f + y) + k * table.LN2_HIGH)


def log2(x: Lanes) -> Lanes:
    f, k = _fraction(x)
    z = f * f
    return _of_logarithms(x, fma(f + (horner(table.LOG, f) * f * z - 0.5 * z), table.LOG2_E, k))


def _fraction(x: Lanes) -> tuple[Lanes, Lanes]:
    tiny = x.compare("olt", 2.0**-126)
    bits = (x * 2.0**23).where(tiny, x).bits("i32")
    k = (bits - table.LOG_SPLIT_BITS) >> 23
    return (bits - (k << 23)).bits("f32") - 1.0, (k - 23).where(tiny, k).to_float()


def _of_logarithms(x: Lanes, y: Lanes) -> Lanes:
    y = _constant(x, -INFINITY).where(x.compare("oeq", 0.0), _constant(x, NAN).where(x.compare("olt", 0.0), y))
    return x.where(x.compare("oeq", INFINITY), x.where(x.compare("uno", 0.0), y))


def log1p(t: Lanes) -> Lanes:
    u = 1.0 + t
    return t.where(u.compare("oeq", 1.0), log(u) * (t / (u - 1.0)))


def expm1(x: Lanes) -> Lanes:
    u = exp(x)
    less = u - 1.0
    return x.where(u.compare("oeq", 1.0), _constant(x, -1.0).where(less.compare("oeq", -1.0), less * (x / log(u))))


def tanh(x: Lanes) -> Lanes:
    z = x * x
    small = x + x * (z * horner(table.TANH, z))
    large = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)
    return small.where(x.abs().compare("olt", table.TANH_SMALL), large.copysign(x))


def erf(x: Lanes) -> Lanes:
    small = x * horner(table.ERF_SMALL, x * x)
    large = 1.0 - exp(-horner(table.ERF_LARGE, x.abs().minimum(table.ERF_GREATEST)))
    return small.where(x.abs().compare("olt", table.ERF_SPLIT), large.copysign(x))


def _quadrant(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    n = (x * table.TWO_OVER_PI).rint()
    high, middle, low = table.HALF_PI
    r = ((x - n * high) - n * middle) - n * low
    z = r * r
    sine = r + r * (z * horner(table.SIN, z))
    cosine = (1.0 - 0.5 * z) + (z * z) * horner(table.COS, z)
    return n.to_int() & 3, sine, cosine


def sin(x: Lanes) -> Lanes:
    n, sine, cosine = _quadrant(x)
    y = cosine.where((n & 1).compare("ne", 0), sine)
    return (-y).where((n & 2).compare("ne", 0), y)


def cos(x: Lanes) -> Lanes:
    n, sine, cosine = _quadrant(x)
    y = sine.where((n & 1).compare("ne", 0), cosine)
    return (-y).where(((n + 1) & 2).compare("ne", 0), y)


def sigmoid(x: Lanes) -> Lanes:
    return 1.0 / (1.0 + exp(-x))


def silu(x: Lanes) -> Lanes:
    return x / (1.0 + exp(-x))


def gelu(x: Lanes) -> Lanes:
    a = x.abs().minimum(table.GELU_GREATEST)
    return fma(-a, _exp2(horner(table.GELU, a)), x.maximum(0.0))


def gelu_tanh(x: Lanes) -> Lanes:
    inner = table.MINUS_SQRT_EIGHT_OVER_PI * (x + table.GELU_CUBIC * (x * x * x))
    return x / (1.0 + exp(inner))


def softplus(x: Lanes) -> Lanes:
    return x.maximum(0.0) + log1p(exp(-x.abs()))


def mish(x: Lanes) -> Lanes:
    return x * tanh(softplus(x))


def hardsigmoid(x: Lanes, alpha: Lanes | None = None) -> Lanes:
    scaled = x * table.ONE_SIXTH if alpha is None else alpha * x
    return (scaled + 0.5).maximum(0.0).minimum(1.0)


def hardswish(x: Lanes) -> Lanes:
    return x * hardsigmoid(x)


def leaky_relu(x: Lanes, alpha: Lanes | None = None) -> Lanes:
    return x.where(x.compare("oge", 0.0), x * 0.009999999776482582 if alpha is None else alpha * x)


def elu(x: Lanes, alpha: Lanes | None = None) -> Lanes:
    below = expm1(x.minimum(0.0))
    return x.where(x.compare("ogt", 0.0), below if alpha is None else alpha * below)


def binarize(x: Lanes) -> Lanes:
    return _constant(x, 1.0).where(x.compare("oge", 0.0), _constant(x, -1.0).where(x.compare("olt", 0.0), x))


def sign(x: Lanes) -> Lanes:
    one = _constant(x, 1.0)
    return one.where(x.compare("ogt", 0.0), (-one).where(x.compare("olt", 0.0), _constant(x, 0.0)))


def round_float(x: Lanes, *, mantissa: int, least: int, greatest: float, beyond: float) -> Lanes:
    """The nearest float of `mantissa` bits and normal numbers from 2^least on, half to even; above `greatest` it is `beyond`."""
    bits, drop = x.bits("i32"), 23 - mantissa
    normal = (((bits + ((1 << (drop - 1)) - 1) + ((bits >> drop) & 1)) >> drop) << drop).bits("f32")
    step = 1.5 * 2.0 ** (23 + least - mantissa)  # whose unit in the last place is the least subnormal number
    small = ((x + step) - step).copysign(x)
    y = small.where(x.abs().compare("olt", 2.0**least), normal)
    y = _constant(x, beyond).copysign(x).where(y.abs().compare("ogt", greatest), y)
    return x.where(x.compare("uno", 0.0), y)


def _constant(x: Lanes, value: float) -> Lanes:
    return Lanes(x.b, x.b.like(value, x.value))


def round_bf16(x: Lanes) -> Lanes:
    bits = x.bits("i32")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    return x.where(x.compare("uno", 0.0), rounded.bits("f32"))


UNARY: dict[str, Callable[..., Lanes]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exp": exp,
    "log": log,
    "log2": log2,
    "exp2": exp2,
    "at_least": lambda x, alpha=0.0: _constant(x, 1.0).where(x.compare("oge", alpha), 0.0),
    "erf": erf,
    "sqrt": Lanes.sqrt,
    "rsqrt": lambda x: 1.0 / x.sqrt(),
    "reciprocal": lambda x: 1.0 / x,
    "neg": lambda x: -x,
    "abs": Lanes.abs,
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "softplus": softplus,
    "mish": mish,
    "sign": sign,
    "binarize": binarize,
    "floor": lambda x: x.intrinsic("floor"),
    "ceil": lambda x: x.intrinsic("ceil"),
    "round": Lanes.rint,
    "round_bf16": round_bf16,
    "sin": sin,
    "cos": cos,
    "round_e4m3": lambda x: round_float(x, mantissa=3, least=-6, greatest=448.0, beyond=448.0),
    "round_e5m2": lambda x: round_float(x, mantissa=2, least=-14, greatest=57344.0, beyond=INFINITY),
    "round_f16": lambda x: round_float(x, mantissa=10, least=-14, greatest=65504.0, beyond=INFINITY),
}
