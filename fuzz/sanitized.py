"""The native libraries built with the address and undefined-behaviour sanitizers, beside the ones that are
installed."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g",
    "-O1",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
]
LIBRARIES = {
    "libcontext.so": (["g++", "-std=c++17"], ["target/codecs/context.cc", "target/codecs/rans.cc"]),
    "libweights.so": (["g++", "-std=c++17"], ["target/codecs/weights.cc"]),
    "libskyline.so": (["g++", "-std=c++17"], ["codegen/memory/skyline.cc"]),
    "libergo_native.so": (
        ["gcc", "-std=c11", "-DERGO_HOST=1", "-pthread"],
        ["target/native/*.c", "target/native/host/*.c"],
    ),
}
FOLDER = "ERGO_FUZZ_LIBRARIES"
"""Environment variable: where the libraries are that the targets load in place of the installed ones."""


def sanitized_libraries(out: Path) -> Path | None:
    """The folder with the libraries; None, said on standard error, where the compiler or a sanitizer is missing."""
    made = out / "libraries"
    made.mkdir(parents=True, exist_ok=True)
    for name, (compiler, patterns) in LIBRARIES.items():
        sources = sorted(path for pattern in patterns for path in glob.glob(str(ROOT / pattern)))
        if not sources:
            continue
        try:
            done = subprocess.run(
                [*compiler, *CHECKS, "-o", str(made / name), *sources],
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=900,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"no sanitizer builds: {error}", file=sys.stderr)
            return None
        if done.returncode:
            print(f"no sanitizer builds: {done.stderr[-500:]}", file=sys.stderr)
            return None
    return made


def environment(libraries: Path) -> dict[str, str]:
    """Of a process that loads them: the sanitizer's own library comes first; Python's allocations are its own
    affair."""
    where = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "LD_PRELOAD": where,
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        FOLDER: str(libraries),
        "PYTHONMALLOC": "malloc",
    }


def folder() -> str | None:
    """Where they are; None in a process that was not started for them."""
    return os.environ.get(FOLDER)


def use() -> None:
    """From now on the modules load the sanitized libraries, where there are any."""
    where = folder()
    if not where:
        return
    from tvm_ergo.target.codecs import native, weights_native

    native.LIBRARY, weights_native.LIBRARY = Path(where) / "libcontext.so", Path(where) / "libweights.so"
    if (Path(where) / "libergo_native.so").exists():
        from tvm_ergo.target.native import library

        library.LIBRARY = Path(where) / "libergo_native.so"
