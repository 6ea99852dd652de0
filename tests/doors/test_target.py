"""Target tags, user chips and overrides; and that ``import tvm`` opens the doors quickly and silently."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tvm
from tvm.target import Target

from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.tags import chip_of_target, is_ergo, target_from_file, target_of_chip


@pytest.mark.parametrize("tag, name", [("ergo", "ergo/1"), ("ergo/1", "ergo/1"), ("ergo/2", "ergo/2")])
def test_tags(tag, name):
    target = Target(tag)
    assert is_ergo(target) and target.kind.name == "ext_dev" and target.host.kind.name == "llvm"
    assert chip_of_target(target) == chip(name) == chip_of_target(tag)


@pytest.mark.parametrize("tag", ["ergo", "ergo/2"])
def test_override_keeps_the_chip(tag):
    target = Target({"tag": tag, "model": json.dumps({"memory-bytes": 65536})})
    assert chip_of_target(target) == chip(tag).with_memory(65536)


def test_user_chip_from_a_file(tmp_path):
    described = chip("ergo/2").to_json() | {"name": "mine"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(described))
    target = target_from_file(path)
    path.unlink()  # the target carries the whole description
    made = chip_of_target(Target(target.export()))
    assert made.name == "mine" and made.tensor == chip("ergo/2").tensor
    assert chip_of_target(target_of_chip(chip("ergo/1"))) == chip("ergo/1")


@pytest.mark.parametrize(
    "model, word",
    [("{", "not JSON"), ('{"memory": 5}', "memory"), ('{"memory-bytes": -5}', "positive"), ("[1]", "unknown")],
)
def test_bad_options_are_refused(model, word):
    with pytest.raises(TargetError, match=word):
        chip_of_target(Target({"tag": "ergo", "model": model}))


@pytest.mark.parametrize("bad", ["ergo/9", "llvm", "no such target", "/nonexistent/chip.json"])
def test_unknown_targets(bad):
    with pytest.raises(TargetError):
        chip_of_target(bad)


def test_other_targets_keep_their_pipelines():
    from tvm import te

    a = te.placeholder((4,), "float32", name="a")
    module = tvm.tirx.build(te.create_prim_func([a, te.compute((4,), lambda i: a[i] * 2.0)]), target="llvm")
    assert [m.kind for m in module.imports] == []


def run_python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_autoload_is_silent():
    assert run_python("import tvm; assert 'ergo' in tvm.target.Target('ergo').keys", "-W", "error") == ""


def test_autoload_imports_nothing_heavy():
    loaded = run_python("import tvm, sys; print([m for m in sys.modules if m.startswith('tvm_ergo')])")
    allowed = {
        "tvm_ergo",
        "tvm_ergo.doors",
        "tvm_ergo.target",
        "tvm_ergo.target.tags",
        "tvm_ergo.target.errors",
        "tvm_ergo.target.limits",
        "tvm_ergo.codegen",
        "tvm_ergo.codegen.runtime",
        "tvm_ergo.codegen.runtime.native",
    }
    assert set(json.loads(loaded.replace("'", '"'))) <= allowed


def test_package_offers_its_names_lazily():
    code = (
        "import tvm_ergo, sys; assert 'numpy' not in sys.modules and 'tvm' not in sys.modules; "
        "[getattr(tvm_ergo, n) for n in tvm_ergo.__all__]; assert callable(tvm_ergo.compile)"
    )
    assert run_python(code) == ""


@pytest.mark.parametrize("model", ['{"chip": []}', '{"chip": 5}', "[" * 100_000])
def test_models_of_a_target_that_describe_nothing(model):
    with pytest.raises(TargetError):
        chip_of_target(
            Target({"kind": "ext_dev", "keys": ["ergo"], "device": "ergo/1", "host": {"kind": "llvm"}, "model": model})
        )
