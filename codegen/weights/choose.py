"""Which codec each constant takes, by cost: what costs no time, or as few bytes as there can be.

Candidates are priced by the instructions of the layers run whole, on the chip that is compiled for. Constants that
anything but an instruction's weight operand reads are never coded (`apply`). How they are coded does not change a value
of any layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import numpy as np

from tvm_ergo.codegen.graph import Graph, Tensor
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.space.cost import Apart
from tvm_ergo.codegen.weights.apply import codable
from tvm_ergo.codegen.weights.coding import Coding, stream
from tvm_ergo.codegen.weights.sparse import runs_sparse
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.packed import PER_STEP
from tvm_ergo.target.codecs.weights import MAX_LANES
from tvm_ergo.target.codecs.weights_native import library
from tvm_ergo.target.sums import added

WORTHWHILE = 0.95
"""A stream takes less than this share of the plain bytes: chunks of channels could not be read out of one that saves
little."""
PYTHON_BYTES = 1 << 14
"""Larger constants do not try CABAC where the compiled coder was not built: Python takes some 90 us a weight."""
RUNS_FROM = 0.3
"""Share of the most frequent value from which codes of runs are tried."""
SLOWER = 4.0
"""Of the least memory: a layer takes at most so many times the cycles for having coded weights, as plans of least
memory do for computing again."""
ALL = (Codec.PACKED, Codec.HUFFMAN, Codec.HUFFMAN_RUNS, Codec.RUNS, Codec.CABAC)


@dataclass(frozen=True)
class Candidate:
    """One way for a constant to stand in memory. cycles, energy_pj : of the layers that read it, run whole."""

    coding: Coding | None
    size_bytes: int
    cycles: int
    energy_pj: float


@dataclass(frozen=True)
class Choice:
    """A constant and what was decided."""

    digest: str
    plain: Candidate
    chosen: Candidate


class Candidates:
    """Prices the ways of each codable constant of a graph."""

    def __init__(self, graph: Graph, chip: Chip):
        self.graph, self.chip = graph, chip
        self.lanes = min(MAX_LANES, chip.tensor.weight_decoder_lanes)
        self.readers = codable(graph) if self.lanes else {}
        self._apart = Apart(graph)

    def free(self, by_energy: bool = False) -> list[Choice]:
        """Per constant the fewest bytes at no more cycles than plain weights take, or the sparse engine where that is
        faster; by_energy: the least energy (leakage included) instead."""
        return [self._choice(t, self._free(t, by_energy)) for t in self.readers]

    def least(self, slower: float = inf, share: float = WORTHWHILE) -> list[Choice]:
        """Per constant the fewest bytes with which its layers take at most ``slower`` times the cycles; less than
        ``share`` of the plain ones."""
        return [self._choice(t, self._least(t, slower, share)) for t in self.readers]

    def _least(self, t: int, slower: float, share: float) -> Candidate | None:
        limit = slower * self.plain(t).cycles
        return min(
            (c for c in [*self._coded(t, ALL, share), *self._sparse(t, share)] if c.cycles <= limit),
            key=lambda c: (c.size_bytes, c.cycles),
            default=None,
        )

    def _choice(self, t: int, coded: Candidate | None) -> Choice:
        plain = self.plain(t)
        return Choice(self.graph.tensors[t].digest, plain, coded or plain)

    def _free(self, t: int, by_energy: bool) -> Candidate | None:
        plain, sparse = self.plain(t), self._sparse(t)
        if by_energy:
            found = [c for c in [*self._coded(t, ALL), *sparse] if self.energy(c) <= self.energy(plain)]
            return min(found, key=lambda c: (self.energy(c), c.size_bytes), default=None)
        found = [c for c in self._coded(t, self._keeping_up(t, plain)) if c.cycles <= plain.cycles]
        dense = min(found, key=lambda c: (c.size_bytes, c.energy_pj), default=None)
        return next((c for c in sparse if c.cycles < (dense or plain).cycles), dense)

    def energy(self, candidate: Candidate) -> float:
        """pJ of the layers that read the constant, leakage included."""
        return candidate.energy_pj + self.chip.leakage_pj(candidate.cycles)

    def worthwhile(self, t: int, slower: float = inf) -> list[Candidate]:
        """The plain form, then those of which none is beaten or equalled by another in bytes, cycles and energy, at
        most ``slower`` times as slow as plain."""
        plain = self.plain(t)
        kept = [plain]
        for c in sorted(
            [*self._coded(t, ALL, share=1), *self._sparse(t, share=1)],
            key=lambda c: (c.size_bytes, c.cycles, c.energy_pj),
        ):
            if c.cycles <= slower * plain.cycles and not any(
                o.size_bytes <= c.size_bytes and o.cycles <= c.cycles and o.energy_pj <= c.energy_pj for o in kept
            ):
                kept.append(c)
        return kept

    def plain(self, t: int) -> Candidate:
        return self._priced(t, None, self.graph.tensors[t].size_bytes)

    def _keeping_up(self, t: int, plain: Candidate) -> list[Codec]:
        """Codecs whose decoders may be fast enough, from the counts alone."""
        tensor = self.graph.tensors[t]
        default, entries = _most_frequent(tensor)
        steps = {
            Codec.PACKED: 1 / PER_STEP,
            Codec.HUFFMAN: 1.0,
            Codec.HUFFMAN_RUNS: min(1.0, 2 * (1 - default)),
            Codec.RUNS: 1 - default,
            Codec.CABAC: 1 + (1 - default) * np.log2(max(1, entries - 1)),
        }
        return [codec for codec in ALL if steps[codec] * tensor.size_bytes / self.lanes <= 1.1 * plain.cycles]

    def _coded(self, t: int, codecs: Iterable[Codec], share: float = WORTHWHILE) -> list[Candidate]:
        """Those that take less than so much of the plain bytes."""
        tensor, found = self.graph.tensors[t], []
        default, _ = _most_frequent(tensor)
        for codec in codecs:
            if (
                codec in (Codec.HUFFMAN_RUNS, Codec.RUNS)
                and default < RUNS_FROM
                or codec == Codec.CABAC
                and not library()
                and tensor.size_bytes > PYTHON_BYTES
            ):
                continue
            coding = Coding(codec, self.lanes)
            size = len(stream(tensor, tensor.region, coding).data)
            if size < share * tensor.size_bytes:
                found.append(self._priced(t, coding, size))
        return found

    def _sparse(self, t: int, share: float = WORTHWHILE) -> list[Candidate]:
        """The sparse engine's form where it can do the layers and takes less than so much of the plain bytes."""
        tensor = self.graph.tensors[t]
        if not runs_sparse(self.graph, tensor, self.readers[t], self.chip):
            return []
        coding = Coding(Codec.EIE, self.chip.sparse.elements)
        size = len(stream(tensor, tensor.region, coding).data)
        return [self._priced(t, coding, size)] if size < share * tensor.size_bytes else []

    def _priced(self, t: int, coding: Coding | None, size_bytes: int) -> Candidate:
        """The layers that read a constant, as they are if it is coded so."""
        self._apart.codings = {} if coding is None else {t: coding}
        emit = Emitter(self._apart)
        for node in self.readers[t]:
            emit.lower(node, self.graph.tensors[node.outputs[0]].region)
        costs = [instruction.cost(self.chip) for instruction in emit.instructions]
        return Candidate(
            coding, size_bytes, sum(c.cycles for c in costs), added(self.chip.energy_pj(c.events) for c in costs)
        )


def _most_frequent(tensor: Tensor) -> tuple[float, int]:
    """The share of the most frequent value, and how many values there are."""
    counts = np.bincount(
        tensor.data.view(np.uint8).ravel() if tensor.data.flags.c_contiguous else tensor.data.astype(np.uint8).ravel(),
        minlength=256,
    )
    return float(counts.max() / tensor.size_bytes), int((counts > 0).sum())
