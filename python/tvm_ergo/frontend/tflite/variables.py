"""Values that live from one run to the next (resource variables), and subgraphs that are called."""

from __future__ import annotations

import numpy as np

from tvm_ergo.frontend.tflite.converter import Converter, Node, convert
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.frontend.tflite.unsupported import check
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of
from tvm_ergo.target.errors import ModelError

MOST_CALLS = 8
"""Subgraphs inside subgraphs."""


@operator("VAR_HANDLE", options="VarHandleOptions", handled="container shared_name")
def var_handle(c: Converter, node: Node) -> None:
    """A variable is known by its container and name."""
    names = [n for n in (node.opt["container"], node.opt["shared_name"]) if n]
    c.handles[node.output().index] = "/".join(names) or node.output().name


def _name(c: Converter, node: Node) -> str:
    handle = node.input(0)
    if handle.index not in c.handles:
        raise ModelError(
            f"{node.code} names no variable",
            where=node.where,
            available=f"tensor {handle.name!r}",
            required="the result of VAR_HANDLE",
            remedy="the file is damaged; convert it again",
        )
    return c.handles[handle.index]


@operator("READ_VARIABLE", options="ReadVariableOptions")
def read_variable(c: Converter, node: Node) -> None:
    """What was assigned before in this run, else what the last run left; before the first run what CALL_ONCE assigns,
    or zeros."""
    c.bind(node.output(), c.state(_name(c, node), node.output(), node))


@operator("ASSIGN_VARIABLE", options="AssignVariableOptions")
def assign_variable(c: Converter, node: Node) -> None:
    name, value = _name(c, node), c.stored(node, 1)
    if c.once:
        if not isinstance(value, Constant):
            raise node.refuse("gives a variable a first value that is not constant")
        c.initial[name] = np.array(array_of(value))
        return
    if name not in c.current:
        c.state(name, node.input(1), node)
    c.current[name] = value


def called(c: Converter, node: Node, index: int, arguments: list[Expr], once: bool = False) -> list[Expr]:
    """The results of subgraph ``index`` on stored ``arguments``, written into the function at hand."""
    if not 0 < index < len(c.subgraphs) or c.depth >= MOST_CALLS:
        raise node.refuse(
            f"calls subgraph {index}",
            required=f"one of {len(c.subgraphs)}, at most {MOST_CALLS} inside each other",
            remedy="the file is damaged; convert it again",
        )
    graph = c.subgraphs[index]
    check([graph])
    inner = Converter(
        graph,
        c.subgraphs,
        c.bb,
        current=c.current,
        initial=c.initial,
        states=c.states,
        depth=c.depth + 1,
        once=once or c.once,
        declared=c.declared,
    )
    if len(graph.inputs) != len(arguments):
        raise node.refuse(
            f"gives {len(arguments)} values to a subgraph that takes {len(graph.inputs)}",
            remedy="the file is damaged; convert it again",
        )
    inner.values.update(zip(graph.inputs, arguments))
    convert(inner, graph)
    return [inner.value_of(graph.tensors[i], node) for i in graph.outputs]


def _bind_all(c: Converter, node: Node, results: list[Expr]) -> None:
    for k, result in enumerate(results[: len(node.op.outputs)]):
        c.values[node.output(k).index] = result


@operator("CALL_ONCE", options="CallOnceOptions", handled="init_subgraph_index")
def call_once(c: Converter, node: Node) -> None:
    """Runs before the first run: gives variables their first values."""
    called(c, node, int(node.opt["init_subgraph_index"]), [], once=True)


@operator("CALL", options="CallOptions", handled="subgraph")
def call(c: Converter, node: Node) -> None:
    _bind_all(
        c, node, called(c, node, int(node.opt["subgraph"]), [c.stored(node, i) for i in range(len(node.op.inputs))])
    )


@operator("IF", options="IfOptions", handled="then_subgraph_index else_subgraph_index")
def if_(c: Converter, node: Node) -> None:
    """Only a condition that is known before the first run chooses."""
    chosen = "then_subgraph_index" if bool(c.array(node, 0, "a condition").reshape(-1)[0]) else "else_subgraph_index"
    _bind_all(
        c, node, called(c, node, int(node.opt[chosen]), [c.stored(node, i) for i in range(1, len(node.op.inputs))])
    )
