"""Packages whose names are imported when they are first asked for, so that a program pays for what it uses.

The package writes its imports under `if TYPE_CHECKING:`, where type checkers and editors see them; here the same lines
tell which module has which name.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose source is `file`."""
    places: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.If):
            for line in statement.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    places.update({a.asname or a.name: (line.module, a.name) for a in line.names})

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = places[name]
        inside = module == package  # a module of the package itself
        value = importlib.import_module(f"{module}.{own}") if inside else getattr(importlib.import_module(module), own)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return __getattr__, __dir__
