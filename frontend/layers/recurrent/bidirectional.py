"""Bidirectional: a recurrent layer from both ends of the sequences."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, StateError
from gnomon.layers.layer import Layer
from gnomon.registry import deserialize_object, serialize_object

NEEDED = ("go_backwards", "stateful", "return_sequences", "return_state")
"""Attributes that make a layer recurrent."""
MODES = ("sum", "mul", "ave", "concat", None)


class Bidirectional(Layer):
    """A recurrent layer that goes through the sequences forwards, and one like it that goes backwards.

    layer            LSTM, GRU, RNN or any layer with their attributes and arguments; both directions are made anew from
                     its configuration
    merge_mode       what becomes of both outputs: 'concat' along the last axis, 'sum', 'mul', 'ave'; None gives both
    weights          first values, those of the forward layer before those of the backward one
    backward_layer   another layer for the way back, made with `go_backwards=True`
    result: that of the layers, merged, the backward outputs in the order of the sequences; with `return_state` also the
    states of the forward layer, then those of the backward one

    `initial_state` is a list of the forward states, then the backward ones. The outputs of masked steps are 0.
    Raises ArgumentError for another mode, and for layers that do not go together.
    Schuster, Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ):
        for name, value in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(value, Layer) and (value is not None or name == "layer"):
                raise ArgumentError(f"`{name}` of Bidirectional is a recurrent layer, got {value!r}")
        if merge_mode not in MODES:
            raise ArgumentError(f"Invalid merge mode. Received: {merge_mode}. Merge mode should be one of {MODES}")
        for each in (layer, backward_layer) if backward_layer is not None else (layer,):
            missing = next((name for name in NEEDED if not hasattr(each, name)), None)
            if missing is not None:
                raise ArgumentError(f"Bidirectional takes recurrent layers; {each!r} has no attribute {missing!r}")
        super().__init__(**kwargs)
        self.forward_layer = _made_again(layer, "forward_")
        if backward_layer is None:
            self.backward_layer = _made_again(layer, "backward_", go_backwards=True)
        else:
            self.backward_layer = backward_layer
        self._check_layers()
        for each in (self.forward_layer, self.backward_layer):
            if getattr(each, "zero_output_for_mask", None) is not None:
                each.zero_output_for_mask = each.return_sequences
        self.merge_mode = merge_mode
        self.stateful, self.return_sequences = layer.stateful, layer.return_sequences
        self.return_state = layer.return_state
        self.supports_masking = True
        self.input_spec = layer.input_spec
        self._first_weights = None if weights is None else list(weights)

    def _check_layers(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ArgumentError(
                "Forward layer and backward layer should have different `go_backwards` value, got "
                f"{forward.go_backwards} for both"
            )
        for name in NEEDED[1:]:
            a, b = getattr(forward, name), getattr(backward, name)
            if a != b:
                raise ArgumentError(
                    f"Forward layer and backward layer are expected to have the same value for attribute {name!r}, got "
                    f"{a!r} for forward layer and {b!r} for backward layer"
                )

    def build(self, sequences_shape, initial_state_shape=None):
        for each in (self.forward_layer, self.backward_layer):
            if not each.built:
                each.build(sequences_shape)
        if self._first_weights is not None:
            self.set_weights(self._first_weights)
            self._first_weights = None

    def get_build_config(self):
        config = super().get_build_config()
        shapes = (config or {}).get("shapes_dict")  # that of an initial state says nothing new
        return config if shapes is None else {"input_shape": shapes["sequences_shape"]}

    def call(self, sequences, initial_state=None, mask=None, training=None):
        states: list[Any] = [None, None]
        if initial_state is not None:
            given = list(initial_state)
            half = len(given) // 2
            if len(given) % 2:
                raise ArgumentError(
                    f"initial_state of layer {self.name!r} holds the states of the forward layer, then as many of the "
                    f"backward layer; got {len(given)}"
                )
            states = [given[:half], given[half:]]
        found = []
        for each, state in zip((self.forward_layer, self.backward_layer), states, strict=True):
            offered = {"initial_state": state, "mask": mask, "training": training}
            taken = each._call_signature().parameters
            found.append(each(sequences, **{k: v for k, v in offered.items() if k in taken and v is not None}))
        after: tuple = ()
        if self.return_state:
            after = tuple(state for each in found for state in each[1:])
            found = [each[0] for each in found]
        forward, backward = (ops.cast(each, self.compute_dtype) for each in found)
        if self.return_sequences:
            backward = ops.flip(backward, 1)
        output = self._merged(forward, backward)
        outputs = output if isinstance(output, tuple) else (output,)
        return (*outputs, *after) if self.return_state else output

    def _merged(self, forward: Any, backward: Any) -> Any:
        match self.merge_mode:
            case "concat":
                return ops.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "ave":
                return (forward + backward) / 2
            case "mul":
                return forward * backward
        return forward, backward

    @property
    def states(self) -> Any:
        """The Variables that keep the states of both directions; None if there are none."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return None if forward is None or backward is None else (*forward, *backward)

    def reset_state(self) -> None:
        """Set the kept states to zero. Raises StateError if the layers are not stateful."""
        if not self.stateful:
            raise StateError(f"layer {self.name!r} keeps no state from call to call: its layer was not stateful=True")
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """The same as `reset_state`."""
        self.reset_state()

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        found = self.forward_layer.compute_output_shape(sequences_shape)
        output, states = (found[0], found[1:]) if self.return_state else (found, ())
        if self.merge_mode == "concat":
            output = (*output[:-1], None if output[-1] is None else 2 * output[-1])
        outputs = (output, output) if self.merge_mode is None else (output,)
        if self.return_state:
            return (*outputs, *states, *states)
        return list(outputs) if self.merge_mode is None else output

    def compute_mask(self, sequences, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        mask = mask if self.return_sequences else None
        masks = (mask, mask) if self.merge_mode is None else (mask,)
        return masks if self.merge_mode is None or self.return_state else mask

    def get_config(self):
        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize_object(self.forward_layer),
            "backward_layer": serialize_object(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        layers = {k: deserialize_object(config.get(k), custom_objects) for k in ("layer", "backward_layer")}
        return cls(**{**config, **layers})


def _made_again(layer: Layer, prefix: str, **changes: Any) -> Any:
    """A new layer like `layer`, its name with the prefix, its weights its own."""
    config = serialize_object(layer)
    config["config"] = {**config["config"], "name": prefix + layer.name.removeprefix(prefix), **changes}
    own = {type(part).__name__: type(part) for part in layer._flatten_layers()}  # they need not be registered
    return deserialize_object(config, own)
