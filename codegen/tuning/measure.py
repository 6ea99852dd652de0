"""A way of a part carried out: plan, addresses, Program, price. The lowering is the one compilation uses (`codegen.compile.emit_program`)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property

from tvm_ergo.codegen.compile import emit_program
from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import place_constants
from tvm_ergo.codegen.space.order import band_steps
from tvm_ergo.codegen.space.place import Profiles, place
from tvm_ergo.codegen.space.place_exact import tightened
from tvm_ergo.codegen.space.plan import SpacePlan, arranged
from tvm_ergo.codegen.space.rolling import Rolled
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.tuning.counts import Counts, StepCounts
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.space import Space, Way
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip

MOST_STEPS = 4000
"""A way of more steps is not looked at: the instructions of one part are as many again."""
ORDERS, EFFORT = 8, 0.2
"""Of placing one trial, see `place` and `place_exact`; whole plans are placed with more."""
KEPT = 256


@dataclass(frozen=True, eq=False)
class Looked:
    """A way before it has addresses. live_bytes : the least any placement needs, constants apart; constant_bytes : theirs."""

    views: tuple[View, ...]
    rolled: Rolled
    counts: Counts
    live_bytes: int
    constants: dict[int, int]
    constant_bytes: int


class Bench:
    """Looks at ways of one part and measures them, remembering what it has seen."""

    def __init__(self, graph: Graph, space: Space, chip: Chip, options: Options = Options()):
        self.graph, self.space, self.options = graph, space, options
        self.chip = chip.with_memory(1 << 32)
        self._looked: OrderedDict[str, Looked | None] = OrderedDict()
        self._arranged: OrderedDict[tuple, tuple] = OrderedDict()
        self._measured: dict[str, Figures] = {}

    @cached_property
    def counts(self) -> StepCounts:
        return StepCounts(self.graph, self.chip, self.space.needs)

    def codings(self, way: Way) -> dict[int, Coding]:
        """The codings of a way's constants."""
        return {t: self.space.forms[t][form] for t, form in way.forms}

    def look(self, way: Way) -> Looked | None:
        """Its steps, counted; None for one of too many steps."""
        return _kept(self._looked, way.key, lambda: self._look(way))

    def measure(self, way: Way) -> Figures:
        """By the trace of the Program that carries it out, once. Errors: UnsupportedError for a way that cannot be lowered or is too long."""
        if way.key not in self._measured:
            self._measured[way.key] = Figures.of(emit_program(self.plan(way), self.chip), self.chip)
        return self._measured[way.key]

    def plan(self, way: Way) -> SpacePlan:
        """The plan of a way, with addresses."""
        looked = self.look(way)
        if looked is None:
            from tvm_ergo.target.errors import UnsupportedError

            raise UnsupportedError("a schedule of too many steps", required=f"at most {MOST_STEPS}")
        profiles = Profiles.of(looked.rolled.low, looked.rolled.high)
        alignment = _alignment(self.graph, way, self.options, looked.rolled)
        offsets = place(profiles, alignment, ORDERS)
        if profiles.peak_bytes(offsets) > profiles.bound_bytes:
            offsets = tightened(profiles, alignment, offsets, EFFORT)
        return SpacePlan(self.coded(way), dict(way.bands), frozenset(way.barriers), looked.rolled, looked.views, offsets, looked.constants,
                         looked.constant_bytes, looked.live_bytes, self.options, dict(way.stages))

    def coded(self, way: Way) -> Graph:
        """The part's graph with the way's codings."""
        codings = self.codings(way)
        return replace(self.graph, tensors=tuple(replace(t, coding=codings.get(t.id)) if t.data is not None else t for t in self.graph.tensors))

    def _look(self, way: Way) -> Looked | None:
        if self._steps(way) > MOST_STEPS:
            return None
        views, rolled = _kept(self._arranged, (way.bands, way.stages, way.barriers), lambda: self._arrange(way))
        graph = self.coded(way)
        constants, constant_bytes = place_constants(graph, views, max(self.options.alignment_bytes, _alignment(graph, way, self.options, rolled)), rolled.steps)
        counts = self.counts.of(rolled.steps, self.codings(way), views)
        return Looked(views, rolled, counts, int(rolled.live_bytes().max(initial=0)), constants, constant_bytes)

    def _arrange(self, way: Way) -> tuple[tuple[View, ...], Rolled]:
        stages = dict(way.stages)
        steps = band_steps(self.graph, dict(way.bands), self.space.needs, frozenset(way.barriers), stages)
        return arranged(self.graph, steps, self.options, self.space.needs, stages)

    def _steps(self, way: Way) -> int:
        """About how many steps there are, without making them."""
        bands, total = dict(way.bands), 0
        heights = {node.id: self.space.needs.height(node) for node in self.graph.nodes}
        for n, stage in way.stages:
            shape = self.graph.tensors[self.graph.nodes[n].outputs[0]].shape
            tiles = (-(-shape[2] // stage.columns) if stage.columns else 1) * (-(-shape[-1] // stage.channels) if stage.channels else 1)
            total += -(-heights[n] // bands.get(n, heights[n])) * tiles * (len(stage.inner) + 1)
        return total + sum(-(-heights[n] // rows) for n, rows in bands.items() if n not in dict(way.stages))


def _alignment(graph: Graph, way: Way, options: Options, rolled: Rolled) -> int:
    return max([options.alignment_bytes if not way.bands else 1, *(graph.tensors[root].itemsize for root in rolled.roots)])


def _kept(known: OrderedDict, key, make):
    if key not in known:
        known[key] = make()
        if len(known) > KEPT:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]
