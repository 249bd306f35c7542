"""TimeDistributed: a layer on every step of sequences."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ShapeError
from gnomon.compiler.ops import build
from gnomon.guards import fitting
from gnomon.layers.wrapper import Wrapper
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree
from gnomon.variable import collecting_updates


class TimeDistributed(Wrapper):
    """The wrapped layer on each step by itself.

    inputs: [batch, steps, ...], of which the layer sees [batch, ...]   result: [batch, steps, ...]

    The steps of all sequences are one large batch, so that a Dense inside is one product. A layer that goes on from
    what it did before (BatchNormalization while it trains) is called step by step.

    Raises ArgumentError for what is no layer, ShapeError for inputs without steps and for masks of another shape.
    """

    def __init__(self, layer: Any, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        super().build(self._step_shape(input_shape))

    def _step_shape(self, input_shape: Any) -> tuple:
        if not isinstance(input_shape, (list, tuple)) or len(input_shape) < 3:
            raise ShapeError(
                "`TimeDistributed` Layer should be passed an `input_shape` with at least 3 dimensions, received: "
                f"{input_shape}"
            )
        return (input_shape[0], *input_shape[2:])

    def call(self, inputs, training=None, mask=None):
        takes = self.layer._call_signature().parameters
        options = {"training": training} if "training" in takes and training is not None else {}
        if mask is not None:
            mask = Tensor(fitting(node_of(mask), inputs.node.shape[:2], self.name))
        mask = mask if "mask" in takes else None
        if training and self._changes(inputs, mask, options):
            return self._one_by_one(inputs, mask, options)
        sizes = inputs.node.shape[:2]
        found = self._called(_merged(inputs), None if mask is None else _merged(mask), options)
        return tree.map_structure(lambda x: _parted(x, sizes), found)

    def _called(self, inputs: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Any:
        return self.layer(inputs, **options, **({} if mask is None else {"mask": mask}))

    def _changes(self, inputs: Tensor, mask: Tensor | None, options: dict[str, Any]) -> bool:
        """Whether a call of the layer changes its weights; random streams apart."""
        with collecting_updates() as updates:
            self._called(_merged(inputs), None if mask is None else _merged(mask), options)
        self.layer._clear_losses()
        return any(v.name != "seed_generator_state" for v in updates)

    def _one_by_one(self, inputs: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Any:
        xs = [_exchanged(x) for x in (inputs, mask) if x is not None]
        _, found = ops.scan(lambda _, x: (None, self._called(x[0], x[1] if len(x) > 1 else None, options)), None, xs)
        return tree.map_structure(_exchanged, found)

    def compute_output_shape(self, input_shape):
        inner = self.layer.compute_output_shape(self._step_shape(input_shape))
        return tree.map_shape_structure(lambda shape: (shape[0], input_shape[1], *shape[1:]), inner)


def _merged(x: Any) -> Tensor:
    """[batch, steps, ...] as [batch * steps, ...]"""
    node = node_of(x)
    return Tensor(build.reshape(node, (node.shape[0] * node.shape[1], *node.shape[2:])))


def _parted(x: Tensor, sizes: Any) -> Tensor:
    return Tensor(build.reshape(x.node, (*sizes, *x.node.shape[1:])))


def _exchanged(x: Any) -> Tensor:
    """The axes of batch and steps exchanged."""
    node = node_of(x)
    return Tensor(build.transpose(node, [1, 0, *range(2, node.rank)]))
