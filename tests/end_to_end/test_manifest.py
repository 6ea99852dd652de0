"""Every net of the manifest, from its file: what the emulated chip gives equals the quantized Relax module run by TVM
on the CPU, to the bit, on real inputs; the Program is free of hazards in strict mode; the peak is no higher than the
order's live bytes."""

import json

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import evaluation
from tvm_ergo.evaluation.nets import TFLITE, compile_net, inputs_of
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.target.machine import Machine

pytestmark = pytest.mark.skipif(
    not evaluation.has_shared(), reason="the shared models and data are absent (set ERGO_SHARED)"
)

BIG = {"resnet50_pqf_large": 1, "yolox_nano": 1, "all_minilm_l6_v2_trim": 1}


@pytest.mark.parametrize("name", [*evaluation.TASKS, *TFLITE])
def test_chip_equals_tvm_on_the_cpu(name):
    options = tvm_ergo.QuantizeOptions(samples=4, attention_on_chip=True)
    compiled = compile_net(name, calibration_samples=4, quantize=options)
    reference = build_cpu(compiled.lowered)
    for feeds in inputs_of(name, compiled, BIG.get(name, 3)):
        on_chip = compiled.run(feeds)
        on_cpu = [np.asarray(o) for o in reference(*compiled.check_inputs(feeds))]
        for output, (port, value) in zip(on_cpu, on_chip.outputs.items(), strict=True):
            np.testing.assert_array_equal(value, output, err_msg=f"{name}: output {port}")
    assert on_chip.calls, "nothing ran on the chip"
    for call in on_chip.calls:
        strict = Machine(call.program, compiled.chip, strict=True).run(call.inputs)
        for port, value in call.outputs.items():
            np.testing.assert_array_equal(strict.outputs[port], value)
        assert call.program.meta["activation_bytes"] >= call.program.meta["live_bytes"]
    assert all(f.reason and f.remedy for f in compiled.fallbacks)
    json.dumps([f.__dict__ for f in compiled.fallbacks])


def test_a_language_model_runs_whole_on_the_chip():
    """stories260K with default options: token numbers in, logits out, no operator on the host, near the float
    network."""
    compiled = compile_net("stories260k_s256", calibration_samples=2)
    assert len(compiled.programs) == 1 and not compiled.fallbacks
    (feeds,) = inputs_of("stories260k_s256", compiled, 1)
    logits = next(iter(compiled.run(feeds).outputs.values()))
    (wanted,) = compiled.run_float(feeds)
    assert logits.shape == (1, 256, 512) and np.sqrt(np.mean((logits - wanted) ** 2)) < 0.1 * wanted.std()
