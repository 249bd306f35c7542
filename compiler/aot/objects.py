"""From the modules of a library to an object file, for any target that LLVM has."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from gnomon.compiler.aot import symbols
from gnomon.compiler.aot.legal import legalized
from gnomon.compiler.errors import CompileError
from gnomon.compiler.targets import Target

LEVEL = 2
"""Of code generation, as in the process: a library for this machine computes the same bits."""

PASSES = ("always_inliner", "sroa", "ipsccp", "simplify_cfg", "global_dead_code_eliminate")
"""Over the linked module: what is constant in a library (no threads, fixed sizes) leaves its entry functions."""


@cache
def binding() -> Any:
    """llvmlite's binding, ready to generate code for every target."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


def machine(target: Target) -> Any:
    """LLVM's machine for a target. A target without a cpu is this machine's own.

    Raises CompileError if LLVM has no such target.
    """
    llvm = binding()
    cpu, features = target.cpu, target.features
    if not cpu:
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    bare = re.search(r"-none-|wasm", target.triple) is not None
    try:
        return llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=cpu, features=features, opt=LEVEL, reloc="static" if bare else "pic", codemodel="default",
            abiname="lp64d" if target.triple.startswith("riscv64") else "",
        )  # fmt: skip
    except RuntimeError as error:
        raise CompileError(f"LLVM cannot generate code for {target.triple!r}: {error}") from None


def linked(texts: Sequence[str], exported: Sequence[str], target: Target) -> Any:
    """The modules as one, in which only `exported` is seen from outside. Raises CompileError for a text that LLVM does
    not take."""
    llvm = binding()
    made = machine(target)
    layout = str(made.target_data)
    context = llvm.create_context()
    whole: Any = None
    for text in texts:
        try:
            part = llvm.parse_assembly(text, context=context)
        except RuntimeError as error:
            raise CompileError(f"LLVM does not take a module of the library: {error}") from None
        part.data_layout = layout
        if whole is None:
            whole = part
        else:
            whole.link_in(part)
    keep = set(exported)
    for function in whole.functions:
        if not function.is_declaration and function.name not in keep:
            function.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(whole, llvm.create_pass_builder(made, llvm.create_pipeline_tuning_options(speed_level=0)))
    return whole


SPILLED = 192
"""About how many bytes of stack a function takes for registers, besides what it asks for."""


def stack_bytes(texts: Sequence[str], exported: Sequence[str], target: Target) -> int:
    """About how many bytes of stack the deepest calls take. There is no recursion."""
    module = linked(texts, exported, target)
    layout = machine(target).target_data
    own: dict[str, int] = {}
    called: dict[str, set[str]] = {}
    for function in module.functions:
        if function.is_declaration:
            continue
        own[function.name], called[function.name] = SPILLED, set()
        for instruction in (i for block in function.blocks for i in block.instructions):
            if instruction.opcode == "alloca":
                own[function.name] += _allocated(str(instruction), layout)
            elif instruction.opcode == "call":
                called[function.name] |= set(_NAME.findall(str(instruction)))

    def depth(name: str) -> int:
        return own[name] + max((depth(c) for c in called[name] if c in own), default=0)

    return max((depth(name) for name in exported), default=0)


_NAME = re.compile(r'@"?([\w.$-]+)"?')
_ALLOCA = re.compile(r"alloca (\[(\d+) x )?(?:<(\d+) x )?(\w+)")
_SIZES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "half": 2, "float": 4, "double": 8}


def _allocated(text: str, layout: Any) -> int:
    found = _ALLOCA.search(text)
    assert found is not None, text
    count = int(found[2] or 1) * int(found[3] or 1)
    pointer = 4 if "p:32:32" in str(layout) else 8
    return count * _SIZES.get(found[4], pointer)


PLACE = hashlib.sha512(b"the weights of a library made by gnomon").digest()
"""What stands in an object where large weights begin, before they are put there."""


def compile_object(texts: Sequence[str], exported: Sequence[str], target: Target, weights: bytes = b"") -> bytes:
    """The modules as one relocatable object file.

    weights   of the library; only large ones are not in the texts themselves
    """
    content = machine(target).emit_object(linked(texts, exported, target))
    called = symbols.read(content).undefined
    legal = legalized(texts, called)
    if legal != list(texts):
        content = machine(target).emit_object(linked(legal, exported, target))
    at = content.find(PLACE)
    if at < 0:
        return content
    assert len(weights) > len(PLACE), "weights that are not in the texts must be given"
    assert not content[at + len(PLACE) : at + len(weights)].strip(b"\0"), "there is room for all of them"
    return b"".join((content[:at], weights, content[at + len(weights) :]))
