"""Weight sharing: the nonzero weights of a layer become few distinct values, by k-means."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, check_range, chosen, weight_layers, with_weights
from tvm_ergo.target.errors import ModelError

MOST_VALUES = 256


class Start(enum.Enum):
    """First centroids (Han et al., "Deep Compression", ICLR 2016, section 3.2): evenly over the range of the weights
    (LINEAR, which they found best, since it gives the few large weights centroids of their own), evenly over their
    number (DENSITY), or some of the weights (RANDOM)."""

    LINEAR = "linear"
    DENSITY = "density"
    RANDOM = "random"


@tvm.transform.module_pass(opt_level=0, name="ergo.Cluster")
@dataclass(frozen=True)
class Cluster:
    """Gives each layer at most ``values`` distinct nonzero weights, each the (weighted) mean of those it stands for;
    zeros stay zero.

    values: 1 to 256, one number or ``{layer: number}`` (other layers are left alone). Layers with no more distinct
    values stay as they are. group: so many consecutive output channels share a codebook (0: all of the layer). start:
    see `Start`; seed: of RANDOM. iterations: at most so many rounds of k-means. importance: ``{layer: array}`` that
    broadcasts to the layer's rows [O, K], not negative: the squared error of a weight counts so much, as in
    Hessian-weighted clustering (Choi et al., "Towards the limit of network quantization", ICLR 2017); without it all
    count the same.

    Deterministic. Expects the float normal form. Errors: ModelError for unknown layers and numbers out of range.
    """

    values: int | Mapping[str, int] = 16
    group: int = 0
    start: Start = Start.LINEAR
    seed: int = 0
    iterations: int = 100
    importance: Mapping[str, np.ndarray] = field(default_factory=dict)

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        layers = weight_layers(mod)
        wanted = chosen(self.values, layers)
        chosen(self.importance, layers)
        if self.group < 0 or self.iterations < 1:
            raise ModelError(
                "an option of clustering is out of range",
                required="group >= 0, iterations >= 1",
                available=f"group {self.group}, iterations {self.iterations}",
            )
        for name, count in wanted.items():
            check_range(name, count, 1, MOST_VALUES, "a number of values")
        return with_weights(mod, layers, {name: self._shared(layers[name], count) for name, count in wanted.items()})

    def _shared(self, layer: WeightLayer, count: int) -> np.ndarray:
        rows, result = layer.rows, layer.rows.copy()
        importance = importance_of(self.importance, layer)
        size = self.group or len(rows)
        for begin in range(0, len(rows), size):
            part = slice(begin, begin + size)
            nonzero = rows[part] != 0
            some = rows[part][nonzero]
            result[part][nonzero] = shared_values(
                some,
                count,
                None if importance is None else importance[part][nonzero],
                self.start,
                self.iterations,
                self.seed,
            )
        return result


def importance_of(given: Mapping[str, np.ndarray], layer: WeightLayer) -> np.ndarray | None:
    """The importance of a layer's weights as [O, K]. Errors: ModelError if it does not broadcast, is negative or not
    finite."""
    if layer.name not in given:
        return None
    array = np.asarray(given[layer.name], np.float64)
    try:
        spread = np.broadcast_to(array, layer.rows.shape)
    except ValueError:
        raise ModelError(
            "importance does not fit the layer",
            where=layer.name,
            required=str(layer.rows.shape),
            available=str(array.shape),
        ) from None
    if not np.isfinite(array).all() or (array < 0).any():
        raise ModelError("importance is negative or not finite", where=layer.name)
    return spread


def shared_values(
    values: np.ndarray, count: int, importance: np.ndarray | None, start: Start, iterations: int, seed: int
) -> np.ndarray:
    """float32 [n]: each of ``values`` [n] replaced by its centroid, rounded to float32 and never zero."""
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= count:
        return values
    mass = np.bincount(index, weights=importance, minlength=len(distinct)).astype(np.float64)
    if not mass.any():
        mass = np.ones(len(distinct))
    centers = first_centroids(distinct, mass, count, start, np.random.default_rng(seed))
    centers = kmeans(distinct.astype(np.float64), mass, centers, iterations)
    short = centers.astype(np.float32)
    short = np.where(
        short == 0, np.float32(np.finfo(np.float32).tiny), short
    )  # a zero would be taken for a pruned weight
    return short[nearest(distinct, centers)][index]


def first_centroids(
    distinct: np.ndarray, mass: np.ndarray, count: int, start: Start, rng: np.random.Generator
) -> np.ndarray:
    """float64 [count], ascending, for ascending ``distinct`` values of that ``mass``."""
    if start is Start.LINEAR:
        return (
            np.linspace(distinct[0], distinct[-1], count, dtype=np.float64)
            if count > 1
            else np.array([distinct.mean(dtype=np.float64)])
        )
    if start is Start.DENSITY:
        share = (np.cumsum(mass) - mass / 2) / mass.sum()
        return np.interp((np.arange(count) + 0.5) / count, share, distinct.astype(np.float64))
    return np.sort(rng.choice(distinct, count, replace=False)).astype(np.float64)


def kmeans(values: np.ndarray, mass: np.ndarray, centers: np.ndarray, iterations: int) -> np.ndarray:
    """Lloyd's iteration on the line, to the fixed point or ``iterations`` rounds. ``values`` [n] and ``centers``
    ascend.

    A centroid that nothing is nearest to stays where it is. Sums are prefix sums, so a round costs O(centers log n).
    """
    total, moment = (np.concatenate([[0.0], np.cumsum(x)]) for x in (mass, mass * values))
    for _ in range(iterations):
        bounds = np.concatenate(
            [[0], np.searchsorted(values, (centers[1:] + centers[:-1]) / 2, side="right"), [len(values)]]
        )
        weight = np.diff(total[bounds])
        moved = np.where(weight > 0, np.diff(moment[bounds]) / np.where(weight > 0, weight, 1), centers)
        moved = np.sort(moved)
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers


def nearest(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest of ascending ``centers`` for each value; halfway, the lower one."""
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, values.astype(np.float64), side="left")
