"""The family of errors. Each also derives from the built-in a Python user expects.

    GnomonError
    ├── ArgumentError (ValueError)        a name, option or combination that is not known or not allowed
    ├── ShapeError (ValueError)           shapes that do not fit together
    ├── DTypeError (TypeError)            dtypes that do not fit together
    ├── GraphError (ValueError)           a graph that makes no sense: missing input, cycle, duplicate name
    │   └── DisconnectedError             a gradient with respect to something the cost does not depend on
    ├── DataError (ValueError)            data handed to fit, evaluate, predict or a compiled function
    ├── FileError (OSError)               a file that cannot be read or written, or is not what it should be
    │   └── MissingFileError (FileNotFoundError)   one that is not there
    ├── StateError (RuntimeError)         the right call at the wrong time: fit before compile
    │   └── NotBuiltError (AttributeError, ValueError)   what a layer has only once it is built or called
    ├── NotWrittenError (NotImplementedError)   a method that a subclass has to define
    ├── NumericError (ArithmeticError)    NaN or infinity found in debug mode
    ├── CheckError (AssertionError)       GNOMON_CHECK found a stage that differs from the oracle: our mistake
    ├── CompileError (RuntimeError)       code generation failed: our mistake, or a broken installation
    └── DeviceError (RuntimeError)        no such device, a launch that failed
        └── OutOfMemoryError (MemoryError)   a device has less memory than is needed

A message says what was asked, what was found, where (layer, and the user's file and line), what to do.
"""


class GnomonError(Exception):
    """Whatever gnomon raises on purpose."""


class ArgumentError(GnomonError, ValueError):
    """A name, option or combination of options that is unknown or not allowed."""


class ShapeError(GnomonError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(GnomonError, TypeError):
    """Dtypes that do not fit together."""


class GraphError(GnomonError, ValueError):
    """A graph that makes no sense."""


class DisconnectedError(GraphError):
    """A gradient was asked for with respect to something that the cost does not depend on."""


class DataError(GnomonError, ValueError):
    """Data that a model or compiled function cannot take."""


class FileError(GnomonError, OSError):
    """A file that cannot be read or written, or is not what it should be."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that is not there."""


class StateError(GnomonError, RuntimeError):
    """The right call at the wrong time."""


class NotBuiltError(StateError, AttributeError, ValueError):
    """A property that a layer has only once it is built or called; `hasattr` finds that it is not there."""


class NotWrittenError(GnomonError, NotImplementedError):
    """A method that a subclass has to define, and does not."""


class NumericError(GnomonError, ArithmeticError):
    """NaN or infinity, found in debug mode."""


class CheckError(GnomonError, AssertionError):
    """A stage of the compiler disagrees with the oracle."""


class CompileError(GnomonError, RuntimeError):
    """Code generation failed."""


class DeviceError(GnomonError, RuntimeError):
    """A device is missing, full, or refused a launch."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has less memory than is needed; the process goes on."""


def nearest(word: str, known) -> str:
    """' Did you mean ...?' with the known words closest to `word`; the list of all if none is close and it is short."""
    import difflib

    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(word), known, n=3, cutoff=0.5)
    if not close:
        lowered = {k.lower(): k for k in known}
        close = [lowered[k] for k in difflib.get_close_matches(str(word).lower(), lowered, n=3, cutoff=0.5)]
    if close:
        return f" Did you mean {' or '.join(repr(c) for c in close)}?"
    return f" Known: {', '.join(known)}." if len(known) <= 40 else ""
