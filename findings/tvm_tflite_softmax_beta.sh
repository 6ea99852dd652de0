#!/bin/sh
# TVM's TFLite importer: SOFTMAX with a beta other than 1.
#
# Guess: relax.frontend.tflite scales the logits by the operator's beta before softmax, or refuses a beta that it cannot
# express.
# Seen (apache-tvm 0.27.0.post1): beta is not read. A float file with beta 2 is imported without a word, and gives what beta 1
# gives: [0.090, 0.245, 0.665] for logits 0, 1, 2 where LiteRT gives [0.016, 0.117, 0.867].
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check ai-edge-litert==2.3.0 tflite==2.18.0 flatbuffers==25.12.19 numpy==2.2.6 \
    apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 psutil==7.0.0
"$folder/venv/bin/python" - <<'EOF'
import flatbuffers
import numpy as np
import tflite
import tvm
from ai_edge_litert.interpreter import Interpreter
from tvm import relax
from tvm.relax.frontend.tflite import from_tflite

BETA, LOGITS = 2.0, [0.0, 1.0, 2.0]
b = flatbuffers.Builder()


def offsets(items):
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return b.EndVector()


def numbers(values, dtype):
    return b.CreateNumpyVector(np.array(values, dtype))


def tensor(name):
    label, shape = b.CreateString(name), numbers([1, len(LOGITS)], np.int32)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, tflite.TensorType.FLOAT32)
    tflite.TensorAddName(b, label)
    return tflite.TensorEnd(b)


tensors = offsets([tensor("x"), tensor("y")])
ins, outs = numbers([0], np.int32), numbers([1], np.int32)
tflite.SoftmaxOptionsStart(b)
tflite.SoftmaxOptionsAddBeta(b, BETA)
softmax = tflite.SoftmaxOptionsEnd(b)
tflite.OperatorStart(b)
tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.SoftmaxOptions)
tflite.OperatorAddBuiltinOptions(b, softmax)
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
tflite.OperatorCodeAddBuiltinCode(b, tflite.BuiltinOperator.SOFTMAX)
tflite.OperatorCodeAddDeprecatedBuiltinCode(b, tflite.BuiltinOperator.SOFTMAX)
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

data, logits = bytes(b.Output()), np.array([LOGITS], np.float32)
interpreter = Interpreter(model_content=data)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], logits)
interpreter.invoke()
litert = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def softmax_of(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


module = relax.transform.LegalizeOps()(from_tflite(tflite.Model.GetRootAs(data, 0)))
machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
result = machine["main"](tvm.runtime.tensor(logits))
ours = (result if hasattr(result, "numpy") else result[0]).numpy()[0]
print("LiteRT", litert.round(3).tolist(), "TVM", ours.round(3).tolist())
assert np.allclose(litert, softmax_of(BETA * logits[0]), atol=1e-5), "LiteRT does something else with beta"
assert np.allclose(ours, softmax_of(logits[0]), atol=1e-5), "TVM reads beta now"
EOF
