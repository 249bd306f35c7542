"""The house rules of the design: who may import whom, what `import gnomon` costs, what goes into the wheel.

Sources are read with `ast`; a broken rule is told as file:line.
"""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"frontend": "gnomon", "compiler": "gnomon.compiler", "runtime": "gnomon.runtime"}

# A module imports from its own line and the lines above it.
COMPILER_ORDER = (
    ("errors", "dtypes", "interning", "sizes", "targets"),
    ("graph", "kernel", "program"),
    ("ops",),
    ("show", "grad", "interpret", "resize", "vectorize", "verify", "digest"),
    ("passes",),
    ("lowering",),
    ("render",),
    ("lower", "request"),
    ("compile", "aot"),
)
LEVEL = {name: level for level, names in enumerate(COMPILER_ORDER) for name in names}

# What the runtime knows of the compiler: the data that it is handed.
RUNTIME_MAY = {"program", "dtypes", "sizes", "errors", "targets"}

# Modules that only a few files may import, for the sake of start-up time, purity and machines without them.
ONLY_IN = {
    "llvmlite": ("compiler/aot/objects.py", "runtime/codegen.py", "runtime/cpu.py"),
    "cupy": ("runtime/cuda.py",),
    "ml_dtypes": ("runtime/buffer.py",),
}
COMPILER_MAY = {"numpy", "networkx", "llvmlite", "gnomon"}


class Import(NamedTuple):
    file: str
    line: int
    module: str  # the module imported; for `from a import b` where b is a module of ours, a.b
    nested: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: imports {self.module}"


def files(*folders: str) -> list[Path]:
    return sorted(f for folder in folders for f in (ROOT / folder).rglob("*.py") if "__pycache__" not in f.parts)


def module_name(path: Path) -> str:
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS.get(folder, folder), *(p for p in rest if p != "__init__")])


MODULES = {module_name(f) for f in files(*FOLDERS)}


def imports(path: Path) -> Iterator[Import]:
    name = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"), name)
    nested = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found = [alias.name for alias in node.names]
            case ast.ImportFrom():
                base = "." * node.level + (node.module or "")
                found = [full if (full := f"{base}.{a.name}") in MODULES else base for a in node.names]
            case _:
                continue
        for module in found:
            yield Import(name, node.lineno, module, id(node) in nested)


ALL = [i for f in files(*FOLDERS) for i in imports(f)]


def own_part(file: str) -> str:
    """The name in COMPILER_ORDER that a file of the compiler belongs to: 'ops' for compiler/ops/reduce.py."""
    return Path(file).with_suffix("").parts[1]


def assert_none(broken: list, rule: str) -> None:
    assert not broken, "\n".join([rule, *map(str, broken)])


def test_every_module_of_the_compiler_has_a_place():
    known = set(LEVEL) | {"__init__"}
    unplaced = {own_part(f.relative_to(ROOT).as_posix()) for f in files("compiler")} - known
    assert not unplaced, f"add to COMPILER_ORDER (design.md, section 2): {sorted(unplaced)}"


def test_the_compiler_imports_upwards():
    broken = []
    for i in ALL:
        if i.file.startswith("compiler/") and i.module.startswith("gnomon.compiler."):
            target = i.module.split(".")[2]
            if LEVEL.get(target, 99) > LEVEL.get(own_part(i.file), 0):
                broken.append(i)
    assert_none(broken, "Inside the compiler, imports go up the list of COMPILER_ORDER only.")


def test_the_compiler_imports_nothing_outside_itself():
    broken = [
        i
        for i in ALL
        if i.file.startswith("compiler/")
        and (
            (i.module == "gnomon" or i.module.startswith("gnomon."))
            and not (i.module + ".").startswith("gnomon.compiler.")
            or i.module.partition(".")[0] not in COMPILER_MAY | sys.stdlib_module_names
        )
    ]
    assert_none(broken, "The compiler imports itself, the standard library and NumPy.")


def test_the_runtime_knows_programs_only():
    broken = [
        i
        for i in ALL
        if i.file.startswith("runtime/")
        and (i.module == "gnomon" or i.module.startswith("gnomon."))
        and not (i.module + ".").startswith("gnomon.runtime.")
        and i.module not in {f"gnomon.compiler.{name}" for name in RUNTIME_MAY}
    ]
    assert_none(broken, f"Of the rest of gnomon the runtime imports only gnomon.compiler's {sorted(RUNTIME_MAY)}.")


def test_imports_are_absolute():
    assert_none([i for i in ALL if i.module.startswith(".")], "Imports are absolute: from gnomon.compiler import ...")


def test_no_bare_folder_names():
    everywhere = [i for f in files(*FOLDERS, "tests", "examples", "benchmarks") for i in imports(f)]
    broken = [i for i in everywhere if i.module.partition(".")[0] in FOLDERS]
    assert_none(broken, "A bare folder name makes a second copy of every registry: write gnomon, gnomon.compiler, ...")


@pytest.mark.parametrize("module", ONLY_IN)
def test_few_files_import(module):
    allowed = ONLY_IN[module]
    broken = [i for i in ALL if i.module.partition(".")[0] == module and i.file not in allowed]
    assert_none(broken, f"Only {', '.join(allowed)} may import {module}.")


def test_cupy_is_imported_when_needed():
    assert_none([i for i in ALL if i.module.partition(".")[0] == "cupy" and not i.nested], "Import cupy in functions.")


# ---- packaging


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_wheel_holds_every_package():
    found = {module_name(f) for f in files(*FOLDERS) if f.name == "__init__.py"}
    listed = project()["packages"]
    assert sorted(found) == sorted(listed), "packages in pyproject.toml, and folders with an __init__.py"
    homeless = {str(f.parent.relative_to(ROOT)) for f in files(*FOLDERS) if not (f.parent / "__init__.py").exists()}
    assert not homeless, f"these folders have modules and no __init__.py: {sorted(homeless)}"


def test_the_wheel_holds_every_data_file():
    wanted = project().get("package-data", {})
    missing = []
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            hidden = any(part.startswith(".") for part in file.relative_to(ROOT).parts)  # what tools leave: .mypy_cache
            if file.is_dir() or file.suffix in (".py", ".pyc") or hidden:
                continue
            home = next(d for d in file.parents if (d / "__init__.py").exists())
            owner = ".".join([package, *home.relative_to(ROOT / folder).parts])
            if not any(fnmatch(file.relative_to(home).as_posix(), pattern) for pattern in wanted.get(owner, ())):
                missing.append(f"{file.relative_to(ROOT)} (package {owner})")
    assert_none(missing, "Not in package-data of pyproject.toml:")


# ---- what `import gnomon` does


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules of a fresh interpreter, started in the repository's root, after `import gnomon`."""
    code = "import gnomon, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_there_is_one_copy_of_each_registry(loaded):
    assert not loaded & set(FOLDERS)
    assert not set(sys.modules) & set(FOLDERS), "a test has imported a folder under its bare name"


LATER = ["llvmlite", "h5py", "networkx", "rich", "scipy", "cupy", "click", "platformdirs", "ml_dtypes"]


@pytest.mark.parametrize("module", LATER)
def test_import_gnomon_leaves_for_later(module, loaded):
    assert module not in loaded
