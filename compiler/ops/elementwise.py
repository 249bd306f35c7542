"""Scalar functions applied to every element; casts; the gradient's stop sign."""

from __future__ import annotations

from dataclasses import dataclass

from gnomon.compiler import dtypes, kernel
from gnomon.compiler.errors import DTypeError, ShapeError
from gnomon.compiler.graph import Op, TensorType
from gnomon.compiler.kernel import Apply, ScalarFn
from gnomon.compiler.ops.scalar import scalar


@dataclass(frozen=True)
class Elementwise(Op):
    """`fn` of each element. Inputs have one shape: broadcasting ended in the frontend."""

    name: str

    @property
    def fn(self) -> ScalarFn:
        return scalar(self.name)

    def infer(self, *types):
        fn = self.fn
        if len(types) != fn.arity:
            raise ShapeError(f"{self.name} takes {fn.arity} arguments, got {len(types)}")
        if any(t.shape != types[0].shape for t in types):
            raise ShapeError(f"{self.name} needs equal shapes, got {' and '.join(map(str, types))}")
        values = types[1:] if self.name == "where" else types
        if any(t.dtype != values[0].dtype for t in values):
            raise DTypeError(f"{self.name} needs equal dtypes, got {' and '.join(map(str, types))}")
        dtype = types[-1].dtype if fn.result == "same" else fn.result
        return TensorType(dtype, types[0].shape)

    def numpy(self, env, *arrays):
        return self.fn.numpy(*arrays)

    def grad(self, g, out, *inputs):
        rule = self.fn.grad
        return (None,) * len(inputs) if rule is None else rule(g, out, *inputs)

    def batch(self, size, inputs, mapped):
        from gnomon.compiler.ops import build

        return self(*(x if m else build.repeat_first(x, size) for x, m in zip(inputs, mapped, strict=True)))

    def element(self, index, out, *inputs):
        return Apply(self.fn, tuple(x(*index) for x in inputs))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Cast(Op):
    """Each element converted, as NumPy's astype; float to integer cuts towards zero and saturates, NaN gives 0."""

    dtype: str

    def infer(self, x):
        return TensorType(self.dtype, x.shape)

    def numpy(self, env, x):
        import numpy as np

        to = dtypes.named(self.dtype)
        if x.dtype.kind == "f" and to.kind in "iu":
            low, high = kernel.lowest(to), kernel.highest(to)
            with np.errstate(invalid="ignore", over="ignore"):
                wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
                cut = np.where(
                    wide >= high, high, np.where(wide <= low, low, np.clip(wide, low, None).astype(to.numpy))
                )
            return cut.astype(to.numpy) if to.bits < 64 else _saturate(wide, low, high, to.numpy)
        with np.errstate(over="ignore", invalid="ignore"):
            return x.astype(to.numpy)

    def grad(self, g, out, x):
        from gnomon.compiler.ops import build

        return (build.cast(g, x.dtype) if dtypes.is_float(x.dtype) and dtypes.is_float(self.dtype) else None,)

    def batch(self, size, inputs, mapped):
        return self(*inputs)

    def element(self, index, out, x):
        return kernel.Cast(self.dtype, x(*index))


def _saturate(wide, low, high, dtype):
    """64-bit integers of float64 numbers: the limits are not representable, so they are set apart."""
    import numpy as np

    inside = (wide > low) & (wide < high)
    cut = np.where(inside, wide, 0).astype(dtype)
    return np.where(inside, cut, np.where(wide >= high, np.array(high, dtype), np.array(low, dtype)))


@dataclass(frozen=True)
class StopGradient(Op):
    """The same value, which gradients do not pass."""

    def infer(self, x):
        return x

    def numpy(self, env, x):
        return x

    def grad(self, g, out, x):
        return (None,)

    def batch(self, size, inputs, mapped):
        return self(*inputs)

    def element(self, index, out, x):
        return x(*index)
