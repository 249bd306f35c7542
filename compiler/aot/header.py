"""The C header of a library."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gnomon.compiler.aot import pool
from gnomon.compiler.aot.codes import error_texts
from gnomon.compiler.aot.library import HEAD, LARGEST, Argument, Library, Routine
from gnomon.compiler.sizes import Dim, symbols

CODES = ("OK", "POINTER", "SIZE", "WORKSPACE", "STATE", "DATA", "THREADS")

BITS = {"float16": " (bits of IEEE half precision)", "bfloat16": " (bits of bfloat16, the upper half of a float)"}
"""What is said of numbers that C has no type for."""


def header(library: Library) -> str:
    """The text of the header."""
    upper = library.prefix.upper()
    parts = [
        _comment(
            f"{library.prefix}: made by gnomon {library.version} from {library.model} for "
            f"{library.target.triple}{f' ({library.target.cpu})' if library.target.cpu else ''}. Do not edit.",
            "",
            f"The functions allocate nothing, keep nothing and start no threads{_unless(library)}. They may be called "
            "from several "
            "threads at once, each with a workspace"
            f"{' and a state' if library.stateful else ''} of its own. Arrays are row-major and do not overlap.",
        ),
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stddef.h>\n#include <stdint.h>\n",
        '#ifdef __cplusplus\nextern "C" {\n#endif\n',
        _constants(library),
        _codes(library),
    ]
    if library.threads:
        parts.append(_threads(library))
    if library.pool:
        parts.append(_pool(library))
    parts.append(_workspace(library))
    if not library.embed:
        parts.append(_weights(library))
    if library.stateful:
        parts.append(_state(library))
    parts += [_routine(library, r) for r in library.routines]
    parts += [
        _comment("What a code that a function returned means.")
        + f"\nconst char *{library.prefix}_error_text(int code);\n",
        _comment("The version of gnomon that made the library.") + f"\nconst char *{library.prefix}_version(void);\n",
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {upper}_H */\n",
    ]
    return "\n".join(parts)


def _comment(*paragraphs: str) -> str:
    lines: list[str] = []
    for p in paragraphs:
        lines += textwrap.wrap(p, 112) or [""] if not p.startswith("  ") else [p]
    lines = [line.replace("*/", "* /") for line in lines]
    if len(lines) == 1:
        return f"/* {lines[0]} */"
    return "\n".join([f"/* {lines[0]}", *(f" * {line}".rstrip() for line in lines[1:]), " */"])


def _constants(library: Library) -> str:
    upper = library.prefix.upper()
    lines = []
    for size, name in library.size_names.items():
        most = library.most(size)
        if most != LARGEST:
            lines.append(f"#define {upper}_MAX_{name.upper()} {most} /* the largest `{name}` */")
    greatest = library.greatest_workspace
    if greatest is not None:
        lines.append(f"#define {upper}_WORKSPACE_BYTES {greatest} /* a workspace that always suffices */")
    return "".join(f"{line}\n" for line in lines)


def _codes(library: Library) -> str:
    upper = library.prefix.upper()
    lines = []
    for code, text in error_texts(library).items():
        name = CODES[code] if code < len(CODES) else f"CHECK_{code}"
        lines.append(f"    {upper}_{name} = {code}, /* {text.replace('*/', '* /')} */")
    return "\n".join(["/* What functions return. */", "enum {", *lines, "};", ""])


def _threads(library: Library) -> str:
    p = library.prefix
    text = _comment(
        "How to share the work of a function among threads of your own.",
        "`run` calls task(job, begin, end) for ranges that together are [0, count), on any threads at once, and "
        "returns when all are done; `work` is about how many nanoseconds they take on one. Results do not depend on "
        "how it divides them. NULL for the whole: one thread.",
    )
    return "\n".join(
        [
            text,
            f"typedef void (*{p}_task)(void *job, size_t begin, size_t end);",
            "typedef struct {",
            f"    void (*run)(void *pool, {p}_task task, void *job, size_t count, size_t work);",
            "    void *pool; /* handed to run */",
            f"}} {p}_threads;",
            "",
        ]
    )


def _unless(library: Library) -> str:
    return f"; {library.prefix}_pool_create alone does" if library.pool else ""


def _pool(library: Library) -> str:
    p = library.prefix
    text = _comment(
        "Threads of the system's (link with -pthread), for callers who have none of their own.",
        "",
        f"create makes a pool of `count` threads, at most {pool.MOST}, the caller of a function among them, in memory "
        f"of {p}_pool_bytes(count) bytes, and fills in `threads`, which functions are then given. Several calls at "
        "once may be given the same pool: one has it, the others run alone.",
        "destroy ends its threads; no function may be running with it.",
    )
    lines = [
        f"size_t {p}_pool_bytes(size_t count);",
        f"int {p}_pool_create({p}_threads *threads, size_t count, void *memory, size_t bytes);",
        f"int {p}_pool_destroy({p}_threads *threads);",
    ]
    return "\n".join([text, *lines, ""])


def _workspace(library: Library) -> str:
    sizes = ", ".join(f"size_t {s}" for s in library.size_names.values()) or "void"
    text = _comment(
        "Bytes of memory that a call needs while it runs; they may begin at any address."
        + (" 0 for a size that is too large." if library.sizes else "")
    )
    return f"{text}\nsize_t {library.prefix}_workspace_bytes({sizes});\n"


def _weights(library: Library) -> str:
    p = library.prefix
    return (
        _comment(
            f"The weights are the contents of {p}.weights, in memory that begins at a multiple of 8 (better 64) bytes. "
            "This checks them; the other functions look only whether they are of this model."
        )
        + f"\n#define {p.upper()}_WEIGHTS_BYTES {len(library.weights_file)}\nsize_t {p}_weights_bytes(void);"
        f"\nint {p}_check_weights(const void *weights, size_t bytes);\n"
    )


def _state(library: Library) -> str:
    p = library.prefix
    weights = "" if library.embed else "const void *weights, "
    size = HEAD + library.state_bytes
    text = _comment(
        "What the functions change is in a state: memory of the caller's that begins at a multiple of 8 (better 64) "
        "bytes.",
        "",
        "init gives it the values that it had when this library was made.",
        *(["reset_metrics starts the metrics afresh, as at the beginning of an epoch."] if library.reset else []),
        "save copies it to where load can have it from, later or elsewhere: on any machine, by a library made of the "
        "same model. load changes nothing if the data is damaged or of another model.",
    )
    lines = [
        f"#define {p.upper()}_STATE_BYTES {size}",
        f"size_t {p}_state_bytes(void);",
        f"int {p}_init({weights}void *state);",
        *([f"int {p}_reset_metrics({weights}void *state);"] if library.reset else []),
        f"int {p}_save(const void *state, void *data, size_t bytes); /* {p.upper()}_STATE_BYTES of them */",
        f"int {p}_load(void *state, const void *data, size_t bytes);",
    ]
    return "\n".join([text, *lines, ""])


def _routine(library: Library, routine: Routine) -> str:
    lines = [routine.what, ""]
    width = max((len(a.name) for a in (*routine.inputs, *routine.outputs)), default=0)
    for a in routine.inputs:
        lines.append(f"  {a.name:{width}}  {_described(library, a)}")
    for a in routine.outputs:
        null = "" if a.shape else ", or NULL"
        lines.append(f"  {a.name:{width}}  {_described(library, a)}, filled{null}")
    lines.append("")
    lines.append(f"Returns {library.prefix.upper()}_OK, or another code; then nothing was done.")
    parameters = []
    if not library.embed:
        parameters.append("const void *weights")
    if library.stateful:
        parameters.append("void *state" if routine.changes else "const void *state")
    parameters += [f"const {a.c_type} *{a.name}" for a in routine.inputs]
    parameters += [f"{a.c_type} *{a.name}" for a in routine.outputs]
    parameters += [f"size_t {library.size_names[s]}" for s in routine.asked]
    parameters += ["void *workspace", "size_t workspace_bytes"]
    if library.threads:
        parameters.append(f"const {library.prefix}_threads *threads")
    return f"{_comment(*lines)}\n{_wrapped(f'int {library.prefix}_{routine.name}', parameters)}\n"


def _wrapped(head: str, parameters: Sequence[str]) -> str:
    one = f"{head}({', '.join(parameters)});"
    if len(one) <= 120:
        return one
    return f"{head}(\n" + ",\n".join(f"    {p}" for p in parameters) + ");"


def _described(library: Library, a: Argument) -> str:
    dims = "".join(f"[{_dim(library, d)}]" for d in a.shape)
    label = f" ({a.label})" if a.label and a.label != a.name else ""
    return f"{a.c_type}{dims}{BITS.get(a.dtype, '')}{label}"


def _dim(library: Library, d: Dim) -> str:
    """A size in the names of C."""
    text = str(d)
    for size in symbols(d):
        text = text.replace(size, library.size_names[size])
    return text
