"""Runs a net over a test and gathers its metric. What runs the net is any callable from feeds to a list of outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def _ahead(work: Callable[[list], list], chunks: Iterator[list], threads: int) -> Iterator[tuple[list, list]]:
    """Chunks and what ``work`` makes of them, in their order; the threads are at most two chunks each ahead."""
    if threads == 1:
        yield from ((chunk, work(chunk)) for chunk in chunks)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ergo-eval") as pool:
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(work, chunk)))
                if len(waiting) >= 2 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:  # an error, or a caller that stops: what has not begun never does
            pool.shutdown(wait=True, cancel_futures=True)


def evaluate(
    test: Test,
    run: Run,
    *,
    limit: int | None = None,
    batch: int = 1,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Measures ``test`` with ``run``.

    Parameters: run(feeds) -> outputs, with a leading batch axis; limit: at most so many samples (None = all);
    batch: samples per call (1 unless ``run`` takes larger batches); threads: calls of ``run`` at a time, which must
    know nothing of each other then (samples reach the metric in their order); progress(done, total) is called after
    every batch.
    """
    metric, total = test.metric(), len(test.source.indices(limit))

    def work(chunk: list) -> list[list[np.ndarray]]:
        return _run_batch(run, [feed for feeds, _ in chunk for feed in feeds], batch > 1)

    for chunk, found in _ahead(work, _chunks(test.source.samples(limit), batch), threads):
        outputs = iter(found)
        for feeds, label in chunk:
            metric.update([next(outputs) for _ in feeds], label)
        if progress:
            progress(metric.count, total)
    return Outcome(test.name, metric.count, metric.result(), test.figures, metric.primary, metric.higher_is_better)
