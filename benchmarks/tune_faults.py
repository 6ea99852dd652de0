"""Faults of tuning: `tvm-ergo tune` killed (SIGKILL) at random moments and resumed until it ends, and one of three
workers killed in the middle; compared with an uninterrupted run.

Every other kill strikes at a random moment of the whole run, of which the search is the last part, the others at a
random moment of the search. The comparison is of every line of ``trials.jsonl`` and of ``best.json``."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation.nets import model_path
from tvm_ergo.remote import key_file
from tvm_ergo.remote.worker import Worker

NET, MEMORY, TRIALS, KILLS, SEED = "pretrainedResnet_quant", "100KiB", 64, 20, 1
WORKERS = 3


def command(folder: Path, trials: int, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tvm_ergo.cli",
        "tune",
        str(model_path(NET)),
        "--memory",
        MEMORY,
        "--trials",
        str(trials),
        "--out",
        str(folder),
        *more,
    ]


def left(folder: Path) -> tuple[bytes, bytes]:
    """What is compared."""
    return (folder / "trials.jsonl").read_bytes(), (folder / "best.json").read_bytes()


def lines(folder: Path) -> int:
    path = folder / "trials.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run(folder: Path, trials: int, *more: str) -> float:
    """To the end; seconds."""
    start = time.monotonic()
    subprocess.run(command(folder, trials, *more), check=True, capture_output=True)
    return time.monotonic() - start


def wait_for(
    process: subprocess.Popen, folder: Path, trials: int, seconds: float, rng: random.Random, searching: bool
) -> None:
    """Until the moment to strike, or the end."""
    wanted, moment = (
        rng.randrange(trials),
        time.monotonic() + rng.uniform(0.2, 1.0) * seconds,
    )  # before that it has not begun
    while process.poll() is None and (lines(folder) <= wanted if searching else time.monotonic() < moment):
        time.sleep(0.005)
    if searching:
        time.sleep(rng.uniform(0, 0.5))  # into the next batch


def killed_and_resumed(
    folder: Path, trials: int, seconds: float, rng: random.Random, searching: bool
) -> tuple[bool, int, int]:
    """One run killed at a random moment and resumed. Whether it was killed before its end, lines on disk then, and
    those of them not kept as they were."""
    process = subprocess.Popen(command(folder, trials), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(process, folder, trials, seconds, rng, searching)
    process.send_signal(signal.SIGKILL)
    struck = process.wait() == -signal.SIGKILL
    before = (folder / "trials.jsonl").read_bytes() if (folder / "trials.jsonl").exists() else b""
    whole = before[: before.rfind(b"\n") + 1]
    run(
        folder, trials, *(["--resume"] if (folder / "manifest.json").exists() else [])
    )  # killed before its search it leaves nothing
    after = (folder / "trials.jsonl").read_bytes()
    return struck, whole.count(b"\n"), 0 if after.startswith(whole) else whole.count(b"\n")


def workers(folder: Path, trials: int) -> tuple[int, int]:
    """A run on a worker of three processes here, one of them killed after a third of the trials. Lines when it was
    killed, processes at the end."""
    key, ended, at = folder.parent / "worker.key", threading.Event(), []
    worker = Worker("127.0.0.1", 0, key_file.read(key, make=True), WORKERS)

    def strike() -> None:
        while not ended.is_set():
            if lines(folder) >= trials // 3:
                at.append(lines(folder))
                worker.processes[0][0].kill()
                return
            time.sleep(0.01)

    try:
        watcher = threading.Thread(target=strike)
        watcher.start()
        run(folder, trials, "--workers", worker.address, "--key", str(key))
        ended.set()
        watcher.join()
        return at[0], sum(child.poll() is None for child, _ in worker.processes)
    finally:
        ended.set()
        worker.stop()


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__.split("\n\n")[0])
    arguments.add_argument("--trials", type=int, default=TRIALS)
    arguments.add_argument("--kills", type=int, default=KILLS)
    parsed, rng, rows = parse(arguments, argv), random.Random(SEED), []
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        seconds = run(root / "whole", parsed.trials)
        whole = left(root / "whole")
        for number in range(parsed.kills):
            struck, found, lost = killed_and_resumed(
                root / f"{number}", parsed.trials, seconds, rng, searching=number % 2 == 1
            )
            rows.append(
                {
                    "fault": "SIGKILL" if struck else "none: it had ended",
                    "trials on disk": found,
                    "lost": lost,
                    "same as uninterrupted": left(root / f"{number}") == whole,
                }
            )
            print(rows[-1], flush=True)
        at, count = workers(root / "workers", parsed.trials)
        rows.append(
            {
                "fault": f"one of {WORKERS} workers killed, {count} left",
                "trials on disk": at,
                "lost": 0,
                "same as uninterrupted": left(root / "workers") == whole,
            }
        )
    show(f"{NET}, {MEMORY}, {parsed.trials} trials, {seconds:.1f} s uninterrupted", rows, parsed.json)


if __name__ == "__main__":
    main()
