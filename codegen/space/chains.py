"""Chains of elements: ways through the units of a segment, as shortest paths under limits of scratch and prices of
time."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.space.elements import MAX_STAGE_UNITS, Element, Elements

SCRATCH_LEVELS = 7
"""Limits of scratch bytes tried, each half of the one before."""
CYCLE_PRICES = (0.01, 0.1, 0.5)
MAC_PRICES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""What all cycles (multiply-accumulates) of the network together are worth, in sizes of its largest tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Elements one behind another, and of their figures the sums, of scratch and tiles the largest."""

    elements: tuple[Element, ...] = ()
    waiting_bytes: int = 0
    scratch_bytes: int = 0
    window_bytes: int = 0
    tile_bytes: int = 0
    cycles: int = 0
    energy_pj: float = 0.0
    macs: int = 0

    @classmethod
    def of(cls, elements: tuple[Element, ...]) -> Chain:
        chain = cls()
        for element in elements:
            chain = chain.longer(element)
        return chain

    def longer(self, e: Element) -> Chain:
        return Chain(
            (*self.elements, e),
            self.waiting_bytes + e.waiting_bytes,
            max(self.scratch_bytes, e.scratch_bytes),
            self.window_bytes + e.window_bytes,
            max(self.tile_bytes, e.tile_bytes),
            self.cycles + e.cycles,
            self.energy_pj + e.energy_pj,
            self.macs + e.macs,
        )

    def size_bytes(self, behind_whole: bool) -> int:
        """What is alive at most, the smaller of two estimates. behind_whole : the input is there as a whole, which is
        not counted here."""
        whole = self.elements[0].input_bytes if behind_whole else 0
        return min(self.waiting_bytes + self.scratch_bytes, self.window_bytes + self.tile_bytes) - whole


class Chains:
    """The best chains from each unit to each behind it."""

    def __init__(self, graph: Graph, units: list[tuple[Node, ...]], elements: Elements):
        self.graph, self.units, self._all = graph, units, elements
        self._chains: dict[int, dict[int, list[Chain]]] = {}
        self._found: dict[tuple[int, int], list[Element]] = {}

    def between(self, first: int, last: int) -> list[Chain]:
        """From unit ``first`` to unit ``last``: a shortest path for each limit of scratch and each price."""
        if first not in self._chains:
            self._chains[first] = self._chained_from(first)
        return self._chains[first].get(last, [])

    def elements(self, first: int, last: int) -> list[Element]:
        if (first, last) not in self._found:
            self._found[first, last] = self._all.of(first, last)
        return self._found[first, last]

    def _prices(self) -> list[tuple[float, float]]:
        """Bytes per cycle and per multiply-accumulate."""
        singles = [
            min(self.elements(u, u), key=lambda e: e.cycles) for u in range(len(self.units)) if self.elements(u, u)
        ]
        largest = max((t.size_bytes for t in self.graph.tensors if t.data is None), default=1)
        cycles, macs = (max(1, sum(getattr(e, name) for e in singles)) for name in ("cycles", "macs"))
        return [(0.0, p * largest / macs) for p in MAC_PRICES] + [(p * largest / cycles, 0.0) for p in CYCLE_PRICES]

    def _chained_from(self, first: int) -> dict[int, list[Chain]]:
        found: dict[int, list[Chain]] = {}
        for table in self._best_elements():
            best: dict[int, tuple[float, Chain]] = {first - 1: (0.0, Chain())}
            for unit in range(first, len(self.units)):
                choices = []
                for begin in range(max(first, unit - MAX_STAGE_UNITS + 1), unit + 1):
                    edge = table.get((begin, unit, begin == first))
                    if edge is not None and begin - 1 in best:
                        cost, chain = best[begin - 1]
                        choices.append((cost + edge[0], chain, edge[1]))
                if not choices:
                    break
                cost, chain, element = min(choices, key=lambda c: c[0])
                best[unit] = cost, chain.longer(element)
                found.setdefault(unit, []).append(best[unit][1])
        return found

    def _best_elements(self) -> list[dict[tuple[int, int, bool], tuple[float, Element]]]:
        """For each limit of scratch and price: the cheapest element of each run of units, as the first of a chain (its
        input is whole) or not."""
        if not hasattr(self, "_tables"):
            runs = [(a, b) for a in range(len(self.units)) for b in range(a, min(a + MAX_STAGE_UNITS, len(self.units)))]
            self._tables = []
            for waiting, scratch in (("waiting_bytes", "scratch_bytes"), ("window_bytes", "tile_bytes")):
                largest = max((getattr(e, scratch) for run in runs for e in self.elements(*run)), default=0)
                limits = dict.fromkeys([*(largest >> k for k in range(SCRATCH_LEVELS)), 0])
                self._tables += [
                    self._table(runs, waiting, scratch, limit, *price) for limit in limits for price in self._prices()
                ]
        return self._tables

    def _table(
        self, runs, waiting: str, scratch: str, limit_bytes: int, per_cycle: float, per_mac: float
    ) -> dict[tuple[int, int, bool], tuple[float, Element]]:
        table = {}
        for run in runs:
            fitting = [
                (getattr(e, waiting) + per_cycle * e.cycles + per_mac * e.macs, e)
                for e in self.elements(*run)
                if getattr(e, scratch) <= limit_bytes
            ]
            if fitting:
                table[*run, False] = min(fitting, key=lambda p: p[0])
                table[*run, True] = min(((cost - e.input_bytes, e) for cost, e in fitting), key=lambda p: p[0])
        return table
