"""What compression is asked that it cannot do: said before anything slow, where it is and what to do; and networks at
the edges."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.cli import main
from tvm_ergo.compressed import compress as module
from tvm_ergo.relay_passes.micro.allocate import AllocateOptions, ways_of
from tvm_ergo.target.errors import CompressionError, InputError

MODEL = str(zoo.DIGITS_MODEL)
QUICK = AllocateOptions(samples=48, compared=4, probes=1)
IMAGES, _, TEST, LABELS = zoo.digits()
X, Y = TEST[:20], LABELS[:20]


@pytest.mark.parametrize(
    "x, y, message, remedy",
    [
        (X.astype(np.float64), Y, r"array x[^$]*float32\[n, 1, 8, 8\][^$]*float64", "array.astype('float32')"),
        ((X * 16).astype(np.uint8), Y, "array x[^$]*uint8", "array.astype('float32')"),
        (X[:, 0], Y, r"array x[^$]*float32\[20, 8, 8\]", "array[:, None]"),
        (X[..., :7], Y, "array x[^$]*8, 7", "bring it to [1, 1, 8, 8]"),
        (X, np.r_[Y[:-1], 10], "array y, sample 19[^$]*0 to 9[^$]*available: 10", "from 0"),
        (X, Y - 100, "array y, sample 0", "from 0"),
    ],
)
def test_samples_the_network_does_not_take_are_refused_at_once(monkeypatch, x, y, message, remedy):
    monkeypatch.setattr(module, "_Work", None)  # nothing has begun
    with pytest.raises(InputError, match=message) as told:
        tvm_ergo.compress(MODEL, IMAGES[:8], evaluation=(x, y), max_drop=1.0)
    assert told.value.remedy is None if remedy is None else remedy in told.value.remedy


def network(tmp_path, nodes, constants, shape) -> str:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    return str(tmp_path / "net.onnx")


def test_a_network_without_weights_is_told_what_may_be_done_with_it(tmp_path, capsys):
    path = network(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {}, (1, 3, 8, 8))
    np.save(tmp_path / "cal.npy", np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    arguments = ["compress", path, "--calibration", str(tmp_path / "cal.npy")]
    assert (
        main([*arguments, "--size", "600"]) == 2
        and "leave size and max_drop (--size, --max-drop) out" in capsys.readouterr().err
    )
    assert main(arguments) == 0 and " bytes" in capsys.readouterr().out


@pytest.mark.parametrize("magnitude", [1e-38, 1e-30, 1.0])
def test_layers_of_any_magnitude_have_ways(tmp_path, magnitude):
    """Steps that no layer can have are left out (1e-38: all of them, 1e-30: the finer ones)."""
    rng = np.random.default_rng(0)
    path = network(
        tmp_path,
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"w": (magnitude * rng.normal(size=(4, 3, 3, 3))).astype(np.float32)},
        (1, 3, 8, 8),
    )
    steps = []

    def ways(layer):
        found = ways_of(layer)
        steps.append(sum(t.step is not None for t in found))
        return found

    images = rng.normal(size=(8, 3, 8, 8)).astype(np.float32)
    with pytest.raises(CompressionError, match="the least of those tried"):
        tvm_ergo.compress(path, images, size=600, allocate=AllocateOptions(ways=ways, samples=8, compared=2, probes=1))
    assert steps[0] == {1e-38: 0, 1.0: 9}.get(magnitude, steps[0]) and (magnitude != 1e-30 or 0 < steps[0] < 9)
    found = tvm_ergo.compress(
        path,
        images,
        evaluation=(images, np.arange(8) % 4),
        max_drop=100.0,
        allocate=AllocateOptions(samples=8, compared=2, probes=1),
    )
    assert found.size_bytes > 0


def test_a_size_that_is_refused_names_one_near_the_least():
    """The size named is met when it is asked for, by a file that fills it."""
    options = dict(calibration=IMAGES[:48], allocate=QUICK)
    with pytest.raises(CompressionError) as told:
        tvm_ergo.compress(MODEL, size=2000, **options)
    least = int(re.search(r"([\d,]+) bytes, the least", str(told.value))[1].replace(",", ""))
    assert f"--size {least}" in told.value.remedy
    assert 0.97 * least < tvm_ergo.compress(MODEL, size=least, **options).size_bytes <= least
