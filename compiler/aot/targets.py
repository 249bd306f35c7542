"""Targets by name: a short one of the table, or an LLVM triple with a cpu.

What decides how code is generated (the width of vectors, how many registers, whether products and sums fuse) follows
from the cpu. That there is such a cpu is checked here: LLVM itself would only warn, and take another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gnomon.compiler.errors import ArgumentError, nearest
from gnomon.compiler.targets import Target

# ---- x86-64

_V2 = "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_V3 = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe"
_V4 = f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"

X86_LEVELS = {name: frozenset(flags.split()) for name, flags in
              {"x86-64": "", "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}.items()}  # fmt: skip
"""What the levels of x86-64 ask of a processor, in the words of Linux (x86-64 psABI, section 3.1.1)."""

X86_CPUS = {
    "x86-64": "x86-64 k8 k8-sse3 athlon64 athlon64-sse3 opteron opteron-sse3 athlon-fx nocona core2 penryn bonnell "
              "atom amdfam10 barcelona btver1",
    "x86-64-v2": "x86-64-v2 nehalem corei7 westmere sandybridge corei7-avx ivybridge core-avx-i silvermont slm "
                 "goldmont goldmont-plus tremont btver2 bdver1 bdver2 bdver3",
    "x86-64-v3": "x86-64-v3 haswell core-avx2 broadwell skylake alderlake raptorlake meteorlake gracemont arrowlake "
                 "arrowlake-s lunarlake pantherlake wildcatlake sierraforest grandridge clearwaterforest bdver4 znver1 "
                 "znver2 znver3",
    "x86-64-v4": "x86-64-v4 skylake-avx512 skx cascadelake cooperlake cannonlake icelake-client icelake-server "
                 "tigerlake rocketlake sapphirerapids emeraldrapids graniterapids graniterapids-d diamondrapids "
                 "novalake znver4 znver5",
}  # fmt: skip
"""Processors by the level that they have."""

INSTRUCTIONS = frozenset(
    f"{_V4} avx512_bf16 avx512_bitalg avx512_fp16 avx512_vbmi2 avx512_vnni avx512_vpopcntdq avx512ifma avx512vbmi "
    "avx_vnni gfni sse4a tbm xop fma4 vaes vpclmulqdq adx sha_ni "
    "asimd asimddp asimdfhm asimdhp asimdrdm atomics bf16 fp fphp i8mm lrcpc sve sve2".split()
)
"""What a processor may have that generated code may use, in the words of Linux."""

# ---- others

ARM_CPUS = (
    "generic a64fx ampere1 ampere1a ampere1b ampere1c carmel cobalt-100 cyclone exynos-m3 exynos-m4 exynos-m5 falkor "
    "fujitsu-monaka gb10 grace kryo neoverse-512tvb neoverse-e1 neoverse-n1 neoverse-n2 neoverse-n3 neoverse-v1 "
    "neoverse-v2 neoverse-v3 neoverse-v3ae olympus oryon-1 saphira thunderx thunderx2t99 thunderx3t110 tsv110 "
    "apple-a7 apple-a8 apple-a9 apple-a10 apple-a11 apple-a12 apple-a13 apple-a14 apple-a15 apple-a16 apple-a17 "
    "apple-a18 apple-a19 apple-m1 apple-m2 apple-m3 apple-m4 apple-m5 cortex-a34 cortex-a35 cortex-a53 cortex-a55 "
    "cortex-a57 cortex-a65 cortex-a65ae cortex-a72 cortex-a73 cortex-a75 cortex-a76 cortex-a76ae cortex-a77 cortex-a78 "
    "cortex-a78ae cortex-a78c cortex-a320 cortex-a510 cortex-a520 cortex-a520ae cortex-a710 cortex-a715 cortex-a720 "
    "cortex-a720ae cortex-a725 cortex-r82 cortex-r82ae cortex-x1 cortex-x1c cortex-x2 cortex-x3 cortex-x4 cortex-x925"
).split()

RISCV_CPUS = (
    "generic-rv64 andes-ax25 andes-ax45 andes-nx45 mips-p8700 rocket-rv64 sifive-p450 sifive-p550 sifive-s51 "
    "sifive-s54 sifive-s76 sifive-u54 sifive-u74 syntacore-scr3-rv64 syntacore-scr4-rv64 syntacore-scr5-rv64 "
    "syntacore-scr7 veyron-v1 xiangshan-nanhu"
).split()
RISCV_VECTOR_CPUS = (
    "andes-ax45mpv sifive-p470 sifive-p670 sifive-p870 sifive-x280 sifive-x390 spacemit-x60 tt-ascalon-d8 "
    "xiangshan-kunminghu"
).split()

MICROCONTROLLERS = {
    "cortex-m0": "thumbv6m-none-eabi", "cortex-m0plus": "thumbv6m-none-eabi", "cortex-m1": "thumbv6m-none-eabi",
    "cortex-m23": "thumbv8m.base-none-eabi", "cortex-m3": "thumbv7m-none-eabi", "cortex-m4": "thumbv7em-none-eabihf",
    "cortex-m7": "thumbv7em-none-eabihf", "cortex-m33": "thumbv8m.main-none-eabihf",
    "cortex-m35p": "thumbv8m.main-none-eabihf", "cortex-m52": "thumbv8.1m.main-none-eabihf",
    "cortex-m55": "thumbv8.1m.main-none-eabihf", "cortex-m85": "thumbv8.1m.main-none-eabihf",
}  # fmt: skip
"""Processors without an operating system, each with the triple of its instructions and float registers."""

NO_FLOATS = frozenset({"cortex-m0", "cortex-m0plus", "cortex-m1", "cortex-m23", "cortex-m3"})
SINGLE_FLOATS = frozenset({"cortex-m4", "cortex-m33", "cortex-m35p"})
VECTOR_UNIT = frozenset({"cortex-m52", "cortex-m55", "cortex-m85"})

LINUX, UNKNOWN = "-unknown-linux-gnu", "-unknown-unknown"

NAMED: dict[str, tuple[str, str]] = {
    **{level: (f"x86_64{LINUX}", level) for level in X86_LEVELS},
    "aarch64": (f"aarch64{LINUX}", "generic"),
    "riscv64": (f"riscv64{LINUX}", "generic-rv64"),
    "riscv64-v": (f"riscv64{LINUX}", "generic-rv64+v"),
    "wasm32": (f"wasm32{UNKNOWN}", "generic"),
    **{cpu: (triple, cpu) for cpu, triple in MICROCONTROLLERS.items()},
    "windows": ("x86_64-pc-windows-msvc", "x86-64"),
    "windows-arm64": ("aarch64-pc-windows-msvc", "generic"),
    "macos": ("arm64-apple-macosx11.0.0", "apple-m1"),
    "macos-x86-64": ("x86_64-apple-macosx10.15.0", "x86-64"),
    "android": ("aarch64-unknown-linux-android21", "generic"),
    "ios": ("arm64-apple-ios13.0.0", "apple-a7"),
}
"""Short names: the triple and the cpu that each stands for."""

SYSTEMS = "linux windows macosx macos darwin ios none unknown wasi android freebsd".split()


@dataclass(frozen=True)
class Machine:
    """What a cpu can do."""

    vector_bytes: int
    registers: int
    fma: bool
    features: str = ""
    l1: int = 32 << 10
    l2: int = 512 << 10


def find(name: str, cpu: str = "") -> Target:
    """The target called `name`, a short name or a triple, with the cpu called `cpu`, or the plainest there is.

    Raises ArgumentError, with near names, if there is none.
    """
    if name in NAMED:
        name, plain = NAMED[name]
    else:
        plain = ""
    triple = _triple(name)
    machine, cpu = _machine(triple, cpu or plain)
    return Target(
        "cpu", triple, cpu, machine.features, machine.vector_bytes, machine.registers, machine.fma, machine.l1,
        machine.l2,
    )  # fmt: skip


def for_host(host: Target, cpu: str) -> Target:
    """The host's target for another cpu than its own."""
    return replace(find(host.triple, cpu), threads=host.threads)


def is_bare(target: Target) -> bool:
    """Whether it has no operating system: memory is static."""
    return "-none" in target.triple


def has_doubles(target: Target) -> bool:
    """Whether it computes float64 by instructions of its own."""
    return target.cpu not in NO_FLOATS | SINGLE_FLOATS


def _triple(name: str) -> str:
    """A triple with all its parts, if they are known."""
    architecture, *rest = name.split("-")
    known = {"x86_64", "aarch64", "arm64", "riscv64", "wasm32", *(t.split("-")[0] for t in MICROCONTROLLERS.values())}
    if not rest or architecture not in known:
        hint = nearest(name, NAMED)
        if architecture in known:
            hint = f" Write {architecture} with a system behind it, such as {architecture}{LINUX}."
        elif rest and "Did you mean" not in hint:
            hint = f" Processors of triples are {', '.join(sorted(known))}.{hint}"
        raise ArgumentError(f"there is no target {name!r}.{hint}")
    if not any(re.match(system, part) for system in SYSTEMS for part in rest):
        raise ArgumentError(f"the target {name!r} names no system that is known: {', '.join(SYSTEMS)}")
    # LLVM takes a triple as it stands: what is left out would shift the parts behind it, and the float registers of a
    # microcontroller are told by the last one
    if rest[0] == "none" and len(rest) == 2:
        rest = ["none", "unknown", rest[1]]
    elif re.match("linux|windows|wasi|freebsd", rest[0]):
        rest = ["pc" if rest[0].startswith("windows") else "unknown", *rest]
    elif re.match("macos|darwin|ios", rest[0]):
        rest = ["apple", *rest]
    return "-".join([architecture, *rest])


def _machine(triple: str, cpu: str) -> tuple[Machine, str]:
    architecture = triple.split("-")[0]
    match architecture:
        case "x86_64":
            return _x86(cpu or "x86-64", triple)
        case "aarch64" | "arm64":
            _check(cpu or "generic", ARM_CPUS, triple)
            return Machine(16, 32, True), cpu or "generic"
        case "riscv64":
            return _riscv(cpu or "generic-rv64", triple)
        case "wasm32":
            _check(cpu or "generic", ("generic", "mvp"), triple)
            if cpu == "mvp":
                return Machine(4, 16, False), cpu
            features = "+simd128,+bulk-memory,+bulk-memory-opt,+nontrapping-fptoint,+sign-ext,+mutable-globals"
            return Machine(16, 16, False, features), "generic"
    return _microcontroller(cpu, triple)


def _x86(cpu: str, triple: str) -> tuple[Machine, str]:
    by_name = {name: level for level, names in X86_CPUS.items() for name in names.split()}
    _check(cpu, by_name, triple)
    level = by_name[cpu]
    vector = {"x86-64-v3": 32, "x86-64-v4": 64}.get(level, 16)
    return Machine(vector, 32 if vector == 64 else 16, vector > 16 or cpu in ("bdver2", "bdver3")), cpu


def level_of(cpu: str) -> str:
    """The level of x86-64 that a processor has."""
    return next((level for level, names in X86_CPUS.items() if cpu in names.split()), "x86-64")


def _riscv(cpu: str, triple: str) -> tuple[Machine, str]:
    plain = cpu.removesuffix("+v")
    _check(plain, (*RISCV_CPUS, *RISCV_VECTOR_CPUS), triple)
    base = "+m,+a,+f,+d,+c" if plain.startswith("generic") else ""
    if plain in RISCV_VECTOR_CPUS or cpu.endswith("+v"):
        return Machine(16, 32, True, f"{base},+v" if plain == "generic-rv64" else base), plain
    return Machine(4, 32, True, base), plain


def _microcontroller(cpu: str, triple: str) -> tuple[Machine, str]:
    architecture = triple.split("-")[0]
    fitting = [name for name, t in MICROCONTROLLERS.items() if t.split("-")[0] == architecture]
    cpu = cpu or {"thumbv7em": "cortex-m4", "thumbv8.1m.main": "cortex-m55"}.get(architecture, fitting[0])
    _check(cpu, fitting, triple)
    vector = 16 if cpu in VECTOR_UNIT else 4
    # buffers that a kernel keeps near are on the stack here: a small cache keeps them small
    return Machine(vector, 8 if vector == 16 else 16, cpu not in NO_FLOATS, "", 2 << 10, 4 << 10), cpu


def _check(cpu: str, known: Iterable[str], triple: str) -> None:
    known = list(known)
    if cpu not in known:
        raise ArgumentError(f"there is no cpu {cpu!r} for {triple}.{nearest(cpu, known)}")


__all__ = [
    "INSTRUCTIONS", "MICROCONTROLLERS", "NAMED", "X86_LEVELS", "find", "for_host", "has_doubles", "is_bare", "level_of",
]  # fmt: skip
