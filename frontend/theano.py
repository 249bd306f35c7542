"""Theano's names for symbolic inputs: `x = gnomon.matrix("x")`, `n = gnomon.lscalar("n")`.

Kinds: scalar, vector, matrix, row (1 by n), col (n by 1), tensor3, tensor4, tensor5. A first letter gives the dtype:
b int8, w int16, i int32, l int64, f float32, d float64; without one it is `config.floatx()`. Every open axis has a size
of its own, `<name>_<axis>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gnomon.compiler import dtypes
from gnomon.config import floatx
from gnomon.naming import uniquify
from gnomon.tensor import Tensor, as_dims, new_input

LETTERS = {"b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32", "d": "float64"}
KINDS: dict[str, tuple[int | None, ...]] = {
    "scalar": (),
    "vector": (None,),
    "matrix": (None, None),
    "row": (1, None),
    "col": (None, 1),
    "tensor3": (None,) * 3,
    "tensor4": (None,) * 4,
    "tensor5": (None,) * 5,
}
PLURALS = {"scalars": "scalar", "vectors": "vector", "matrices": "matrix", "rows": "row", "cols": "col"}


class tensor_type:
    """A dtype and a shape (None for open axes, or names of sizes), from which inputs are made by calling it.

    tensor_type("float32", (None, 784))("x") is an input float32[x_0, 784].
    """

    def __init__(self, dtype: Any = None, shape: Sequence[Any] = ()):
        self.dtype, self.shape = None if dtype is None else dtypes.canonical(dtype), tuple(shape)

    def __call__(self, name: str | None = None, dtype: Any = None) -> Tensor:
        label = name or uniquify("input")
        chosen = dtypes.canonical(dtype or self.dtype or floatx())
        return Tensor(new_input(label, chosen, as_dims(self.shape, label)), label)

    def __repr__(self) -> str:
        return f"tensor_type({self.dtype or 'floatx'}, {self.shape})"


def _several(kind: tensor_type) -> Callable[..., list[Tensor]]:
    """`vectors("x", "y")`, `vectors(2)`."""

    def make(*names: str | int, dtype: Any = None) -> list[Tensor]:
        if len(names) == 1 and isinstance(names[0], int):
            return [kind(None, dtype) for _ in range(names[0])]
        return [kind(str(n), dtype) for n in names]

    return make


NAMES: dict[str, Any] = {
    letter + kind: tensor_type(dtype, shape)
    for letter, dtype in [("", None), *LETTERS.items()]
    for kind, shape in KINDS.items()
}

NAMES |= {plural: _several(NAMES[kind]) for plural, kind in PLURALS.items()}


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return NAMES[name]
    raise AttributeError(f"module 'gnomon.theano' has no attribute {name!r}")
