"""Runs a net over a test and gathers its metric. What runs the net is any callable from feeds to a list of outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tvm_ergo.evaluation.tasks import Test

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Outcome:
    """Figures of one test over ``samples`` samples; ``reference`` are the manifest's float figures (over all
    samples)."""

    test: str
    samples: int
    figures: dict[str, float]
    reference: dict[str, float]
    primary: str
    higher_is_better: bool

    @property
    def loss(self) -> float | None:
        """How much worse than the reference (positive = worse), in the primary figure's unit; None without a
        reference."""
        if self.primary not in self.reference:
            return None
        drop = self.reference[self.primary] - self.figures[self.primary]
        return drop if self.higher_is_better else -drop


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _run_batch(run: Run, feeds: list[dict[str, np.ndarray]], batched: bool) -> list[list[np.ndarray]]:
    """Runs all feeds as one batch along axis 0 (or one by one: a sentence pair is two runs), and hands the outputs back
    per feed."""
    if not batched or len(feeds) == 1:
        return [list(run(f)) for f in feeds]
    outputs = run({name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]})
    return [[np.asarray(o)[i : i + 1] for o in outputs] for i in range(len(feeds))]


def evaluate(
    test: Test,
    run: Run,
    *,
    limit: int | None = None,
    batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Measures ``test`` with ``run``.

    Parameters: run(feeds) -> outputs, with a leading batch axis; limit: at most so many samples (None = all);
    batch: samples per call (1 unless ``run`` takes larger batches); progress(done, total) is called after every batch.
    """
    metric, total = test.metric(), len(test.source.indices(limit))
    for chunk in _chunks(test.source.samples(limit), batch):
        outputs = iter(_run_batch(run, [feed for feeds, _ in chunk for feed in feeds], batch > 1))
        for feeds, label in chunk:
            metric.update([next(outputs) for _ in feeds], label)
        if progress:
            progress(metric.count, total)
    return Outcome(test.name, metric.count, metric.result(), test.figures, metric.primary, metric.higher_is_better)
