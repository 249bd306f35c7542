"""Objects are found by name, written as Keras writes them, and made again from that."""

import numpy as np
import pytest

from gnomon import activations, initializers, losses, optimizers, registry
from gnomon.compiler.errors import ArgumentError
from gnomon.registry import deserialize_object, serialize_object


@registry.register_keras_serializable(package="mine")
class Shift(initializers.Initializer):
    def __init__(self, by=1.0):
        self.by = by

    def __call__(self, shape, dtype=None):
        return np.full(shape, self.by, dtype)

    def get_config(self):
        return {"by": self.by}


@registry.register_keras_serializable(package="mine", name="cube")
def cubic(x):
    return x * x * x


class Unregistered(losses.Loss):
    def call(self, y_true, y_pred):
        return y_pred - y_true


def test_registered_classes_and_functions():
    config = initializers.serialize(Shift(2.0))
    assert config["registered_name"] == "mine>Shift"
    assert config["class_name"] == "Shift"
    assert initializers.get(config).by == 2.0
    assert initializers.get("mine>Shift").by == 1.0
    written = activations.serialize(cubic)
    assert written["config"] == "mine>cube"
    assert activations.get(written) is cubic
    assert activations.get("mine>cube") is cubic


def test_scope_and_custom_objects():
    config = losses.serialize(Unregistered(name="u"))
    assert losses.deserialize(config, custom_objects={"Unregistered": Unregistered}).name == "u"
    with registry.custom_object_scope({"Other": Unregistered}):
        assert isinstance(losses.get("Other"), Unregistered)
    with pytest.raises(ArgumentError, match="Unknown loss 'Other'"):
        losses.get("Other")
    with pytest.raises(ArgumentError, match="register_keras_serializable"):
        losses.deserialize({**config, "module": None})


def test_plain_values_survive():
    value = {"a": [1, 2.5, None, "x"], "b": (True, {"c": np.arange(3)}), "s": slice(1, None, 2), "e": ..., "y": b"z"}
    again = deserialize_object(serialize_object(value))
    assert again["a"] == value["a"]
    np.testing.assert_array_equal(again["b"][1]["c"], [0, 1, 2])
    assert (again["s"], again["e"], again["y"]) == (slice(1, None, 2), Ellipsis, b"z")
    assert serialize_object(np.float32(0.5)) == 0.5


def test_nested_objects_survive():
    made = optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))
    again = deserialize_object(serialize_object({"optimizer": made, "loss": losses.Huber(0.5), "fn": losses.mse}))
    assert again["optimizer"].get_config() == made.get_config()
    assert again["loss"].delta == 0.5
    assert again["fn"] is losses.mean_squared_error


def test_shared_objects_are_one():
    shared = initializers.Ones()
    with registry.sharing_objects():
        written = serialize_object([shared, {"k": shared}, initializers.Ones()])
        first, second, other = deserialize_object(written)
    assert written[0]["shared_object_id"] == written[1]["k"]["shared_object_id"] == 1
    assert "shared_object_id" not in written[2]
    assert first is second["k"]
    assert other is not first


def test_code_is_not_run_from_a_configuration():
    with pytest.raises(ArgumentError, match="lambda"):
        serialize_object(lambda x: x)
    with pytest.raises(ArgumentError, match="lambda"):
        deserialize_object({"class_name": "__lambda__", "config": {"value": "abc"}})
    for module, name in (("os", "system"), ("subprocess", "Popen"), ("gnomon.registry", "Registry"), ("nosuch", "X")):
        with pytest.raises(ArgumentError):
            deserialize_object({"module": module, "class_name": name, "config": {}, "registered_name": name})
    with pytest.raises(ArgumentError, match="get_config"):
        serialize_object(object())
