"""Networks and data that need nothing but this package and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvm_ergo.target.errors import InputError

DIGITS_MODEL = Path(__file__).with_name("digits_cnn.onnx")


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's digits as ``(train images, train labels, test images, test labels)``.

    Images float32 [n,1,8,8] in 0..1; 1,297 for training and calibration, 500 for test; the split ``train_digits`` used.
    Errors: InputError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(
            "the digits data set comes with scikit-learn, which is not installed",
            remedy="pip install scikit-learn, or pip install '.[test]'",
        ) from error

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, None] / 16.0).astype(np.float32)
    labels = data.target[order]
    return images[:1297], labels[:1297], images[1297:], labels[1297:]
