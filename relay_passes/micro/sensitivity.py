"""What a quantized network loses, and at which tensors: each one alone in 8 bits, everything else in float.

The loss of an output is the root mean square of its error over the samples, relative to the standard deviation of the
float output over the same samples (its root mean square where it is constant); or that of its upper quartile of
samples, each relative to its own deviation (at least a quarter of all samples'), if that is more: quiet inputs beside
loud ones. (A sample of fewer than `FEW` values, as scores are, has no deviation to speak of: there it is all samples
together.) Of outputs that are integers it is the share that differs. A network's loss is that of its worst output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.compat import static_tensor_type
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of, variables_in
from tvm_ergo.relay_passes.support import FunctionView

LINEAR = ("relax.nn.conv2d", "relax.nn.conv2d_transpose", "relax.matmul")
TINY = 1e-30
WORST = 10.0  # deviations beyond the float output's range: further off, and infinite, is not worse
KNOWN = {"relax.sigmoid": 1.0, "relax.nn.softmax": 1.0, "relax.tanh": 2.0}
"""Operators whose results have a known range, and its width."""
MOVING = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.dequantize",
    "relax.quantize",
)
HARDLY = 2.0**-10
"""Of such a range: an output that varies less on all samples (a detector's map of pictures without what it detects)
shows nothing of the network."""
FEW = 8  # values of an output in one sample, below which its samples are not judged one by one
FLAT = 0.1  # of the deviation of the sample whose outputs vary most: below it a sample's hardly vary
QUIET = 0.25  # of all samples' deviation: what a single sample's own counts for at least


def losses(
    got: list[list[np.ndarray]], wanted: list[list[np.ndarray]], least: Sequence[float] | None = None
) -> list[float]:
    """The loss of every output; ``got`` and ``wanted`` hold the outputs of each sample. least : what the deviation of
    each counts for at least (`least_deviations`)."""
    least = [0.0] * len(wanted[0]) if least is None else least
    return [_loss(np.stack(g), np.stack(w), d) for g, w, d in zip(zip(*got), zip(*wanted), least, strict=True)]


def least_deviations(mod: tvm.IRModule) -> list[float]:
    """By output: ``HARDLY`` of the range where it is known (sigmoid, softmax, tanh, also moved), else 0."""
    view, found = FunctionView(main_of(mod)), []
    body = main_of(mod).body.body
    result = view.value.get(body, body)
    for var in view.fields(body) if isinstance(result, relax.Tuple) else [body]:
        while isinstance(var, relax.Var) and (
            isinstance(view.value.get(var), relax.Var) or view.op(var) in MOVING and view.value[var].args
        ):
            value = view.value[var]
            var = value if isinstance(value, relax.Var) else value.args[0]
        found.append(HARDLY * KNOWN.get(view.op(var) if isinstance(var, relax.Var) else "", 0.0))
    return found


def shown_on(mod: tvm.IRModule, outputs: list[list[np.ndarray]]) -> dict[str, int]:
    """``{number of the output: samples that show something of it}`` of outputs of known range (sigmoid,
    softmax, tanh; ``FEW`` values at least): on the others they vary by less than ``HARDLY`` of it."""
    found = {}
    for number, least in enumerate(least_deviations(mod)):
        values = [sample[number] for sample in outputs]
        if least > 0 and values and values[0].size >= FEW:
            found[str(number)] = sum(float(np.std(v)) >= least for v in values)
    return found


def _loss(got: np.ndarray, wanted: np.ndarray, least: float) -> float:
    """Of one output: arrays [samples, ...]."""
    if wanted.dtype.kind != "f":
        return float(np.mean(got != wanted)) if wanted.size else 0.0
    known = np.isfinite(wanted)
    if not known.any():
        return 0.0
    wanted = np.where(known, wanted, 0).astype(np.float64)
    spread = max(wanted[known].std() or np.sqrt(np.mean(wanted[known] ** 2)), least, TINY)
    got = np.clip(
        np.nan_to_num(got.astype(np.float64)),
        wanted[known].min() - WORST * spread,
        wanted[known].max() + WORST * spread,
    )
    error = np.where(known, got - wanted, 0.0)
    overall = float(np.sqrt(np.mean(error[known] ** 2)) / spread)
    if wanted[0].size < FEW:
        return overall
    axes = tuple(range(1, wanted.ndim))
    each = np.sqrt(np.mean(error**2, axis=axes)) / np.maximum(wanted.std(axis=axes), spread * QUIET)
    return max(overall, float(np.quantile(each, 0.75)))


def telling(data: list[dict[str, np.ndarray]], count: int) -> list[int]:
    """Numbers of at most ``count`` samples on which a loss shows: evenly spaced from the quietest to the loudest (root
    mean square of the inputs)."""
    power = [
        sum(float(np.mean(np.square(a, dtype=np.float64))) for a in sample.values() if a.dtype.kind == "f")
        for sample in data
    ]
    order = np.argsort(power, kind="stable")
    return order[np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)].tolist()


def extremes_first(data: list[dict[str, np.ndarray]], count: int) -> list[int]:
    """The same, the quietest and the loudest before the others."""
    chosen = telling(data, count)
    return [*chosen[:1], *chosen[:0:-1]]


def with_lively(chosen: list[int], outputs: list[list[np.ndarray]]) -> list[int]:
    """``chosen``, the sample whose outputs vary most in the place of the first or the second where that one's vary
    hardly."""
    floats = [i for i, o in enumerate(outputs[0]) if o.dtype.kind == "f" and o.size >= FEW]
    if not floats:
        return chosen
    each = np.array([[np.nan_to_num(o[i].astype(np.float64)).std() for i in floats] for o in outputs])
    vary = (each / np.maximum(each.max(axis=0), TINY)).max(axis=1)
    most, places = int(vary.argmax()), list(chosen)
    flat = next((at for at in (1, 0) if at < len(places) and vary[places[at]] < FLAT), None)
    if flat is None or most in places[:2]:
        return chosen
    return [most if at == flat else i for at, i in enumerate(places) if i != most or at == flat]


@dataclass(frozen=True)
class Sensitivity:
    """Loss of the outputs by tensor name, each alone in 8 bits; ``complete``: all tensors were measured within the
    time."""

    loss: Mapping[str, float]
    complete: bool

    def worst(self, count: int) -> list[tuple[str, float]]:
        return sorted(self.loss.items(), key=lambda item: -item[1])[:count]


def sensitivity(
    mod: tvm.IRModule,
    params: Mapping[str, QuantParams],
    samples: list[dict[str, np.ndarray]],
    *,
    limit_s: float = 60.0,
    most: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """How much the outputs of ``mod`` (float) lose by each tensor of ``params`` alone. Only what depends on a tensor is
    computed again.

    limit_s : seconds after which the tensors left are not measured. most : of the tensors, in order, that are measured:
    for decisions, which a busy machine must not change."""
    interpreter, until = Interpreter(mod), time.monotonic() + limit_s
    runs = [_Kept(interpreter, sample) for sample in samples]
    wanted, found, least = [run.outputs for run in runs], {}, least_deviations(mod)
    names = [name for name in params if name in runs[0].variable]
    for done, name in enumerate(names[:most]):
        if time.monotonic() > until:
            break
        found[name] = max(losses([run.with_quantized(name, params[name]) for run in runs], wanted, least), default=0.0)
        if progress:
            progress(done + 1, len(names))
    return Sensitivity(found, len(found) == len(names))


class _Kept:
    """One float run, all tensors kept."""

    def __init__(self, interpreter: Interpreter, sample: dict[str, np.ndarray]):
        self.interpreter = interpreter
        self.values = {p: np.asarray(sample[p.name]) for p in interpreter.params}
        with np.errstate(all="ignore"):
            for step in interpreter.steps:
                self.values[step.var] = interpreter.evaluate(step.value, self.values)
        self.variable = {v.name: v for v in self.values}
        self.outputs = self._results(self.values)

    def _results(self, values) -> list[np.ndarray]:
        result = self.interpreter.evaluate(self.interpreter.body, values)
        return [np.asarray(r) for r in (result if isinstance(result, tuple) else [result])]

    def with_quantized(self, name: str, params: QuantParams) -> list[np.ndarray]:
        """The outputs with one tensor rounded to its 8 bits."""
        var = self.variable[name]
        values, changed = dict(self.values), {var}
        values[var] = params.dequantize(params.quantize(self.values[var])).astype(np.float32)
        with np.errstate(all="ignore"):
            for step in self.interpreter.steps:
                if step.var != var and changed.intersection(variables_in(step.value)):
                    values[step.var] = self.interpreter.evaluate(step.value, values)
                    changed.add(step.var)
            return self._results(values)


def work_of(mod: tvm.IRModule) -> int:
    """Operations of one run of a float module, about: multiply-accumulates of convolutions and products, elements of
    everything else."""
    total = 0
    for var, value in bindings_of(main_of(mod)):
        static = static_tensor_type(var)
        if static is None:
            continue
        operand = (
            static_tensor_type(value.args[1])
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") in LINEAR
            else None
        )
        total += math.prod(static[0]) * (
            1 if operand is None else max(1, math.prod(operand[0]) // max(1, static[0][-1]))
        )
    return max(1, total)


def float_outputs(mod: tvm.IRModule, samples: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    interpreter = Interpreter(mod)
    with np.errstate(all="ignore"):
        return [interpreter.run(sample) for sample in samples]
