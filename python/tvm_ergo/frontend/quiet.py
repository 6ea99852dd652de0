"""TVM's ONNX importer without its talk, in the thread that imports alone: it prints operands on errors and warns of
what is dealt with here.

Redirecting the standard output or changing warning filters would be felt by all threads of the process. Instead the
importer's module is given a ``print`` and a ``warnings`` of its own, which are the usual ones but within `quiet`."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tvm.relax.frontend.onnx import onnx_frontend

_quiet: ContextVar[bool] = ContextVar("tvm_ergo_quiet_import", default=False)


def _print(*args, **options) -> None:
    if not _quiet.get():
        builtins.print(*args, **options)


class _Warnings:
    """The module ``warnings`` as the importer uses it."""

    def __getattr__(self, name: str):
        return getattr(warnings, name)

    @staticmethod
    def warn(message, category=None, stacklevel: int = 1, **options) -> None:
        if not _quiet.get():
            warnings.warn(message, category, stacklevel + 1, **options)


onnx_frontend.print = _print
onnx_frontend.warnings = _Warnings()


@contextmanager
def quiet() -> Iterator[None]:
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
