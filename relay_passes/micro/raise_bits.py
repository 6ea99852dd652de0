"""16 bits for the tensors of which a network's outputs lose most in 8: as few as bring the loss to what was asked.

Candidates are ranked by what the outputs lose by each alone in 8 bits (`sensitivity`); the number is found by
bisection, each network so made is measured. 16 bits cost time (CONV_16 runs at half the rate) and twice the bytes, and
such operators run whole, not in rows or tiles: so they are asked for (``QuantizeOptions.sixteen_bits``)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import tvm

from tvm_ergo.relay_passes.micro.calibrate import Method
from tvm_ergo.relay_passes.micro.float_parts import MEASURED, SENSITIVITY_WORK, measured_loss, tensors_by_class
from tvm_ergo.relay_passes.micro.insert_qdq import plan
from tvm_ergo.relay_passes.micro.sensitivity import extremes_first, sensitivity, with_lively, work_of
from tvm_ergo.relay_passes.relax_utils import SIXTEEN_ATTR, main_of

GAIN = 0.9
"""16 bits are kept where the loss falls below so much of what it was."""
NAMED = 5


@dataclass(frozen=True)
class SixteenBits:
    """tensors : that were asked to be int16, worst first. before, after : loss with all in 8 bits, and with these."""

    tensors: tuple[str, ...]
    before: float
    after: float

    def __str__(self) -> str:
        named = ", ".join(self.tensors[:NAMED]) + (" and others" if len(self.tensors) > NAMED else "")
        return (
            f"int16 for {len(self.tensors)} tensor{'s' * (len(self.tensors) != 1)} ({named}) and what goes with them: "
            f"outputs lose {100 * self.after:.2g} % in place of {100 * self.before:.2g} % (rms, on calibration data)"
        )

    def marked(self, mod: tvm.IRModule) -> tvm.IRModule:
        """``mod`` with this on main, for reports."""
        result = mod.clone()
        told = {"tensors": list(self.tensors), "before": self.before, "after": self.after}
        result["main"] = main_of(mod).with_attr(SIXTEEN_ATTR, json.dumps(told))
        return result


def sixteen_of(mod: tvm.IRModule) -> SixteenBits | None:
    """What was chosen; None where nothing was."""
    attrs = main_of(mod).attrs
    if attrs is None or SIXTEEN_ATTR not in attrs:
        return None
    told = json.loads(str(attrs[SIXTEEN_ATTR]))
    return SixteenBits(tuple(told["tensors"]), told["before"], told["after"])


def chosen(
    ranked: list[str],
    before: float,
    aim: float,
    made: Callable[[list[str]], tvm.IRModule],
    loss: Callable[[tvm.IRModule], float],
) -> tuple[tvm.IRModule | None, SixteenBits]:
    """``(module, what is in it)`` with as few of the ranked tensors as reach ``aim``, or nearly what all of them give;
    None where 16 bits do not help. made, loss : the module with some of them, and its loss."""
    nothing = None, SixteenBits((), before, before)
    if not ranked:
        return nothing
    best = made(ranked)
    found = loss(best)
    if found > GAIN * before:
        return nothing
    enough, fewest, most = max(aim, found / GAIN), 0, len(ranked)
    while most - fewest > 1:
        count = (fewest + most) // 2
        module = made(ranked[:count])
        reached = loss(module)
        if reached <= enough:
            best, found, most = module, reached, count
        else:
            fewest = count
    return best, SixteenBits(tuple(ranked[:most]), before, found)


def raise_bits(observed, data, quantized: tvm.IRModule, rounding: bool, aim: float, progress: Callable | None = None):
    """``(observed, module)``: as given where the loss is within ``aim`` or 16 bits do not help, else with int16.

    observed : `quantize.Observed`. progress : ``progress(done, total)``."""
    picked = with_lively(extremes_first(data, MEASURED), observed.outputs)
    samples, outputs = [data[i] for i in picked], [observed.outputs[i] for i in picked]
    before = measured_loss(quantized, samples, outputs)
    if before <= aim:
        return observed, quantized
    wider = observed.with_wide_tables()  # results of which calibration saw little, in 16 bits too
    other = wider.quantized(rounding)
    less = measured_loss(other, samples, outputs)
    if less < before:
        observed, quantized, before = wider, other, less
    quant_plan = plan(main_of(observed.mod), observed.ranges, observed.exact)
    found = sensitivity(
        observed.mod,
        {name: quant_plan.params[var] for name, var in tensors_by_class(quant_plan).items()},
        samples[:2],
        limit_s=math.inf,
        most=max(1, int(SENSITIVITY_WORK // work_of(observed.mod))),
        progress=progress,
    )
    extremes = observed.seen.ranges(Method.MINMAX)
    able = [name for name, loss in found.worst(len(found.loss)) if loss > 0 and name in extremes]
    raised = {}

    def made(names: list[str]) -> tvm.IRModule:
        key = tuple(names)
        raised[key] = observed.with_sixteen({name: extremes[name] for name in names})
        return raised[key].quantized(rounding)

    module, result = chosen(able, before, aim, made, lambda mod: measured_loss(mod, samples, outputs))
    return (observed, quantized) if module is None else (raised[result.tensors], result.marked(module))
