"""The whole runtime under AddressSanitizer and UndefinedBehaviorSanitizer, on Programs from a file."""

from __future__ import annotations

import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from tvm_ergo.target.program import Program

SOURCES = Path(__file__).resolve().parents[3] / "target" / "native"
FLAGS = [
    "-std=c11",
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
]


def compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("clang")


@cache
def harness() -> Path:
    """The program `harness.c`, built once."""
    built = Path(mkdtemp(prefix="ergo-sanitized-")) / "harness"
    sources = [
        str(Path(__file__).parent / "harness.c"),
        *map(str, sorted([*SOURCES.glob("*.c"), *SOURCES.glob("post/*.c")])),
    ]
    done = subprocess.run(
        [compiler(), *FLAGS, f"-I{SOURCES}", f"-I{SOURCES}/post", "-o", str(built), *sources],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return built


def results(programs: list[bytes], folder: Path) -> list[str]:
    """A line for each. Fails where a sanitizer found something."""
    file = folder / "programs"
    file.write_bytes(b"".join(struct.pack("<I", len(data)) + data for data in programs))
    done = subprocess.run([str(harness()), str(file)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.split()
    assert len(lines) == len(programs)
    return lines


def samples(program: Program) -> dict[str, np.ndarray]:
    """The inputs that the harness and an exported network's example make up."""
    found = {}
    for number, port in enumerate(program.inputs):
        at = np.arange(port.operand.size_bytes, dtype=np.uint64)
        values = (at * 31 + at // 97 + number * 7).astype(np.uint8)
        found[port.name] = values.view(port.operand.dtype.numpy).reshape(port.operand.shape)
    return found


def hashed(arrays) -> str:
    """As the harness prints it."""
    held = 0xCBF29CE484222325
    for array in arrays:
        for byte in np.ascontiguousarray(array).tobytes():
            held = (held ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{held:016x}"
