"""What a layer demands of its inputs, checked when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.utils import tree


class InputSpec:
    """Dtype, rank and sizes of one input.

    shape, ndim, max_ndim, min_ndim   the whole shape (None: any size), or bounds on its length
    axes    {axis: size} for single axes; a size of None allows any
    allow_last_axis_squeeze   a last axis of 1 may be missing or be there in addition
    name    the key of this input where inputs are given as a dictionary
    optional   whether None may be passed
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Sequence[int | None] | None = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ):
        self.dtype = None if dtype is None else dtypes.canonical(dtype)
        self.shape = None if shape is None else tuple(shape)
        self.ndim = ndim if shape is None else len(self.shape or ())
        self.max_ndim, self.min_ndim, self.name, self.optional = max_ndim, min_ndim, name, optional
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        try:
            self.axes = {int(k): v for k, v in (axes or {}).items()}
        except (AttributeError, TypeError, ValueError):
            raise ArgumentError(f"InputSpec(axes=...) is a dictionary from axes to sizes, got {axes!r}") from None

    def get_config(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": self.shape, "ndim": self.ndim, "max_ndim": self.max_ndim,
                "min_ndim": self.min_ndim, "axes": self.axes}  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputSpec:
        return cls(**config)

    def __repr__(self) -> str:
        known = [(k, getattr(self, k)) for k in ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes")]
        return f"InputSpec({', '.join(f'{k}={v}' for k, v in known if v)})"


def check_inputs(specs: Any, inputs: Any, layer: str) -> None:
    """Raises ShapeError, DTypeError or ArgumentError in Keras's words if `inputs` are not what `specs` ask for."""
    specs = tree.flatten(specs)
    if isinstance(inputs, dict) and all(s is not None and s.name is not None for s in specs):
        missing = [s.name for s in specs if s.name not in inputs]
        if missing:
            raise ArgumentError(
                f'Missing data for input "{missing[0]}" of layer "{layer}". You passed a data dictionary with keys '
                f"{list(inputs)}. Expected the following keys: {[s.name for s in specs]}"
            )
        inputs = [inputs[s.name] for s in specs]
    inputs = tree.flatten(inputs)
    if len(inputs) != len(specs):
        shapes = [getattr(x, "shape", x) for x in inputs]
        raise ArgumentError(
            f'Layer "{layer}" expects {len(specs)} input(s), but it received {len(inputs)} input tensors. '
            f"Shapes received: {shapes}"
        )
    for k, (x, spec) in enumerate(zip(inputs, specs, strict=True)):
        if spec is None or (x is None and spec.optional):
            continue
        if not hasattr(x, "shape"):
            raise ArgumentError(
                f'Inputs to a layer should be tensors. Got {x!r} (of type {type(x)}) as input for layer "{layer}".'
            )
        _check_one(
            spec,
            x,
            f'Input {k}{f" ({spec.name})" if spec.name else ""} of layer "{layer}" is incompatible with the layer: ',
        )


def _check_one(spec: InputSpec, x: Any, what: str) -> None:
    shape = tuple(x.shape)
    rank = len(shape)
    full = f"Full shape received: {shape}"
    if spec.ndim is not None and not spec.allow_last_axis_squeeze and rank != spec.ndim:
        raise ShapeError(f"{what}expected ndim={spec.ndim}, found ndim={rank}. {full}")
    if spec.max_ndim is not None and rank > spec.max_ndim:
        raise ShapeError(f"{what}expected max_ndim={spec.max_ndim}, found ndim={rank}. {full}")
    if spec.min_ndim is not None and rank < spec.min_ndim:
        raise ShapeError(f"{what}expected min_ndim={spec.min_ndim}, found ndim={rank}. {full}")
    if spec.dtype is not None and dtypes.canonical(x.dtype) != spec.dtype:
        raise DTypeError(f"{what}expected dtype={spec.dtype}, found dtype={x.dtype}. {full}")
    for axis, size in spec.axes.items():
        if size is not None and (not -rank <= axis < rank or shape[axis] not in (size, None)):
            raise ShapeError(
                f"{what}expected axis {axis} of input shape to have value {size}, but received input with shape {shape}"
            )
    if spec.shape is not None:
        wanted, found = spec.shape, shape
        if spec.allow_last_axis_squeeze:
            wanted = wanted[:-1] if wanted and wanted[-1] == 1 else wanted
            found = found[:-1] if found and found[-1] == 1 else found
        if not _fits(wanted, found):
            raise ShapeError(f"{what}expected shape={spec.shape}, found shape={shape}{_batch_hint(spec.shape, shape)}")


def _fits(wanted: Sequence[int | None], found: Sequence[int | None]) -> bool:
    return len(wanted) == len(found) and all(
        a is None or b is None or a == b for a, b in zip(wanted, found, strict=True)
    )


def _batch_hint(wanted: Sequence[int | None], found: Sequence[int | None]) -> str:
    """What to say where the axis of samples is missing in the data, or in the Input besides the one it always has."""
    hints = []
    if len(found) == len(wanted) - 1:
        if _fits(wanted[1:], found):
            hints.append("The first axis is that of samples: a single sample x is passed as x[None].")
        if len(wanted) > 2 and _fits(wanted[2:], found[1:]):
            hints.append(f"Input(shape={tuple(found[1:])}) is without the number of samples.")
    return ". " + " ".join(hints) if hints else ""
