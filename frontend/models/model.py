"""Model: layers grouped into one that can be trained, saved and printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, NotBuiltError, NotWrittenError, nearest
from gnomon.compiler.graph import Node
from gnomon.functions import Function, function
from gnomon.layers.calls import as_numbers
from gnomon.layers.input_spec import InputSpec, check_inputs
from gnomon.layers.layer import Layer
from gnomon.layers.tracking import change_count, note_change
from gnomon.models.graph import CallGraph
from gnomon.models.saveable import Saveable
from gnomon.models.training import Trainer
from gnomon.registry import deserialize_object, serialize_object
from gnomon.surroundings import surroundings
from gnomon.tensor import Array, Tensor, as_dims, new_input
from gnomon.utils import tree
from gnomon.variable import collecting_updates, is_tracing


def _is_functional(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a model is given by tensors: Model(inputs, outputs)."""
    return len(args) == 2 or (len(args) == 1 and "outputs" in kwargs) or ("inputs" in kwargs and "outputs" in kwargs)


class Model(Trainer, Saveable, Layer):
    """A layer with `compile`, `fit`, `evaluate`, `predict` and `summary`.

    Either of tensors, `Model(inputs=..., outputs=...)`, structures of what `Input` and layers gave; or a subclass that
    makes its layers in `__init__` and uses them in `call`.
    """

    keras_module = "keras"

    def __new__(cls, *args: Any, **kwargs: Any):
        if cls is Model and _is_functional(args, kwargs):
            from gnomon.models.functional import Functional

            return super().__new__(Functional, *args, **kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any):
        Trainer.__init__(self)
        self._graph: CallGraph | None = None
        self._compiled_calls: dict[Any, _CompiledCall] = {}
        old = {"input": "inputs", "output": "outputs"}.keys() & kwargs.keys()
        if old:
            raise ArgumentError(
                f"Model(input=..., output=...) is written Model(inputs=..., outputs=...); got {', '.join(sorted(old))}"
            )
        if _is_functional(args, kwargs):
            given = dict(zip(("inputs", "outputs"), args, strict=False))
            for name in ("inputs", "outputs"):
                if name in kwargs:
                    given[name] = kwargs.pop(name)
            Layer.__init__(self, **kwargs)
            self._set_graph(CallGraph(given["inputs"], given["outputs"]))
            if not self.trainable:
                self.trainable = False
        elif args:
            raise ArgumentError(f"{type(self).__name__} takes inputs and outputs, or keywords; got {args!r}")
        else:
            Layer.__init__(self, **kwargs)

    def _set_graph(self, graph: CallGraph | None) -> None:
        self._graph = graph
        self.built = graph is not None
        self._compiled_calls.clear()
        note_change()

    # ---- what it consists of

    def _sublayers(self) -> list[Any]:
        own = super()._sublayers()
        if self._graph is None:
            return own
        return list(dict.fromkeys([*self._graph.layers, *own]))

    @property
    def layers(self) -> list[Layer]:
        """The layers directly in the model."""
        return self._sublayers()

    @layers.setter
    def layers(self, value: Any) -> None:
        raise ArgumentError("`layers` of a model is made by gnomon: give your list another name")

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or its place in `layers`. Raises ArgumentError if there is none."""
        layers = self.layers
        if (name is None) == (index is None):
            raise ArgumentError(
                f"get_layer takes a name or an index, one of the two; got name={name!r}, index={index!r}"
            )
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ArgumentError(f"get_layer(index={index}): model {self.name!r} has {len(layers)} layers")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in layers]
        raise ArgumentError(f"No such layer: {name}. Existing layers are: {known}.{nearest(str(name), known)}")

    def _known_graph(self, what: str) -> CallGraph:
        if self._graph is None:
            raise NotBuiltError(
                f"model {self.name!r} has no {what} yet: it is not made of symbolic tensors, or not built. Begin a "
                "Sequential with an Input, or call it on a symbolic tensor or `build(input_shape)`"
            )
        return self._graph

    @property
    def inputs(self) -> list[Tensor]:
        """The symbolic inputs, in order."""
        return self._known_graph("inputs").inputs

    @property
    def outputs(self) -> list[Tensor]:
        """The symbolic outputs, in order."""
        return self._known_graph("outputs").outputs

    @property
    def input(self) -> Any:
        return self._graph.input_structure if self._graph is not None else super().input

    @property
    def output(self) -> Any:
        return self._graph.output_structure if self._graph is not None else super().output

    @property
    def input_shape(self) -> Any:
        return _shapes(self._known_graph("input shape").input_structure)

    @property
    def output_shape(self) -> Any:
        return _shapes(self._known_graph("output shape").output_structure)

    @property
    def input_names(self) -> list[str]:
        return [t.name for t in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the layers that the outputs come from."""
        graph = self._known_graph("output names")
        return [graph.producer(t)[0].layer.name for t in graph.outputs]

    @property
    def operations(self) -> list[Layer]:
        """The layers, and the expressions between them."""
        return list(self._known_graph("operations").operations)

    @property
    def input_spec(self) -> Any:
        """What the inputs must be, in order; dictionaries of inputs are checked by name."""
        graph = self._graph
        if self._manual_input_spec is not None or graph is None:
            return self._manual_input_spec
        structure = graph.input_structure
        if isinstance(structure, dict) and not any(map(tree.is_nested, structure.values())):
            return [_spec(structure[name], name) for name in sorted(structure)]
        return [_spec(t, t.name) for t in graph.inputs]

    @input_spec.setter
    def input_spec(self, value: Any) -> None:
        self._manual_input_spec = value

    # ---- calls

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs for new inputs: the calls the model was made of, made again."""
        if self._graph is None:
            raise NotWrittenError(
                f"Model {type(self).__name__} does not have a `call()` method: write call(self, inputs), which returns "
                f"the outputs, or make the model of tensors, Model(inputs, outputs)."
            )
        values = self._graph.standardized(inputs, self.name)
        masks = [None] * len(values) if mask is None else self._graph.arranged(mask, self.name)
        for x, m in zip(values, masks, strict=True):
            if x is not None and m is not None:
                x.mask = m
        outputs = self._graph.run(values)
        return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and type(args[0]) is np.ndarray:  # the common case, looked up at once
            x = args[0]
            known = self._compiled_calls.get((x.dtype, x.shape[1:], x.ndim, change_count()))
            if known is not None and surroundings() is None and not is_tracing():
                return known(args)
        return super().__call__(*args, **kwargs)

    def _convert(self, x: Any) -> Any:
        if self._graph is None:
            return super()._convert(x)
        autocast = self.autocast
        object.__setattr__(self, "autocast", False)  # each input has a dtype of its own; no program is out of date
        try:
            return super()._convert(x)
        finally:
            object.__setattr__(self, "autocast", autocast)

    def _check_inputs(self, inputs: Any) -> None:
        if self._graph is not None and self._manual_input_spec is None and self.input_spec is not None:
            inputs = self._graph.arranged(inputs, self.name)
        super()._check_inputs(inputs)

    def build(self, input_shape: Any = None) -> None:
        """Make the weights for inputs of this shape (a structure of shapes for several)."""
        if self._graph is None and input_shape is not None and type(self).call is not Model.call:
            self.build_for(tree.map_shape_structure(lambda s: _Like(s, self.input_dtype), input_shape))

    def _build_for(self, arguments: Any) -> None:
        if type(self).build is Model.build:
            self.built = True  # the layers build themselves when `call` reaches them
        else:
            super()._build_for(arguments)

    def get_build_config(self) -> dict[str, Any] | None:
        return super().get_build_config() if self._graph is None else {"input_shape": None}

    def build_from_config(self, config: dict[str, Any]) -> None:
        if self._graph is None:
            super().build_from_config(config)

    def symbolic_inputs(self, x: Any) -> Any:
        """New symbolic inputs for data `x`, a structure of arrays (or of anything with shape and dtype).

        They have the shapes and dtypes that the model was made for where it says so; else those of the data, with any
        batch size. The structure is that of `x`.
        """
        if self._graph is None:
            count = iter(range(1_000_000))
            return tree.map_structure(
                lambda a: None if a is None else _input_like(a, f"{self.name}_input_{next(count)}"), x
            )
        own = iter(self._graph.inputs)
        names = {id(a): t for a, t in zip(self._graph.arranged(x, self.name), own, strict=True)}

        def leaf(a: Any) -> Tensor | None:
            known = names.get(id(a))
            if a is None:
                return None
            if known is None or len(known.shape) != len(a.shape):
                return _input_like(a, known.name if known is not None else "input")
            return Tensor(new_input(known.name, known.dtype, known.node.shape), known.name)

        return tree.map_structure(leaf, x)

    def build_for(self, x: Any) -> None:
        """Build the model for data `x`, a structure of arrays, if it is not built yet."""
        layers = self._flatten_layers()
        if not self.built or not all(layer.built for layer in layers):
            Context().run(self._trace_alone, [self.symbolic_inputs(x)], {})

    def _call_at_once(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call on arrays: through a program compiled once for each dtype and rank of the inputs."""
        is_data = lambda x: hasattr(x, "__array__") or hasattr(x, "__dlpack__")
        leaves = tree.flatten([list(args), kwargs])
        arrays = [as_numbers(x) for x in leaves if is_data(x)]
        form = tree.describe([list(args), kwargs], lambda x: "*" if is_data(x) else repr(x))
        types = tuple((a.dtype, a.ndim and a.shape[1:]) for a in arrays)
        known = self._compiled_calls.get((form, change_count(), types))
        if known is None:
            if self._graph is None:
                known = _CompiledCall(self, args, kwargs, is_data)
            else:  # one program for all sizes and dtypes of arrays that the inputs take
                check_inputs(
                    self.input_spec,
                    self._graph.arranged(args[0] if args else kwargs.get("inputs"), self.name),
                    self.name,
                )
                ranks = tuple(a.ndim for a in arrays)
                known = self._compiled_calls.get((form, change_count(), ranks)) or _CompiledCall(
                    self, args, kwargs, is_data
                )
                self._compiled_calls[form, change_count(), ranks] = known
            self._compiled_calls[form, change_count(), types] = known  # counted anew: tracing may have built layers
            if form == "[[*], {}]":
                self._compiled_calls[arrays[0].dtype, arrays[0].shape[1:], arrays[0].ndim, change_count()] = known
        return known(arrays)

    # ---- printing and writing

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of the layers: names, output shapes, numbers of parameters.

        line_length, positions   its width, and where its columns end as fractions of it
        print_fn       called with the text instead of printing it
        expand_nested  also the layers inside models
        show_trainable a column that tells which layers are trained
        layer_range    names, or patterns, of the first and last layer to show
        """
        from gnomon.utils.summary import print_summary

        print_summary(self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    def show(self, stage: str = "layers", format: str = "text", diff: str | None = None) -> str:
        """A stage of the compiler as text: each node with its layer and the user's line.

        stage    'layers', 'graph' (the forward pass), 'differentiated' (the training step); then what becomes of the
                 training step, or of the forward pass before `compile()`: 'simplified', 'rows', 'kernels', 'program',
                 'llvm', 'assembly', or a pass by its name
        format   'text', 'dot' (Graphviz), 'json', 'graphml'
        diff     another stage: what is different in it

        Raises ArgumentError for a stage or format that there is not, StateError if it does not exist yet.
        """
        from gnomon import inspecting

        return inspecting.show_model(self, stage, format, diff)

    def profile(self, x: Any, y: Any = None, batch_size: int = 32, repeat: int = 10) -> Any:
        """Time, bytes and arithmetic of each kernel of a training step on the first batch of x and y, or of the forward
        pass if there is no y. Prints as a table; weights and metrics are as they were when it returns."""
        from gnomon import inspecting

        return inspecting.profile_model(self, x, y, batch_size, repeat)

    def memory(
        self,
        batch_size: int = 32,
        training: bool = True,
        samples: int | None = None,
        *,
        mode: str | None = None,
        x: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        **sizes: int,
    ) -> Any:
        """Bytes that a training step takes at most, known before it is run (prediction with `training=False`): `total`,
        and what it is made of. Prints as a table.

        samples   rows of the data set, which is in memory as a whole; one batch by default
        mode      'train', 'evaluate' or 'predict' says it more exactly than `training`
        x, y, sample_weight   data as fit takes it, of which only the types are looked at: for models whose inputs are
                  not known otherwise, and for labels or inputs of another dtype than expected
        sizes     of axes that are open besides that of the batch, by the names that the error for a missing one tells

        The interpreter and machine code come on top. Raises StateError before compile(), ArgumentError for unknown or
        missing sizes.
        """
        from gnomon.memory import memory_of_model

        return memory_of_model(self, batch_size, training, samples, mode, x, y, sample_weight, sizes)

    def get_config(self) -> dict[str, Any]:
        if self._graph is not None and _takes_tensors(type(self)):
            from gnomon.models.functional import graph_config

            return {"name": self.name, "trainable": self.trainable, **graph_config(self._graph)}
        if type(self).get_config is Model.get_config:
            config = {"name": self.name, "trainable": self.trainable, "dtype": serialize_object(self.dtype_policy)}
            return config | {k: v for k, v in self._init_arguments().items() if k not in config}
        return Layer.get_config(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """A new model, with new weights, from what `get_config` gave."""
        if {"layers", "input_layers", "output_layers"} <= config.keys() and _takes_tensors(cls):
            from gnomon.models.functional import from_graph_config

            return from_graph_config(cls, config, custom_objects)
        return super().from_config(config)

    def to_json(self, **kwargs: Any) -> str:
        """The configuration as JSON, which `model_from_json` reads; arguments go to `json.dumps`."""
        return json.dumps(serialize_object(self), **kwargs)


def model_from_json(json_string: str, custom_objects: dict[str, Any] | None = None) -> Model:
    """A new model, with new weights, from what `to_json` gave."""
    return deserialize_object(json.loads(json_string), custom_objects)


class _Like:
    """What `symbolic_inputs` reads of an array."""

    def __init__(self, shape: tuple, dtype: str):
        self.shape, self.dtype = shape, dtype


def _input_like(a: Any, name: str) -> Tensor:
    shape = (None, *a.shape[1:]) if len(a.shape) else ()
    return Tensor(new_input(name, dtypes.canonical(a.dtype), as_dims(shape, name, batch=True)), name)


def _shapes(structure: Any) -> Any:
    shapes = tree.map_structure(lambda t: t.shape, structure)
    return shapes[0] if isinstance(structure, list) and len(structure) == 1 else shapes


def _spec(tensor: Tensor, name: str) -> InputSpec:
    layer = tensor.history[0] if tensor.history else None
    shape = (None, *tensor.shape[1:]) if tensor.shape else ()
    return InputSpec(shape=shape, allow_last_axis_squeeze=True, name=name, optional=getattr(layer, "optional", False))


def _takes_tensors(cls: type) -> bool:
    """Whether the constructor is Model's own, or passes on what it gets."""
    import inspect

    constructor: Any = vars(cls).get("__init__") or cls.__init__  # type: ignore[misc]  # a class, not an instance
    names = list(inspect.signature(constructor).parameters)[1:]
    return names[:2] == ["inputs", "outputs"] or names == ["args", "kwargs"]


class _CompiledCall:
    """A model called on arrays of certain dtypes and numbers of axes, as one program."""

    def __init__(self, model: Model, args: Sequence[Any], kwargs: dict[str, Any], is_data: Callable[[Any], bool]):
        self.inputs: list[Tensor] = []
        first = (
            model.symbolic_inputs(tree.map_structure(lambda x: np.asarray(x) if is_data(x) else x, args[0]))
            if args
            else None
        )
        rest = [list(args[1:]), kwargs]
        given, named = tree.map_structure(lambda x: _input_like(np.asarray(x), "argument") if is_data(x) else x, rest)
        arguments = [first, *given] if args else given
        self.inputs = [x for x in tree.flatten([arguments, named]) if isinstance(x, Tensor)]
        with collecting_updates() as updates:
            outputs = model._call(arguments, named)
        self.layers = [layer for layer in model._flatten_layers() if layer._layer_state.losses]
        losses = [layer._layer_state.losses for layer in self.layers]
        self.structure = outputs
        changed: dict[Any, Node] = dict(updates)
        self.function: Function = function(
            self.inputs,
            [*tree.flatten(outputs), *tree.flatten(losses)],
            changed,
            name=model.name,
            on_unused_input="ignore",
        )
        self.counts = [len(x) for x in losses]
        self.single = isinstance(outputs, Tensor) and not self.layers
        self.dtypes = [dtypes.named(x.dtype).numpy for x in self.inputs]

    def __call__(self, arrays: Sequence[np.ndarray]) -> Any:
        results = self.function(*(a.astype(d, copy=False) for a, d in zip(arrays, self.dtypes, strict=True)))
        if self.single:
            return results[0].view(Array)
        results = iter(results)
        outputs = tree.map_structure(lambda _: np.asarray(next(results)).view(Array), self.structure)
        for layer, count in zip(self.layers, self.counts, strict=True):
            layer._layer_state.losses = [np.asarray(next(results)).view(Array) for _ in range(count)]
        return outputs


__all__ = ["Model", "model_from_json"]
