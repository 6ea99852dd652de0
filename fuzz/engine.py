"""One target in a process of its own: mutated inputs one after another, within a limit of address space; the parent
counts, and ends what hangs.

What an execution may do: go through, or raise an error of ours (``ErgoError``, or what the target names). Anything else
is a finding: another exception, the end of the process, more than `HANG_S` seconds, or more memory than `MEMORY_BYTES`
beyond what the process had when it began (the limit on what models declare is `MODEL_BYTES` here)."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

HANG_S = 60.0
MODEL_BYTES = 64 << 20
MEMORY_BYTES = 1 << 30
ADDRESS_BYTES = 6 << 30
"""Beyond what is mapped at the start; threads and libraries map far more than they touch."""


@dataclass(frozen=True)
class Target:
    """A parser. seeds : good inputs. mutate : ``(rng, seed, other seed) -> input``, any value. run : parses it. own :
    errors it may raise. save : its bytes, for findings."""

    seeds: Callable[[], list]
    mutate: Callable
    run: Callable
    own: tuple[type[Exception], ...] = ()
    save: Callable[[object], bytes] = lambda value: (
        value if isinstance(value, bytes) else json.dumps(value, default=repr).encode()
    )
    limited: bool = True  # a sanitizer needs all address space there is


@dataclass
class Counts:
    executions: int = 0
    fine: int = 0
    own_errors: int = 0
    tracebacks: int = 0
    hangs: int = 0
    ended: int = 0
    over_memory: int = 0
    peak_bytes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, other: dict) -> None:
        for key, value in other.items():
            if key == "kinds":
                for kind, count in value.items():
                    self.kinds[kind] = self.kinds.get(kind, 0) + count
            elif key == "peak_bytes":
                self.peak_bytes = max(self.peak_bytes, value)
            else:
                setattr(self, key, getattr(self, key) + value)


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def child(name: str, seed: int, seconds: float, folder: Path) -> None:
    """Runs until the time is over. Writes the input at hand to ``folder`` before each execution, and what it counted
    after each."""
    from tvm_ergo.target.errors import ErgoError
    from tvm_ergo.target.limits import model_bytes_limit

    warnings.simplefilter("ignore")
    target: Target = importlib.import_module(f"fuzz.targets.{name}").TARGET
    rng, seeds, counts = random.Random(seed), target.seeds(), Counts()
    for good in seeds:  # seeds go through; whatever is loaded lazily is loaded
        with model_bytes_limit(MODEL_BYTES):
            target.run(good)
    start, before = time.monotonic(), _rss_bytes()
    if target.limited:
        resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + ADDRESS_BYTES,) * 2)
    while time.monotonic() - start < seconds:
        number = counts.executions
        made = target.mutate(rng, rng.choice(seeds), rng.choice(seeds))
        data = target.save(made)
        (folder / "current").write_bytes(data)
        kind = ""
        try:
            with model_bytes_limit(MODEL_BYTES):
                target.run(made)
            counts.fine += 1
        except (ErgoError, *target.own) as error:
            counts.own_errors += 1
            kind = type(error).__name__
        except MemoryError:
            counts.over_memory += 1
            _keep(folder, f"memory-{seed}-{number}", data)
        except Exception as error:
            counts.tracebacks += 1
            kind = f"! {type(error).__name__}"
            _keep(folder, f"traceback-{seed}-{number}", data, traceback.format_exc())
        counts.executions += 1
        counts.kinds[kind or "fine"] = counts.kinds.get(kind or "fine", 0) + 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if target.limited and peak - counts.peak_bytes > MEMORY_BYTES and peak > MEMORY_BYTES:
            counts.over_memory += 1
            _keep(folder, f"memory-{seed}-{number}", data)
        counts.peak_bytes = max(counts.peak_bytes, peak)
        (folder / "counts.json").write_text(json.dumps(asdict(counts)))


def _keep(folder: Path, name: str, data: bytes, about: str = "") -> None:
    (folder / name).write_bytes(data)
    if about:
        (folder / f"{name}.txt").write_text(about)


def run_target(name: str, seconds: float, out: Path, seed: int, environment: dict[str, str] | None = None) -> Counts:
    """Child after child until the time is over; each begins anew after a crash or a hang."""
    total, folder, end = Counts(), out / name, time.monotonic() + seconds
    folder.mkdir(parents=True, exist_ok=True)
    while (left := end - time.monotonic()) > 1:
        for stale in ("counts.json", "current"):
            (folder / stale).unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "fuzz.engine", name, str(seed), str(left), str(folder)]
        with open(folder / "stderr.txt", "w", encoding="utf-8") as errors:
            root = str(Path(__file__).resolve().parent.parent)
            process = subprocess.Popen(
                command,
                stdout=errors,
                stderr=errors,
                cwd=root,
                env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **(environment or {})},
            )
            hung = _watched(process, folder)
        counts = json.loads((folder / "counts.json").read_text()) if (folder / "counts.json").exists() else {}
        total.add(counts)
        if hung or process.returncode:
            what = "hangs" if hung else "ended"
            total.add({what: 1, "executions": 1})
            number = total.executions
            if (folder / "current").exists():
                _keep(
                    folder,
                    f"{what}-{seed}-{number}",
                    (folder / "current").read_bytes(),
                    (folder / "stderr.txt").read_text(errors="replace")[-20000:],
                )
            elif not hung:
                raise SystemExit(
                    f"the target {name} does not start:\n{(folder / 'stderr.txt').read_text(errors='replace')[-3000:]}"
                )
        seed += 1
    return total


def _watched(process: subprocess.Popen, folder: Path) -> bool:
    """Waits for the end; whether it had to be brought about."""
    seen, since = None, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        try:
            at = os.stat(folder / "current").st_mtime_ns
        except FileNotFoundError:
            at = None
        if at != seen:
            seen, since = at, time.monotonic()
        if time.monotonic() - since > (HANG_S if seen else 10 * HANG_S):
            process.kill()
            process.wait()
            return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for argument, kind in (("name", str), ("seed", int), ("seconds", float), ("folder", Path)):
        parser.add_argument(argument, type=kind)
    given = parser.parse_args()
    child(given.name, given.seed, given.seconds, given.folder)
