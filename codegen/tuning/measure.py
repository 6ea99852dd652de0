"""A way of a part carried out: plan, addresses, price. The lowering rules are those compilation uses
(`codegen.lower`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tvm_ergo.codegen.codes import with_codes
from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import place_constants
from tvm_ergo.codegen.space.order import Needs, band_steps
from tvm_ergo.codegen.space.place import Profiles, place
from tvm_ergo.codegen.space.place_exact import tightened
from tvm_ergo.codegen.space.plan import SpacePlan, arranged
from tvm_ergo.codegen.space.rolling import Rolled
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.tuning.counts import Counts, StepCounts
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.priced import Prices
from tvm_ergo.codegen.tuning.space import Space, Way
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import UnsupportedError

MOST_STEPS = 4000
"""A way of more steps is not looked at: the instructions of one part are as many again."""
ORDERS, EFFORT = 8, 0.1
"""Of placing one trial, see `place` and `place_exact`; whole plans are placed with more."""
KEPT = 256


@dataclass(frozen=True, eq=False)
class Looked:
    """A way before it has addresses. live_bytes : the least any placement needs, constants apart; constant_bytes :
    theirs."""

    views: tuple[View, ...]
    rolled: Rolled
    count: Callable[[], Counts]
    live_bytes: int
    constants: dict[int, int]
    constant_bytes: int

    @cached_property
    def counts(self) -> Counts:
        """Worked out when first asked for: what has no room is never counted."""
        return self.count()


class Bench:
    """Looks at ways of one part and measures them, remembering what it has seen. gating : energies are those with power
    gating."""

    def __init__(self, graph: Graph, space: Space, chip: Chip, options: Options = Options(), gating: bool = False):
        self.graph, self.space, self.options, self.gating = graph, space, options, gating
        self.chip = chip.with_memory(1 << 32)
        self.limit_bytes = 0
        """Memory for the part, its constants included: where that is reached, addresses are not looked at any
        longer."""
        self._looked: OrderedDict[str, Looked | None] = OrderedDict()
        self._arranged: OrderedDict[tuple, tuple] = OrderedDict()
        self._views: OrderedDict[tuple, tuple[Graph, Needs, StepCounts, Prices]] = OrderedDict()
        self._measured: dict[str, Figures] = {}

    def _view(self, way: Way) -> tuple[Graph, Needs, StepCounts, Prices]:
        """The part's graph with the way's tensors in slots, what its boxes need, and its counts."""
        if way.codes not in self._views:
            layouts = {self.graph.tensors[t].name: self.space.codes[t][code] for t, code in way.codes}
            graph = with_codes(self.graph, told(layouts)) if layouts else self.graph
            needs = Needs(graph) if layouts else self.space.needs
            self._views[way.codes] = (
                graph,
                needs,
                StepCounts(graph, self.chip, needs),
                Prices(graph, self.chip, self.gating),
            )
            if len(self._views) > KEPT:
                self._views.popitem(last=False)
        return self._views[way.codes]

    def codings(self, way: Way) -> dict[int, Coding]:
        """The codings of a way's constants."""
        return {t: self.space.forms[t][form] for t, form in way.forms}

    def least_bytes(self, way: Way) -> int:
        """No way of whole layers where this has them lives in less, constants apart: what such a layer reads and writes
        is there at once."""
        graph = self._view(way)[0]
        inner = {n for last, stage in way.stages for n in (last, *stage.inner)} | {n for n, _ in way.bands}
        return max((self._whole_bytes(graph, node) for node in graph.nodes if node.id not in inner), default=0)

    def _whole_bytes(self, graph: Graph, node: Node) -> int:
        sizes = [
            graph.tensors[t].size_bytes
            for t in dict.fromkeys((*node.inputs, *node.outputs))
            if graph.tensors[t].data is None and t not in graph.streams
        ]
        traits = node.op.traits
        return max(sizes, default=0) if traits.shares_bytes or traits.accumulates else sum(sizes)

    def look(self, way: Way) -> Looked | None:
        """Its steps, counted; None for one of too many steps."""
        return _kept(self._looked, way.key, lambda: self._look(way))

    def measure(self, way: Way) -> Figures:
        """By the trace of the Program that carries it out, once. Errors: UnsupportedError for a way that cannot be
        lowered or is too long."""
        if way.key not in self._measured:
            self._measured[way.key] = self._view(way)[3].figures(self.plan(way))
        return self._measured[way.key]

    def plan(self, way: Way) -> SpacePlan:
        """The plan of a way, with addresses."""
        looked = self.look(way)
        if looked is None:
            raise UnsupportedError("a schedule of too many steps", required=f"at most {MOST_STEPS}")
        profiles = Profiles.of(looked.rolled.low, looked.rolled.high)
        alignment = _alignment(self._view(way)[0], way, self.options, looked.rolled)
        offsets = place(profiles, alignment, ORDERS)
        room = self.limit_bytes - looked.constant_bytes
        if profiles.peak_bytes(offsets) > max(profiles.bound_bytes, room):
            offsets = tightened(profiles, alignment, offsets, EFFORT, room)
        return SpacePlan(
            self.coded(way),
            dict(way.bands),
            frozenset(way.barriers),
            looked.rolled,
            looked.views,
            offsets,
            looked.constants,
            looked.constant_bytes,
            looked.live_bytes,
            self.options,
            dict(way.stages),
        )

    def coded(self, way: Way) -> Graph:
        """The part's graph with the way's codings."""
        codings, graph = self.codings(way), self._view(way)[0]
        return replace(
            graph,
            tensors=tuple(
                replace(t, coding=codings.get(t.id)) if t.data is not None and t.coding != codings.get(t.id) else t
                for t in graph.tensors
            ),
        )

    def _look(self, way: Way) -> Looked | None:
        if self._steps(way) > MOST_STEPS:
            return None
        views, rolled = _kept(
            self._arranged, (way.bands, way.stages, way.barriers, way.codes), lambda: self._arrange(way)
        )
        graph = self.coded(way)
        constants, constant_bytes = place_constants(
            graph, views, max(self.options.alignment_bytes, _alignment(graph, way, self.options, rolled)), rolled.steps
        )
        return Looked(
            views,
            rolled,
            lambda: self._view(way)[2].of(rolled.steps, self.codings(way), views),
            int(rolled.live_bytes().max(initial=0)),
            constants,
            constant_bytes,
        )

    def _arrange(self, way: Way) -> tuple[tuple[View, ...], Rolled]:
        stages, (graph, needs, *_) = dict(way.stages), self._view(way)
        steps = band_steps(graph, dict(way.bands), needs, frozenset(way.barriers), stages)
        return arranged(graph, steps, self.options, needs, stages)

    def _steps(self, way: Way) -> int:
        """About how many steps there are, without making them."""
        bands, total = dict(way.bands), 0
        heights = {node.id: self.space.needs.height(node) for node in self.graph.nodes}
        for n, stage in way.stages:
            shape = self.graph.tensors[self.graph.nodes[n].outputs[0]].shape
            tiles = (-(-shape[2] // stage.columns) if stage.columns else 1) * (
                -(-shape[-1] // stage.channels) if stage.channels else 1
            )
            total += -(-heights[n] // bands.get(n, heights[n])) * tiles * (len(stage.inner) + 1)
        return total + sum(-(-heights[n] // rows) for n, rows in bands.items() if n not in dict(way.stages))


def told(layouts: Mapping[str, SlotLayout]) -> dict[str, list]:
    """As `codes.with_codes` takes them, and JSON."""
    return {name: [layout.codec.name, layout.slot_bytes, layout.zero_point] for name, layout in layouts.items()}


def _alignment(graph: Graph, way: Way, options: Options, rolled: Rolled) -> int:
    return max(
        [options.alignment_bytes if not way.bands else 1, *(graph.tensors[root].itemsize for root in rolled.roots)]
    )


def _kept(known: OrderedDict, key, make):
    if key not in known:
        known[key] = make()
        if len(known) > KEPT:
            known.popitem(last=False)
    known.move_to_end(key)
    return known[key]
