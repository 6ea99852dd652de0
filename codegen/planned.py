"""Plans handed over: a plan in space as a few numbers a node, from which the same plan is made again, of the same graph
or of one with codecs."""

from __future__ import annotations

from tvm_ergo.codegen.codes import with_codes
from tvm_ergo.codegen.fuse import Coded
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.order import reordered
from tvm_ergo.codegen.plan import Plan, make_plan
from tvm_ergo.codegen.space.again import Site, computed_again, sites
from tvm_ergo.codegen.space.plan import SpacePlan, make_space_plan, tighter
from tvm_ergo.codegen.space.prepare import prepared
from tvm_ergo.codegen.space.stages import Stage

NO_LIMIT = 1 << 40


def described(plan: Plan | SpacePlan) -> dict:
    """JSON: ``nodes`` (how many the graph has) and ``whole``, or ``bands`` and ``stages`` by node id, ``barriers``, and
    the ``ways`` each subproblem had."""
    if isinstance(plan, Plan):
        return {"nodes": len(plan.graph.nodes), "whole": True}
    return {
        "nodes": len(plan.graph.nodes),
        "whole": False,
        "bands": {str(n): rows for n, rows in plan.bands.items()},
        "barriers": sorted(plan.barriers),
        "ways": [part.ways for part in plan.subproblems],
        "stages": {str(n): [list(s.inner), s.columns, s.channels] for n, s in plan.stages.items()},
    }


def remade(graph: Graph, decided: dict, options: Options = Options()) -> Plan | SpacePlan | None:
    """The plan that `described` told of, of the graph or of what the search in space makes of it; None if the number of
    nodes differs, or codecs are inside of stages."""
    graph = recast(graph, decided)
    graph = graph if decided["whole"] or decided["nodes"] == len(graph.nodes) else prepared(graph)
    if decided["nodes"] != len(graph.nodes):
        return None
    if decided["whole"]:
        return make_plan(graph, NO_LIMIT, options)
    stages = {
        int(n): Stage(tuple(inner), columns, channels) for n, (inner, columns, channels) in decided["stages"].items()
    }
    if any(isinstance(graph.nodes[n].op, Coded) for last, stage in stages.items() for n in (last, *stage.inner)):
        return None  # tiles of a stage are not whole rows
    bands = {int(n): rows for n, rows in decided["bands"].items()}
    return tighter(make_space_plan(graph, bands, options, barriers=set(decided["barriers"]), stages=stages))


def recast(graph: Graph, decided: dict) -> Graph:
    """The graph that a plan was made for: in another order (``order``: places), with producers computed again
    (``again``: sites), with tensors that wait in slots (``codes``: see `codes.with_codes`)."""
    if "order" in decided and sorted(decided["order"]) == list(range(len(graph.nodes))):
        graph = reordered(graph, decided["order"])
    if decided.get("again"):
        graph = computed_again(
            prepared(graph), [Site(tensor, reader, tuple(chain)) for tensor, reader, chain in decided["again"]]
        )
    if decided.get("codes"):
        graph = with_codes(prepared(graph) if decided["nodes"] != len(graph.nodes) else graph, decided["codes"])
    return graph


def recasting(graph: Graph, plan: Plan | SpacePlan) -> dict:
    """What `recast` needs to know to make the plan's graph of the one it was asked for."""
    if isinstance(plan, Plan):
        place = {node.outputs: i for i, node in enumerate(graph.nodes)}
        return {"order": [place[node.outputs] for node in plan.graph.nodes]}
    names, ready = {node.name for node in plan.graph.nodes if node.again}, prepared(graph)
    return {
        "again": [
            [s.tensor, s.reader, list(s.chain)]
            for s in sites(ready)
            if names.issuperset(f"{ready.nodes[i].name}_again" for i in s.chain)
        ]
    }


def same_plan(plan: Plan | SpacePlan, graph: Graph) -> Plan | SpacePlan | None:
    """The plan's bands, barriers and stages for a graph whose nodes are the plan's, with codecs taken in; None where it
    has others as well."""
    return remade(graph, described(plan), plan.options)
