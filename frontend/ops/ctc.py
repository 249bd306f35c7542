"""Connectionist temporal classification: sequences of labels that are not aligned with the steps they come from.

Graves, Fernández, Gomez, Schmidhuber 2006, "Connectionist temporal classification: labelling unsegmented sequence data
with recurrent neural networks".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon import ops
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.eager import on_tensors
from gnomon.ops.arguments import one_of
from gnomon.tensor import Array, Tensor, is_symbolic, node_of

NEVER = -1e5  # the logarithm of no probability: finite, so that differences of two have no NaN
Decoded = tuple[Any, Any]


@on_tensors(4)
def ctc_loss(target, output, target_length, output_length, mask_index=0):
    """Minus the log-probability of label sequences, over all ways to align them with the steps of `output`.

    target: int[batch, labels]   output: logits float[batch, steps, classes]
    target_length, output_length: int[batch], how many labels and steps count   mask_index: the class that is no label
    result: float[batch]

    Where no alignment is possible the loss is large and finite. One loop over the steps, of any number.
    Raises ShapeError for other ranks, ArgumentError for a mask_index that is no class. Graves et al., section 4.1.
    """
    labels, scores = node_of(target), node_of(output)
    if labels.rank != 2 or scores.rank != 3:
        raise ShapeError(
            f"ctc_loss needs target [batch, labels] and output [batch, steps, classes], got {labels.type} and "
            f"{scores.type}"
        )
    classes = scores.shape[2]
    blank = _mask_class(mask_index, classes)
    wide = output if output.dtype == "float64" else ops.cast(output, "float32")
    log_p, dtype = ops.log_softmax(wide), wide.dtype
    batch, length = labels.shape
    places = Tensor(_with_blanks(build.cast(labels, "int32"), node_of(target_length), blank))
    # a label may follow the one before it without a blank between, unless they are equal
    before = ops.pad(places[:, :-2], ((0, 0), (2, 0)), constant_values=blank)
    skips = ops.where(ops.logical_and(places != blank, places != before), 0.0, NEVER)
    emitted = ops.take_along_axis(log_p, ops.expand_dims(places, 1), axis=2)
    count = 2 * length + 1
    state = Tensor(build.iota((batch, count), 1))
    time = Tensor(build.iota((scores.shape[1],), 0))
    ends = Tensor(build.cast(build.reshape(node_of(output_length), (batch, 1)), "int32"))

    def step(reached, now):
        chances, t = now
        one_on = ops.pad(reached[:, :-1], ((0, 0), (1, 0)), constant_values=NEVER)
        two_on = ops.pad(reached[:, :-2], ((0, 0), (2, 0)), constant_values=NEVER) + skips
        moved = ops.logaddexp(ops.logaddexp(reached, one_on), two_on) + chances
        return ops.where(t < ends, moved, reached), None

    first = ops.cast(ops.where(state == 0, 0.0, NEVER), dtype)
    reached, _ = ops.scan(step, first, (ops.transpose(emitted, (1, 0, 2)), time))
    last = 2 * Tensor(build.reshape(build.cast(node_of(target_length), "int32"), (batch, 1)))
    final = ops.logical_or(state == last, state == last - 1)
    return -ops.logsumexp(ops.where(final, reached, NEVER), axis=1)


def _mask_class(mask_index: int | None, classes: Any) -> int:
    """The class that is no label; None means the last. Raises ArgumentError if there is no such class."""
    if mask_index is None and isinstance(classes, int):
        return classes - 1
    if mask_index is None or (isinstance(classes, int) and not 0 <= mask_index < classes) or mask_index < 0:
        raise ArgumentError(f"mask_index must be one of the classes 0 ... {classes - 1}, got {mask_index}")
    return int(mask_index)


def _with_blanks(labels: Node, lengths: Node, blank: int) -> Node:
    """[batch, 2 * labels + 1]: blank, label, blank, label ... blank, and blanks after the last label."""
    batch, length = labels.shape
    place = build.iota((batch, length), 1)
    own = build.where(build.less(place, build.reshape(build.cast(lengths, "int32"), (batch, 1))), labels, blank)
    pairs = build.concat(
        [build.reshape(part, (batch, length, 1)) for part in (build.full((batch, length), blank, "int32"), own)], 2
    )
    return build.pad(build.reshape(pairs, (batch, 2 * length)), (0, 0), (0, 1), value=blank)


def ctc_decode(
    inputs: Any,
    sequence_lengths: Any,
    strategy: str = "greedy",
    beam_width: int = 100,
    top_paths: int = 1,
    merge_repeated: bool = True,
    mask_index: int | None = 0,
) -> Decoded:
    """The likeliest label sequences of a model trained with `ctc_loss`: (labels, scores).

    inputs: logits float[batch, steps, classes]   sequence_lengths: int[batch]   mask_index: None for the last class
    strategy   'greedy': the best class of each step; labels int32[1, batch, steps], -1 after the end, scores
               [batch, 1], minus the sum of the logits; equal neighbours are one label if `merge_repeated`
               'beam_search': the `top_paths` likeliest sequences found while the `beam_width` best beginnings are
               followed; labels int32[top_paths, batch, steps], scores [batch, top_paths], log-probabilities. It works
               on arrays, not inside a model

    Raises ArgumentError for another strategy. Graves et al., section 3.2; the search: Hannun, Maas, Jurafsky, Ng 2014,
    "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs", algorithm 1.
    """
    one_of("the strategy of ctc_decode", strategy, ("greedy", "beam_search"))
    if len(np.shape(inputs)) != 3:
        raise ShapeError(f"ctc_decode needs inputs [batch, steps, classes], got the shape {np.shape(inputs)}")
    if strategy == "greedy":
        return _greedy(inputs, sequence_lengths, merge_repeated, mask_index)
    if is_symbolic(inputs) or is_symbolic(sequence_lengths):
        raise ArgumentError(
            "ctc_decode(strategy='beam_search') works on arrays: decode what the model's predict() gives. 'greedy' "
            "works inside a model, too"
        )
    if beam_width < 1 or not 1 <= top_paths <= beam_width:
        raise ArgumentError(
            f"ctc_decode needs 1 <= top_paths <= beam_width, got top_paths={top_paths} and beam_width={beam_width}"
        )
    x = np.asarray(inputs)
    x = x if x.dtype == np.float64 else x.astype(np.float32)
    blank = _mask_class(mask_index, x.shape[2])
    labels = np.full((top_paths, x.shape[0], x.shape[1]), -1, np.int32)
    scores = np.full((x.shape[0], top_paths), -np.inf, x.dtype)
    top = x.max(2, keepdims=True, initial=-np.inf)
    log_p = x - top - np.log(np.exp(x - top).sum(2, keepdims=True))
    for b, steps in enumerate(np.asarray(sequence_lengths).tolist()):
        for k, (path, score) in enumerate(_search(log_p[b, :steps], beam_width, blank)[:top_paths]):
            labels[k, b, : len(path)] = path
            scores[b, k] = score
    return labels.view(Array), scores.view(Array)


@on_tensors(2)
def _greedy(inputs, sequence_lengths, merge_repeated, mask_index):
    x = inputs if inputs.dtype == "float64" else ops.cast(inputs, "float32")
    batch, steps, classes = x.node.shape
    blank = _mask_class(mask_index, classes)
    place = Tensor(build.iota((batch, steps), 1))
    counts = place < Tensor(build.reshape(build.cast(node_of(sequence_lengths), "int32"), (batch, 1)))
    best = ops.where(counts, ops.cast(ops.argmax(x, axis=-1), "int32"), blank)
    scores = -ops.sum(ops.where(counts, ops.max(x, axis=-1), 0.0), axis=1, keepdims=True)
    kept = best != blank
    if merge_repeated:
        before = ops.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
        kept = ops.logical_and(kept, best != before)
    labels = ops.where(kept, best, -1)
    order = ops.argsort(ops.where(kept, place, Tensor(build.size(steps, "int32"))), axis=-1)
    return ops.expand_dims(ops.take_along_axis(labels, order, axis=-1), 0), scores


def _search(log_p: np.ndarray, width: int, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Label sequences and their log-probabilities, the likeliest first.

    Of each beginning two chances are kept: that the steps so far end with a blank, and that they end with its last
    label; for that label once more is a new one in the first case only.
    """
    paths: list[tuple[int, ...]] = [()]
    silent, voiced = np.zeros(1), np.full(1, -np.inf)
    for p in log_p.astype(np.float64):
        last = np.array([path[-1] if path else blank for path in paths])
        total = np.logaddexp(silent, voiced)
        longer = total[:, None] + p  # one label more
        longer[:, blank] = -np.inf
        own = last != blank
        rows = np.arange(len(paths))
        longer[rows[own], last[own]] = silent[own] + p[last[own]]
        silent = total + p[blank]
        voiced = np.where(own, voiced + p[last], -np.inf)
        known = {path: k for k, path in enumerate(paths)}
        for k, path in enumerate(paths):  # a beginning with one label more may be one that is followed already
            if path and path[:-1] in known:
                parent = known[path[:-1]]
                voiced[k] = np.logaddexp(voiced[k], longer[parent, path[-1]])
                longer[parent, path[-1]] = -np.inf
        candidates = np.concatenate([np.logaddexp(silent, voiced), longer.ravel()])
        chosen = np.argsort(-candidates, kind="stable")[:width]
        chosen = chosen[np.isfinite(candidates[chosen])]
        old, new = chosen[chosen < len(paths)], chosen[chosen >= len(paths)] - len(paths)
        grown = [(*paths[k // len(p)], int(k % len(p))) for k in new.tolist()]
        paths = [*(paths[k] for k in old.tolist()), *grown]
        silent = np.concatenate([silent[old], np.full(len(new), -np.inf)])
        voiced = np.concatenate([voiced[old], longer.ravel()[new]])
    total = np.logaddexp(silent, voiced)
    return [(paths[k], float(total[k])) for k in np.argsort(-total, kind="stable").tolist()]


__all__ = ["ctc_decode", "ctc_loss"]
