"""``python -m fuzz --seconds 3600``: every target for its share of the time, a table at the end, findings in the folder
``--out``. Exit code 1 where there are any."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from fuzz.engine import HANG_S, MEMORY_BYTES, MODEL_BYTES, run_target
from fuzz.sanitized import environment, sanitized_libraries

TORCH = ("torch_archive",) if importlib.util.find_spec("torch") else ()
"""Where PyTorch is installed."""
TARGETS = (
    *("onnx", "tflite", *TORCH, "ergo", "ergoz", "chip", "tuning", "arrays", "evaluation", "inputs", "tokenizer"),
    *("post", "reports", "messages"),
)
SANITIZED = ("streams", "native", "places")


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of all targets together (default 600)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder for findings (default fuzz-out)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, help="write the counts as JSON")
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join((*TARGETS, *SANITIZED))} (default: all)")
    given = parser.parse_args()
    chosen = given.targets or [*TARGETS, *SANITIZED]
    unknown = set(chosen) - {*TARGETS, *SANITIZED}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    libraries = sanitized_libraries(given.out.resolve()) if set(chosen) & set(SANITIZED) else None
    if libraries is None:
        chosen = [name for name in chosen if name not in SANITIZED]
    found, share = {}, given.seconds / max(1, len(chosen))
    for name in chosen:
        counts = found[name] = run_target(
            name, share, given.out.resolve(), given.seed, environment(libraries) if name in SANITIZED else None
        )
        print(
            f"{name}: {counts.executions:,} executions, {counts.fine:,} fine, {counts.own_errors:,} own errors, "
            f"{counts.tracebacks} tracebacks, {counts.hangs} hangs, "
            f"{counts.ended} ended, {counts.over_memory} over {MEMORY_BYTES >> 20} MiB (most "
            f"{counts.peak_bytes / 2**20:.0f} MiB)",
            flush=True,
        )
    if given.json:
        given.json.write_text(
            json.dumps(
                {
                    "seed": given.seed,
                    "seconds": given.seconds,
                    "hang_s": HANG_S,
                    "model_bytes": MODEL_BYTES,
                    "memory_bytes": MEMORY_BYTES,
                    "targets": {name: asdict(counts) for name, counts in found.items()},
                },
                indent=1,
            )
        )
    bad = sum(c.tracebacks + c.hangs + c.ended + c.over_memory for c in found.values())
    print(
        f"together: {sum(c.executions for c in found.values()):,} executions, "
        f"{sum(c.own_errors for c in found.values()):,} own errors, {bad} findings"
        + (f" in {given.out}" if bad else "")
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
