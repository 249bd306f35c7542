"""The table that `model.summary()` prints, as Keras prints it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError
from gnomon.utils import tree

if TYPE_CHECKING:
    from gnomon.layers.calls import Call
    from gnomon.models.graph import CallGraph

NUMBER, SYMBOL, OPEN, TRAINED, FROZEN = 34, 33, 45, 34, 9  # terminal colours


def print_summary(
    model: Any,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """See `Model.summary`. Raises ArgumentError if the window is too narrow or `layer_range` finds no layer."""
    import rich.console
    import rich.markup
    import rich.table

    from gnomon.models.sequential import Sequential

    graph = None if isinstance(model, Sequential) else model._graph
    layers = list(graph.operations) if graph is not None else model.layers
    connected = graph is not None and not _is_chain(graph)
    header = ["Layer (type)", "Output Shape", "Param #"] + ["Connected to"] * connected
    aligned: list[Any] = ["left", "left", "right"] + ["left"] * connected
    ends = list(positions or ([0.3, 0.56, 0.74, 1.0] if connected else [0.45, 0.80, 1.0]))
    default = 108 if connected else 88
    if show_trainable:
        default += 12
        ends = [p * 0.90 for p in ends] + [1.0]
        header.append("Trainable")
        aligned.append("center")
    width = line_length or min(default, shutil.get_terminal_size().columns - 4)
    columns = []
    start = 0
    for name, end, side in zip(header, ends, aligned, strict=True):
        size = int(end * width) - start
        if size < 4:
            raise ArgumentError(f"the window is too narrow for the summary: {width} characters; pass line_length")
        columns.append(rich.table.Column(name, justify=side, width=size))
        start += size
    table = rich.table.Table(*columns, width=width, show_lines=True)

    def add(layer: Any, level: int) -> None:
        prefix = "   " * level + "└ " if level else ""
        kind = getattr(layer, "title", None) or type(layer).__name__
        fields = [
            f"{rich.markup.escape(prefix + layer.name)} ({_colour(rich.markup.escape(kind), SYMBOL)})",
            _shape_of(layer),
        ]
        fields.append(
            _colour(f"{layer.count_params():,}", NUMBER) if layer.built else f"{_colour('0', NUMBER)} (unbuilt)"
        )
        if connected and graph is not None:
            fields.append(_connections(layer, graph))
        if show_trainable:
            marks = {True: _colour("Y", TRAINED), False: _colour("N", FROZEN)}
            fields.append(f"[bold]{marks[layer.trainable] if layer.weights else '-'}[/]")
        table.add_row(*fields)
        if expand_nested:
            for inner in getattr(layer, "layers", ()):
                add(inner, level + 1)

    first, last = _range(layers, layer_range)
    for layer in layers[first:last]:
        add(layer, 0)
    plain: dict[str, Any] = {"force_terminal": False, "color_system": None} if print_fn else {}
    console = rich.console.Console(highlight=False, **plain)
    if print_fn:
        console.begin_capture()
    console.print(f'[bold]Model: "{rich.markup.escape(model.name)}"[/]')
    console.print(table)
    for line in _totals(model):
        console.print(line)
    if print_fn:
        print_fn(console.end_capture())


def _totals(model: Any) -> list[str]:
    optimizer = getattr(model, "optimizer", None)
    groups = {"Trainable": model.trainable_weights, "Non-trainable": model.non_trainable_weights}
    if optimizer is not None and getattr(optimizer, "built", False):
        groups["Optimizer"] = optimizer.variables
    counted = {name: (sum(prod(v.shape) for v in group), sum(map(_bytes, group))) for name, group in groups.items()}
    total = tuple(sum(c[k] for c in counted.values()) for k in (0, 1))
    lines = {"Total": total, **counted}
    return [
        f"[bold] {name} params: [/]{_colour(f'{n:,}', NUMBER)} ({readable_size(size)})"
        for name, (n, size) in lines.items()
    ]


def _bytes(variable: Any) -> float:
    return prod(variable.shape) * dtypes.named(variable.dtype).bytes


def readable_size(size: float) -> str:
    """1536 -> 1.50 KB."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"


def _colour(text: str, colour: int) -> str:
    return f"[color({colour})]{text}[/]"


def _is_chain(graph: CallGraph) -> bool:
    """Whether every layer is called once, on one tensor, one after another."""
    if any(len(calls) > 1 or len(calls[0].inputs) > 1 for calls in graph.depths):
        return False
    called = [call.layer for call in graph.calls]
    return all(called.count(layer) == 1 for layer in graph.layers)


def _connections(layer: Any, graph: CallGraph) -> str:
    found = []
    for call in sorted((c for c in graph.calls if c.layer is layer), key=lambda c: c.index):
        for tensor in call.inputs:
            source, k = graph.producer(tensor)
            found.append(f"{source.layer.name}[{_colour(str(source.index), NUMBER)}][{_colour(str(k), NUMBER)}]")
    return ", ".join(found) or "-"


def _shape_of(layer: Any) -> str:
    """The shape of what the layer gave in its latest call; a layer built by hand is asked."""
    calls: list[Call] = layer._layer_state.calls
    if calls:
        shapes: Any = [t.shape for t in calls[-1].outputs]
    else:
        shapes = layer._layer_state.output_shapes
        if shapes is None and layer.built and layer._layer_state.build_arguments:
            try:
                shapes = layer.compute_output_shape(*layer._layer_state.build_arguments.values())
            except (NotImplementedError, TypeError, ValueError):
                return "?"
        if shapes is None:
            return "?"
    if tree.is_shape(shapes):
        return _shown(shapes)
    texts = tree.map_shape_structure(_shown, shapes)
    flat = tree.flatten(texts)
    return flat[0] if len(flat) == 1 else str(texts).replace("'", "")


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join(_colour(str(d), OPEN if d is None else NUMBER) for d in shape)})"


def _range(layers: Sequence[Any], layer_range: Sequence[str] | None) -> tuple[int, int]:
    if layer_range is None:
        return 0, len(layers)
    if len(layer_range) != 2 or not all(isinstance(name, str) for name in layer_range):
        raise ArgumentError(f"layer_range is the names, or patterns, of two layers, got {layer_range!r}")
    found = [[k for k, layer in enumerate(layers) if re.match(name, layer.name)] for name in layer_range]
    for name, places in zip(layer_range, found, strict=True):
        if not places:
            raise ArgumentError(f"layer_range: no layer matches {name!r} among {[layer.name for layer in layers]}")
    first, last = sorted((found[0][0], found[1][-1]))
    return first, last + 1
