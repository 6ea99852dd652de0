"""Errors the user sees. One base class, so that the CLI can turn any of them into a message and exit code 2.

An error says what was wrong, where, what is required against what is available, and the remedy.
"""

from __future__ import annotations

LABELS = ("where", "required", "available", "remedy")


def one_line(text: str) -> str:
    """``text`` with line ends as ``\\n``: a name out of a file must not look like a line of a message."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


class ErgoError(Exception):
    """Base of every error this product raises on purpose.

    Parameters
    ----------
    what : one sentence, what is wrong.
    where : the node, tensor, file or instruction concerned.
    required, available : the two sides of a violated limit, with units.
    remedy : what the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        required: str | None = None,
        available: str | None = None,
        remedy: str | None = None,
    ):
        self.what, self.where, self.required, self.available, self.remedy = what, where, required, available, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        for label in LABELS:
            value = getattr(self, label)
            if value:
                lines.append(f"  {label}: {one_line(str(value))}")
        return "\n".join(lines)

    def __reduce__(self):
        return _rebuild, (type(self), self.__dict__.copy())


def restored(error: ErgoError) -> ErgoError:
    """The error with its parts, where only its text came through (TVM's function boundary hands over the text
    alone)."""
    head, *rest = error.what.split("\n")
    parts: dict[str, str] = {}
    for line in rest:
        label = next((label for label in LABELS if line.startswith(f"  {label}: ") and label not in parts), None)
        if label is None:
            return error
        parts[label] = line[len(label) + 4 :]
    return type(error)(head, **parts) if parts and not any(getattr(error, label) for label in LABELS) else error


def _rebuild(cls: type[ErgoError], state: dict) -> ErgoError:
    error: ErgoError = cls.__new__(cls)
    error.__dict__.update(state)
    Exception.__init__(error, str(error))
    return error


class ModelError(ErgoError):
    """The model file or module is broken or of a form that cannot be read (truncated, dynamic shape, NaN weights)."""


class UnsupportedError(ErgoError):
    """The chip cannot do this operator with these parameters (raised under ``strict`` only)."""


class AccuracyError(ErgoError):
    """The compiled network differs from the float network by more than allowed."""


class CalibrationError(ErgoError):
    """Calibration data is missing or unusable."""


class InputError(ErgoError):
    """A value given at run time has the wrong name, shape, dtype, or is not finite."""


class ProgramError(ErgoError):
    """A Program's bytes or text are broken: wrong magic, version, checksum, field out of range."""


class TargetError(ErgoError):
    """Unknown target or chip, or a chip file that does not describe a chip."""


class OutOfMemoryError(ErgoError):
    """The network does not fit the unified memory."""


class MachineError(ErgoError):
    """The emulated chip was asked for something undefined (bounds, unwritten read, unordered overlap)."""


class CompressionError(ErgoError):
    """A network cannot be made as small, or as small at so little loss, as was asked."""


class RemoteError(ErgoError):
    """Other machines that were to help cannot be reached, or failed."""


class BudgetError(ErgoError):
    """A network cannot meet the power or the frame rate that was asked for."""


class DatabaseError(ErgoError):
    """Tuning results were made for something else: another chip, model, compiler or memory."""


class OutputError(ErgoError):
    """A result cannot be written."""
