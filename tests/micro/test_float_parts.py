"""What 8 bits cannot carry is found by measuring and stays in float; the rest of the network runs on the chip."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.float_parts import AIM, RUINED, measured_loss, parts_of
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, quantize
from tvm_ergo.relay_passes.micro.sensitivity import extremes_first, losses, sensitivity, telling

from .float_nets import Net, small_cnn


def front_end():
    """A power spectrum, its logarithm, and two layers behind it: inputs differ in loudness, powers by their square."""
    net = Net((1, 12, 32))
    power = net.bind(relax.op.square(net.dense(net.params[0], 24, "bands", bias=np.zeros(24))), "power")
    mel = net.bind(relax.op.matmul(power, relax.const(np.abs(net.weights(24, 24)).astype(np.float32))), "mel")
    log = net.bind(relax.op.log(net.add(mel, np.float32(1e-6), "floor")), "log")
    return net.module(net.dense(net.relu(net.dense(log, 32, "first")), 8, "second"))


def sounds(count, seed):
    rng = np.random.default_rng(seed)
    return [{"x": (10 ** rng.uniform(-2.5, 0) * rng.normal(size=(1, 12, 32))).astype(np.float32)} for _ in range(count)]


def test_a_logarithm_of_powers_stays_in_float_and_the_layers_behind_it_do_not():
    mod, data = front_end(), sounds(24, 1)
    wanted = [Interpreter(mod).run(x) for x in data]
    plain = quantize(mod, data, QuantizeOptions(float_parts=None))
    assert parts_of(plain["main"]) is None and measured_loss(plain, data[:6], wanted[:6]) > RUINED
    made = quantize(mod, data)
    parts = parts_of(made["main"])
    assert parts["before"] > RUINED and parts["after"] <= AIM and parts["tensors"]
    fresh = sounds(6, 2)
    assert max(losses([Interpreter(made).run(x) for x in fresh], [Interpreter(mod).run(x) for x in fresh])) < 1.5 * AIM
    _, fallbacks = lower_quantized(made)
    assert fallbacks and all("stays in float" in f.reason and "--float-parts off" in f.remedy for f in fallbacks)
    on_host = {f.node for f in fallbacks}
    assert {"power", "mel"} & on_host and not {"first", "second"} & on_host


def test_a_wanted_loss_is_met_where_it_is_asked_for():
    mod = small_cnn()
    data = [{"x": np.random.default_rng(i).normal(size=(1, 8, 8, 3)).astype(np.float32)} for i in range(12)]
    wanted = [Interpreter(mod).run(x) for x in data]
    assert parts_of(quantize(mod, data)["main"]) is None
    before = measured_loss(quantize(mod, data), data[:6], wanted[:6])
    made = quantize(mod, data, QuantizeOptions(float_parts=before / 4))
    assert measured_loss(made, data[:6], wanted[:6]) <= before / 2 and parts_of(made["main"])["tensors"]


def test_the_whole_road():
    data = sounds(16, 1)
    compiled = tvm_ergo.compile(front_end(), calibration=data)
    for x in sounds(3, 5):
        got, right = next(iter(compiled.run(x).outputs.values())), compiled.run_float(x)[0]
        assert np.sqrt(np.mean((got - right) ** 2)) < 0.2 * right.std()
    assert compiled.programs


def test_sensitivity_is_the_loss_by_one_tensor_alone():
    """Against quantizing the tensor by hand and running everything again."""
    from tvm_ergo.relay_passes.micro.observe import quant_params

    mod, data = front_end(), sounds(2, 3)
    params = {"power": quant_params(0, 5), "log": quant_params(-14, 2)}
    found = sensitivity(mod, params, data)
    interpreter = Interpreter(mod)
    for name, q in params.items():
        got = []
        for sample in data:
            env = {interpreter.params[0]: sample["x"]}
            for step in interpreter.steps:
                env[step.var] = interpreter.evaluate(step.value, env)
                if step.var.name == name:
                    env[step.var] = q.dequantize(q.quantize(env[step.var])).astype(np.float32)
            got.append([interpreter.evaluate(interpreter.body, env)])
        assert found.loss[name] == pytest.approx(max(losses(got, [interpreter.run(x) for x in data])))
    assert found.complete and not sensitivity(mod, params, data, limit_s=-1).complete


def test_losses():
    one = np.arange(8, dtype=np.float32).reshape(1, 8)
    assert losses([[one]], [[one]]) == [0.0]
    assert losses([[one + 1]], [[one]]) == [pytest.approx(1 / one.std())]
    assert losses([[np.array([1, 2])]], [[np.array([1, 3])]]) == [0.5]
    loud, quiet, wrong = [one * 10], [one * 0.3], [np.zeros_like(one)]
    pooled = np.stack([loud, quiet, quiet, quiet])
    error = np.sqrt(np.mean(np.square(quiet[0])) * 3 / 4) / pooled.std()
    assert (
        losses([loud, wrong, wrong, wrong], [loud, quiet, quiet, quiet])[0] > 1.5 * error > 0
    )  # the quiet ones count for themselves


def test_quiet_and_loud_samples_are_looked_at():
    data = [{"x": np.full((1, 2), v, np.float32)} for v in (3, 1, 2, 0.01, 5, 4, 9, 6, 7, 8)]
    assert telling(data, 2) == [3, 6] and telling(data, 4) == [3, 0, 7, 6] and sorted(telling(data[:2], 4)) == [0, 1]
    assert extremes_first(data, 4)[:2] == [3, 6]


def test_scores_are_judged_over_all_samples():
    """One value a sample has no deviation of its own: errors of a tenth of all samples' deviation are a loss of a
    tenth."""
    wanted = [[np.array([x], np.float32)] for x in (0.1, 0.5, 0.9, 0.3)]
    spread = np.std([0.1, 0.5, 0.9, 0.3])
    got = [[w[0] + np.float32(0.1 * spread)] for w in wanted]
    assert losses(got, wanted) == [pytest.approx(0.1, rel=1e-3)]
