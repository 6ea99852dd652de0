"""Post-training quantization of a float net: the flat list of steps behind ``tvm_ergo.compile(model, calibration=...)``.

Measured: the QDQ module as simulated by ONNX Runtime with graph optimisations off (equal to the bit to the float interpreter on
the inputs compared), against the float model on the same images; top-1 %, change in points. Defaults unless named otherwise.

============================ ================ =========== ==========================================================
net                          images           float       int8 (not equalized)
============================ ================ =========== ==========================================================
ic_resnet8                   1000             88.1        +0.1 (min-max +0.1, percentile 0.0, no bias correction +0.4, equalized -0.5)
resnet20_cifar10             1000             91.5        -0.4 (mse weights -0.3, those and min-max -0.5)
kws_dscnn                    1000             90.1        0.0 (min-max +0.4, percentile +0.6, equalized +0.4)
vww96                        128              85.16       0.0 (equalized, mse weights -0.8, which is one image)
mobilenet_v1_0.25            1000 nips17      42.8        +0.5; 1000 imagenet_sample: 43.3, +0.5
mobilenet_v2                 first 500 each   90.2 / 85.0 -0.4 / +0.4 (calibrated on 48 images)
tfc_1w1a_mnist               10000            92.98       -0.2, whatever the options
bnn_lfc_w1a1                 10000            98.34       +0.05
bnn_cnv_w1a1                 first 500        81.2        +0.8
squeezenet1.0                first 500 each   56.2 / 66.8 -0.6 / -2.0 (32 images): not within the goal
espcn_x3                     first 12         26.22 dB    -0.34 dB; first 6: equalized -0.02 dB (weights differ by large factors)
yolox_nano                   first 64         32.8 mAP    -12.7 mAP, see below
============================ ================ =========== ==========================================================

These figures were taken before equalization became the default ("equalized" names it). Its effect where measured: yolox_nano 48
images -1.1 mAP instead of -12.7, espcn (6 images) -0.02 dB instead of -0.27 with mse weights, kws +0.4, mobilenet_v1 0.0 / 0.0 of 200, mobilenet_v2 -1.5 / +0.5
of 200 (as without), squeezenet unchanged (it has no pairs), ResNet-8 -0.5, VWW -0.8 (one image). It is on because the nets that
need it are unusable without it: in YOLOX-nano one depthwise convolution before a silu (Conv_41, -51..85, few channels far beyond
the rest) makes 42 % rms error alone.

Error of the logits (rms, % of their deviation), a steadier measure than top-1: MobileNetV1 6.4 with and 11.6 without bias
correction; KWS 3.2, equalized 2.6; VWW 12.3, equalized 15.0; espcn 5.7, equalized 1.3; YOLOX 46, equalized 25; MobileNetV2 13 (9 of it
from weights alone). mse weight scales changed none of these by more than 0.2, so the simpler max|w| / 127 is the default.
Outputs use min-max: a clipped logit ties with the best one.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.bias_correct import WindowMeans, correct_bias
from tvm_ergo.relay_passes.micro.calibrate import Method, Observations, Ranges, input_shapes, observe, samples_of
from tvm_ergo.relay_passes.micro.equalize import equalize
from tvm_ergo.relay_passes.micro.insert_qdq import insert_qdq
from tvm_ergo.relay_passes.micro.lower_context import KEPT_ATTR
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.micro.round_weights import WindowMoments, round_weights
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Kind, analyse


ATTENTION_ERROR = 0.1  # rms error of the outputs relative to their deviation, above which a net with attention stays on the host
COMPARED = 12  # samples on which the equalized and the plain form are compared


class Equalize(enum.Enum):
    """When the channels of neighbouring layers are equalized."""

    AUTO = "auto"
    ON = True
    OFF = False


@dataclass(frozen=True)
class QuantizeOptions:
    """Choices of post-training quantization; the defaults are those that were measured best over all nets (module docstring).

    method, percentile: ranges of activations ("mse", "minmax", "percentile"). samples: calibration inputs used at most.
    weight_scale: scales of weight channels. equalize: cross-layer equalization, always (True), never (False), or where the quantized
    outputs come closer to the float ones by it on ``COMPARED`` calibration samples ("auto"). correct_bias: undo the mean error that
    weight rounding causes. round_weights: error feedback in weight rounding (needs correct_bias). exact_inputs: give inputs that take at most 256
    evenly spaced values (8-bit images) exactly those as levels. attention_on_chip: quantize nets with attention even where that loses
    more than ``ATTENTION_ERROR`` of their outputs; otherwise they stay in float, on the host.
    """

    method: Method = Method.MSE
    percentile: float = 99.99
    samples: int | None = 128
    weight_scale: WeightScale = WeightScale.MAX
    equalize: "Equalize | bool" = Equalize.AUTO
    correct_bias: bool = True
    round_weights: bool = True
    exact_inputs: bool = True
    attention_on_chip: bool = False


def is_quantized(mod: tvm.IRModule) -> bool:
    """True if main quantizes activations already (an imported QDQ net), or is kept in float on purpose."""
    attrs = main_of(mod).attrs
    return attrs is not None and KEPT_ATTR in attrs or any(op_name(value) == "relax.quantize" for _, value in bindings_of(main_of(mod)))


@dataclass
class Levels:
    """The distinct values of one input, as long as there are at most 256."""

    values: set = field(default_factory=set)
    many: bool = False

    def update(self, array: np.ndarray) -> None:
        if not self.many:
            self.values.update(np.unique(array).tolist())
            self.many = len(self.values) > 256

    def params(self) -> QuantParams | None:
        """The quantization whose levels are these values exactly, or None if they are not evenly spaced or zero is not among them.

        Levels left over extend the range downwards only if negative values occur, and upwards otherwise or as well.
        """
        values = np.array(sorted(self.values))
        if self.many or len(values) < 3 or not np.isfinite(values).all():
            return None
        step = np.diff(values).min()
        index = np.rint(values / step)
        if index[-1] > index[0]:
            step = (values[-1] - values[0]) / (index[-1] - index[0])
        lo, hi = int(min(index[0], 0)), int(max(index[-1], 0))
        if hi - lo > 255 or np.abs(values - index * step).max() > 1e-3 * step:
            return None
        fine = 255 // max(hi - lo, 1)  # few levels: as many steps between two of them as fit, for what is computed from them
        step, lo, hi = step / fine, lo * fine, hi * fine
        spare = 255 - (hi - lo)
        below = 0 if lo == 0 else spare if hi == 0 else spare // 2
        return QuantParams(float(np.float32(step)), int(-128 - (lo - below)))


def exact_input_params(mod: tvm.IRModule, data) -> dict[str, QuantParams]:
    """Parameters of the inputs that take at most 256 evenly spaced values, 0 among them."""
    levels = {name: Levels() for name, (_, dtype) in input_shapes(mod).items() if dtype == "float32"}
    for sample in samples_of(mod, data):
        for name, level in levels.items():
            level.update(sample[name])
    found = {name: level.params() for name, level in levels.items()}
    return {name: params for name, params in found.items() if params is not None}


def border_methods(mod: tvm.IRModule) -> tuple[set[str], dict[str, Method]]:
    """Names of the tensors between groups, and min-max for inputs and outputs (a clipped logit can tie with the best one)."""
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


def quantize(mod: tvm.IRModule, calibration, options: QuantizeOptions = QuantizeOptions(), *,
             progress: Callable[[str, int, int], None] | None = None,
             on_equalized: Callable[[tvm.IRModule], None] | None = None) -> tvm.IRModule:
    """QDQ normal form of a float normal-form module; a module that is quantized already is returned as it is.

    Parameters: calibration, see ``calibrate.samples_of``; options; progress(step, done, total), called per sample;
    on_equalized(mod), called with the float network whose tensors the quantized ones stand for (channels rescaled).
    Errors: CalibrationError (missing, empty, wrong shape, NaN).
    """
    if is_quantized(mod):
        return mod
    data = list(samples_of(mod, calibration, options.samples))

    def report(step: str, total: int = len(data)):
        return (lambda done: progress(step, done, total)) if progress else None

    exact = exact_input_params(mod, data) if options.exact_inputs else {}
    chosen = Observed.of(mod, data, options, exact, report("calibrate"))
    mode = Equalize(options.equalize)
    if mode is not Equalize.OFF:
        scaled = equalize(mod, chosen.seen.ranges(Method.MINMAX))
        if scaled is not mod:
            plain, chosen = chosen, Observed.of(scaled, data, options, exact, report("equalize"))
            if mode is Equalize.AUTO:
                chosen = the_more_exact(plain, chosen, data, report("compare", min(COMPARED, len(data))))
    if on_equalized:
        on_equalized(chosen.mod)
    result = chosen.quantized(options.round_weights and options.correct_bias)
    if options.attention_on_chip or not has_attention(mod):
        return result
    simulated = Interpreter(result)
    lost = float(np.sqrt(np.mean([output_error(simulated.run(data[i]), chosen.outputs[i]) for i in spread_over(data)])))
    return result if lost <= ATTENTION_ERROR else kept_in_float(mod, lost)


def has_attention(mod: tvm.IRModule) -> bool:
    """Whether the net multiplies activations with each other."""
    return any(g.kind is Kind.MATMUL for g in analyse(main_of(mod)).groups)


def kept_in_float(mod: tvm.IRModule, lost: float) -> tvm.IRModule:
    """The float module, marked: it counts as quantized, and what the chip could run stays on the host for the reason given."""
    reason = (f"a network with attention, of whose outputs int8 loses {100 * lost:.0f} % (rms error on calibration data, limit "
              f"{100 * ATTENTION_ERROR:.0f} %): it stays in float")
    remedy = "QuantizeOptions(attention_on_chip=True) puts it on the chip all the same; a model quantized in training is taken as it is"
    func = main_of(mod).with_attr(KEPT_ATTR, json.dumps({"reason": reason, "remedy": remedy}))
    result = mod.clone()
    result["main"] = func
    return result


def spread_over(data) -> list[int]:
    """Numbers of at most ``COMPARED`` samples, evenly spaced."""
    return np.linspace(0, len(data) - 1, min(COMPARED, len(data))).round().astype(int).tolist()


@dataclass(frozen=True)
class Observed:
    """A float module after its calibration run: all that is needed to quantize it, and the run's ``outputs`` per sample."""

    mod: tvm.IRModule
    seen: Observations
    ranges: Ranges
    means: WindowMeans
    moments: WindowMoments
    exact: Mapping[str, QuantParams]
    options: QuantizeOptions
    outputs: list[list[np.ndarray]]

    @classmethod
    def of(cls, mod: tvm.IRModule, data, options: QuantizeOptions, exact, progress=None) -> "Observed":
        names, methods = border_methods(mod)
        means, moments, outputs = WindowMeans(mod), WindowMoments(mod), []

        def watch(name: str, value: np.ndarray) -> None:
            if options.correct_bias:
                means(name, value)
                if options.round_weights:
                    moments(name, value)

        seen = observe(mod, data, tensors=names, watch=watch, progress=progress, outputs=outputs)
        ranges = seen.ranges(options.method, options.percentile, methods)
        return cls(mod, seen, ranges, means, moments, exact, options, outputs)

    def quantized(self, with_rounding: bool) -> tvm.IRModule:
        """The steps after the calibration run: weight rounding, bias correction, insertion of quantize and dequantize."""
        weight_scale = WeightScale(self.options.weight_scale)
        rounded = round_weights(self.mod, self.moments, self.ranges, weight_scale=weight_scale, exact=self.exact) if with_rounding else {}
        mod = self.mod
        if self.options.correct_bias:
            mod = correct_bias(mod, self.means, self.ranges, weight_scale=weight_scale, exact=self.exact, rounded=rounded)
        return insert_qdq(mod, self.ranges, weight_scale=weight_scale, exact=self.exact, rounded=rounded)


def the_more_exact(plain: Observed, equalized: Observed, data, progress=None) -> Observed:
    """Of the two, the one whose quantized form (weights rounded to nearest) is closer to the float outputs on a few samples."""
    interpreters = [Interpreter(o.quantized(False)) for o in (plain, equalized)]
    errors = np.zeros(2)
    for done, i in enumerate(spread_over(data), 1):
        errors += [output_error(run.run(data[i]), plain.outputs[i]) for run in interpreters]
        if progress:
            progress(done)
    return equalized if errors[1] <= errors[0] else plain


def output_error(results: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Sum over the outputs of the power of the error, relative to the deviation of the output."""
    pairs = [(np.asarray(r, np.float64), np.asarray(w, np.float64)) for r, w in zip(results, wanted)]
    return float(sum(np.mean((r - w) ** 2) / max(w.var(), 1e-30) for r, w in pairs))
