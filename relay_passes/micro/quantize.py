"""Post-training quantization of a float net: the flat list of steps behind ``tvm_ergo.compile(model,
calibration=...)``.

0. On demand (``project_channels``) the net is projected to fewer channels where it can be (``macro.choose_ranks``).
1. Values that cannot matter are clipped (``saturate``: masks before softmax). Calibration run: ranges, channel peaks
and powers, mean input windows, some whole windows (``calibrate``, ``WindowMeans``,
   ``WindowMoments``). Outputs use min-max: a clipped logit ties with the best one.
2. Equalization of channel sets whose expected rounding noise falls by it (``equalize``) and a second run on the result.
It is kept where
   its quantized outputs are closer to the float ones on ``MAJORITY`` of ``COMPARED`` calibration samples (no labels).
3. Weight rounding with error feedback (``round_weights``), bias correction (``correct_bias``), quantize and dequantize
(``insert_qdq``).
4. What 8 bits cannot carry stays in float (``float_parts``). A net with attention that loses more than
``ATTENTION_ERROR`` of its outputs is handed back in float and runs on the host.

The measured accuracy of every net is in benchmarks/README.md, section accuracy. What single steps bring: rms error of
the logits, % of their deviation, on 12 to 100 test samples, ranges by least squared error; "plain": not equalized.
Equalized figures of this table were taken with every set of any gain scaled, except those of ResNet-8 and VWW (sets
whose noise halves at least).

================== ======= ========================= ========= ==========================
net                plain   plain, error feedback     equalized equalized, error feedback
================== ======= ========================= ========= ==========================
MobileNetV2        14.5    14.4                      9.4       9.2
SqueezeNet 1.0     7.05    6.1                       6.95      5.5
ESPCN x3           5.8     1.3                       1.4       1.2
YOLOX-nano         48      48                        26.6      25.2
KWS DS-CNN         2.4     3.0                       2.3       2.2
MobileNetV1 0.25   6.3     6.3                       6.2       6.6
ResNet-20          3.2     3.2                       3.2       3.1
ResNet-8           3.6     3.1                       no set    no set
VWW                13.0    12.9                      14.1      14.1
================== ======= ========================= ========= ==========================

Min-max ranges in place of least squared error: MobileNetV2 11.3 equalized (19.5 plain), SqueezeNet 7.2 (9.8), the
others within 1. mse weight scales changed nothing by more than 0.6, so the simpler max|w| / 127 is the default."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro.choose_ranks import Projection, RankOptions, project
from tvm_ergo.relay_passes.micro.align_thresholds import align_thresholds
from tvm_ergo.relay_passes.micro.bias_correct import WindowMeans, correct_bias
from tvm_ergo.relay_passes.micro.calibrate import Method, Observations, Ranges, observe, samples_of
from tvm_ergo.relay_passes.micro.complete import complete
from tvm_ergo.relay_passes.micro.equalize import equalize
from tvm_ergo.relay_passes.micro.exact import Grids, exact_input_params
from tvm_ergo.relay_passes.micro.float_parts import with_float_parts
from tvm_ergo.relay_passes.micro.insert_qdq import insert_qdq, with_shown
from tvm_ergo.relay_passes.micro.observe import QuantParams, Range
from tvm_ergo.relay_passes.micro.raise_bits import raise_bits
from tvm_ergo.relay_passes.micro.round_weights import WindowMoments, round_weights
from tvm_ergo.relay_passes.micro.saturate import Saturated, saturate
from tvm_ergo.relay_passes.micro.sensitivity import shown_on
from tvm_ergo.relay_passes.micro.undecided import undecided
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import KEPT_ATTR, RANGES_ATTR, bindings_of, main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Kind, analyse

ATTENTION_ERROR = (
    0.1  # rms error of the outputs relative to their deviation, above which a net with attention stays on the host
)
COMPARED = 16  # samples on which the equalized and the plain form are compared
MAJORITY = (
    0.7  # of them on which the equalized form has to be closer: votes, since single samples dominate a sum of errors
)


class Equalize(enum.Enum):
    """When the channels of neighbouring layers are equalized."""

    AUTO = "auto"
    ON = True
    OFF = False


@dataclass(frozen=True)
class QuantizeOptions:
    """Choices of post-training quantization; the defaults are those that were measured best over all nets (module
    docstring).

    method, percentile: ranges of activations ("mse", "minmax", "percentile"). samples: calibration inputs used at most.
    weight_scale: scales of weight channels. equalize: cross-layer equalization, always (True), never (False), or where
    the quantized outputs come closer to the float ones by it on most of ``COMPARED`` calibration samples ("auto").
    correct_bias: undo the mean error that weight rounding causes. round_weights: error feedback in weight rounding
    (needs correct_bias). exact_inputs: give inputs that take at most 256 evenly spaced values (8-bit images) exactly
    those as levels. attention_on_chip: quantize nets with attention even where that loses more than ``ATTENTION_ERROR``
    of their outputs; otherwise they stay in float, on the host. project_channels: the error of the outputs (rms,
    relative to their deviation) up to which tensors are kept in fewer channels (or all choices of it; None: never).
    float_parts: the loss of the outputs (`micro.sensitivity`) above which the tensors it comes from stay in float, on
    the host ("auto": where int8 ruins the network, see `float_parts.RUINED`, and ranges are those of the default
    method; None: never).
    sixteen_bits: the loss that tensors become int16 for, those of which the outputs lose most first (`raise_bits`;
    None: all stay int8. Networks with attention choose by themselves)."""

    method: Method = Method.MSE
    percentile: float = 99.99
    samples: int | None = 64
    weight_scale: WeightScale = WeightScale.MAX
    equalize: Equalize | bool = Equalize.AUTO
    correct_bias: bool = True
    round_weights: bool = True
    exact_inputs: bool = True
    attention_on_chip: bool = False
    project_channels: float | RankOptions | None = None
    float_parts: float | str | None = "auto"
    sixteen_bits: float | None = None

    @property
    def rank_options(self) -> RankOptions | None:
        given = self.project_channels
        return given if given is None or isinstance(given, RankOptions) else RankOptions(error=given)


def is_quantized(mod: tvm.IRModule) -> bool:
    """True if main quantizes activations already (an imported QDQ net), says how (`attention.sealed`), or is kept in
    float on purpose."""
    attrs = main_of(mod).attrs
    return (
        attrs is not None
        and (KEPT_ATTR in attrs or RANGES_ATTR in attrs)
        or any(op_name(value) == "relax.quantize" for _, value in bindings_of(main_of(mod)))
    )


def border_methods(mod: tvm.IRModule) -> tuple[set[str], dict[str, Method]]:
    """Names of the tensors between groups, and min-max for inputs and outputs (a clipped logit can tie with the best
    one)."""
    analysis = analyse(main_of(mod))
    view: FunctionView = analysis.view
    names = {v.name for g in analysis.groups for v in (*g.inputs, g.output)}
    outer = {p.name for p in main_of(mod).params} | {v.name for v in view.outputs}
    for group in reversed(analysis.groups):
        if group.kind is Kind.MOVEMENT and group.output.name in outer:
            outer.update(v.name for v in group.inputs)
    for group in analysis.groups:
        if group.kind is Kind.MOVEMENT and any(v.name in outer for v in group.inputs):
            outer.add(group.output.name)
    return names, {name: Method.MINMAX for name in outer & names}


def quantize(
    mod: tvm.IRModule,
    calibration,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    progress: Callable[[str, int, int], None] | None = None,
    on_equalized: Callable[[tvm.IRModule], None] | None = None,
    on_projected: Callable[[Projection], None] | None = None,
) -> tvm.IRModule:
    """QDQ normal form of a float normal-form module; of one that is quantized already what it leaves in float is
    quantized (``complete``).

    Parameters: calibration, see ``calibrate.samples_of``; options; progress(step, done, total), called per sample;
    on_equalized(mod), called with the float network whose tensors the quantized ones stand for (channels projected and
    rescaled); on_projected(projection), called where the options ask for projection. Errors: CalibrationError (missing,
    empty, wrong shape, NaN)."""
    if calibration is None and is_quantized(mod):
        return mod
    data = list(samples_of(mod, calibration, options.samples))

    def report(step: str, total: int = len(data)):
        return (lambda done: progress(step, done, total)) if progress else None

    if is_quantized(mod):
        return complete(mod, data, options.method, options.percentile, report("calibrate"))

    source = mod
    if options.rank_options is not None:
        projection = project(
            mod, data, options.rank_options, progress=(lambda *a: progress("project", *a)) if progress else None
        )
        mod = projection.mod
        if on_projected:
            on_projected(projection)
    mod, aligned = align_thresholds(mod, data)
    saturated = saturate(mod, data)
    mod = saturated.mod
    exact = exact_input_params(mod, data) if options.exact_inputs else {}
    exact = aligned | {name: params for name, params in exact.items() if name not in saturated.forced}
    chosen = Observed.of(mod, data, options, exact, report("calibrate"), saturated)
    mode = Equalize(options.equalize)
    if mode is not Equalize.OFF:
        scaled = equalize(mod, chosen.seen.ranges(Method.MINMAX))
        if scaled is not mod:
            plain, chosen = chosen, Observed.of(scaled, data, options, exact, report("equalize"), saturated)
            if mode is Equalize.AUTO:
                chosen = the_more_exact(plain, chosen, data, report("compare", min(COMPARED, len(data))))
    if on_equalized:
        on_equalized(chosen.mod)
    rounding = options.round_weights and options.correct_bias
    result = chosen.quantized(rounding)
    if options.sixteen_bits is not None and not has_attention(mod):
        watch = (lambda *a: progress("sixteen bits", *a)) if progress else None
        chosen, result = raise_bits(chosen, data, result, rounding, options.sixteen_bits, watch)
    chosen_ranges = (
        Method(options.method) is not Method.MSE and options.float_parts == "auto"
    )  # a choice of ranges is tried out: its loss is warned of
    if not has_attention(mod) and options.float_parts is not None and not chosen_ranges:
        return with_float_parts(
            chosen,
            data,
            result,
            rounding,
            options.float_parts,
            (lambda *a: progress("float parts", *a)) if progress else None,
        )
    if options.attention_on_chip or not has_attention(mod):
        return result
    simulated = Interpreter(result)
    lost = float(np.sqrt(np.mean([output_error(simulated.run(data[i]), chosen.outputs[i]) for i in spread_over(data)])))
    return result if lost <= ATTENTION_ERROR else kept_in_float(source, lost)


def has_attention(mod: tvm.IRModule) -> bool:
    """Whether the net multiplies activations with each other."""
    return any(g.kind is Kind.MATMUL for g in analyse(main_of(mod)).groups)


def kept_in_float(mod: tvm.IRModule, lost: float) -> tvm.IRModule:
    """The float module, marked: it counts as quantized, and what the chip could run stays on the host for the reason
    given."""
    reason = (
        f"a network with attention, of whose outputs int8 loses {100 * lost:.0f} % (rms error on calibration data, "
        f"limit {100 * ATTENTION_ERROR:.0f} %): it stays in float"
    )
    remedy = (
        "QuantizeOptions(attention_on_chip=True) puts it on the chip all the same; "
        "a model quantized in training is taken as it is"
    )
    func = main_of(mod).with_attr(KEPT_ATTR, json.dumps({"reason": reason, "remedy": remedy}))
    result = mod.clone()
    result["main"] = func
    return result


def spread_over(data) -> list[int]:
    """Numbers of at most ``COMPARED`` samples, evenly spaced."""
    return np.linspace(0, len(data) - 1, min(COMPARED, len(data))).round().astype(int).tolist()


@dataclass(frozen=True)
class Observed:
    """A float module after its calibration run: all that is needed to quantize it, and the run's ``outputs`` per
    sample."""

    mod: tvm.IRModule
    seen: Observations
    ranges: Ranges
    means: WindowMeans
    moments: WindowMoments
    exact: Mapping[str, QuantParams]
    options: QuantizeOptions
    outputs: list[list[np.ndarray]]

    @classmethod
    def of(
        cls, mod: tvm.IRModule, data, options: QuantizeOptions, exact, progress=None, saturated: Saturated | None = None
    ) -> Observed:
        names, methods = border_methods(mod)
        names = names if saturated is None else names - set(saturated.forced)
        means, moments, outputs, grids = (
            WindowMeans(mod),
            WindowMoments(mod),
            [],
            Grids(mod, names - {p.name for p in main_of(mod).params}),
        )

        def watch(name: str, value: np.ndarray) -> None:
            grids(name, value)
            if options.correct_bias:
                means(name, value)
                if options.round_weights:
                    moments(name, value)

        seen = observe(mod, data, tensors=names, watch=watch, progress=progress, outputs=outputs)
        ranges = seen.ranges(options.method, options.percentile, methods)
        if saturated is not None:
            ranges = ranges.within(saturated.required, saturated.forced)
        ranges = ranges.within(undecided(analyse(main_of(mod)), lambda var: ranges[var.name]), {})
        return cls(mod, seen, ranges, means, moments, {**grids.params(), **exact}, options, outputs)

    def keeping(self, tensors: frozenset[str]) -> Observed:
        """The same with these tensors left in float."""
        return replace(self, ranges=replace(self.ranges, kept=tensors))

    def with_wide_tables(self) -> Observed:
        """The same with 16 bits for results of which calibration saw little (`wide_tail`)."""
        return replace(self, ranges=replace(self.ranges, wide_tables=True))

    def with_sixteen(self, tensors: Mapping[str, Range]) -> Observed:
        """The same with these tensors in int16, by their extremes (`sixteen_bits`)."""
        return replace(self, ranges=replace(self.ranges, sixteen=tensors))

    def quantized(self, with_rounding: bool) -> tvm.IRModule:
        """The steps after the calibration run: weight rounding, bias correction, insertion of quantize and
        dequantize."""
        weight_scale = WeightScale(self.options.weight_scale)
        rounded = (
            round_weights(self.mod, self.moments, self.ranges, weight_scale=weight_scale, exact=self.exact)
            if with_rounding
            else {}
        )
        mod = self.mod
        if self.options.correct_bias:
            mod = correct_bias(
                mod, self.means, self.ranges, weight_scale=weight_scale, exact=self.exact, rounded=rounded
            )
        made = insert_qdq(mod, self.ranges, weight_scale=weight_scale, exact=self.exact, rounded=rounded)
        return with_shown(made, shown_on(self.mod, self.outputs), len(self.outputs))


def the_more_exact(plain: Observed, equalized: Observed, data, progress=None) -> Observed:
    """The equalized form if, weights rounded to nearest, it is closer to the float outputs on ``MAJORITY`` of some
    samples; else the plain.

    Ends as soon as the rest cannot change the outcome.
    """
    interpreters = [Interpreter(o.quantized(False)) for o in (plain, equalized)]
    chosen = spread_over(data)
    needed = math.ceil(MAJORITY * len(chosen))
    won = 0
    for done, i in enumerate(chosen, 1):
        errors = [output_error(run.run(data[i]), plain.outputs[i]) for run in interpreters]
        won += errors[1] < errors[0]
        if progress:
            progress(done)
        if won >= needed or won + len(chosen) - done < needed:
            break
    return equalized if won >= needed else plain


def output_error(results: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Sum over the outputs of the power of the error, relative to the deviation of the output."""
    pairs = [(np.asarray(r, np.float64), np.asarray(w, np.float64)) for r, w in zip(results, wanted)]
    return float(sum(np.mean((r - w) ** 2) / max(w.var(), 1e-30) for r, w in pairs))
