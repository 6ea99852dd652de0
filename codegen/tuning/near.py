"""Where the cost model leads from the best trials: decisions changed step by step, each step from those expected to be
best, before one of them is a trial.

TVM's evolutionary search begins every batch with schedules drawn anew. Where few draws are within the budgets it finds
none and ends, though neighbours of what was measured are within them; and it leaves what is best a change or two away
to chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tvm_ergo.codegen.tuning.budget import Gate
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.codegen.tuning.model import Model
from tvm_ergo.codegen.tuning.rules import changed
from tvm_ergo.codegen.tuning.score import STEEP
from tvm_ergo.codegen.tuning.task import Task

STEPS, KEPT, FAR = 4, 64, 2.0
"""Steps before a batch, ways kept for the next one, and times the memory there is beyond which a way is not looked
at."""
PARENTS = 4
"""Ways whose neighbours are looked at in a step."""
SINGLE, DRAWN, LOOKED = 32, 192, 32
"""Of a step at most: neighbours of the best with one decision changed, neighbours of all parents with some, and new
ones among them that are looked at."""


class Near:
    """Proposes ways of one task. What it has looked at and has not proposed it keeps for the next batch, the best of
    it."""

    def __init__(self, task: Task, gate: Gate, model: Model, seed: int):
        self.task, self.gate, self.model, self.rng = task, gate, model, random.Random(seed)
        self._kept: list[str] = []

    def proposed(self, count: int, score: Callable) -> list[str]:
        """Keys of at most so many ways that are within the budgets and were not measured, best expected first. score :
        of a task and figures."""
        task = self.task
        measured = {key: score(task, f) * self._over(f) for key, f in task.records.items() if f is not None}
        expected = self._expected([key for key in self._kept if key not in task.records])
        for _ in range(STEPS):
            known = {**measured, **expected}
            parents = sorted(known, key=lambda key: (known[key], key))[:PARENTS]
            expected |= self._expected(self._new([task.ways[key] for key in parents], expected))
        ranked = sorted(expected, key=lambda key: (expected[key], key))
        self._kept, found = ranked[:KEPT], []
        for key in ranked:
            if len(found) == count:
                break
            if self.gate.passes(task, task.space.way(task.ways[key])):
                found.append(key)
        return found

    def _look(self, key: str) -> Looked:
        return self.task.bench.look(self.task.space.way(self.task.ways[key]))

    def _expected(self, keys: list[str]) -> dict[str, float]:
        """What the model expects, by key."""
        looked = [self._look(key) for key in keys]
        costs = self.model.predict(
            [(self.task, self.task.space.way(self.task.ways[key]), look) for key, look in zip(keys, looked)]
        )
        return {key: float(cost) * self._over(look) for key, cost, look in zip(keys, costs, looked)}

    def _over(self, found: Looked | Figures) -> float:
        """What has no room leads to what has, but counts as worse than it is."""
        return max(1.0, (found.live_bytes + found.constant_bytes) / max(1, self.gate.room(self.task))) ** STEEP

    def _new(self, parents: Sequence[tuple[int, ...]], known: dict[str, float]) -> list[str]:
        """Neighbours not met yet, of not too many steps."""
        found, room = {}, self.gate.room(self.task)
        for values in self._neighbours(parents):
            way = self.task.met(values)
            key = way.key
            if (
                key in self.task.records
                or key in known
                or key in found
                or self.task.bench.least_bytes(way) > FAR * room
            ):
                continue
            if self._look(key) is not None:
                found[key] = None
                if len(found) >= LOOKED:
                    break
        return list(found)

    def _neighbours(self, parents: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        choices = self.task.space.choices
        single = [
            (i, value) for i, choice in enumerate(choices) for value in choice.candidates if value != parents[0][i]
        ]
        for i, value in self.rng.sample(single, min(SINGLE, len(single))):
            yield (*parents[0][:i], value, *parents[0][i + 1 :])
        for _ in range(DRAWN):
            values = list(self.rng.choice(parents))
            for i, place in changed(
                [choices[i].candidates.index(v) for i, v in enumerate(values)], self.task, self.rng
            ):
                values[i] = choices[i].candidates[place]
            yield tuple(values)
