"""Which layer gets how many bits, zeros or values: the least error of the network for a given size.

Every layer is made in several ways, each alone in the float net. The error of its own output is known exactly from the
moments of its input; what that does to the net's outputs is measured on calibration data for some of the ways, and the
layer's sensitivity (their ratio) taken as the geometric mean: single measurements are too noisy to choose by. Errors of
layers are taken to add up (they do as long as they are small and not correlated), so the choice is a knapsack with one
way a layer, solved exactly: rate-distortion allocation in the manner of Shoham and Gersho (1988), with measured
sensitivities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import tvm
from ortools.sat.python import cp_model

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.micro.input_moments import InputMoments, input_moments
from tvm_ergo.relay_passes.micro.lockstep import Inputs, Lockstep, NewLayer, bias_of
from tvm_ergo.relay_passes.micro.quantize import output_error
from tvm_ergo.relay_passes.micro.reconstruct import STEP_RANGE, Reconstruct, Target
from tvm_ergo.relay_passes.micro.structured_scales import has_structure
from tvm_ergo.relay_passes.micro.table_layers import rounded_rows
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, with_weights
from tvm_ergo.relay_passes.micro.weight_sizes import estimated_bytes, row_bytes
from tvm_ergo.relay_passes.micro.weights import bias_position
from tvm_ergo.target.errors import CompressionError

STEPS = tuple(0.25 * 2 ** (k / 2) for k in range(9))
"""The default ways: one grid a layer, its step so many times the rms of the weights (entropy coded, 4.1 to 0.7 bits a
normal weight)."""
SOLVE_SECONDS = 20.0
SCALE = 10**9  # errors are integers for the solver, in units of the largest / SCALE


CHANNEL_BITS = (8, 6, 5, 4, 3)
"""The other default ways: a grid of so many bits a channel, its step from the channel's largest weight. Where channels
differ (batch norm folded into the layers of MobileNets) they lose less than one step for all: MobileNetV2 at an eighth
of float32, 400 images: top-1 89.0 with both to choose from, 87.2 with steps alone (float 90.0)."""
DEPTHWISE_BITS = (8, 7, 6, 5, 4, 3, 2)
"""The only ones of depthwise layers, whose channels differ by orders of magnitude."""


def ways_of(layer: WeightLayer) -> tuple[Target, ...]:
    """The default targets of one layer."""
    if layer.depthwise:
        return tuple(Target(bits=bits) for bits in DEPTHWISE_BITS)
    rms = float(np.sqrt(np.mean(np.square(layer.weight, dtype=np.float64)))) or 1.0
    steps = [step * rms for step in STEPS if STEP_RANGE[0] <= step * rms <= STEP_RANGE[1]]  # a layer of 1e-38 has none
    return (*(Target(step=step) for step in steps), *(Target(bits=bits) for bits in CHANNEL_BITS))


@dataclass(frozen=True)
class Way:
    """One form of a layer. bytes: estimated; error: of the net's outputs if this layer alone has it
    (`quantize.output_error`: its power relative to their variance, mean over samples), by the layer's sensitivity."""

    target: Target
    bytes: float
    error: float


@dataclass(frozen=True)
class AllocateOptions:
    """ways: the targets to choose from, of a layer. samples: calibration inputs the layers are made with; compared: of
    them, on how many the outputs' error is measured; probes: for how many ways of a layer (costs layers * probes *
    compared inferences). reconstruct: further options of `Reconstruct` by name."""

    ways: Callable[[WeightLayer], tuple[Target, ...]] = ways_of
    samples: int = 128
    compared: int = 16
    probes: int = 3
    reconstruct: Mapping[str, object] = field(default_factory=dict)

    def pass_for(self, calibration, targets) -> Reconstruct:
        return Reconstruct(calibration, targets, samples=self.samples, **self.reconstruct)


def measure(
    mod: tvm.IRModule,
    calibration,
    options: AllocateOptions = AllocateOptions(),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[Way, ...]]:
    """The ways of every layer of a float normal-form module, measured. Errors: CalibrationError."""
    samples = list(samples_of(mod, calibration, options.samples))
    some = samples[:: max(1, len(samples) // options.compared)][: options.compared]
    plain = Interpreter(mod)
    wanted = [plain.run(s) for s in some]
    walk = Lockstep(mod, samples)
    solver, found = options.pass_for(calibration, {}), {}
    counted = solver.positions(samples)

    def make(layer: WeightLayer, inputs: Inputs) -> None:
        call = walk.view.value[layer.group.root]
        if call.op.name == "relax.nn.conv2d_transpose":
            return
        bias = bias_of(walk.view, layer)
        moments = input_moments(call, layer, inputs, solver.windows, bias is not None, counted)
        ready = solver.prepared(layer, moments)
        made = [(target, solver.layer(layer, bias, moments, target, ready)) for target in _ways(options, layer)]
        errors = [layer_error(layer, moments, new) for _, new in made]
        probed = [i for i in spread(len(made), options.probes) if errors[i] > 0]
        outside = [_output_error(walk, layer, made[i][1], some, wanted) for i in probed]
        ratio = sensitivity([errors[i] for i in probed], outside)
        found[layer.name] = tuple(
            Way(target, estimated_bytes(replace(layer, weight=_float32(layer, new))), ratio * error)
            for (target, new), error in zip(made, errors)
        )
        if progress:
            progress(len(found), len(walk.layers))

    walk.run(make)
    for name, table in walk.tables.items():
        found[name] = _table_ways(walk, name, table, options, some, wanted)
    return found


TABLE_BITS = (8, 6, 5, 4, 3, 2)
"""The ways of a table of rows."""


def _table_ways(walk: Lockstep, name: str, table: np.ndarray, options, samples, wanted) -> tuple[Way, ...]:
    """A table's: rows count alike, as any number may be asked for."""
    made = [rounded_rows(table, bits) for bits in TABLE_BITS]
    errors = [float(np.mean(np.square(rows - table, dtype=np.float64))) for rows in made]
    probed = spread(len(made), options.probes)
    outside = [
        _error_of(with_weights(walk.mod, walk.layers, {}, {(name, 0): made[i]}), samples, wanted) for i in probed
    ]
    ratio = sensitivity([errors[i] for i in probed], outside)
    return tuple(
        Way(Target(bits=bits), row_bytes(rows), ratio * error) for bits, rows, error in zip(TABLE_BITS, made, errors)
    )


def _ways(options: AllocateOptions, layer: WeightLayer) -> tuple[Target, ...]:
    """A layer that has a structure already (imported so, or a shortcut of ones) may stay as it is."""
    return (*((Target(),) if has_structure(layer.weight) else ()), *options.ways(layer))


def spread(count: int, most: int) -> list[int]:
    """Numbers of at most ``most`` of ``count`` ways, evenly spaced, without the first and last where that is
    possible."""
    return sorted({int(i) for i in ((np.arange(min(count, most)) + 0.5) * count / max(min(count, most), 1))})


def sensitivity(inner: list[float], outer: list[float]) -> float:
    """Geometric mean of outer / inner, both positive ones only; 0 where the net's outputs do not depend on the
    layer."""
    ratios = [np.log(o / i) for i, o in zip(inner, outer) if 0 < i < np.inf and 0 < o < np.inf]
    return float(np.exp(np.mean(ratios))) if ratios else 0.0


def layer_error(layer: WeightLayer, moments: InputMoments, new: NewLayer) -> float:
    """Mean squared error of a layer's output, summed over channels."""
    change = (np.asarray(new.weight, np.float64).reshape(layer.weight.shape) - layer.weight).reshape(
        layer.groups, -1, layer.rows.shape[1]
    )
    return float(np.einsum("grk,grk->", change @ moments.own, change))


def _float32(layer: WeightLayer, new: NewLayer) -> np.ndarray:
    return np.asarray(new.weight, np.float32).reshape(layer.weight.shape)


def _output_error(walk: Lockstep, layer: WeightLayer, new: NewLayer, samples, wanted) -> float:
    """The error of the net's outputs if this layer alone is made so."""
    biases = {} if new.bias is None else {bias_position(walk.view, layer.group): np.asarray(new.bias, np.float32)}
    return _error_of(with_weights(walk.mod, walk.layers, {layer.name: new.weight}, biases), samples, wanted)


def _error_of(mod: tvm.IRModule, samples, wanted) -> float:
    run = Interpreter(mod)
    return float(np.mean([output_error(run.run(s), w) for s, w in zip(samples, wanted)]))


def choose(ways: Mapping[str, tuple[Way, ...]], size_bytes: float) -> dict[str, Way]:
    """One way a layer, together at most ``size_bytes``, with the least sum of errors (exact up to a billionth of the
    largest).

    Errors: CompressionError if even the smallest ways are larger.
    """
    least = sum(min(w.bytes for w in some) for some in ways.values())
    if least > size_bytes:
        raise CompressionError(
            "the weights cannot be made so small with these ways",
            required=f"{size_bytes:,.0f} bytes",
            available=f"{least:,.0f} bytes at least",
            remedy="coarser ways (AllocateOptions.ways), or a larger size",
        )
    known = [w.error for some in ways.values() for w in some if np.isfinite(w.error)]
    model, unit = cp_model.CpModel(), max(known, default=0.0) / SCALE or 1.0
    taken = {name: [model.new_bool_var("") for _ in some] for name, some in ways.items()}
    for variables in taken.values():
        model.add_exactly_one(variables)
    flat = [(v, w) for name, some in ways.items() for v, w in zip(taken[name], some)]
    model.add(sum(v * int(np.ceil(w.bytes)) for v, w in flat) <= int(size_bytes) + len(ways))
    # an error beyond float64 (weights of 1e19 and more) is worse than any that can be told
    model.minimize(sum(v * (round(w.error / unit) if np.isfinite(w.error) else 2 * SCALE) for v, w in flat))
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = (
        False  # else OR-tools leaves SIGINT at the system's default afterwards: Ctrl-C kills
    )
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers, solver.parameters.random_seed = (
        SOLVE_SECONDS,
        1,
        0,
    )
    solver.solve(model)
    return {name: some[[bool(solver.value(v)) for v in taken[name]].index(True)] for name, some in ways.items()}


@tvm.transform.module_pass(opt_level=0, name="ergo.Allocate")
@dataclass(frozen=True)
class Allocate:
    """The weights of a net in at most ``size_bytes`` (estimated: streams and what belongs to channels), with the least
    error of its outputs.

    Measures (`measure`), chooses (`choose`), and makes the layers so (`Reconstruct`). Deterministic as long as the
    choice is proven optimal. Expects the float normal form. Errors: CalibrationError, CompressionError."""

    calibration: object
    size_bytes: float
    options: AllocateOptions = AllocateOptions()

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        picked = choose(measure(mod, self.calibration, self.options), self.size_bytes)
        return self.options.pass_for(self.calibration, {name: way.target for name, way in picked.items()})(mod)


@dataclass(frozen=True)
class Allocated:
    """A net made smaller. figure: of it, as ``evaluate`` gave it; before: of the float net; tried: (bytes asked for,
    figure) of every attempt."""

    mod: tvm.IRModule
    ways: Mapping[str, Way]
    figure: float
    before: float
    tried: tuple[tuple[float, float], ...]


SMALLER = (0.96, 0.91, 0.85)
"""Shares of the smallest size that bisection found at which it is tried once more."""
ROUNDING = 1e-9
"""Of a difference of two figures: 88.1 - 87.6 is not quite 0.5 in float64."""


def smallest_within(
    mod: tvm.IRModule,
    calibration,
    evaluate: Callable[[tvm.IRModule], float],
    max_drop: float,
    options: AllocateOptions = AllocateOptions(),
    attempts: int = 6,
    ways: Mapping[str, tuple[Way, ...]] | None = None,
) -> Allocated:
    """The smallest net found whose figure (higher is better) is at most ``max_drop`` below the float one's.

    Bisects the size (geometrically) in so many attempts, each a `Reconstruct` and an evaluation; then, as figures are
    not monotone in the size, looks at some smaller ones. ways: from `measure`, if there. Errors: CalibrationError;
    CompressionError if not even the largest ways stay within the drop."""
    ways = measure(mod, calibration, options) if ways is None else ways
    before = evaluate(mod)
    low, high = (sum(f(w.bytes for w in some) for some in ways.values()) for f in (min, max))
    tried: list[tuple[float, float]] = []
    best: Allocated | None = None
    size = low * (high / low) ** 0.5

    def attempted(size: float) -> Allocated | None:
        picked = choose(ways, size)
        made = options.pass_for(calibration, {name: way.target for name, way in picked.items()})(mod)
        figure = evaluate(made)
        tried.append((size, figure))
        return Allocated(made, picked, figure, before, ()) if before - figure <= max_drop + ROUNDING else None

    for attempt in range(attempts + 1):
        if (found := attempted(size)) is not None:
            best, high = found, size
        else:
            low = size
        if attempt == attempts - 1 and best is None:
            size = high
        elif attempt >= attempts - 1:
            break
        else:
            size = (low * high) ** 0.5
    if best is None:
        raise CompressionError(
            "no way of these layers stays within the drop",
            required=f"{before - max_drop:g} at least",
            available=f"{tried[-1][1]:g}",
            remedy="finer ways (AllocateOptions.ways), or a larger drop",
        )
    smallest = sum(min(w.bytes for w in some) for some in ways.values())
    for share in SMALLER[: attempts // 2]:
        if share * high >= smallest and (found := attempted(share * high)) is not None:
            best = found
    return Allocated(best.mod, best.ways, best.figure, before, tuple(tried))
