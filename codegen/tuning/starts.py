"""Several plans to start from: the tasks of all of them, and what each says of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm_ergo.codegen.tuning.network import Function
from tvm_ergo.codegen.tuning.parts import part_of
from tvm_ergo.codegen.tuning.task import Task, seed_of, tasks_of
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs.slots import SlotLayout

Start = Sequence[Function]
"""A plan of each chip function. All starts are of the same graphs but for how constants stand in memory."""


def tasks_of_starts(
    starts: Sequence[Start],
    chip: Chip,
    forms: bool = True,
    layouts: Mapping[str, Mapping[str, Sequence[SlotLayout]]] = MappingProxyType({}),
    gating: bool = False,
) -> list[Task]:
    """The tasks of the first start, with seeds from every other; where another cannot be told within the first one's
    cuts, its own parts are tasks as well, those not there yet."""
    asked = {"forms": forms, "layouts": layouts, "gating": gating}
    found = tasks_of(_parts(starts[0]), chip, **asked)
    for start in starts[1:]:
        told = [_seeded(task, start) for task in found if task.given]
        if not all(told):
            places = {_place(name, part) for task in found for name, part in task.parts}
            new = tasks_of(
                [(name, part) for name, part in _parts(start) if _place(name, part) not in places], chip, **asked
            )
            known = {task.digest: task for task in found}
            for task in new:
                task.given = False
                if task.digest in known and not known[task.digest].given:
                    known[task.digest].parts += task.parts
                elif task.digest not in known:
                    found.append(task)
    for task in found:
        for start in starts:
            _seeded(task, start)
            _beside(task, start)
    return found


def _parts(start: Start) -> list[tuple[str, object]]:
    return [(function.name, part) for function in start for part in function.parts]


def _place(name: str, part) -> tuple[str, int, int]:
    return name, part.first, part.last


def _told(task: Task, start: Start) -> list[tuple[int, ...] | None]:
    """The decisions with which a start carries out each occurrence of a task; None where there are none."""
    plans = {function.name: function.plan for function in start}
    parts = [part_of(plans[name], part.first, part.last) for name, part in task.parts]
    return [None if part is None else seed_of(task.space, part) for part in parts]


def _seeded(task: Task, start: Start) -> bool:
    """Gives the task the start's decisions as seeds; whether it has any for every occurrence."""
    told = _told(task, start)
    task.seeds += [values for values in dict.fromkeys(told) if values is not None and values not in task.seeds]
    return None not in told


def _beside(task: Task, start: Start) -> None:
    """Learns how few constant bytes a start has beside the task."""
    total = sum(function.plan.constant_bytes for function in start)
    for values in _told(task, start):
        looked = None if values is None else task.bench.look(task.space.way(values))
        if looked is not None:
            beside = max(0, total - looked.constant_bytes)
            task.beside_bytes = beside if task.beside_bytes is None else min(beside, task.beside_bytes)
