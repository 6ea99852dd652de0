"""What an op says of itself holds: traits against the op's own definition, over random instances."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.dialect import testing
from tvm_ergo.relay_passes.dialect.base import ErgoOp, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Move, Rows

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
MADE = sorted(testing.any_op_names())


def cases(names):
    return pytest.mark.parametrize("name", sorted(names))


def of(keep):
    return [name for name in MADE if keep(dialect.OPS[name].traits)]


def results(case, activations):
    return np.asarray(build_cpu(testing.module_of([case]))(*activations)[0])


def test_every_op_states_its_own_traits():
    for cls in dialect.OPS.values():
        assert "traits" in vars(cls), f"{cls.__name__} inherits its traits: state them in the class"


def test_an_op_without_traits_is_refused_by_name():
    @dataclasses.dataclass(frozen=True)
    class Twice(ErgoOp):
        """Without traits."""

        arg_names: ClassVar[tuple[str, ...]] = ("x",)

    with pytest.raises(TypeError, match="Twice states no traits.*relay_passes/dialect/traits.py"):
        ergo_op("twice_without_traits")(Twice)
    assert "twice_without_traits" not in dialect.OPS


@cases(of(lambda t: t.in_place))
@SETTINGS
@given(data=st.data())
def test_in_place_inputs_matter_only_where_they_stand(name, data):
    """The result may take an input's bytes: each element is read before or when it is written, never after."""
    case = testing.random_call(name, data.draw)
    shape, _ = case.infer()
    for i in case.op.traits.in_place:
        if case.op.traits.renews:  # one instruction, which keeps an order of its own (IN_PLACE of tests/target)
            continue
        if case.shapes[i] != shape or i in case.constants or 0 in shape:
            continue
        flat = data.draw(st.integers(0, int(np.prod(shape, dtype=int)) - 1))
        place = np.unravel_index(flat, shape)
        box = tuple((int(p), int(p) + 1) for p in place)
        values = [case.constants.get(n) for n in range(len(case.shapes))]
        assert case.op.input_regions(box, case.shapes, values)[i] == box


@cases(of(lambda t: t.move is not None))
@SETTINGS
@given(data=st.data())
def test_what_moves_makes_no_new_value(name, data):
    case = testing.random_call(name, data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    activations = case.activations(rng)
    out = results(case, activations)
    there = set(np.concatenate([a.ravel() for a in activations]).tolist())
    new = set(out.ravel().tolist()) - there
    move = case.op.traits.move
    assert len(new) <= (1 if move is Move.JOIN else 0)
    if move is Move.RELABEL:
        assert sorted(out.ravel().tolist()) == sorted(activations[0].ravel().tolist())


@cases(of(lambda t: t.keeps_zero))
@SETTINGS
@given(data=st.data())
def test_what_keeps_zeros_makes_them_of_zeros_and_of_nothing_else(name, data):
    case = testing.random_call(name, data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    activations = [np.where(a == 0, np.array(1, a.dtype), a) for a in case.activations(rng)]
    clipped = getattr(case.op, "lo", -128) > -128 or getattr(case.op, "hi", 127) < 127
    if not clipped:
        assert np.all(results(case, activations) != 0)
        assert np.all(results(case, [np.zeros_like(a) for a in activations]) == 0)


@cases(of(lambda t: t.rows is Rows.SAME and not t.once))
@SETTINGS
@given(data=st.data())
def test_a_row_of_same_rows_needs_at_most_one_row_of_each_operand(name, data):
    case = testing.random_call(name, data.draw)
    shape, _ = case.infer()
    if len(shape) != 4 or 0 in shape or any(len(s) != 4 for i, s in enumerate(case.shapes) if i not in case.constants):
        return
    if name == "concat" and case.op.axis == 1:
        return  # the planner keeps rows joined from several tensors whole
    row = data.draw(st.integers(0, shape[1] - 1))
    box = ((0, shape[0]), (row, row + 1), (0, shape[2]), (0, shape[3]))
    values = [case.constants.get(n) for n in range(len(case.shapes))]
    for i, region in enumerate(case.op.input_regions(box, case.shapes, values)):
        if i not in case.constants:
            assert region[1][1] - region[1][0] <= 1


@cases(of(lambda t: t.kernel_axis is not None))
@SETTINGS
@given(data=st.data())
def test_the_kernel_axis_is_where_the_kernel_is(name, data):
    """Rows of the result from the kernel's extent there: the size of a convolution's output, in its own words."""
    case = testing.random_call(name, data.draw)
    op, (x, w) = case.op, case.shapes[:2]
    (_, rows, columns, _), _ = case.infer()
    for axis, extent in ((1, rows), (2, columns)):
        kernel = w[op.traits.kernel_axis + axis - 1]
        padded = x[axis] + op.padding[axis - 1] + op.padding[axis + 1]
        assert extent == (padded - (kernel - 1) * op.dilation[axis - 1] - 1) // op.strides[axis - 1] + 1


def test_coded_operands_name_fields_that_exist():
    coded = [cls for cls in dialect.OPS.values() if cls.traits.coding is not None]
    assert coded
    for cls in coded:
        fields = {f.name for f in dataclasses.fields(cls)}
        for i, name in cls.traits.coding.inputs.items():
            assert i < len(cls.arg_names) and (name is None or name in fields)
        assert cls.traits.coding.output is None or cls.traits.coding.output in fields
