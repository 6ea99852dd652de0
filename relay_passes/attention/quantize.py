"""Post-training quantization of a network with attention or normalized rows: calibration, lowering to the integer
dialect, and what that loses, measured.

Where the loss is above ``LIMIT`` the network stays in float and says of which kind of tensor it comes; any other
network goes the way of ``micro.quantize``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tvm

from tvm_ergo.relay_passes import interpreter_ergo  # noqa: F401  (its import gives the interpreter the integer dialect)
from tvm_ergo.relay_passes.attention import sixteen
from tvm_ergo.relay_passes.attention.declared import from_file
from tvm_ergo.relay_passes.attention.find import calibrated, find_sites, has_rows
from tvm_ergo.relay_passes.attention.lower import Seen, lower, seen_of
from tvm_ergo.relay_passes.attention.migrate import migrate
from tvm_ergo.relay_passes.attention.sealed import lower_sealed, seal
from tvm_ergo.relay_passes.dialect import from_call, is_ergo_call
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro import quantize as plain
from tvm_ergo.relay_passes.micro.calibrate import observe, samples_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized, output_error
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import KEPT_ATTR, bindings_of, main_of
from tvm_ergo.relay_passes.support import FunctionView

LIMIT = 0.25
"""rms error of the outputs relative to their deviation above which the network stays in float: MiniLM's embeddings are
9 % off and lose 0.2 points."""
MEASURED = 4  # calibration samples on which the loss is measured


def quantize(
    mod: tvm.IRModule,
    calibration,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    progress: Callable[[str, int, int], None] | None = None,
    on_seen: Callable[[Seen], None] | None = None,
    **told,
) -> tvm.IRModule:
    """A float normal form with attention in the integer dialect; every other one in QDQ normal form
    (``micro.quantize.quantize``, whose parameters these are).

    on_seen : told what calibration saw, where the network went into the integer dialect.

    Errors: CalibrationError (missing, empty, wrong shape, NaN).
    """
    if options.project_channels is None and is_quantized(mod) and calibration is not None:
        data = list(samples_of(mod, calibration, options.samples))
        made = from_file(mod, lambda base: seen_in(base, data, options, progress))
        if made is not None:
            return made
    if is_quantized(mod) or options.project_channels is not None or not has_rows(mod):
        return plain.quantize(mod, calibration, options, progress=progress, **told)
    data = list(samples_of(mod, calibration, options.samples))
    outputs: list[list[np.ndarray]] = []
    seen = seen_in(mod, data, options, progress, outputs)
    made, seen, lost = _with_sixteen(
        mod, seen, lambda found: lower(mod, found, WeightScale(options.weight_scale)), data, outputs, progress
    )
    if lost > LIMIT and not options.attention_on_chip:
        return _kept(mod, lost, first_part_off(mod, made, data[0]))
    if on_seen is not None:
        on_seen(seen)
    return made


def _with_sixteen(mod, seen: Seen, made: Callable[[Seen], tvm.IRModule], data, outputs, progress=None):
    """``(the integer module, what was seen with the tensors that need 16 bits, the loss)``."""

    def measured(module: tvm.IRModule) -> float:
        return loss(module, data, outputs, (lambda done, total: progress("compare", done, total)) if progress else None)

    narrow = made(seen)
    lost = measured(narrow)
    order = sixteen.ranked(mod, seen, data[0]) if lost > sixteen.AIM else []
    some, wide, lost = sixteen.raised(order, lost, lambda names: made(replace(seen, sixteen=names)), measured)
    return (narrow if wide is None else wide), replace(seen, sixteen=some), lost


def seen_in(mod: tvm.IRModule, data, options: QuantizeOptions, progress=None, outputs: list | None = None) -> Seen:
    """The ranges of a calibration run. data: a list of samples; outputs: the float network's are appended."""
    view = FunctionView(main_of(mod))
    seen = observe(
        mod,
        data,
        tensors=calibrated(view, find_sites(view)),
        outputs=outputs,
        progress=(lambda done: progress("calibrate", done, len(data))) if progress else None,
    )
    return seen_of(seen, options.method, options.percentile)


def quantize_for_file(
    mod: tvm.IRModule,
    calibration,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    progress: Callable[[str, int, int], None] | None = None,
    on_equalized: Callable[[tvm.IRModule], None] | None = None,
) -> tvm.IRModule:
    """As ``quantize``, in a form that a compressed network's file holds: of a network with attention one that is sealed
    (`sealed`), not yet lowered.

    on_equalized: is told the float network whose large channels are in the weights; without it they stay where they
    are. Errors: CalibrationError.
    """
    if is_quantized(mod) or options.project_channels is not None or not has_rows(mod):
        return plain.quantize(mod, calibration, options, progress=progress, on_equalized=on_equalized)
    data = list(samples_of(mod, calibration, options.samples))
    outputs: list[list[np.ndarray]] = []
    seen = seen_in(mod, data, options, progress, outputs)
    base = mod if on_equalized is None else migrate(mod, seen)
    if base is not mod:
        seen = seen_in(base, data, options)
    _, seen, lost = _with_sixteen(base, seen, lambda found: lower_sealed(seal(base, found)), data, outputs)
    if on_equalized is None:
        return seal(mod, seen)
    if lost > LIMIT and not options.attention_on_chip:
        return _kept(mod, lost, "")
    on_equalized(base)
    return seal(base, seen)


def loss(made: tvm.IRModule, data, outputs, progress: Callable[[int, int], None] | None = None) -> float:
    """rms error of the integer network's outputs on up to ``MEASURED`` samples, relative to the outputs' deviation."""
    chosen = np.linspace(0, len(data) - 1, min(MEASURED, len(data))).round().astype(int).tolist()
    interpreter, errors = Interpreter(made), []
    for done, i in enumerate(chosen, 1):
        errors.append(output_error(interpreter.run(data[i]), outputs[i]))
        if progress:
            progress(done, len(chosen))
    return float(np.sqrt(np.mean(errors)))


def first_part_off(mod: tvm.IRModule, made: tvm.IRModule, sample) -> str:
    """Where it begins, in words: the first tensor whose error on a sample is above ``LIMIT``; the one that is off most
    where none is."""
    reals: dict[str, np.ndarray] = {}
    Interpreter(mod).run(sample, reals.__setitem__)
    ops = {str(var.name): from_call(value) for var, value in bindings_of(main_of(made)) if is_ergo_call(value)}
    found: list[tuple[float, str]] = []

    def watch(name: str, value: np.ndarray) -> None:
        op = ops.get(name)
        real = None if op is None or not op.out_scale else reals.pop(name.removesuffix(f"_{op.op_name}"), None)
        if (
            real is not None
            and real.dtype.kind == "f"
            and real.size == value.size
            and (deviation := float(real.std())) > 0
        ):
            off = op.out_scale * (value.astype(np.float64).reshape(real.shape) - op.out_zp) - real
            found.append(
                (
                    float(np.sqrt(np.mean(off**2))) / deviation,
                    f"{name.removesuffix(f'_{op.op_name}')} ({op.op_name}, {value.dtype})",
                )
            )

    Interpreter(made).run(sample, watch)
    if not found:
        return ""
    error, part = next((f for f in found if f[0] > LIMIT), max(found))
    return (
        f"; the first tensor to lose so much is {part}: {100 * error:.0f} %"
        if error > LIMIT
        else f"; no tensor before loses more than {part}: {100 * error:.0f} %"
    )


def _kept(mod: tvm.IRModule, lost: float, where: str) -> tvm.IRModule:
    """The float module, marked with the reason."""
    reason = (
        f"a network with attention, of whose outputs 8 and 16 bit integers lose {100 * lost:.0f} % (rms error on "
        f"calibration data, limit "
        f"{100 * LIMIT:.0f} %): it stays in float{where}"
    )
    remedy = "more typical calibration inputs; QuantizeOptions(attention_on_chip=True) puts it on the chip all the same"
    result = mod.clone()
    result["main"] = main_of(mod).with_attr(KEPT_ATTR, json.dumps({"reason": reason, "remedy": remedy}))
    return result
