"""Derivatives of graphs: gradients, products with Jacobians and Hessians, and functions of many slices at once.

Everything here works on symbolic tensors and gives symbolic tensors, of any order of differentiation.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gnomon import eager
from gnomon.compiler import dtypes
from gnomon.compiler import grad as differentiation
from gnomon.compiler.errors import ArgumentError, DisconnectedError, DTypeError, GraphError, ShapeError
from gnomon.compiler.graph import Node, origins, replace, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import WithGradient, with_gradient
from gnomon.compiler.passes import stabilize
from gnomon.compiler.sizes import product
from gnomon.compiler.vectorize import vectorize
from gnomon.ops.core import convert_to_tensor
from gnomon.tensor import Tensor, is_symbolic, new_input, node_of, op

MODES = ("raise", "warn", "ignore", "zero")


def _several(value: Any) -> tuple[list[Any], bool]:
    """A list of what was given, and whether it was one thing alone."""
    if isinstance(value, (list, tuple)):
        return list(value), False
    return [value], True


def _like(value: list[Any], alone: bool, given: Any) -> Any:
    if alone:
        return value[0]
    return tuple(value) if isinstance(given, tuple) else value


def _wanted(wrt: Sequence[Any]) -> list[Node]:
    nodes = []
    for x in wrt:
        if not is_symbolic(x) and not isinstance(x, Node):
            raise GraphError(f"a derivative is with respect to a Tensor or a Variable, got {type(x).__name__} {x!r}")
        nodes.append(node_of(x))
    return nodes


def grad(
    cost: Any,
    wrt: Any,
    consider_constant: Sequence[Any] | None = None,
    disconnected_inputs: str = "raise",
    known_grads: Mapping[Any, Any] | None = None,
) -> Any:
    """Gradients of a scalar cost with respect to a tensor or variable, or a list of them (in the form of `wrt`).

    consider_constant     tensors that gradients do not pass
    disconnected_inputs   where the cost does not depend on a wrt: 'raise', 'warn', or 'ignore' (the gradient is 0)
    known_grads           {tensor: its gradient} from outside; the cost may then be None

    Raises ShapeError if the cost is not a scalar, DTypeError if it is not a float, DisconnectedError.
    """
    if disconnected_inputs not in MODES:
        raise ArgumentError(f"disconnected_inputs must be 'raise', 'warn' or 'ignore', got {disconnected_inputs!r}")
    targets, alone = _several(wrt)
    nodes = _wanted(targets)
    constants = [node_of(x) for x in consider_constant or ()]
    known = {node_of(x): _cotangent(x, g) for x, g in (known_grads or {}).items()}
    if cost is None:
        if not known:
            raise ArgumentError("grad needs a cost, or known_grads to start from")
        found = differentiation.vjp([], [], nodes, known, constants)
    else:
        node = node_of(cost)
        _check_cost(node)
        node = _stable(node, [*nodes, *constants, *known])
        found = differentiation.vjp([node], [build.constant(1, node.dtype)], nodes, known, constants)
    return _like([Tensor(g) for g in _connected(found, targets, cost, disconnected_inputs)], alone, wrt)


def _stable(cost: Node, kept: Sequence[Node]) -> Node:
    """The cost with logarithms that meet the exponentials they undo: log(softmax(x)) has a finite gradient everywhere,
    but not if softmax and log are differentiated one by one. As it was if that would take away one of `kept`."""
    (stable,) = stabilize([cost])
    before, after = set(walk([cost])), set(walk([stable]))
    return cost if any(x in before and x not in after for x in kept) else stable


def _check_cost(node: Node) -> None:
    place = f", made at {', '.join(map(repr, origins(node)))}" if origins(node) else ""
    if node.rank != 0:
        raise ShapeError(
            f"a gradient needs a scalar cost, got {node.type}{place}: take its sum or mean, or use jacobian"
        )
    if not dtypes.is_float(node.dtype):
        raise DTypeError(f"a gradient needs a float cost, got {node.type}{place}")


def _connected(found: Sequence[Node | None], targets: Sequence[Any], cost: Any, mode: str) -> list[Node]:
    """Gradients with zeros for those that are missing, if that was asked for."""
    result = []
    for g, x in zip(found, targets, strict=True):
        if g is None:
            of = "the known gradients" if cost is None else repr(cost)
            message = (
                f"{of} does not depend on {x!r}, or only through operations without a gradient (comparisons, integers, "
                "stop_gradient): its gradient is zero everywhere. If that is meant, pass disconnected_inputs='ignore'"
            )
            if mode == "raise":
                raise DisconnectedError(message)
            if mode == "warn":
                warnings.warn(message, stacklevel=3)
            g = build.full_like(node_of(x), 0)
        result.append(g)
    return result


def value_and_grad(cost: Any, wrt: Any, **options: Any) -> tuple[Any, Any]:
    """The cost and its gradients, see `grad`."""
    return cost, grad(cost, wrt, **options)


# ---- products with Jacobians


def _cotangent(x: Any, value: Any) -> Node:
    """`value` as a node of x's type, broadcast where it is smaller."""
    node, given = node_of(x), node_of(value)
    given = build.cast(given, node.dtype)
    try:
        return build.broadcast_to(given, node.shape)
    except ShapeError:
        message = f"{given.type} cannot be multiplied with the derivative of {node.type}: the shapes differ"
        raise ShapeError(message) from None


def _pairs(name: str, xs: Any, values: Any) -> tuple[list[Any], list[Node], bool]:
    targets, alone = _several(xs)
    given, _ = _several(values) if not alone else ([values], True)
    if len(given) != len(targets):
        raise ArgumentError(f"{name} needs one value per tensor: {len(targets)} tensors, {len(given)} values")
    return targets, [_cotangent(x, v) for x, v in zip(targets, given, strict=True)], alone


def vjp(
    f: Any,
    wrt: Any,
    cotangents: Any,
    consider_constant: Sequence[Any] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """The product of cotangents (one per output of f, of its shape) with the Jacobian of f: one per wrt."""
    outputs, values, _ = _pairs("vjp", f, cotangents)
    targets, alone = _several(wrt)
    constants = [node_of(x) for x in consider_constant or ()]
    found = differentiation.vjp([node_of(y) for y in outputs], values, _wanted(targets), None, constants)
    return _like([Tensor(g) for g in _connected(found, targets, f, disconnected_inputs)], alone, wrt)


def jvp(f: Any, wrt: Any, tangents: Any) -> Any:
    """The product of the Jacobian of f with tangents (one per wrt, of its shape): one per output of f, of its shape.

    With a function as `f`, `wrt` are its arguments' values: Keras's `jvp(fun, primals, tangents)`.
    """
    if callable(f) and not is_symbolic(f):
        return jvp_of_function(f, wrt, tangents)
    targets, values, _ = _pairs("jvp", wrt, tangents)
    outputs, alone = _several(f)
    found = differentiation.jvp([node_of(y) for y in outputs], _wanted(targets), values)
    return _like([Tensor(t) for t in found], alone, f)


def Rop(f: Any, wrt: Any, eval_points: Any) -> Any:
    """Theano's name for `jvp`."""
    return jvp(f, wrt, eval_points)


def Lop(f: Any, wrt: Any, eval_points: Any, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """Theano's name for `vjp`."""
    return vjp(f, wrt, eval_points, consider_constant, disconnected_inputs)


def jvp_of_function(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """(fun(*primals), its Jacobian times `tangents`); with `has_aux`, what fun returns second is passed on."""

    def both(given: list[Any]) -> Any:
        points, directions = given
        leaves = [Tensor(new_input("primal", x.dtype, x.node.shape)) for x in points]
        out = fun(*leaves)
        value, aux = out if has_aux else (out, None)
        flat = value if isinstance(value, (list, tuple)) else [value]
        moved = jvp(list(flat), leaves, directions)
        change = {a.node: b.node for a, b in zip(leaves, points, strict=True)}
        fixed = replace([*(node_of(v) for v in flat), *(node_of(v) for v in moved)], change)
        tensors = [Tensor(n) for n in fixed]
        values, products = tensors[: len(flat)], tensors[len(flat) :]
        many = isinstance(value, (list, tuple))
        result = (type(value)(values), type(value)(products)) if many else (values[0], products[0])
        return (*result, _substituted(aux, change)) if has_aux else result

    return eager.compute(both, [[convert_to_tensor(v) for v in values] for values in (primals, tangents)])


def _substituted(value: Any, change: dict[Node, Node]) -> Any:
    if isinstance(value, Tensor):
        return Tensor(replace([value.node], change)[0])
    if isinstance(value, (list, tuple)):
        return type(value)(_substituted(v, change) for v in value)
    return value


# ---- Jacobians and Hessians


def jacobian(
    expression: Any,
    wrt: Any,
    consider_constant: Sequence[Any] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """All derivatives of a tensor with respect to one or several others: the axes of the expression, then those of wrt.

    One batched computation: the product of a cotangent with the Jacobian, for the rows of an identity matrix at once.
    Sizes may be symbolic.
    """
    node = node_of(expression)
    if not dtypes.is_float(node.dtype):
        raise DTypeError(f"a Jacobian is of floats, got {node.type}")
    targets, alone = _several(wrt)
    nodes = _wanted(targets)
    constants = [node_of(x) for x in consider_constant or ()]
    row = new_input("cotangent", node.dtype, node.shape)
    found = differentiation.vjp([node], [row], nodes, None, constants)
    rows = _connected(found, targets, expression, disconnected_inputs)
    n = product(node.shape)
    unit = build.equal(build.iota((n, n), 0, "int64"), build.iota((n, n), 1, "int64"))
    units = build.reshape(build.cast(unit, node.dtype), (n, *node.shape))
    full = vectorize(rows, {row: units}, n)
    shaped = [build.reshape(j, (*node.shape, *x.shape)) for j, x in zip(full, nodes, strict=True)]
    return _like([Tensor(j) for j in shaped], alone, wrt)


def hessian(
    cost: Any,
    wrt: Any,
    consider_constant: Sequence[Any] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """Second derivatives of a scalar cost: for each wrt, its axes twice. A Jacobian of the gradient."""
    targets, alone = _several(wrt)
    first = grad(cost, targets, consider_constant, disconnected_inputs)
    found = [
        # a cost linear in x has a gradient that does not depend on it: its Hessian is zero, not an error
        jacobian(g, x, consider_constant, "ignore")
        for g, x in zip(first, targets, strict=True)
    ]
    return _like(found, alone, wrt)


def hessian_vector_product(cost: Any, wrt: Any, vectors: Any) -> Any:
    """The Hessian of a scalar cost times vectors (one per wrt, of its shape), without making the Hessian.

    The gradient of (gradient · vectors): Pearlmutter 1994, "Fast exact multiplication by the Hessian".
    """
    targets, values, alone = _pairs("hessian_vector_product", wrt, vectors)
    first = grad(cost, targets)
    nodes = _wanted(targets)
    found = differentiation.vjp([g.node for g in first], values, nodes)
    return _like([Tensor(g) for g in _connected(found, targets, cost, "ignore")], alone, wrt)


# ---- what gradients do not pass, or pass in another way


@op
def stop_gradient(x):
    """The same value, which gradients do not pass; asking for a gradient through it alone is an error."""
    return build.stop_gradient(node_of(x))


disconnected_grad = stop_gradient
consider_constant = stop_gradient


@op
def zero_grad(x):
    """The same value, through which gradients are 0 (and not missing, as with `stop_gradient`)."""
    x = node_of(x)
    return WithGradient(_zero)(x, x)


def _zero(g: Node) -> list[Node | None]:
    return [build.full_like(g, 0)]


def custom_gradient(f: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """A function with its own gradient: `f(*args)` returns (outputs, grad_fn), grad_fn(*cotangents) the gradients.

    grad_fn returns one gradient per argument, None where there is none; it may take its cotangent as `upstream=`.
    """

    def public(*args: Any) -> Any:
        return eager.compute(lambda tensors: _with_gradient(f, tensors), list(args))

    return public


def _with_gradient(f: Callable[..., Any], tensors: list[Tensor]) -> Any:
    outputs, grad_fn = f(*tensors)
    many = isinstance(outputs, (list, tuple))
    flat = [node_of(y) for y in (outputs if many else [outputs])]
    arguments = [node_of(x) for x in tensors]
    keyword = len(flat) == 1 and "upstream" in inspect.signature(grad_fn).parameters

    def rule(k: int) -> Callable[[Node], list[Node | None]]:
        def gradients(g: Node) -> list[Node | None]:
            # linear in the cotangents: each output sends its own, the others 0
            sent = [Tensor(g if i == k else build.full_like(y, 0)) for i, y in enumerate(flat)]
            found = grad_fn(upstream=sent[0]) if keyword else grad_fn(*sent)
            found = list(found) if isinstance(found, (list, tuple)) else [found]
            if len(found) != len(arguments):
                raise ArgumentError(f"the custom gradient must give {len(arguments)} gradients, got {len(found)}")
            return [None if d is None else _cotangent(Tensor(x), d) for x, d in zip(arguments, found, strict=True)]

        return gradients

    wrapped = [Tensor(with_gradient(y, arguments, rule(k))) for k, y in enumerate(flat)]
    return type(outputs)(wrapped) if many else wrapped[0]


# ---- many slices at once


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """`function` of every slice of `elements` along the first axis, as one batched computation; results are stacked.

    elements: one tensor [n, ...] or a list, tuple or dictionary of them with equal first sizes
    """
    flat: list[Any] = []
    form = _flatten(elements, flat)
    return eager.compute(lambda tensors: _map_slices(function, form, tensors), flat)


def _flatten(value: Any, flat: list[Any]) -> Any:
    if isinstance(value, dict):
        return {k: _flatten(v, flat) for k, v in value.items()}
    if isinstance(value, tuple) or (isinstance(value, list) and any(is_symbolic(v) or np.ndim(v) for v in value)):
        return type(value)(_flatten(v, flat) for v in value)
    flat.append(value)
    return len(flat) - 1


def _filled(form: Any, values: Sequence[Any]) -> Any:
    if isinstance(form, dict):
        return {k: _filled(v, values) for k, v in form.items()}
    if isinstance(form, (list, tuple)):
        return type(form)(_filled(v, values) for v in form)
    return values[form]


def _map_slices(function: Callable[[Any], Any], form: Any, tensors: list[Tensor]) -> Any:
    if not tensors:
        raise ArgumentError("vectorized_map needs something to map over: elements is empty")
    size: Any = None
    inputs: dict[Node, Node] = {}
    for t in tensors:
        node = t.node
        if not node.rank:
            raise ShapeError(f"vectorized_map goes along the first axis, but {node.type} has none")
        size = node.shape[0] if size is None else size
        slice_ = new_input("slice", node.dtype, node.shape[1:])
        inputs[slice_] = build.equate(node, (size, *node.shape[1:]))
        if inputs[slice_].shape[0] != size:
            raise ShapeError(f"the first axes of the elements differ: {size} and {node.shape[0]} in {node.type}")
    result = function(_filled(form, [Tensor(n) for n in inputs]))
    flat: list[Any] = []
    shape = _flatten_result(result, flat)
    outputs = vectorize([node_of(y) for y in flat], inputs, size)
    return _filled(shape, [Tensor(o) for o in outputs])


def _flatten_result(value: Any, flat: list[Any]) -> Any:
    if isinstance(value, dict):
        return {k: _flatten_result(v, flat) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_flatten_result(v, flat) for v in value)
    flat.append(value)
    return len(flat) - 1


def vectorize_function(
    pyfunc: Callable[..., Any], excluded: Any = None, signature: str | None = None
) -> Callable[..., Any]:
    """A function of scalars (or, by `signature`, of small arrays) as one of arrays whose leading axes broadcast.

    excluded    positions and names of arguments that are passed on as they are
    signature   "(n),(n)->()": how many axes of each argument, the last ones, belong to one call
    """
    kept = set(excluded or ())
    ranks = None
    if signature is not None:
        ranks = [len([d for d in part.split(",") if d.strip()]) for part in _groups(signature.split("->")[0])]

    def public(*args: Any, **kwargs: Any) -> Any:
        places = [k for k in range(len(args)) if k not in kept]
        if ranks is not None and len(ranks) != len(places):
            raise ArgumentError(f"the signature {signature!r} has {len(ranks)} arguments, got {len(places)}")

        def compute(tensors: list[Tensor]) -> Any:
            nodes = [t.node for t in tensors]
            core = ranks or [0] * len(nodes)
            lead = build.broadcast_shapes(*(n.shape[: n.rank - r] for n, r in zip(nodes, core, strict=True)))
            total = product(lead)
            flat = []
            for n, r in zip(nodes, core, strict=True):
                inner = n.shape[n.rank - r :]
                flat.append(Tensor(build.reshape(build.broadcast_to(n, (*lead, *inner)), (total, *inner))))

            def one(slices: tuple[Any, ...]) -> Any:
                given = list(args)
                for k, s in zip(places, slices, strict=True):
                    given[k] = s
                return pyfunc(*given, **kwargs)

            result = _map_slices(one, tuple(range(len(flat))), flat)

            def shaped(t: Tensor) -> Tensor:
                return Tensor(build.reshape(t.node, (*lead, *t.node.shape[1:])))

            return type(result)(map(shaped, result)) if isinstance(result, (list, tuple)) else shaped(result)

        return eager.compute(compute, [args[k] for k in places])

    return public


def _groups(text: str) -> list[str]:
    """The contents of the parentheses of one side of a signature."""
    return re.findall(r"\(([^)]*)\)", text)
