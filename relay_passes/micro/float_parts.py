"""What 8 bits cannot carry stays in float, on the host, as a part of the network: power spectra before a logarithm, for
instance.

Which tensors these are is measured, each alone in 8 bits (`sensitivity`). Those of which the outputs lose most leave,
as few as it takes for the rest together (errors of single tensors add up as squares, about) to stay within the wanted
loss; the network so made is measured again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.insert_qdq import QuantPlan, plan, wide_outputs
from tvm_ergo.relay_passes.micro.sensitivity import (
    extremes_first,
    least_deviations,
    losses,
    sensitivity,
    with_lively,
    work_of,
)
from tvm_ergo.relay_passes.relax_utils import PARTS_ATTR, main_of
from tvm_ergo.relay_passes.support import Group

RUINED = 0.4
"""Loss from which a network is no use to anybody: parts of it are kept in float without being asked. The int8 forms of
the float networks of the shared models lose 0.01 to 0.26."""
AIM = 0.1  # what such a network may lose then
TRIES = (1.0, 0.6, 0.3)  # of the aim: what the tensors left in 8 bits may lose together, by the sum of squares
MEASURED = 6  # calibration samples on which the loss is measured, at most
# operations (`work_of`) that measuring takes at most, beyond two samples: not seconds, so that a busy machine decides
# alike
MEASURED_WORK = 4e9
SENSITIVITY_WORK = 60e9  # operations for finding the tensors


@dataclass(frozen=True)
class FloatParts:
    """tensors : that stay in float, with the loss of the outputs by each alone. loss : of the network with all in 8
    bits, and after."""

    tensors: Mapping[str, float]
    before: float
    after: float

    def marked(self, mod: tvm.IRModule) -> tvm.IRModule:
        """``mod`` with the parts on main, where the lowering and reports find them."""
        result = mod.clone()
        result["main"] = main_of(mod).with_attr(
            PARTS_ATTR, json.dumps({"tensors": dict(self.tensors), "before": self.before, "after": self.after})
        )
        return result


def parts_of(func) -> dict | None:
    """``{"tensors": {name: loss}, "before": loss, "after": loss}`` of a function whose parts stay in float; else
    None."""
    return json.loads(str(func.attrs[PARTS_ATTR])) if func.attrs is not None and PARTS_ATTR in func.attrs else None


def why_in_float(parts: dict, group: Group) -> tuple[str, str]:
    """Reason and remedy for a group of the part that stays in float."""
    loss = {v.name: parts["tensors"][v.name] for v in (*group.inputs, group.output) if v.name in parts["tensors"]}
    worst = max(loss, key=loss.get, default=None)
    reason = (
        f"8 bits cannot carry {worst}: by it alone the outputs lose {100 * loss[worst]:.0f} % (rms, on calibration "
        f"data)"
        if worst is not None and loss[worst] > 0
        else "it works on tensors that 8 bits cannot carry"
    )
    return (
        reason + "; it stays in float",
        "--float-parts off (QuantizeOptions(float_parts=None)) puts it on the chip all the same",
    )


def measured_loss(mod: tvm.IRModule, samples: list[dict[str, np.ndarray]], wanted: list[list[np.ndarray]]) -> float:
    """The loss of the worst output of a quantized module, on the first samples that ``MEASURED_WORK`` allows, two at
    least."""
    interpreter, got = Interpreter(mod), []
    for sample in samples[: max(2, int(MEASURED_WORK // work_of(mod)))]:
        with np.errstate(all="ignore"):
            got.append(interpreter.run(sample))
    return max(losses(got, wanted[: len(got)], least_deviations(mod)), default=0.0)


def with_float_parts(
    observed, data, quantized: tvm.IRModule, rounding: bool, wanted: float | str, progress: Callable | None = None
) -> tvm.IRModule:
    """``quantized``, or the network with parts in float where it loses too much.

    observed : `quantize.Observed`. wanted : the loss above which parts leave, or "auto": ``AIM`` where it is above
    ``RUINED``."""
    chosen = with_lively(extremes_first(data, MEASURED), observed.outputs)
    samples, outputs = [data[i] for i in chosen], [observed.outputs[i] for i in chosen]
    before = measured_loss(quantized, samples, outputs)
    aim, limit = (AIM, RUINED) if wanted == "auto" else (wanted, wanted)
    if before <= limit:
        return quantized
    observed = observed.with_wide_tables()
    quantized = observed.quantized(rounding)
    before = min(before, measured_loss(quantized, samples, outputs))
    if before <= limit:
        return quantized
    quant_plan = plan(main_of(observed.mod), observed.ranges, observed.exact)
    classes = tensors_by_class(quant_plan)
    found = sensitivity(
        observed.mod,
        {name: quant_plan.params[var] for name, var in classes.items()},
        samples[:2],
        limit_s=math.inf,
        most=max(1, int(SENSITIVITY_WORK // work_of(observed.mod))),
        progress=progress,
    )
    ranked = found.worst(len(found.loss))
    if not found.complete:
        ranked += [(name, 0.0) for name in classes if name not in found.loss]
    best, done = quantized, None
    for share in TRIES:
        count = _kept_count([loss for _, loss in ranked], share * aim)
        if count == done:
            continue
        done, kept = count, dict(ranked[:count])
        made = observed.keeping(frozenset(kept)).quantized(rounding)
        after = measured_loss(made, samples, outputs)
        best = FloatParts(kept, before, after).marked(made)
        if after <= aim:
            break
    return best


def _kept_count(ranked: list[float], limit: float) -> int:
    """How many of the losses (descending) have to go for the root of the sum of squares of the rest to stay within
    ``limit``."""
    rest = np.sqrt(np.cumsum(np.square(ranked)[::-1]))[::-1]
    return int(np.sum(rest > limit))


def tensors_by_class(quant_plan: QuantPlan) -> dict[str, object]:
    """One variable by name for every tensor between groups that holds values of its own: what movement hands on is its
    source's, and what leaves the chip in more than 8 bits loses nothing."""
    moved = {g.output for g in quant_plan.groups if g.carries_quantization and len(g.inputs) == 1}
    left_out = moved | wide_outputs(quant_plan)
    return {var.name: var for var in quant_plan.params if var not in left_out}
