"""Where a command's results go: checked before anything is computed, so that no input is overwritten, no hour lost."""

from __future__ import annotations

import argparse
import os
import sys

from tvm_ergo.files import check_writable, note_results
from tvm_ergo.printed import ClosedFile
from tvm_ergo.target.errors import OutputError

TEXTS = ("json", "html", "trace", "text", "plot")
"""Arguments that name results which are text."""
RESULTS = (*TEXTS, "output", "out")
FOLDERS = ("database",)
"""Arguments that name folders whose files are inputs."""


def check_result_paths(arguments: argparse.Namespace, *binary: str | None) -> None:
    """``binary`` : results that are no text, which standard output does not take. From here on no data file beside the
    model is read that a result would replace.

    Errors: OutputError for a result that could not be written, or would overwrite an input or another result.
    """
    taken = {os.path.realpath(path): "an input of this command" for path in _files_read(arguments)}
    for path in (*binary, *texts(arguments)):
        if path == "-" and isinstance(sys.stdout, ClosedFile):
            raise OutputError(
                "standard output is closed, and a result was asked for there",
                available="-",
                remedy="give a file, or leave standard output open",
            )
        if path == "-" and path in binary:
            raise OutputError(
                "this result is no text: it is not written to standard output",
                available="-",
                remedy="give a file (./- for one of this name)",
            )
        if path == "":
            raise OutputError("a result has no name", remedy="give a file, or - for standard output")
        if path:
            real = path if path == "-" else os.path.realpath(path)
            if path != "-":
                check_writable(path)
            if real in taken and (path == "-" or os.path.isfile(real) or not os.path.exists(real)):
                name = "standard output" if path == "-" else path
                raise OutputError(
                    f"{name} would be overwritten" if path != "-" else "two results cannot both go to standard output",
                    where=name,
                    available=f"it is {taken[real]}",
                    remedy="give another path",
                )
            taken[real] = "another result of this command"
    note_results(path for path in (*binary, *texts(arguments)) if path and path != "-")


def texts(arguments: argparse.Namespace) -> list[str | None]:
    """Where the results that are text go: files, or "-"."""
    return [getattr(arguments, name, None) for name in TEXTS]


def _files_read(arguments: argparse.Namespace) -> list[str]:
    """The files that exist of all that is named, by itself or as NAME=FILE, and those in folders that are read."""
    given: list[str] = []
    for name, value in vars(arguments).items():
        if name in RESULTS:
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                given += [text, text.rpartition("=")[2]]
    for folder in filter(os.path.isdir, (getattr(arguments, name, None) or "" for name in FOLDERS)):
        given += (os.path.join(folder, name) for name in os.listdir(folder))
    return [path for path in given if path and os.path.isfile(path)]
