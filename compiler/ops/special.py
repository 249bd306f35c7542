"""The error function and its kin, the logarithm of gamma and its derivatives as expressions.

lgamma, digamma and trigamma of float32 are computed in float64: near their zeros nothing less will do. Between the
poles on the negative axis they have zeros near which the error is that of the terms, not of their small sum.
Abramowitz, Stegun 1964, "Handbook of Mathematical Functions", chapters 6 and 7.
"""

from __future__ import annotations

from collections.abc import Callable

from gnomon.compiler.kernel import Cast, Const, Expr
from gnomon.compiler.ops.exponential import LOG2E, log, nearest, reduced, scaled, small_expm1
from gnomon.compiler.ops.mathlib import (
    FORMATS,
    INF,
    NAN,
    add,
    at_least,
    at_most,
    call,
    div,
    equal,
    greater,
    less,
    mad,
    magnitude,
    mul,
    poly,
    shl,
    signed,
    sub,
    unbits,
    upper,
    where,
    wide,
)

PI = 3.141592653589793

# ---- error function

ERF = {  # erf(x) / x - 1 for |x| <= 1, a polynomial of x^2
    "float32": (0.12837917, -0.3761263, 0.11283619, -0.026855174, 0.0051908446, -0.0008031836, 7.9241305e-05),
    "float64": (
        0.1283791670955126, -0.3761263890318388, 0.11283791670959031, -0.026866170645673905, 0.005223977629616909,
        -0.0008548327218992689, 0.00012055338827535105, -1.4925763198696808e-05, 1.646347488768281e-06,
        -1.6374663429718954e-07, 1.4813061150222216e-08, -1.1930972474747587e-09, 6.85120214855001e-11,
    ),
}  # fmt: skip
ERF_TAIL = (0.0003193786, 1.1271765, 0.6380041, 0.10322521, -0.02189298, 0.0029609445, -0.00018768923)
"""-log(erfc(a)) for 1 <= a <= 4."""
ERFC = {  # (1 + 2 a) exp(a^2) erfc(a), a polynomial of (a - k) / (a + k); the number is k
    "float32": (
        2.0,
        (1.2769784, -0.0927639, -0.16603085, 0.16405338, -0.054208804, -0.008047069, 0.008647988, 0.0012823069,
         -0.0012605798, -0.0003746122, 2.399336e-05),
    ),
    "float64": (
        4.0,
        (1.2329951186255526, -0.1396211168405625, 0.0153796521026142, 0.06809705425469016, -0.10103906603610663,
         0.09373283499846813, -0.06633036581542709, 0.03716751553504169, -0.016197734029552824, 0.0050319700045060485,
         -0.000757773434279505, -0.0001992568620940181, 0.00015062212459508753, -2.4398568873925257e-05,
         -1.1222813485999235e-05, 5.708194577030407e-06, 2.9439000454562055e-07, -8.232284639033565e-07,
         7.495064800087108e-08, 1.0837394500160645e-07, -1.879065209190679e-08, -1.3650513323380147e-08,
         2.2874183223193693e-09, 1.3506081828704715e-09),
    ),
}  # fmt: skip
ERFC_END = {"float32": 10.1, "float64": 27.3}  # from here on erfc is 0


def _erfc_positive(a: Expr) -> Expr:
    """erfc(a) for 0 <= a <= ERFC_END: exp(-a^2) / (1 + 2 a) and a polynomial.

    Shepherd, Laframboise 1981, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < infinity".
    """
    centre, coefficients = ERFC[a.dtype]
    f = FORMATS[a.dtype]
    p = poly(div(sub(a, centre), add(a, centre)), coefficients)
    # a^2 = high^2 + (a - high) (a + high), of which the first is exact
    high = upper(a)
    square, rest = mul(high, high), mul(sub(a, high), add(a, high))
    n, exponent = nearest(add(square, rest), -LOG2E, 2 * f.bias)
    r = sub(reduced(call("negative", square), n), rest)
    return scaled(div(mad(small_expm1(r), p, p), mad(a, 2, 1)), exponent)


def _erf_near(x: Expr) -> Expr:
    """erf(x) for |x| <= 1."""
    return mad(x, poly(mul(x, x), ERF[x.dtype]), x)


def erf(x: Expr) -> Expr:
    """A polynomial up to 1; then 1 - exp of another, in float64 1 - erfc."""
    a = magnitude(x)
    if x.dtype == "float32":
        n, exponent = nearest(t := poly(at_most(a, 4.0), ERF_TAIL), -LOG2E, FORMATS[x.dtype].bias)
        p = small_expm1(reduced(call("negative", t), n))
        power = unbits(shl(exponent, FORMATS[x.dtype].digits))
        far = sub(1, mad(p, power, power))
    else:
        far = sub(1, _erfc_positive(at_most(a, 6.0)))
    return where(greater(a, 1), signed(far, x), _erf_near(x))


def erfc(x: Expr) -> Expr:
    a = magnitude(x)
    value = _erfc_positive(at_most(a, ERFC_END[x.dtype]))
    value = where(less(x, 0), sub(2, value), value)
    return where(less(a, 0.5), sub(1, _erf_near(x)), value)


# erfinv(x) / x as polynomials in w = -log(1 - x^2): of w less a number, then of the root of w less a number
ERFINV = {
    "float32": (
        (5.0, 2.5,
         (1.5014094, 0.2466403, -0.0041775, -0.0012527589, 0.0002184105, -4.9539476e-06, -3.476929e-06, 4.6421923e-07,
          2.4251417e-08, -8.65497e-09)),
        (INF, 3.0,
         (2.8329768, 1.0016739, 0.009440731, -0.0076203295, 0.0057305507, -0.003680221, 0.0013657145, 0.000107022526,
          -0.00021066754)),
    ),
    "float64": (
        (6.25, 3.125,
         (1.653654562683103, 0.2401581824255895, -0.006033670871431535, -0.0007407025341653933, 0.00018673420803850247,
          -1.388252336471417e-05, -1.3654692063711213e-06, 4.2347878022417807e-07, -2.9070365164042448e-08,
          -4.112635057513071e-09, 1.0512100876255145e-09, -5.415376218258891e-11, -1.2974503290037676e-11,
          2.6334346237292788e-12, -8.163693616814309e-14, -4.0535836076757304e-14, 6.651816038785339e-15,
          2.018032736430205e-17, -1.3438247107969457e-16, 1.1193635633499754e-17, 1.3311978684263766e-18,
          -1.6919731045371852e-19, -4.4795857167563576e-21)),
        (16.0, 3.25,
         (3.0838856104922203, 1.0052589676941597, 0.005370914553623713, -0.003751208507601621, 0.0024914420948652597,
          -0.0016882755552568476, 0.0009532893996616929, -0.0003550375286413293, 2.403094224641168e-05,
          6.828489920930862e-05, -4.7317411577700484e-05, 1.2475147636097312e-05, 2.9210761096731747e-06,
          -4.013573437598227e-06, 1.5067781535966267e-06, 1.794662135000987e-08, -2.7890858564412224e-07,
          9.087687772852138e-08, 3.659186790375938e-09)),
        (INF, 5.0,
         (4.849906401408584, 1.0103004648645302, -0.00013871931836151593, -0.00021503011912848833,
          7.599527753860078e-05, -1.968178010370875e-05, 4.5260582313598284e-06, -9.929726176548322e-07,
          2.290235935314022e-07, -6.773800163963568e-08, 2.9104278742647942e-08, -1.4924506976249886e-08,
          7.671485502253846e-09, -3.814007013850671e-09, 1.4709150734913899e-09, -2.488195557541977e-10,
          -1.736616964349718e-11)),
    ),
}  # fmt: skip


def erfinv(x: Expr) -> Expr:
    """Giles 2010, "Approximating the erfinv function", with fits of our own."""
    a = magnitude(x)
    w = call("negative", log(mul(sub(1, a), add(1, a))))
    root = call("sqrt", w)
    (limit, centre, first), *others = ERFINV[x.dtype]
    ratio = poly(sub(root, others[-1][1]), others[-1][2])
    for end, middle, coefficients in reversed(others[:-1]):
        ratio = where(less(w, end), poly(sub(root, middle), coefficients), ratio)
    ratio = where(less(w, limit), poly(sub(w, centre), first), ratio)
    return where(equal(a, 1), signed(Const(x.dtype, INF), x), mul(x, ratio))


# ---- gamma

LGAMMA = (
    0.42278433509846713, 0.3224670334241132, -0.06735230105319687, 0.020580808427789588, -0.00738555102875842,
    0.002890510330359233, -0.0011927539092501328, 0.0005096695371728147, -0.0002231547927820221, 9.94572995556413e-05,
    -4.4926025198692765e-05, 2.0509315845692624e-05, -9.439402583785355e-06, 4.362701846749758e-06,
    -2.0483596926663397e-06, 9.94418263117923e-07, -3.949836959947702e-07, 1.5547444061537575e-07,
    -2.3707500099541104e-07, 3.8080007528001984e-08, 1.0656667395853445e-07, 9.595468508288929e-08,
)  # fmt: skip
"""lgamma(2 + d) / d for -3/4 <= d <= 1/2."""
STIRLING = (
    0.0833333333333331, -0.0027777777773629396, 0.0007936505777410143, -0.0005951898451035677, 0.0008364680084935145,
    -0.0016336356252115987,
)  # fmt: skip
"""What Stirling's formula lacks, times x, a polynomial of 1 / x^2, for x >= 8."""
STIRLING_CONSTANT = 0.4189385332046727  # (log(2 pi) - 1) / 2
SINPI = (
    -0.8584073464102068, -5.167712780049947, 2.550164039876084, -0.5992645292891589, 0.08214588618467634,
    -0.00737042762276296, 0.00046628759557380416, -2.187595363946951e-05, 7.441766143305947e-07,
)  # fmt: skip
"""sin(pi t) / t - 4 for |t| <= 1/2, a polynomial of t^2; then cos(pi t)."""
COSPI = (
    1.0, -4.934802200544679, 4.0587121264167365, -1.3352627688533958, 0.23533063033606974, -0.02580689114042649,
    0.001929572675576576, -0.00010463172495837062, 4.2890824117856264e-06, -1.2437254390245054e-07,
)  # fmt: skip
DIGAMMA = (
    0.9510558760318328, -0.4236274212814606, 0.24054248424080238, -0.14840492305388428, 0.0949887244512754,
    -0.06192213327527626, 0.04076083401894322, -0.02697579666645485, 0.017907246221203866, -0.01190821998480217,
    0.007927056138838056, -0.005279938623345605, 0.0035177454860649588, -0.0023454848315262763, 0.001565856679703636,
    -0.001036504599875949, 0.0006797624286935215, -0.00048581699494713626, 0.0003554077358726331,
    -0.000145024715866392, 4.605478451515992e-05, -0.00017806443358336528, 0.00015403437451049238,
)  # fmt: skip
"""digamma(y) / (y - root) for 1 <= y <= 2, a polynomial of y - 3/2."""
DIGAMMA_ROOT = (1.4616321449683622, 9.549995429965697e-17)
DIGAMMA_FAR = (
    -0.08333333333332582, 0.008333333323887039, -0.003968250003009091, 0.004165897511893154, -0.00749950800712896,
    0.01727020247547361,
)  # fmt: skip
"""(digamma(x) - log(x) + 1 / 2x) x^2, a polynomial of 1 / x^2, for x >= 8."""
TRIGAMMA_FAR = (
    0.16666666666666397, -0.03333333332886481, 0.023809521303057433, -0.03333266373605157, 0.07566108800628987,
    -0.245336020426886, 0.8269207044786951,
)  # fmt: skip
"""(trigamma(x) - 1 / x - 1 / 2x^2) x^3, likewise."""


def _in_float64(f: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
    def expansion(x: Expr) -> Expr:
        return Cast("float32", f(wide(x))) if x.dtype == "float32" else f(x)

    return expansion


def _sin_pi(t: Expr) -> Expr:
    """sin(pi t) for |t| <= 1/2."""
    return mad(t, poly(mul(t, t), SINPI), mul(t, 4))


@_in_float64
def lgamma(x: Expr) -> Expr:
    """log |gamma(x)|; infinity at the poles.

    Around 2 a polynomial, to which x up to 8 is brought by the recurrence; Stirling's formula beyond; below -1/2 by
    reflection.
    """
    reflected = less(x, -0.5)
    a = where(reflected, magnitude(x), x)
    far = greater(a, 8)
    within = where(far, 2, a)
    k = call("round", within)
    k = where(less(within, 1.25), k, at_least(k, 2))  # up to 3/2 the polynomial less the log would lose digits
    d = sub(within, k)
    product: Expr = Const(x.dtype, 1)
    for i in range(1, 7):  # gamma(a) = (a - 1) (a - 2) ... (2 + d) gamma(2 + d)
        product = where(greater(k, i + 1.5), mul(product, sub(a, i)), product)
    product = where(less(k, 0.5), mul(magnitude(a), add(a, 1)), where(less(k, 1.5), a, product))
    logarithm = log(where(far, a, product))
    near = mul(d, poly(d, LGAMMA))
    near = add(near, where(less(k, 1.5), call("negative", logarithm), logarithm))
    inverse = div(1, a)
    tail = mad(inverse, poly(mul(inverse, inverse), STIRLING), STIRLING_CONSTANT)
    value = where(far, mad(sub(a, 0.5), sub(logarithm, 1), tail), near)
    # gamma(-a) gamma(a) = -pi / (a sin(pi a))
    t = sub(a, call("round", a))
    turned = log(mul(mul(a, magnitude(_sin_pi(t))), 1 / PI))
    value = where(reflected, sub(call("negative", turned), value), value)
    pole = call("logical_and", reflected, equal(t, 0))
    return where(call("logical_or", pole, equal(magnitude(x), INF)), INF, value)


@_in_float64
def digamma(x: Expr) -> Expr:
    """The derivative of lgamma; NaN at the poles, but infinite at 0 with the sign that its side has.

    Between 1 and 2 a polynomial with the root split off, to which x up to 8 is brought by the recurrence; the
    asymptotic series beyond; below 0 by reflection.
    """
    a = magnitude(x)
    far = greater(a, 8)
    within = where(far, 1, a)
    below = less(within, 1)
    steps = call("floor", within)
    y = where(below, add(within, 1), sub(within, sub(steps, 1)))
    numerator: Expr = Const(x.dtype, 0)
    denominator: Expr = Const(x.dtype, 1)
    for i in range(1, 8):  # the sum of 1 / (a - i) as one fraction
        used, term = greater(steps, i + 0.5), sub(within, i)
        numerator = where(used, mad(numerator, term, denominator), numerator)
        denominator = where(used, mul(denominator, term), denominator)
    numerator, denominator = where(below, -1, numerator), where(below, within, denominator)
    root = add(sub(y, DIGAMMA_ROOT[0]), -DIGAMMA_ROOT[1])
    near = mad(root, poly(sub(y, 1.5), DIGAMMA), div(numerator, denominator))
    inverse = div(1, a)
    z = mul(inverse, inverse)
    value = where(far, mad(z, poly(z, DIGAMMA_FAR), mad(inverse, -0.5, log(a))), near)
    # digamma(-a) = digamma(a) + 1 / a + pi cot(pi a)
    t = sub(a, call("round", a))
    cotangent = div(mul(poly(mul(t, t), COSPI), PI), _sin_pi(t))
    cotangent = where(equal(t, 0), NAN, cotangent)
    value = where(less(x, 0), add(value, add(inverse, cotangent)), value)
    return where(less(a, 1e-300), div(-1, x), value)


@_in_float64
def trigamma(x: Expr) -> Expr:
    """The derivative of digamma; infinity at the poles.

    The recurrence up to 8 and more, where the asymptotic series holds; below 0 by reflection.
    """
    a = where(less(x, 0), sub(1, x), x)
    near = less(a, 8)
    total: Expr = Const(x.dtype, 0)
    for i in reversed(range(8)):
        term = div(1, add(a, i))
        total = mad(term, term, total)
    b = where(near, add(a, 8), a)
    inverse = div(1, b)
    z = mul(inverse, inverse)
    value = add(inverse, mad(z, 0.5, mul(mul(z, inverse), poly(z, TRIGAMMA_FAR))))
    value = add(where(near, total, 0), value)
    # trigamma(x) = (pi / sin(pi x))^2 - trigamma(1 - x)
    ratio = div(PI, _sin_pi(sub(x, call("round", x))))
    return where(less(x, 0), sub(mul(ratio, ratio), value), value)
