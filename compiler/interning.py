"""Interning: constructing twice with equal fields gives one object, so that equal is identical.

Keys hold only strings, integers, sizes, ops and other interned objects. Python's equality is too kind for numbers
(1 == 1.0 == True, 0.0 == -0.0, nan != nan): a class with number fields overrides `key` and keys them by bit pattern.
"""

from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

_lock = RLock()  # reentrant: what is freed while it is held may build nodes of its own


class Interned(type):
    """Metaclass: `C(*fields)` returns the one living instance with those fields. Fields are positional."""

    _living: "WeakValueDictionary[tuple, Any]"

    def __init__(cls, name, bases, namespace):
        super().__init__(name, bases, namespace)
        cls._living = WeakValueDictionary()

    def __call__(cls, *fields):
        key = cls.key(*fields)
        found = cls._living.get(key)
        if found is None:
            made = super().__call__(*fields)
            with _lock:  # WeakValueDictionary.setdefault looks and stores in two steps
                found = cls._living.setdefault(key, made)
        return found

    def key(cls, *fields) -> tuple:
        return fields
