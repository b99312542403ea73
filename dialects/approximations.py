"""Coefficients of the float functions: the one table that the reference and the generated code share.

`runtime/reference/float_ops.py` states the order of operations that goes with each row. All values are binary32 and all
arithmetic on them is binary32, every operation rounded on its own or a stated fused multiply-add, so that both sides give the same bits.

The polynomials minimise the greatest relative error of the finished function over their interval (Lawson's iteration over 400 Chebyshev
nodes, functions evaluated with 40 digits, coefficients then rounded to binary32). Highest power first, as Horner's scheme reads them.
Range reductions: W. J. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980.
`test/runtime/test_reference_float_ops.py` holds the accuracy in units in the last place.
"""

from __future__ import annotations

# Binary32 sums run in this many interleaved partial sums, whatever the vector width of the machine: four vectors of 16, so that an
# addition need not wait for the one before it.
LANES = 64

# exp(r) = fma(P(r), r^2, r) + 1 on |r| <= ln(2)/2
EXP = (0.0013814610429108143, 0.008368710055947304, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552)
EXP_LEAST = -87.33654022216797  # below ln(2^-126), where results would be subnormal, exp is 0
EXP_GREATEST = 89.0  # arguments are cut here; exp(89) overflows to infinity by itself
LOG2_E = 1.4426950216293335
LN2_HIGH = 0.6923828125  # 10 bits: n * LN2_HIGH is exact
LN2_LOW = 0.0007643680437467992

# 2^r = P(r) on |r| <= 1/2
EXP2 = (
    0.0001534581242594868,
    0.0013399930903688073,
    0.009618489071726799,
    0.05550328642129898,
    0.24022646248340607,
    0.6931471824645996,
    1.0,
)

# log(1 + f) = f + (f^3 * P(f) - f^2 / 2) on sqrt(1/2) <= 1 + f < sqrt(2)
LOG = (
    0.06746601313352585,
    -0.11675640940666199,
    0.11888174712657928,
    -0.12405591458082199,
    0.14219550788402557,
    -0.1666799634695053,
    0.2000211924314499,
    -0.25000008940696716,
    0.3333331346511841,
)
LOG_SPLIT_BITS = 0x3F3504F3  # sqrt(1/2) as bits: mantissas are taken from there to sqrt(2)

# tanh(x) = x + x * (z * P(z)) on |x| < 0.625, z = x^2
TANH = (-0.005704978480935097, 0.020639078691601753, -0.05373971164226532, 0.13331441581249237, -0.3333328068256378)
TANH_SMALL = 0.625

# erf(x) = x * P(x^2) on |x| < 1, and 1 - exp(-Q(|x|)) on 1 <= |x| <= 4
ERF_SMALL = (
    7.853857823647559e-05,
    -0.0008010192541405559,
    0.005188327748328447,
    -0.026853810995817184,
    0.1128358542919159,
    -0.3761262595653534,
    1.1283791065216064,
)
ERF_LARGE = (
    2.2417587786094373e-07,
    1.8502565581002273e-05,
    -0.00042196467984467745,
    0.00413862057030201,
    -0.025070834904909134,
    0.10823895782232285,
    0.6333637833595276,
    1.1295138597488403,
    -0.00017557889805175364,
)
ERF_SPLIT = 1.0
ERF_GREATEST = 4.0

# log2 of the normal distribution at -a is P(a) on 0 <= a <= GELU_GREATEST, where it is -100: as close as results of gelu can show
GELU = (
    -2.772048901533708e-06,
    3.862075391225517e-05,
    -0.000182547650183551,
    -0.00014586995530407876,
    0.0070754713378846645,
    -0.05250502750277519,
    -0.45920491218566895,
    -1.1511057615280151,
    -1.0,
)
GELU_GREATEST = 9.5

# sin(r) = r + r * (z * P(z)), cos(r) = (1 - z/2) + z^2 * P(z) on |r| <= pi/4, z = r^2
SIN = (2.7181215500604594e-06, -0.00019839312881231308, 0.008333329111337662, -0.1666666716337204)
COS = (2.4433154976577498e-05, -0.0013887316454201937, 0.04166664555668831)
TWO_OVER_PI = 0.6366197466850281
HALF_PI = (1.5703125, 0.00048351287841796875, 3.1391647326017846e-07)  # the first two have 8 and 9 bits: n times them is exact

MINUS_SQRT_EIGHT_OVER_PI = -1.5957691669464111
GELU_CUBIC = 0.044714998453855515
ONE_SIXTH = 0.1666666716337204
