"""A compiled model and calibration data, made once for all CLI tests."""

import numpy as np
import pytest

from tvm_ergo import zoo
from tvm_ergo.cli import main


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder with cal.npz (calibration), data.npz (x, y), image.npy and digits.ergo."""
    folder = tmp_path_factory.mktemp("cli")
    train, _, test, labels = zoo.digits()
    np.savez(folder / "cal.npz", image=train[:32])
    np.savez(folder / "data.npz", x=test[:20, 0][:, None], y=labels[:20])
    np.save(folder / "image.npy", test[:1])
    code = main(
        ["compile", str(zoo.DIGITS_MODEL), "--calibration", str(folder / "cal.npz"), "-o", str(folder / "digits.ergo")]
    )
    assert code == 0
    return folder
