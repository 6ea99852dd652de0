"""The cost model: XGBoost on the machine's own counts of what a schedule does, asked for what the counts alone do not
tell.

A way's counts give an estimate at once: the sum of its instructions' cycles and energies. What is measured differs from
it by how engines overlap, what waits for what, what is moved or found in place. The trees learn the logarithm of
measured over estimated, from all tasks together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.cost_model import PyCostModel

from tvm_ergo.codegen.tuning.counts import Counts
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.codegen.tuning.score import Score
from tvm_ergo.codegen.tuning.space import Way
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.codegen.tuning.workload import way_of

FEWEST = 8
"""Measured schedules from which on trees are grown."""
ROUNDS, DEPTH, RATE = 60, 4, 0.15
PRESSURE = 4.0
"""Exponent of the scores that the search draws parents by."""


def features(task: Task, way: Way, looked: Looked, base: Counts) -> np.ndarray:
    """float32: logarithms of all counts, of the busy cycles relative to the task's first schedule, and sizes."""
    counts = looked.counts
    busy = counts.busy_cycles
    total = max(1.0, busy.sum())
    sizes = [
        looked.live_bytes,
        looked.constant_bytes,
        counts.steps,
        counts.shifts,
        len(way.bands),
        len(way.stages),
        len(way.barriers),
        len(task.space.graph.nodes),
    ]
    relative = np.log((busy + 1) / (base.busy_cycles + 1))
    return np.concatenate(
        [
            np.log1p(counts.totals),
            relative,
            busy / total,
            np.log1p(sizes),
            [busy.max() / total, np.log(total / max(1, counts.steps + counts.shifts))],
        ]
    ).astype(np.float32)


class Model:
    """What has been measured, and the trees grown from it. score : see `Score`."""

    def __init__(self, score: Score, seed: int, trees: bool = True):
        self.score, self.seed, self.trees = score, seed, trees
        self.rows: list[np.ndarray] = []
        self.targets: list[float] = []
        self._booster = None

    @property
    def grown(self) -> bool:
        """Whether there are trees."""
        return self._booster is not None

    def learn(self, task: Task, way: Way, looked: Looked, measured: float) -> None:
        """Adds one measured way."""
        self.rows.append(self._features(task, way, looked))
        self.targets.append(math.log(max(measured, 1e-30) / self.score.estimated(looked, task.share)))

    def grow(self) -> None:
        """Grows the trees anew from all there is."""
        if not self.trees or len(self.rows) < FEWEST:
            return
        import xgboost

        parameters = {
            "max_depth": DEPTH,
            "eta": RATE,
            "nthread": 1,
            "seed": self.seed,
            "verbosity": 0,
            "objective": "reg:squarederror",
        }
        self._booster = xgboost.train(
            parameters, xgboost.DMatrix(np.stack(self.rows), label=self.targets, nthread=1), ROUNDS
        )

    def predict(self, items: list[tuple[Task, Way, Looked]]) -> np.ndarray:
        """float64[n]: the score each is expected to have."""
        estimates = np.array([self.score.estimated(looked, task.share) for task, _, looked in items])
        if self._booster is None or not items:
            return estimates
        import xgboost

        rows = np.stack([self._features(*item) for item in items])
        return estimates * np.exp(self._booster.predict(xgboost.DMatrix(rows, nthread=1)).astype(np.float64))

    def _features(self, task: Task, way: Way, looked: Looked) -> np.ndarray:
        return features(task, way, looked, task.bench.look(task.space.way(task.seeds[0])).counts)


def tvm_model(model: Model, tasks: Mapping[str, Task]):
    """The model as TVM's search asks it: of each candidate a score that is larger for better ones."""

    @derived_object
    class CountsModel(PyCostModel):
        def load(self, path: str) -> None:
            """It is learned anew from the log."""

        def save(self, path: str) -> None:
            """See load."""

        def update(self, context, candidates, results) -> None:
            """Learning is done where results are taken in (`search`)."""

        def predict(self, context, candidates) -> np.ndarray:
            task = tasks[str(context.task_name)]
            return scores(model, task, [way_of(c.sch.trace, task.space) for c in candidates])

    return CountsModel()


def scores(model: Model, task: Task, ways: list[Way]) -> np.ndarray:
    """Of ways: how many times better than the first schedule each is expected to be, sharpened; 0 for ways of too many
    steps."""
    looked = [task.bench.look(way) for way in ways]
    known = [i for i, found in enumerate(looked) if found is not None]
    base = model.score.measured(task.default, task.share)
    found = np.zeros(len(ways))
    if known:
        found[known] = np.clip(base / model.predict([(task, ways[i], looked[i]) for i in known]), 1e-6, 1e6) ** PRESSURE
    return found


def rank_correlation(predicted: list[float], measured: list[float]) -> float | None:
    """Spearman's: how well the order of one is that of the other, -1 to 1; None for fewer than three, or where all are
    equal."""
    if len(predicted) < 3 or len(set(predicted)) < 2 or len(set(measured)) < 2:
        return None
    ranks = [_ranks(np.asarray(values)) for values in (predicted, measured)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


Predict = Callable[[list[tuple[Task, Way, Looked]]], np.ndarray]
