"""Every float network is compared with its float self, as the chip computes it, on a few calibration samples: what
compiling it lost, and where.

The loss of an output is defined in `relay_passes.micro.sensitivity`: the rms error relative to the output's deviation,
about. It takes as long as the runs (chip emulated, float evaluated; ``Accuracy.seconds``), and where the loss is above
``WARN`` as long again as it takes to find the tensors it comes from."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np

from tvm_ergo.relay_passes.micro.float_parts import AIM, parts_of
from tvm_ergo.relay_passes.micro.insert_qdq import shown_of
from tvm_ergo.relay_passes.micro.lower_context import scale_of
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.micro.raise_bits import sixteen_of
from tvm_ergo.relay_passes.micro.sensitivity import extremes_first, least_deviations, losses, sensitivity
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView
from tvm_ergo.target.errors import AccuracyError, one_line
from tvm_ergo.target.machine.trace import Trace

WARN = 0.2
"""Loss above which compiling warns. The shared classifiers lose 0.03 to 0.15."""
SAMPLES = 4  # calibration samples that are run, at most
MOST_MACS = 8e9  # multiply-accumulates of all of them together, once there are two: the figure depends on no clock
TENSORS_S = 20.0  # seconds for finding the tensors that lose most
NAMED = 5
FEW_SAMPLES = 32
TOO_FEW = 10  # calibration inputs below which every result says how many there were
TOO_FEW_SHOW = 5  # calibration inputs that show something of an output of known range, below which compiling warns
LEFT_OUT = "compile without calibration data: what the file leaves in float then runs in float, on the host CPU"


class AccuracyWarning(UserWarning):
    """The compiled network's outputs differ from the float network's by more than ``WARN``."""


@dataclass(frozen=True)
class Accuracy:
    """outputs : loss by output name. samples, seconds : what it was measured on, and how long that took. tensors :
    those that lose most, with the loss of the outputs by each alone in 8 bits; found only above ``WARN``. in_float :
    tensors that stay in float because 8 bits cannot carry them. given : calibration inputs there were. unseen :
    outputs of known range of which fewer than ``TOO_FEW_SHOW`` calibration inputs show something, with how many
    do, of how many."""

    outputs: tuple[tuple[str, float], ...]
    samples: int
    seconds: float
    tensors: tuple[tuple[str, float], ...] = ()
    in_float: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    given: int = 0
    unseen: tuple[tuple[str, int, int], ...] = ()

    @property
    def loss(self) -> float:
        """That of the worst output."""
        return max((loss for _, loss in self.outputs), default=0.0)

    def __str__(self) -> str:
        name, loss = max(self.outputs, key=lambda item: item[1])
        inputs = f"{self.samples} calibration input{'s' * (self.samples != 1)}"
        text = (
            f"output {one_line(name)} is {100 * loss:.2g} % off the float network's "
            f"(rms error relative to its deviation, measured on {inputs})"
        )
        if self.tensors:
            text += "; most is lost at " + ", ".join(
                f"{n} ({100 * part:.2g} % by it alone)" for n, part in self.tensors
            )
        if 0 < self.given < TOO_FEW:
            text += (
                f"; ranges are those of {self.given} calibration input{'s' * (self.given != 1)}, and this figure is of "
                "the same: a few dozen typical ones keep more accuracy"
            )
        for output, showing, all_of in self.unseen:
            text += (
                f"; of {all_of} calibration inputs {showing} show something of output {output} (on the others it is "
                "all but constant): on inputs that do, more may be lost than this figure says"
            )
        return text


def measure(compiled, samples: list[dict[str, np.ndarray]], given: int, completed: bool = False, run=None) -> Accuracy:
    """samples : by the model's input names, of ``given`` calibration samples the telling ones. completed : the file
    quantizes the network in part, and the calibration data did the rest (``micro.complete``). run : the integer outputs
    of a sample; None: by the compiled model."""
    run = run or (lambda sample: compiled.run(sample).outputs.values())
    start, got, wanted = time.monotonic(), [], []
    macs = sum(Trace(program, compiled.chip).macs for program in compiled.programs.values())
    for sample in samples[: max(2, int(MOST_MACS / max(macs, 1)))]:
        with np.errstate(all="ignore"):
            wanted.append([np.asarray(a) for a in compiled.run_float(sample)])
            got.append([np.asarray(a) for a in run(sample)])
    lost = losses(got, wanted, least_deviations(compiled.reference))
    parts = parts_of(compiled.quantized["main"]) or {"tensors": {}}
    outputs = tuple(zip((o.name for o in compiled.outputs), lost, strict=True))
    tensors = worst_tensors(compiled, samples[:1]) if max(lost, default=0.0) > WARN else ()
    return Accuracy(
        outputs,
        len(got),
        time.monotonic() - start,
        tensors,
        tuple(parts["tensors"]),
        _remedies(bool(tensors), given, completed, sixteen_of(compiled.quantized) is not None),
        given,
        _unseen(compiled),
    )


def _unseen(compiled) -> tuple[tuple[str, int, int], ...]:
    names = [o.name for o in compiled.outputs]
    counts = shown_of(compiled.quantized)
    return tuple((names[i], n, of) for i, (n, of) in counts.items() if n < min(TOO_FEW_SHOW, of) and i < len(names))


def worst_tensors(compiled, samples: list[dict[str, np.ndarray]]) -> tuple[tuple[str, float], ...]:
    """The tensors by which the outputs lose most, each alone in 8 bits and all else in float; none for networks that
    are not quantized tensor by tensor."""
    view, params = FunctionView(main_of(compiled.quantized)), {}
    for var in view.order:
        if view.op(var) == "relax.quantize":
            quant = scale_of(view, view.value[var])
            if quant is not None:
                params[view.value[var].args[0].name] = QuantParams(quant.scale, quant.zero_point)
    if not params:
        return ()
    found = sensitivity(
        compiled.equalized or compiled.reference,
        params,
        [compiled.reference_inputs(s) for s in samples],
        limit_s=TENSORS_S,
    )
    ranked, told = [], set()
    for name, loss in found.worst(
        len(found.loss)
    ):  # a tensor that is only moved loses what its source does: named once
        if loss > 0 and loss not in told:
            told.add(loss)
            ranked.append((name, loss))
    return tuple(ranked[:NAMED])


def _remedies(tensor_by_tensor: bool, given: int, completed: bool, raised: bool = False) -> tuple[str, ...]:
    """raised : tensors are in 16 bits already."""
    found = [LEFT_OUT] if completed else []
    if tensor_by_tensor and not completed and not raised:
        found.append(
            f"--sixteen-bits {AIM} (QuantizeOptions(sixteen_bits={AIM})) makes such tensors int16 where that helps"
        )
    if tensor_by_tensor and not completed:
        found.append(
            f"--float-parts {AIM} (QuantizeOptions(float_parts={AIM})) keeps these tensors in float, on the host CPU"
        )
    if given < FEW_SAMPLES:
        found.append(
            "more calibration inputs, typical ones, quiet and loud, dark and bright: "
            f"there are {given}, and 64 are used"
        )
    return (
        *found,
        "quantize these tensors in the model too (QuantizeLinear, DequantizeLinear)"
        if completed
        else "train the network with quantization and export it with QuantizeLinear and DequantizeLinear: "
        "it is taken as it is",
    )


def helps(accuracy: Accuracy) -> tuple[str, ...]:
    """Remedies, that of unseen outputs first; without a loss above ``WARN`` it is the only one."""
    more = tuple(f"calibration inputs on which {name} is not all but constant" for name, _, _ in accuracy.unseen)
    return (*more, *(accuracy.remedies if accuracy.loss > WARN else ()))


def judged(accuracy: Accuracy, strict: float | None) -> Accuracy:
    """Warns above ``WARN``, and where calibration showed little of an output.

    Errors: AccuracyError above ``strict``, or where calibration shows too little of an output to say."""
    if strict is not None and accuracy.loss > strict:
        remedies = (
            accuracy.remedies
            if LEFT_OUT in accuracy.remedies or any("--float-parts" in r for r in accuracy.remedies)
            else (
                f"--float-parts {strict:g} (QuantizeOptions(float_parts={strict:g})) keeps in float, on the host CPU, "
                "what it is lost at",
                *accuracy.remedies,
            )
        )
        raise AccuracyError(
            "the compiled network is not as accurate as asked for",
            required=f"a loss of at most {strict:g} (--strict-accuracy, strict_accuracy)",
            available=f"{accuracy.loss:.3g}: {accuracy}",
            remedy="; or ".join(remedies),
        )
    if strict is not None and accuracy.unseen:
        name, showing, given = accuracy.unseen[0]
        raise AccuracyError(
            f"what is lost of output {one_line(name)} cannot be said: calibration shows hardly anything of it",
            required=f"{min(TOO_FEW_SHOW, given)} calibration inputs or more that show something of it "
            "(--strict-accuracy, strict_accuracy)",
            available=f"{showing} of {given}; on them {accuracy.loss:.3g} is lost",
            remedy="; or ".join([*helps(accuracy), "leave out --strict-accuracy (strict_accuracy)"]),
        )
    if accuracy.loss > WARN or accuracy.unseen:
        warnings.warn(AccuracyWarning(f"{accuracy}. What helps: {'; or '.join(helps(accuracy))}"), stacklevel=3)
    return accuracy


def telling_samples(data: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The samples to measure on, the quietest and the loudest first."""
    return [data[i] for i in extremes_first(data, SAMPLES)]
