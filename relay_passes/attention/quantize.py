"""Post-training quantization of a network with attention or normalized rows: calibration, lowering to the integer dialect, and what that loses, measured.

Where the loss is above ``LIMIT`` the network stays in float and says of which kind of tensor it comes; any other network goes the way of
``micro.quantize``.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import tvm

from tvm_ergo.relay_passes import interpreter_ergo  # noqa: F401  (its import gives the interpreter the integer dialect)
from tvm_ergo.relay_passes.attention.find import calibrated, find_sites
from tvm_ergo.relay_passes.attention.lower import lower, seen_of
from tvm_ergo.relay_passes.attention.rules import Attention, MaskedSoftmax
from tvm_ergo.relay_passes.attention.sites import Embedding, Norm
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro import quantize as plain
from tvm_ergo.relay_passes.micro.calibrate import observe, samples_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized, output_error
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import KEPT_ATTR, main_of
from tvm_ergo.relay_passes.support import FunctionView

LIMIT = 0.25
"""rms error of the outputs relative to their deviation above which the network stays in float: MiniLM's embeddings are 9 % off and lose 0.2 points."""
MEASURED = 4  # calibration samples on which the loss is measured


def has_rows(mod: tvm.IRModule) -> bool:
    """Whether the network has what only rows of 16 bits do well: attention, masks, normalization (but to unit length, at the end of any network), embeddings."""
    return any(isinstance(site, (Attention, MaskedSoftmax, Embedding)) or isinstance(site, Norm) and (site.centre or site.eps > 0) for site in find_sites(FunctionView(main_of(mod))).values())


def quantize(mod: tvm.IRModule, calibration, options: QuantizeOptions = QuantizeOptions(), *,
             progress: Callable[[str, int, int], None] | None = None, **told) -> tvm.IRModule:
    """A float normal form with attention in the integer dialect; every other one in QDQ normal form (``micro.quantize.quantize``, whose
    parameters these are).

    Errors: CalibrationError (missing, empty, wrong shape, NaN).
    """
    if is_quantized(mod) or options.project_channels is not None or not has_rows(mod):
        return plain.quantize(mod, calibration, options, progress=progress, **told)
    data = list(samples_of(mod, calibration, options.samples))
    outputs: list[list[np.ndarray]] = []
    view = FunctionView(main_of(mod))
    seen = observe(mod, data, tensors=calibrated(view, find_sites(view)), outputs=outputs, progress=(lambda done: progress("calibrate", done, len(data))) if progress else None)
    made = lower(mod, seen_of(seen, options.method, options.percentile), WeightScale(options.weight_scale))
    if options.attention_on_chip:
        return made
    lost = loss(made, data, outputs, (lambda done, total: progress("compare", done, total)) if progress else None)
    return made if lost <= LIMIT else _kept(mod, lost)


def loss(made: tvm.IRModule, data, outputs, progress: Callable[[int, int], None] | None = None) -> float:
    """rms error of the integer network's outputs on up to ``MEASURED`` samples, relative to the outputs' deviation."""
    chosen = np.linspace(0, len(data) - 1, min(MEASURED, len(data))).round().astype(int).tolist()
    interpreter, errors = Interpreter(made), []
    for done, i in enumerate(chosen, 1):
        errors.append(output_error(interpreter.run(data[i]), outputs[i]))
        if progress:
            progress(done, len(chosen))
    return float(np.sqrt(np.mean(errors)))


def _kept(mod: tvm.IRModule, lost: float) -> tvm.IRModule:
    """The float module, marked with the reason."""
    reason = (f"a network with attention, of whose outputs 8 and 16 bit integers lose {100 * lost:.0f} % (rms error on calibration data, limit "
              f"{100 * LIMIT:.0f} %): it stays in float")
    remedy = "more typical calibration inputs; QuantizeOptions(attention_on_chip=True) puts it on the chip all the same"
    result = mod.clone()
    result["main"] = main_of(mod).with_attr(KEPT_ATTR, json.dumps({"reason": reason, "remedy": remedy}))
    return result
