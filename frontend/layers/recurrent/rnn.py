"""RNN: a cell that is taken through a sequence step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError, StateError
from gnomon.compiler.graph import TensorType
from gnomon.compiler.ops import build
from gnomon.compiler.ops.shape import surely_differ
from gnomon.guards import HasSteps, fitting
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.layers.recurrent.cells import (
    build_cell,
    call_cell,
    initial_state_of,
    output_size_of,
    shape_of_state,
    takes_training,
)
from gnomon.layers.recurrent.dropout import DropoutCell
from gnomon.layers.recurrent.stacked import StackedRNNCells
from gnomon.registry import deserialize_object, serialize_object
from gnomon.surroundings import path_of
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree
from gnomon.variable import Variable, is_tracing


class RNN(Layer):
    """Any cell, or several stacked, as a layer: it gets a step's slice of the sequences and the state, again and again.

    cell               call(inputs[batch, ...], states) gives (output, new states); `state_size` is an integer, a shape,
                       or a list with one for each state; perhaps `output_size` and `get_initial_state(batch_size)`. A
                       list of cells is stacked: each gets the output of the one before
    return_sequences   the outputs of all steps, instead of the last one's
    return_state       the last states, too: (output, state, ...)
    go_backwards       begin with the last step; outputs are in the order in which they are made
    stateful           the next call goes on with the states that this one ends with (`reset_state` forgets them);
                       the batch size is fixed
    unroll             write the steps out one by one instead of a loop; their number must be known
    zero_output_for_mask   the outputs of masked steps are 0, not those of the step before
    sequences: [batch, steps, ...]   result: [batch, ...], or [batch, steps, ...] with `return_sequences`

    Called with (sequences, initial_state=None, mask=None). `initial_state` is a list in the form of the cell's states.
    `mask`, bool[batch, steps], leaves steps out: the state stays what it is, the output that of the step before (at
    first, of the state it begins with). Steps are one loop in the compiled program, of any length.

    Raises ArgumentError for a cell that is none, when called ShapeError for sequences without steps, for states, masks
    and batches of another size, and for a cell whose state changes its shape.
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        if not callable(getattr(cell, "call", None)):
            raise ArgumentError(f"Argument `cell` should have a `call` method. Received: cell={cell!r}")
        state_size = getattr(cell, "state_size", None)
        if not isinstance(state_size, (int, list, tuple)) or isinstance(state_size, bool):
            raise ArgumentError(
                "The RNN cell should have a `state_size` attribute (single integer or list of integers, one integer "
                f"per RNN state). Received: cell={cell!r} with state_size={state_size!r}"
            )
        super().__init__(**kwargs)
        self.cell = cell
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.stateful, self.unroll = go_backwards, stateful, unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.supports_masking = True
        self.input_spec: Any = InputSpec(min_ndim=3)
        self.single_state = isinstance(state_size, int)
        self.state_size = [state_size] if isinstance(state_size, int) else list(state_size)
        self._kept: _Kept | None = None

    # ---- building

    def build(self, sequences_shape, initial_state_shape=None):
        if len(sequences_shape) < 3:
            raise ShapeError(
                f"layer {self.name!r} takes sequences [batch, steps, ...], got the shape {sequences_shape}"
            )
        build_cell(self.cell, (sequences_shape[0], *sequences_shape[2:]))
        if self.stateful:
            batch = sequences_shape[0]
            if batch is None:
                raise ShapeError(
                    f"layer {self.name!r} is stateful, so the number of sequences in a batch must be known; got the "
                    f"shape {sequences_shape}. Give the Input a batch_size"
                )
            with path_of(self) as path:
                self._kept = _Kept(
                    batch, tree.map_structure(lambda x: self._state_variable(x, path), self.get_initial_state(batch))
                )

    def get_build_config(self):
        config = super().get_build_config()
        shapes = (config or {}).get("shapes_dict")  # that of an initial state says nothing new
        return config if shapes is None else {"input_shape": shapes["sequences_shape"]}

    def _state_variable(self, first: Any, path: str) -> Variable:
        value = first.numpy() if isinstance(first, Tensor) else first
        return Variable(value, None, self.variable_dtype, trainable=False, name=f"{path}/rnn_state")

    def get_initial_state(self, batch_size):
        """The states before the first step, if none are given: those of the cell, or zeros."""
        first = initial_state_of(self.cell, batch_size, self.compute_dtype)
        return list(first) if tree.is_nested(first) else [first]

    # ---- states that are kept

    @property
    def states(self) -> Any:
        """The Variables that keep the states from call to call; None if there are none."""
        return None if self._kept is None else self._kept.states

    def reset_state(self, states: Any = None) -> None:
        """Set the kept states to zero, or to the arrays `states`.

        Raises StateError if the layer is not stateful, ShapeError for arrays of other shapes.
        """
        if not self.stateful:
            raise StateError(f"layer {self.name!r} keeps no state from call to call: it was made without stateful=True")
        if self._kept is None:
            if states is not None:
                raise StateError(f"layer {self.name!r} is not built yet, so it has no state that could be set")
            return
        own = tree.flatten(self._kept.states)
        given = [ops.zeros(v.shape, v.dtype) for v in own] if states is None else tree.flatten(states)
        if len(own) != len(given):
            raise ArgumentError(f"layer {self.name!r} has {len(own)} states, got {len(given)}")
        for variable, value in zip(own, given, strict=True):
            if is_tracing():
                variable.assign(value)
            else:
                variable.set_value(value)

    def reset_states(self, states: Any = None) -> None:
        """The same as `reset_state`."""
        self.reset_state(states)

    # ---- calls

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if self.unroll and sequences.shape[1] is None:
            raise ShapeError(
                f"layer {self.name!r} cannot unroll sequences whose number of steps is open, got "
                f"{sequences.node.type}: give the Input's axis a size, or leave out unroll=True"
            )
        sequences = Tensor(HasSteps(self._kept.batch_size if self._kept else None, self.name)(sequences.node))
        states = self._first_states(sequences, initial_state)
        if mask is not None:
            mask = self._checked_mask(mask, sequences)
        with masks_drawn(self.cell, _slice_shape(sequences), states, training):
            output, states = self._loop(sequences, states, mask, training)
        if self._kept is not None:
            for variable, value in zip(tree.flatten(self._kept.states), tree.flatten(states), strict=True):
                variable.assign(value)
        cast = lambda x: ops.cast(x, self.compute_dtype)
        return (cast(output), *tree.map_structure(cast, states)) if self.return_state else cast(output)

    def _first_states(self, sequences: Tensor, given: Any) -> list[Any]:
        dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
        if given is None and self._kept is not None:
            given = self._kept.states
        usual = self.get_initial_state(ops.shape(sequences)[0])
        given = usual if given is None else list(given) if tree.is_nested(given) else [given]
        if len(tree.flatten(given)) != len(tree.flatten(usual)):
            raise ArgumentError(
                f"layer {self.name!r} has the states {_types(usual)}, got {_types(given)} as initial_state"
            )
        cast = lambda x: build.cast(node_of(x), dtype)
        first = [self._like(cast(x), cast(u).shape) for x, u in zip(*map(tree.flatten, (given, usual)), strict=True)]
        return tree.pack_sequence_as(usual, [Tensor(x) for x in first])

    def _like(self, state: Any, shape: tuple) -> Any:
        """A state of this shape. Raises ShapeError for another one."""
        if state.rank != len(shape) or any(surely_differ(a, b) for a, b in zip(state.shape, shape, strict=True)):
            wanted = TensorType(state.dtype, shape)
            raise ShapeError(f"a state of layer {self.name!r} must be {wanted}, got {state.type} as initial_state")
        return build.equate(state, shape)

    def _checked_mask(self, mask: Any, sequences: Tensor) -> Tensor:
        """The mask as bool[batch, steps]."""
        wanted = sequences.node.shape[:2]
        node = build.cast(fitting(node_of(tree.flatten(mask)[0]), wanted, self.name), "bool")
        if node.rank > 2:  # of several numbers in a step: it counts if one of them does
            node = build.any(node, tuple(range(2, node.rank)))
        return Tensor(build.broadcast_to(node, wanted))

    def _loop(self, sequences: Tensor, states: list[Any], mask: Tensor | None, training: Any) -> tuple:
        """(output of the last step or of all, last states)"""
        steps = _Steps(self, states, mask is not None, training)
        xs = [_steps_first(sequences), *([] if mask is None else [_steps_first(mask)])]
        try:
            carry, outputs = ops.scan(steps, steps.begin(), xs, reverse=self.go_backwards, unroll=self.unroll or 1)
        except _OutputIsNoState as found:  # then it is carried along with the states
            steps.remember(found.type, sequences.node.shape[0])
            carry, outputs = ops.scan(steps, steps.begin(), xs, reverse=self.go_backwards, unroll=self.unroll or 1)
        if self.return_sequences:
            output = _steps_first(outputs)
            output = ops.flip(output, 1) if self.go_backwards else output
        else:
            output = steps.output_of(carry)
            if mask is not None and self.zero_output_for_mask:
                output = ops.where(_like_rank(mask[:, 0 if self.go_backwards else -1], output), output, 0)
        return output, tree.pack_sequence_as(states, carry["states"])

    # ---- shapes, masks, configuration

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, length = sequences_shape[:2]
        shape = (batch, *self._output_size())
        states = [shape_of_state(batch, d) for d in self.state_size]
        output = (batch, length, *shape[1:]) if self.return_sequences else shape
        return (output, *states) if self.return_state else output

    def _output_size(self) -> tuple:
        size = output_size_of(self.cell)
        return tuple(size) if isinstance(size, (list, tuple)) else (size,)

    def compute_mask(self, sequences, mask=None):
        mask = tree.flatten(mask)[0] if tree.is_nested(mask) else mask
        output_mask = mask if self.return_sequences else None
        return [output_mask, *(None for _ in self.state_size)] if self.return_state else output_mask

    def get_config(self):
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
            "cell": serialize_object(self.cell),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        return cls(deserialize_object(config.pop("cell"), custom_objects), **config)


class _Kept:
    """The states of a stateful layer. They are no weights: files do not have them."""

    def __init__(self, batch_size: int, states: Any):
        self.batch_size, self.states = batch_size, states


class _OutputIsNoState(Exception):
    """The output of a cell is none of its new states, and is needed after the step."""

    def __init__(self, found: TensorType):
        self.type = found


class _Steps:
    """The function that `ops.scan` repeats: one step of a layer's cell, with its mask.

    The output of most cells is one of their new states. Of others the last output is carried along, `remembered`.
    """

    def __init__(self, layer: RNN, states: list[Any], masked: bool, training: Any):
        self.layer, self.states, self.masked = layer, states, masked
        self.options = {"training": training} if takes_training(layer.cell) else {}
        self.remembered: Tensor | None = None
        self.place: int | None = None  # which state the output is

    def remember(self, output: TensorType, batch: Any) -> None:
        self.remembered = Tensor(build.full((batch, *output.shape[1:]), 0, output.dtype))

    def begin(self) -> dict[str, Any]:
        carry: dict[str, Any] = {"states": tree.flatten(self.states)}
        return carry if self.remembered is None else {**carry, "output": self.remembered}

    def output_of(self, carry: dict[str, Any]) -> Tensor:
        """The output of the step that left this."""
        if self.remembered is not None:
            return carry["output"]
        assert self.place is not None
        return carry["states"][self.place]

    def __call__(self, carry: dict[str, Any], slices: list[Tensor]) -> tuple[dict[str, Any], Tensor | None]:
        layer = self.layer
        output, new = self._called(slices[0], carry["states"])
        self.place = next((k for k, s in enumerate(new) if s.node is output.node), None)
        if self.place is None and self.remembered is None and (self.masked or not layer.return_sequences):
            raise _OutputIsNoState(output.node.type)
        shown = output
        if self.masked:
            counts = slices[1]
            kept = lambda fresh, old: Tensor(build.where(_like_rank(counts, fresh).node, fresh.node, old.node))
            new = [kept(a, b) for a, b in zip(new, carry["states"], strict=True)]
            before = carry.get("output")
            output = self.output_of({"states": new}) if before is None else kept(output, before)
            shown = ops.where(_like_rank(counts, shown), shown, 0) if layer.zero_output_for_mask else output
        after: dict[str, Any] = {"states": new}
        if self.remembered is not None:
            after["output"] = output
        return after, shown if layer.return_sequences else None

    def _called(self, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Output and new states, of the types of the old ones."""
        cell = self.layer.cell
        made = call_cell(cell, inputs, tree.pack_sequence_as(self.states, states), **self.options)
        if not isinstance(made, (list, tuple)) or len(made) != 2:
            raise ArgumentError(
                f"call() of a cell returns (output, new states); that of {cell!r} returned {made!r:.80}"
            )
        new = [Tensor(node_of(x)) for x in tree.flatten(made[1])]
        if len(new) != len(states):
            raise ArgumentError(f"the cell {cell!r} has {len(states)} states and returned {len(new)} new ones")
        for k, (a, b) in enumerate(zip(new, states, strict=True)):
            x, y = a.node, b.node
            differ = x.rank != y.rank or any(surely_differ(i, j) for i, j in zip(x.shape, y.shape, strict=True))
            if differ or x.dtype != y.dtype:
                raise (ShapeError if differ else DTypeError)(
                    f"a state keeps its shape and dtype from step to step, but the cell of layer {self.layer.name!r}, "
                    f"{cell!r}, makes {x.type} of state {k}, which is {y.type}"
                )
            new[k] = Tensor(build.equate(x, y.shape))
        output = Tensor(node_of(made[0]))
        same = next((k for k, x in enumerate(tree.flatten(made[1])) if node_of(x) is output.node), None)
        return (output if same is None else new[same]), new


# ---- parts


@contextmanager
def masks_drawn(cell: Any, inputs: Sequence[Any], states: Any, training: Any) -> Iterator[None]:
    """Inside, a cell and those in it have one set of dropout masks, for inputs of this shape (without the steps)."""
    with ExitStack() as stack:
        for one, x, state in _cells(cell, inputs, states):
            if isinstance(one, DropoutCell):
                stack.enter_context(one.masks_drawn(x, state.node.shape, training))
        yield


def _cells(cell: Any, inputs: Sequence[Any], states: Any) -> Iterator[tuple[Any, Sequence[Any], Tensor]]:
    """The cells in a cell, with the shapes of their inputs and their first states."""
    if not isinstance(cell, StackedRNNCells):
        yield cell, inputs, tree.flatten(states)[0]
        return
    for one, state in zip(cell.cells, states, strict=True):
        yield from _cells(one, inputs, state)
        inputs = tree.flatten(state)[0].node.shape  # the output is like the first state


def _slice_shape(sequences: Tensor) -> tuple:
    shape = sequences.node.shape
    return (shape[0], *shape[2:])


def _steps_first(x: Tensor) -> Tensor:
    """The first two axes exchanged."""
    return Tensor(build.transpose(x.node, [1, 0, *range(2, x.ndim)]))


def _like_rank(counts: Tensor, x: Tensor) -> Tensor:
    """counts[batch] in the shape of x[batch, ...]."""
    node = counts.node
    return Tensor(build.broadcast(build.equate(node, x.node.shape[:1]), x.node.shape, [0]))


def _types(states: Any) -> str:
    return ", ".join(str(node_of(x).type) for x in tree.flatten(states))


# ---- layers with a cell of their own


class CellLayer(RNN):
    """Base of SimpleRNN, LSTM and GRU: the arguments of the cell are the layer's, and its attributes too."""

    cell_class: type

    def __init__(self, units: int, arguments: dict[str, Any], use_cudnn: Any = "auto", **kwargs: Any):
        if use_cudnn not in ("auto", True, False):
            raise ArgumentError(f"use_cudnn is True, False or 'auto', got {use_cudnn!r}")
        title = self.cell_class.__name__.removesuffix("Cell")
        of_cell = {k: kwargs.get(k, default) for k, default in (("dtype", None), ("trainable", True))}
        if "implementation" in kwargs:
            of_cell["implementation"] = kwargs.pop("implementation")
        cell = self.cell_class(units, **arguments, name=f"{_CELL_NAMES[title]}_cell", **of_cell)
        super().__init__(cell, **kwargs)
        self.use_cudnn = use_cudnn
        self.input_spec = InputSpec(ndim=3)
        self._names = ("units", *arguments)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_names", ()):
            return getattr(self.cell, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_config(self):
        config = RNN.get_config(self)
        del config["cell"]
        of_cell = self.cell.get_config()
        config |= {name: of_cell[name] for name in self._names}
        config.setdefault("activity_regularizer", None)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return Layer.from_config.__func__(cls, config)  # type: ignore[attr-defined]  # not RNN's, which wants a cell


_CELL_NAMES = {"SimpleRNN": "simple_rnn", "LSTM": "lstm", "GRU": "gru"}
