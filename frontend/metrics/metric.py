"""The base of metrics: state that `update_state` adds to and `result` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.config import floatx
from gnomon.eager import at_once
from gnomon.losses.loss import compute_dtype
from gnomon.naming import auto_name
from gnomon.variable import Variable, is_tracing


class Metric:
    """Base of metrics. A subclass defines `update_state(...)`, which assigns its variables, and `result()`.

    Called on arrays, `update_state` changes the variables and `result` gives an array (or a dictionary of them); in a
    traced program the changes become its updates and the result a Tensor.
    """

    _direction: str | None = None  # 'up' if larger is better, 'down' if smaller is, None if it depends

    def __init__(self, dtype: Any = None, name: str | None = None):
        self.name = name or auto_name(type(self).__name__)
        self._dtype = compute_dtype(dtype)
        self._variables: list[Variable] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every `result` give numbers outside traced programs, however it is written."""
        super().__init_subclass__(**kwargs)
        if "result" in vars(cls):
            cls.result = at_once(cls.result)  # type: ignore[method-assign]  # the same signature

    @property
    def dtype(self) -> str:
        return self._dtype

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """A number or array of the metric's state."""
        if not hasattr(self, "_variables"):
            raise ArgumentError(f"{type(self).__name__}.__init__ must call super().__init__() before it adds variables")
        made = Variable(
            initializers.get(initializer or "zeros"),
            tuple(shape),
            dtype or floatx(),
            trainable=False,
            name=name or "variable",
            aggregation=aggregation,
        )
        made.path = f"{self.name.replace('/', '>')}/{made.name}"
        self._variables.append(made)
        return made

    def add_weight(
        self, shape: Sequence[int] = (), initializer: Any = None, dtype: Any = None, name: str | None = None
    ) -> Variable:
        """As `add_variable`; a number if no shape is given."""
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """The metric's own, then those of metrics that are its attributes."""
        attributes = list(vars(self).values())
        own = {id(v): v for v in [*self._variables, *(v for v in attributes if isinstance(v, Variable))]}
        return [*own.values(), *(v for m in attributes if isinstance(m, Metric) for v in m.variables)]

    def reset_state(self) -> None:
        """Set all variables to 0."""
        for v in self.variables:
            if is_tracing():
                v.assign(ops.zeros_like(v))
            else:
                v.buffer.clear()

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define update_state(...)")

    def result(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define result()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"
