"""Where quantization error enters: each layer's output on the chip against the same layer of the float network.

Both run on the same input from the start, so a layer's figure holds the error of everything before it; the layer at
which the signal-to-quantization-noise ratio falls is the one to look at. Where equalization rescaled channels, the
float network is the rescaled one (the same function), so that both sides are in the same unit."""

from __future__ import annotations

import numpy as np

from tvm_ergo.report.model import LayerError
from tvm_ergo.target.errors import InputError

FAR = 1000.0  # times the lower quartile of the magnitudes: larger ones are masks


def compare_layers(compiled, sample: dict[str, np.ndarray] | np.ndarray | None = None) -> list[LayerError]:
    """One row for each chip tensor that also exists in the float network, in order of execution.

    sample : one input of the network; None takes the first calibration sample. For networks that came quantized, the
    float network is their QDQ form evaluated in float. Errors: InputError without an input or without the float network
    (a loaded ``.ergo`` file does not hold it)."""
    from tvm_ergo.codegen.runtime.recording import watch
    from tvm_ergo.relay_passes.interpreter import Interpreter

    if compiled.reference is None and compiled.lowered is not None:
        raise InputError(
            "a network that is given its new rows alone has no float network to compare with",
            where=compiled.source,
            remedy="leave out --new-rows (new_rows): the numbers of every layer are the same without it",
        )
    if compiled.reference is None:
        raise InputError(
            "a compiled file does not hold the float network to compare with",
            where=compiled.file or compiled.source,
            remedy="give the model file itself: tvm-ergo report net.onnx --calibration images.npz --compare",
        )
    feeds = sample if sample is not None else compiled.sample
    if feeds is None:
        raise InputError(
            "there is no input to compare the layers on",
            where=compiled.file or compiled.source,
            required="one input of the network",
            available="no calibration data: a quantized network (.ergoz, int8 .tflite) needs none to be compiled",
            remedy="--compare FILE.npy (or .npz), or --calibration FILE, whose first input is taken; in Python "
            "compare_layers(compiled, inputs)",
        )
    reals: dict[str, np.ndarray] = {}
    named = compiled.reference_inputs(feeds)
    Interpreter(compiled.equalized or compiled.reference).run(named, observe=reals.__setitem__)
    rows: list[LayerError] = []

    def watcher(tensor, value):
        real = reals.pop(source_name(tensor.name, tensor.op), None)  # once: a reshape repeats its producer's values
        if real is not None and tensor.out_scale and real.size == value.size and np.issubdtype(real.dtype, np.floating):
            rows.append(layer_error(tensor, value, real))

    with watch(watcher):
        compiled.run(feeds)
    return rows


def source_name(tensor: str, op: str) -> str:
    """The float network's name of a chip tensor: lowering appends the op to it."""
    return tensor.removesuffix(f"_{op}")


def layer_error(tensor, value: np.ndarray, real: np.ndarray) -> LayerError:
    """value : integers of the chip; real : float values of the same layer, same number of elements in the same
    order."""
    got = tensor.out_scale * (value.astype(np.float64) - tensor.out_zp)
    want = real.astype(np.float64).reshape(got.shape)
    error = got - want
    near = _near(want)
    noise, signal = float(np.mean(error[near] ** 2)), float(np.mean(want[near] ** 2))
    sqnr = None if noise == 0 else 10 * np.log10(max(signal, 1e-30) / noise)
    return LayerError(
        name=tensor.layer or source_name(tensor.name, tensor.op),
        op=tensor.op,
        sqnr_db=sqnr,
        rmse=float(np.sqrt(noise)),
        max_error=float(np.abs(error).max(initial=0)),
        float_min=float(want.min()),
        float_max=float(want.max()),
        scale=tensor.out_scale,
    )


def _near(want: np.ndarray) -> np.ndarray:
    """Where values are of the tensor's usual size: masks of -1e4 or -1e9 would pass for a signal beside which every
    error is small."""
    magnitudes = np.abs(want)
    usual = magnitudes[magnitudes > 0]
    return magnitudes <= FAR * np.quantile(usual, 0.25) if usual.size else np.ones(want.shape, bool)
