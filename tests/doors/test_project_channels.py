"""Fewer channels between layers, through the front doors: the chip computes the projected net to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.errors import ModelError

RANKS = tvm_ergo.RankOptions(error=0.1, mac_limit=2.0)


@pytest.fixture(scope="module")
def projected():
    train, _, _, _ = zoo.digits()
    return tvm_ergo.compile(
        str(zoo.DIGITS_MODEL), calibration=train[:32], quantize=tvm_ergo.QuantizeOptions(project_channels=RANKS)
    )


def test_the_emulator_equals_the_integer_function_on_the_cpu(projected):
    _, _, test, _ = zoo.digits()
    reference, (name,) = build_cpu(projected.lowered), [o.name for o in projected.outputs]
    for x in test[:8]:
        np.testing.assert_array_equal(projected.run(x[None]).outputs[name], reference(x[None])[0])
    assert projected.fallbacks == ()


def test_the_projection_is_reported_and_close(projected):
    result, (_, _, test, labels) = projected.projection, zoo.digits()
    assert result.tensors and result.error <= result.bound == 0.1
    assert all(t.rank < t.channels and t.macs_after <= 2 * t.macs_before for t in result.tensors)
    answers = [int(np.argmax(next(iter(projected.run(x[None]).outputs.values())))) for x in test[:60]]
    floats = [int(np.argmax(projected.run_float(x[None])[0])) for x in test[:60]]
    assert np.mean(np.equal(answers, floats)) > 0.9
    assert np.mean(np.equal(answers, labels[:60])) > 0.8


def test_off_by_default():
    train, _, _, _ = zoo.digits()
    assert tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration=train[:8]).projection is None


def test_what_is_no_error_is_refused():
    train, _, _, _ = zoo.digits()
    with pytest.raises(ModelError):
        tvm_ergo.compile(
            str(zoo.DIGITS_MODEL), calibration=train[:8], quantize=tvm_ergo.QuantizeOptions(project_channels="much")
        )


def test_on_the_command_line(tmp_path, capsys):
    train, _, _, _ = zoo.digits()
    np.savez(tmp_path / "cal.npz", image=train[:32])
    arguments = ["compile", str(zoo.DIGITS_MODEL), "--calibration", str(tmp_path / "cal.npz")]
    assert main([*arguments, "--project-channels", "0.2"]) == 0
    assert "sets of tensors projected" in capsys.readouterr().out
    assert main([*arguments, "--project-channels", "0.001"]) == 0
    assert "nothing gained" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--project-channels", "-1"])
