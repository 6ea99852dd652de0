"""The native module: Programs as opaque bytes, called by symbol, kept through bytes and shared libraries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tvm

import tvm_ergo
from tvm_ergo.codegen.runtime import native
from tvm_ergo.codegen.runtime.native import create_module, programs_of
from tvm_ergo.codegen.tir.build import program_of
from tvm_ergo.target.errors import InputError, ProgramError

_spec = importlib.util.spec_from_file_location("prim_func_cases", Path(__file__).with_name("prim_func_cases.py"))
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture(scope="module")
def program() -> bytes:
    return program_of(cases.unary("relu", (2, 3)), "ergo").to_bytes()


def tensor(values, dtype="int8"):
    return tvm.runtime.tensor(np.array(values, dtype))


def test_writes_into_the_destination_or_returns(program):
    function = create_module({"f": program})["f"]
    x, out = tensor([[1, -2, 3], [-4, 5, -6]]), tensor(np.zeros((2, 3)))
    assert function(x, out) is None
    np.testing.assert_array_equal(out.numpy(), [[1, 0, 3], [0, 5, 0]])
    np.testing.assert_array_equal(function(x).numpy(), out.numpy())


def test_bytes_go_through_unchanged(program):
    programs = {"f": program, "g": b"", "h": bytes(range(256))}
    module = create_module(programs)
    assert module.kind == "ergo" and programs_of(module) == programs
    assert not module.implements_function("nobody") and module.implements_function("g")


def test_a_damaged_program_is_found_when_it_is_asked_for(program):
    damaged = bytearray(program)
    damaged[len(damaged) // 2] ^= 4
    with pytest.raises(ProgramError, match="checksum"):
        create_module({"f": bytes(damaged)})["f"]


@pytest.mark.parametrize("data", [b"\1", b"\xff" * 8, b"\3" + b"\0" * 7 + b"abc"])
def test_truncated_module_bytes(data):
    with pytest.raises(ProgramError, match="truncated"):
        tvm.get_global_func("ffi.Module.load_from_bytes.ergo")(data)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ([], "arguments"),
        ([tensor(np.zeros((3, 2)))], "shape"),
        ([tensor(np.zeros((2, 3)), "uint8")], "dtype"),
        ([tensor(np.zeros((2, 3))), tensor(np.zeros((2, 3)), "int32")], "dtype"),
        ([tensor(np.zeros((2, 3)))] * 3, "arguments"),
    ],
)
def test_wrong_arguments(program, arguments, word):
    with pytest.raises(InputError, match=word):
        create_module({"f": program})["f"](*arguments)


def test_recording_and_watching(program):
    function, x = create_module({"f": program})["f"], tensor([[1, -2, 3], [-4, 5, -6]])
    seen = []
    with tvm_ergo.record() as outer, tvm_ergo.watch(lambda about, value: seen.append((about.op, value))):
        function(x)
        with tvm_ergo.record() as inner:
            function(x)
    function(x)
    assert (len(outer), len(inner)) == (2, 1) and outer[1] is inner[0]
    call = inner[0]
    assert call.symbol == "f" and call.trace.cycles > 0
    np.testing.assert_array_equal(*call.inputs.values(), x.numpy())
    assert [op for op, _ in seen] == ["table"] * 2
    np.testing.assert_array_equal(seen[0][1], *call.outputs.values())


def test_a_watcher_can_replace_a_tensor(program):
    function, x = create_module({"f": program})["f"], tensor([[1, -2, 3], [-4, 5, -6]])
    plain = np.asarray(function(x).numpy())
    with tvm_ergo.watch(lambda about, value: value + 1):
        np.testing.assert_array_equal(function(x).numpy(), plain + 1)
    np.testing.assert_array_equal(function(x).numpy(), plain)
    for wrong in (plain[0], plain.astype("int32"), 3):
        with tvm_ergo.watch(lambda about, value: wrong), pytest.raises(InputError, match="watcher"):
            function(x)


def test_missing_library_says_so(monkeypatch, tmp_path):
    import tvm_ffi

    name = "ffi.Module.load_from_bytes.ergo"
    original = tvm_ffi.get_global_func(name)
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "nothing.so")
    monkeypatch.setattr(native, "_loaded", [])
    try:
        with pytest.raises(ProgramError, match="pip install"):
            create_module({"f": b""})
        with pytest.raises(ProgramError, match="pip install"):
            tvm_ffi.get_global_func(name)(b"")
    finally:
        tvm_ffi.register_global_func(name, original, override=True)


def test_prim_func_library_in_a_fresh_process(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "relu.so"
    tvm.tirx.build(cases.unary("relu", (2, 3)), target="ergo").export_library(str(path))
    code = f"""
import numpy as np, tvm
f = tvm.runtime.load_module({str(path)!r})["main"]
x, y = tvm.runtime.tensor(np.array([[1, -2, 3], [-4, 5, -6]], "int8")), tvm.runtime.tensor(np.zeros((2, 3), "int8"))
f(x, y)
print(y.numpy().tolist())"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.stdout.strip() == "[[1, 0, 3], [0, 5, 0]]", done.stderr


def test_strict_machine_is_used_here(program):
    from tvm_ergo.codegen.runtime.launcher import load

    assert load("f", program).machine.strict
