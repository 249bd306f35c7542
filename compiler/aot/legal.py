"""Operations that a target lacks and LLVM would call the C library for: written out instead.

Conversions of half precision, the maximum and minimum that keep NaN, and fused multiply-add have names in C, but not
every library has them (fmaximumf is new in C23), and a call for each number is slow. What is needed is found by what an
object file calls; then the operation is replaced in the text by a function of ours that is inlined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from gnomon.compiler.errors import CompileError

_HALF = re.compile(r"^( *)(%\S+) = fpext (<(\d+) x half>|half) (\S+) to (.+)$", re.MULTILINE)
_TO_HALF = re.compile(r"^( *)(%\S+) = fptrunc (<(\d+) x float>|float) (\S+) to (<\d+ x half>|half)$", re.MULTILINE)
_EXTREME = re.compile(r"@llvm\.(maximum|minimum)\.(?:v(\d+))?(f32|f64)\(")
_FMA = re.compile(r"@llvm\.fma\.((?:v\d+)?)(f32|f64)\(")
_ROUND = re.compile(r"@llvm\.(floor|ceil|trunc|roundeven|rint|nearbyint)\.(?:v(\d+))?(f32|f64)\(")
_ROOT = re.compile(r"@llvm\.sqrt\.(?:v(\d+))?(f32|f64)\(")
_ROUNDINGS = {f"{name}{f}" for name in ("floor", "ceil", "trunc", "roundeven", "rint", "nearbyint") for f in ("", "f")}


def legalized(texts: Sequence[str], called: Iterable[str]) -> list[str]:
    """The modules without what becomes a call of one of the names in `called`; the same if there is nothing to do.

    Raises CompileError for a fused multiply-add of a kind that is not there, which is never called: each would take as
    long as a hundred.
    """
    called = set(called)
    made: dict[str, str] = {}
    found = list(texts)
    if called & {"__extendhfsf2", "__truncsfhf2", "__gnu_h2f_ieee", "__gnu_f2h_ieee", "__aeabi_h2f", "__aeabi_f2h"}:
        found = [_each(text, _HALF, _extended, made) for text in found]
        found = [_each(text, _TO_HALF, _truncated, made) for text in found]
    if called & {"fmaximumf", "fminimumf", "fmaximum", "fminimum"}:
        found = [_each(text, _EXTREME, _extreme, made) for text in found]
    if called & _ROUNDINGS:
        found = [_each(text, _ROUND, _rounded, made) for text in found]
    if called & {"sqrt", "sqrtf"}:
        found = [_each(text, _ROOT, _root, made) for text in found]
    for name, kind in (("fmaf", "f32"), ("fma", "f64")):
        if name in called:
            found = [_FMA.sub(partial(_unfused, kind), text) for text in found]
    if made:
        attributes = "\nattributes #0 = { nounwind alwaysinline }\nattributes #1 = { nounwind noinline }\n"
        found.append("\n".join(made.values()) + attributes)
    elif found == list(texts) and called & {"fmaf", "fma"}:
        raise CompileError("a fused multiply-add would be a call of the C library; gnomon should not have made it")
    return found


def _each(text: str, pattern: re.Pattern, change: Callable[[re.Match, dict[str, str]], str], made: dict) -> str:
    """`text` with what matches changed, and declarations for the functions that it then calls."""
    own: dict[str, str] = {}
    changed = pattern.sub(lambda m: change(m, own), text)
    if not own:
        return text
    made.update(own)
    at = changed.index("define ")
    heads = [definition.partition(" {\n")[0].replace("define", "declare", 1) for definition in own.values()]
    declarations = [re.sub(r" %\w+|linkonce_odr hidden |#[01]", "", head).strip() for head in heads]
    return changed[:at] + "\n".join(declarations) + "\n" + changed[at:]


def _unfused(kind: str, m: re.Match) -> str:
    return m[0].replace("llvm.fma.", "llvm.fmuladd.") if m[2] == kind else m[0]


def _types(count: str | None, *kinds: str) -> list[str]:
    return [f"<{count} x {k}>" if count else k for k in kinds]


def _number(count: str | None, value: int | str, kind: str) -> str:
    return f"splat ({kind} {value})" if count else str(value)


def _extended(m: re.Match, made: dict[str, str]) -> str:
    """half -> float: the exponent is put right by a product that is exact for subnormal numbers too."""
    indent, name, _, count, value, _ = m.groups()
    i1, i16, i32, f32 = _types(count, "i1", "i16", "i32", "float")
    suffix = count or "1"
    n = lambda v: _number(count, v, "i32")
    made[f"extend{suffix}"] = f"""\
define linkonce_odr hidden {f32} @gnomon.extend.{suffix}({i16} %h) #0 {{
  %w = zext {i16} %h to {i32}
  %signed = and {i32} %w, {n(0x8000)}
  %sign = shl {i32} %signed, {n(16)}
  %rest = and {i32} %w, {n(0x7FFF)}
  %moved = shl {i32} %rest, {n(13)}
  %small = bitcast {i32} %moved to {f32}
  %value = fmul {f32} %small, {_number(count, "0x46F0000000000000", "float")}
  %bits = bitcast {f32} %value to {i32}
  %special = icmp uge {i32} %rest, {n(0x7C00)}
  %full = or {i32} %moved, {n(0x7F800000)}
  %chosen = select {i1} %special, {i32} %full, {i32} %bits
  %all = or {i32} %chosen, %sign
  %result = bitcast {i32} %all to {f32}
  ret {f32} %result
}}"""
    half = f"<{count} x half>" if count else "half"
    return (
        f"{indent}{name}.h = bitcast {half} {value} to {i16}\n"
        f"{indent}{name} = call {f32} @gnomon.extend.{suffix}({i16} {name}.h)"
    )


def _truncated(m: re.Match, made: dict[str, str]) -> str:
    """float -> half, to the nearest, ties to even."""
    indent, name, _, count, value, half = m.groups()
    i1, i16, i32, f32 = _types(count, "i1", "i16", "i32", "float")
    suffix = count or "1"
    n = lambda v: _number(count, v, "i32")
    made[f"truncate{suffix}"] = f"""\
define linkonce_odr hidden {i16} @gnomon.truncate.{suffix}({f32} %x) #0 {{
  %w = bitcast {f32} %x to {i32}
  %top = lshr {i32} %w, {n(16)}
  %sign = and {i32} %top, {n(0x8000)}
  %rest = and {i32} %w, {n(0x7FFFFFFF)}
  %above = icmp ugt {i32} %rest, {n(0x7F800000)}
  %special = select {i1} %above, {i32} {n(0x7E00)}, {i32} {n(0x7C00)}
  %magnitude = bitcast {i32} %rest to {f32}
  %half = fadd {f32} %magnitude, {_number(count, "0.5", "float")}
  %halved = bitcast {f32} %half to {i32}
  %subnormal = sub {i32} %halved, {n(0x3F000000)}
  %last = lshr {i32} %rest, {n(13)}
  %odd = and {i32} %last, {n(1)}
  %based = add {i32} %rest, {n(0xC8000FFF - (1 << 32))}
  %up = add {i32} %based, %odd
  %normal = lshr {i32} %up, {n(13)}
  %tiny = icmp ult {i32} %rest, {n(0x38800000)}
  %finite = select {i1} %tiny, {i32} %subnormal, {i32} %normal
  %large = icmp uge {i32} %rest, {n(0x47800000)}
  %chosen = select {i1} %large, {i32} %special, {i32} %finite
  %all = or {i32} %chosen, %sign
  %result = trunc {i32} %all to {i16}
  ret {i16} %result
}}"""
    return (
        f"{indent}{name}.h = call {i16} @gnomon.truncate.{suffix}({f32} {value})\n"
        f"{indent}{name} = bitcast {i16} {name}.h to {half}"
    )


def _rounded(m: re.Match, made: dict[str, str]) -> str:
    """To a whole number. A number so large that its last digit is 1 loses its fraction when it is added."""
    which, count, kind = m.groups()
    llvm, suffix = ("float", "f32") if kind == "f32" else ("double", "f64")
    i1, number = _types(count, "i1", llvm)
    mangled = f"{f'v{count}' if count else ''}{suffix}"
    name = f"gnomon.{which}.{mangled}"
    large = _number(count, "0x4160000000000000" if kind == "f32" else "0x4330000000000000", llvm)  # 2^23, 2^52
    one, none = (_number(count, v, llvm) for v in ("1.0", "0.0"))
    correction = {
        "floor": f"  %far = fcmp ogt {number} %near, %x\n  %step = select {i1} %far, {number} {one}, {number} {none}\n"
                 f"  %value = fsub {number} %near, %step",
        "ceil": f"  %far = fcmp olt {number} %near, %x\n  %step = select {i1} %far, {number} {one}, {number} {none}\n"
                f"  %value = fadd {number} %near, %step",
        "trunc": f"  %far = fcmp ogt {number} %whole, %size\n"
                 f"  %step = select {i1} %far, {number} {one}, {number} {none}\n"
                 f"  %value = fsub {number} %whole, %step",
    }.get(which, f"  %value = fadd {number} %near, {none}")  # fmt: skip
    made[name] = f"""\
define linkonce_odr hidden {number} @{name}({number} %x) #0 {{
  %size = call {number} @llvm.fabs.{mangled}({number} %x)
  %sum = fadd {number} %size, {large}
  %whole = fsub {number} %sum, {large}
  %near = call {number} @llvm.copysign.{mangled}({number} %whole, {number} %x)
{correction}
  %signed = call {number} @llvm.copysign.{mangled}({number} %value, {number} %x)
  %small = fcmp olt {number} %size, {large}
  %result = select {i1} %small, {number} %signed, {number} %x
  ret {number} %result
}}"""
    return f"@{name}("


def _root(m: re.Match, made: dict[str, str]) -> str:
    """The square root of a processor without floats: bit by bit, rounded as it must be."""
    count, kind = m.groups()
    number, integer, bits, digits = ("float", "i32", 32, 23) if kind == "f32" else ("double", "i64", 64, 52)
    bias, top = (1 << (bits - digits - 2)) - 1, 1 << digits
    infinity = (2 * bias + 1) << digits
    made[f"root{kind}"] = f"""\
define linkonce_odr hidden {number} @gnomon.root.{kind}({number} %x) #1 {{
entry:
  %bits = bitcast {number} %x to {integer}
  %twice = shl {integer} %bits, 1
  %zero = icmp eq {integer} %twice, 0
  %large = icmp uge {integer} %bits, {infinity}
  %special = or i1 %zero, %large
  br i1 %special, label %other, label %plain
other:
  %nothing = icmp ugt {integer} %bits, {infinity}
  %negative = xor i1 %zero, true
  %missing = and i1 %nothing, %negative
  %answer = select i1 %missing, {integer} {infinity | top >> 1}, {integer} %bits
  %same = bitcast {integer} %answer to {number}
  ret {number} %same
plain:
  %raised = lshr {integer} %bits, {digits}
  %rest = and {integer} %bits, {top - 1}
  %subnormal = icmp eq {integer} %raised, 0
  %leading = call {integer} @llvm.ctlz.{integer}({integer} %rest, i1 false)
  %shift = sub {integer} %leading, {bits - digits - 1}
  %moved = shl {integer} %rest, %shift
  %lower = sub {integer} 1, %shift
  %whole = or {integer} %rest, {top}
  %mantissa = select i1 %subnormal, {integer} %moved, {integer} %whole
  %biased = select i1 %subnormal, {integer} %lower, {integer} %raised
  %exponent = sub {integer} %biased, {bias}
  %odd = and {integer} %exponent, 1
  %even = shl {integer} %mantissa, %odd
  %half = ashr {integer} %exponent, 1
  %stream = shl {integer} %even, {bits - digits - 2}
  br label %loop
loop:
  %k = phi i32 [ 0, %plain ], [ %next, %loop ]
  %s = phi {integer} [ %stream, %plain ], [ %s.next, %loop ]
  %over = phi {integer} [ 0, %plain ], [ %over.next, %loop ]
  %root = phi {integer} [ 0, %plain ], [ %root.next, %loop ]
  %pair = lshr {integer} %s, {bits - 2}
  %s.next = shl {integer} %s, 2
  %over.4 = shl {integer} %over, 2
  %have = or {integer} %over.4, %pair
  %root.4 = shl {integer} %root, 2
  %trial = or {integer} %root.4, 1
  %fits = icmp uge {integer} %have, %trial
  %less = sub {integer} %have, %trial
  %over.next = select i1 %fits, {integer} %less, {integer} %have
  %root.2 = shl {integer} %root, 1
  %bit = zext i1 %fits to {integer}
  %root.next = or {integer} %root.2, %bit
  %next = add i32 %k, 1
  %more = icmp ult i32 %next, {digits + 2}
  br i1 %more, label %loop, label %done
done:
  %up = add {integer} %root.next, 1
  %rounded = lshr {integer} %up, 1
  %field = add {integer} %half, {bias - 1}
  %high = shl {integer} %field, {digits}
  %all = add {integer} %high, %rounded
  %result = bitcast {integer} %all to {number}
  ret {number} %result
}}"""
    if not count:
        return f"@gnomon.root.{kind}("
    vector = f"<{count} x {number}>"
    lines, before = [], "poison"
    for k in range(int(count)):
        lines.append(f"  %x{k} = extractelement {vector} %x, i32 {k}")
        lines.append(f"  %y{k} = call {number} @gnomon.root.{kind}({number} %x{k})")
        lines.append(f"  %r{k} = insertelement {vector} {before}, {number} %y{k}, i32 {k}")
        before = f"%r{k}"
    made[f"root.v{count}{kind}"] = "\n".join(
        [f"define linkonce_odr hidden {vector} @gnomon.root.v{count}{kind}({vector} %x) #0 {{", *lines,
         f"  ret {vector} {before}", "}"]
    )  # fmt: skip
    return f"@gnomon.root.v{count}{kind}("


def _extreme(m: re.Match, made: dict[str, str]) -> str:
    """The larger or smaller of two numbers; NaN if one is, and -0 is below 0."""
    which, count, kind = m.groups()
    llvm, bits = ("float", "i32") if kind == "f32" else ("double", "i64")
    i1, integer, number = _types(count, "i1", bits, llvm)
    name = f"gnomon.{which}.{f'v{count}' if count else ''}{kind}"
    better, join = ("ogt", "and") if which == "maximum" else ("olt", "or")
    made[name] = f"""\
define linkonce_odr hidden {number} @{name}({number} %a, {number} %b) #0 {{
  %first = fcmp {better} {number} %a, %b
  %one = select {i1} %first, {number} %a, {number} %b
  %equal = fcmp oeq {number} %a, %b
  %x = bitcast {number} %a to {integer}
  %y = bitcast {number} %b to {integer}
  %both = {join} {integer} %x, %y
  %same = bitcast {integer} %both to {number}
  %two = select {i1} %equal, {number} %same, {number} %one
  %missing = fcmp uno {number} %a, %b
  %sum = fadd {number} %a, %b
  %result = select {i1} %missing, {number} %sum, {number} %two
  ret {number} %result
}}"""
    return f"@{name}("
