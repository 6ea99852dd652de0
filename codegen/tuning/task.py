"""Tasks: the different parts of a network, each with its decisions, its bench and the schedules the search starts
from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.measure import Bench
from tvm_ergo.codegen.tuning.parts import Part
from tvm_ergo.codegen.tuning.space import Space, Way
from tvm_ergo.codegen.tuning.workload import decided, digest, prim_func, schedule_fn
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs.slots import SlotLayout


@dataclass(eq=False)
class Task:
    """One subproblem. parts : where it occurs, ``(chip function, part)``. seeds : decisions to measure first, those of
    the given plan in front. beside_bytes : the fewest constants that all else has in any of the plans the search starts
    from, None where that is not known. given : whether it is a part of the first of them.

    ways : decisions met so far, one set for each way by its key. records : figures by the way's key, None for what
    could not be carried out."""

    digest: str
    space: Space
    bench: Bench
    parts: list[tuple[str, Part]] = field(default_factory=list)
    seeds: list[tuple[int, ...]] = field(default_factory=list)
    ways: dict[str, tuple[int, ...]] = field(default_factory=dict)
    records: dict[str, Figures | None] = field(default_factory=dict)
    beside_bytes: int | None = None
    given: bool = True
    share: tuple[float, float] = (1.0, 1.0)
    """See `score.Share`."""

    @property
    def weight(self) -> int:
        """How often it occurs."""
        return len(self.parts)

    @cached_property
    def module(self) -> tvm.IRModule:
        """The task as TIR."""
        return tvm.IRModule({"main": prim_func(self.space)})

    @cached_property
    def free(self) -> Trace:
        """A trace of all decisions, made somehow."""
        sch = Schedule(self.module, seed=1, debug_mask="none", error_render_level="fast")
        schedule_fn(self.space, *self.seeds)(sch)
        return sch.trace

    def trace(self, values: Sequence[int]) -> Trace:
        """The trace that decides so."""
        return decided(self.free, self.space, values)

    def met(self, values: Sequence[int]) -> Way:
        """The way of these decisions, kept under its key."""
        way = self.space.way(values)
        self.ways.setdefault(way.key, tuple(values))
        return way

    @cached_property
    def first_constant_bytes(self) -> int:
        """Of the plan the search starts from."""
        return self.bench.look(self.space.way(self.seeds[0])).constant_bytes

    @property
    def default(self) -> Figures:
        """Of the plan the search started from."""
        return self.records[self.space.way(self.seeds[0]).key]


def tasks_of(
    parts: Sequence[tuple[str, Part]],
    chip: Chip,
    options: Options = Options(),
    forms: bool = True,
    layouts: Mapping[str, Mapping[str, Sequence[SlotLayout]]] = MappingProxyType({}),
    gating: bool = False,
) -> list[Task]:
    """The different tasks among the parts, in order of first appearance. forms, layouts : see `Space`; layouts by chip
    function. gating : see `Bench`."""
    found: dict[str, Task] = {}
    for function, part in parts:
        space = Space(part.graph, chip, options, forms, layouts.get(function, {}))
        name = digest(space)
        if name not in found:
            found[name] = Task(name, space, Bench(part.graph, space, chip, options, gating))
        task = found[name]
        task.parts.append((function, part))
        values = seed_of(space, part)
        if values is not None and values not in task.seeds:
            task.seeds.append(values)
        plain = tuple(choice.candidates[0] for choice in space.choices)
        if not task.seeds:
            task.seeds.append(plain)
    return list(found.values())


def seed_of(space: Space, part: Part) -> tuple[int, ...] | None:
    """The decisions that carry a part out as its plan does; None where none do."""
    values = space.values(
        part.bands, part.stages, part.barriers, {t: part.graph.tensors[t].coding for t in space.forms}
    )
    return None if values is None else tuple(values)
