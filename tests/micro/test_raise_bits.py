"""int16 for the tensors of which a network loses most: as few as are needed, on the chip, to the bit."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.micro.raise_bits import SixteenBits, chosen, sixteen_of
from tvm_ergo.target.errors import InputError

C, SIZE = 4, 8


class Net:
    def __init__(self, seed: int = 0):
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], []

    def __call__(self, op: str, *args, **attrs) -> str:
        names = [a if isinstance(a, str) else self.constant(a) for a in args]
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [out], **attrs))
        return out

    def constant(self, array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def conv(self, x: str, gain=1.0, kernel: int = 3, groups: int = 1) -> str:
        w = self.rng.normal(0, 1, (C, C // groups, kernel, kernel)) / (kernel * C**0.5)
        return self(
            "Conv",
            x,
            w * np.broadcast_to(gain, C)[:, None, None, None],
            self.rng.normal(0, 0.1, C),
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def model(self, out: str):
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "n",
            [value("x", TensorProto.FLOAT, [1, C, SIZE, SIZE])],
            [value(out, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


FAR = np.array([300.0, 1, 1, 1])
"""One channel reaches far beyond the others."""


def far_channel(net: Net) -> str:
    """A far channel that the next layer leaves out: in 8 bits the others vanish."""
    x = net("Relu", net.conv("x", FAR))
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    return net("Relu", net("Conv", x, w))


def residual(net: Net) -> str:
    """A far channel through sums."""
    x = net.conv("x", FAR)
    for _ in range(2):
        x = net("Add", x, net.conv(net("Relu", net.conv(x, 1 / FAR))))
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    return net("Conv", x, w)


def pooled(net: Net) -> str:
    """The far tensor is read by a layer, which may read 16 bits, and by a pooling, which reads 8."""
    x = net.conv("x", FAR)
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    a = net("Conv", x, w)
    far = np.zeros((C, C, 1, 1))
    far[:, 0] = 1 / 300
    b = net("Conv", net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), far)
    return net("Concat", net("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), b, axis=1)


def gated(net: Net) -> str:
    """Sigmoid, depthwise and a product on the way."""
    x = net.conv("x", FAR)
    y = net("Mul", x, net("Sigmoid", net.conv(x, 1 / FAR)))
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    return net("Conv", net.conv(y, groups=C), w)


def also_read_in_8(net: Net) -> str:
    """Nearest resizes before and behind a layer."""
    x = net.conv("x", FAR)
    far = np.zeros((C, C, 1, 1))
    far[:, 0] = 1 / 300
    b = net("Conv", net("Resize", x, "", np.array([1, 1, 2, 2]), mode="nearest"), far)
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    a = net("Resize", net("Conv", x, w), "", np.array([1, 1, 2, 2]), mode="nearest")
    return net("Concat", a, b, axis=1)


def without_far(net: Net, x: str) -> str:
    w = net.rng.normal(0, 1, (C, C, 1, 1))
    w[:, 0] = 0
    return net("Conv", x, w)


def windows(net: Net) -> str:
    return without_far(net, net("AveragePool", net.conv("x", FAR), kernel_shape=[3, 2], strides=[2, 1]))


def averaged(net: Net) -> str:
    return without_far(net, net("GlobalAveragePool", net("Relu", net.conv("x", FAR))))


def resized(net: Net, mode: str = "nearest") -> str:
    scales = net.constant([1, 1, 2, 3])
    return without_far(
        net, net("Resize", net.conv("x", FAR), "", scales, mode=mode, coordinate_transformation_mode="asymmetric")
    )


NETS = {
    "far": far_channel,
    "residual": residual,
    "pooled": pooled,
    "gated": gated,
    "windows": windows,
    "averaged": averaged,
    "resized": resized,
    "also read": also_read_in_8,
}


def loss_of(compiled, samples) -> float:
    pairs = [(next(iter(compiled.run(s).outputs.values())), compiled.run_float(s)[0]) for s in samples]
    got, wanted = (np.stack([np.asarray(p[i]) for p in pairs]) for i in (0, 1))
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("name", NETS)
def test_less_is_lost_and_nothing_leaves_the_chip(name):
    net = Net()
    model = net.model(NETS[name](net))
    rng = np.random.default_rng(1)
    samples = [{"x": rng.normal(0, 1, (1, C, SIZE, SIZE)).astype(np.float32)} for _ in range(16)]
    options = {"calibration": samples, "strict": True}
    narrow = tvm_ergo.compile(model, **options, quantize=tvm_ergo.QuantizeOptions(equalize=False, float_parts=None))
    wide = tvm_ergo.compile(model, **options, quantize=tvm_ergo.QuantizeOptions(equalize=False, sixteen_bits=0.03))
    assert not wide.fallbacks and loss_of(wide, samples) < 0.5 * loss_of(narrow, samples)
    used = {i.MNEMONIC for p in wide.programs.values() for i in p.instructions}
    assert "CONV_16" in used and "CONV_16" not in {i.MNEMONIC for p in narrow.programs.values() for i in p.instructions}
    told = sixteen_of(wide.quantized)
    assert told.tensors and told.after < told.before and str(told) in wide.notes
    on_cpu = build_cpu(wide.lowered)
    for sample in samples[:3]:
        np.testing.assert_array_equal(
            next(iter(wide.run(sample).outputs.values())), np.asarray(on_cpu(*wide.check_inputs(sample))[0])
        )


def test_interpolation_reads_8_bits():
    """It has no form in 16: the network compiles all the same, and on the chip what runs there is exact."""
    net = Net()
    model = net.model(net("Relu", net.conv(resized(net, "linear"), 1 / FAR)))
    samples = [{"x": np.random.default_rng(i).normal(0, 1, (1, C, SIZE, SIZE)).astype(np.float32)} for i in range(8)]
    options = tvm_ergo.QuantizeOptions(equalize=False, float_parts=None, sixteen_bits=0.01)
    compiled = tvm_ergo.compile(model, calibration=samples, strict=True, quantize=options)
    np.testing.assert_array_equal(
        next(iter(compiled.run(samples[0]).outputs.values())),
        np.asarray(build_cpu(compiled.lowered)(*compiled.check_inputs(samples[0]))[0]),
    )


def test_where_8_bits_serve_nothing_changes():
    net = Net()
    model = net.model(net("Relu", net.conv(net("Relu", net.conv("x")))))
    samples = [{"x": np.random.default_rng(i).normal(0, 1, (1, C, SIZE, SIZE)).astype(np.float32)} for i in range(8)]
    plain = tvm_ergo.compile(model, calibration=samples)
    asked = tvm_ergo.compile(model, calibration=samples, quantize=tvm_ergo.QuantizeOptions(sixteen_bits=0.3))
    assert sixteen_of(asked.quantized) is None
    assert [p.to_bytes() for p in plain.programs.values()] == [p.to_bytes() for p in asked.programs.values()]


@pytest.mark.parametrize("needed, expected", [(1, "a"), (3, "abc"), (4, "abcd"), (9, "")])
def test_as_few_as_reach_the_aim(needed, expected):
    """Of four, the first ``needed`` carry the loss; with 9 none does."""
    module, found = chosen(
        list("abcd"), 0.5, 0.1, lambda names: "".join(names), lambda names: 0.05 if len(names) >= needed else 0.5
    )
    assert "".join(found.tensors) == expected and module == (expected or None)


def test_nothing_can_be_raised():
    assert chosen([], 0.5, 0.1, lambda names: names, lambda names: 0.0) == (None, SixteenBits((), 0.5, 0.5))


@pytest.mark.parametrize("wrong", [-1, 0, "much"])
def test_wrong_values(wrong):
    net = Net()
    model = net.model(net.conv("x"))
    with pytest.raises(InputError, match="sixteen_bits"):
        tvm_ergo.compile(
            model,
            calibration=np.zeros((2, C, SIZE, SIZE), np.float32),
            quantize=tvm_ergo.QuantizeOptions(sixteen_bits=wrong),
        )
