"""What the options of `tvm_ergo.compile`, `explore` and `quantize` may be: one place that says so before any work
begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from numbers import Integral, Real
from typing import TypeVar

import numpy as np

from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.target.errors import InputError

Choice = TypeVar("Choice", bound=Enum)
MOST_SHOWN = 60


def flag(name: str, value: object) -> bool:
    """True or False. Nothing is taken by its truth: "no" is true. Errors: InputError."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise _wrong(name, value, "True or False", f"{name}=True")


def choice(name: str, value: object, kind: type[Choice]) -> Choice:
    """A member of an enumeration, given itself or by its value. Errors: InputError."""
    if isinstance(value, kind):
        return value
    known = [member.value for member in kind]
    if isinstance(value, str) and value in known:
        return kind(value)
    raise _wrong(name, value, "one of " + ", ".join(map(repr, known)), f"{name}={known[0]!r}")


def whole_number(name: str, value: object, least: int = 1, most: int = 2**31 - 1) -> int:
    """An integer from ``least`` to ``most``. Errors: InputError."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    raise _wrong(name, value, f"an integer from {least} to {most}", f"{name}={max(least, 1)}")


def whole_numbers(name: str, value: object, least: int = 1, most: int = 2**31 - 1) -> tuple[int, ...]:
    """Several integers from ``least`` to ``most``, or none. Errors: InputError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise _wrong(name, value, "a list of integers", f"{name}=[16, 64]")
    return tuple(whole_number(name, n, least, most) for n in value)


def positive(name: str, value: object) -> float | None:
    """A number above 0, or None. Errors: InputError."""
    if value is None or isinstance(value, Real) and not isinstance(value, bool) and 0 < value < float("inf"):
        return value if value is None else float(value)
    raise _wrong(name, value, "a positive number, or None", f"{name}=0.1")


def callback(name: str, value: object) -> Callable | None:
    """Something that can be called, or None. Errors: InputError."""
    if value is None or callable(value):
        return value
    raise _wrong(
        name,
        value,
        "a function of (step, done, total), or None",
        f"{name}=lambda step, done, total: print(step, done, total)",
    )


def text(name: str, value: object) -> str | None:
    """A string, or None. Errors: InputError."""
    if value is None or isinstance(value, str):
        return value
    raise _wrong(name, value, "a string, or None", f'{name}="..."')


def quantization(name: str, value: object) -> QuantizeOptions:
    """Errors: InputError for anything but QuantizeOptions."""
    if isinstance(value, QuantizeOptions):
        if value.float_parts != "auto":
            positive("float_parts", value.float_parts)
        positive("sixteen_bits", value.sixteen_bits)
        return value
    raise _wrong(name, value, "tvm_ergo.QuantizeOptions", 'quantize=tvm_ergo.QuantizeOptions(method="mse")')


def shapes(value: object) -> dict[str, tuple[int, ...]] | None:
    """Input shapes by name, or None. Errors: InputError for anything but a dict of sequences of positive integers."""
    example = 'input_shapes={"input": (1, 3, 224, 224)}'
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong("input_shapes", value, "a dict {input name: shape}, or None", example)
    found = {}
    for name, shape in value.items():
        if not isinstance(name, str) or isinstance(shape, (str, bytes)) or not hasattr(shape, "__iter__"):
            raise _wrong("input_shapes", value, "names as keys and sequences of integers as values", example)
        found[name] = tuple(whole_number(f"a dimension of input_shapes[{name!r}]", size) for size in shape)
    return found


def _wrong(name: str, value: object, required: str, example: str) -> InputError:
    shown = (
        f"{value!r:.{MOST_SHOWN}}"
        if isinstance(value, (str, int, float, type(None)))
        else f"an object of type {type(value).__name__}"
    )
    return InputError(f"the option {name} cannot be {shown}", required=required, remedy=f"for instance {example}")
