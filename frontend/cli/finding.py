"""`module:attribute` on the command line: the object it means."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gnomon.compiler.errors import ArgumentError, GnomonError, nearest


def is_saved(target: str) -> bool:
    """Whether `target` is the name of a file with a model or function in it."""
    return target.endswith((".keras", ".h5", ".hdf5", ".gnf"))


def find(target: str) -> Any:
    """The object that `target` names: 'package.module:attribute' or 'path/to/script.py:attribute'; with '()' behind it
    what that function returns; or the model in the file 'model.keras', the function in 'step.gnf'.

    Raises ArgumentError if there is no such module or attribute, or if the module cannot be imported.
    """
    if is_saved(target):
        from gnomon.saving import load_function, load_model

        if not Path(target).is_file():
            raise ArgumentError(f"there is no file {target}")
        return load_function(target) if target.endswith(".gnf") else load_model(target)
    place, colon, path = target.rpartition(":")
    if not colon or not place or not path:
        raise ArgumentError(f"{target!r} is not MODULE:ATTRIBUTE, such as train.py:model or package.train:model")
    calls = path.endswith("()")
    value: Any = _module(place)
    for name in path.removesuffix("()").split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            known = [n for n in vars(value) if not n.startswith("_")] if hasattr(value, "__dict__") else []
            raise ArgumentError(f"{place} has no {name!r}.{nearest(name, known)}") from None
    if calls:
        value = _guarded(f"{path} of {place}", value)
    return value


def _module(place: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not place.endswith(".py"):
        return _guarded(place, lambda: importlib.import_module(place))
    file = Path(place)
    if not file.is_file():
        raise ArgumentError(f"there is no file {place}")
    sys.path.insert(0, str(file.resolve().parent))  # as Python does for a script
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader
    _guarded(place, lambda: loader.exec_module(module))
    return module


def _guarded(what: str, make: Any) -> Any:
    """Run the user's code; whatever it raises is told in one line, with the line of his that raised it."""
    try:
        return make()
    except GnomonError:
        raise
    except (Exception, SystemExit) as error:
        at = _line(error)
        raise ArgumentError(f"{what} failed: {type(error).__name__}: {error}{at}") from error


def _line(error: BaseException) -> str:
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if not trace.tb_frame.f_globals.get("__name__", "").startswith(("gnomon", "importlib")):
            found = f" ({code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


__all__ = ["find", "is_saved"]
