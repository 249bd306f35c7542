"""From LLVM text to an object file: the only place of the runtime that imports llvmlite.

It is imported where one small source is to be compiled, and run as a script by worker processes where there is much to
do: llvmlite holds one lock over all of LLVM, so threads gain nothing, and what LLVM holds to be a fatal error ends the
process. As a script it needs nothing of gnomon, not even NumPy, which would double its time to start.

The host's cpu and features are given to the target machine, not written into the text: a text that names no cpu is
the same on every machine.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import IO, Any

PASSES = ("sroa",)
"""Passes over each module. The text comes optimised: more of them cost more than they gain."""

LEVEL = 2
"""Of code generation. 1 is no quicker to compile, 3 generates no better code."""

OPTIONS = f"level={LEVEL} passes={','.join(PASSES)} pic"
"""All that decides how a text is compiled, besides the machine and the version of LLVM."""

IDLE = 30
"""Seconds after which a worker that gets no work ends."""

HEAD = struct.Struct("<BQ")
"""Before each message: a request's flags or a reply's status, and how many bytes follow."""

CHECK, ASSEMBLY = 1, 2
"""Request flags: verify the module; reply with its assembly instead of an object."""

DONE, FAILED = 0, 1


@cache
def binding() -> Any:
    """llvmlite's binding, ready to generate code for this machine."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # inline assembly needs it
    return llvm


@cache
def llvm_cpu() -> tuple[str, str]:
    """The machine's cpu and features as LLVM names them."""
    llvm = binding()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def machine() -> Any:
    """The target machine that all code is generated with."""
    llvm = binding()
    cpu, features = llvm_cpu()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=cpu, features=features, opt=LEVEL, reloc="pic", codemodel="small")


def module(text: str, check: bool = False) -> Any:
    """The parsed and optimised module. Raises RuntimeError with LLVM's words if the text is not well formed."""
    llvm = binding()
    parsed = llvm.parse_assembly(text, context=llvm.create_context())
    if check:
        parsed.verify()
    passes = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(parsed, llvm.create_pass_builder(machine(), llvm.create_pipeline_tuning_options(speed_level=0)))
    return parsed


def compile_object(text: str, check: bool = False) -> bytes:
    """The text as a relocatable object file. Raises RuntimeError with LLVM's words."""
    return machine().emit_object(module(text, check))


def assembly(text: str) -> str:
    """The text as the machine's assembly, exactly what `compile_object` encodes."""
    return machine().emit_assembly(module(text))


_DECLARED = re.compile(r'^declare [^@\n]*@(?:"([^"\n]+)"|([\w.$-]+))\(', re.MULTILINE)
_linked: list[Any] = []


def link(objects: Sequence[tuple[str, Sequence[str], bytes]], resolve: Callable[[str], int | None]) -> dict[str, int]:
    """Load (text, names it defines, object) by LLVM's linker: for systems whose object files we do not load ourselves.

    Each may call what those before it define, and what `resolve` finds. Returns the addresses of all they define.
    """
    llvm = binding()
    if not _linked:
        _linked.append(llvm.create_lljit_compiler(machine(), use_jit_link=True))
    defined: dict[str, int] = {}
    for text, names, content in objects:
        builder = llvm.JITLibraryBuilder().add_object_img(content).add_current_process()
        for quoted, plain in _DECLARED.findall(text):
            address = defined.get(quoted or plain) or resolve(quoted or plain)
            if address and not (quoted or plain).startswith("llvm."):
                builder.import_symbol(quoted or plain, address)
        for name in names:
            builder.export_symbol(name)
        tracker = builder.link(_linked[0], f"gnomon{len(_linked)}")
        _linked.append(tracker)  # what it holds is unloaded with it
        defined.update((name, tracker[name]) for name in names)
    return defined


def send(stream: IO[bytes], kind: int, data: bytes) -> None:
    stream.write(HEAD.pack(kind, len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[int, bytes] | None:
    """The next message; None if the other side is gone."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    kind, length = HEAD.unpack(head)
    data = stream.read(length)
    return (kind, data) if len(data) == length else None


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Compile each text that comes until the stream ends or nothing comes for a while."""
    import signal

    rest = getattr(signal, "alarm", lambda seconds: None)
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the user's process; our end comes with its pipe
    machine()
    while True:
        rest(IDLE)
        request = receive(requests)
        rest(0)
        if request is None:
            return
        flags, text = request
        try:
            if flags & ASSEMBLY:
                send(replies, DONE, assembly(text.decode()).encode())
            else:
                send(replies, DONE, compile_object(text.decode(), bool(flags & CHECK)))
        except RuntimeError as error:
            send(replies, FAILED, str(error).encode())


if __name__ == "__main__":
    sys.path[:] = sys.argv[1:]  # the user's own, so that the same llvmlite is found
    serve(sys.stdin.buffer, sys.stdout.buffer)
