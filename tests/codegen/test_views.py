"""Where tensors come to lie, case by case, and that each case computes the right values."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ergo.codegen.compile import compile_graph, emit_program
from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.isa import Copy, Fill, Table
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1")
OFF = Options(
    **dict.fromkeys(
        ("view_reshape", "view_slice", "view_transpose", "concat_in_place", "pad_in_place", "in_place"), False
    )
)
NEGATE = relax.const(np.clip(-np.arange(-128, 128), -128, 127).astype("int8"))
SHAPE = (1, 4, 4, 6)


class Case:
    """A function under construction; calling it with an op adds a binding."""

    def __init__(self, shape=SHAPE):
        self.x, self.bindings = relax.Var("x", relax.TensorType(shape, "int8")), []

    def __call__(self, op, *args):
        call = op.call(*args)
        var = relax.DataflowVar(f"{op.op_name}_{len(self.bindings)}", call.ty)
        self.bindings.append(relax.VarBinding(var, call))
        return var

    def table(self, x):
        return self(dialect.Table(), x, NEGATE)

    def slice(self, x, begin, end, axis=3):
        shape = [int(d) for d in x.ty.shape]
        bounds = [(begin, end) if a == axis else (0, d) for a, d in enumerate(shape)]
        return self(
            dialect.Slice(begin=[b for b, _ in bounds], end=[e for _, e in bounds], strides=[1] * len(shape)), x
        )

    def graph(self, *outputs):
        value = relax.Tuple(outputs)
        result = relax.Var("result", relax.TupleType([o.ty for o in outputs]))
        block = relax.DataflowBlock([*self.bindings, relax.VarBinding(result, value)])
        return from_function(
            tvm.IRModule({"main": relax.Function([self.x], relax.SeqExpr([block], result), result.ty)})["main"]
        )


def copies(graph, expected, options=Options()):
    """Asserts the number of COPYs, and that the strict machine gives what it gives without any sharing; returns the
    plan."""
    plan = make_plan(graph, 1 << 20, options)
    program = emit_program(plan, CHIP)
    assert sum(isinstance(i, Copy) for i in program.instructions) == expected, program.instructions
    x = np.random.default_rng(0).integers(-128, 128, graph.tensors[0].shape).astype("int8")
    plain = compile_graph(graph, CHIP, options=OFF)
    results = [Machine(p, CHIP, strict=True).run({"x": x}).outputs for p in (program, plain)]
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])
    return plan


def root(plan, name):
    graph = plan.graph
    return next(graph.tensors[plan.views[t.id].root].name for t in graph.tensors if t.name == name)


def test_reshape_of_the_input_is_the_input():
    case = Case()
    plan = copies(case.graph(case(dialect.Reshape(shape=(16, 6)), case.x)), 0)
    assert plan.activation_bytes == 96 and plan.memory_bytes == 96


def test_an_output_that_is_the_input_keeps_it_unharmed():
    case = Case()
    plan = copies(case.graph(case.x, case.table(case.x)), 0)
    assert plan.activation_bytes == 2 * 96


def test_a_constant_may_be_an_output():
    case = Case()
    copies(case.graph(relax.const(np.arange(5, dtype="int8")), case.table(case.x)), 0)


def test_the_same_output_twice_is_two_ports():
    case = Case()
    y = case.table(case.x)
    program = compile_graph(case.graph(y, y), CHIP)
    assert [p.name for p in program.outputs] == ["table_0", "table_0_1"]
    assert program.outputs[0].operand == program.outputs[1].operand


def test_elementwise_overwrites_the_dying_input():
    case = Case()
    plan = copies(case.graph(case.table(case.table(case.x))), 0)
    assert plan.activation_bytes == 96 and root(plan, "table_1") == "x"


def test_elementwise_spares_an_input_that_is_read_later():
    case = Case()
    y = case.table(case.x)
    plan = copies(case.graph(case(dialect.Maximum(), y, case.x)), 0)
    assert root(plan, "table_0") == "table_0" and root(plan, "maximum_1") == "table_0"


def test_elementwise_spares_an_input_whose_alias_is_read_later():
    case = Case()
    flat = case(dialect.Reshape(shape=(96,)), case.x)
    y = case.table(case.x)
    plan = copies(case.graph(case(dialect.Maximum(), flat, case(dialect.Reshape(shape=(96,)), y))), 0)
    assert root(plan, "table_1") == "table_1"


def test_elementwise_spares_an_operand_that_partly_covers_the_other():
    """maximum(x[0:3], x[1:4]) may overwrite neither."""
    case = Case((4, 6))
    a, b = case.slice(case.x, 0, 3, axis=0), case.slice(case.x, 1, 4, axis=0)
    plan = copies(case.graph(case(dialect.Maximum(), a, b)), 0)
    assert root(plan, "maximum_2") == "maximum_2"


def test_elementwise_of_a_tensor_with_itself_is_in_place():
    case = Case()
    plan = copies(case.graph(case(dialect.Maximum(), case.x, case.x)), 0)
    assert plan.activation_bytes == 96


def test_a_constant_operand_is_never_overwritten():
    case = Case()
    y = case(dialect.Maximum(), relax.const(np.ones(SHAPE, "int8")), case.x)
    plan = copies(case.graph(y, case.x), 0)
    assert root(plan, "maximum_0") == "maximum_0"


def test_split_is_read_in_place_and_its_halves_overwritten_apart():
    case = Case()
    halves = [case.slice(case.x, 0, 2), case.slice(case.x, 2, 6)]
    plan = copies(case.graph(case(dialect.Concat(axis=3), *(case.table(h) for h in halves))), 0)
    assert root(plan, "slice_0") == root(plan, "slice_1") == "x" and root(plan, "table_2") == "concat_4"


def test_concat_members_are_written_in_place():
    case = Case()
    plan = copies(case.graph(case(dialect.Concat(axis=3), case.table(case.x), case.table(case.x))), 0)
    assert root(plan, "table_0") == root(plan, "table_1") == "concat_2"


def test_concat_of_the_same_tensor_twice_copies_once():
    case = Case()
    y = case.table(case.x)
    copies(case.graph(case(dialect.Concat(axis=2), y, y)), 1)


def test_concat_copies_inputs_and_constants():
    case = Case()
    copies(case.graph(case(dialect.Concat(axis=3), case.x, relax.const(np.ones(SHAPE, "int8")))), 2)


def test_concat_copies_a_member_that_is_an_output():
    case = Case()
    y = case.table(case.x)
    plan = copies(case.graph(y, case(dialect.Concat(axis=3), y, case.table(case.x))), 1)
    assert root(plan, "table_0") != "concat_2"


def test_concat_on_the_first_axis_holds_a_member_that_is_an_output():
    case = Case((4, 6))
    y = case.table(case.x)
    plan = copies(case.graph(y, case(dialect.Concat(axis=0), y, case.table(case.x))), 0)
    assert plan.activation_bytes == 24 + 48


def test_concat_inside_a_concat_is_written_once():
    case = Case()
    inner = case(dialect.Concat(axis=3), case.table(case.x), case.table(case.x))
    plan = copies(case.graph(case(dialect.Concat(axis=1), inner, case.table(inner))), 0)
    assert root(plan, "table_0") == "concat_4"


def test_a_member_of_two_concats_is_copied_into_one():
    case = Case()
    y = case.table(case.x)
    a, b = case(dialect.Concat(axis=3), y, case.table(case.x)), case(dialect.Concat(axis=2), case.table(case.x), y)
    copies(case.graph(a, b), 1)


def test_pad_fills_only_its_border():
    case = Case()
    y = case(dialect.Pad(pad_width=(0, 0, 1, 1, 1, 0, 0, 0), value=7), case.table(case.x))
    graph = case.graph(y)
    copies(graph, 0)
    fills = [i for i in compile_graph(graph, CHIP).instructions if isinstance(i, Fill)]
    assert sum(f.out.elements for f in fills) == (6 * 5 - 16) * 6 and len(fills) == 3


def test_transposed_output_is_written_by_its_producer():
    case = Case()
    y = case(dialect.Transpose(perm=(0, 3, 1, 2)), case.table(case.x))
    plan = copies(case.graph(y), 0)
    assert root(plan, "table_0") == "transpose_1"


def test_transposed_input_is_read_where_it_is():
    case = Case()
    plan = copies(case.graph(case.table(case(dialect.Transpose(perm=(0, 2, 3, 1)), case.x))), 0)
    assert root(plan, "transpose_0") == "x"


def test_reshape_after_transpose_copies_once():
    case = Case()
    y = case(dialect.Reshape(shape=(96,)), case(dialect.Transpose(perm=(0, 3, 1, 2)), case.x))
    copies(case.graph(case.table(y)), 1)


def test_every_port_is_dense():
    case = Case()
    half = case.slice(case.x, 0, 3)
    graph = case.graph(half, case(dialect.Transpose(perm=(0, 3, 2, 1)), case.x))
    copies(graph, 2)
    program = compile_graph(graph, CHIP)
    assert all(p.operand.is_contiguous for p in program.inputs + program.outputs)


def test_reshape_that_no_strides_express_works_on_boxes():
    case = Case((4, 6))
    t = case(dialect.Transpose(perm=(1, 0)), case.x)
    copies(case.graph(case.table(case(dialect.Reshape(shape=(8, 3)), t))), 1)


@pytest.mark.parametrize(
    "name", ["view_reshape", "view_slice", "view_transpose", "concat_in_place", "pad_in_place", "in_place"]
)
def test_each_switch_changes_the_plan(name):
    """Every switch does something: the plan of a graph with all cases differs without it."""
    case = Case()
    y = case.table(case(dialect.Transpose(perm=(0, 2, 1, 3)), case.table(case.x)))
    y = case(dialect.Pad(pad_width=(0, 0, 1, 1, 0, 0, 0, 0)), case.table(case.slice(y, 0, 3)))
    y = case(dialect.Concat(axis=3), case.table(y), case.table(y))
    graph = case.graph(case.table(case(dialect.Reshape(shape=(6, 24)), y)))
    full = compile_graph(graph, CHIP)
    without = compile_graph(graph, CHIP, options=Options(**{name: False}))
    assert full.instructions != without.instructions
    moved = [sum(isinstance(i, Copy) for i in p.instructions) for p in (full, without)]
    assert (
        moved[1] > moved[0]
        or name == "in_place"
        and sum(i.x.addr == i.out.addr for i in full.instructions if isinstance(i, Table)) > 0
    )


def test_concat_is_copied_where_only_that_fits():
    """The member's early place in the concat (72 bytes) stands beside two tensors of 128; apart, it is 8 bytes."""
    case = Case((1, 1, 1, 8))
    early = case.table(case.x)
    large = case(dialect.Pad(pad_width=(0, 0, 15, 0, 0, 0, 0, 0)), case.x)
    large = case(dialect.MaxPool2d(pool=(1, 1)), large)
    late = case(dialect.MaxPool2d(pool=(1, 1), strides=(2, 1)), large)
    graph = case.graph(case(dialect.Concat(axis=1), early, late))
    given = Options(reorder=False)  # another order would run the early member late
    roomy, tight = make_plan(graph, 1 << 20, given), make_plan(graph, 256 + 328 - 1, given)
    assert make_plan(graph, 1 << 20).activation_bytes < 328
    assert (roomy.activation_bytes, roomy.options.concat_in_place) == (328, True)
    assert (tight.activation_bytes, tight.options.concat_in_place) == (264, False)
    x = np.arange(8, dtype="int8").reshape(1, 1, 1, 8)
    results = [
        Machine(emit_program(plan, CHIP), CHIP, strict=True).run({"x": x}).outputs["concat_4"]
        for plan in (roomy, tight)
    ]
    np.testing.assert_array_equal(*results)
