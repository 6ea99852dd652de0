"""``pip install .`` and ``pip install -e .`` into fresh environments: both autoload at ``import tvm`` and hold the native runtime.

Slow (downloads the dependencies, compiles): runs with ``make packaging``, i.e. ERGO_PACKAGING=1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("python", "target", "relay_passes", "codegen", "setup.py", "pyproject.toml")
CHECK = """
import warnings
warnings.simplefilter("error")
import tvm
assert "ergo" in tvm.target.Target("ergo/2").keys
import numpy as np
from tvm import te, topi
x = te.placeholder((2, 3), "int8", name="x")
module = tvm.tirx.build(te.create_prim_func([x, topi.nn.relu(x)]), target="ergo")
a, b = tvm.runtime.tensor(np.array([[1, -2, 3], [-4, 5, -6]], "int8")), tvm.runtime.tensor(np.zeros((2, 3), "int8"))
module["main"](a, b)
assert b.numpy().tolist() == [[1, 0, 3], [0, 5, 0]]
import tvm_ergo
print(tvm_ergo.__file__)
"""

pytestmark = pytest.mark.skipif(not os.environ.get("ERGO_PACKAGING"), reason="slow: downloads and compiles; run it with `make packaging`")


def run(*command, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("editable", [False, True], ids=["normal", "editable"])
def test_install_and_autoload(tmp_path, editable):
    source, environment = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, source / name)
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "-q", *(["-e"] if editable else []), source)
    where = run(environment / "bin" / "python", "-c", CHECK, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(source if editable else environment)
    assert "compile" in run(environment / "bin" / "tvm-ergo", "--help", cwd=tmp_path)
