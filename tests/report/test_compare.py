"""Layers compared with the float network: what is needed for it."""

import pytest

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.report.compare import compare_layers
from tvm_ergo.target.errors import InputError


def test_a_compressed_network_needs_an_input_and_says_where_from(tmp_path):
    """It compiles without calibration data, so there may be none; given some, their first input is taken."""
    train, _, _, _ = zoo.digits()
    tvm_ergo.compress(str(zoo.DIGITS_MODEL), train[:8]).save(tmp_path / "d.ergoz")
    with pytest.raises(InputError, match="no input") as caught:
        compare_layers(tvm_ergo.compile(tmp_path / "d.ergoz"))
    assert "--calibration" in caught.value.remedy and "--compare" in caught.value.remedy
    with_data = tvm_ergo.compile(tmp_path / "d.ergoz", calibration=train[:8])
    rows = compare_layers(with_data)
    assert rows and rows == compare_layers(with_data, train[:1])
