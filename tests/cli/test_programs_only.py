"""``disasm`` and ``report`` read Programs alone; ``run --programs-only`` never loads a library."""

import json

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo import container
from tvm_ergo.cli import main
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import InputError, ProgramError


def test_no_library_is_loaded_that_was_not_asked_for(tmp_path, workspace, monkeypatch, capsys):
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((4, 8), "int8"))
    with builder.function("main", [x]):
        with builder.dataflow():
            ordered = builder.emit(relax.op.flip(builder.emit(dialect.Maximum().call(x, x)), 1))
            result = builder.emit_output(dialect.Minimum().call(ordered, x))
        builder.emit_func_output(result)
    path = tmp_path / "net.ergo"
    tvm_ergo.compile(builder.get()).save(path)
    assert "library" in container.read(path)

    def refuse(*_):
        raise AssertionError("a library was loaded")

    monkeypatch.setattr(container, "library_module", refuse)
    for command in (["disasm"], ["report"], ["report", "--html", str(tmp_path / "r.html")]):
        assert main([command[0], str(path), *command[1:]]) == 0
    assert main(["run", str(path), "--random", "0", "--programs-only"]) == 2
    assert "machine code" in capsys.readouterr().err
    assert main(["report", str(path), "--zeros", str(workspace / "image.npy")]) == 2
    assert (
        main(
            [
                "run",
                str(workspace / "digits.ergo"),
                "--random",
                "0",
                "--programs-only",
                "--output",
                str(tmp_path / "alone.npz"),
            ]
        )
        == 0
    )
    assert (
        main(["run", str(workspace / "digits.ergo"), "--random", "0", "--output", str(tmp_path / "as_ever.npz")]) == 0
    )
    with np.load(tmp_path / "alone.npz") as one, np.load(tmp_path / "as_ever.npz") as other:
        np.testing.assert_array_equal(one["logits"], other["logits"])
    capsys.readouterr()
    (tmp_path / "net.onnx").write_bytes(b"not looked at")
    assert main(["run", str(tmp_path / "net.onnx"), "--random", "0", "--programs-only"]) == 2
    assert "compiled models" in capsys.readouterr().err


def test_places_of_programs_do_not_overlap():
    """Else a few bytes name the whole library again and again."""
    library = bytes(range(100))
    for places, found in (
        ({"a": [0, 60], "b": [60, 40]}, True),
        ({"a": [0, 60], "b": [0, 60], "c": [60, 40]}, True),  # two equal Programs
        ({"a": [0, 60], "b": [1, 60]}, False),
        ({"a": [0, 1000]}, False),
    ):
        sections = {"library": library, "places": json.dumps(places).encode()}
        if found:
            assert set(container.programs_in(sections)) == set(places)
        else:
            with pytest.raises(ValueError, match="larger than the library"):
                container.programs_in(sections)


def test_what_is_no_path():
    for given in (b"net.ergo", None, 5, []):
        with pytest.raises(InputError, match="path"):
            tvm_ergo.load(given)
    with pytest.raises(ProgramError, match="cannot be read"):
        tvm_ergo.load("a\0b")


def test_the_help_says_what_is_code(capsys):
    try:
        main(["run", "--help"])
    except SystemExit:
        pass
    said = capsys.readouterr().out
    assert "executable code" in said and "--programs-only" in said
