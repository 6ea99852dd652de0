"""The work directory of a tuning run: what it was made for, its trials, and the best plans, which compilation takes."""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from tvm_ergo.codegen.compile import COMPRESSION, PLAN
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.weights.apply import annotated
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.files import sweep
from tvm_ergo.relay_passes.compile.insert_compression import Decision, insert
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import DatabaseError, OutputError
from tvm_ergo.target.limits import parsed_json, read_bytes

FORMAT = 1
_TOLD = {"version": str, "chip": str, "chip_digest": str, "memory_bytes": int}
"""What every manifest says."""
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError, RuntimeError, OverflowError)
MANIFEST, BEST, TRIALS, SUMMARY = "manifest.json", "best.json", "trials.jsonl", "summary.json"
FILES = (MANIFEST, BEST, TRIALS, SUMMARY, "database_workload.json", "database_tuning_record.json")
"""What a run writes; the last two are MetaSchedule's."""
_scope: contextvars.ContextVar = contextvars.ContextVar("tvm_ergo_database", default=None)


def chip_digest(chip: Chip) -> str:
    """Equal for chips on which the same Program costs the same, whatever memory they have."""
    data = chip.to_json()
    data.pop("memory_bytes", None)
    return hashlib.sha1(json.dumps(data, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:16]


def version() -> str:
    from tvm_ergo import __version__

    return __version__


def fingerprint(func: relax.Function) -> str:
    """Names a chip function as it is before its constants are coded."""
    return graph_of(func).fingerprint


def undecided(mod: tvm.IRModule) -> dict[str, relax.Function]:
    """The chip functions whose plan is not decided yet, by name."""
    return {name: func for name, func in chip_functions(mod) if func.attrs is None or PLAN not in func.attrs}


def check_folder(folder: Path, manifest: dict, resume: bool) -> None:
    """Whether a run, which holds the folder, may begin in it, or go on there.

    Errors: OutputError where it cannot be written, holds something else, another run and ``resume`` was not asked for,
    or none though it was; DatabaseError for resuming what was begun with other settings."""
    if not os.access(folder, os.W_OK):
        raise _no_folder(folder, "it may not be written to")
    for path in (folder / name for name in FILES):
        if path.exists() and not path.is_file():
            raise OutputError(
                "a record of the tuning run is not a file", where=str(path), remedy="remove it, or give another folder"
            )
    path = folder / MANIFEST
    for name in FILES:  # a run that was killed while it wrote its first file left nothing but a part of it
        sweep(folder / name)
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(
                "the folder for the tuning results holds something else",
                where=str(folder),
                remedy="give an empty or a new folder",
            )
        if resume:
            raise OutputError(
                "there is no tuning run to go on with",
                where=str(folder),
                remedy="leave --resume out to begin one, or give the folder of the run",
            )
        return
    if not (folder / TRIALS).exists():  # begun, and no trial finished
        return
    old = {"gating": False, **read_json(path)}  # folders from before there was the option do not say
    differing = [
        f"{key}: {old.get(key)} there, {manifest.get(key)} asked"
        for key in sorted({*old, *manifest})
        if old.get(key) != manifest.get(key)
    ]
    if differing:
        raise DatabaseError(
            "the folder holds a tuning run of something else",
            where=str(folder),
            available="; ".join(differing),
            remedy="give another folder, or the settings it was begun with",
        )
    if not resume:
        raise OutputError(
            "the folder holds a tuning run already",
            where=str(folder),
            remedy="--resume to go on with it, or another folder",
        )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes the folder of a run, which has it to itself within the block: from before anything in it is looked at to
    the last result. A run that leaves nothing in it leaves no folder either.

    Errors: OutputError where another run has it, or it cannot be made."""
    made = []
    try:
        for path in reversed([folder, *folder.parents]):
            if not path.exists():
                path.mkdir(exist_ok=True)
                made.append(path)
    except (OSError, ValueError) as error:  # ValueError: a name no folder can have
        raise _no_folder(folder, getattr(error, "strerror", None) or str(error)) from error
    if not folder.is_dir():
        raise _no_folder(folder, "not a folder")
    try:
        with _held(folder):
            yield
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty: a run began
                path.rmdir()


def _no_folder(folder: Path, reason: str) -> OutputError:
    return OutputError(
        f"cannot make the folder {folder}", where=str(folder), available=reason, remedy="give another folder"
    )


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on the folder itself, so that nothing has to be cleared away: the kernel lets it go with the process,
    however that ends.

    Errors: OutputError where another run has it. File systems without locks do not tell.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:  # gone again with the run that made it, or it may not be read
        raise _no_folder(folder, str(error.strerror or error)) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                "another tuning run is at work in the folder",
                where=str(folder),
                remedy="give another folder, or wait for its end (Ctrl-C there keeps what it has found) and go on with "
                "--resume",
            ) from None
        except OSError:
            pass
        if not os.path.exists(folder) or not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise _no_folder(folder, "another run removed it at this moment: start again")
        yield
    finally:
        os.close(handle)


def read_json(path: Path) -> dict:
    """Errors: DatabaseError for a file that is missing or no JSON object."""
    try:
        data = parsed_json(read_bytes(path))
        if isinstance(data, dict):
            return data
        reason = "not a JSON object"
    except FileNotFoundError:
        reason = "there is no such file"
    except (OSError, ValueError) as error:
        reason = str(error)[:200]
    raise DatabaseError(
        f"{path} cannot be read as part of tuning results",
        where=str(path),
        available=reason,
        remedy="give the folder that `tvm-ergo tune --out` wrote",
    )


def digest_of(functions) -> str:
    """Of the plans in ``best.json``, which are carried out as they stand: an altered one would be another plan, or
    none."""
    return hashlib.sha256(json.dumps(functions, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Database:
    """The best plans of a run. functions : by fingerprint. point : operating point they were chosen for."""

    folder: str
    manifest: Mapping
    functions: Mapping[str, Mapping]
    point: str | None

    @classmethod
    def read(cls, folder: str | Path) -> Database:
        """Errors: DatabaseError."""
        folder = Path(folder)
        manifest, best = read_json(folder / MANIFEST), read_json(folder / BEST)
        if manifest.get("format") != FORMAT:
            raise DatabaseError(
                "tuning results of another format",
                where=str(folder),
                required=f"format {FORMAT}",
                available=str(manifest.get("format")),
                remedy="tune again",
            )
        if best.get("digest") != digest_of(best.get("functions")):
            raise DatabaseError(
                "the best plans are not as the tuner wrote them",
                where=str(folder / BEST),
                remedy="tune again with --resume, which writes them anew",
            )
        wrong = [
            key
            for key, kind in _TOLD.items()
            if not isinstance(manifest.get(key), kind) or isinstance(manifest.get(key), bool)
        ]
        if wrong:
            raise DatabaseError(
                "the manifest of the tuning results lacks a part",
                where=str(folder / MANIFEST),
                required=", ".join(wrong),
                remedy="tune again",
            )
        functions, point = best.get("functions"), best.get("point")
        if (
            not isinstance(functions, dict)
            or not all(isinstance(record, dict) for record in functions.values())
            or not isinstance(point, (str, type(None)))
        ):
            raise DatabaseError(
                "the best plans are not as the tuner wrote them", where=str(folder / BEST), remedy="tune again"
            )
        return cls(str(folder), manifest, functions, point)

    def check(self, chip: Chip) -> None:
        """Errors: DatabaseError where it was made by another compiler, for another chip or for more memory."""

        def refuse(what: str, required, available, remedy: str) -> None:
            raise DatabaseError(
                f"the tuning results are for another {what}",
                where=self.folder,
                required=str(required),
                available=str(available),
                remedy=remedy,
            )

        if self.manifest["version"] != version():
            refuse("version of the compiler", version(), self.manifest["version"], "tune again with this version")
        if self.manifest["chip"] != chip.name or self.manifest["chip_digest"] != chip_digest(chip):
            refuse(
                "chip",
                chip.name,
                f"{self.manifest['chip']} (its figures differ)"
                if self.manifest["chip"] == chip.name
                else self.manifest["chip"],
                "tune for this chip, or give the one of the results as target",
            )
        if self.manifest["memory_bytes"] > chip.memory_bytes:
            refuse(
                "memory",
                f"at most {chip.memory_bytes} bytes",
                f"{self.manifest['memory_bytes']} bytes",
                "tune again with this memory limit",
            )

    def check_options(self, **options: str) -> None:
        """options : ``weights``, ``objective`` and ``compression`` as asked for. Errors: DatabaseError where it was
        tuned with others, which its plans carry out."""
        differing = {name: value for name, value in options.items() if self.manifest.get(name) != value}
        if differing:
            raise DatabaseError(
                "the tuning results were made with other options",
                where=self.folder,
                required=", ".join(f"{name} {self.manifest.get(name)}" for name in differing),
                available=", ".join(f"{n} {v}" for n, v in differing.items()),
                remedy="leave these options out: the results hold the plans; or tune again with them",
            )

    def applied(self, mod: tvm.IRModule, chip: Chip) -> tvm.IRModule:
        """A partitioned module whose chip functions carry the plans there are of them. Errors: DatabaseError, also
        where there is none of any."""
        self.check(chip)
        functions = dict(chip_functions(mod))
        found = {
            name: self.functions[key]
            for name, func in functions.items()
            if (key := fingerprint(func)) in self.functions
        }
        if functions and not found:
            raise DatabaseError(
                "the tuning results are of another model",
                where=self.folder,
                required="results for a chip function of this model",
                available=f"results for {len(self.functions)} others",
                remedy="give the same model, calibration data and options (stream among them) as in tuning",
            )
        mod = mod.clone()
        for name, record in found.items():
            try:
                mod[mod.get_global_var(name)] = _planned(functions[name], record)
            except _DAMAGE as error:  # a record is a plan in many parts, any of which may be wrong
                raise DatabaseError(
                    "a plan of the tuning results cannot be carried out",
                    where=f"{self.folder}, function {name}",
                    available=f"{type(error).__name__}: {error}"[:200],
                    remedy="tune again",
                ) from error
        return relax.transform.Normalize()(mod)


def _planned(func: relax.Function, record: Mapping) -> relax.Function:
    """The chip function with its plan, its codings and what waits compressed."""
    codings = {digest: Coding(Codec[codec], lanes) for digest, (codec, lanes) in record["codings"].items()}
    waiting = {t: Decision(**told) for t, told in record["waiting"].items()}
    if not isinstance(record["plan"], dict):
        raise TypeError("the plan is no object")
    func = annotated(insert(func, waiting) if waiting else func, codings).with_attr(PLAN, json.dumps(record["plan"]))
    return func.with_attr(COMPRESSION, json.dumps(record["compression"])) if record["compression"] else func


@contextlib.contextmanager
def database(folder: str | Path) -> Iterator[Database]:
    """Within it ``tvm.compile`` (and `tvm_ergo.compile` without a database of its own) takes plans from these tuning
    results. Errors: DatabaseError."""
    found = Database.read(folder)
    token = _scope.set(found)
    try:
        yield found
    finally:
        _scope.reset(token)


def current() -> Database | None:
    """The database whose scope this is."""
    return _scope.get()
