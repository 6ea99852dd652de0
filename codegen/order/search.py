"""The order of least peak: best-first over sets of nodes that have run, beam search where that is too much.

A path's value is the largest number of bytes live at any of its nodes; the set with the smallest value is expanded
first, so the first complete set is optimal, and what waits in the queue is a bound at any time. Two things keep it
small. Nodes that every other node must run before or after cut the graph into segments, which are searched one after
the other. And a ready node that fits under the value and leaves no more bytes than before can always run first:
everything that runs later finds at most as many live bytes, because buffers only die earlier and are never made later.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from tvm_ergo.codegen.order.model import Model, bits

STATES = 20_000
BEAM = 48


@dataclass(frozen=True)
class Found:
    """order : node numbers. peak_bytes : of the model. bound_bytes : no order has less in the model. states : sets
    expanded."""

    order: tuple[int, ...]
    peak_bytes: int
    bound_bytes: int
    states: int


def least_peak(model: Model, states: int = STATES, beam: int = BEAM) -> Found:
    """An order of least peak, or the best of a beam where a segment has more than ``states`` sets."""
    bound = max([model.start_bytes, *model.forced_bytes()])
    order: list[int] = []
    done, live, peak, used = 0, model.start_bytes, bound, 0
    for segment in segments(model):
        # what is worth nothing below the peak that is needed anyway need not be looked for
        piece = _Segment(model, done, live, segment, peak)
        path, value, least, count = piece.best_first(states)
        if path is None:
            path, value = min(
                ((p, v) for width in {beam, 1} for p, v in [piece.beam(width)]), key=lambda found: found[1]
            )
        given = piece.given()
        if given[1] <= value:
            path, value = given
        order += path
        # a segment's values start at what the beam left of the ones before it: only what is above that bounds this one
        bound = max(bound, least) if least > peak else bound
        peak, used = max(peak, value), used + count
        for node in path:
            _, live = model.run(done, live, node)
            done |= 1 << node
    return Found(tuple(order), model.peak_bytes(order), bound, used)


def segments(model: Model) -> list[int]:
    """Sets of nodes (bits) that run one after the other in every order, each ending with a node comparable with all
    others."""
    everything = (1 << model.count) - 1
    descendants = [0] * model.count
    for node, before in enumerate(model.ancestors):
        for other in bits(before):
            descendants[other] |= 1 << node
    cuts = [n for n in range(model.count) if model.ancestors[n] | descendants[n] | 1 << n == everything]
    found, done = [], 0
    for cut in sorted(cuts, key=lambda n: model.ancestors[n].bit_count()):
        upto = model.ancestors[cut] | 1 << cut
        found.append(upto & ~done)
        done = upto
    return found + [everything & ~done] * (done != everything)


class _Segment:
    """One segment's search: from the sets of nodes before it to those with all of it; values start at ``peak``."""

    def __init__(self, model: Model, done: int, live: int, nodes: int, peak: int):
        self.model, self.start, self.live, self.target, self.peak = model, done, live, done | nodes, peak
        self.nodes = tuple(bits(nodes))

    def ready(self, done: int) -> list[int]:
        return [n for n in self.nodes if not done >> n & 1 and not self.model.needs[n] & ~done]

    def given(self) -> tuple[list[int], int]:
        """The nodes in their given order, and its value."""
        done, live, value = self.start, self.live, self.peak
        for node in self.nodes:
            at, live = self.model.run(done, live, node)
            done, value = done | 1 << node, max(value, at)
        return list(self.nodes), value

    def moves(self, done: int, live: int, value: int) -> list[tuple[int, int, int]]:
        """``(node, value with it, bytes live after it)`` of each node worth trying."""
        found = []
        for node in self.ready(done):
            at, left = self.model.run(done, live, node)
            if at <= value and left <= live:
                return [(node, value, left)]
            found.append((node, max(value, at), left))
        return found

    def best_first(self, states: int) -> tuple[list[int] | None, int, int, int]:
        """``(order or None where there are more sets than ``states``, its value, bound, sets expanded)``."""
        queue = [(self.peak, 0, 0, self.start, self.live)]
        came: dict[int, tuple[int, int, int]] = {self.start: (self.peak, -1, -1)}  # set -> value, node, set before
        closed: set[int] = set()
        pushed = 0
        while queue:
            value, depth, _, done, live = heapq.heappop(queue)
            if done in closed:
                continue
            if done == self.target:
                return self._path(came), value, value, len(closed)
            if len(closed) >= states:
                return None, value, value, len(closed)
            closed.add(done)
            for node, with_it, left in self.moves(done, live, value):
                after = done | 1 << node
                if after not in came or with_it < came[after][0]:
                    came[after] = (with_it, node, done)
                    pushed += 1
                    heapq.heappush(queue, (with_it, depth - 1, pushed, after, left))
        raise AssertionError("a graph whose nodes are in an executable order has one")

    def _path(self, came: dict[int, tuple[int, int, int]]) -> list[int]:
        path, done = [], self.target
        while done != self.start:
            _, node, done = came[done]
            path.append(node)
        return path[::-1]

    def beam(self, width: int) -> tuple[list[int], int]:
        """The best order that keeps ``width`` sets of each size: lowest value first, then fewest live bytes."""
        level: dict[int, tuple[int, int, tuple]] = {self.start: (self.peak, self.live, ())}
        for _ in self.nodes:
            following: dict[int, tuple[int, int, tuple]] = {}
            for done, (value, live, path) in level.items():
                for node, with_it, left in self.moves(done, live, value):
                    after = done | 1 << node
                    if after not in following or with_it < following[after][0]:
                        following[after] = (with_it, left, (path, node))
            level = dict(sorted(following.items(), key=lambda item: item[1][:2])[:width])
        value, _, path = level[self.target]
        order = []
        while path:
            path, node = path
            order.append(node)
        return order[::-1], value
