"""What fit takes: arrays in any order and number of steps, generators, iterables, data sets by number; and what not."""

import collections

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.models import data as adapters
from gnomon.models.data import ArrayData, ArrayFeed
from gnomon.utils import set_random_seed
from tests.frontend.training.support import classifier, data

X, LABEL = data()
FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}


def rows(feed, steps=None):
    """The row numbers of an epoch, batch by batch."""
    return [[int(i) for i in row] for _, table in feed.epoch(steps) for row in table]


# ---- arrays


def test_every_row_is_taken_once_an_epoch_in_a_new_order():
    feed = ArrayFeed(ArrayData(X, LABEL, None, 16), True)
    first, second = rows(feed), rows(feed)
    assert [len(batch) for batch in first] == [16, 16, 16, 2]
    for epoch in (first, second):
        assert sorted(sum(epoch, [])) == list(range(50))
    assert first != second
    assert rows(ArrayFeed(ArrayData(X, LABEL, None, 16))) == [[*range(k, min(k + 16, 50))] for k in range(0, 50, 16)]


def test_orders_are_repeated_by_the_seed_and_are_numpys_as_in_keras():
    feed = ArrayFeed(ArrayData(X, LABEL, None, 50), True)
    set_random_seed(4)
    first = rows(feed)
    set_random_seed(4)
    assert rows(feed) == first
    np.random.seed(4)
    assert first[0] == list(np.random.permutation(50))


def test_shuffling_within_batches_alone():
    epoch = rows(ArrayFeed(ArrayData(X, LABEL, None, 16), "batch"))
    assert [sorted(batch) for batch in epoch] == [[*range(k, min(k + 16, 50))] for k in range(0, 50, 16)]
    assert epoch != [sorted(batch) for batch in epoch]


def test_an_epoch_of_fewer_steps_goes_on_where_the_last_ended():
    feed = ArrayFeed(ArrayData(X, LABEL, None, 16), True)
    epochs = [rows(feed, 2), rows(feed, 2)]
    assert sorted(sum(sum(epochs, []), [])) == list(range(50))
    with pytest.warns(UserWarning, match="ran out of data"):
        assert len(rows(feed, 6)) == 4
    feed = ArrayFeed(ArrayData(X, LABEL, None, 16))
    assert len(rows(feed, 3)) == 3
    with pytest.warns(UserWarning, match="ran out of data"):
        assert rows(feed, 3) == [[48, 49]]
    assert rows(feed, 3)[0] == [*range(16)]


def test_steps_decide_the_batch_size_if_nothing_else_does():
    assert ArrayData(X, LABEL, None, None, 7).batch_size == 8
    assert ArrayData(X, LABEL, None, None).batch_size == 32
    assert ArrayData(X, LABEL, None, 16, 7).batch_size == 16


def test_what_counts_as_an_array():
    model = classifier()
    wanted = model.evaluate(X, LABEL, verbose=0)
    for x, y in [
        (X.tolist(), LABEL.tolist()),
        (X.astype(">f4"), LABEL.astype(">i8")),
        (X.astype("float64"), LABEL.astype("int16")),
        ([X], [LABEL]),
    ]:
        np.testing.assert_allclose(model.evaluate(x, y, verbose=0), wanted, rtol=1e-6)

    class Like:
        def __array__(self, dtype=None, copy=None):
            return X

    np.testing.assert_allclose(model.predict(Like(), verbose=0), model.predict(X, verbose=0))


# ---- batches that come one by one


def batches(weighted=False):
    for k in range(0, 50, 16):
        part = slice(k, k + 16)
        yield (X[part], LABEL[part], np.ones(len(X[part]), "float32")) if weighted else (X[part], LABEL[part])


class Rows(gnomon.utils.PyDataset):
    """The same batches by number; notes what is asked of it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def __len__(self):
        return 4

    def __getitem__(self, k):
        self.asked.append(k)
        return X[16 * k : 16 * k + 16], LABEL[16 * k : 16 * k + 16]

    def on_epoch_begin(self):
        self.asked.append("begin")

    def on_epoch_end(self):
        self.asked.append("end")


class Endless(Rows):
    """It has no end."""

    num_batches = None

    def __getitem__(self, k):
        return super().__getitem__(k % 4)


class Plain:
    """A data set of another library: a length and batches by number."""

    def __len__(self):
        return 4

    def __getitem__(self, k):
        return Rows()[k]


class Again:
    """It can be iterated over many times."""

    def __iter__(self):
        return batches()


SAME = {
    "PyDataset": (Rows, {}),
    "PyDataset, threads": (lambda: Rows(workers=3, max_queue_size=2), {}),
    "without end": (Endless, {"steps_per_epoch": 4}),
    "without end, threads": (lambda: Endless(workers=2), {"steps_per_epoch": 4}),
    "by number": (Plain, {}),
    "iterable": (Again, {}),
    "deque": (lambda: collections.deque(batches()), {}),
    "lists": (lambda: collections.deque([list(pair) for pair in batches()]), {}),
    "generator": (lambda: (b for _ in range(3) for b in batches()), {"steps_per_epoch": 4}),
    "generator of weights": (lambda: (b for _ in range(3) for b in batches(True)), {"steps_per_epoch": 4}),
}


@pytest.mark.parametrize("kind", SAME)
def test_batches_train_as_arrays_do(kind):
    make, options = SAME[kind]
    a, b = classifier(), classifier()
    wanted = a.fit(X, LABEL, epochs=3, validation_data=(X, LABEL), **FIT).history
    found = b.fit(make(), epochs=3, shuffle=False, verbose=0, validation_data=(X, LABEL), **options).history
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)
    for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(v, w, rtol=1e-5, atol=1e-6)


def test_evaluate_and_predict_take_batches():
    model = classifier()
    whole = model.evaluate(X, LABEL, batch_size=16, verbose=0)
    for made in (Rows(), Again(), batches()):
        np.testing.assert_allclose(model.evaluate(made, verbose=0), whole, rtol=1e-5)
    outputs = model.predict(X, verbose=0)
    for made in (Rows(), Again(), batches(), (x for x, _ in batches())):
        np.testing.assert_allclose(model.predict(made, verbose=0), outputs, rtol=2e-6)
    assert model.predict(Again(), steps=2, verbose=0).shape == (32, 4)
    part = model.evaluate(X[:32], LABEL[:32], batch_size=16, verbose=0)
    np.testing.assert_allclose(model.evaluate(Again(), steps=2, verbose=0), part, rtol=1e-5)
    history = model.fit(Rows(), validation_data=Rows(), validation_steps=2, verbose=0).history
    assert set(history) == {"accuracy", "loss", "val_accuracy", "val_loss"}


def test_a_data_set_is_told_of_epochs_and_asked_in_another_order():
    made = Rows()
    classifier().fit(made, epochs=2, shuffle=False, verbose=0)
    assert made.asked == ["begin", 0, 1, 2, 3, "end"] * 2
    made = Rows()
    set_random_seed(1)
    classifier().fit(made, epochs=3, verbose=0)
    epochs = [made.asked[6 * k + 1 : 6 * k + 5] for k in range(3)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_fewer_steps_than_a_data_set_has_go_on_where_the_last_epoch_ended():
    made = Rows()
    classifier().fit(made, epochs=3, steps_per_epoch=2, shuffle=False, verbose=0)
    assert [k for k in made.asked if isinstance(k, int)] == [0, 1, 2, 3, 0, 1]


def test_a_generator_goes_on_in_the_next_epoch_until_it_ends():
    model = classifier()
    with pytest.warns(UserWarning, match="ran out of data"):
        history = model.fit(batches(), epochs=5, steps_per_epoch=3, verbose=0)
    assert history.epoch == [0, 1]
    assert int(model.optimizer.iterations.numpy()) == 4
    history = model.fit(batches(), verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 8
    with pytest.warns(UserWarning, match="ran out of data"):
        assert model.fit(batches(), epochs=2, verbose=0).epoch == [0]


def test_processes_fetch_batches():
    made = Rows(workers=2, use_multiprocessing=True)
    a, b = classifier(), classifier()
    a.fit(X, LABEL, **FIT)
    b.fit(made, shuffle=False, verbose=0)
    assert made.asked == ["begin", "end"]  # the batches were asked of copies
    np.testing.assert_allclose(a.get_weights()[0], b.get_weights()[0], rtol=1e-5, atol=1e-6)


def test_batches_of_dictionaries():
    inputs = {"a": gnomon.Input((2,), name="a"), "b": gnomon.Input((4,), name="b")}
    model = gnomon.Model(inputs, layers.Dense(1)(layers.Concatenate()([inputs["a"], inputs["b"]])))
    model.compile("sgd", loss="mse")
    whole = {"a": X[:, :2], "b": X[:, 2:]}
    parts = [({name: v[k : k + 16] for name, v in whole.items()}, X[k : k + 16, :1]) for k in range(0, 50, 16)]
    loss = model.evaluate(whole, X[:, :1], batch_size=16, verbose=0)
    assert model.evaluate(iter(parts), verbose=0) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(
        model.predict(iter([x for x, _ in parts]), verbose=0), model.predict(whole, verbose=0), rtol=1e-5
    )
    model.fit(iter(parts), verbose=0)


# ---- weights


def test_weights_of_classes_are_weights_of_samples():
    weights = {0: 0.5, 2: 3.0, 9: 7.0}
    wanted = np.array([weights.get(int(c), 1.0) for c in LABEL], "float32")
    for y in (LABEL, LABEL[:, None], LABEL.astype("float32"), np.eye(4, dtype="float32")[LABEL]):
        assert np.array_equal(adapters.class_weights(y, weights), wanted)
    a, b, c = classifier(), classifier(), classifier()
    history = a.fit(X, LABEL, class_weight=weights, **FIT).history
    assert history == b.fit(X, LABEL, sample_weight=wanted, **FIT).history
    assert history["loss"] == pytest.approx(c.fit(Again(), class_weight=weights, verbose=0).history["loss"], rel=1e-5)


def test_weights_do_not_touch_metrics_unless_they_are_weighted():
    model = classifier(metrics=["accuracy"], weighted_metrics=["accuracy"])
    weight = (LABEL == 1).astype("float32")
    _, plain, weighted = model.evaluate(X, LABEL, sample_weight=weight, verbose=0)
    right = model.predict(X, verbose=0).argmax(1) == LABEL
    assert plain == pytest.approx(right.mean())
    assert weighted == pytest.approx(right[LABEL == 1].mean())
    assert model.evaluate(X, LABEL, verbose=0, return_dict=True).keys() == {"accuracy", "loss", "weighted_accuracy"}


# ---- what is refused


REFUSED = {
    "text": (lambda m: m.fit(np.full((5, 6), "a"), LABEL[:5]), DataError, "must hold numbers"),
    "objects": (lambda m: m.fit(np.full((5, 6), None), LABEL[:5]), DataError, "x must hold numbers.*object"),
    "no x": (lambda m: m.fit(None, LABEL), DataError, "x is None"),
    "lengths": (lambda m: m.fit(X, LABEL[:8]), DataError, "Data cardinality is ambiguous.*'x' sizes: 50, 'y' sizes: 8"),
    "no rows": (lambda m: m.fit(X[:0], LABEL[:0]), DataError, "empty"),
    "no rows to predict": (lambda m: m.predict(X[:0], verbose=0), DataError, "empty"),
    "an empty batch": (lambda m: m.train_on_batch(X[:0], LABEL[:0]), DataError, "empty"),
    "an empty generator": (lambda m: m.fit(iter([])), DataError, "empty"),
    "a number": (lambda m: m.fit(np.float32(1), LABEL), DataError, "axis of samples"),
    "no labels": (lambda m: m.fit(X), DataError, "has a loss, but y has nothing for it"),
    "y twice": (lambda m: m.fit(batches(), LABEL), ArgumentError, "as a generator, `y` should not be passed"),
    "weights twice": (
        lambda m: m.fit(X, LABEL, class_weight={0: 1.0}, sample_weight=np.ones(50)), ArgumentError, "at the same time",
    ),
    "weights of batches twice": (
        lambda m: m.fit(batches(True), class_weight={0: 1.0}), ArgumentError, "at the same time",
    ),
    "a list of class weights": (lambda m: m.fit(X, LABEL, class_weight=[1.0]), ArgumentError, "must be a dictionary"),
    "split of batches": (lambda m: m.fit(batches(), validation_split=0.5), ArgumentError, "only supported for arrays"),
    "split of 1": (lambda m: m.fit(X, LABEL, validation_split=1.0), ArgumentError, "between 0 and 1"),
    "split of too few": (
        lambda m: m.fit(X[:1], LABEL[:1], validation_split=0.5), ArgumentError, "leaves 0 for training and 1",
    ),
    "batch_size": (lambda m: m.fit(X, LABEL, batch_size=0), ArgumentError, "batch_size must be a positive integer"),
    "steps": (lambda m: m.fit(X, LABEL, steps_per_epoch=0), ArgumentError, "steps must be a positive integer"),
    "epochs": (lambda m: m.fit(X, LABEL, epochs="2"), ArgumentError, "epochs must be an integer"),
    "verbose": (lambda m: m.fit(X, LABEL, verbose="yes"), ArgumentError, "verbose must be"),
    "validation_freq": (lambda m: m.fit(X, LABEL, validation_freq=0), ArgumentError, "validation_freq must be"),
    "four parts": (lambda m: m.fit(iter([(X, LABEL, LABEL, LABEL)])), DataError, "expected to be in format.*4 parts"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, error, message = REFUSED[what]
    with pytest.raises(error, match=f"(?s){message}"):
        call(classifier())


def test_nan_is_found_before_it_spoils_the_weights():
    x = X.copy()
    x[20, 3] = np.nan
    model = classifier()
    before = model.get_weights()
    with pytest.raises(DataError, match=r"x holds NaN, first at position \(20, 3\) of shape \(50, 6\)"):
        model.fit(x, LABEL, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_nan_that_does_not_reach_the_loss_is_allowed():
    inputs = gnomon.Input((6,))
    known = layers.Lambda(lambda x: gnomon.ops.where(gnomon.ops.isnan(x), 0.0, x))(inputs)
    model = gnomon.Model(inputs, layers.Dense(1)(known))

    def error(y_true, y_pred):
        there = gnomon.ops.logical_not(gnomon.ops.isnan(y_true))
        return gnomon.ops.where(there, (gnomon.ops.where(there, y_true, 0.0) - y_pred) ** 2, 0.0)

    model.compile("sgd", loss=error)
    x, y = X.copy(), X[:, :1].copy()
    x[::5], y[::7] = np.nan, np.nan
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_large_numbers_are_not_taken_for_nan():
    assert adapters.find_nan([np.full((3, 4), 1e30, "float32"), None, np.array([1, 2])]) is None
    assert adapters.find_nan([np.full((3, 4), np.inf, "float32")]) is None
    holes = np.zeros((3, 4), "float32")
    holes[1, 2] = np.nan
    assert adapters.find_nan([np.zeros(2, "float32"), holes]) == (1, (1, 2))
