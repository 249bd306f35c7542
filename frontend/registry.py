"""How objects are found by name, made from their configuration, and written as one.

A `Registry` serves one kind of object (losses, optimizers ...): `get` takes a name, a configuration, a class or the
object itself. `serialize_object` and `deserialize_object` read and write the dictionaries of Keras 3's files:

    {"module": "keras.losses", "class_name": "Huber", "config": {...}, "registered_name": None}
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, nearest
from gnomon.runtime.buffer import shown
from gnomon.tensor import Tensor

PLAIN = (str, int, float, bool)
FUNCTION_MODULES = "activations losses metrics initializers regularizers constraints optimizers".split()

_registered: dict[str, Any] = {}
_registered_names: dict[Any, str] = {}
_scope: ContextVar[Mapping[str, Any] | None] = ContextVar("custom_objects", default=None)
_written: ContextVar[dict[int, tuple[Any, dict]] | None] = ContextVar("written", default=None)
_read: ContextVar[dict[int, Any] | None] = ContextVar("read", default=None)


# ---- custom objects


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[Any], Any]:
    """Decorator that makes a class or function known to files as `package>name`."""

    def decorate(target: Any) -> Any:
        if inspect.isclass(target) and not hasattr(target, "get_config"):
            raise ArgumentError(f"{target.__name__} cannot be registered: it needs a get_config() method")
        full = f"{package}>{name or target.__name__}"
        _registered[full] = target
        _registered_names[target] = full
        return target

    return decorate


def get_custom_objects() -> dict[str, Any]:
    """The table of what was registered; entries may be added by hand."""
    return _registered


def get_registered_name(target: Any) -> str:
    return _registered_names.get(target, target.__name__)


def get_registered_object(name: str | None, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """What `name` means: in the custom object scope, among what was registered, in `custom_objects`; else None."""
    for table in (_scope.get(), _registered, custom_objects):
        if table and name is not None and name in table:
            return table[name]
    return None


class custom_object_scope:
    """Context in which the names of a dictionary are known: `with custom_object_scope({"mine": Mine}): ...`."""

    def __init__(self, custom_objects: Mapping[str, Any] | None):
        self.custom_objects = dict(custom_objects or {})

    def __enter__(self):
        self._token = _scope.set({**(_scope.get() or {}), **self.custom_objects})
        return self

    def __exit__(self, *exception):
        _scope.reset(self._token)


@contextmanager
def sharing_objects() -> Iterator[None]:
    """Inside, an object that occurs twice is written with a `shared_object_id` and read as one object."""
    written, read = _written.set({}), _read.set({})
    try:
        yield
    finally:
        _written.reset(written)
        _read.reset(read)


# ---- one kind of object


class Registry:
    """The objects of one kind, by name.

    kind       what error messages call them: 'loss'
    objects    classes and functions, known by their `__name__`
    names      further names
    default    what `get(None)` returns
    ignore_case   whether 'Adam' finds 'adam'
    """

    def __init__(
        self,
        kind: str,
        objects: Iterable[Any],
        names: Mapping[str, Any] | None = None,
        default: Any = None,
        ignore_case: bool = False,
    ):
        self.kind, self.default, self.ignore_case = kind, default, ignore_case
        self.objects = {o.__name__: o for o in objects} | dict(names or {})
        self._lowered = {name.lower(): o for name, o in self.objects.items()} if ignore_case else {}

    def find(self, name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The class or function called `name`. Raises ArgumentError with near names if there is none."""
        found = get_registered_object(name, custom_objects) or self.objects.get(name) or self._lowered.get(name.lower())
        if found is None:
            known = [n for n in self.objects if not n.startswith("_")]
            raise ArgumentError(f"Unknown {self.kind} {name!r}.{nearest(name, known)}")
        return found

    def get(self, identifier: Any) -> Any:
        """The object that `identifier` (a name, a configuration, a class, an object, None) stands for.

        Raises ArgumentError if it is unknown or cannot be one.
        """
        if identifier is None:
            return self.default
        if isinstance(identifier, str):
            identifier = self.find(identifier)
        elif isinstance(identifier, dict):
            identifier = self.deserialize(identifier)
        if inspect.isclass(identifier):
            identifier = identifier()
        if not callable(identifier) and not hasattr(identifier, "get_config"):
            raise ArgumentError(
                f"cannot take {identifier!r:.80} as {self.kind}: give a name, a configuration, a class, an object or a "
                "function"
            )
        return identifier

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The object of a configuration that `serialize` made, or of a mere name."""
        if isinstance(config, str):
            return self.find(config, custom_objects)
        if not isinstance(config, dict) or "class_name" not in config:
            raise ArgumentError(
                f"the configuration of a {self.kind} is a dictionary with 'class_name' and 'config', got {config!r:.80}"
            )
        name = config["class_name"]
        if name == "function":
            return self.find(str(config.get("config")), custom_objects)
        found = get_registered_object(config.get("registered_name"), custom_objects)
        found = (
            found
            or get_registered_object(name, custom_objects)
            or self.objects.get(name)
            or self._lowered.get(name.lower())
        )
        found = found or _published(config.get("module") or "", name)
        if found is None:
            raise ArgumentError(
                f"Unknown {self.kind} {name!r}.{nearest(name, self.objects)} A class of your own is registered with "
                "register_keras_serializable, or named in a custom_object_scope."
            )
        return _build(found, {"config": {}, **config}, custom_objects, safe_mode=True)


# ---- writing


def serialize_object(value: Any) -> Any:
    """`value` as Keras writes it: plain values, nested, with a dictionary for each object.

    Raises ArgumentError for what has no `get_config`, and for a lambda, which has no name to be found by again.
    """
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        parts = [serialize_object(v) for v in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, dict):
        return {k: serialize_object(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return {"class_name": "__bytes__", "config": {"value": value.decode("utf-8")}}
    if isinstance(value, slice):
        bounds = {k: serialize_object(getattr(value, k)) for k in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": bounds}
    if value is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.ndarray) and value.ndim:
        return {"class_name": "__numpy__", "config": {"value": value.tolist(), "dtype": dtypes.canonical(value.dtype)}}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.item()
    if isinstance(value, Tensor) and not hasattr(value, "get_config"):
        return _serialize_tensor(value)
    if isinstance(value, types.FunctionType):
        if value.__name__ == "<lambda>":
            raise ArgumentError("a lambda cannot be written to a configuration: give the function a name with def")
        return {
            "module": "builtins",
            "class_name": "function",
            "config": get_registered_name(value),
            "registered_name": "function",
        }
    if inspect.isclass(value) or not hasattr(value, "get_config"):
        raise ArgumentError(
            f"cannot write {value!r:.80} to a configuration: {type(value).__name__} has no get_config() method"
        )
    return _serialize_instance(value)


def _serialize_tensor(value: Tensor) -> dict[str, Any]:
    """A symbolic result of a layer by what made it, another tensor by its value."""
    if value.history is not None:
        layer, *place = value.history
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": list(value.shape), "dtype": value.dtype, "keras_history": [layer.name, *place]},
        }
    return {"class_name": "__tensor__", "config": {"value": value.numpy().tolist(), "dtype": value.dtype}}


def _serialize_instance(value: Any) -> dict[str, Any]:
    cls = type(value)
    inner = value.get_config()
    if not isinstance(inner, dict):
        raise ArgumentError(
            f"get_config() of {value!r:.80} must return a dictionary, it returned {type(inner).__name__}"
        )
    module = public_module(cls)
    registered = None if module and cls not in _registered_names else get_registered_name(cls)
    registered = vars(cls).get("keras_registered_name", registered)  # what Keras writes for a class it does not publish
    config: dict[str, Any] = {
        "module": module or (None if cls.__module__ == "__main__" else cls.__module__),
        "class_name": vars(cls).get("keras_class_name", cls.__name__),  # Keras may publish it by another name
        "config": serialize_object(inner),
        "registered_name": registered,
    }
    for part in ("build_config", "compile_config"):
        found = getattr(value, f"get_{part}", lambda: None)()
        if found is not None:
            config[part] = serialize_object(found)
    written = _written.get()
    if written is not None:
        _, first = written.setdefault(id(value), (value, config))  # holding the object keeps its id its own
        if first is not config:
            shared = sum("shared_object_id" in c for _, c in written.values()) + 1
            config["shared_object_id"] = first.setdefault("shared_object_id", shared)
    return config


def public_module(cls: type) -> str | None:
    """The module under which Keras publishes a class of gnomon; None for classes of others.

    A class may say it itself (`keras_module = "keras"`).
    """
    said = vars(cls).get("keras_module")
    if said is not None:
        return said
    top, *rest = cls.__module__.split(".")
    if top != "gnomon" or not rest:
        return None
    return "keras.optimizers.schedules" if rest[:2] == ["optimizers", "schedules"] else f"keras.{rest[0]}"


# ---- reading

READERS: dict[str, Callable[[Any], Any]] = {
    "__bytes__": lambda c: c["value"].encode("utf-8"),
    "__ellipsis__": lambda c: Ellipsis,
    "__slice__": lambda c: slice(*(deserialize_object(c[k]) for k in ("start", "stop", "step"))),
    "__numpy__": lambda c: _array_of(**c),
    "__tensor__": lambda c: _array_of(**c),
}
"""What the special class names of configurations make; models add theirs (`__keras_tensor__`)."""


def _array_of(value: Any, dtype: str) -> np.ndarray:
    return shown(dtype, dtypes.rounded(dtype, np.array(value))) if dtype == "bfloat16" else np.array(value, dtype=dtype)


def deserialize_object(config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Any:
    """What `serialize_object` wrote, made again. `custom_objects` are known besides the registered ones.

    Raises ArgumentError for a class or function that is not known, and for Python code in the configuration.
    """
    if config is None or isinstance(config, PLAIN):
        return get_registered_object(config, custom_objects) or config if isinstance(config, str) else config
    if isinstance(config, (list, tuple)):
        return [deserialize_object(c, custom_objects, safe_mode) for c in config]
    if not isinstance(config, dict):
        raise ArgumentError(f"cannot read a configuration from {type(config).__name__}: {config!r:.80}")
    if "class_name" not in config or "config" not in config:
        return {k: deserialize_object(v, custom_objects, safe_mode) for k, v in config.items()}
    name = config["class_name"]
    if name in READERS:
        return READERS[name](config["config"])
    if name == "__lambda__":
        raise ArgumentError(
            "the configuration holds a Python lambda, which may do anything when it is called: it is not read. Write "
            "the function with def, register it with register_keras_serializable, and save the model again"
        )
    read = _read.get()
    shared = config.get("shared_object_id")
    if read is not None and shared in read:
        return read[shared]
    found = _locate(config, custom_objects)
    if name == "function":
        return found
    made = _build(found, config, custom_objects, safe_mode)
    if read is not None and shared is not None:
        read[shared] = made
    return made


def _build(cls: Any, config: dict[str, Any], custom_objects: Mapping[str, Any] | None, safe_mode: bool) -> Any:
    if not hasattr(cls, "from_config"):
        raise ArgumentError(f"{cls!r} has no from_config method, by which it could be made again")
    with custom_object_scope(custom_objects):
        made = cls.from_config(dict(config["config"] or {}))
        if config.get("build_config"):
            made.build_from_config(deserialize_object(config["build_config"], custom_objects, safe_mode))
        if config.get("compile_config") and hasattr(made, "compile_from_config"):
            made.compile_from_config(config["compile_config"])
    return made


def _locate(config: dict[str, Any], custom_objects: Mapping[str, Any] | None) -> Any:
    """The class or function that a configuration names."""
    name, module = config["class_name"], config.get("module") or ""
    if name == "function":
        name = str(config["config"])
        candidates: list[str | None] = [name]
    else:
        candidates = [config.get("registered_name"), name]
    for candidate in candidates:
        found = get_registered_object(candidate, custom_objects)
        if found is not None:
            return found
    if config["class_name"] == "function":
        modules = FUNCTION_MODULES if module == "builtins" else [module.removeprefix("keras.")]
        for found in (
            getattr(importlib.import_module(f"gnomon.{m}"), name, None) for m in modules if m in FUNCTION_MODULES
        ):
            if isinstance(found, types.FunctionType):
                return found
    found = _published(module, name)
    if found is not None:
        return found
    sort = "function" if config["class_name"] == "function" else "class"
    raise ArgumentError(
        f"cannot find the {sort} {name!r} (module {module!r}) of "
        "the configuration. Register it with register_keras_serializable before reading, or pass it in custom_objects"
    )


def _published(module: str, name: str) -> Any:
    """A class of gnomon by Keras's module and name, or one of a module that is already imported."""
    top, *rest = module.split(".")
    if top in ("keras", "gnomon"):
        path = [part for part in rest if part != "src"]
        while True:
            try:
                found = getattr(importlib.import_module(".".join(["gnomon", *path])), name, None)
            except ModuleNotFoundError:
                found = None
            if found is not None or not path:
                return found if inspect.isclass(found) else None
            path.pop()
    found = getattr(sys.modules.get(module), name, None)  # nothing is imported because a file says so
    return found if inspect.isclass(found) and hasattr(found, "from_config") else None
