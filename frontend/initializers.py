"""First values of weights: `initializer(shape, dtype)` gives an array.

The same seed gives the same values at each call. Without a seed, one is drawn from the global state when the
initializer is made (`gnomon.utils.set_random_seed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.config import floatx
from gnomon.naming import to_snake_case
from gnomon.random_state import generator, make_default_seed
from gnomon.registry import Registry, deserialize_object, serialize_object
from gnomon.runtime.buffer import shown
from gnomon.tensor import Array, Tensor


class Initializer:
    """Base of initializers: `__call__(shape, dtype=None)` returns an array, `get_config` the arguments."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(shape, dtype=None)")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        return cls(**config)

    def clone(self) -> Initializer:
        """A new initializer of the same configuration."""
        return type(self).from_config(self.get_config())


def _numpy(dtype: Any) -> np.dtype:
    return dtypes.named(dtypes.canonical(dtype or floatx())).numpy


def _array(values: Any, dtype: Any) -> np.ndarray:
    wanted = dtypes.canonical(dtype or floatx())
    return shown(wanted, dtypes.rounded(wanted, values)).view(Array)


class Constant(Initializer):
    """`value` everywhere; an array is broadcast."""

    def __init__(self, value: Any = 0.0):
        self.value = value

    def __call__(self, shape, dtype=None):
        return _array(np.full(tuple(shape), self.value, _numpy(dtype)), dtype)

    def get_config(self):
        return {"value": serialize_object(self.value)}

    @classmethod
    def from_config(cls, config):
        return cls(deserialize_object(config["value"]))


class Zeros(Initializer):
    """0 everywhere."""

    def __call__(self, shape, dtype=None):
        return _array(np.zeros(tuple(shape), _numpy(dtype)), dtype)

    __call__.gives_zeros = True  # type: ignore[attr-defined]  # so that a Variable need not ask for them


class Ones(Initializer):
    """1 everywhere."""

    def __call__(self, shape, dtype=None):
        return _array(np.ones(tuple(shape), _numpy(dtype)), dtype)


class Identity(Initializer):
    """A matrix with `gain` on the diagonal, 0 elsewhere. Raises ShapeError for other shapes than matrices."""

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        if len(shape) != 2:
            raise ShapeError(
                f"the Identity initializer makes matrices, got the shape {tuple(shape)} of rank {len(shape)}"
            )
        return _array(self.gain * np.eye(*shape), dtype)

    def get_config(self):
        return {} if self.gain == 1.0 else {"gain": self.gain}  # Keras writes none


class RandomInitializer(Initializer):
    """Base of the random ones. `seed` is an integer, None or an object with `next()` (SeedGenerator)."""

    def __init__(self, seed: Any = None):
        if isinstance(seed, dict):
            seed = deserialize_object(seed)
        if (
            seed is not None
            and not hasattr(seed, "next")
            and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)))
        ):
            raise ArgumentError(f"{type(self).__name__}: a seed is an integer, None or a SeedGenerator, got {seed!r}")
        self._given_seed = seed
        self.seed = make_default_seed() if seed is None else seed

    def get_config(self):
        return {"seed": serialize_object(self._given_seed)}

    def normal(
        self, shape: Sequence[int], mean: float, stddev: float, dtype: Any, bound: float = math.inf
    ) -> np.ndarray:
        """Normal values, those farther than `bound` standard deviations from the mean drawn again."""
        draw = generator(self.seed)
        wide = _draw_type(dtype)
        values = draw.standard_normal(tuple(shape), dtype=wide)
        while math.isfinite(bound):
            far = np.abs(values) > bound
            count = np.count_nonzero(far)
            if not count:
                break
            values[far] = draw.standard_normal(count, dtype=wide)
        return _array(values * wide.type(stddev) + wide.type(mean), dtype)

    def uniform(self, shape: Sequence[int], low: float, high: float, dtype: Any) -> np.ndarray:
        wide = _draw_type(dtype)
        values = generator(self.seed).random(tuple(shape), dtype=wide)
        return _array(values * wide.type(high - low) + wide.type(low), dtype)


def _draw_type(dtype: Any) -> np.dtype:
    """The generator draws single and double precision; anything narrower is rounded from single."""
    numpy = _numpy(dtype)
    return np.dtype(np.float32 if numpy.kind == "f" and numpy.itemsize <= 4 else np.float64)


class RandomNormal(RandomInitializer):
    """Normal values of the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None):
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return self.normal(shape, self.mean, self.stddev, dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomNormal):
    """Normal values, those more than two standard deviations from the mean drawn again."""

    def __call__(self, shape, dtype=None):
        return self.normal(shape, self.mean, self.stddev, dtype, bound=2.0)


class RandomUniform(RandomInitializer):
    """Values spread evenly from `minval` (in) to `maxval` (out)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None):
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        return self.uniform(shape, self.minval, self.maxval, dtype)

    def get_config(self):
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


def compute_fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """How many inputs feed one output and how many outputs one input feeds, for a kernel of this shape.

    The last two axes are input and output channels, those before them the window. `input_axes` and `output_axes`
    together say otherwise.
    """
    shape = tuple(int(d) for d in shape)
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[a] for a in input_axes), math.prod(shape[a] for a in output_axes)
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class VarianceScaling(RandomInitializer):
    """Values whose variance is `scale` divided by a fan.

    mode           'fan_in', 'fan_out' or 'fan_avg', their mean
    distribution   'truncated_normal' (its standard deviation corrected for what is cut off), 'untruncated_normal'
                   or 'uniform'
    """

    _STDDEV_WITHIN_TWO = 0.87962566103423978  # of a normal distribution cut off at two standard deviations

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        if not scale > 0:
            raise ArgumentError(f"{type(self).__name__}: scale must be above 0, got {scale!r}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ArgumentError(f"{type(self).__name__}: mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
        distribution = {"normal": "truncated_normal"}.get(distribution.lower(), distribution.lower())
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ArgumentError(
                f"{type(self).__name__}: distribution must be 'uniform', 'truncated_normal' or 'untruncated_normal', "
                f"got {distribution!r}"
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return self.uniform(shape, -limit, limit, dtype)
        if self.distribution == "untruncated_normal":
            return self.normal(shape, 0.0, math.sqrt(variance), dtype)
        return self.normal(shape, 0.0, math.sqrt(variance) / self._STDDEV_WITHIN_TWO, dtype, bound=2.0)

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


class _Scaling(VarianceScaling):
    """A VarianceScaling whose kind is fixed by its class."""

    _kind: tuple[float, str, str]

    def __init__(
        self, seed: Any = None, input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
    ):
        super().__init__(*self._kind, seed=seed, input_axes=input_axes, output_axes=output_axes)

    def get_config(self):
        return {**RandomInitializer.get_config(self), "input_axes": self.input_axes, "output_axes": self.output_axes}


class GlorotUniform(_Scaling):
    """Uniform within ±sqrt(6 / (fan_in + fan_out)).

    Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 16.
    """

    _kind = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaling):
    """Truncated normal of variance 2 / (fan_in + fan_out). Glorot, Bengio 2010, equation 12."""

    _kind = (1.0, "fan_avg", "truncated_normal")


class LecunNormal(_Scaling):
    """Truncated normal of variance 1 / fan_in. LeCun, Bottou, Orr, Müller 1998, "Efficient BackProp", section 4.6."""

    _kind = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaling):
    """Uniform within ±sqrt(3 / fan_in). LeCun, Bottou, Orr, Müller 1998, "Efficient BackProp", section 4.6."""

    _kind = (1.0, "fan_in", "uniform")


class HeNormal(_Scaling):
    """Truncated normal of variance 2 / fan_in.

    He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10.
    """

    _kind = (2.0, "fan_in", "truncated_normal")


class HeUniform(_Scaling):
    """Uniform within ±sqrt(6 / fan_in). He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers"."""

    _kind = (2.0, "fan_in", "uniform")


class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal rows or columns (the fewer), times `gain`; leading axes are taken as one.

    Raises ShapeError for fewer than two axes.
    Saxe, McClelland, Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear networks".
    """

    def __init__(self, gain: float = 1.0, seed: Any = None):
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ShapeError(f"the Orthogonal initializer needs at least two axes, got the shape {tuple(shape)}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = self.normal((max(rows, columns), min(rows, columns)), 0.0, 1.0, "float64")
        q, r = np.linalg.qr(np.asarray(tall))
        q *= np.sign(np.diag(r))  # makes the decomposition unique, and q evenly distributed
        return _array(self.gain * (q.T if rows < columns else q).reshape(shape), dtype)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


def hann(length: int, periodic: bool) -> np.ndarray:
    """The raised cosine window."""
    return _cosines(length, periodic, 0.5, 0.5)


def hamming(length: int, periodic: bool) -> np.ndarray:
    """The raised cosine window on a pedestal."""
    return _cosines(length, periodic, 0.54, 0.46)


def _cosines(length: int, periodic: bool, a: float, b: float) -> np.ndarray:
    if length == 1:
        return np.ones(1)
    return a - b * np.cos(2 * np.pi * np.arange(length) / (length if periodic else length - 1))


WINDOWS: dict[str, Callable[[int, bool], np.ndarray]] = {
    "hann": hann,
    "hamming": hamming,
    "boxcar": lambda length, periodic: np.ones(length),
}


class STFT(Initializer):
    """The kernel by which a convolution computes one side of a short-time Fourier transform.

    side      'real' or 'imag'
    window    'hann', 'hamming', 'boxcar', an array of the frame's length, or None
    scaling   'density' (divide by the root of the window's energy), 'spectrum' (by its sum), or None
    periodic  Keras hands this to SciPy's `fftbins`: true gives the periodic window
    The shape is (frame_length, 1, fft_length // 2 + 1).
    """

    def __init__(
        self, side: str = "real", window: Any = "hann", scaling: str | None = "density", periodic: bool = False
    ):
        if side not in ("real", "imag"):
            raise ArgumentError(f"STFT: side must be 'real' or 'imag', got {side!r}")
        if isinstance(window, str) and window not in WINDOWS:
            raise ArgumentError(f"STFT: window must be an array or one of {', '.join(WINDOWS)}, got {window!r}")
        if scaling not in (None, "density", "spectrum"):
            raise ArgumentError(f"STFT: scaling must be 'density', 'spectrum' or None, got {scaling!r}")
        self.side, self.window, self.scaling, self.periodic = side, window, scaling, periodic

    def __call__(self, shape, dtype=None):
        frame_length, _, bins = shape
        angle = -2 * np.pi * np.arange(frame_length)[:, None, None] * np.arange(bins) / (2 * (bins - 1))
        kernel = np.cos(angle) if self.side == "real" else np.sin(angle)
        if self.window is not None:
            named = isinstance(self.window, str)
            window = WINDOWS[self.window](frame_length, self.periodic) if named else np.asarray(self.window, np.float64)
            if window.shape != (frame_length,):
                raise ShapeError(
                    f"STFT: the window must have the frame's {frame_length} elements, it has the shape {window.shape}"
                )
            kernel = kernel * window[:, None, None]
            if self.scaling == "density":
                kernel = kernel / math.sqrt((window**2).sum())
            elif self.scaling == "spectrum":
                kernel = kernel / np.abs(window).sum()
        return _array(kernel, dtype)

    def get_config(self):
        return {"side": self.side, "window": self.window, "periodic": self.periodic, "scaling": self.scaling}


_classes = [
    Initializer, Constant, Identity, Ones, STFT, Zeros, GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal,
    LecunUniform, Orthogonal, RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling,
]  # fmt: skip

registry = Registry(
    "initializer",
    _classes,
    names={
        **{to_snake_case(c.__name__): c for c in _classes},
        "IdentityInitializer": Identity,
        "OrthogonalInitializer": Orthogonal,
        "STFTInitializer": STFT,
        "normal": RandomNormal,
        "one": Ones,
        "uniform": RandomUniform,
        "zero": Zeros,
    },
)


def get(identifier: Any) -> Any:
    """An initializer by name, configuration, class, as it is, or an array that is to be the value; None stays None.

    Raises ArgumentError if it is unknown.
    """
    if isinstance(identifier, (np.ndarray, np.generic, Tensor)):
        return _Given(np.asarray(identifier))
    return registry.get(identifier)


class _Given(Initializer):
    """An array as the first value of a weight of the same shape."""

    def __init__(self, value: np.ndarray):
        self.value = value

    def __call__(self, shape, dtype=None):
        if tuple(shape) != self.value.shape:
            raise ShapeError(
                f"the array given as initializer has the shape {self.value.shape}, the weight {tuple(shape)}"
            )
        return _array(self.value, dtype)

    def get_config(self):
        return {"value": self.value}


def serialize(initializer: Any) -> Any:
    return serialize_object(initializer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    return registry.deserialize(config, custom_objects)


constant, zeros, ones, identity, stft = Constant, Zeros, Ones, Identity, STFT
random_normal, random_uniform, truncated_normal, variance_scaling = (
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
)
glorot_normal, glorot_uniform, he_normal, he_uniform = GlorotNormal, GlorotUniform, HeNormal, HeUniform
lecun_normal, lecun_uniform, orthogonal = LecunNormal, LecunUniform, Orthogonal
IdentityInitializer, OrthogonalInitializer, STFTInitializer = Identity, Orthogonal, STFT
