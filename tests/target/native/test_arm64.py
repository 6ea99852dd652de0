"""The code paths of arm64, built by a cross compiler and run in QEMU's user mode: native against NumPy, to the bit."""

from __future__ import annotations

import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tvm_ergo.target.isa import Conv, Depthwise
from tvm_ergo.target.native.library import LIBRARY

from .executed import by_numpy
from .test_sanitized import drawn

TOOLS = ("aarch64-linux-gnu-gcc", "qemu-aarch64")
PACKAGES = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
KINDS = {"conv": 40, "depthwise": 30, "matmul": 40, "weighted_mean": 30, "norm": 10, "exp_rows": 10, "add_wide": 10}
PROCESSORS = {"max": {"portable", "neon", "neon_dotprod"}, "cortex-a53": {"portable", "neon"}}
"""Processors of QEMU, and the paths that they have."""
SOURCES = LIBRARY.parent
pytestmark = pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"apt-get install {PACKAGES}")


@cache
def built(folder: Path) -> Path:
    """All of the runtime and `paths.c`, for arm64."""
    folders = ("*.c", "host/*.c", "post/*.c")
    sources = [*(path for some in folders for path in SOURCES.glob(some)), Path(__file__).parent / "paths.c"]
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-DERGO_HOST=1", f"-I{SOURCES}"]
    command = [TOOLS[0], *flags, "-o", str(folder / "paths"), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    return folder / "paths"


def case(memory, instruction) -> tuple[bytes, int]:
    """As `paths.c` reads it, and the bytes of memory in it."""
    extent = max(operand.extent[1] for operand in instruction.reads() + instruction.writes())
    names = ("w", "bias", "mult", "shift") if isinstance(instruction, (Conv, Depthwise)) else ()
    arrays = [np.ascontiguousarray(memory.view(getattr(instruction, name))).tobytes() for name in names]
    parts = [instruction.encode(), memory.bytes[:extent].tobytes(), *arrays, *[b""] * (4 - len(arrays))]
    return struct.pack("<6I", *map(len, parts)) + b"".join(parts), extent


def results(program: Path, processor: str, scenes: list, folder: Path) -> tuple[set[str], list]:
    """Names of the paths taken; for each scene (path, packed, status, memory) of each."""
    cases = [case(*scene) for scene in scenes]
    (folder / "cases").write_bytes(b"".join(data for data, _ in cases))
    command = [TOOLS[1], "-cpu", processor, str(program), str(folder / "cases"), str(folder / "found")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    names = {int(line.split()[0]): line.split()[1] for line in done.stdout.splitlines()}
    data, at, found = (folder / "found").read_bytes(), 0, []
    for _, extent in cases:
        one = []
        for _ in range(len(names) + 1):
            path, packed, status = data[at : at + 3]
            memory = np.frombuffer(data, np.uint8, extent, at + 3)
            one.append((names.get(path, "plain"), packed, status, memory))
            at += 3 + extent
        found.append(one)
    assert at == len(data)
    return set(names.values()), found


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_path(processor, tmp_path, tmp_path_factory):
    scenes = [scene for kind, count in KINDS.items() for scene in drawn(kind, count)]
    program = built(tmp_path_factory.getbasetemp())
    names, found = results(program, processor, scenes, tmp_path)
    assert names == PROCESSORS[processor]
    packed = dict.fromkeys(names, 0)
    for (memory, instruction), results_of_one in zip(scenes, found, strict=True):
        expected, _ = by_numpy(memory, instruction)
        for name, was_packed, status, after in results_of_one:
            assert not status and np.array_equal(after, expected[: after.size]), (name, instruction)
            if name in packed:
                packed[name] += was_packed
    assert all(count > len(scenes) // 10 for count in packed.values()), packed
