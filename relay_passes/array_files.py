"""NumPy's files read with our errors: a header may claim anything, and a truncated archive fails in many ways."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from tvm_ergo.target.errors import CalibrationError, ErgoError


def read_arrays(path: str | Path, error: type[ErgoError] = CalibrationError) -> dict[str, np.ndarray]:
    """Arrays of an .npz (by name) or .npy (name ""). Errors: ``error`` for a missing, foreign, pickled or too large file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise error(f"there is no file {path}", where=str(path), remedy="check the path") from None
    except MemoryError as cause:
        raise error("the file claims an array larger than the free memory", where=str(path), required=str(cause).rstrip(".")[:200] or None,
                    available=f"a file of {Path(path).stat().st_size:,} bytes",
                    remedy="where the two do not match, the file is damaged: save it again; else give fewer samples") from None
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as cause:  # RuntimeError: encrypted, or packed in a way not known
        raise error(f"{path} is not a NumPy file this program can read", where=str(path), available=str(cause)[:200],
                    remedy="save plain arrays with numpy.save or numpy.savez") from cause
