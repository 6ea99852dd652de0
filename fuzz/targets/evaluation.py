"""Evaluation data and calibration data of a user's own: arrays as files give them, up to a run of the network."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from fuzz.engine import Target
from fuzz.targets import arrays
from tvm_ergo import evaluation, zoo
from tvm_ergo.post.measured import measurable
from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.target.errors import InputError

FILE = Path(tempfile.mkdtemp(prefix="ergo-fuzz-")) / "test.npz"
DTYPES = ("<f4", ">f4", "<f8", "<f2", "|i1", "|u1", "<i8", "<u8", "|b1", "<c8", "<U3", "|S2")
SHAPES = ((0,), (3,), (3, 1), (3, 1, 8, 8), (3, 1, 8, 8, 1), (0, 1, 8, 8), (3, 0, 8, 8), (1, 3), ())
NAMES = ("x", "y", "input", "image", "X", "", "x.npy", "\x1b[2J", "a" * 300)


@cache
def network():
    import tvm_ergo

    return tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=zoo.digits()[0][:8])


def seeds() -> list[bytes]:
    _, _, test, labels = zoo.digits()
    good = io.BytesIO()
    np.savez(good, x=test[:3], y=labels[:3])
    return [good.getvalue()]


def change(rng, seed: bytes, other: bytes) -> bytes:
    if rng.random() < 0.3:
        return arrays.change(rng, seed, other)
    made = {}
    for name in rng.sample(NAMES, rng.randrange(1, 4)) if rng.random() < 0.3 else ("x", "y"):
        shape = rng.choice(SHAPES[3:6] if name == "x" and rng.random() < 0.7 else SHAPES)
        values = np.random.default_rng(rng.randrange(1 << 30)).standard_normal(shape) * 10.0 ** rng.randrange(-3, 40)
        if rng.random() < 0.2 and values.size:
            values.reshape(-1)[0] = rng.choice([np.nan, np.inf, -np.inf])
        with np.errstate(all="ignore"):
            made[name] = values.astype(rng.choice(DTYPES if rng.random() < 0.5 else ("<f4", "<i8")))
    file = io.BytesIO()
    with np.errstate(all="ignore"):
        np.savez(file, **made)
    return file.getvalue()


def run(data: bytes) -> None:
    FILE.write_bytes(data)
    own, model = read_arrays(FILE, InputError), network()
    try:
        test = evaluation.own_test(own, str(FILE), model.inputs[0].name)
    except InputError:
        for sample in samples_of(model.reference, own):  # what is no evaluation data may be calibration data
            assert sample
            break
        return
    evaluation.evaluate(test, lambda feeds: measurable(model, model.run(feeds).outputs), limit=4)


TARGET = Target(seeds, change, run)
