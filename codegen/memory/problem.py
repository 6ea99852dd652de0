"""The memory problem as a value: buffers with sizes and lifetimes in, offsets out. It knows nothing of tensors or
chips.

The CSV form is MiniMalloc's (``id,lower,upper,size`` and, for solutions, ``offset``), so its benchmark problems load as
they are."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.errors import ModelError


@dataclass(frozen=True)
class Buffer:
    """``size`` bytes needed during the half-open time range ``[lower, upper)``, at an offset divisible by
    ``alignment``."""

    id: int | str
    size: int
    lower: int
    upper: int
    alignment: int = 1


@dataclass(frozen=True)
class Problem:
    """Buffers to be placed so that no two that live at the same time share a byte."""

    buffers: tuple[Buffer, ...]

    def live_bytes(self) -> list[tuple[int, int]]:
        """``(time, bytes)`` wherever the sum of the live buffers' sizes changes, by rising time."""
        change: dict[int, int] = {}
        for b in self.buffers:
            if b.lower < b.upper:
                change[b.lower] = change.get(b.lower, 0) + b.size
                change[b.upper] = change.get(b.upper, 0) - b.size
        total, steps = 0, []
        for time in sorted(change):
            total += change[time]
            steps.append((time, total))
        return steps

    def lower_bound(self) -> int:
        """Most bytes live at one time: no placement can need less."""
        return max((total for _, total in self.live_bytes()), default=0)

    def peak_time(self) -> int:
        """The first time at which :meth:`lower_bound` bytes are live."""
        return max(self.live_bytes(), key=lambda step: (step[1], -step[0]), default=(0, 0))[0]

    def alive_at(self, time: int) -> list[Buffer]:
        """Buffers whose lifetime holds ``time``, largest first."""
        return sorted((b for b in self.buffers if b.lower <= time < b.upper), key=lambda b: -b.size)

    def to_csv(self) -> str:
        """MiniMalloc's form; a column ``alignment`` is added only where some buffer needs one."""
        aligned = any(b.alignment != 1 for b in self.buffers)
        rows = [["id", "lower", "upper", "size"] + ["alignment"] * aligned]
        rows += [[b.id, b.lower, b.upper, b.size] + [b.alignment] * aligned for b in self.buffers]
        return "".join(",".join(map(str, row)) + "\n" for row in rows)

    @staticmethod
    def from_csv(text: str) -> Problem:
        """Reads ``id,lower,upper,size[,alignment]`` in any column order. Errors: ModelError naming the line."""
        reader = csv.DictReader(io.StringIO(text))
        missing = {"id", "lower", "upper", "size"} - set(reader.fieldnames or ())
        if missing:
            raise ModelError(
                f"memory problem without column {', '.join(sorted(missing))}",
                required="id,lower,upper,size",
                available=",".join(reader.fieldnames or ()),
            )
        buffers = []
        for row in reader:
            try:
                key = int(row["id"]) if row["id"].lstrip("-").isdigit() else row["id"]
                buffers.append(
                    Buffer(key, int(row["size"]), int(row["lower"]), int(row["upper"]), int(row.get("alignment") or 1))
                )
            except (TypeError, ValueError, AttributeError) as error:
                raise ModelError(
                    "memory problem with a field that is no integer", where=f"line {reader.line_num}: {row}"
                ) from error
        return Problem(tuple(buffers))


@dataclass(frozen=True)
class Solution:
    """One byte offset per buffer, in the Problem's order."""

    offsets: tuple[int, ...]

    def peak(self, problem: Problem) -> int:
        """Bytes from 0 to the end of the highest buffer."""
        return max((o + b.size for o, b in zip(self.offsets, problem.buffers, strict=True)), default=0)

    def to_csv(self, problem: Problem) -> str:
        """The problem's columns and ``offset``."""
        rows = ["id,lower,upper,size,offset\n"]
        rows += [
            f"{b.id},{b.lower},{b.upper},{b.size},{o}\n" for b, o in zip(problem.buffers, self.offsets, strict=True)
        ]
        return "".join(rows)


def columns(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(size, lower, upper, alignment)``, int64[n] each."""
    table = np.array([(b.size, b.lower, b.upper, b.alignment) for b in problem.buffers], np.int64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]
