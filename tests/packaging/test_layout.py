"""What the installed package must hold, checked on the environment the tests run in."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import tvm_ergo
from tvm_ergo.codegen.runtime import native

ROOT = Path(__file__).resolve().parents[2]


def test_entry_points():
    backends = {e.name: e.value for e in importlib.metadata.entry_points(group="tvm.backends")}
    scripts = {e.name: e.value for e in importlib.metadata.entry_points(group="console_scripts")}
    assert backends["tvm_ergo"] == "tvm_ergo:_autoload" and scripts["tvm-ergo"] == "tvm_ergo.cli:main"


def test_native_library_is_there():
    assert native.load_library() and native.LIBRARY.is_file()


def test_every_folder_with_python_files_is_a_package():
    """A folder without ``__init__.py`` is left out of a wheel without a word."""
    folders = {
        p.parent
        for layer in ("target", "relay_passes", "codegen", "python/tvm_ergo")
        for p in (ROOT / layer).rglob("*.py")
    }
    assert sorted(str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()) == []


@pytest.mark.parametrize("package", ["target", "relay_passes", "codegen"])
def test_mapped_packages_refuse_their_short_name(package):
    """With the repository on sys.path, ``codegen.x`` and ``tvm_ergo.codegen.x`` would be two modules."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and f"import this package as tvm_ergo.{package}" in done.stderr


def test_pinned_ffi_survives_a_round_trip_of_a_prim_func():
    """apache-tvm-ffi 0.1.15 crashed here; the pin keeps it away."""
    import tvm
    from tvm import te

    a = te.placeholder((4,), "float32", name="a")
    func = te.create_prim_func([a, te.compute((4,), lambda i: a[i] + 1.0)])
    loaded = tvm.ir.load_json(tvm.ir.save_json(func))
    tvm.ir.assert_structural_equal(func, loaded)


def test_versions_agree():
    assert importlib.metadata.version("tvm-ergo") == tvm_ergo.__version__
