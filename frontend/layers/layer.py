"""Layer: a function of tensors with state, called on symbolic tensors to define and on arrays to compute at once."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import numpy as np

from gnomon import checkpointing
from gnomon.compiler import dtypes
from gnomon.compiler.errors import (
    ArgumentError,
    GnomonError,
    GraphError,
    NotBuiltError,
    NotWrittenError,
    ShapeError,
    StateError,
    nearest,
)
from gnomon.compiler.graph import layer_scope, user_line
from gnomon.compiler.ops import build as graph_of
from gnomon.eager import as_tensor, evaluate_all
from gnomon.layers.calls import Arguments, Call, as_numbers, is_symbolic_call, shapes_for
from gnomon.layers.input_spec import InputSpec, check_inputs
from gnomon.layers.policy import DTypePolicy, get_policy, serialize_policy
from gnomon.layers.tracking import LayerState, Tracked
from gnomon.naming import auto_name
from gnomon.surroundings import autocasting, calling, path_of, surroundings
from gnomon.tensor import Array, Tensor, as_dims, new_input, node_of
from gnomon.utils import tree
from gnomon.variable import Variable, collecting_updates, is_tracing

KERAS_ONLY = {"quantization_config", "lora_rank", "lora_alpha", "gptq_unpacked_column_size"}
"""Arguments that Keras's configurations have and that gnomon takes only if they are None."""


def _building(build: Callable) -> Callable:
    """Wrap `build`: weights are named below the layer, the shapes are remembered, `built` is set."""

    @functools.wraps(build)
    def wrapped(self: Layer, *args: Any, **kwargs: Any) -> None:
        state = self._layer_state
        if state.building:  # super().build(...)
            return build(self, *args, **kwargs)
        state.building = True
        try:
            with path_of(self) as path:
                state.path = state.path or path
                build(self, *args, **kwargs)
        finally:
            state.building = False
        state.build_arguments = dict(list(inspect.signature(build).bind(self, *args, **kwargs).arguments.items())[1:])
        self.built = True

    return wrapped


class Layer(Tracked):
    """Base of all layers. A subclass writes `call`, and `build(input_shape)` to make its weights with `add_weight`.

    trainable    whether optimizers change its weights
    dtype        of its weights and computations: a name such as 'float64', or a DTypePolicy
    autocast     whether float inputs are converted to that dtype
    name         unique in a model; made from the class's name if left out (dense, dense_1)
    activity_regularizer   a function of the output whose value, over the batch size, is added to the loss
    """

    def __new__(cls, *args: Any, **kwargs: Any):
        layer = super().__new__(cls)
        object.__setattr__(layer, "_layer_state", LayerState(args, kwargs))
        return layer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _building(cls.__dict__["build"])  # type: ignore[method-assign]  # the same, wrapped

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ):
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ArgumentError(f"a layer's name is a string without '/', got name={name!r}")
        if not isinstance(trainable, bool):
            raise ArgumentError(f"trainable must be True or False, got {trainable!r}")
        self.name = name or auto_name(type(self).__name__)
        self._layer_state.ready = True
        self._layer_state.remat = checkpointing.get_current_remat_mode()
        self._layer_state.input_shape_argument = _take_input_shape(type(self).__name__, kwargs)
        if kwargs:
            known = [*inspect.signature(type(self).__init__).parameters, "name", "dtype", "trainable"][1:]
            hint = nearest(next(iter(kwargs)), (k for k in known if k != "kwargs"))
            raise ArgumentError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}.{hint}")
        self._dtype_policy = get_policy(dtype)
        self.autocast = autocast
        self._trainable = trainable
        self.built = False
        self.input_spec: Any = None
        self.supports_masking = type(self).compute_mask is not Layer.compute_mask
        self.activity_regularizer = None
        if activity_regularizer is not None:
            from gnomon import regularizers

            self.activity_regularizer = regularizers.get(activity_regularizer)

    # ---- dtypes

    @property
    def dtype_policy(self) -> DTypePolicy:
        return self._dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        self._dtype_policy = get_policy(value)

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        return self._dtype_policy.variable_dtype

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        return self._dtype_policy.compute_dtype

    input_dtype = compute_dtype

    # ---- state

    @property
    def path(self) -> str | None:
        """The names of the layers around it and its own, once built: 'encoder/dense'."""
        return self._layer_state.path

    def add_weight(
        self,
        shape: Sequence[int] | int | None = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        name: str | None = None,
    ) -> Variable:
        """Make a weight. The initializer defaults to 'glorot_uniform' for floats and 'zeros' for others.

        Raises ShapeError for a shape with open sizes.
        """
        from gnomon import constraints, initializers, regularizers

        if isinstance(shape, str):
            raise ArgumentError(f"add_weight takes the name as a keyword: add_weight(shape=..., name={shape!r})")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if any(not isinstance(d, (int, np.integer)) for d in sizes):
            raise ShapeError(
                f"the weight {name!r} of layer {self.name!r} needs a known shape, got {sizes}: give the input's axis a "
                "size instead of None"
            )
        dtype = self.variable_dtype if dtype is None else dtypes.canonical(dtype)
        if initializer is None:
            initializer = "glorot_uniform" if dtypes.is_float(dtype) else "zeros"
        with path_of(self) as path:
            label = name or "variable"
            variable = Variable(
                initializers.get(initializer), sizes, dtype, trainable, f"{self._layer_state.path or path}/{label}",
                autocast=autocast, aggregation=aggregation,
            )  # fmt: skip
        variable.name = label
        variable.regularizer, variable.constraint = regularizers.get(regularizer), constraints.get(constraint)
        self._layer_state.kinds[variable] = trainable
        if not self.trainable:
            variable.trainable = False
        return variable

    add_variable = add_weight

    def build(self, input_shape: Any = None) -> None:
        """Make the weights for inputs of this shape. Overridden by layers that have any."""

    build = _building(build)

    def _build_for(self, arguments: Arguments) -> None:
        shapes = arguments.shapes()
        self.build(**shapes_for(self.build, shapes, type(self).__name__))

    def get_build_config(self) -> dict[str, Any] | None:
        """The shapes it was built with, None if it is not built."""
        arguments = self._layer_state.build_arguments
        if arguments is None:
            return None
        return {"input_shape": next(iter(arguments.values()))} if len(arguments) == 1 else {"shapes_dict": arguments}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build with the shapes of `get_build_config`."""
        if config and "input_shape" in config:
            self.build(config["input_shape"])
        elif config and "shapes_dict" in config:
            self.build(**config["shapes_dict"])

    # ---- calls

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The output, as an expression of symbolic tensors. Written by every layer."""
        raise NotWrittenError(
            f"Layer {type(self).__name__} does not have a `call` method: write call(self, inputs), which returns the "
            f"output.{nearest('call', vars(type(self))) if type(self) is not Layer else ''}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._layer_state.ready:
            raise StateError(
                f"In layer {type(self).__name__!r}, `super().__init__()` must be the first statement of `__init__`"
            )
        try:
            if surroundings() is not None or is_tracing():
                return self._call(args, kwargs)
            if not is_symbolic_call(args, kwargs):
                return self._call_at_once(args, kwargs)
            with collecting_updates():  # a definition changes no state: the updates are made anew when it is traced
                outputs = self._call(args, kwargs, definition=True)
            return Call(self, args, kwargs, outputs).structure
        except GnomonError as error:
            _say_where(error, self, args, kwargs)
            raise

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any], definition: bool = False) -> Any:
        """Call on Tensors and constants. `definition`: to define a graph, not while a program is traced."""
        around = surroundings()
        if around is None:
            self._clear_losses()
        args = [tree.map_structure(self._convert, a) for a in args]
        kwargs = {k: tree.map_structure(self._convert, v) for k, v in kwargs.items()}
        self._check_positional(args)
        arguments = Arguments(self, self._call_signature(), args, kwargs)
        self._check_inputs(arguments.first)
        with path_of(self):
            if not self.built:
                self._build_for(arguments)
                self._check_inputs(arguments.first)
            training = self._training(arguments, around)
            if "training" in arguments.values and training is not None:
                arguments.values["training"] = training
            mask = self._fill_masks(arguments)
            mixed = self.compute_dtype if self.autocast and self.compute_dtype != self.variable_dtype else None
            inside = calling(training, around.definition if around is not None else definition)
            with inside, layer_scope(self.name), autocasting(mixed):
                call = checkpointing.call_of(self, self._layer_state.remat)
                outputs = call(*arguments.bound.args, **arguments.bound.kwargs)
                outputs = tree.map_structure(self._as_output, outputs)
                self._regularize_activity(outputs)
                self._pass_mask(arguments.first, outputs, mask)
        self._layer_state.traced = True
        self._layer_state.output_shapes = tree.map_structure(lambda t: t.shape, outputs)
        return outputs

    def _call_at_once(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call on arrays: trace, compute on NumPy, store what was assigned."""
        values: dict[Any, np.ndarray] = {}
        is_data = lambda x: hasattr(x, "__array__") or hasattr(x, "__dlpack__")
        given, named = tree.map_structure(
            lambda x: as_tensor(as_numbers(x), values) if is_data(x) else x, (list(args), kwargs)
        )
        with collecting_updates() as updates:
            outputs = self._call(given, named)
        layers = self._flatten_layers()
        flat = tree.flatten(outputs)
        losses = [loss for layer in layers for loss in layer._layer_state.losses]
        results = iter(evaluate_all([node_of(t) for t in (*flat, *losses, *updates.values())], values))
        outputs = tree.map_structure(lambda _: np.array(next(results)).view(Array), outputs)
        for layer in layers:
            layer._layer_state.losses = [np.array(next(results)).view(Array) for _ in layer._layer_state.losses]
        for variable in updates:
            variable.buffer.set(next(results))
        return outputs

    def stateless_call(
        self,
        trainable_variables: Sequence[Any],
        non_trainable_variables: Sequence[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Call with these values for the variables and change nothing.

        Returns (outputs, new values of the non-trainable variables), with the losses third if asked. Tensors if
        anything given is symbolic, else arrays. Raises StateError before the layer is built.
        """
        if not self.built:
            raise StateError(f"stateless_call: layer {self.name!r} is not built; call it on data, or build it, first")
        own = self.trainable_variables, self.non_trainable_variables
        given = trainable_variables, non_trainable_variables
        for kind, wanted, got in zip(("trainable", "non-trainable"), own, given, strict=True):
            if len(wanted) != len(got):
                raise ArgumentError(f"layer {self.name!r} has {len(wanted)} {kind} variables, got {len(got)} values")
        values: dict[Any, np.ndarray] = {}
        symbolic = is_symbolic_call([*map(list, given), *args], kwargs)
        known = None if symbolic else values
        args, kwargs = tree.map_structure(
            lambda x: as_tensor(x, known) if hasattr(x, "__array__") else x, (args, kwargs)
        )
        with collecting_updates() as scope:
            for variable, value in zip([*own[0], *own[1]], [*given[0], *given[1]], strict=True):
                scope[variable] = node_of(as_tensor(value, known))
            outputs = self._call(args, kwargs)
            losses = [Tensor(node_of(loss)) for loss in self.losses] if return_losses else []
            state = [Tensor(scope[v]) for v in own[1]]
        self._clear_losses()
        found: tuple = (outputs, state, losses) if return_losses else (outputs, state)
        if not symbolic:
            results = iter(evaluate_all([node_of(t) for t in tree.flatten(list(found))], values))
            found = tree.map_structure(lambda _: np.array(next(results)).view(Array), found)
        return found

    def _call_signature(self) -> inspect.Signature:
        if self._layer_state.signature is None:
            self._layer_state.signature = inspect.signature(self.call)
        return self._layer_state.signature

    def _convert(self, x: Any) -> Any:
        """An argument as `call` gets it: tensor-like things are Tensors, floats in the layer's dtype."""
        if x is None or isinstance(x, (bool, int, float, str)):
            return x
        if not (
            isinstance(x, Tensor)
            or hasattr(x, "__array__")
            or hasattr(x, "__dlpack__")
            or hasattr(x, "__gnomon_node__")
        ):
            return x
        tensor = as_tensor(x if isinstance(x, Tensor) else np.asarray(x))
        wanted = self.input_dtype
        if self.autocast and tensor.dtype != wanted and dtypes.is_float(tensor.dtype) and dtypes.is_float(wanted):
            cast = Tensor(graph_of.cast(tensor.node, wanted), tensor.name, tensor.history)
            cast.mask = tensor.mask
            return cast
        return tensor

    def _check_positional(self, args: Sequence[Any]) -> None:
        for x in tree.flatten(list(args)):
            if x is not None and not isinstance(x, Tensor):
                raise ArgumentError(
                    f"Only input tensors may be passed as positional arguments to layer {self.name!r}; got {x!r} "
                    f"of type {type(x).__name__}. Pass it by name, or make an array of it with numpy.asarray."
                )

    def _check_inputs(self, inputs: Any) -> None:
        if self.input_spec is not None:
            check_inputs(self.input_spec, inputs, self.name)

    def _training(self, arguments: Arguments, around: Any) -> bool | None:
        """Explicit, else that of the call around this one, else the default of `call`."""
        if arguments.training is not None:
            return arguments.training
        if around is not None and around.training is not None:
            return around.training
        return arguments.values.get("training")

    def _fill_masks(self, arguments: Arguments) -> Any:
        """Give `call` the masks of its tensors where it takes them and none is passed; return the first argument's."""
        values, tensors = arguments.values, arguments.tensors
        if len(tensors) == 1 and "mask" in values and values["mask"] is None and "mask" not in tensors:
            values["mask"] = _mask_of(next(iter(tensors.values())))
        elif len(tensors) > 1:
            for name, value in tensors.items():
                if values.get(f"{name}_mask", 0) is None:
                    values[f"{name}_mask"] = _mask_of(value)
        return values["mask"] if values.get("mask") is not None else _mask_of(arguments.first)

    def _pass_mask(self, inputs: Any, outputs: Any, mask: Any) -> None:
        flat = [x for x in tree.flatten(outputs) if isinstance(x, Tensor)]
        if not self.supports_masking:
            if any(m is not None for m in tree.flatten(mask)):
                warnings.warn_explicit(
                    f"Layer {self.name!r} (of type {type(self).__name__}) was passed an input with a mask attached to "
                    "it, but does not support masking: layers after it will not see the mask.",
                    UserWarning, *_user_place(),
                )  # fmt: skip
            return
        if all(x.mask is not None for x in flat):
            return
        masks = self.compute_mask(inputs, mask)
        if masks is not None:
            for x, m in zip(flat, tree.flatten(masks), strict=False):
                if x.mask is None and m is not None:
                    x.mask = m

    def _as_output(self, x: Any) -> Any:
        """A Tensor of its own, so that a mask set on it does not change an input."""
        if x is None:
            raise GraphError(f"layer {self.name!r} returned None from call(): every output must be a tensor")
        made = Tensor(node_of(x), getattr(x, "name", "") or "")
        made.mask = getattr(x, "mask", None)
        return made

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask of the output, given that of the input."""
        return previous_mask

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Symbolic tensors of the type of the output; nothing is recorded."""
        return Context().run(self._trace_alone, args, kwargs)

    def _trace_alone(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        with collecting_updates():
            return self._call(args, kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shape of the output for inputs of the given shapes, None for open sizes. Builds the layer."""

        def tensor(shape: tuple) -> Tensor:
            return Tensor(new_input("x", self.input_dtype, as_dims(shape, f"{self.name}_{next(number)}", batch=True)))

        number = iter(range(1_000_000))
        inputs = [tree.map_shape_structure(tensor, shape) for shape in args]
        named = {k.removesuffix("_shape"): tree.map_shape_structure(tensor, shape) for k, shape in kwargs.items()}
        if len(named) == 1 and not inputs:  # compute_output_shape(input_shape=...), whatever call names its argument
            inputs, named = list(named.values()), {}
        return tree.map_structure(lambda t: t.shape, self.compute_output_spec(*inputs, **named))

    @property
    def input(self) -> Any:
        """What the layer was first called on, symbolically."""
        call = self._first_call("input")
        given = [*call.args, *(v for v in call.kwargs.values() if isinstance(v, Tensor))]
        return given[0] if len(given) == 1 else given

    @property
    def output(self) -> Any:
        """What its first symbolic call gave."""
        return self._first_call("output").structure

    def _first_call(self, what: str) -> Call:
        if not self._layer_state.calls:
            raise NotBuiltError(
                f"layer {self.name!r} has never been called on a symbolic tensor, so it has no {what} yet"
            )
        return self._layer_state.calls[0]

    # ---- losses

    def add_loss(self, loss: Any) -> None:
        """Add a scalar to what training minimises; called inside `call`."""
        for x in tree.flatten(loss):
            if not isinstance(x, (Tensor, int, float, np.ndarray, np.generic)):
                raise ArgumentError(f"add_loss takes a scalar tensor made inside call(), got {x!r}")
            self._layer_state.losses.append(Tensor(node_of(x)))

    @property
    def losses(self) -> list[Any]:
        """The scalars of `add_loss` in the latest call, and the regularizers of trainable weights."""
        added = [loss for layer in self._flatten_layers() for loss in layer._layer_state.losses]
        return added + [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    def _clear_losses(self) -> None:
        for layer in self._flatten_layers():
            layer._layer_state.losses.clear()

    def _regularize_activity(self, outputs: Any) -> None:
        if self.activity_regularizer is None:
            return
        for x in tree.flatten(outputs):
            loss = self.activity_regularizer(x)
            if x.ndim:
                loss = loss / Tensor(graph_of.size(x.node.shape[0], loss.dtype))
            self.add_loss(loss)

    # ---- configuration

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes an equal layer from, weights apart.

        A subclass that does not override it gets the arguments it was made with, if all are numbers, strings and the
        like. Raises NotImplementedError otherwise.
        """
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize_policy(self.dtype_policy),
        }
        if self.activity_regularizer is not None:
            from gnomon import regularizers

            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if type(self).get_config is Layer.get_config:
            config |= {k: v for k, v in self._init_arguments().items() if k not in config}
        return config

    def _init_arguments(self) -> dict[str, Any]:
        args, kwargs = self._layer_state.init_arguments
        signature = inspect.signature(type(self).__init__)
        given: dict[str, Any] = {}
        for name, value in list(signature.bind(self, *args, **kwargs).arguments.items())[1:]:
            kind = signature.parameters[name].kind
            given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        for name, value in given.items():
            if any(x is not None and not isinstance(x, (bool, int, float, str)) for x in tree.flatten(value)):
                raise NotImplementedError(
                    f"{type(self).__name__} was made with {name}={value!r}, which cannot be written down by itself: "
                    f"give the class a `get_config()` that returns {{**super().get_config(), {name!r}: ...}}"
                )
        return given

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A new layer from what `get_config` gave. Raises ArgumentError for a configuration of something else."""
        config = dict(config)
        for name in KERAS_ONLY & config.keys():
            if config.pop(name) is not None:
                raise ArgumentError(
                    f"the configuration of a {cls.__name__} asks for {name}, which gnomon does not have"
                )
        try:
            return cls(**config)
        except TypeError as error:
            if isinstance(error, GnomonError):
                raise
            raise ArgumentError(
                f"cannot make {cls.__name__} from its configuration: {error}. The keys of get_config() must be "
                f"arguments of __init__; got {list(config)}"
            ) from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"

    __str__ = __repr__


def _mask_of(value: Any) -> Any:
    return tree.map_structure(lambda x: getattr(x, "mask", None), value)


def _take_input_shape(layer: str, kwargs: dict[str, Any]) -> tuple | None:
    """The batch shape that older code gives a first layer, with a warning that names the new form."""
    for old in ("input_shape", "input_dim", "batch_input_shape"):
        if old in kwargs:
            value = kwargs.pop(old)
            shape = (value,) if old == "input_dim" or isinstance(value, int) else tuple(value)
            new = f"gnomon.Input(batch_shape={shape})" if old == "batch_input_shape" else f"gnomon.Input(shape={shape})"
            warnings.warn_explicit(
                f"{layer}({old}={value}) is the older form: make {new} the first layer of the model instead",
                UserWarning,
                *_user_place(),
            )
            return shape if old == "batch_input_shape" else (None, *shape)
    return None


def _user_place() -> tuple[str, int]:
    file, line = user_line()
    return file or "<unknown>", line


def _say_where(error: GnomonError, layer: Layer, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Add the layer, what it was called on, and the user's line to the message; only once, for the innermost layer."""
    if getattr(error, "layer", None) is not None:
        return
    error.layer = layer.name  # type: ignore[attr-defined]  # noted on the error for the layers around
    file, line = user_line()
    inputs = [
        f"{getattr(x, 'dtype', type(x).__name__)}{getattr(x, 'shape', '')}"
        for x in tree.flatten([list(args), kwargs])
        if x is not None and not isinstance(x, bool)
    ]
    place = f" at {file}:{line}" if file else ""
    message = str(error.args[0]) if error.args else ""
    error.args = (
        f"{message}\n  layer {layer.name!r} ({type(layer).__name__}) was called on "
        f"{', '.join(inputs) or 'nothing'}{place}",
    )


__all__ = ["InputSpec", "Layer"]
