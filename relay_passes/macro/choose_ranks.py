"""How many coordinates each tensor keeps: statistics from calibration, and rate control against the error of the
outputs.

Rate control (`RankOptions.error`): one trial per site measures what a unit of energy lost there does to the outputs.
With a multiplier mu every site then takes the rank k with the least ``bytes(k) + mu * sensitivity * lost(k)`` (losses
taken as additive, no projection among the choices), and mu is bisected until the error measured is just within the
bound. Errors are measured on every fourth calibration sample, moments taken from the others: with few pixels (pooled
tensors, one a sample) a projection fits what it has seen and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro.channel_sites import Site, Unprojectable, find_sites, plain_weight
from tvm_ergo.relay_passes.macro.low_rank import Basis, Spectrum, balanced, gram_of, spectrum
from tvm_ergo.relay_passes.macro.project_channels import ProjectChannels
from tvm_ergo.relay_passes.micro.calibrate import observe, samples_of
from tvm_ergo.relay_passes.relax_utils import main_of, op_name, shape_of
from tvm_ergo.relay_passes.support import FunctionView, Group
from tvm_ergo.target.errors import ModelError

ROWS_PER_RUN = 2048  # pixels of one tensor and sample that enter the moments, spread evenly
ROWS_KEPT = 64  # of these, per sample, kept for the choice of coordinates
PIXELS_PER_CHANNEL = 4  # seen in calibration at least, below which moments say too little
HELD_OUT = 4  # one sample in so many measures errors and does not enter the moments
TRIAL_SAMPLES = 8
STEPS = 9  # of the bisection


@dataclass(frozen=True)
class RankOptions:
    """error: bound on the rms error of the outputs, relative to their deviation, measured on held-out calibration
    samples (rate control); or share: energy kept by every tensor; or ranks: coordinates by site name.

    weighted: weigh channels by what their readers do with them (else plain principal components). insert: also project
    where a convolution has to be added. mac_limit: multiplications of a site's layers, insertion included, against
    those before, at most. samples: calibration inputs used at most."""

    error: float | None = 0.05
    share: float | None = None
    ranks: Mapping[str, int] | None = None
    weighted: bool = True
    insert: bool = True
    mac_limit: float = 1.0
    samples: int = 64

    def __post_init__(self):
        for given in (self.error, self.share):
            if not isinstance(given, (int, float, type(None))):
                raise ModelError(
                    "the error that projection may cause is a number",
                    required="for instance 0.05",
                    available=repr(given)[:80],
                )
        if self.error is not None and not self.error > 0 or self.share is not None and not 0 < self.share <= 1:
            raise ModelError(
                "channels cannot be projected so",
                required="an error above 0, or a share of energy in (0, 1]",
                available=f"error={self.error}, share={self.share}",
            )


@dataclass(frozen=True)
class ProjectedTensors:
    """What became of one site. Bytes are those of its tensors in int8, multiplications those of its writers, readers
    and insertions."""

    tensors: tuple[str, ...]
    channels: int
    rank: int
    lost: float
    inserted: int
    bytes_before: int
    bytes_after: int
    macs_before: int
    macs_after: int


@dataclass(frozen=True)
class Projection:
    """Result of `project`. error: rms error of the outputs relative to their deviation, measured on ``samples``
    held-out calibration inputs; bound: what it was to stay within (None: ranks or share were given). It holds for these
    samples; others may exceed it."""

    mod: tvm.IRModule
    tensors: tuple[ProjectedTensors, ...]
    refused: tuple[Unprojectable, ...]
    error: float
    bound: float | None
    samples: int

    def __str__(self) -> str:
        if not self.tensors:
            within = f" within {100 * self.bound:g} % of the outputs' deviation" if self.bound is not None else ""
            return (
                f"no channels projected, nothing gained: no set of tensors can be kept in fewer channels{within}; the "
                f"network is as without it"
            )
        before, after = (sum(getattr(t, f"bytes_{w}") for t in self.tensors) for w in ("before", "after"))
        return (
            f"{len(self.tensors)} sets of tensors projected: {before:,} bytes waiting become {after:,}; error of the "
            f"outputs "
            f"{100 * self.error:.2f} % of their deviation on {self.samples} held-out calibration samples"
        )


def macs_of(view: FunctionView, group: Group) -> int:
    """Multiplications of an ungrouped linear layer."""
    call = view.value[group.root]
    weight = plain_weight(call)
    return math.prod(shape_of(group.root)[:-1]) * weight.size


@dataclass(frozen=True)
class Measured:
    """A site with its statistics. rows [n,C]: samples of what is read; weights: of the readers, [O,taps,C].

    pixels: of all tensors together; inserted_pixels: of those that need a convolution; macs: of writers that absorb,
    and readers."""

    site: Site
    spectrum: Spectrum
    rows: np.ndarray
    weights: list[np.ndarray]
    pixels: int
    inserted_pixels: int
    macs: int

    @property
    def channels(self) -> int:
        return self.site.channels

    def macs_at(self, rank: int) -> float:
        return rank * (self.macs / self.channels + self.inserted_pixels * self.channels)

    def limit(self, mac_limit: float) -> int:
        """The largest rank below C whose multiplications are within ``mac_limit``; 0 where there is none."""
        return min(self.channels - 1, int(mac_limit * self.macs / self.macs_at(1)))

    def basis(self, rank: int) -> Basis:
        return balanced(self.spectrum.basis(rank), self.rows, self.weights)

    def report(self, rank: int) -> ProjectedTensors:
        return ProjectedTensors(
            tuple(v.name for v in self.site.tensors),
            self.channels,
            rank,
            float(self.spectrum.lost[rank]),
            len(self.site.inserted),
            self.pixels * self.channels,
            self.pixels * rank,
            self.macs,
            round(self.macs_at(rank)),
        )


class _Moments:
    """Second moments and some rows of the tensors named, while the net runs. seen: pixels by tensor."""

    def __init__(self, names: set[str]):
        self.names, self.runs = names, dict.fromkeys(names, 0)
        self.seen = dict.fromkeys(names, 0)
        self.sums: dict[str, np.ndarray] = {}
        self.rows: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def __call__(self, name: str, value: np.ndarray) -> None:
        if name not in self.names:
            return
        rows = value.reshape(-1, value.shape[-1])
        step = -(-len(rows) // ROWS_PER_RUN) | 1  # odd: walks through all columns of an image of even width
        some = rows[self.runs[name] % step :: step].astype(np.float64)
        self.runs[name] += 1
        self.seen[name] += len(some)
        self.sums[name] = self.sums.get(name, 0) + some.T @ some / len(some)
        self.rows[name].append(some[:: max(1, len(some) // ROWS_KEPT)])


def measure_sites(mod: tvm.IRModule, data, options: RankOptions) -> tuple[list[Measured], tuple[Unprojectable, ...]]:
    """Every site of ``mod`` with its statistics over ``data`` (an iterable of samples), and what is none, with
    reasons."""
    view = FunctionView(main_of(mod))
    sites, refused = find_sites(main_of(mod))
    moments = _Moments({name for s in sites for name in _read_by(view, s)})
    observe(mod, data, tensors=set(), watch=moments)
    kept = []
    for site in sites:
        pixels = min(moments.seen[name] for name in _read_by(view, site))
        if pixels < PIXELS_PER_CHANNEL * site.channels:
            reason = (
                f"calibration saw {pixels} pixels of {site.channels} channels, fewer than {PIXELS_PER_CHANNEL} a "
                f"channel"
            )
        elif site.inserted and not options.insert:
            reason = "a convolution would have to be inserted"
        else:
            kept.append(_measured(view, site, moments, options.weighted))
            continue
        refused += (Unprojectable(tuple(v.name for v in site.tensors), reason),)
    return kept, refused


def _read_by(view: FunctionView, site: Site) -> list[str]:
    """Names of the tensors that the site's readers read."""
    return [view.value[g.root].args[0].name for g in site.readers]


def _measured(view: FunctionView, site: Site, moments: _Moments, weighted: bool) -> Measured:
    second, gram, rows, weights = 0, 0, [], []
    for group in site.readers:
        call = view.value[group.root]
        name = call.args[0].name
        weight = plain_weight(call).astype(np.float64)
        weight = (
            weight.T[:, None] if op_name(call) == "relax.matmul" else weight.reshape(len(weight), -1, weight.shape[-1])
        )
        moment, one = moments.sums[name], gram_of(weight)
        gram = gram + one / max(float(np.sum(one * moment)), 1e-300)  # every reader's outputs count the same
        second = second + moment / max(float(np.trace(moment)), 1e-300)
        rows.append(np.concatenate(moments.rows[name]))
        weights.append(weight)
    pixels = [math.prod(shape_of(v)[:-1]) for v in site.tensors]
    inserted = sum(math.prod(shape_of(v)[:-1]) for v in site.inserted)
    macs = sum(macs_of(view, g) for g in (*site.absorbing, *site.readers))
    return Measured(
        site, spectrum(second, gram if weighted else None), np.concatenate(rows), weights, sum(pixels), inserted, macs
    )


def output_error(results: list[list[np.ndarray]], wanted: list[list[np.ndarray]]) -> float:
    """Rms error of the outputs relative to their deviation over the samples, the worst output's."""
    worst = 0.0
    for got, want in zip(zip(*results), zip(*wanted)):
        got, want = (np.stack([np.asarray(a, np.float64) for a in side]) for side in (got, want))
        worst = max(worst, math.sqrt(np.mean((got - want) ** 2) / max(float(want.var()), 1e-30)))
    return worst


def project(
    mod: tvm.IRModule,
    calibration,
    options: RankOptions = RankOptions(),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Projection:
    """A float normal-form module whose tensors between layers are projected where that saves bytes, with what it cost.

    Parameters: calibration, see ``micro.calibrate.samples_of``; progress(done, total), per trial.
    Errors: CalibrationError; ModelError for ranks of tensors that are no sites.
    """
    data = list(samples_of(mod, calibration, options.samples))
    held_out = data[::HELD_OUT]
    sites, refused = measure_sites(mod, [d for i, d in enumerate(data) if i % HELD_OUT] or data, options)
    chooser = _Chooser(mod, sites, held_out, options, progress)
    ranks, bound = chooser.given(), None
    if ranks is None:
        ranks, bound = chooser.controlled(), options.error
    made = chooser.module(ranks)
    error = chooser.error(made) if ranks else 0.0
    return Projection(
        made,
        tuple(m.report(ranks[m.site.name]) for m in sites if m.site.name in ranks),
        refused,
        error,
        bound,
        len(held_out),
    )


def _run_all(mod: tvm.IRModule, data) -> list[list[np.ndarray]]:
    interpreter = Interpreter(mod)
    return [interpreter.run(sample) for sample in data]


class _Chooser:
    """Ranks by site name. Sites that are left out keep their channels."""

    def __init__(self, mod, sites: list[Measured], data, options: RankOptions, progress):
        self.mod, self.data, self.options = mod, data, options
        self.outputs = _run_all(mod, data)
        self.sites = {m.site.name: m for m in sites}
        self.limits = {name: m.limit(options.mac_limit) for name, m in self.sites.items()}
        self.bases: dict[tuple[str, int], Basis] = {}
        self.progress, self.done = progress, 0

    def basis(self, name: str, rank: int) -> Basis:
        if (name, rank) not in self.bases:
            self.bases[name, rank] = self.sites[name].basis(rank)
        return self.bases[name, rank]

    def module(self, ranks: Mapping[str, int]) -> tvm.IRModule:
        return (
            ProjectChannels({name: self.basis(name, rank) for name, rank in ranks.items()})(self.mod)
            if ranks
            else self.mod
        )

    def error(self, mod: tvm.IRModule, samples: int | None = None) -> float:
        """Over the first ``samples``, or all."""
        found = output_error(_run_all(mod, self.data[:samples]), self.outputs[:samples])
        self.done += 1
        if self.progress:
            self.progress(min(self.done, self.trials), self.trials)
        return found

    @property
    def trials(self) -> int:
        return len(self.sites) + STEPS + 1

    def given(self) -> dict[str, int] | None:
        """Ranks that the options name, or that keep their share of energy within the limit of multiplications; None for
        rate control."""
        if self.options.ranks is not None:
            for name, rank in self.options.ranks.items():
                if name not in self.sites or not 1 <= rank <= self.sites[name].channels:
                    raise ModelError(
                        f"{name} cannot be projected to {rank} channels",
                        required="a site and 1 to C channels",
                        available=", ".join(f"{n} ({m.channels})" for n, m in self.sites.items()) or "no site",
                    )
            return dict(self.options.ranks)
        if self.options.share is None:
            return None
        ranks = {name: m.spectrum.rank_for(self.options.share) for name, m in self.sites.items()}
        return {name: rank for name, rank in ranks.items() if rank <= self.limits[name]}

    def controlled(self) -> dict[str, int]:
        """The fewest bytes found whose measured error is within the bound; nothing projected where even the finest
        choice is not."""
        sensitivity = {name: self._sensitivity(name) for name, limit in self.limits.items() if limit > 0}
        best: dict[str, int] = {}
        low, high = -10.0, 40.0  # log2 of the multiplier, bytes per unit of squared error
        for _ in range(STEPS):
            middle = (low + high) / 2
            ranks = {
                name: rank for name, s in sensitivity.items() if (rank := self._least(name, s, 2.0**middle)) is not None
            }
            if not ranks or self.error(self.module(ranks)) <= self.options.error:
                best, high = ranks, middle
            else:
                low = middle
        return best

    def _sensitivity(self, name: str) -> float:
        """Squared error of the outputs per share of energy lost at this site, tried with a loss about as large as the
        bound allows."""
        site = self.sites[name]
        rank = min(site.spectrum.rank_for(1 - min(self.options.error, 1.0) ** 2 / 2), self.limits[name])
        return self.error(self.module({name: rank}), TRIAL_SAMPLES) ** 2 / max(float(site.spectrum.lost[rank]), 1e-12)

    def _least(self, name: str, sensitivity: float, multiplier: float) -> int | None:
        """The rank of least cost; None where the tensor had better stay as it is."""
        site, limit = self.sites[name], self.limits[name]
        cost = site.pixels * np.arange(1, limit + 1) + multiplier * sensitivity * site.spectrum.lost[1 : limit + 1]
        rank = int(np.argmin(cost)) + 1
        return rank if cost[rank - 1] < site.pixels * site.channels else None
