"""QDQ insertion: where pairs stand, which tensors share a scale, how constants are stored, and what accuracy is
left."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.calibrate import calibrate
from tvm_ergo.relay_passes.micro.insert_qdq import insert_qdq
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized, quantize
from tvm_ergo.relay_passes.relax_utils import Call, array_of, bindings_of, main_of, op_name
from tvm_ergo.target.errors import CalibrationError

from .float_nets import Net, digits, digits_mlp, images, small_cnn


def quantizations(mod):
    """name of the quantized tensor -> (scale, zero point) of activations, from the quantize calls."""
    return {
        call.args[0].name: (float(array_of(call.args[1])), int(array_of(call.args[2])))
        for _, call in bindings_of(main_of(mod))
        if op_name(call) == "relax.quantize"
    }


def quantized(net, *outputs, shape=(8, 8, 3), **options):
    mod = net.module(*outputs)
    return mod, quantize(mod, images(8, shape), QuantizeOptions(**options))


def relative_error(mod, q, x):
    f, e = evaluate(mod, x)[0], evaluate(q, x)[0]
    return np.sqrt(np.mean((f - e) ** 2) / np.mean(f**2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "minmax"},
        {"method": "percentile"},
        {"equalize": False},
        {"correct_bias": False},
        {"weight_scale": "mse"},
    ],
)
def test_the_quantized_net_is_close_and_wholly_on_the_chip(options):
    mod = small_cnn()
    q = quantize(mod, images(32), QuantizeOptions(**options))
    assert relative_error(mod, q, images(32, seed=5)) < 0.03
    assert lower_quantized(q)[1] == [] and is_quantized(q) and quantize(q, None) is q


def test_digits_keep_their_accuracy():
    x, y = digits()
    q = quantize(digits_mlp(), x[:64])
    right = [np.mean(evaluate(m, x[1200:])[0].argmax(axis=1) == y[1200:]) for m in (digits_mlp(), q)]
    assert right[0] > 0.9 and right[0] - right[1] <= 0.005
    assert quantizations(q)["x"] == (np.float32(1 / 8), -128)  # 0..16 in steps of 1, each 8 levels, a power of two


def test_movements_and_concats_share_a_scale():
    found = quantizations(quantize(small_cnn(), images(8)))
    assert found["pool"] == found["skip"] and found["rl"] == found["rr"] == found["cat"]
    assert len({found[n] for n in ("x", "r1", "r2", "pw_b", "skip", "cat", "mean")}) == 7
    assert "fc_b" not in found  # logits leave the chip as int32 accumulators
    assert found["r1"][1] == -128  # relu: the lowest level is 0


def test_a_concat_input_with_other_readers_and_a_small_range_keeps_its_own():
    net = Net((1, 8, 8, 3))
    small = net.conv(net.params[0], 4, name="small")
    big = net.bind(relax.op.multiply(net.params[0], relax.const(np.float32(50))), "big")
    large = net.conv(big, 4, name="large")
    cat = net.bind(relax.op.concat([small, large], axis=3), "cat")
    end = net.bind(relax.op.add(net.conv(cat, 4, name="after"), small), "end")
    found = quantizations(quantized(net, end)[1])
    assert found["large_b"] == found["cat"] and found["small_b"][0] < found["cat"][0] / 5


def test_a_detector_tail_is_no_int8():
    net = Net((1, 8, 8, 3))
    boxes = net.bind(relax.op.multiply(net.conv(net.params[0], 4, name="boxes"), relax.const(np.float32(30))), "far")
    scores = net.bind(relax.op.sigmoid(net.conv(net.params[0], 2, name="scores")), "sig")
    cat = net.bind(relax.op.concat([boxes, scores], axis=3), "cat")
    mod, q = quantized(net, net.bind(relax.op.reshape(cat, (1, 64, 6)), "rows"))
    found = quantizations(q)
    assert "cat" not in found and "rows" not in found and found["sig"] == (1 / 256, -128)
    assert relative_error(mod, q, images(4)) < 0.02


def test_known_output_ranges():
    net = Net((1, 8, 8, 3))
    x = net.conv(net.params[0], 4)
    outs = [
        net.bind(relax.op.sigmoid(x), "a"),
        net.bind(relax.op.tanh(x), "b"),
        net.bind(relax.op.nn.softmax(x, axis=-1), "c"),
    ]
    found = quantizations(quantized(net, *outs)[1])
    assert found["a"] == found["c"] == (1 / 256, -128) and found["b"] == (1 / 128, 0)


def test_weights_per_channel_and_bias_at_the_accumulators_scale():
    q = quantize(small_cnn(spread=1.0), images(8), QuantizeOptions(weight_scale="max"))
    calls = {v.name: call for v, call in bindings_of(main_of(q)) if isinstance(call, Call)}
    weight, bias, activation = calls["pw_weight"], calls["pw_bias"], calls["r2_q"]
    stored, scale = array_of(weight.args[0]), array_of(weight.args[1])
    assert stored.dtype == np.int8 and scale.shape == (8,) and (np.abs(stored).reshape(8, -1).max(axis=1) == 127).all()
    assert array_of(bias.args[0]).dtype == np.int32
    assert np.allclose(array_of(bias.args[1]), array_of(activation.args[1]) * scale, rtol=1e-6)
    assert array_of(calls["fc_weight"].args[1]).shape == (5,) and int(calls["fc_weight"].attrs.axis) == 1


def test_what_the_chip_cannot_run_stays_float():
    net = Net((1, 8, 8, 3))
    a = net.relu(net.conv(net.params[0], 4, name="a"), "ra")
    odd = net.bind(relax.op.cumprod(a, axis=1), "odd")
    odder = net.bind(relax.op.cumprod(odd, axis=2), "odder")
    mod, q = quantized(net, net.conv(odder, 4, name="b"))
    found = quantizations(q)
    assert {"ra", "odder"} <= set(found) and "odd" not in found
    assert relative_error(mod, q, images(4)) < 0.05


def test_a_host_reader_of_an_input_sees_the_float_input():
    net = Net((1, 8, 8, 3))
    host = net.bind(relax.op.cumprod(net.params[0], axis=1), "host")
    mod, q = quantized(net, net.conv(net.params[0], 4), host)
    x = images(1, seed=8)
    assert np.array_equal(evaluate(q, x)[1], evaluate(mod, x)[1])


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "maximum"])
def test_constant_tensors_are_quantized_too(op):
    net = Net((1, 8, 8, 3))
    c = relax.const(np.random.default_rng(1).uniform(0.5, 2, (1, 8, 8, 3)).astype(np.float32))
    mod, q = quantized(net, net.bind(getattr(relax.op, op)(net.params[0], c), "out"))
    assert relative_error(mod, q, images(8)) < 0.02
    assert any(v.name.startswith("out_const") for v, _ in bindings_of(main_of(q)))


def test_a_tensor_without_a_range_is_named():
    mod = small_cnn()
    with pytest.raises(CalibrationError, match="not seen during calibration"):
        insert_qdq(mod, calibrate(mod, images(2), tensors={"x", "r1", "r2"}))


def test_quantize_reports_progress_and_wants_data():
    seen = []
    quantize(small_cnn(), images(3), QuantizeOptions(equalize=False), progress=lambda *step: seen.append(step))
    assert seen == [("calibrate", i, 3) for i in (1, 2, 3)]
    with pytest.raises(CalibrationError, match="needs calibration data"):
        quantize(small_cnn(), None)


def attention(gain):
    """softmax(x x^T) x of a [1, 8, 16] input, then a dense layer; ``gain`` sharpens the softmax."""
    net = Net((1, 8, 16))
    x = net.params[0]
    scores = net.bind(relax.op.matmul(x, net.bind(relax.op.permute_dims(x, [0, 2, 1]), "xt")), "scores")
    mixed = net.bind(
        relax.op.matmul(
            net.bind(
                relax.op.nn.softmax(
                    net.bind(relax.op.multiply(scores, relax.const(np.float32(gain))), "sharp"), axis=-1
                ),
                "weights",
            ),
            x,
        ),
        "mixed",
    )
    return net.module(net.dense(mixed, 5, name="last"))


def test_attention_that_int8_ruins_stays_in_float_with_a_reason(monkeypatch):
    monkeypatch.setattr("tvm_ergo.relay_passes.micro.quantize.ATTENTION_ERROR", 1e-3)
    mod, x = attention(30.0), np.random.default_rng(0).standard_normal((8, 8, 16)).astype(np.float32)
    kept, forced = quantize(mod, x), quantize(mod, x, QuantizeOptions(attention_on_chip=True))
    assert is_quantized(kept) and evaluate(kept, x[:1])[0].tobytes() == evaluate(mod, x[:1])[0].tobytes()
    left = lower_quantized(kept)[1]
    assert left and all("network with attention" in f.reason and "attention_on_chip" in f.remedy for f in left)
    assert lower_quantized(forced)[1] == []


def test_attention_that_int8_keeps_goes_to_the_chip():
    mod = attention(0.05)
    q = quantize(mod, np.random.default_rng(0).standard_normal((8, 8, 16)).astype(np.float32))
    assert lower_quantized(q)[1] == [] and len(bindings_of(main_of(q))) > len(bindings_of(main_of(mod)))
