"""``pip install .`` and ``pip install -e .`` into fresh environments: both autoload at ``import tvm`` and hold the
native runtime.

Slow (downloads the dependencies, compiles): runs with ``make packaging``, i.e. ERGO_PACKAGING=1.
"""

from __future__ import annotations

import os
import re
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

pytestmark = pytest.mark.skipif(
    not os.environ.get("ERGO_PACKAGING"), reason="slow: downloads and compiles; run it with `make packaging`"
)


WORK = """
import sys, tempfile
import numpy as np
import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import main
images, folder = np.random.default_rng(0).random((40, 1, 8, 8), np.float32), tempfile.mkdtemp()
model = tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration=images[:32])
model.save(folder + "/net.ergo")
loaded = tvm_ergo.load(folder + "/net.ergo")
for image in images[32:35]:
    one, other = model.run(image[None]).outputs["logits"], loaded.run(image[None]).outputs["logits"]
    assert one.tobytes() == other.tobytes()
np.savez(folder + "/cal.npz", image=images[:16])
for command in (["report", folder + "/net.ergo", "--html", folder + "/r.html"], ["explore", str(zoo.DIGITS_MODEL), "--calibration", folder + "/cal.npz", "--points", "3"],
                ["tune", str(zoo.DIGITS_MODEL), "--calibration", folder + "/cal.npz", "--trials", "8", "--out", folder + "/tuned"], ["disasm", folder + "/net.ergo", "-o", folder + "/n.asm"]):
    assert main(command) == 0, command
print("done", *sys.version_info[:2])
"""


def floors() -> list[str]:
    """The lowest version of each dependency that setup.py allows, as constraints of pip."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    found = re.findall(
        r'"([A-Za-z0-9_-]+)>=([0-9.]+),<', text[text.index("install_requires") : text.index("extras_require")]
    )
    return [f"{name}=={version if '.' in version else version + '.0'}.*" for name, version in found]


def run(*command, **options) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(folder: Path) -> Path:
    """The sources alone, without what was built from them."""
    folder.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, folder / name)
    return folder


@pytest.mark.parametrize(
    "python, lowest",
    [(sys.executable, True), ("python3.12", False), ("python3.12", True)],
    ids=["lowest", "python3.12", "python3.12-lowest"],
)
def test_lowest_versions_and_the_newest_python(tmp_path, python, lowest):
    """Everything that has a floor at that floor, and the newest Python that is allowed: compile, save, load, report,
    explore, tune."""
    python = shutil.which(python)
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip("there is no Python 3.12 here")
    environment, constraints = tmp_path / "venv", tmp_path / "constraints.txt"
    constraints.write_text("\n".join(floors() if lowest else []))
    run(python, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "-q", "-c", constraints, copied(tmp_path / "source"))
    found = run(environment / "bin" / "pip", "list", "--format", "freeze", cwd=tmp_path)
    if lowest:
        versions = dict(line.lower().replace("_", "-").split("==") for line in found.split() if "==" in line)
        for floor in floors():
            name, version = floor.removesuffix(".*").split("==")
            assert f"{versions[name]}.".startswith(f"{version}."), (floor, found)
    assert "done" in run(environment / "bin" / "python", "-c", WORK, cwd=tmp_path)


@pytest.mark.parametrize("editable", [False, True], ids=["normal", "editable"])
def test_install_and_autoload(tmp_path, editable):
    source, environment = copied(tmp_path / "source"), tmp_path / "venv"
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "-q", *(["-e"] if editable else []), source)
    where = run(environment / "bin" / "python", "-c", CHECK, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(source if editable else environment)
    assert "compile" in run(environment / "bin" / "tvm-ergo", "--help", cwd=tmp_path)
