"""A report read back from the JSON that ``tvm-ergo report --json`` wrote."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tvm_ergo.report.model import Report
from tvm_ergo.target.errors import InputError

MOST_BYTES = 256 << 20
"""A report takes kilobytes to a few megabytes."""


def is_report(path: str | Path) -> bool:
    return str(path).endswith(".json")


def read_report(path: str | Path) -> Report:
    """The report in a file. Errors: InputError for a file that is missing, too large, or no report of this version."""
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(
                "this is no report",
                where=str(path),
                available=f"{path.stat().st_size:,} bytes",
                remedy="give a file that tvm-ergo compile --json wrote",
            )
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            "the report cannot be read", where=str(path), available=error.strerror, remedy="check the path"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            "this is no report of this version",
            where=str(path),
            available=f"{'.'.join(str(part) for part in first['loc']) or 'file'}: {first['msg']}"[:200],
            remedy="write it again: tvm-ergo report NET.ergo --json FILE",
        ) from error
