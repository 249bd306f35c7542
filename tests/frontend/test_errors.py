"""Mistakes that users make: each is an error of gnomon's that names the layer or argument, what came and what was
needed, and points at the user's own line."""

import gc
import inspect
import re
import traceback
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import Input, Model, Sequential, layers, ops
from gnomon.compiler import errors
from gnomon.compiler.errors import (
    ArgumentError,
    DataError,
    DisconnectedError,
    DTypeError,
    GnomonError,
    GraphError,
    NotBuiltError,
    NotWrittenError,
    ShapeError,
    StateError,
)
from gnomon.layers import Concatenate, Dense, Reshape
from gnomon.utils import clear_session
from tests.recorded.load import load
from tests.recorded.playback import play

X = np.random.default_rng(0).normal(size=(10, 8)).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[np.arange(10) % 3]
LABELS = np.arange(10) % 3

MISTAKES: dict[str, Any] = {}


def mistake(error, *parts):
    """Note a mistake: the error it raises, and what the message says (regular expressions).

    The line that is wrong ends in `# !`. It must be the last of this file in the traceback, or be named in the message.
    """

    def note(case):
        assert case.__name__ not in MISTAKES
        MISTAKES[case.__name__] = (case, error, parts)
        return case

    return note


@pytest.fixture(autouse=True)
def names_from_the_start():
    clear_session()


def classifier(loss="categorical_crossentropy", **options):
    model = Sequential(
        [Input((8,), name="features"), Dense(4, name="hidden"), Dense(3, activation="softmax", name="out")], name="net"
    )
    model.compile("sgd", loss, **options)
    return model


def two_heads(**options):
    features = Input((8,), name="features")
    model = Model(features, [Dense(1, name="size")(features), Dense(3, name="kind")(features)], name="heads")
    model.compile("sgd", **{"loss": "mse"} | options)
    return model


# ---- shapes between layers


@mistake(ShapeError, r'Input 0 of layer "narrow"', r"axis -1 .* value 8", r"shape \(None, 9\)")
def a_layer_on_another_width():
    layer = Dense(3, name="narrow")
    layer(Input((8,)))
    layer(Input((9,)))  # !


@mistake(ShapeError, r'layer "narrow"', "value 5", r"\(None, 4\)")
def layers_that_do_not_follow():
    built = Dense(3, name="narrow")
    built.build((None, 5))
    model = Sequential([Input((4,))])
    model.add(built)  # !


@mistake(ShapeError, r'layer "narrow"', "min_ndim=2, found ndim=1", r"\(4,\)")
def a_layer_on_a_vector():
    Dense(3, name="narrow")(np.ones(4))  # !


@mistake(ShapeError, "'kernel' of layer 'narrow'", r"\(None, 3\)", "a size instead of None")
def a_layer_on_an_open_width():
    Dense(3, name="narrow")(Input((None,)))  # !


@mistake(ShapeError, r"input_shape=\(8,\) \(8 elements", r"target_shape=\(3, 3\) \(9\)", "layer 'square'")
def reshape_to_another_size():
    Reshape((3, 3), name="square")(Input((8,)))  # !


@mistake(ShapeError, "`Concatenate`", r"\(None, 3, 4\), \(None, 2, 4\)", "axis=-1", "layer 'joined'")
def concatenate_what_does_not_match():
    Concatenate(name="joined")([Input((3, 4)), Input((2, 4))])  # !


@mistake(ShapeError, r"\(None, 4\) and \(None, 5\)", "4 and 5 elements", "layer 'sum'")
def add_what_does_not_match():
    layers.Add(name="sum")([Input((4,)), Input((5,))])  # !


@mistake(ShapeError, r"\[batch, 4\] and \[batch, 5\]", "axis -1 has 4 and 5")
def operators_on_other_shapes():
    a, b = Input((4,)), Input((5,))
    a + b  # !


@mistake(ShapeError, r"\[batch, 4\] and float\d\d\[5, 3\]", "last axis of the first has 4", "of the second 5")
def products_of_other_shapes():
    ops.matmul(Input((4,)), np.ones((5, 3)))  # !


@mistake(ShapeError, "index 7 is out of range for axis 1 of float32.batch, 4.")
def an_index_out_of_range():
    Input((4,))[:, 7]  # !


@mistake(ShapeError, r"shape=\(784,\)")
def an_input_of_a_number():
    Input(784)  # !


@mistake(ShapeError, r"expected shape=\(None, 32, 8\), found shape=\(10, 8\)", r"Input\(shape=\(8,\)\) is without")
def an_input_with_the_batch_in_its_shape():
    model = Sequential([Input((32, 8)), Dense(3)])
    model(X)  # !


@mistake(ShapeError, '"net"', r"\(None, 8\), found shape=\(8,\)", r"single sample x is passed as x\[None\]")
def one_sample_without_the_axis_of_samples():
    model = classifier()
    model(X[0])  # !


@mistake(ShapeError, r'Input 0 \(features\) of layer "net"', r"\(None, 8\), found shape=\(4, 9\)")
def a_model_on_another_width():
    model = classifier()
    model(np.ones((4, 9), "float32"))  # !


@mistake(ShapeError, r'Input 0 \(features\) of layer "net"', r"\(None, 8\), found shape=\(None, 9\)")
def predict_with_another_number_of_features():
    model = classifier()
    model.predict(np.ones((4, 9), "float32"), verbose=0)  # !


@mistake(ShapeError, r'Input 0 \(features\) of layer "net"', r"\(None, 8\), found shape=\(None, 4, 8\)")
def fit_with_another_rank():
    model = classifier()
    model.fit(np.ones((10, 4, 8)), ONE_HOT, verbose=0)  # !


@mistake(ShapeError, r"float32\[batch, 2\]", r"float32\[batch, 3\]", "loss of the output 'out'")
def labels_of_another_width():
    model = classifier("mse")
    model.fit(X, np.ones((10, 2)), verbose=0)  # !


@mistake(ShapeError, r"float32\[batch, 3\]", "one class number", "'categorical_crossentropy'", "output 'out'")
def one_hot_labels_for_sparse_crossentropy():
    model = classifier("sparse_categorical_crossentropy")
    model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(ShapeError, r"\[batch\] and y_pred float32\[batch, 3\]", "'sparse_categorical_crossentropy'", "output 'out'")
def class_numbers_for_categorical_crossentropy():
    model = classifier()
    model.fit(X, LABELS, verbose=0)  # !


# ---- names


@mistake(ArgumentError, "Unknown activation 'rellu'", "Did you mean 'relu'")
def an_unknown_activation():
    Dense(3, activation="rellu")  # !


@mistake(ArgumentError, "Unknown initializer 'glorot_unifrm'", "Did you mean 'glorot_uniform'")
def an_unknown_initializer():
    Dense(3, kernel_initializer="glorot_unifrm")  # !


@mistake(ArgumentError, "Unknown optimizer 'adamm'", "'Adam'")
def an_unknown_optimizer():
    model = Sequential([Input((8,)), Dense(1)])
    model.compile("adamm", "mse")  # !


@mistake(ArgumentError, "Unknown loss 'mean_sqared_error'", "Did you mean 'mean_squared_error'")
def an_unknown_loss():
    model = Sequential([Input((8,)), Dense(1)])
    model.compile("adam", "mean_sqared_error")  # !


@mistake(ArgumentError, "Unknown metric 'acuracy'", "Did you mean 'accuracy'")
def an_unknown_metric():
    model = Sequential([Input((8,)), Dense(1)])
    model.compile("adam", "mse", metrics=["acuracy"])  # !


@mistake(ArgumentError, "passed to Dense: {'activaton': 'relu'}", "Did you mean 'activation'")
def an_unknown_argument_of_a_layer():
    Dense(3, activaton="relu")  # !


@mistake(ArgumentError, "Adam has no argument 'beta'", "'beta_1'")
def an_unknown_argument_of_an_optimizer():
    gnomon.optimizers.Adam(0.1, beta=0.9)  # !


@mistake(ArgumentError, "positive integer, got '10'")
def units_as_text():
    units: Any = "10"
    Dense(units)  # !


@mistake(GraphError, 'name "same" is used 2 times', "Dense and Flatten", "name=...")
def two_layers_of_one_name():
    inputs = Input((4,))
    outputs = layers.Flatten(name="same")(Dense(3, name="same")(inputs))
    Model(inputs, outputs)  # !


@mistake(GraphError, "'same' is already the name of a Dense")
def two_layers_of_one_name_in_a_row():
    model = Sequential([Input((4,)), Dense(3, name="same")])
    model.add(Dense(3, name="same"))  # !


@mistake(ArgumentError, "No such layer: hiden", "Did you mean 'hidden'")
def a_layer_that_is_not_there():
    model = classifier()
    model.get_layer("hiden")  # !


# ---- models


@mistake(GraphError, "Graph disconnected", "layer 'sum' depends on the input 'b'", r"\['a'\] do not give")
def an_input_left_out():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    Model(a, layers.Add(name="sum")([a, b]))  # !


@mistake(ArgumentError, "Only instances of `Layer`", r"Lambda\(function\)")
def a_function_in_a_sequential():
    Sequential([Dense(3), lambda x: x])  # !


@mistake(NotWrittenError, "Layer Mine does not have a `call`", "Did you mean 'cal'", "layer 'mine'")
def a_layer_without_call():
    class Mine(layers.Layer):
        def cal(self, x):
            return x

    Mine()(X)  # !


@mistake(StateError, r"`super\(\).__init__\(\)` must be the first")
def a_layer_that_forgets_super_init():
    class Mine(layers.Layer):
        def __init__(self):
            self.scale = 2

        def call(self, x):
            return x * self.scale

    Mine()(X)  # !


@mistake(ArgumentError, r'Model "pair" expects 2 input\(s\)', r"\['a', 'b'\]", "received 1")
def too_few_inputs():
    a, b = Input((8,), name="a"), Input((8,), name="b")
    model = Model([a, b], Dense(3)(a + b), name="pair")
    model.compile("sgd", "mse")
    model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(ArgumentError, 'Missing data for input "b" of model "pair"', r"keys \['a', 'c'\]")
def an_input_of_another_name():
    a, b = Input((8,), name="a"), Input((8,), name="b")
    model = Model([a, b], Dense(3)(a + b), name="pair")
    model.predict({"a": X, "c": X}, verbose=0)  # !


@mistake(DataError, r"y has 1 arrays for 2 outputs \('size', 'kind'\)")
def too_few_outputs():
    model = two_heads()
    model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(ArgumentError, r"`loss` names 'sort', .* outputs are 'size', 'kind'")
def a_loss_for_an_unknown_output():
    model = two_heads(loss={"size": "mse", "sort": "mse"})
    model.fit(X, [ONE_HOT[:, :1], ONE_HOT], verbose=0)  # !


@mistake(ArgumentError, r"`metrics` names 'sort', .* outputs are 'size', 'kind'")
def a_metric_for_an_unknown_output():
    model = two_heads(metrics={"sort": ["mae"]})
    model.fit(X, [ONE_HOT[:, :1], ONE_HOT], verbose=0)  # !


@mistake(DataError, "y names 'sort', .* outputs are 'size', 'kind'")
def labels_for_an_unknown_output():
    model = two_heads()
    model.fit(X, {"size": ONE_HOT[:, :1], "sort": ONE_HOT}, verbose=0)  # !


@mistake(ArgumentError, "set_weights of 'small' got 1 arrays, but it has 2", r"kernel \(3, 2\)", r"bias \(2,\)")
def too_few_weights():
    layer = Dense(2, name="small")
    layer.build((None, 3))
    layer.set_weights([np.ones((3, 2))])  # !


@mistake(ShapeError, r"'small/kernel' has the shape \(3, 2\), got an array of shape \(4, 2\)")
def weights_of_another_shape():
    layer = Dense(2, name="small")
    layer.build((None, 3))
    layer.set_weights([np.ones((4, 2)), np.ones(2)])  # !


@mistake(NotBuiltError, "'later' has no inputs yet", "Begin a Sequential with an Input")
def what_a_model_has_only_when_it_is_built():
    model = Sequential([Dense(2)], name="later")
    model.inputs  # !  # noqa: B018


# ---- training


@mistake(StateError, r"call `compile\(\)` before calling `fit\(\)`", "'net'")
def fit_before_compile():
    model = Sequential([Input((8,)), Dense(1)], name="net")
    model.fit(X, ONE_HOT)  # !


@mistake(StateError, "No loss to compute for model 'net'", "`loss` argument")
def fit_without_a_loss():
    model = classifier(None)
    model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(DataError, "output 'out'|the model has a loss", "y has nothing for it")
def fit_without_labels():
    model = classifier()
    model.fit(X, verbose=0)  # !


@mistake(
    StateError, "trains '.*extra/kernel', '.*extra/bias', which its optimizer 'sgd' does not know", "new optimizer"
)
def an_optimizer_of_another_model():
    optimizer = gnomon.optimizers.SGD()
    first, second = Sequential([Input((8,)), Dense(3)]), Sequential([Input((8,)), Dense(3, name="extra")])
    for model in (first, second):
        model.compile(optimizer, "mse")
        model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(DataError, "same number of samples", "'x' sizes: 10, 'y' sizes: 8")
def labels_of_another_length():
    model = classifier()
    model.fit(X, ONE_HOT[:8], verbose=0)  # !


@mistake(DataError, "'sample_weight' sizes: 9")
def weights_of_another_length():
    model = classifier()
    model.fit(X, ONE_HOT, sample_weight=np.ones(9), verbose=0)  # !


@mistake(DataError, "x holds NaN, first at position .3, 5. of shape .10, 8.")
def nan_in_the_inputs():
    model = classifier()
    x = X.copy()
    x[3, 5] = x[7, 0] = np.nan
    model.fit(x, ONE_HOT, verbose=0)  # !


@mistake(DataError, "batch 1: x holds NaN, first at position .0, 0.")
def nan_in_a_batch():
    def batches():
        yield X, ONE_HOT
        yield X * np.nan, ONE_HOT

    model = classifier()
    model.fit(batches(), verbose=0)  # !


@mistake(DataError, "y holds NaN, first at position .0, 0.")
def nan_in_the_labels():
    model = classifier()
    model.fit(X, ONE_HOT * np.nan, verbose=0)  # !


@mistake(
    DataError, "'sparse_categorical_crossentropy' of the output 'out'", "class numbers, got 0.5 at position 0", "mse"
)
def labels_between_the_classes():
    model = classifier("sparse_categorical_crossentropy")
    model.fit(X, LABELS + 0.5, verbose=0)  # !


@mistake(
    DataError, "output 'out' takes the class numbers 0 to 2", "got 3 at position 2", "go from 1 to 3", "pass y - 1"
)
def labels_out_of_range():
    model = classifier("sparse_categorical_crossentropy")
    model.fit(X, LABELS + 1, verbose=0)  # !


@mistake(DataError, "output 'kind' takes the class numbers 0 to 2", "got -1 at position .0, 0. of shape .10, 1.")
def negative_labels_of_one_head():
    model = two_heads(loss={"size": "mse", "kind": "sparse_categorical_crossentropy"})
    model.train_on_batch(X, {"size": X[:, :1], "kind": LABELS[:, None] - 1})  # !


@mistake(DataError, "validation_data: the loss .* class numbers 0 to 2", "got 5 at position 0")
def validation_labels_out_of_range():
    model = classifier("sparse_categorical_crossentropy")
    model.fit(X, LABELS, validation_data=(X, LABELS + 5), verbose=0)  # !


@mistake(DataError, "class numbers 0 to 2", "got 7")
def labels_out_of_range_in_a_batch():
    model = classifier("sparse_categorical_crossentropy")
    model.fit(((X, LABELS + k) for k in (0, 7)), verbose=0)  # !


@mistake(DataError, "class numbers 0 to 2", "got 3")
def labels_out_of_range_when_evaluated():
    model = classifier("sparse_categorical_crossentropy")
    model.evaluate(X, LABELS + 1, verbose=0)  # !


@mistake(DataError, "'binary_crossentropy' of the output 'yes' takes labels from 0 to 1, got 2", "'sparse_categorical")
def three_classes_for_binary_crossentropy():
    model = Sequential([Input((8,)), Dense(1, activation="sigmoid", name="yes")])
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, LABELS, verbose=0)  # !


@mistake(DataError, "x must hold numbers", "dtype <U", r"shape \(10, 8\)")
def text_for_training():
    model = classifier()
    model.fit(X.astype(str), ONE_HOT, verbose=0)  # !


@mistake(DTypeError, "real numbers, got an array of text", r"\(10, 8\)", "layer 'net'")
def text_for_a_model():
    model = classifier()
    model(X.astype(str))  # !


@mistake(DTypeError, "real numbers, got an array of complex numbers", "layer 'narrow'")
def complex_numbers():
    Dense(3, name="narrow")(X * 1j)  # !


@mistake(DataError, "the data set is empty")
def no_samples():
    model = classifier()
    model.fit(X[:0], ONE_HOT[:0], verbose=0)  # !


@mistake(DataError, "the data set is empty: it yielded no batch")
def a_generator_of_nothing():
    model = classifier()
    model.fit(iter([]), verbose=0)  # !


@mistake(DataError, "`x`, `.x,.`, `.x, y.`, or `.x, y, sample_weight.`, got 4 parts")
def a_generator_of_something_else():
    model = classifier()
    model.fit(((X, ONE_HOT, None, None) for _ in range(2)), verbose=0)  # !


@mistake(ArgumentError, "`x` as a generator, `y` should not be passed")
def labels_beside_a_generator():
    model = classifier()
    model.fit(((X, ONE_HOT) for _ in range(2)), ONE_HOT, verbose=0)  # !


@mistake(ArgumentError, "validation_split must be between 0 and 1, got 1.5")
def a_validation_split_above_one():
    model = classifier()
    model.fit(X, ONE_HOT, validation_split=1.5, verbose=0)  # !


@mistake(ArgumentError, "validation_split=0.95 of 10 samples leaves 0 for training and 10 for validation")
def a_validation_split_that_leaves_nothing():
    model = classifier()
    model.fit(X, ONE_HOT, validation_split=0.95, verbose=0)  # !


@mistake(ArgumentError, "`validation_split` is only supported for arrays")
def a_validation_split_of_a_generator():
    model = classifier()
    model.fit(((X, ONE_HOT) for _ in range(2)), validation_split=0.5, verbose=0)  # !


@mistake(DataError, "validation_data: .*'x' sizes: 10, 'y' sizes: 5")
def validation_labels_of_another_length():
    model = classifier()
    model.fit(X, ONE_HOT, validation_data=(X, ONE_HOT[:5]), verbose=0)  # !


@mistake(ArgumentError, "batch_size must be a positive integer, got 0")
def a_batch_size_of_zero():
    model = classifier()
    model.fit(X, ONE_HOT, batch_size=0, verbose=0)  # !


@mistake(ArgumentError, "epochs must be an integer >= 0, got 2.5")
def half_an_epoch():
    model = classifier()
    model.fit(X, ONE_HOT, epochs=2.5, verbose=0)  # !


@mistake(ArgumentError, "class_weight must be a dictionary from class to weight")
def class_weights_in_a_list():
    model = classifier()
    model.fit(X, ONE_HOT, class_weight=[1.0, 2.0, 3.0], verbose=0)  # !


@mistake(ArgumentError, "instances of gnomon.callbacks.Callback", r"write EarlyStopping\(...\)")
def a_callback_that_is_a_class():
    model = classifier()
    model.fit(X, ONE_HOT, callbacks=[gnomon.callbacks.EarlyStopping], verbose=0)  # !


@mistake(ArgumentError, "the loss 'lambda' returned None")
def a_loss_that_returns_nothing():
    model = classifier(lambda y, p: None)
    model.fit(X, ONE_HOT, verbose=0)  # !


@mistake(ArgumentError, "cannot take 5 as loss", "a name, .* or a function")
def a_loss_that_is_a_number():
    model = Sequential([Input((8,)), Dense(1)])
    model.compile("sgd", 5)  # !


# ---- graphs and functions


@mistake(DisconnectedError, r"<Variable w float32\[3\]>", "disconnected_inputs='ignore'")
def a_gradient_that_is_disconnected():
    a, w = gnomon.fvector("a"), gnomon.Variable(np.ones(3, "float32"), name="w")
    gnomon.grad(ops.sum(a), w)  # !


@mistake(ShapeError, "scalar cost", r"float32\[a_0\]", "sum or mean")
def a_gradient_of_a_vector():
    a = gnomon.fvector("a")
    cost = a * 2
    gnomon.grad(cost, a)  # !


@mistake(GraphError, r"update of <Variable w float32\[3\]> must be float32\[3\], got float32\[a_0, a_1\]")
def an_update_of_another_shape():
    w, a = gnomon.Variable(np.ones(3, "float32"), name="w"), gnomon.fmatrix("a")
    gnomon.function([a], [], updates={w: a})  # !


@mistake(GraphError, r"update of <Variable w int32\[3\]> must be int32\[3\], got float32\[3\]")
def an_update_of_another_dtype():
    w = gnomon.Variable(np.ones(3, "int32"), name="w")
    gnomon.function([], [], updates={w: w + 1.5})  # !


@mistake(GraphError, r"updates are of variables, got <Tensor a float32\[a_0\]>")
def an_update_of_an_input():
    a = gnomon.fvector("a")
    gnomon.function([a], [], updates={a: a + 1})  # !


@mistake(GraphError, r"'plus': the outputs depend on the input 'b' \(float32\[b_0\]\), which is not among the inputs")
def an_input_that_is_not_given():
    a, b = gnomon.fvector("a"), gnomon.fvector("b")
    gnomon.function([a], a + b, name="plus")  # !


@mistake(GraphError, r"the input <Tensor a float32\[a_0\]> is given twice")
def an_input_given_twice():
    a = gnomon.fvector("a")
    gnomon.function([a, a], a)  # !


@mistake(GraphError, "do not depend on the input 'b'", "on_unused_input='ignore'")
def an_input_that_is_not_used():
    a, b = gnomon.fvector("a"), gnomon.fvector("b")
    gnomon.function([a, b], a)  # !


@mistake(GraphError, r"<Tensor bool\[\]> is symbolic and has no truth value", "ops.where or gnomon.ops.cond")
def the_truth_of_a_symbolic_tensor():
    a = gnomon.fvector("a")
    if ops.sum(a) > 0:  # !
        pass


@mistake(GraphError, r"float32\[a_0\] depends on the input 'a'", "gnomon.function")
def the_value_of_a_symbolic_tensor():
    a = gnomon.fvector("a")
    (a * 2).numpy()  # !


@mistake(GraphError, r"float32\[batch, 3\] depends on the input 'features'")
def numpy_of_a_symbolic_tensor():
    a = Input((3,), name="features")
    np.asarray(a)  # !


@mistake(GraphError, "the variable 'w' that the graph reads does not exist any more")
def a_variable_that_is_gone():
    a = gnomon.fvector("a")

    def scaled():
        w = gnomon.Variable(np.ones(3, "float32"), name="w")
        return a * w

    product = scaled()
    gc.collect()
    gnomon.function([a], product)  # !


@mistake(DTypeError, "positions must be integers", r"float32\[i_0\]")
def positions_that_are_no_integers():
    a, i = gnomon.fvector("a"), gnomon.fvector("i")
    ops.take(a, i)  # !


@mistake(DataError, "double needs the argument 'a'")
def an_argument_that_is_missing():
    a = gnomon.fvector("a")
    double = gnomon.function([a], a * 2, name="double")
    double()  # !


@mistake(DataError, "'a' of 'double' needs float32.a_0.", r"shape \(2, 2\)")
def an_argument_of_another_rank():
    a = gnomon.fvector("a")
    double = gnomon.function([a], a * 2, name="double")
    double(np.ones((2, 2), "float32"))  # !


@mistake(DataError, "'a' must be int32.a_0., got float64")
def an_argument_of_another_dtype():
    a = gnomon.ivector("a")
    double = gnomon.function([a], a * 2, name="double")
    double(np.array([0.5, 1.5]))  # !


@mistake(DataError, "a_0 is 2, b_0 is 3", r"test_errors\.py:\d+")
def arguments_that_do_not_fit_together():
    a, b = gnomon.fvector("a"), gnomon.fvector("b")
    plus = gnomon.function([a, b], a + b, name="plus")
    plus(np.ones(2, "float32"), np.ones(3, "float32"))  # !


# ---- the test of all these


def line_of(case):
    lines, start = inspect.getsourcelines(case)
    (place,) = [start + k for k, line in enumerate(lines) if "  # !" in line]
    return place


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistake(name):
    case, error, parts = MISTAKES[name]
    with pytest.raises(error) as raised:
        case()
    message = str(raised.value)
    assert isinstance(raised.value, GnomonError)
    for part in parts:
        assert re.search(part, message, re.DOTALL), f"{part!r} is not said in: {message}"
    own = [f.lineno for f in traceback.extract_tb(raised.value.__traceback__) if f.filename == __file__]
    if own[-1] != line_of(case):
        assert f"{__file__}:{line_of(case)}" in message, f"line {own[-1]} is shown instead of {line_of(case)}"


@pytest.mark.parametrize("name", [name for name in MISTAKES if "'layer " in str(MISTAKES[name][2])])
def test_layers_say_where_they_were_called(name):
    case, _, _ = MISTAKES[name]
    with pytest.raises(GnomonError) as raised:
        case()
    assert f"at {__file__}:{line_of(case)}" in str(raised.value)


# ---- no mistakes


def test_sharing_a_layer_is_no_mistake():
    shared = Dense(3, name="shared")
    models = []
    for _ in range(2):
        inputs = Input((8,))
        models.append(Model(inputs, shared(inputs)))
        models[-1].compile("sgd", "mse")
    for model in models:
        before = shared.kernel.numpy()
        model.fit(X, ONE_HOT, verbose=0)
        assert not np.array_equal(before, shared.kernel.numpy())
    np.testing.assert_array_equal(models[0].predict(X, verbose=0), models[1].predict(X, verbose=0))


def test_labels_that_count_for_nothing_may_be_anything():
    model = classifier("sparse_categorical_crossentropy")
    labels = LABELS.copy()
    labels[3] = 99
    with pytest.raises(DataError, match="got 99 at position 3"):
        model.fit(X, labels, verbose=0)
    weights = np.ones(10)
    weights[3] = 0
    model.fit(X, labels, sample_weight=weights, verbose=0)
    model = classifier(gnomon.losses.SparseCategoricalCrossentropy(ignore_class=99))
    model.fit(X, labels, verbose=0)
    model = classifier("sparse_categorical_crossentropy")
    model.fit(X, LABELS.astype(float), verbose=0)  # whole numbers, of whatever dtype


def test_an_error_leaves_the_model_usable():
    model = classifier("sparse_categorical_crossentropy")
    before = model.get_weights()
    for y in (LABELS + 1, LABELS[:4], ONE_HOT):
        with pytest.raises(GnomonError):
            model.fit(X, y, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(X, LABELS, verbose=0)


def test_a_layer_that_does_not_fit_is_not_added():
    built = Dense(3)
    built.build((None, 5))
    model = Sequential([Input((4,)), Dense(2)])
    with pytest.raises(ShapeError):
        model.add(built)
    model.add(Dense(3))
    assert model.predict(np.ones((2, 4)), verbose=0).shape == (2, 3)


# ---- what Keras refuses


RECORDED = [(topic, name) for topic, cases in load("errors").items() for name in cases]
ACCEPTED = {
    "class_weight and sample_weight", "learning rate as int", "metrics as text", "old argument lr",
    "old argument nb_epoch", "x as a list of lists",
}  # fmt: skip
"""What gnomon takes and Keras does not."""
NATURAL = {
    "Lambda that fails": AttributeError,  # the user's own error passes through
    "custom layer whose call fails": RuntimeError,
    "kernel before build": AttributeError,
    "unknown argument of compile": TypeError,
    "unknown argument of fit": TypeError,
    "assigning to an element": TypeError,
}
"""Errors of Python's own."""
MISSING = {"UnitNormalization with a wrong axis"}
"""Cases of things that do not exist yet."""


@pytest.mark.parametrize("topic, name", RECORDED, ids=[f"{topic}: {name}" for topic, name in RECORDED])
@pytest.mark.filterwarnings("ignore")
def test_what_keras_refuses_is_refused(topic, name):
    case = load("errors")[topic][name]
    if name in MISSING:
        pytest.skip("there is no such thing yet")
    found = play(case, gnomon)
    if name in NATURAL:
        assert found["type"] == NATURAL[name].__name__
    elif case["type"] is not None and name not in ACCEPTED:
        assert found["type"] is not None, f"Keras says: {case['message']}"
        kind = getattr(errors, found["type"], None)
        assert kind is not None, f"{found['type']} is not one of gnomon's errors: {found['message']}"
        assert issubclass(kind, GnomonError)


def test_errors_derive_from_python_s_and_are_in_the_tree():
    kinds = [k for k in vars(errors).values() if inspect.isclass(k) and issubclass(k, GnomonError)]
    for kind in kinds:
        assert kind is GnomonError or any(b.__module__ == "builtins" and b is not Exception for b in kind.__mro__[1:-2])
        assert kind.__name__ in errors.__doc__
