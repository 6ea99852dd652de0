"""Finished trials on disk: a line of JSON each, appended and synced a batch at a time, so that a kill loses none that
was reported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.target.errors import DatabaseError, OutputError
from tvm_ergo.target.limits import parsed_json


@dataclass(frozen=True)
class Trial:
    """task : its digest. way : its key. figures : None for a way that could not be carried out. values : the
    decisions."""

    task: str
    way: str
    values: tuple[int, ...]
    figures: Figures | None
    predicted: float | None = None

    def to_json(self) -> str:
        return json.dumps(
            {
                "task": self.task,
                "way": self.way,
                "values": list(self.values),
                "figures": self.figures and self.figures.to_json(),
                "predicted": self.predicted,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> Trial:
        data = parsed_json(line)
        if (
            not isinstance(data["task"], str)
            or not isinstance(data["way"], str)
            or not all(type(v) is int for v in data["values"])
        ):
            raise ValueError("its task, way or values are of another kind")
        return cls(
            data["task"],
            data["way"],
            tuple(data["values"]),
            data["figures"] and Figures.from_json(data["figures"]),
            data["predicted"],
        )


class Log:
    """``trials.jsonl`` of a work directory. known : what it held when it was opened, by task and way; a torn last line
    is dropped. Errors: OutputError, DatabaseError for lines that no tuner wrote."""

    def __init__(self, path: Path, resume: bool):
        self.path = path
        self.known: dict[tuple[str, str], Trial] = {}
        if path.exists() and not path.is_file():
            raise OutputError(
                "the record of trials is not a file", where=str(path), remedy="remove it, or give another folder"
            )
        if resume and path.exists():
            whole = self._read()
            if whole < path.stat().st_size:
                os.truncate(path, whole)
        elif path.exists():
            path.unlink()
        self.written = set(self.known)

    def _read(self) -> int:
        """Reads what is whole; how many bytes that is."""
        size = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                trial = Trial.from_json(line.decode())
                wrong = None if trial.figures is None else trial.figures.wrong
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                wrong = "not a trial"
            if not line.endswith(b"\n"):
                break
            if wrong is not None:
                raise DatabaseError(
                    "a record of trials cannot be believed",
                    where=f"{self.path}, line {len(self.known) + 1}",
                    available=wrong,
                    remedy="remove this line and those behind it, or tune into another folder",
                )
            self.known[trial.task, trial.way] = trial
            size += len(line)
        return size

    def append(self, trials: Iterable[Trial]) -> None:
        """Writes those that are not there yet; returns when they are on disk. Errors: OutputError."""
        new = [t for t in trials if (t.task, t.way) not in self.written]
        if not new:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(trial.to_json() + "\n" for trial in new))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}",
                where=str(self.path),
                available=str(error.strerror or error),
                remedy="free some space and resume",
            ) from error
        self.written.update((t.task, t.way) for t in new)
