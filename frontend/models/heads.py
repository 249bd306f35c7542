"""What `compile` was told, resolved for each output: losses with their weights, metrics by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.tensor import Tensor
from gnomon.utils import tree


def spread(given: Any, names: Sequence[str], what: str, single: bool) -> list[Any]:
    """One entry for each output: from a dictionary by output name, a list in order, or one thing for all of them.

    single   whether a list is a list of several things for the only output (metrics), rather than one for each
    """
    if isinstance(given, dict):
        unknown = [k for k in given if k not in names]
        if unknown:
            raise ArgumentError(
                f"{what} names {unknown[0]!r}, which is not an output of the model: outputs are {', '.join(map(repr, names))}"
            )
        return [given.get(n) for n in names]
    if isinstance(given, (list, tuple)):
        if single and len(names) == 1 and not (len(given) == 1 and isinstance(given[0], (list, tuple))):
            return [list(given)]
        if len(given) != len(names):
            raise ArgumentError(
                f"{what} has {len(given)} entries for {len(names)} outputs ({', '.join(map(repr, names))})"
            )
        return list(given)
    return [given] * len(names)


class CompiledLoss:
    """A loss for each output, weighted and summed."""

    def __init__(self, loss: Any, weights: Any, names: Sequence[str]):
        from gnomon import losses

        self.names = list(names)
        self.losses = [None if f is None else as_loss(losses.get(f)) for f in spread(loss, names, "loss", False)]
        self.weights = [1.0 if w is None else w for w in spread(weights, names, "loss_weights", False)]
        if weights is not None and not isinstance(weights, (list, tuple, dict)) and len(names) > 1:
            raise ArgumentError(
                f"loss_weights must be a list or dictionary for a model with {len(names)} outputs, got {weights!r}"
            )
        if all(f is None for f in self.losses):
            raise ArgumentError("no output has a loss: give `loss` to compile()")

    def __call__(
        self, y: Sequence[Any], y_pred: Sequence[Tensor], weights: Sequence[Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the unweighted loss of each output that has one."""
        total: Any = None
        each: dict[str, Tensor] = {}
        for name, loss, factor, truth, prediction, w in zip(
            self.names, self.losses, self.weights, y, y_pred, weights, strict=True
        ):
            if loss is None:
                continue
            if truth is None:
                raise DataError(f"the output {name!r} has a loss but y has nothing for it")
            value = loss(truth, prediction, sample_weight=w)
            each[name] = value
            weighted = value if factor == 1.0 else value * factor
            total = weighted if total is None else total + weighted
        return total, each


def as_loss(loss: Any) -> Any:
    """A Loss object; a plain function becomes one that averages what it returns for each sample."""
    from gnomon.losses import Loss
    from gnomon.losses.loss import LossFunctionWrapper

    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise ArgumentError(f"a loss is a name, a Loss or a function (y_true, y_pred), got {loss!r}")
    return LossFunctionWrapper(loss, name=getattr(loss, "__name__", type(loss).__name__))


class CompiledMetrics:
    """The metrics of each output, made when shapes are known, for "accuracy" depends on them."""

    def __init__(self, metrics: Any, weighted: Any, names: Sequence[str]):
        self.names = list(names)
        self.given = spread(metrics, names, "metrics", True)
        self.weighted = spread(weighted, names, "weighted_metrics", True)
        self.entries: list[tuple[int, Any, bool]] | None = None  # (output, metric, weighted)
        self.labels: list[str] = []

    def build(self, y: Sequence[Any], y_pred: Sequence[Tensor], losses: Sequence[Any]) -> None:
        if self.entries is not None:
            return
        self.entries = []
        for is_weighted, lists in ((False, self.given), (True, self.weighted)):
            for k, wanted in enumerate(lists):
                if wanted is None:
                    continue
                for m in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
                    if m is None:
                        continue
                    metric, label = as_metric(m, y[k], y_pred[k], losses[k] if losses else None)
                    if len(self.names) > 1:
                        label = f"{self.names[k]}_{label}"
                    if label in self.labels:
                        taken = sum(known == label or known.startswith(f"{label}_") for known in self.labels)
                        label = f"{label}_{taken}"
                    self.entries.append((k, metric, is_weighted))
                    self.labels.append(label)

    def update(self, y: Sequence[Any], y_pred: Sequence[Tensor], weights: Sequence[Any]) -> None:
        for k, metric, is_weighted in self.entries or ():
            if y[k] is None:
                raise DataError(f"the output {self.names[k]!r} has a metric but y has nothing for it")
            metric.update_state(y[k], y_pred[k], sample_weight=weights[k] if is_weighted else None)

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for label, (_, metric, _) in zip(self.labels, self.entries or (), strict=True):
            value = metric.result()
            found.update(value) if isinstance(value, dict) else found.update({label: value})
        return found

    @property
    def metrics(self) -> list[Any]:
        return [metric for _, metric, _ in self.entries or ()]


def as_metric(given: Any, y: Any, y_pred: Tensor, loss: Any) -> tuple[Any, str]:
    """A Metric object and the name it is shown by. 'accuracy' becomes the one that fits shapes and loss."""
    from gnomon import metrics

    if isinstance(given, metrics.Metric):
        return given, given.name
    if isinstance(given, str) and given.lower() in ("accuracy", "acc"):
        metric = metrics.accuracy_for(tuple(y.shape), tuple(y_pred.shape), loss)
        return (metric() if isinstance(metric, type) else as_wrapped(metric, given)), given
    if isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        metric = metrics.crossentropy_for(tuple(y.shape), tuple(y_pred.shape), loss)
        return (metric() if isinstance(metric, type) else as_wrapped(metric, given)), given
    found = metrics.get(given)
    if isinstance(found, metrics.Metric):
        return found, given if isinstance(given, str) else found.name
    return as_wrapped(found, given), given if isinstance(given, str) else getattr(found, "__name__", "metric")


def as_wrapped(fn: Any, given: Any) -> Any:
    from gnomon import metrics

    if isinstance(fn, metrics.Metric):
        return fn
    if not callable(fn):
        raise ArgumentError(f"a metric is a name, a Metric or a function (y_true, y_pred), got {given!r}")
    return metrics.MeanMetricWrapper(fn, name=getattr(fn, "__name__", "metric"))


def flat_for(structure: Any, like: Sequence[str], what: str) -> list[Any]:
    """The leaves of y or sample weights, one for each output: by name from a dictionary, else in order."""
    if structure is None:
        return [None] * len(like)
    if isinstance(structure, dict):
        unknown = [k for k in structure if k not in like]
        if unknown:
            raise DataError(
                f"{what} names {unknown[0]!r}, which is not an output: outputs are {', '.join(map(repr, like))}"
            )
        return [structure.get(n) for n in like]
    leaves = tree.flatten(structure)
    if len(leaves) != len(like):
        raise DataError(f"{what} has {len(leaves)} arrays for {len(like)} outputs ({', '.join(map(repr, like))})")
    return leaves
