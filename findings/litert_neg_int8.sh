#!/bin/sh
# LiteRT: NEG of a quantized tensor.
#
# Guess: NEG of an int8 tensor negates what it stands for: real = scale * (q - zero_point), the result -real in the scale
# and zero point of the output. With scale 0.1 and zero point 10 on both sides, q = 30 (2.0) becomes -10 (-2.0).
# Seen (ai-edge-litert 2.3.0): the kernel negates the stored integers and looks at neither scale nor zero point: 30 becomes
# -30, which stands for -4.0; q = 10, a zero, becomes -10: -2.0. The interpreter accepts the file and says nothing.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ai-edge-litert==2.3.0 tflite==2.18.0 flatbuffers==25.12.19 numpy==2.2.6
"$folder/venv/bin/python" - <<'EOF'
import flatbuffers
import numpy as np
import tflite
from ai_edge_litert.interpreter import Interpreter

SCALE, ZERO, STORED = 0.1, 10, [30, 10, -20, 0]
b = flatbuffers.Builder()


def offsets(items):
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return b.EndVector()


def numbers(values, dtype):
    return b.CreateNumpyVector(np.array(values, dtype))


def tensor(name):
    label, shape = b.CreateString(name), numbers([1, len(STORED)], np.int32)
    scale, zero = numbers([SCALE], np.float32), numbers([ZERO], np.int64)
    tflite.QuantizationParametersStart(b)
    tflite.QuantizationParametersAddScale(b, scale)
    tflite.QuantizationParametersAddZeroPoint(b, zero)
    quantization = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, tflite.TensorType.INT8)
    tflite.TensorAddName(b, label)
    tflite.TensorAddQuantization(b, quantization)
    return tflite.TensorEnd(b)


tensors = offsets([tensor("x"), tensor("y")])
ins, outs = numbers([0], np.int32), numbers([1], np.int32)
tflite.OperatorStart(b)
tflite.OperatorAddInputs(b, ins)
tflite.OperatorAddOutputs(b, outs)
operators = offsets([tflite.OperatorEnd(b)])
ins, outs = numbers([0], np.int32), numbers([1], np.int32)
tflite.SubGraphStart(b)
tflite.SubGraphAddTensors(b, tensors)
tflite.SubGraphAddInputs(b, ins)
tflite.SubGraphAddOutputs(b, outs)
tflite.SubGraphAddOperators(b, operators)
graphs = offsets([tflite.SubGraphEnd(b)])
tflite.OperatorCodeStart(b)
tflite.OperatorCodeAddBuiltinCode(b, tflite.BuiltinOperator.NEG)
tflite.OperatorCodeAddDeprecatedBuiltinCode(b, tflite.BuiltinOperator.NEG)
tflite.OperatorCodeAddVersion(b, 1)
codes = offsets([tflite.OperatorCodeEnd(b)])
tflite.BufferStart(b)
buffers = offsets([tflite.BufferEnd(b)])
tflite.ModelStart(b)
tflite.ModelAddVersion(b, 3)
tflite.ModelAddOperatorCodes(b, codes)
tflite.ModelAddSubgraphs(b, graphs)
tflite.ModelAddBuffers(b, buffers)
b.Finish(tflite.ModelEnd(b), b"TFL3")

interpreter = Interpreter(model_content=bytes(b.Output()))
interpreter.allocate_tensors()
x, y = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
assert x["quantization"] == y["quantization"] == (np.float32(SCALE), ZERO), (x["quantization"], y["quantization"])
interpreter.set_tensor(x["index"], np.array([STORED], np.int8))
interpreter.invoke()
got = interpreter.get_tensor(y["index"])[0].tolist()
meant = [2 * ZERO - q for q in STORED]
print("stored", STORED, "negated", got, "what -real would be", meant)
assert got == [-q for q in STORED] and got != meant, "LiteRT negates the real values now"
EOF
