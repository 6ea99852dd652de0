"""What the integers at the ends of a network stand for: read from the module, said in errors, kept in files, shown in
reports."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.port_scales import how_to_quantize, input_scales, meaning, output_scales
from tvm_ergo.report.build import build_report
from tvm_ergo.target.errors import CalibrationError, InputError


def quantized_net(scale=0.5, zero_point=-7, dtype="int8", second=None) -> tvm.IRModule:
    """int8 [1, 6] -> reshape -> dequantize -> relu -> quantize to 0.25, 3 -> reshape -> int8 [1, 6]. second : another
    scale that reads the input."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 6), dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            moved = builder.emit(relax.op.reshape(x, (6, 1)))
            real = builder.emit(
                relax.op.dequantize(moved, relax.const(np.float32(scale)), relax.const(np.int32(zero_point)), axis=0)
            )
            if second is not None:
                other = builder.emit(
                    relax.op.dequantize(
                        moved, relax.const(np.float32(second)), relax.const(np.int32(zero_point)), axis=0
                    )
                )
                real = builder.emit(relax.op.add(real, other))
            made = builder.emit(
                relax.op.quantize(
                    builder.emit(relax.op.nn.relu(real)),
                    relax.const(np.float32(0.25)),
                    relax.const(np.int32(3)),
                    axis=0,
                    out_dtype="int8",
                )
            )
            out = builder.emit_output(builder.emit(relax.op.reshape(made, (1, 6))))
        builder.emit_func_output(out)
    return builder.get()


def test_read_from_the_module():
    func = quantized_net()["main"]
    assert input_scales(func) == {"x": (0.5, -7)} and output_scales(func) == [(0.25, 3)]
    assert input_scales(quantized_net(second=0.5)["main"]) == {"x": (0.5, -7)}
    assert input_scales(quantized_net(second=0.75)["main"]) == {}  # it stands for two things


def test_texts():
    assert (
        meaning(0.5, -7) == ", real = 0.5 * (q + 7)"
        and meaning(0.5, 3) == ", real = 0.5 * (q - 3)"
        and meaning(None, None) == ""
    )
    array = np.array([-1e9, -1.0, 0.3, 2.2, 1e9], np.float32)
    text = how_to_quantize("int8", 0.5, -7)
    formula = text[text.index("numpy.clip") : text.index(", on what")].replace("numpy", "np")
    np.testing.assert_array_equal(eval(formula), np.clip(np.round(array / 0.5) - 7, -128, 127).astype(np.int8))
    assert eval(formula).dtype == np.int8 and "astype('int64')" in how_to_quantize("int64", None, None)


@pytest.mark.parametrize(
    "data",
    [
        np.linspace(0, 255, 24, dtype=np.float32).reshape(4, 6),
        np.arange(24).reshape(4, 6) + 120,
        np.full((4, 6), -129),
        np.zeros((4, 6), np.float16),
        np.full((1, 6), 200, np.uint8),
        [np.zeros((1, 6), np.int8), np.full((1, 6), 128)],
    ],
)
def test_calibration_data_on_another_scale_are_refused(data):
    with pytest.raises(CalibrationError, match="int8") as caught:
        list(samples_of(quantized_net(), data))
    assert "-128 to 127, real = 0.5 * (q + 7)" in caught.value.required and "- 7" in caught.value.remedy
    with pytest.raises(CalibrationError, match="int8"):  # also where nothing needs them
        tvm_ergo.compile(quantized_net(), calibration=data)


def test_integers_within_the_range_are_taken_whatever_their_width():
    for data in (
        np.full((2, 6), 127, np.int8),
        np.full((2, 6), 127),
        np.full((2, 6), 127, np.uint8),
        np.ones((2, 6), bool),
    ):
        samples = list(samples_of(quantized_net(), data))
        assert len(samples) == 2 and all(s["x"].dtype == np.int8 and (s["x"] == data[0]).all() for s in samples)


def test_a_compiled_model_says_it_and_keeps_it(tmp_path):
    model = tvm_ergo.compile(quantized_net())
    model.save(tmp_path / "net.ergo")
    for compiled in (model, tvm_ergo.load(tmp_path / "net.ergo")):
        assert (
            compiled.inputs[0].scale,
            compiled.inputs[0].zero_point,
            compiled.outputs[0].scale,
            compiled.outputs[0].zero_point,
        ) == (0.5, -7, 0.25, 3)
        with pytest.raises(InputError) as caught:
            compiled.run(np.zeros((1, 6), np.float32))
        assert "real = 0.5 * (q + 7)" in caught.value.required and "/ 0.5) - 7" in caught.value.remedy
        report = build_report("net", compiled.programs, compiled.chip, inputs=compiled.inputs, outputs=compiled.outputs)
        assert json.loads(report.model_dump_json())["ports"] == [
            {"name": "x", "direction": "input", "dtype": "int8", "shape": [1, 6], "scale": 0.5, "zero_point": -7},
            {
                "name": compiled.outputs[0].name,
                "direction": "output",
                "dtype": "int8",
                "shape": [1, 6],
                "scale": 0.25,
                "zero_point": 3,
            },
        ]
