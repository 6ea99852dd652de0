"""Kills, full disks, two writers, workers that hang or end: what is lost, what is wrong afterwards, what is left
running.

``compile``, ``compress``, ``export-c``, ``tune`` with two processes, and a program
that saves a model again and again are killed (SIGKILL), half of the times at a random moment of the run, half while a
result is being written. After every kill the result is the old one, the new one or not there; after the last the
command runs to its end and has to give what an uninterrupted run gives. All on the digits network of the package."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common import parse, parser, show
from tvm_ergo import zoo
from tvm_ergo.files import SUFFIX
from tvm_ergo.remote import key_file
from tvm_ergo.remote.worker import Worker

KILLS, SEED, TRIALS, FULL_BYTES = 50, 1, 40, 3000
MARK = "TVM_ERGO_FAULTS"
EXPORT, SAVE = "export-c", "save, again and again"
SAVES = """
import sys, tvm_ergo
model = tvm_ergo.load(sys.argv[1])
for _ in range(300):
    model.save(sys.argv[2])
"""


@dataclass(frozen=True)
class Work:
    """A command, and the files it writes that are compared, in a folder of its own. again : what it is told when it
    goes on."""

    name: str
    command: Callable[[Path], list[str]]
    results: tuple[str, ...]
    again: Callable[[Path], list[str]] = lambda folder: []


@dataclass
class Count:
    """What happened. wrong : results that are neither old nor new nor absent, or differ in the end. left : processes.
    files : left over in the end."""

    struck: int = 0
    writing: int = 0
    wrong: int = 0
    left: int = 0
    files: int = 0
    errors: list[str] = field(default_factory=list)


def cli(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "tvm_ergo.cli", *map(str, arguments)]


def works(root: Path) -> list[Work]:
    images, labels = zoo.digits()[2:]
    np.savez(root / "cal.npz", image=zoo.digits()[0][:32])
    np.savez(root / "test.npz", x=images[:64], y=labels[:64])
    model = [zoo.DIGITS_MODEL, "--calibration", root / "cal.npz"]
    subprocess.run(cli("compile", *model, "-o", root / "saved.ergo"), check=True, capture_output=True)
    subprocess.run(cli("export-c", root / "saved.ergo", "-o", root / "exported"), check=True, capture_output=True)
    exported = [str(path.relative_to(root / "exported")) for path in (root / "exported").rglob("*") if path.is_file()]
    tune = cli("tune", *model, "--memory", 26_000, "--trials", TRIALS, "--processes", 2)
    return [
        Work("compile", lambda f: cli("compile", *model, "-o", f / "net.ergo"), ("net.ergo",)),
        Work(
            "compress",
            lambda f: cli("compress", *model, "--data", root / "test.npz", "--max-drop", 5, "-o", f / "net.ergoz"),
            ("net.ergoz",),
        ),
        Work(
            "tune, 2 processes",
            lambda f: [*tune, "--out", str(f / "run")],
            ("run/trials.jsonl", "run/best.json"),
            lambda f: ["--resume"] if (f / "run" / "manifest.json").exists() else [],
        ),
        Work(
            EXPORT,
            lambda f: cli("export-c", root / "saved.ergo", "-o", f / "firmware"),
            tuple(f"firmware/{name}" for name in sorted(exported)),
        ),
        Work(
            SAVE,
            lambda f: [sys.executable, "-P", "-c", SAVES, str(root / "saved.ergo"), str(f / "net.ergo")],
            ("net.ergo",),
        ),
    ]


def start(work: Work, folder: Path, mark: str, **options) -> subprocess.Popen:
    return run([*work.command(folder), *work.again(folder)], mark, **options)


def run(command: list[str], mark: str = "", **options) -> subprocess.Popen:
    """What it says of errors goes to a file: nobody has to read along."""
    errors = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, MARK: mark}, **options
    )
    process.errors = errors
    return process


def ended(process: subprocess.Popen) -> str:
    """What it said, when it has ended."""
    process.wait()
    with process.errors as errors:
        errors.seek(0)
        return errors.read()


def contents(work: Work, folder: Path) -> list[bytes | None]:
    return [(folder / name).read_bytes() if (folder / name).exists() else None for name in work.results]


def marked(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def still_running(mark: str) -> int:
    until = time.monotonic() + 10
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(left)


def parts(folder: Path) -> int:
    """Temporary files there are; a folder that is renamed while it is looked at is looked at again."""
    while True:
        try:
            return sum(1 for path in folder.rglob(f".*{SUFFIX}"))
        except FileNotFoundError:
            continue


def wait_to_strike(process: subprocess.Popen, folder: Path, seconds: float, writing: bool, rng: random.Random) -> bool:
    """Whether a result was being written."""
    moment, before = time.monotonic() + rng.uniform(0.1, 1.0) * seconds, parts(folder)
    while process.poll() is None:
        if writing and parts(folder) > before:
            time.sleep(rng.uniform(0, 0.003))
            return True
        if not writing and time.monotonic() >= moment:
            return parts(folder) > before
        time.sleep(0 if writing else 0.005)
    return False


def make_room(work: Work, folder: Path) -> None:
    """What it made is taken away, where it takes new folders only, or would have nothing left to do."""
    if all(content is not None for content in contents(work, folder)):
        if work.name == EXPORT:
            shutil.rmtree(folder / "firmware")
        elif work.name.startswith("tune"):
            shutil.rmtree(folder / "run")


def killed(work: Work, root: Path, kills: int, rng: random.Random) -> dict:
    """The same folder through all kills."""
    folder, whole, count = root / "killed", root / "whole", Count()
    folder.mkdir(parents=True)
    whole.mkdir()
    began = time.monotonic()
    ended(start(work, whole, ""))
    seconds, expected = time.monotonic() - began, contents(work, whole)
    for number in range(kills):
        make_room(work, folder)
        mark = uuid.uuid4().hex
        process = start(work, folder, mark)
        count.writing += wait_to_strike(process, folder, seconds, number % 2 == 1, rng)
        process.send_signal(signal.SIGKILL)
        ended(process)
        count.struck += process.returncode == -signal.SIGKILL
        count.left += still_running(mark)
        for now, new in zip(contents(work, folder), expected):
            begun = now is not None and work.name.startswith("tune") and new.startswith(now[: now.rfind(b"\n") + 1])
            count.wrong += now not in (None, new) and not begun
        some = {now is None for now in contents(work, folder)}
        count.wrong += len(some) > 1 and not work.name.startswith("tune")  # all or none
    make_room(work, folder)
    process = start(work, folder, "")
    errors = ended(process)
    count.wrong += process.returncode != 0 or contents(work, folder) != expected
    if process.returncode:
        count.errors.append(errors[-300:])
    return row(f"SIGKILL: {work.name}", kills, count, parts(folder))


def full(work: Work, root: Path) -> dict:
    """No file may be longer than FULL_BYTES: to the program it is a disk that is full."""
    folder, count, mark = root / "full", Count(), uuid.uuid4().hex
    folder.mkdir(parents=True)
    process = start(
        work, folder, mark, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
    )
    errors = ended(process)
    count.struck = process.returncode == 2
    count.wrong = process.returncode != 2 or "Traceback" in errors or errors.count("tvm-ergo: OutputError: ") != 1
    if count.wrong:
        count.errors.append(errors[-600:])
    count.left = still_running(mark)
    before = parts(folder)
    again = start(work, folder, "")
    ended(again)
    count.wrong += again.returncode != 0 or contents(work, folder) != contents(work, root / "whole")
    return row(f"full disk: {work.name}", 1, count, before)


def two_writers(compiles: Work, tunes: Work, root: Path, times: int) -> list[dict]:
    expected, count = contents(compiles, root / "compile" / "whole"), Count()
    folder = root / "two"
    folder.mkdir()
    for _ in range(times):
        both = [start(compiles, folder, "") for _ in range(2)]
        count.wrong += sum(ended(p) is None or p.returncode != 0 for p in both) + (
            contents(compiles, folder) != expected
        )
        count.struck += 1
    rows = [row("two writers: compile", times, count, parts(folder))]
    count, folder = Count(), root / "two tunes"
    folder.mkdir()
    both = [start(tunes, folder, "") for _ in range(2)]
    said = [ended(p) for p in both]
    codes = sorted(p.returncode for p in both)
    count.struck = 1
    count.wrong = (
        codes != [0, 2]
        or not any("another tuning run" in text for text in said)
        or contents(tunes, folder) != contents(tunes, root / tunes.name / "whole")
    )
    return [*rows, row("two writers: tune", 1, count, parts(folder))]


def workers(tunes: Work, root: Path, number: int, what: signal.Signals) -> dict:
    """One of two processes of a worker stops (and hangs) or is killed in the middle of a run."""
    folder, count = root / f"workers {number}", Count()
    folder.mkdir()
    worker = Worker("127.0.0.1", 0, key_file.read(root / "worker.key", make=True), 2)
    command = [a for a in tunes.command(folder) if a not in ("--processes", "2")] + [
        "--workers",
        worker.address,
        "--key",
        str(root / "worker.key"),
        "--job-time",
        "5",
    ]
    try:
        process = run(command)
        path = folder / "run" / "trials.jsonl"
        while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") >= TRIALS // 3):
            time.sleep(0.01)
        count.struck = process.poll() is None
        worker.processes[0][0].send_signal(what)
        errors = ended(process)
        count.wrong = process.returncode != 0 or contents(tunes, folder) != contents(tunes, root / tunes.name / "whole")
        if process.returncode:
            count.errors.append(errors[-300:])
    finally:
        worker.stop()
    return row(f"one of two workers: {what.name}", 1, count, 0)


def row(fault: str, times: int, count: Count, files: int) -> dict:
    found = {
        "fault": fault,
        "times": times,
        "struck": int(count.struck),
        "while writing": count.writing,
        "wrong": int(count.wrong),
        "processes left": count.left,
        "files left": files,
    }
    print(found, *count.errors, flush=True)
    return found


def faults(root: Path, every: list[Work], kills: int) -> list[dict]:
    rng, rows = random.Random(SEED), []
    for number, work in enumerate(every):
        rows.append(killed(work, root / work.name, len(range(number, kills, len(every))), rng))
        if work.name != SAVE:
            rows.append(full(work, root / work.name))
    rows += two_writers(every[0], every[2], root, 3)
    return rows + [
        workers(every[2], root, number, what) for number, what in enumerate((signal.SIGKILL, signal.SIGSTOP))
    ]


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__.split("\n\n")[0])
    arguments.add_argument("--kills", type=int, default=KILLS, help=f"of all commands together (default {KILLS})")
    parsed = parse(arguments, argv)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        rows = faults(root, works(root), parsed.kills)
    show("faults: what is wrong and what is left", rows, parsed.json)


if __name__ == "__main__":
    main()
