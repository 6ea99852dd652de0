"""Subproblems: the graph between two cuts, and its Pareto set of ways to carry it out (peak bytes, cycles, energy,
multiply-accumulates).

A segment takes one whole tensor to another; in between rows stream. A way is a chain of `Element`s. Rolling windows and
tiles of all elements of a chain are alive together but for the tiles' scratch, of which there is one at a time, so a
chain's bytes are about a sum plus a maximum: for each of some limits of scratch and each of some prices of time the
cheapest chain is a shortest path. Those that survive are run step by step (without addresses), which gives their exact
live bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.chains import Chain, Chains
from tvm_ergo.codegen.space.cost import StepCosts
from tvm_ergo.codegen.space.elements import Element, Elements
from tvm_ergo.codegen.space.order import Needs, band_steps
from tvm_ergo.codegen.space.place import Profiles, place
from tvm_ergo.codegen.space.place_exact import tightened
from tvm_ergo.codegen.space.plan import arranged
from tvm_ergo.codegen.space.remembered import costs_only, footprints
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.space.stages import Stage
from tvm_ergo.target.chip import Chip

PLACING_EFFORT = 0.4
"""Of the exact placement of one way, see `place_exact`."""
HOPE, FEAR = 0.85, 1.15
"""Measured peaks lie between these shares of the estimated ones, mostly: a way is measured when the path it is on
depends on it."""
MAX_TRIALS = 24
"""Elements exchanged, at most, before a way counts as lean."""


@dataclass(eq=False)
class Way:
    """One way to carry out a segment. bands, stages : as in `band_steps`.

    peak_bytes : most live bytes, an estimate until ``exact``; what addresses reach once ``tight``. cycles, energy_pj,
    macs : likewise. ends_bytes : of the larger of the whole tensors at its ends, which no way avoids. chain : what it
    was made of. profiles, alignment_bytes : what its placement needs to know, once it is exact. number : place among
    all ways of the graph, of `ShortestPaths`. reached_bytes : what addresses reached when last looked for, 0 until
    then; lower ones were not found if ``tight``."""

    bands: dict[int, int]
    stages: dict[int, Stage]
    peak_bytes: int
    cycles: int
    energy_pj: float
    macs: int
    ends_bytes: int = 0
    chain: tuple[Element, ...] = ()
    exact: bool = False
    tight: bool = False
    reached_bytes: int = 0
    profiles: Profiles | None = None
    alignment_bytes: int = 1
    number: int = -1

    @property
    def top_bytes(self) -> int:
        """The peak as far as it is known."""
        return max(self.peak_bytes, self.reached_bytes)

    def between(self, share: float) -> float:
        """The peak if what is estimated beyond the ends were this share of itself; a measured peak is what it is."""
        return self.peak_bytes if self.exact else self.ends_bytes + share * (self.peak_bytes - self.ends_bytes)


@dataclass(eq=False)
class Segment:
    """The units ``[first, last]`` and the ways to carry them out, last the id of the last node."""

    first: int
    last: int
    last_node: int
    ways: list[Way] = field(default_factory=list)


class Segments:
    """Every segment of one graph with its ways; what is asked for is worked out once.

    of : segments of the same graph, whose chains, which measuring ways does not change, are taken over.
    """

    def __init__(self, graph: Graph, chip: Chip, options: Options, of: Segments | None = None):
        self.graph, self.options = graph, options
        self.needs = of.needs if of else Needs(graph)
        self.costs = of.costs if of else StepCosts(graph, chip, self.needs)
        self.units = of.units if of else units_of(graph)
        self.chains = (
            of.chains
            if of
            else Chains(
                graph,
                self.units,
                Elements(graph, self.units, options, self.needs, self.costs, footprints(costs_only(chip), options)),
            )
        )
        self.simulated = 0
        self.added = 0
        """Ways added to segments."""
        self.changed: list[Way] = []
        """Whose figures are others now: `ShortestPaths` empties it."""
        self._segments: dict[tuple[int, int], Segment] = {}
        self._wholes: dict[int, Way] = {}

    def segment(self, first: int, last: int) -> Segment:
        """The units ``[first, last]`` with their ways, peaks estimated."""
        key = (first, last)
        if key not in self._segments:
            segment = Segment(first, last, self.units[last][-1].id)
            whole = [self.whole(first)] if first == last else []
            figures = [(way.peak_bytes, way.cycles, way.macs, way) for way in whole]
            figures += [
                (self._peak_bytes(segment, chain), chain.cycles, chain.macs, chain)
                for chain in self.chains.between(first, last)
            ]
            segment.ways = [
                found if isinstance(found, Way) else self._way(segment, found) for found in _undominated(figures)
            ]
            self._segments[key] = segment
        return self._segments[key]

    def whole(self, unit: int) -> Way:
        """The way to run one unit whole, measured."""
        if unit not in self._wholes:
            self._wholes[unit] = self._exact(Segment(unit, unit, self.units[unit][-1].id), Way({}, {}, 0, 0, 0.0, 0))
        return self._wholes[unit]

    def _peak_bytes(self, segment: Segment, chain: Chain) -> int:
        """Estimated."""
        before, after = self.bytes_before(segment.first), self._bytes(segment.last)
        return max(before, after, (before + after) * 3 // 4) + chain.size_bytes(before > 0)

    def _way(self, segment: Segment, chain: Chain) -> Way:
        """A chain as a way of its segment, its figures estimated."""
        bands = {node: rows for e in chain.elements for node, rows in e.bands}
        stages = {node: stage for e in chain.elements for node, stage in e.stages}
        return Way(
            bands,
            stages,
            self._peak_bytes(segment, chain),
            chain.cycles,
            chain.energy_pj,
            chain.macs,
            ends_bytes=max(self.bytes_before(segment.first), self._bytes(segment.last)),
            chain=chain.elements,
        )

    def leaner(self, segment: Segment, way: Way, limit_bytes: int, least: float, cost: str = "macs") -> Way:
        """A way of less ``cost`` within a limit, from exchanging one element of a chain at a time until it is at most
        ``least``; ``way`` itself if there is none.

        The chains of `segment` are those that some price of time makes best; between two such there may be others.
        """
        trials: list[Way] = []
        if getattr(way, cost) <= least:
            return way
        for k, element in enumerate(way.chain):
            for other in self.chains.elements(element.first, element.last):
                if getattr(other, cost) < getattr(element, cost):
                    trials.append(self._way(segment, Chain.of((*way.chain[:k], other, *way.chain[k + 1 :]))))
        for other in sorted(trials, key=lambda w: (w.peak_bytes, getattr(w, cost)))[:MAX_TRIALS]:
            if (
                self._exact(segment, other).peak_bytes <= limit_bytes
                and getattr(other, cost) < getattr(way, cost)
                and self.place(other, limit_bytes).reached_bytes <= limit_bytes
            ):
                segment.ways.append(other)
                self.added += 1
                return self.leaner(segment, other, limit_bytes, least, cost)
        return way

    def measure_excluded(self, segment: Segment, limit_bytes: int, share: float) -> None:
        """Measures ways of a segment and of those inside it, the smallest first, whose estimate is above a limit that
        the tensors at their ends allow."""
        inside = [
            self.segment(a, b) for a in range(segment.first, segment.last + 1) for b in range(a, segment.last + 1)
        ]
        excluded = [
            (way.between(share), s, way)
            for s in inside
            for way in s.ways
            if not way.exact and way.chain and way.ends_bytes <= limit_bytes < way.between(share)
        ]
        for _, s, way in sorted(excluded, key=lambda found: found[0])[:MAX_TRIALS]:
            self.measure(s, way)

    def measure(self, segment: Segment, way: Way) -> Way:
        """Runs a way step by step, once: afterwards its figures are exact (but for the overlap of engines)."""
        return way if way.exact else self._exact(segment, way)

    def place(self, way: Way, enough_bytes: int = 0) -> Way:
        """Gives a measured way addresses. enough_bytes : a peak that need not be lowered further; asked for less, it is
        placed again."""
        if not way.tight and not 0 < way.reached_bytes <= enough_bytes:
            offsets = tightened(
                way.profiles,
                way.alignment_bytes,
                place(way.profiles, way.alignment_bytes),
                PLACING_EFFORT,
                enough_bytes,
            )
            way.reached_bytes = way.profiles.peak_bytes(offsets)
            if way.reached_bytes > enough_bytes or way.reached_bytes <= way.peak_bytes:
                way.peak_bytes, way.tight = way.reached_bytes, True
                self.changed.append(way)
        return way

    def bytes_before(self, first: int) -> int:
        """Bytes of the whole tensors a segment begins with: none in front of a stream."""
        if first > 0:
            return self._bytes(first - 1)
        return sum(self.graph.tensors[t].size_bytes for t in self.graph.inputs if t not in self.graph.streams)

    def _bytes(self, unit: int) -> int:
        return sum(self.graph.tensors[t].size_bytes for t in self.units[unit][-1].outputs)

    def _steps(self, segment: Segment, way: Way) -> tuple[Graph, tuple[Step, ...]]:
        """A segment as a graph of its own, and the steps of a way."""
        graph = self.graph
        nodes = tuple(node for unit in self.units[segment.first : segment.last + 1] for node in unit)
        inputs = graph.inputs if segment.first == 0 else self.units[segment.first - 1][-1].outputs
        outputs = graph.outputs if segment.last == len(self.units) - 1 else nodes[-1].outputs
        part = replace(graph, nodes=nodes, inputs=inputs, outputs=outputs)
        return part, band_steps(part, way.bands, self.needs, stages=way.stages)

    def _exact(self, segment: Segment, way: Way) -> Way:
        self.simulated += 1
        part, steps = self._steps(segment, way)
        _, rolled = arranged(part, steps, self.options, self.needs, way.stages)
        way.profiles = Profiles.of(rolled.low, rolled.high)
        way.alignment_bytes = max((part.tensors[root].itemsize for root in rolled.roots), default=1)
        way.peak_bytes = way.profiles.bound_bytes
        way.cycles, way.energy_pj = self.costs.total(rolled.steps)
        way.macs = sum(self.costs.macs(s) for s in rolled.steps if not isinstance(s, Shift))
        way.exact = True
        self.changed.append(way)
        return way


def _undominated(figures: list[tuple]) -> list:
    """Of ``(bytes, cycles, macs, what it is)`` what no other beats or equals."""
    kept: list[tuple] = []
    for found in sorted(figures, key=lambda f: f[:3]):
        if not any(k[1] <= found[1] and k[2] <= found[2] for k in kept):
            kept.append(found)
    return [k[3] for k in kept]


def linear_cuts(graph: Graph) -> list[int]:
    """Numbers of the nodes after which only their own output is still needed, the last node included."""
    last_use = {t: index for index, node in enumerate(graph.nodes) for t in node.inputs}
    last_use.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    cuts, until = [], max((last_use.get(t, -1) for t in graph.inputs), default=-1)
    for index, node in enumerate(graph.nodes):
        if until <= index and len(node.outputs) == 1:
            cuts.append(index)
        until = max([until, *(last_use.get(t, -1) for t in node.outputs)])
    if not cuts or cuts[-1] != len(graph.nodes) - 1:
        cuts.append(len(graph.nodes) - 1)
    return cuts


def units_of(graph: Graph) -> list[tuple[Node, ...]]:
    """The nodes between neighbouring cuts."""
    cuts = linear_cuts(graph)
    return [graph.nodes[a + 1 : b + 1] for a, b in zip([-1, *cuts], cuts)]
