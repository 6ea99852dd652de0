"""Layer-wise reconstruction: weights become few values or zeros, and what is left of a layer makes up for it on
calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.micro.cluster import Start, first_centroids, kmeans
from tvm_ergo.relay_passes.micro.feedback import Feedback, Levels, refit
from tvm_ergo.relay_passes.micro.input_moments import InputMoments, input_moments
from tvm_ergo.relay_passes.micro.lockstep import Inputs, Lockstep, NewLayer, bias_of
from tvm_ergo.relay_passes.micro.table_layers import rounded_rows
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, check_range, chosen
from tvm_ergo.relay_passes.micro.weights import WeightScale, channel_scales
from tvm_ergo.target.errors import ModelError

NATURAL_RATE = 0.1155
"""ln 2 / 6: what a bit is worth at fine steps, in units of step**2 times the price of an error (from D = step**2 / 12,
R = h - log2 step)."""
STEP_RANGE = 1e-30, 1e30
"""Of steps: beyond it their squares leave float64, or what they scale leaves float32."""
PASSES = 2
"""So often the cost of levels is learned from how often they were chosen."""


@dataclass(frozen=True)
class Target:
    """What the weights of a layer become; exactly one of bits, step and values is given, or none (then only zeros are
    chosen, and without a mask and a density the weights stay as they are).

    bits: 2 to 8, a grid of ``2**bits - 1`` levels about zero, a scale per output channel (max / largest level, or of
    least squared error). step: one grid of that step for the whole layer, -127 to 127 steps. values: a codebook of at
    most so many nonzero values for the whole layer. rate: what a bit of the entropy coded weights is worth, in units of
    step**2 times the price of an error (`NATURAL_RATE` is balanced; 0: nearest level). density: share of weights that
    stay, those whose loss costs most. mask: bool, of the layer's size: where False, weights become zero."""

    bits: int | None = None
    step: float | None = None
    values: int | None = None
    rate: float = 0.0
    density: float | None = None
    mask: np.ndarray | None = None

    @property
    def changes(self) -> bool:
        """Whether it asks for other weights at all."""
        return any(option is not None for option in (self.bits, self.step, self.values, self.density, self.mask))

    def of_table(self, name: str, table: np.ndarray) -> np.ndarray:
        """Rows [V, C] in so many bits; itself without. Errors: ModelError for what only layers can have."""
        if any(v is not None for v in (self.step, self.values, self.density, self.mask)):
            raise ModelError("a table of rows takes bits and nothing else", where=name, required="Target(bits=2 to 8)")
        if self.bits is None:
            return table
        check_range(name, self.bits, 2, 8, "a number of bits")
        return rounded_rows(table, self.bits)

    def check(self, layer: WeightLayer) -> None:
        """Errors: ModelError."""
        given = [option for option in (self.bits, self.step, self.values) if option is not None]
        if len(given) > 1 or (self.density is not None and self.mask is not None):
            raise ModelError(
                "a target says two things",
                where=layer.name,
                required="one of bits, step and values; one of density and mask",
            )
        for value, low, high, what in (
            (self.bits, 2, 8, "a number of bits"),
            (self.step, *STEP_RANGE, "a step"),
            (self.values, 1, 255, "a number of values"),
            (self.rate, 0, 1e6, "a rate"),
            (self.density, 0, 1, "a density"),
        ):
            if value is not None:
                check_range(layer.name, value, low, high, what)
        if self.mask is not None and np.size(self.mask) != layer.size:
            raise ModelError(
                "a mask does not fit its layer",
                where=layer.name,
                required=str(layer.weight.shape),
                available=str(np.shape(self.mask)),
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """Of one layer: the weights given and those to start from, float64 [G,R,K], and a solver for each part of K."""

    given: np.ndarray
    start: np.ndarray
    parts: list[slice]
    solvers: list[Feedback]


@tvm.transform.module_pass(opt_level=0, name="ergo.Reconstruct")
@dataclass(frozen=True)
class Reconstruct:
    """Layer after layer in order of execution: the weights that make the layer's output closest to the float net's,
    given what the layers before have become, then their levels and zeros with error feedback (`feedback`), then a bias
    that keeps the mean of each channel.

    calibration: see ``calibrate.samples_of``; samples: of them at most. target: a `Target`, or ``{layer: Target}``
    (other layers keep their weights); tables of rows (embeddings) take a `Target` of bits by the name of their
    ``take``. windows: input windows of a sample that count, at most. damping: of the Hessian, in shares of its mean
    diagonal, more where few windows were seen; also what draws the start towards the given weights. widest: inputs
    of a layer whose errors make up for each other at most (wider layers are taken apart, since time grows with the
    cube). asymmetric: whether errors of the layers before are made up for (Li et al., "GPTAQ", 2025). counted:
    which positions of a sample are looked at where layers read rows (`attention.masks.counted_positions`).

    Only weights and existing biases change. Transposed convolutions are not touched by this pass. Deterministic.
    Errors: CalibrationError; ModelError for unknown layers and targets that contradict themselves.
    """

    calibration: object
    target: Target | Mapping[str, Target]
    samples: int | None = 128
    windows: int = 64
    damping: float = 0.02
    widest: int = 2304
    asymmetric: bool = True
    counted: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    progress: Callable[[int, int], None] | None = None

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        samples = list(samples_of(mod, self.calibration, self.samples))
        walk, counted = Lockstep(mod, samples), self.positions(samples)
        wanted, tables = dict(self.target) if isinstance(self.target, Mapping) else self.target, {}
        for name in [n for n in walk.tables if isinstance(wanted, dict) and n in wanted]:
            tables[name] = wanted.pop(name).of_table(name, walk.tables[name])
        wanted = chosen(wanted, walk.layers)
        for name, target in wanted.items():
            target.check(walk.layers[name])
        done = []

        def make(layer: WeightLayer, inputs: Inputs) -> NewLayer | None:
            done.append(layer.name)
            if self.progress:
                self.progress(len(done), len(walk.layers))
            call = walk.view.value[layer.group.root]
            if layer.name not in wanted or call.op.name == "relax.nn.conv2d_transpose":
                return None
            bias = bias_of(walk.view, layer)
            moments = input_moments(call, layer, inputs, self.windows, bias is not None, counted)
            return self.layer(layer, bias, moments, wanted[layer.name])

        return walk.run(make, tables)

    def positions(self, samples) -> list[np.ndarray] | None:
        """Of each sample those that count."""
        return None if self.counted is None else [self.counted(sample) for sample in samples]

    def prepared(self, layer: WeightLayer, moments: InputMoments) -> Prepared:
        """What all targets of a layer have in common."""
        given = layer.rows.reshape(layer.groups, -1, layer.rows.shape[1]).astype(np.float64)
        size = given.shape[2]
        parts = [slice(b, min(b + self.widest, size)) for b in range(0, size, self.widest)]
        start = given.copy()
        for part in parts if self.asymmetric else ():
            start[:, :, part] = self._start(given[:, :, part], moments.part(part))
        return Prepared(given, start, parts, [self._solver(moments.part(p)) for p in parts])

    def layer(
        self,
        layer: WeightLayer,
        bias: np.ndarray | None,
        moments: InputMoments,
        target: Target,
        prepared: Prepared | None = None,
    ) -> NewLayer:
        """One layer, from the moments of what it reads (centred if it has a bias)."""
        ready = prepared or self.prepared(layer, moments)
        given, parts, solvers = ready.given, ready.parts, ready.solvers
        start = (ready.start if target.changes else given).copy()
        price = np.concatenate([s.price for s in solvers], axis=1)
        mask = None if target.mask is None else np.asarray(target.mask, bool).reshape(given.shape)
        if target.density is not None:
            mask = (
                np.concatenate(
                    [
                        s.run(start[:, :, p], np.ones(1), None, density=target.density)[0]
                        for p, s in zip(parts, solvers)
                    ],
                    axis=2,
                )
                != 0
            )
        if mask is not None:
            for part in parts:
                some = moments.part(part)
                start[:, :, part] = refit(start[:, :, part], some.own, mask[:, :, part], self._damping(some))
        scale, levels = grid_of(start, price, target)
        made = start if levels is None else start.copy()
        for again in range(PASSES if target.rate and levels is not None else 1):
            if levels is not None and target.rate:
                levels = with_cost(levels, scale, start if not again else made, price, target.rate)
            for part, solver in zip(parts, solvers) if levels is not None else ():
                made[:, :, part], _ = solver.run(
                    start[:, :, part], scale, levels, None if mask is None else mask[:, :, part]
                )
        if bias is not None:
            shift = np.einsum("grk,gk->gr", given, moments.mean_float) - np.einsum("grk,gk->gr", made, moments.mean_own)
            bias = bias + shift.reshape(-1)
        return NewLayer(made, bias)

    def _damping(self, moments: InputMoments) -> float:
        return self.damping * max(1.0, 2 * moments.own.shape[1] / moments.count)

    def _solver(self, moments: InputMoments) -> Feedback:
        return Feedback.of(moments.own, self._damping(moments))

    def _start(self, weight: np.ndarray, moments: InputMoments) -> np.ndarray:
        """The weights whose output on this net's inputs is closest to ``weight``'s on the float net's, drawn towards
        ``weight``."""
        size = weight.shape[2]
        level = np.maximum(self._damping(moments) * np.trace(moments.own, axis1=1, axis2=2) / size, 1e-12)[
            :, None, None
        ]
        wanted = weight @ moments.cross + level * weight
        return np.linalg.solve(moments.own + level * np.eye(size), wanted.transpose(0, 2, 1)).transpose(0, 2, 1)


def grid_of(weight: np.ndarray, price: np.ndarray, target: Target) -> tuple[np.ndarray, Levels | None]:
    """The scale [G,R] and levels of a target for weights [G,R,K], errors of which cost ``price`` [G,K]."""
    scale = np.ones(weight.shape[:2])
    if target.bits is not None:
        top = 2 ** (target.bits - 1) - 1
        peaks = channel_scales(
            weight.reshape(-1, weight.shape[2]), 0, WeightScale.MSE if top < 64 else WeightScale.MAX, top
        )
        return peaks.astype(np.float64).reshape(scale.shape), Levels(np.arange(-top, top + 1.0), np.zeros(2 * top + 1))
    if target.step is not None:
        top = int(min(127, max(1, np.ceil(np.abs(weight).max() / target.step))))
        return scale * np.float64(np.float32(target.step)), Levels(np.arange(-top, top + 1.0), np.zeros(2 * top + 1))
    if target.values is not None:
        return scale, codebook(weight, price, target.values, zero=target.density is not None or target.mask is not None)
    return scale, None


def codebook(weight: np.ndarray, price: np.ndarray, count: int, zero: bool) -> Levels:
    """Weighted k-means of the weights; with ``zero`` a level that is exactly zero besides."""
    flat, mass = weight.reshape(-1), np.broadcast_to(price[:, None], weight.shape).reshape(-1)
    order = np.argsort(flat, kind="stable")
    values, mass = flat[order], mass[order]
    centers = kmeans(values, mass, first_centroids(values, mass, count, Start.DENSITY, np.random.default_rng(0)), 50)
    centers = centers.astype(np.float32).astype(np.float64)
    centers = np.unique(np.append(centers, 0.0)) if zero else np.unique(centers)
    return Levels(centers, np.zeros(len(centers)))


def with_cost(levels: Levels, scale: np.ndarray, weight: np.ndarray, price: np.ndarray, rate: float) -> Levels:
    """The levels with the bits an entropy code would give them, were the weights rounded as ``weight``."""
    index = np.searchsorted((levels.values[1:] + levels.values[:-1]) / 2, weight / scale[:, :, None])
    counts = np.bincount(index.reshape(-1), minlength=len(levels.values)) + 0.5
    step = np.median(np.diff(levels.values)) if len(levels.values) > 1 else 1.0
    unit = np.mean(np.square(step * scale)[:, :, None] * price[:, None, :])
    return Levels(levels.values, np.log2(counts.sum() / counts), rate * float(unit))
