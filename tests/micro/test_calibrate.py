"""Calibration: forms of data, ranges, and clear errors on hostile data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.calibrate import Method, calibrate, input_shapes, observe, samples_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, exact_input_params, quantize
from tvm_ergo.target.errors import CalibrationError

from .float_nets import Net, images, small_cnn


def two_inputs():
    net = Net((1, 4), (1, 4))
    return net.module(net.bind(relax.op.add(*net.params), "sum"))


def test_every_form_of_data_gives_the_same_ranges(tmp_path):
    mod, x = small_cnn(), images(6)
    np.savez(tmp_path / "named.npz", x=x)
    np.savez(tmp_path / "other.npz", whatever=x)
    np.save(tmp_path / "plain.npy", x)
    forms = [
        x,
        {"x": x},
        [x[i] for i in range(6)],
        [x[i : i + 1] for i in range(6)],
        ({"x": x[i]} for i in range(6)),
        iter([x[:4], x[4:]]),
        {"x": x, "y": np.arange(6)},
        str(tmp_path / "named.npz"),
        tmp_path / "other.npz",
        tmp_path / "plain.npy",
    ]
    results = [calibrate(mod, data) for data in forms]
    assert all(r.samples == 6 and r.ranges == results[0].ranges for r in results)


def test_ranges_are_those_of_the_values_themselves():
    mod, x = small_cnn(), images(5)
    _, values = evaluate(mod, x, intermediates=True)
    ranges, peaks = calibrate(mod, x, "minmax").ranges, calibrate(mod, x).peaks
    for name in ("r1", "pw_b", "skip", "cat", "fc_b"):
        assert (ranges[name].lo, ranges[name].hi) == (min(values[name].min(), 0), max(values[name].max(), 0))
        assert np.array_equal(peaks[name], np.abs(values[name]).reshape(-1, values[name].shape[-1]).max(axis=0))
    assert ranges["r1"].lo == 0.0


def test_samples_limit_progress_and_tensors():
    seen = []
    result = calibrate(small_cnn(), images(9), samples=4, tensors={"r1", "fc_b"}, progress=seen.append)
    assert result.samples == 4 and seen == [1, 2, 3, 4] and set(result.ranges) == {"r1", "fc_b"}


def test_inputs_are_matched_by_name_or_position():
    mod, a, b = two_inputs(), np.ones((3, 4), np.float32), np.full((3, 4), 2, np.float32)
    for data in ({"x1": b, "x": a}, [(a, b)], [{"x": a[0], "x1": b[0]}]):
        assert calibrate(mod, data, Method.MINMAX)["sum"].hi == 3.0


@pytest.mark.parametrize(
    "data, text",
    [
        (None, "needs calibration data"),
        ([], "empty"),
        (np.zeros((0, 8, 8, 3), np.float32), "empty"),
        (np.zeros((2, 8, 9, 3), np.float32), r"input x\n.*\[n, 8, 8, 3\], n samples\n.*\[2, 8, 9, 3\]"),
        (np.full((1, 8, 8, 3), np.nan, np.float32), "NaN"),
        (np.full((1, 8, 8, 3), np.inf, np.float32), "NaN or infinity"),
        (np.full((1, 8, 8, 3), 1e300), "does not fit float32"),
        (np.full((1, 8, 8, 3), "a"), "not numeric"),
        ({"y": np.zeros((1, 8, 8, 3))}, "required: x"),
        ([[np.zeros(3), np.zeros(4)]], "ragged"),
        (7, "no known form"),
        ("/nowhere/at/all.npz", "/nowhere/at/all.npz"),
    ],
)
def test_unusable_data_is_named(data, text):
    with pytest.raises(CalibrationError, match=text):
        calibrate(small_cnn(), data)


def test_broken_file_batch_mismatch_and_overflow(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(CalibrationError, match="not a NumPy file"):
        calibrate(small_cnn(), tmp_path / "broken.npz")
    np.save(tmp_path / "huge.npy", np.zeros((1, 3), np.float32))
    header = (tmp_path / "huge.npy").read_bytes()[:128]  # a shape of 4 PB
    (tmp_path / "huge.npy").write_bytes(
        header.replace(b"'shape': (1, 3), }" + b" " * 12, b"'shape': (%d, 3), }" % 10**13)[:128].ljust(128)
    )
    with pytest.raises(CalibrationError, match="larger than the file: float32"):
        calibrate(small_cnn(), tmp_path / "huge.npy")
    with pytest.raises(CalibrationError, match="x: 3, x1: 2"):
        calibrate(two_inputs(), {"x": np.zeros((3, 4)), "x1": np.zeros((2, 4))})
    with pytest.raises(CalibrationError, match="overflow"):
        calibrate(two_inputs(), {"x": np.full((1, 4), 3e38), "x1": np.full((1, 4), 3e38)})


@pytest.mark.parametrize("options", [{"method": "median"}, {"method": "percentile", "percentile": 10.0}])
def test_bad_options(options):
    with pytest.raises(CalibrationError, match="required"):
        calibrate(small_cnn(), images(1), **options)


HOSTILE = st.sampled_from([0.0, 1e-38, -1e-30, 1.0, -3.5, 1e10, -1e18, 1e-45])


@given(st.lists(HOSTILE, min_size=1, max_size=4), st.sampled_from(list(Method)))
@settings(deadline=None, max_examples=25)
def test_hostile_but_finite_data_still_quantizes_to_a_finite_net(levels, method):
    mod = small_cnn()
    x = np.stack([np.full((8, 8, 3), v, np.float32) for v in levels])
    q = quantize(mod, x, QuantizeOptions(method=method))
    assert np.isfinite(evaluate(q, x)[0]).all() and np.isfinite(evaluate(q, images(2))[0]).all()


def test_samples_of_yields_batch_one_in_the_nets_dtype():
    samples = list(samples_of(small_cnn(), np.zeros((3, 8, 8, 3), np.float64)))
    assert len(samples) == 3 and all(s["x"].shape == (1, 8, 8, 3) and s["x"].dtype == np.float32 for s in samples)


def test_evaluation_data_are_calibration_data_of_an_input_of_any_name():
    net = Net((1, 4))
    net.params[0] = relax.Var("image", net.params[0].ty)
    mod = net.module(net.bind(relax.op.abs(*net.params), "abs"))
    (name,), x = input_shapes(mod), np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert name == "image"
    assert [s[name].tolist() for s in samples_of(mod, {"x": x, "y": np.arange(3)})] == [
        s[name].tolist() for s in samples_of(mod, {name: x})
    ]


def test_errors_say_what_every_input_takes_and_how_to_turn_channels_around():
    with pytest.raises(CalibrationError) as other:
        list(samples_of(small_cnn(), {"images": images(2)}))
    assert "x float32 [n, 8, 8, 3]" in str(other.value) and "images" in str(other.value)
    turned = images(2).transpose(0, 3, 1, 2)
    with pytest.raises(CalibrationError, match=r"transpose\(array, \(0, 2, 3, 1\)\)"):
        list(samples_of(small_cnn(), turned))
    assert len(list(samples_of(small_cnn(), turned.transpose(0, 2, 3, 1)))) == 2
    with pytest.raises(CalibrationError) as else_wrong:
        list(samples_of(small_cnn(), np.zeros((2, 8, 8, 4), np.float32)))
    assert "transpose" not in str(else_wrong.value)


def test_eight_bit_inputs_are_represented_exactly():
    mod, rng = small_cnn(), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 8, 8, 3))
    every = np.arange(256)
    for offset, scale in ((0, 1.0), (0, 1 / 255), (128, 1 / 128), (83 + 128, 0.5847029)):
        x = ((pixels - offset) * scale).astype(np.float32)
        params = exact_input_params(mod, x)["x"]
        values = ((every - offset) * scale).astype(np.float32)
        if offset in (0, 128) or set(np.unique(pixels)) == set(every):
            assert np.allclose(params.dequantize(params.quantize(values)), values, atol=1e-4 * scale)
        assert np.allclose(params.dequantize(params.quantize(x)), x, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "x", [images(3), np.zeros((2, 8, 8, 3)), np.random.default_rng(0).integers(0, 300, (9, 8, 8, 3))]
)
def test_other_inputs_are_not_taken_for_eight_bit(x):
    assert exact_input_params(small_cnn(), x) == {}


def test_observations_serve_several_methods():
    seen = observe(small_cnn(), images(4))
    assert seen.ranges("minmax").ranges == calibrate(small_cnn(), images(4), "minmax").ranges
    assert seen.ranges("mse", methods={"r1": Method.MINMAX})["r1"] == seen.ranges("minmax")["r1"]
