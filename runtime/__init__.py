"""What runs programs. `load` runs a compiled model's file, with NumPy alone."""

from __future__ import annotations

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module 'gnomon.runtime' has no attribute {name!r}")
    from gnomon.runtime.compiled import load

    globals()[name] = load
    return load
