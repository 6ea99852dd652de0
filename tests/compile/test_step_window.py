"""Networks over a window that are given its new rows alone: after every run the whole window's outputs, to the bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.cli import main
from tvm_ergo.relay_passes.compile.moving import Anew, Moving, Unchanging, moved
from tvm_ergo.relay_passes.compile.step_window import step_window
from tvm_ergo.relay_passes.dialect import Add, Conv2d, Reshape
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import InputError, UnsupportedError

CHANNELS = 4


class Net:
    """An ONNX network over [1, C, T, F], layer by layer."""

    def __init__(self, rows: int, width: int, seed: int):
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], []
        self.shape, self.last = [1, CHANNELS, rows, width], "x"
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))]

    def constant(self, array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, op: str, *more: str, source: str | None = None, **attrs) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [source or self.last, *more], [out], **attrs))
        self.last = out
        return out

    def conv(self, kernel: int, stride: int = 1, dilation: int = 1, pads=(0, 0), depthwise: bool = False) -> bool:
        reach = (kernel - 1) * dilation + 1
        rows = (self.shape[2] + sum(pads) - reach) // stride + 1
        if self.shape[2] + sum(pads) < reach or rows < 1:
            return False
        w = self.rng.normal(0, 0.5, (CHANNELS, 1 if depthwise else CHANNELS, kernel, 1)).astype(np.float32)
        b = self.rng.normal(0, 0.3, CHANNELS).astype(np.float32)
        self.add(
            "Conv", self.constant(w), self.constant(b), strides=[stride, 1], dilations=[dilation, 1],
            pads=[pads[0], 0, pads[1], 0], group=CHANNELS if depthwise else 1,
        )  # fmt: skip
        self.shape[2] = rows
        return True

    def pool(self, kind: str, kernel: int, stride: int, pad: int) -> None:
        if self.shape[2] + 2 * pad >= kernel:
            more = {} if kind == "MaxPool" else {"count_include_pad": self.rng.integers(0, 2)}
            self.add(kind, kernel_shape=[kernel, 1], strides=[stride, 1], pads=[pad, 0, pad, 0], **more)
            self.shape[2] = (self.shape[2] + 2 * pad - kernel) // stride + 1

    def excite(self) -> None:
        """Squeeze and excitation: rows times something of the whole window."""
        rows = self.last
        self.add("GlobalAveragePool")
        w = self.rng.normal(0, 0.5, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
        self.add("Conv", self.constant(w))
        scale = self.add("Sigmoid")
        self.add("Mul", scale, source=rows)

    def cropped_sum(self, kernel: int) -> None:
        """A residual of a convolution without padding: the last rows of its input."""
        before, rows = self.last, self.shape[2]
        if self.conv(kernel):
            after = self.last
            starts, ends = (self.constant(np.array([n])) for n in (rows - self.shape[2], rows))
            self.add("Slice", starts, ends, self.constant(np.array([2])), source=before)
            self.add("Add", after)

    def head(self, kind: str):
        if kind == "mean":
            self.add("GlobalAveragePool")
        if kind in ("mean", "dense"):
            self.add("Flatten")
            size = CHANNELS * (1 if kind == "mean" else self.shape[2] * self.shape[3])
            self.add("Gemm", self.constant(self.rng.normal(0, 0.3, (size, 3)).astype(np.float32)))
        graph = helper.make_graph(
            self.nodes, "n", self.inputs, [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)],
            self.constants,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


LAYERS = st.one_of(
    st.tuples(st.just("conv"), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2),
              st.sampled_from([(0, 0), (1, 1), (2, 0), (0, 1)]), st.booleans()),
    st.tuples(st.just("relu")),
    st.tuples(st.just("pool"), st.sampled_from(["MaxPool", "AveragePool"]), st.integers(2, 3), st.integers(1, 2),
              st.integers(0, 1)),
    st.tuples(st.just("excite")),
    st.tuples(st.just("crop"), st.integers(2, 3)),
    st.tuples(st.just("branches"), st.integers(1, 3)),
)  # fmt: skip


def network(rows, width, layers, head, seed):
    net = Net(rows, width, seed)
    net.conv(2)
    for kind, *values in layers:
        if kind == "conv":
            net.conv(*values)
        elif kind == "pool":
            net.pool(*values)
        elif kind == "excite":
            net.excite()
        elif kind == "crop":
            net.cropped_sum(*values)
        elif kind == "branches":  # different delays meet in a sum
            before = net.last
            net.conv(2 * values[0] + 1, pads=(values[0], values[0]))
            net.add("Add", before)
        else:
            net.add("Relu")
    return net.head(head), [1, CHANNELS, rows, width]


def lowered(model, shape, seed=0):
    rng = np.random.default_rng(seed)
    samples = [rng.normal(0, 1, shape).astype(np.float32) for _ in range(4)]
    return tvm_ergo.compile(model, calibration=samples).lowered


def same_as_the_whole(mod, stepped, shape, axis, rows, runs=12):
    """Window and new rows side by side, from zeros on."""
    whole, steps = Interpreter(mod), Interpreter(stepped.mod)
    name, rng = str(mod["main"].params[0].name), np.random.default_rng(1)
    window, states = np.zeros(shape, np.float32), {k.name: k.initial for k in stepped.states}
    for run in range(runs):
        size = [rows if a == axis else n for a, n in enumerate(shape)]
        fresh = rng.normal(0, 1.5, size).astype(np.float32)
        window = np.concatenate([np.take(window, range(rows, shape[axis]), axis=axis), fresh], axis=axis)
        wanted, found = whole.run({name: window}), steps.run({name: fresh, **states})
        for a, b in zip(wanted, found):
            np.testing.assert_array_equal(a, b, err_msg=f"run {run}")
        states = dict(zip(states, found[len(wanted) :], strict=True))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(8, 20), st.integers(1, 2), st.lists(LAYERS, max_size=5), st.sampled_from(["mean", "dense", "rows"]),
    st.integers(0, 99), st.integers(1, 4),
)  # fmt: skip
def test_random_networks_give_what_the_whole_window_gives(rows, width, layers, head, seed, new):
    model, shape = network(rows, width, layers, head, seed)
    mod = lowered(model, shape)
    try:
        stepped = step_window(mod, new, axis=2)
    except UnsupportedError as refused:
        assert "nothing would be saved" in str(refused)
        if "--new-rows " in refused.remedy:  # it works when typed
            assert step_window(mod, int(refused.remedy.split()[1]), axis=2).states
        return
    assert stepped.macs < stepped.whole_macs and stepped.states
    same_as_the_whole(mod, stepped, shape, 2, new)


def test_rows_are_found_behind_channels():
    """[1, C, T, 1]: channels are never rows, the axis is found."""
    model, shape = network(16, 1, [("conv", 3, 1, 1, (0, 0), False)], "mean", 0)
    mod = lowered(model, shape)
    stepped = step_window(mod, 1)
    assert stepped.axis == 2 and 4 * stepped.macs < stepped.whole_macs
    same_as_the_whole(mod, stepped, shape, 2, 1)


def test_padding_at_both_ends_is_computed_anew_and_right():
    model, shape = network(20, 1, [("conv", 3, 1, 1, (1, 1), False)] * 3, "dense", 0)
    mod = lowered(model, shape)
    stepped = step_window(mod, 1, axis=2)
    assert stepped.macs < stepped.whole_macs
    same_as_the_whole(mod, stepped, shape, 2, 1, runs=25)


def test_rows_of_nothing_but_padding_are_computed_with_the_others():
    layers = [("conv", 3, 1, 1, (0, 0), False), ("conv", 1, 1, 1, (1, 1), False), ("conv", 2, 1, 1, (0, 0), False)]
    model, shape = network(16, 1, layers, "mean", 0)
    mod = lowered(model, shape)
    stepped = step_window(mod, 1, axis=2)
    assert any("nothing but padding" in note for note in stepped.notes)
    same_as_the_whole(mod, stepped, shape, 2, 1)


def test_a_stride_that_does_not_divide_is_told():
    layers = [("conv", 3, 1, 1, (0, 0), False), ("conv", 2, 2, 1, (0, 0), False), ("conv", 3, 1, 1, (0, 0), False)]
    model, shape = network(20, 1, layers, "mean", 0)
    mod = lowered(model, shape)
    odd, even = step_window(mod, 1, axis=2), step_window(mod, 2, axis=2)
    assert any("stride of 2 where 1 rows are new" in note for note in odd.notes)
    assert not any("stride" in note for note in even.notes) and even.macs < odd.macs
    for stepped, new in ((odd, 1), (even, 2)):
        same_as_the_whole(mod, stepped, shape, 2, new)


def test_where_nothing_is_saved_a_number_of_rows_is_named_that_saves():
    net = Net(20, 1, 0)
    net.conv(2, stride=2)
    net.conv(3)
    mod = lowered(net.head("mean"), [1, CHANNELS, 20, 1])
    with pytest.raises(UnsupportedError) as refused:
        step_window(mod, 1, axis=2)
    assert refused.value.remedy == "--new-rows 2" and "stride of 2" in str(refused.value)
    assert step_window(mod, 2, axis=2).states


def test_rows_times_something_of_the_whole_window_do_not_hold():
    """Squeeze and excitation: all rows of the product change with every new row."""
    model, shape = network(16, 1, [("excite",), ("conv", 3, 1, 1, (0, 0), False)], "mean", 3)
    mod = lowered(model, shape)
    stepped = step_window(mod, 1, axis=2)
    assert any("something of the whole window" in note for note in stepped.notes)
    same_as_the_whole(mod, stepped, shape, 2, 1)


def test_the_rule_compares_boxes_row_by_row():
    source = Moving(axis=1, rows=10, shift=1, first=0, last=9)
    conv = Conv2d(padding=(1, 0, 1, 0))
    shapes = [(1, 10, 1, 4), (4, 3, 1, 4), (4,), (4,), (4,)]
    constants = [Unchanging()] * 4
    assert moved(conv, shapes, (1, 10, 1, 4), [source, *constants]) == Moving(1, 10, 1, 1, 8)
    strided = Conv2d(strides=(2, 1))
    assert isinstance(moved(strided, shapes, (1, 4, 1, 4), [source, *constants]), Anew)
    add = Add(a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0)
    position = [(1, 10, 1, 4), (1, 10, 1, 4)]  # a constant with other values in every row
    assert isinstance(moved(add, position, position[0], [source, Unchanging()]), Anew)
    assert isinstance(moved(Reshape(shape=(1, 40)), [(1, 10, 1, 4)], (1, 40), [source]), Anew)


def test_on_the_chip_with_states_that_can_be_read_set_and_reset(tmp_path):
    model, shape = network(12, 2, [("conv", 3, 1, 1, (0, 0), True), ("relu",)], "mean", 5)
    rng = np.random.default_rng(0)
    samples = [rng.normal(0, 1, shape).astype(np.float32) for _ in range(12)]
    whole = tvm_ergo.compile(model, calibration=samples)
    stepped = tvm_ergo.compile(model, calibration=samples, new_rows=2)
    assert stepped.inputs[0].shape == (1, CHANNELS, 2, 2) and stepped.accuracy.loss == whole.accuracy.loss
    window, answers = np.zeros(shape, np.float32), []
    signal = [rng.normal(0, 1, (1, CHANNELS, 2, 2)).astype(np.float32) for _ in range(9)]
    for fresh in signal:
        window = np.concatenate([window[:, :, 2:], fresh], axis=2)
        answers.append(next(iter(whole.run(window).outputs.values())))
        np.testing.assert_array_equal(next(iter(stepped.run(fresh).outputs.values())), answers[-1])
    middle = stepped.state
    stepped.reset()
    np.testing.assert_array_equal(next(iter(stepped.run(signal[0]).outputs.values())), answers[0])
    stepped.save(tmp_path / "net.ergo")
    again = tvm_ergo.load(tmp_path / "net.ergo")
    again.set_state(middle)
    window = np.concatenate([window[:, :, 2:], signal[0]], axis=2)
    wanted = next(iter(whole.run(window).outputs.values()))
    np.testing.assert_array_equal(next(iter(again.run(signal[0]).outputs.values())), wanted)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"new_rows": 0}, "new_rows"),
        ({"new_rows": 12}, "an axis of more than 12 rows"),
        ({"new_rows": 1, "rows_axis": 7}, "an axis of more than 1 rows"),
        ({"new_rows": 1, "stream": True}, "--stream"),
        ({"new_rows": 1, "lengths": [4]}, "--lengths"),
        ({"rows_axis": 1}, "without new_rows"),
    ],
)
def test_wrong_options(options, said):
    model, shape = network(12, 1, [], "mean", 0)
    samples = [np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)] * 4
    with pytest.raises((InputError, UnsupportedError)) as refused:
        tvm_ergo.compile(model, calibration=samples, **options)
    assert said in str(refused.value) and refused.value.remedy


def test_comparing_layers_says_what_to_leave_out():
    from tvm_ergo.report.compare import compare_layers

    model, shape = network(12, 1, [("conv", 3, 1, 1, (0, 0), False)], "mean", 0)
    samples = [np.random.default_rng(i).normal(0, 1, shape).astype(np.float32) for i in range(4)]
    with pytest.raises(InputError) as refused:
        compare_layers(tvm_ergo.compile(model, calibration=samples, new_rows=1))
    assert "--new-rows" in refused.value.remedy


@pytest.mark.parametrize("words", [["--new-rows", "0"], ["--new-rows", "-1"], ["--rows-axis", "x"]])
def test_counts_on_the_command_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compile", "net.onnx", *words])
    assert ended.value.code == 2 and "write a whole number from 1 on" in capsys.readouterr().err


def test_explore_has_a_series_of_it_and_compile_meets_its_rows():
    model, shape = network(16, 1, [("conv", 3, 1, 1, (0, 0), False)], "mean", 0)
    samples = [np.random.default_rng(i).normal(0, 1, shape).astype(np.float32) for i in range(4)]
    front = tvm_ergo.explore(model, calibration=samples, new_rows=1, points=2, compression="off")
    whole, stepped = front.series
    assert stepped.name == "1 new row" and any(
        "multiply-accumulates are computed a run" in note for note in front.notes
    )
    least = stepped.points[0]
    compiled = tvm_ergo.compile(model, calibration=samples, new_rows=1, memory=least.memory_bytes)
    (program,) = compiled.programs.values()
    assert program.meta["constant_bytes"] + program.meta["activation_bytes"] <= least.memory_bytes
    with pytest.raises(InputError, match="without new_rows"):
        tvm_ergo.explore(model, calibration=samples, rows_axis=1)
