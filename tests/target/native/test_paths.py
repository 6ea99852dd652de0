"""The fast kernels in a program of their own, native against NumPy, to the bit: those of this processor under the
sanitizers, those of arm64 built by a cross compiler and run in QEMU's user mode."""

from __future__ import annotations

import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise
from tvm_ergo.target.native.library import LIBRARY, path_names

from .executed import by_numpy
from .test_sanitized import drawn

TOOLS = ("aarch64-linux-gnu-gcc", "qemu-aarch64")
PACKAGES = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
KINDS = {
    "conv": 40,
    "depthwise": 30,
    "conv_transpose": 15,
    "matmul": 40,
    "weighted_mean": 30,
    "norm": 10,
    "exp_rows": 10,
    "add_wide": 10,
    "conv_16": 20,
    "table_16": 10,
}
PROCESSORS = {"max": {"portable", "neon", "neon_dotprod"}, "cortex-a53": {"portable", "neon"}}
"""Processors of QEMU, and the paths that they have."""
SOURCES = LIBRARY.parent
ARM64 = pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"apt-get install {PACKAGES}")
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@cache
def built(folder: Path, command: str, *flags: str) -> Path:
    """All of the runtime and `paths.c`."""
    folders = ("*.c", "host/*.c", "post/*.c")
    sources = [*(path for some in folders for path in SOURCES.glob(some)), Path(__file__).parent / "paths.c"]
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", "-DERGO_HOST=1", f"-I{SOURCES}", *flags]
    line = [command, *flags, "-o", str(folder / f"paths-{command}"), *map(str, sources)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    return folder / f"paths-{command}"


def case(memory, instruction) -> tuple[bytes, int]:
    """As `paths.c` reads it, and the bytes of memory in it."""
    extent = max(operand.extent[1] for operand in instruction.reads() + instruction.writes())
    names = ("w", "bias", "mult", "shift") if isinstance(instruction, (Conv, ConvTranspose, Depthwise)) else ()
    arrays = [np.ascontiguousarray(memory.view(getattr(instruction, name))).tobytes() for name in names]
    parts = [instruction.encode(), memory.bytes[:extent].tobytes(), *arrays, *[b""] * (4 - len(arrays))]
    return struct.pack("<6I", *map(len, parts)) + b"".join(parts), extent


def results(command: list[str], scenes: list, folder: Path) -> tuple[set[str], list]:
    """Names of the paths taken; for each scene (path, packed, status, memory) of each."""
    cases = [case(*scene) for scene in scenes]
    (folder / "cases").write_bytes(b"".join(data for data, _ in cases))
    files = [str(folder / "cases"), str(folder / "found")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=540)
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


def check(command: list[str], paths: set[str], folder: Path) -> None:
    """Draws instructions and compares what each path makes of them."""
    scenes = [scene for kind, count in KINDS.items() for scene in drawn(kind, count)]
    names, found = results(command, scenes, folder)
    assert names == paths
    packed = dict.fromkeys(names, 0)
    for (memory, instruction), results_of_one in zip(scenes, found, strict=True):
        expected, _ = by_numpy(memory, instruction)
        for name, was_packed, status, after in results_of_one:
            assert not status and np.array_equal(after, expected[: after.size]), (name, instruction)
            if name in packed:
                packed[name] += was_packed
    assert all(count > len(scenes) // 10 for count in packed.values()), packed


@ARM64
@pytest.mark.parametrize("processor", PROCESSORS)
def test_paths_of_arm64(processor, tmp_path, tmp_path_factory):
    program = built(tmp_path_factory.getbasetemp(), TOOLS[0], "-O2", "-static")
    check([TOOLS[1], "-cpu", processor, str(program)], PROCESSORS[processor], tmp_path)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="apt-get install gcc")
def test_paths_of_this_processor_under_the_sanitizers(tmp_path, tmp_path_factory):
    program = built(tmp_path_factory.getbasetemp(), "gcc", "-O1", *SANITIZERS)
    check([str(program)], set(path_names()), tmp_path)
