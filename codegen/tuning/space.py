"""The decisions of a part, and the way to carry it out that they mean.

Every unit (what lies between two neighbouring cuts) has the same few decisions, always the same ones, so that a trace
can be replayed and changed at any place; those without a meaning beside others are ignored, and ways that are the same
have equal keys.

========  ============================================================================================================
decision  meaning
========  ============================================================================================================
fuse      0: rows of this unit wait in rolling buffers; n: so many units, this one first, are one stage, computed
          anew tile by tile (1: within the unit)
inner     of a unit with branches: which of its nodes are the stage's
rows      rows a step makes; 0: all of them
tile      of a stage's band: 1 tile; n > 1: so many along the columns; n < -1: along the channels
wait      1: everything up to here is finished before what follows begins
code      of a tensor: 0 it waits as it is, else its rows wait in slots of one of the codecs there are statistics of
form      how a constant stands in memory: 0 plain, else one of the codings worth it (or the sparse engine's form)
========  ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from tvm_ergo.codegen.codes import takes_codes
from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space.elements import MAX_STAGE_NODES, MAX_STAGE_UNITS, PER_CHANNEL
from tvm_ergo.codegen.space.order import Needs, tileable
from tvm_ergo.codegen.space.segments import units_of
from tvm_ergo.codegen.space.stages import Stage, widened
from tvm_ergo.codegen.weights.choose import SLOWER, WORTHWHILE, Candidate, Candidates
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout

ROWS = (0, 1, 2, 4, 8, 16, 32)
KEPT = 4096
TILES = (1, 2, 3, 4, 8, -2, -3, -4, -8)


@dataclass(frozen=True)
class Choice:
    """One decision. name : of the table above. unit : which it is of (of a form or code: the tensor). node : whose
    block carries it. candidates : its values."""

    name: str
    unit: int
    node: int
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class Way:
    """How to carry out a part; equal for decisions that mean the same. bands, stages, barriers : as in `band_steps`,
    ids of the part.
    forms, codes : ``(tensor, number of its form or code)`` of constants that do not stand plain and tensors that do not
    wait plain."""

    bands: tuple[tuple[int, int], ...]
    stages: tuple[tuple[int, Stage], ...]
    barriers: tuple[int, ...]
    forms: tuple[tuple[int, int], ...]
    codes: tuple[tuple[int, int], ...] = ()

    @cached_property
    def key(self) -> str:
        """A text that is equal for equal ways."""
        stages = ";".join(f"{n}:{','.join(map(str, s.inner))}/{s.columns}/{s.channels}" for n, s in self.stages)
        return "|".join(
            (
                ",".join(f"{n}:{rows}" for n, rows in self.bands),
                stages,
                ",".join(map(str, self.barriers)),
                ",".join(f"{t}:{form}" for t, form in self.forms),
                ",".join(f"{t}:{code}" for t, code in self.codes),
            )
        )


class Space:
    """The decisions of one part."""

    def __init__(
        self,
        graph: Graph,
        chip: Chip,
        options: Options = Options(),
        forms: bool = True,
        layouts: Mapping[str, Sequence[SlotLayout]] = MappingProxyType({}),
    ):
        """forms : whether constants may be coded. layouts : in which slots tensors may wait, by name."""
        self.graph, self.options = graph, options
        self.codes_constants, self.layouts = forms, layouts
        self.needs = Needs(graph)
        self.units = units_of(graph)
        self.tileable = {node.id: tileable(graph, node) for node in graph.nodes}
        self.stages = {
            (u, n): list(self._stages(u, n)) for u in range(len(self.units)) for n in range(1, MAX_STAGE_UNITS + 1)
        }
        found = _forms(graph, chip) if forms else {}
        self.forms: dict[int, tuple[Coding | None, ...]] = {
            t: tuple(c.coding for c in candidates) for t, candidates in found.items()
        }
        self.form_bytes = {t: min(c.size_bytes for c in candidates) for t, candidates in found.items()}
        """Of the form of fewest bytes."""
        self.codes = _codes(graph, layouts)
        self.choices = tuple(choice for choice in self._choices() if len(choice.candidates) > 1)
        self._ways: dict[tuple[int, ...], Way] = {}
        self._place = {(choice.name, choice.unit): i for i, choice in enumerate(self.choices)}

    @property
    def size(self) -> int:
        """How many combinations of decisions there are; fewer are different."""
        total = 1
        for choice in self.choices:
            total *= len(choice.candidates)
        return total

    def way(self, values: Sequence[int]) -> Way:
        """What a value for each of ``choices`` means."""
        values = tuple(values)
        if values not in self._ways:
            if len(self._ways) >= KEPT:
                self._ways.clear()
            self._ways[values] = self._way(values)
        return self._ways[values]

    def _way(self, values: tuple[int, ...]) -> Way:
        bands: dict[int, int] = {}
        stages: dict[int, Stage] = {}
        barriers, u = [], 0
        while u < len(self.units):
            taken, element_bands, element_stages = self._element(
                u, *(self._value(values, name, u) for name in ("fuse", "inner")), values
            )
            bands |= element_bands
            stages |= element_stages
            last = u + taken - 1
            if last == len(self.units) - 1 or self._value(values, "wait", last) or not element_bands:
                barriers.append(self.units[last][-1].id)
            u = last + 1
        forms = tuple((t, form) for t in self.forms if (form := self._value(values, "form", t)))
        plain = {
            n for last, stage in stages.items() for n in (last, *stage.inner)
        }  # tiles are not whole rows, and the sparse engine has no coders
        plain |= {
            node.id for t, form in forms if self.forms[t][form].codec is Codec.EIE for node in self.graph.consumers[t]
        }
        codes = tuple(
            (t, code)
            for t in self.codes
            if (code := self._value(values, "code", t))
            and not plain.intersection(n.id for n in (self.graph.producer[t], *self.graph.consumers[t]))
        )
        return Way(tuple(sorted(bands.items())), tuple(sorted(stages.items())), tuple(barriers), forms, codes)

    def values(
        self,
        bands: Mapping[int, int],
        stages: Mapping[int, Stage],
        barriers: frozenset[int],
        codings: Mapping[int, Coding],
    ) -> list[int] | None:
        """The decisions that mean so much; None if none do."""
        found = [choice.candidates[0] for choice in self.choices]
        u = 0
        while u < len(self.units):
            u = self._set(found, u, bands, stages)
            if u is None:
                return None
        for unit, nodes in enumerate(self.units):
            self._put(found, "wait", unit, int(nodes[-1].id in barriers))
        for t, forms in self.forms.items():
            if codings.get(t) not in forms:
                return None
            self._put(found, "form", t, forms.index(codings.get(t)))
        way = self.way(found)
        return found if (dict(way.bands), dict(way.stages)) == (dict(bands), dict(stages)) else None

    def _set(self, found: list[int], u: int, bands: Mapping[int, int], stages: Mapping[int, Stage]) -> int | None:
        """Sets the decisions of the element that begins with unit ``u``; the unit behind it."""
        for fuse in reversed(self._candidates("fuse", u)):
            last = u + max(fuse, 1) - 1
            nodes = {node.id for unit in self.units[u : last + 1] for node in unit}
            wanted = {n: r for n, r in bands.items() if n in nodes}, {n: s for n, s in stages.items() if n in nodes}
            for inner in self._candidates("inner", u) if fuse == 1 else (0,):
                for rows in self._candidates("rows", last):
                    for tile in self._candidates("tile", last) if fuse else (1,):
                        self._put(found, "fuse", u, fuse), self._put(found, "inner", u, inner)
                        self._put(found, "rows", last, rows), self._put(found, "tile", last, tile)
                        if self._element(u, fuse, inner, found)[1:] == wanted:
                            return last + 1
        return None

    def _put(self, values: list[int], name: str, unit: int, value: int) -> None:
        if (name, unit) in self._place:
            values[self._place[name, unit]] = value

    def _value(self, values: Sequence[int], name: str, unit: int) -> int:
        place = self._place.get((name, unit))
        return values[place] if place is not None else (1 if name == "tile" else 0)

    def _candidates(self, name: str, unit: int) -> tuple[int, ...]:
        place = self._place.get((name, unit))
        return self.choices[place].candidates if place is not None else (1 if name == "tile" else 0,)

    def _element(
        self, u: int, fuse: int, inner: int, values: Sequence[int]
    ) -> tuple[int, dict[int, int], dict[int, Stage]]:
        """``(units, bands, stages)`` of what begins with unit ``u``."""
        options = self.stages.get((u, fuse), [])
        if not options:
            return 1, self._rolling(self.units[u], self._value(values, "rows", u)), {}
        last = u + fuse - 1
        end, inside = options[inner if inner < len(options) else 0]
        height, rows = self.needs.height(end), self._value(values, "rows", last)
        nodes = [node for unit in self.units[u : last + 1] for node in unit]
        bands = {node.id: 1 for node in nodes if self.needs.height(node) > 1 and node.id not in inside}
        if height > 1:
            bands[end.id] = rows if 0 < rows < height else height
        return fuse, bands, {end.id: self._tiled(end, inside, self._value(values, "tile", last))}

    def _rolling(self, nodes: Sequence[Node], rows: int) -> dict[int, int]:
        heights = {node.id: self.needs.height(node) for node in nodes}
        top = max(heights.values())
        return {n: max(1, rows * h // top) for n, h in heights.items() if h > 1} if 0 < rows < top else {}

    def _tiled(self, end: Node, inside: tuple[int, ...], tile: int) -> Stage:
        shape = self.graph.tensors[end.outputs[0]].shape
        if tile > 1 and len(shape) == 4 and shape[2] >= 2 * tile:
            return Stage(inside, columns=-(-shape[2] // tile))
        if tile < -1 and type(end.op).op_name in PER_CHANNEL and shape[-1] >= 8 * -tile:
            return Stage(inside, channels=-(-shape[-1] // -tile))
        return Stage(inside)

    def _stages(self, u: int, count: int) -> Iterator[tuple[Node, tuple[int, ...]]]:
        """``(last node, inner nodes)`` of the stages of ``count`` units: of one unit every way to end in it, of more
        only all of them."""
        if u + count > len(self.units):
            return
        nodes = [node for unit in self.units[u : u + count] for node in unit]
        if not 1 < len(nodes) <= MAX_STAGE_NODES:
            return
        ids = {node.id for node in nodes}
        for end in reversed(nodes[1:]) if count == 1 else nodes[-1:]:
            if not self.tileable[end.id]:
                continue
            members = [end]
            while more := [n for n in widened(self.graph, lambda n: self.tileable[n.id] and n.id in ids, members)]:
                members += more
                if count == 1 or len(members) == len(nodes):
                    yield end, tuple(sorted(n.id for n in members[1:]))

    def _choices(self) -> Iterator[Choice]:
        for u, nodes in enumerate(self.units):
            end, last = nodes[-1].id, u == len(self.units) - 1
            fuses = tuple(n for n in range(1, MAX_STAGE_UNITS + 1) if self.stages[u, n])
            yield Choice("fuse", u, end, (0, *fuses))
            yield Choice("inner", u, end, tuple(range(len(self.stages[u, 1]))))
            top = max(self.needs.height(node) for node in nodes)
            yield Choice("rows", u, end, tuple(rows for rows in ROWS if rows < top))
            staged = any(u - n + 1 >= 0 and self.stages[u - n + 1, n] for n in range(1, MAX_STAGE_UNITS + 1))
            yield Choice(
                "tile",
                u,
                end,
                tuple(
                    t
                    for t in TILES
                    if t == 1
                    or staged
                    and any(self._tiled(node, (), t) != Stage(()) for node in (nodes if len(nodes) > 1 else nodes[-1:]))
                ),
            )
            yield Choice("wait", u, end, (0,) if last else (0, 1))
        for t, forms in self.forms.items():
            yield Choice("form", t, self.graph.consumers[t][0].id, tuple(range(len(forms))))
        for t, codes in self.codes.items():
            yield Choice("code", t, self.graph.producer[t].id, tuple(range(len(codes))))


def _codes(graph: Graph, layouts: Mapping[str, Sequence[SlotLayout]]) -> dict[int, tuple[SlotLayout | None, ...]]:
    """Per tensor that may wait in slots: as it is, and the layouts that take less than it does."""
    found = {}
    for tensor in graph.tensors:
        fitting = [
            layout
            for layout in layouts.get(tensor.name, ())
            if takes_codes(graph, tensor.id, layout)
            and layout.stored_bytes(tensor.shape[1:]) < WORTHWHILE * tensor.size_bytes
        ]
        if fitting:
            found[tensor.id] = (None, *fitting)
    return found


def _forms(graph: Graph, chip: Chip) -> dict[int, list[Candidate]]:
    """Per constant that may be coded the plain form and the codings of which none is worse than another in bytes,
    cycles and energy."""
    candidates = Candidates(graph, chip)
    return {t: candidates.worthwhile(t, SLOWER) for t in candidates.readers}
