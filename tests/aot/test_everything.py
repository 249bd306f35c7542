"""Every layer, loss and optimizer compiles ahead of time, and gives what the process gives.

Those of a family are side by side in one model, so that few programs have all of them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ahead, losses, ops, optimizers
from gnomon import layers as L
from gnomon.compiler import aot
from gnomon.compiler.errors import ArgumentError, CompileError
from gnomon.compiler.program import Library
from gnomon.optimizers import schedules
from tests.aot.test_gnx import save

FAMILIES: dict[str, tuple[tuple[int | None, ...], str, Callable[[], list[Any]]]] = {
    "vectors": ((6,), "float32", lambda: [
        L.Dense(3), L.EinsumDense("ab,bc->ac", 4), L.Activation("gelu"), L.ActivityRegularization(0.1),
        L.AlphaDropout(0.3), L.BatchNormalization(), L.Dropout(0.3), L.ELU(), L.Flatten(), L.GaussianDropout(0.3),
        L.GaussianNoise(0.3), L.GroupNormalization(2), L.Identity(), L.Lambda(lambda x: x * 2 + 1),
        L.LayerNormalization(), L.LeakyReLU(), L.Masking(), L.Normalization(mean=1.0, variance=2.0), L.PReLU(),
        L.ReLU(), L.RMSNormalization(), L.RepeatVector(2), L.Rescaling(0.5, 1), L.Reshape((2, 3)), L.Softmax(),
        L.UnitNormalization(), L.SpectralNormalization(L.Dense(3)), L.Discretization([-0.5, 0.0, 0.5]),
    ]),
    "pairs": ((4, 3), "float32", lambda: [
        L.Add(), L.Average(), L.Concatenate(), L.Dot(1), L.Maximum(), L.Minimum(), L.Multiply(), L.Subtract(),
        L.Attention(), L.AdditiveAttention(), L.MultiHeadAttention(2, 4), L.GroupQueryAttention(4, 4, 2),
    ]),
    "series": ((8, 4), "float32", lambda: [
        L.AdaptiveAveragePooling1D(3), L.AdaptiveMaxPooling1D(3), L.AveragePooling1D(2), L.Conv1D(3, 3),
        L.Conv1DTranspose(3, 3, 2), L.Cropping1D(1), L.DepthwiseConv1D(3), L.GlobalAveragePooling1D(),
        L.GlobalMaxPooling1D(), L.MaxPooling1D(2), L.Permute((2, 1)), L.SeparableConv1D(3, 3), L.SpatialDropout1D(0.3),
        L.TimeDistributed(L.Dense(2)), L.UpSampling1D(2), L.ZeroPadding1D(1),
    ]),
    "recurrent": ((None, 4), "float32", lambda: [
        L.SimpleRNN(3), L.LSTM(3), L.GRU(3), L.Bidirectional(L.SimpleRNN(2)),
        L.RNN(L.StackedRNNCells([L.SimpleRNNCell(3), L.LSTMCell(2), L.GRUCell(2)])),
    ]),
    "images": ((8, 6, 3), "float32", lambda: [
        L.AdaptiveAveragePooling2D(3), L.AdaptiveMaxPooling2D(3), L.AveragePooling2D(2), L.CenterCrop(4, 4),
        L.Conv2D(3, 3), L.Conv2DTranspose(3, 3, 2), L.Cropping2D(1), L.DepthwiseConv2D(3), L.GlobalAveragePooling2D(),
        L.GlobalMaxPooling2D(), L.MaxPooling2D(2), L.Resizing(5, 5), L.SeparableConv2D(3, 3), L.SpatialDropout2D(0.3),
        L.UpSampling2D(2, interpolation="bilinear"), L.ZeroPadding2D(1),
    ]),
    "volumes": ((4, 4, 4, 2), "float32", lambda: [
        L.AdaptiveAveragePooling3D(2), L.AdaptiveMaxPooling3D(2), L.AveragePooling3D(2), L.Conv3D(2, 3),
        L.Conv3DTranspose(2, 2, 2), L.Cropping3D(1), L.GlobalAveragePooling3D(), L.GlobalMaxPooling3D(),
        L.MaxPooling3D(2), L.SpatialDropout3D(0.3), L.UpSampling3D(2), L.ZeroPadding3D(1),
    ]),
    "lines": ((3, 6, 2), "float32", lambda: [L.ConvLSTM1D(2, 3)]),
    "films": ((3, 4, 4, 2), "float32", lambda: [L.ConvLSTM2D(2, 3)]),
    "solids": ((2, 3, 3, 3, 1), "float32", lambda: [L.ConvLSTM3D(1, 2)]),
    "numbers": ((5,), "int32", lambda: [
        L.Embedding(10, 3, mask_zero=True), L.CategoryEncoding(10, "multi_hot"), L.IntegerLookup(vocabulary=[3, 5, 7]),
    ]),
    "geometry": ((8, 8, 3), "float32", lambda: [
        L.RandomCrop(5, 5), L.RandomFlip(), L.RandomRotation(0.1), L.RandomTranslation(0.1, 0.1), L.RandomZoom(0.2),
        L.RandomShear(0.1, 0.1), L.RandomPerspective(0.5), L.RandomElasticTransform(0.5), L.RandomErasing(0.5),
    ]),
    "colours": ((8, 8, 3), "float32", lambda: [
        L.AutoContrast(), L.Equalization(), L.RandomBrightness(0.2), L.RandomColorDegeneration(0.5),
        L.RandomColorJitter(), L.RandomContrast(0.2), L.RandomGaussianBlur(0.5),
        L.RandomGrayscale(0.5), L.RandomHue(0.2), L.RandomInvert(0.5), L.RandomPosterization(4),
        L.RandomSaturation(0.3), L.RandomSharpness(0.5), L.Solarization(), L.Pipeline([L.Rescaling(0.5)]),
    ]),
    "policies": ((8, 8, 3), "float32", lambda: [
        L.AugMix(num_chains=1, chain_depth=1), L.RandAugment(num_ops=1), L.MixUp(), L.CutMix(),
    ]),
}  # fmt: skip
"""Layers by what they take: its shape and dtype."""

TEXTS: dict[str, Callable[[], Any]] = {
    "Hashing": lambda: L.Hashing(7), "HashedCrossing": lambda: L.HashedCrossing(5),
    "StringLookup": lambda: L.StringLookup(vocabulary=["a", "b"]),
    "TextVectorization": lambda: L.TextVectorization(vocabulary=["a", "b"]),
}  # fmt: skip
"""What works on words, in Python: on the data, before there is a program."""

ABSTRACT = {"DTypePolicy", "InputLayer", "InputSpec", "Layer", "Wrapper"}


def test_no_layer_is_left_out():
    seen: set[type] = set()
    stack = [layer for _, _, members in FAMILIES.values() for layer in members()]
    while stack:
        layer = stack.pop()
        seen.add(type(layer))
        held = [*vars(layer).values(), *getattr(layer, "cells", ()), *getattr(layer, "layers", ())]
        stack += [v for v in held if isinstance(v, L.Layer)]
    every = {v for name in L.__all__ if isinstance(v := getattr(L, name), type)}
    assert {c.__name__ for c in every - seen} == TEXTS.keys() | ABSTRACT


@pytest.mark.parametrize("name", TEXTS)
def test_layers_of_words_are_refused_by_their_name(name):
    layer = TEXTS[name]()
    with pytest.raises(ArgumentError, match=f"{name} '{layer.name}' works on data, not inside a model"):
        layer(gnomon.Input((1,), dtype="int32"))


def called(layer: Any, x: Any) -> Any:
    """The layer on `x`, as in training if that is another thing."""
    options = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
    if isinstance(layer, L.MultiHeadAttention | L.GroupQueryAttention):
        return layer(x, x, **options)
    several = isinstance(layer, L.Attention | L.AdditiveAttention) or type(layer).__module__.endswith("merge")
    return layer([x, L.Rescaling(0.5)(x)] if several else x, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers(family, tmp_path):
    shape, dtype, members = FAMILIES[family]
    gnomon.utils.set_random_seed(1)
    x = gnomon.Input(shape, dtype=dtype, name="x")
    model = gnomon.Model(x, {type(layer).__name__: called(layer, x) for layer in members()}, name=family)
    rng = np.random.default_rng(0)
    data = rng.uniform(0, 8, (3, *(5 if d is None else d for d in shape))).astype(dtype)
    loaded = gnomon.runtime.load(save(model, tmp_path / family))
    wanted = model.predict(data, verbose=0)
    for name, value in loaded(data).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)


# ---- losses

SPARSE = {"SparseCategoricalCrossentropy", "CategoricalGeneralizedCrossEntropy", "Circle"}
"""Losses whose labels are numbers of classes; CTC's are rows of them."""


def test_losses(tmp_path):
    """Values, and gradients by what was predicted, of all losses in one program."""
    every = [v for n in losses.__all__ if isinstance(v := getattr(losses, n), type)]
    every = [c for c in every if c not in (losses.Loss, losses.LossFunctionWrapper)]
    assert len(every) > 20
    truth, guess = gnomon.Input((4,), name="truth"), gnomon.Input((4,), name="guess")
    classes, words = gnomon.Input((), dtype="int32", name="classes"), gnomon.Input((2,), dtype="int32", name="words")
    speech = gnomon.Input((5, 4), name="speech")
    outputs = {}
    for cls in every:
        given = {"CTC": (words, speech)}.get(cls.__name__, (classes if cls.__name__ in SPARSE else truth, guess))
        value = cls()(*given)
        outputs[cls.__name__] = value
        outputs[f"{cls.__name__}_gradient"] = gnomon.grad(value, given[1])
    f = gnomon.function([truth, guess, classes, words, speech], outputs, name="losses")
    rng = np.random.default_rng(0)
    right = rng.integers(0, 4, 6)
    wrong = rng.dirichlet(np.ones(4), 6).astype("float32")
    spelled, heard = rng.integers(1, 4, (6, 2)).astype("int32"), rng.normal(size=(6, 5, 4)).astype("float32")
    given = [np.eye(4, dtype="float32")[right], wrong, right.astype("int32"), spelled, heard]
    wanted = f(*given)
    for name, value in gnomon.runtime.load(save(f, tmp_path / "losses"))(*given).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


# ---- optimizers


def made_optimizers() -> list[Any]:
    """One of each, with what is rare: momentum, averages, schedules, clipping."""
    o = optimizers
    return [
        o.SGD(schedules.CosineDecay(0.1, 5), momentum=0.9, nesterov=True), o.Adadelta(), o.Adafactor(), o.Adagrad(),
        o.Adam(amsgrad=True, clipnorm=0.5), o.AdamW(use_ema=True, ema_overwrite_frequency=2), o.Adamax(), o.Ftrl(),
        o.Lamb(), o.LazyAdam(), o.Lion(), o.LossScaleOptimizer(o.Adam()), o.Muon(), o.Nadam(),
        o.RMSprop(centered=True, momentum=0.5), o.ScheduleFreeAdamW(),
    ]  # fmt: skip


class Contest(gnomon.Model):
    """A model in which each head has an optimizer of its own."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        logs = {}
        for head, optimizer, wanted in zip(self.layers[1:], self.contestants, y, strict=True):
            value = ops.mean((wanted - head(x)) ** 2)
            optimizer.apply([gnomon.grad(value, v) for v in head.trainable_variables], head.trainable_variables)
            logs[type(optimizer).__name__] = value
        return logs


def test_optimizers(tmp_path):
    """Three steps of each, all in one program."""
    every = {n for n in optimizers.__all__ if isinstance(getattr(optimizers, n), type)} - {"Optimizer"}
    contestants = made_optimizers()
    assert {type(o).__name__ for o in contestants} == every
    gnomon.utils.set_random_seed(3)
    x = gnomon.Input((4,), name="x")
    model = Contest(x, [L.Dense(3, name=f"head_{k}")(x) for k in range(len(contestants))])
    model.contestants = contestants
    model.compile("sgd", "mse")
    for head, optimizer in zip(model.layers[1:], contestants, strict=True):
        optimizer.build(head.trainable_variables)
    loaded = gnomon.runtime.load(save(model, tmp_path / "contest", train=True))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 4)).astype("float32")
    y = list(rng.normal(size=(len(contestants), 8, 3)).astype("float32"))
    for _ in range(3):
        assert loaded.step(data, *y) == pytest.approx(model.train_on_batch(data, y, return_dict=True), rel=1e-5)


# ---- what cannot be compiled


def test_calls_of_python_are_refused_with_the_layer():
    x = gnomon.Input((4,), name="x")
    program = ahead.build(gnomon.Model(x, L.Dense(4)(x)), "net").routines[0].program
    call = Library("cholesky", (0,), (1,), layers=("net/whiten (train.py:3)",))
    called = dataclasses.replace(program, steps=(*program.steps, call))
    message = r"net/whiten \(train.py:3\): 'cholesky' is a call of Python or LAPACK, which a compiled library cannot"
    with pytest.raises(CompileError, match=message):
        aot.check_steps([called])
