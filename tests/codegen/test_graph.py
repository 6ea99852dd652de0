"""Reading Relax functions as graphs, and what a graph refuses."""

import dataclasses
from random import Random

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_ergo.codegen.graph import Graph, Node, Tensor, from_function
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import ModelError

INT8 = relax.TensorType((2, 6), "int8")
TABLE = np.arange(-128, 128).astype("int8")


def chip_function(*bindings, params, result):
    """A function of one dataflow block."""
    out = relax.Var("out", result.ty)
    return relax.Function(
        params, relax.SeqExpr([relax.DataflowBlock([*bindings, relax.VarBinding(out, result)])], out), out.ty
    )


def bind(name, value, kind=relax.DataflowVar):
    var = kind(name, value.ty)
    return var, relax.VarBinding(var, value)


def test_names_types_and_order_come_from_the_function():
    function = RandomFunction(Random(3), 2).grow(8)
    func = function.finish()["main"]
    graph = from_function(func, "net")
    assert [graph.tensors[t].name for t in graph.inputs] == ["x0", "x1"]
    assert [n.name for n in graph.nodes] == [b.var.name for b in function.bindings]
    for node, binding in zip(graph.nodes, function.bindings, strict=True):
        tensor = graph.tensors[node.outputs[0]]
        assert (tensor.shape, tensor.dtype) == (tuple(int(d) for d in binding.var.ty.shape), str(binding.var.ty.dtype))
        assert node.op == dialect.from_call(binding.value)
    text = str(graph)
    assert text.startswith("graph net(%0 x0: int8") and text.count("\n") == len(graph.nodes) + 1


def test_equal_constants_are_one_tensor():
    x = relax.Var("x", INT8)
    a, first = bind("a", dialect.Table().call(x, relax.const(TABLE)))
    b, second = bind("b", dialect.Table().call(a, relax.const(TABLE.copy())))
    graph = from_function(chip_function(first, second, params=[x], result=b))
    assert sum(t.data is not None for t in graph.tensors) == 1
    assert graph.consumers[graph.nodes[0].inputs[1]] == graph.nodes
    assert graph.producer[graph.outputs[0]] is graph.nodes[1]


def test_composite_functions_are_flattened():
    p = relax.Var("p", INT8)
    inner_var, inner_binding = bind("inner", dialect.Table().call(p, relax.const(TABLE)))
    composite = chip_function(inner_binding, params=[p], result=inner_var).with_attr("Composite", "ergo.table")
    x = relax.Var("x", INT8)
    local = relax.Var("composite", composite.ty)
    call = relax.Call(local, [x], ret_ty=INT8)
    y, binding = bind("y", call)
    func = chip_function(relax.VarBinding(local, composite), binding, params=[x], result=y)
    graph = from_function(func)
    assert [(n.name, type(n.op)) for n in graph.nodes] == [("inner", dialect.Table)] and graph.nodes[0].inputs[
        0
    ] == graph.inputs[0]


def test_tuples_are_flattened():
    x = relax.Var("x", INT8)
    pair, first = bind("pair", relax.Tuple([x, x]))
    y, second = bind("y", dialect.Maximum().call(x, x))
    item, third = bind("item", relax.TupleGetItem(pair, 1))
    value = relax.Tuple([y, item])
    out = relax.Var("out", relax.TupleType([INT8, INT8]))
    block = relax.DataflowBlock([first, second, third, relax.VarBinding(out, value)])
    graph = from_function(relax.Function([x], relax.SeqExpr([block], out), out.ty))
    assert graph.outputs == (graph.nodes[0].outputs[0], graph.inputs[0])


def test_a_host_op_is_refused_by_name():
    x = relax.Var("x", relax.TensorType((2, 6), "float32"))
    y, binding = bind("y", relax.BlockBuilder().normalize(relax.op.floor(x)))
    with pytest.raises(ModelError, match="not of the integer dialect.*\n.*floor"):
        from_function(chip_function(binding, params=[x], result=y))


def test_a_dynamic_shape_is_refused_by_name():
    x = relax.Var("picture", relax.TensorType((tvm.tirx.Var("n", "int64"), 6), "int8"))
    with pytest.raises(ModelError, match="known shape\n.*picture"):
        from_function(relax.Function([x], relax.SeqExpr([], x), x.ty))


def graph_with(**changes):
    x, y = Tensor(0, "x", (2, 6), "int8"), Tensor(1, "y", (2, 6), "int8")
    good = Graph((x, y), (Node(0, "max", dialect.Maximum(), (0, 0), (1,)),), (0,), (1,))
    good.validate()
    return dataclasses.replace(good, **changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"inputs": ()}, "read before it is made"),
        ({"nodes": ()}, "output is never made"),
        ({"tensors": (Tensor(0, "x", (2, 6), "int8"), Tensor(1, "y", (6, 2), "int8"))}, "not what its op infers"),
        ({"tensors": (Tensor(0, "x", (2, 6), "int8"), Tensor(2, "y", (2, 6), "int8"))}, "tensor ids"),
        (
            {
                "nodes": (
                    Node(0, "max", dialect.Maximum(), (0, 0), (1,)),
                    Node(1, "again", dialect.Maximum(), (0, 0), (1,)),
                )
            },
            "made twice",
        ),
        (
            {"tensors": (Tensor(0, "x", (2, 6), "int8", np.zeros(3, "int8")), Tensor(1, "y", (2, 6), "int8"))},
            "disagrees with its type",
        ),
    ],
)
def test_broken_graphs_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        graph_with(**changes).validate()
