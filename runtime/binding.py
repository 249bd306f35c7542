"""What the shapes of a call's inputs decide: the values of symbolic sizes, the shapes of all slots, how much memory
temporaries take. It is the same on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError
from gnomon.compiler.program import Program, Slot
from gnomon.compiler.sizes import Dim, evaluate, symbols
from gnomon.runtime import arena

Shape = tuple[int, ...]


class Binding:
    """A program, and what follows from the shapes it is called with.

    measures    numbers of the inputs whose values are sizes
    owners      for each slot the one whose memory it is
    lifetimes   first and last step of each temporary that has memory of its own
    """

    def __init__(self, program: Program):
        self.program = program
        self.measures = [number for number, axis in program.bindings if axis < 0]
        self.owners = [self._owner(k) for k in range(len(program.slots))]
        self.lifetimes = self._lives()

    def sizes(self, given: Sequence[Shape], values: Sequence[int] = ()) -> dict[str, int]:
        """The values of the symbolic sizes for inputs of these shapes, `values` being those of `measures`.

        Raises DataError if a shape does not fit its input.
        """
        program = self.program
        for slot, shape in zip(program.inputs, given, strict=True):
            wanted = program.slots[slot].shape
            if len(wanted) != len(shape):
                raise self._misfit(slot, shape, f"{len(wanted)} dimensions are needed, not {len(shape)}")
        measures = dict(zip(self.measures, values, strict=True))
        sizes = {
            name: given[number][axis] if axis >= 0 else measures[number]
            for name, (number, axis) in zip(program.sizes, program.bindings, strict=True)
        }
        for slot, shape in zip(program.inputs, given, strict=True):
            for axis, (dim, found) in enumerate(zip(program.slots[slot].shape, shape, strict=True)):
                value = evaluate(dim, sizes)
                if value != found:
                    which = "" if isinstance(dim, int) else f" ({dim}, with {self._origin(dim, given)})"
                    raise self._misfit(slot, shape, f"axis {axis} must be {value}{which}, not {found}")
        for check in program.checks:
            left, right = evaluate(check.left, sizes), evaluate(check.right, sizes)
            if left != right:
                raise DataError(f"{check.message} ({check.left} is {left}, {check.right} is {right})")
        return sizes

    def shapes(self, sizes: dict[str, int]) -> tuple[Shape, ...]:
        """The shapes of all slots. Raises DataError if one would be below 0."""
        known: dict[Dim, int] = {}

        def value(dim: Dim) -> int:
            if isinstance(dim, int):
                return dim
            if dim not in known:
                known[dim] = evaluate(dim, sizes)
                if known[dim] < 0:
                    given = " and ".join(f"{name} = {sizes[name]}" for name in sorted(symbols(dim)))
                    raise DataError(
                        f"{self.program.name!r} makes an array whose axis has {dim} elements, which is "
                        f"{known[dim]} with {given}: its inputs are too small."
                    )
            return known[dim]

        return tuple(tuple(value(d) for d in slot.shape) for slot in self.program.slots)

    def bytes(self, slot: int, shapes: Sequence[Shape]) -> int:
        """Bytes of a slot, given the shapes of all."""
        return bytes_of(shapes[slot], self.program.slots[slot].dtype)

    def temporary_bytes(self, sizes: dict[str, int]) -> int:
        """Bytes of temporary memory that a call takes with these values of the symbolic sizes."""
        shapes = self.shapes(sizes)
        return arena.layout([self.bytes(s, shapes) for s in self.lifetimes], list(self.lifetimes.values()))[1]

    def _misfit(self, slot: int, shape: Shape, reason: str) -> DataError:
        wanted = self.program.slots[slot]
        return DataError(
            f"Input {wanted.name!r} of {self.program.name!r} needs {type_of(wanted)}, "
            f"but an array of shape {shape} was given: {reason}."
        )

    def _origin(self, dim: Dim, given: Sequence[Shape]) -> str:
        """Where the values of the sizes in `dim` come from."""
        parts = []
        for name, (number, axis) in zip(self.program.sizes, self.program.bindings, strict=True):
            if name in symbols(dim):
                source = self.program.slots[self.program.inputs[number]].name
                if axis < 0:
                    parts.append(f"{name} = the value of {source!r}")
                    continue
                parts.append(f"{name} = {given[number][axis]} from axis {axis} of {source!r}")
        return " and ".join(parts)

    def _owner(self, slot: int) -> int:
        while self.program.slots[slot].alias >= 0:
            slot = self.program.slots[slot].alias
        return slot

    def _lives(self) -> dict[int, tuple[int, int]]:
        end = max((s.last for s in self.program.slots), default=0) + 1
        lives: dict[int, tuple[int, int]] = {}
        for number, slot in enumerate(self.program.slots):
            owner = self.owners[number]
            if self.program.slots[owner].kind == "temporary" and slot.row is None:
                first, last = (0, end) if slot.first < 0 or slot.last < 0 else (slot.first, slot.last)
                if number in self.program.outputs:
                    last = end  # copied when all has run
                known = lives.get(owner, (first, last))
                lives[owner] = min(first, known[0]), max(last, known[1])
        return lives


def bytes_of(shape: Shape, dtype: str) -> int:
    """Bytes of an array."""
    count = dtypes.named(dtype).bytes
    for extent in shape:
        count *= extent
    return count


def type_of(slot: Slot) -> str:
    """A slot's type as people read it."""
    return f"{slot.dtype}[{', '.join(map(str, slot.shape))}]"


def described(value: Any) -> str:
    """What was given, in the same form."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return f"a {type(value).__name__}"


__all__ = ["Binding", "Shape", "bytes_of", "described", "type_of"]
