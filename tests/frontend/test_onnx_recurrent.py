"""LSTM, GRU and RNN with every attribute ONNX gives them, unrolled, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tvm_ergo
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.target.errors import ModelError, UnsupportedError

ort = pytest.importorskip("onnxruntime")
ort.set_default_logger_severity(4)
RNG = np.random.default_rng(0)
STEPS, BATCH, SIZE, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def constants_of(
    op: str, directions: int, *, bias=True, states=False, lengths=None, peepholes=False, batch_first=False
) -> dict[str, np.ndarray]:
    gates, state = GATES[op] * HIDDEN, (BATCH, directions, HIDDEN) if batch_first else (directions, BATCH, HIDDEN)
    made = {
        "W": RNG.normal(size=(directions, gates, SIZE)) * 0.5,
        "R": RNG.normal(size=(directions, gates, HIDDEN)) * 0.4,
    }
    made |= {"B": RNG.normal(size=(directions, 2 * gates)) * 0.5} if bias else {}
    made |= {"h0": RNG.normal(size=state)} if states else {}
    made |= {"c0": RNG.normal(size=state)} if states and op == "LSTM" else {}
    made |= {"P": RNG.normal(size=(directions, 3 * HIDDEN)) * 0.5} if peepholes else {}
    made = {name: value.astype(np.float32) for name, value in made.items()}
    return made | ({} if lengths is None else {"n": np.array(lengths, np.int32)})


def net(
    op: str, direction="forward", *, opset=14, outputs="yhc", batch_first=False, attributes=None, **kinds
) -> onnx.ModelProto:
    constants = constants_of(op, 2 if direction == "bidirectional" else 1, batch_first=batch_first, **kinds)
    inputs = [
        name if name in (*constants, "x") else ""
        for name in ("x", "W", "R", "B", "n", "h0", *(("c0", "P") if op == "LSTM" else ()))
    ]
    names = [name if name in outputs else "" for name in ("y", "h", *("c" if op == "LSTM" else ""))]
    more = {**(attributes or {}), **({"layout": 1} if batch_first else {})}
    node = helper.make_node(op, inputs, names, name="rnn", hidden_size=HIDDEN, direction=direction, **more)
    shape = (BATCH, STEPS, SIZE) if batch_first else (STEPS, BATCH, SIZE)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(proto: onnx.ModelProto) -> None:
    """Against ONNX Runtime; where that does not run it (batch first), against ONNX's own evaluator."""
    x = RNG.normal(size=[d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]).astype(np.float32)
    try:
        want = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    except Exception:  # noqa: BLE001  ONNX Runtime raises classes of its own for each kind
        want = ReferenceEvaluator(proto).run(None, {"x": x})
    got = evaluate(load(proto).mod, {"x": x})
    assert [g.shape for g in got] == [w.shape for w in want]
    for mine, theirs in zip(got, want):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


COMMON = {
    "plain": {},
    "states": {"states": True},
    "no bias": {"bias": False},
    "full lengths": {"lengths": [STEPS] * BATCH},
    "lengths": {"lengths": [2, 5, 3], "states": True},
    "short lengths": {"lengths": [2, 3, 2]},
    "clip": {"attributes": {"clip": 0.4}},
    "last state": {"outputs": "h"},
    "opset 11": {"opset": 11, "attributes": {"clip": 0.3}},
}
PEEPHOLES = {
    "peepholes": {"peepholes": True},
    "peepholes, states": {"peepholes": True, "states": True, "attributes": {"clip": 0.3}},
}
COUPLED = {"coupled": {"states": True, "attributes": {"input_forget": 1}}}
AFTER = {
    "reset after": {"attributes": {"linear_before_reset": 1}},
    "reset after, states": {"states": True, "attributes": {"linear_before_reset": 1}},
    "reset after, lengths": {
        "lengths": [2, 5, 3],
        "bias": False,
        "attributes": {"linear_before_reset": 1, "clip": 0.3},
    },
}
CASES = [
    (op, name, kinds)
    for op, own in (("LSTM", {**PEEPHOLES, **COUPLED}), ("GRU", AFTER), ("RNN", {}))
    for name, kinds in {**COMMON, **own}.items()
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op, name, kinds", CASES, ids=[f"{op}, {name}" for op, name, _ in CASES])
def test_attributes(op, name, kinds, direction):
    check(net(op, direction, **kinds))


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first(op, states):
    check(net(op, batch_first=True, states=states))


@pytest.mark.parametrize(
    "function",
    ["Relu", "Softsign", "Softplus", "LeakyRelu", "Elu", "HardSigmoid", "Affine", "ScaledTanh", "ThresholdedRelu"],
)
@pytest.mark.parametrize("direction, count", [("forward", 1), ("bidirectional", 2)])
def test_activations(function, direction, count):
    check(
        net(
            "RNN",
            direction,
            attributes={
                "activations": [function] * count,
                "activation_alpha": [0.3, 0.4][:count],
                "activation_beta": [0.1, 0.2][:count],
            },
        )
    )
    check(
        net(
            "GRU",
            direction,
            attributes={
                "activations": ["HardSigmoid", function] * count,
                "activation_alpha": [0.3, 0.7] * count,
                "activation_beta": [0.4, 0.6] * count,
            },
        )
    )


def test_activations_written_out_are_the_default():
    check(net("LSTM", states=True, attributes={"activations": ["Sigmoid", "Tanh", "Tanh"]}))


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"activations": ["Foo", "Tanh", "Tanh"]}, "Foo"),
        ({"activations": ["Tanh"]}, "number of activations"),
        ({"activations": ["Affine", "Tanh", "Tanh"]}, "no parameters"),
    ],
)
def test_activations_that_are_refused(attributes, message):
    with pytest.raises((ModelError, UnsupportedError), match=message):
        load(net("LSTM", attributes=attributes))


def test_what_depends_on_an_input_is_named():
    proto = net("GRU", lengths=[STEPS] * BATCH)
    kept = [t for t in proto.graph.initializer if t.name != "n"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.input.append(helper.make_tensor_value_info("n", TensorProto.INT32, (BATCH,)))
    with pytest.raises(ModelError, match="sequence_lens") as caught:
        load(proto)
    assert "rnn" in caught.value.where and "without lengths" in caught.value.remedy


def test_weights_that_are_computed_from_constants():
    """As exporters reorder gates: slices joined and given an axis; too large for constants that are shapes."""
    hidden = 80
    weight = RNG.normal(size=(3 * hidden, SIZE)).astype(np.float32) * 0.3
    recurrent = RNG.normal(size=(3 * hidden, hidden)).astype(np.float32) * 0.1
    nodes, constants = [], {"w": weight, "r": recurrent, "axis": np.array([0])}
    for name in "wr":
        for k, (begin, end) in enumerate(((1, 2), (0, 1), (2, 3))):
            constants |= {f"b{k}": np.array([begin * hidden]), f"e{k}": np.array([end * hidden])}
            nodes.append(helper.make_node("Slice", [name, f"b{k}", f"e{k}", "axis"], [f"{name}{k}"]))
        nodes += [
            helper.make_node("Concat", [f"{name}{k}" for k in range(3)], [f"{name}_joined"], axis=0),
            helper.make_node("Unsqueeze", [f"{name}_joined", "axis"], [name.upper()]),
        ]
    nodes.append(helper.make_node("GRU", ["x", "W", "R"], ["y"], hidden_size=hidden))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (STEPS, 1, SIZE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8))


def test_length_behind_shapes_that_fold():
    """The sequence passes a Reshape whose shape is computed; layers follow each other."""
    constants = constants_of("LSTM", 1) | {
        "shape": np.array([STEPS]),
        "rest": np.array([1, SIZE]),
        "squeezed": np.array([1]),
    }
    constants["W2"], constants["R2"] = (
        RNG.normal(size=(1, 3 * HIDDEN, HIDDEN)).astype(np.float32) * 0.3 for _ in range(2)
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Mul", ["size", "one"], ["same"]),
        helper.make_node("Concat", ["same", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["flat", "to"], ["sequence"]),
        helper.make_node("LSTM", ["sequence", "W", "R", "B"], ["h"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["h", "squeezed"], ["s"]),
        helper.make_node("GRU", ["s", "W2", "R2"], ["y"], hidden_size=HIDDEN),
    ]
    nodes.insert(3, helper.make_node("Mul", ["wide", "factor"], ["flat"]))
    nodes.insert(0, helper.make_node("Expand", ["column", "sizes"], ["wide"]))
    nodes.insert(0, helper.make_node("Unsqueeze", ["x", "squeezed"], ["column"]))
    constants |= {
        "one": np.array([1]),
        "factor": np.linspace(-1, 1, SIZE).astype(np.float32),
        "sizes": np.array([STEPS, SIZE]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (STEPS,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8))


@pytest.mark.parametrize(
    "op, direction, attributes",
    [
        ("LSTM", "bidirectional", {}),
        ("GRU", "forward", {"linear_before_reset": 1}),
        ("GRU", "bidirectional", {}),
        ("RNN", "reverse", {}),
    ],
)
def test_quantized_it_runs_whole_on_the_chip(op, direction, attributes):
    proto = net(op, direction, outputs="y", attributes=attributes)
    session = ort.InferenceSession(proto.SerializeToString())
    samples = [{"x": RNG.normal(size=(STEPS, BATCH, SIZE)).astype(np.float32)} for _ in range(48)]
    compiled = tvm_ergo.compile(proto, calibration=samples, strict=True)
    want, got = (
        np.array([run(s) for s in samples[:8]])
        for run in (lambda s: session.run(None, s)[0], lambda s: compiled.run(s).outputs["y"])
    )
    assert np.sqrt(np.mean((want - got) ** 2)) < 0.03 * want.std()


@pytest.mark.parametrize(
    "name, shapes", [("silero_vad_openvino_16k", None), ("silero_vad_16k_sequence", {"input": (3, 576)})]
)
def test_voice_activity_detectors_carry_their_state(shared, name, shapes):
    """Deployed files: weights joined from slices, a length known after folding; 40 calls, each with the state of the
    one before."""
    path = shared / "models" / "registry" / f"{name}.onnx"
    session, imported = ort.InferenceSession(path), load(path, input_shapes=shapes)
    info = {i.name: i for i in imported.inputs}
    mine = {n: np.zeros(i.shape, np.float32) for n, i in info.items()}
    theirs, follows = dict(mine), {"stateN": "state", "hn": "h", "cn": "c"}
    rng = np.random.default_rng(4)
    for step in range(40):
        mine["input"] = theirs["input"] = (rng.normal(size=info["input"].shape) * 0.1 * (step % 7)).astype(np.float32)
        outputs = [o.name for o in session.get_outputs()]
        got, want = (
            evaluate(imported.mod, {p: mine[n] for p, n in zip(imported.parameters, info)}),
            session.run(None, theirs),
        )
        for key, a, b in zip(outputs, got, want):
            np.testing.assert_allclose(a, b, atol=2e-4)
            if key in follows:
                mine[follows[key]], theirs[follows[key]] = a, b
