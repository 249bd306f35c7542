"""What a program makes of its weights alone (packed operands, folded constants), made once, before it is shipped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from gnomon.compiler.program import Changed, Prepare, Program, Source, Step, touched
from gnomon.compiler.render.entry import render_entry
from gnomon.compiler.targets import Target


def preparation(program: Program, target: Target, host: Target) -> Program | None:
    """A program for `host` whose outputs are what `program`, for `target`, keeps from call to call; None if nothing.

    Its kernels are those of `target`, as they are: code that moves numbers about and computes with few of them runs on
    any machine and gives the same on all.
    """
    steps = tuple(s for p in program.steps if isinstance(p, Prepare) for s in p.steps)
    if not steps:
        return None
    used = {slot for s in steps for slot in touched(s)}
    kept = tuple(k for k in sorted(used) if program.slots[k].kind == "kept")
    slots = tuple(
        replace(s, kind="output") if k in kept else s if k in used else replace(s, kind="unused", shape=())
        for k, s in enumerate(program.slots)
    )
    return _renewed(
        replace(
            program,
            name=f"{program.name}_preparation",
            inputs=(),
            outputs=kept,
            variables=tuple(v for v in program.variables if v[0] in used),
            constants=tuple(c for c in program.constants if c[0] in used),
            sizes=(),
            bindings=(),
            checks=(),
            slots=slots,
            sources=tuple(_moved(s, target, host) for s in program.sources),
        ),
        steps,
        host,
    )


def prepared(program: Program, kept: Mapping[int, bytes], target: Target) -> Program:
    """The program with what it keeps as constants: `kept` has their contents. Variables that nothing reads are gone."""
    steps = tuple(s for s in program.steps if not isinstance(s, Prepare | Changed))
    used = {slot for s in steps for slot in touched(s)} | set(program.inputs) | set(program.outputs)
    used |= {program.slots[k].alias for k in used if program.slots[k].alias >= 0}
    slots = []
    for k, slot in enumerate(program.slots):
        if k in kept:
            slot = replace(slot, kind="constant")
        elif k not in used and slot.kind in ("temporary", "kept", "clock"):
            slot = replace(slot, kind="unused")
        slots.append(slot)
    return _renewed(
        replace(
            program,
            variables=tuple(v for v in program.variables if v[0] in used),
            constants=tuple(c for c in program.constants if c[0] in used) + tuple(sorted(kept.items())),
            slots=tuple(slots),
        ),
        steps,
        target,
    )


def _moved(source: Source, target: Target, host: Target) -> Source:
    text = source.text.replace(f'target triple = "{target.triple}"', f'target triple = "{host.triple}"', 1)
    return replace(source, text=text)


def _renewed(program: Program, steps: tuple[Step, ...], target: Target) -> Program:
    """The program with other steps: its entry and the kernels that they launch."""
    text = render_entry("ENTRY", steps, program.slots, program.sizes, target)
    entry = f"{program.entry.rpartition('_')[0]}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    kernels = tuple(s for s in program.sources if program.entry not in s.defines and _is_called(s, text))
    own = Source(entry, text.replace("@ENTRY(", f"@{entry}("), (entry,))
    return replace(program, steps=steps, sources=(*kernels, own), entry=entry)


def _is_called(source: Source, text: str) -> bool:
    return any(f"@{name}(" in text for name in source.defines)
