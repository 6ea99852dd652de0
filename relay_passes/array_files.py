"""NumPy's files read with our errors: a header may claim anything, and a truncated archive fails in many ways.

Sizes are known before anything is allocated: an array is never larger than the bytes there are for it, and the arrays
of an archive together stay within the limit on what a file may ask for (`target.limits`). Nothing is unpickled."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

import numpy as np

from tvm_ergo.target.errors import CalibrationError, ErgoError
from tvm_ergo.target.limits import Declared

KINDS = "biufUS"
"""Of elements: numbers, truth values and texts."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: str | Path, error: type[ErgoError] = CalibrationError) -> dict[str, np.ndarray]:
    """Arrays of an .npz (by name) or .npy (name ""). Errors: ``error`` for a missing, foreign, pickled or too large
    file."""
    declared = Declared(str(path), error=error)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                return _archive(file, declared)
            size = os.fstat(file.fileno()).st_size
            declared.add(size)
            return {"": _array(file, size)}
    except ErgoError:
        raise
    except FileNotFoundError:
        raise error(f"there is no file {path}", where=str(path), remedy="check the path") from None
    # whatever NumPy's and zipfile's parsers raise on bytes they did not expect: many kinds, in no common class
    except Exception as cause:
        raise error(
            f"{path} is not a NumPy file this program can read",
            where=str(path),
            available=f"{cause}"[:200] or type(cause).__name__,
            remedy="save plain arrays with numpy.save or numpy.savez",
        ) from cause


def _archive(file, declared: Declared) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            declared.note(member.file_size, f"array {member.filename!r}")
        declared.check()
        found = {}
        for member in members:
            with archive.open(member) as content:
                found[member.filename.removesuffix(".npy")] = _array(content, member.file_size)
        return found


def _array(file, size: int) -> np.ndarray:
    """size : bytes there are. Errors: ValueError and what NumPy's parser raises."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"a header of version {version}")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject or dtype.kind not in KINDS or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"it holds {'Python objects' if dtype.hasobject else dtype}, not plain numbers")
    count = math.prod(shape) * dtype.itemsize
    if count > size - file.tell():
        raise ValueError(
            f"it claims an array larger than the file: {dtype}{list(shape)}, and {size - file.tell():,} bytes are there"
        )
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    data = memoryview(array.reshape(-1, order="A").view(np.uint8)) if count else memoryview(b"")
    read = 0
    while read < count and (step := file.readinto(data[read : read + (1 << 24)])):
        read += step
    if read != count:
        raise ValueError("it ends too early")
    return array
