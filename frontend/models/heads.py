"""What `compile` was told, resolved for each output: losses with their weights, metrics by name.

Outputs are known by name: the keys if the model returns a dictionary, else the names of the layers they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gnomon.compiler.errors import ArgumentError, DataError, DTypeError, ShapeError, nearest
from gnomon.compiler.ops import build
from gnomon.losses.labels import label_problem
from gnomon.metrics.metric import Metric
from gnomon.naming import to_snake_case
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree


def names_of(y_pred: Any, known: Sequence[str] | None) -> list[str]:
    """A name for each leaf of the outputs: its key, or the known name; parts of nested ones are joined by '/'."""
    paths = [path for path, _ in tree.flatten_with_path(y_pred)]
    if known is None or len(known) != len(paths):
        known = [f"output_{k + 1}" for k in range(len(paths))]
    names = []
    for path, name in zip(paths, known, strict=True):
        own = [*path[:-1], name] if not path or isinstance(path[-1], int) else path
        names.append("/".join(str(part) for part in own if not isinstance(part, int)))
    return names if len(set(names)) == len(names) else list(known)


def per_output(given: Any, names: Sequence[str], what: str) -> list[Any]:
    """One entry for each output: from a dictionary by name, a list in order, or the same thing for all.

    Raises ArgumentError for an unknown name or another number of entries.
    """
    if isinstance(given, dict):
        if len(names) == 1 and len(given) == 1 and next(iter(given)) not in names:
            _unknown(what, next(iter(given)), names)
        flat = {"/".join(str(part) for part in path): leaf for path, leaf in _entries(given, names)}
        for key in flat:
            if key not in names:
                _unknown(what, key, names)
        return [flat.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        entries = list(given)
        if len(entries) != len(names):
            entries = tree.flatten(entries)
        if len(entries) != len(names):
            raise ArgumentError(f"`{what}` has {len(given)} entries for {len(names)} outputs: {_listed(names)}")
        return entries
    return [given] * len(names)


def _entries(given: dict, names: Sequence[str], path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Paths of keys in a dictionary, as far as they lead to an output."""
    for key, value in given.items():
        here = (*path, key)
        if isinstance(value, dict) and "/".join(map(str, here)) not in names:
            yield from _entries(value, names, here)
        else:
            yield here, value


def _unknown(what: str, key: Any, names: Sequence[str]) -> None:
    raise ArgumentError(
        f"`{what}` names {key!r}, which is not an output of the model: outputs are {_listed(names)}."
        f"{nearest(key, names)}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def leaves_for(structure: Any, names: Sequence[str], what: str, wanted: Sequence[bool] | None = None) -> list[Any]:
    """The leaves of y or sample weights, one for each output: by name from a dictionary, else in order.

    wanted   which outputs have a loss: as many leaves as those are for them alone
    Raises DataError if they are not as many.
    """
    if structure is None:
        return [None] * len(names)
    if isinstance(structure, dict) and not any(map(tree.is_nested, structure.values())):
        for key in structure:
            if key not in names:
                raise DataError(
                    f"{what} names {key!r}, which is not an output of the model: outputs are {_listed(names)}."
                    f"{nearest(key, names)}"
                )
        return [structure.get(name) for name in names]
    leaves = tree.flatten(structure)
    if wanted is not None and len(leaves) == sum(wanted) < len(names):
        rest = iter(leaves)
        return [next(rest) if has else None for has in wanted]
    if len(leaves) != len(names):
        raise DataError(
            f"{what} has {len(leaves)} arrays for {len(names)} outputs ({_listed(names)}): give one for each"
        )
    return leaves


def weights_for(sample_weight: Any, names: Sequence[str], wanted: Sequence[bool] | None = None) -> list[Any]:
    """A sample weight, or None, for each output; a single one is for all."""
    if sample_weight is None or not tree.is_nested(sample_weight):
        return [sample_weight] * len(names)
    return leaves_for(sample_weight, names, "sample_weight", wanted)


def batch_of(tensors: Sequence[Any]) -> Any:
    """The number of samples as a scalar: what a mean over batches weighs them by."""
    for t in tensors:
        if t is not None and node_of(t).rank:
            return Tensor(build.size(node_of(t).shape[0], "float32"))
    return None


class CompileLoss:
    """A loss for each output, weighted and summed.

    output_names   what is known of them before the model is called
    metrics        a mean for each loss if there are several, called "<output>_loss"
    """

    def __init__(self, loss: Any, weights: Any = None, output_names: Sequence[str] | None = None):
        from gnomon import losses

        for f in tree.flatten(loss):
            if f is not None and not _is_by_shapes(f, "crossentropy"):
                losses.get(f)  # an unknown name fails here, on the user's own line
        for w in tree.flatten(weights):
            if w is not None and not isinstance(w, (int, float)) and not hasattr(w, "__array__"):
                raise ArgumentError(f"`loss_weights` are numbers, got {w!r}")
        self._loss, self._weights, self._output_names = loss, weights, output_names
        self.names: list[str] = []
        self.losses: list[Any] = []
        self.factors: list[Any] = []
        self.metrics: list[Any] = []
        self._shapes: list[Any] = []  # of the predictions, once known; None where a mask leaves some out

    @property
    def wanted(self) -> list[bool]:
        """Which outputs have a loss."""
        return [f is not None for f in self.losses]

    def build(self, names: Sequence[str]) -> None:
        """Find out what is for which output."""
        if self.names == list(names):
            return
        from gnomon.metrics import Mean

        self.names = list(names)
        self.losses = per_output(self._loss, names, "loss")
        if self._weights is not None and not tree.is_nested(self._weights) and len(names) > 1:
            raise ArgumentError(
                f"`loss_weights` must be a list or dictionary for a model with {len(names)} outputs "
                f"({_listed(names)}), got {self._weights!r}"
            )
        self.factors = per_output(self._weights, names, "loss_weights")
        self._shapes = [None] * len(names)
        if all(f is None for f in self.losses):
            raise ArgumentError("no output has a loss: give `loss` to compile()")
        if sum(self.wanted) > 1:
            self.metrics = [Mean(name=f"{name}_loss") for name, has in zip(names, self.wanted, strict=True) if has]

    def __call__(self, y: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """The total; the loss of each output, unweighted, goes to `metrics`."""
        names = names_of(y_pred, self._output_names)
        self.build(names)
        predictions = tree.flatten(y_pred)
        truths = leaves_for(y, names, "y", self.wanted)
        weights = weights_for(sample_weight, names, self.wanted)
        means, total = iter(self.metrics), None
        for k, (truth, prediction, weight) in enumerate(zip(truths, predictions, weights, strict=True)):
            if self.losses[k] is None:
                continue
            if truth is None:
                where = f"the output {names[k]!r}" if len(names) > 1 else "the model"
                raise DataError(f"{where} has a loss, but y has nothing for it: give labels, or no loss for it")
            self.losses[k] = as_loss(self.losses[k], truth, prediction)
            self._shapes[k] = None if getattr(prediction, "mask", None) is not None else prediction.shape
            try:
                value = self.losses[k](truth, prediction, sample_weight=weight)
            except (DTypeError, ShapeError) as error:
                raise type(error)(f"{error}\n  in the loss of the output {names[k]!r}") from error
            if self.metrics:
                next(means).update_state(value, sample_weight=batch_of([prediction]))
            if self.factors[k] is not None:
                value = value * self.factors[k]
            total = value if total is None else total + value
        assert total is not None
        return total

    def check_labels(self, y: Any, sample_weight: Any = None) -> None:
        """Raises DataError for arrays of labels that the losses can make nothing of: class numbers that are none.

        What is known of the predictions comes from the first call: before it, nothing is checked.
        """
        if not any(self._shapes):
            return
        truths = leaves_for(y, self.names, "y", self.wanted)
        weights = weights_for(sample_weight, self.names, self.wanted)
        for name, loss, truth, weight, shape in zip(
            self.names, self.losses, truths, weights, self._shapes, strict=True
        ):
            if loss is None or truth is None or shape is None:
                continue
            problem = label_problem(loss, truth, shape, weight)
            if problem is not None:
                raise DataError(f"the loss {loss.name!r} of the output {name!r} {problem}")


def as_loss(loss: Any, y_true: Any, y_pred: Any) -> Any:
    """A Loss object; a plain function becomes one that averages what it returns for each sample.

    'crossentropy' is the one that fits the shapes.
    """
    from gnomon import losses
    from gnomon.losses.loss import Loss, LossFunctionWrapper

    if isinstance(loss, Loss):
        return loss
    by_shapes = _is_by_shapes(loss, "crossentropy")
    found = losses.crossentropy_for(y_true.shape, y_pred.shape) if by_shapes else losses.get(loss)
    if isinstance(found, Loss):
        return found
    if not callable(found):
        raise ArgumentError(f"a loss is a name, a Loss or a function (y_true, y_pred), got {loss!r}")
    return LossFunctionWrapper(found, name=loss if isinstance(loss, str) else _name_of(found))


def _is_by_shapes(identifier: Any, *kinds: str) -> bool:
    """Whether a name stands for what fits the shapes of labels and predictions."""
    short = {"accuracy": "acc", "crossentropy": "ce"}
    return isinstance(identifier, str) and identifier.lower() in {n for k in kinds for n in (k, short[k])}


def _name_of(thing: Any) -> str:
    return getattr(thing, "name", None) or to_snake_case(getattr(thing, "__name__", type(thing).__name__))


class CompileMetrics(Metric):
    """The metrics of `compile`, updated together.

    They are made when shapes are first known: "accuracy" depends on them.
    """

    def __init__(self, metrics: Any, weighted: Any = None, output_names: Sequence[str] | None = None):
        from gnomon import metrics as known

        super().__init__(name="compile_metrics")
        for given in (metrics, weighted):
            for m in tree.flatten(given):
                if m is not None and not _is_by_shapes(m, "accuracy", "crossentropy"):
                    known.get(m)  # an unknown name fails here, on the user's own line
        self._given, self._weighted, self._output_names = metrics, weighted, output_names
        self.names: list[str] = []
        self._entries: list[tuple[int, Any, bool, str]] = []  # output, metric, whether it is weighted, label

    def build(self, y: Sequence[Any], y_pred: Sequence[Any], names: Sequence[str]) -> None:
        if self.names == list(names):
            return
        self.names, self._entries = list(names), []
        labels: dict[str, int] = {}
        for given, is_weighted in ((self._given, False), (self._weighted, True)):
            for k, wanted in enumerate(self._lists(given, "weighted_metrics" if is_weighted else "metrics")):
                for m in wanted:
                    if y[k] is None:
                        raise DataError(f"the output {names[k]!r} has a metric, but y has nothing for it")
                    metric = as_metric(m, y[k], y_pred[k])
                    prefix = f"{names[k]}_" if len(names) > 1 else ""
                    label = f"{prefix}{metric.name}"
                    if is_weighted and label in labels:
                        label = f"{prefix}weighted_{metric.name}"
                    labels[label] = labels.get(label, 0) + 1
                    if labels[label] > 1:
                        label = f"{label}_{labels[label] - 1}"
                    self._entries.append((k, metric, is_weighted, label))

    def _lists(self, given: Any, what: str) -> list[list[Any]]:
        """The metrics of each output."""
        if len(self.names) == 1:
            return [[m for m in tree.flatten(given) if m is not None]]
        each = per_output(given, self.names, what)
        return [[m for m in (e if isinstance(e, (list, tuple)) else [e]) if m is not None] for e in each]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in a batch. Metrics other than the weighted do not see sample weights."""
        names, predictions = names_of(y_pred, self._output_names), tree.flatten(y_pred)
        truths, weights = leaves_for(y_true, names, "y"), weights_for(sample_weight, names)
        self.build(truths, predictions, names)
        for k, metric, is_weighted, _ in self._entries:
            metric.update_state(truths[k], predictions[k], sample_weight=weights[k] if is_weighted else None)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _, metric, _, label in self._entries:
            value = metric.result()
            found.update(value if isinstance(value, dict) else {label: value})
        return found

    def reset_state(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    @property
    def metrics(self) -> list[Any]:
        return [metric for _, metric, _, _ in self._entries]

    @property
    def labels(self) -> dict[str, Any]:
        """The metrics by the names that logs have for them."""
        return {label: metric for _, metric, _, label in self._entries}

    @property
    def variables(self) -> list[Any]:
        return [v for metric in self.metrics for v in metric.variables]


def as_metric(given: Any, y_true: Any, y_pred: Any) -> Any:
    """A Metric object, named as it was asked for. 'accuracy' and 'crossentropy' become those that fit the shapes."""
    from gnomon import metrics

    if isinstance(given, Metric):
        return given
    if _is_by_shapes(given, "accuracy"):
        return metrics.accuracy_for(y_true.shape, y_pred.shape, name=given)
    if _is_by_shapes(given, "crossentropy"):
        return metrics.crossentropy_for(y_true.shape, y_pred.shape, name=given)
    found = metrics.get(given)
    if not isinstance(found, Metric):
        if not callable(found):
            raise ArgumentError(f"a metric is a name, a Metric or a function (y_true, y_pred), got {given!r}")
        found = metrics.MeanMetricWrapper(found, name=_name_of(found))
    if isinstance(given, str):
        found.name = given
    return found


__all__ = ["CompileLoss", "CompileMetrics", "as_loss", "as_metric", "batch_of", "leaves_for", "names_of", "weights_for"]
