"""One entry an error class; a test holds that none is missing and that the commands are commands."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tvm_ergo.target import errors
from tvm_ergo.target.errors import ErgoError, InputError

EXIT_CODES = {
    0: "done",
    1: "a condition of --fail-if holds (card, compare); nothing is wrong with the input",
    2: "wrong input of any kind, a limit that cannot be met, a file that cannot be read or written: one message on "
    "standard error, no traceback, no result half written",
    130: "interrupted (Ctrl-C); what was finished before is kept where the command says so",
}


@dataclass(frozen=True)
class Explanation:
    """means : in two sentences. causes : the usual ones, the likeliest first, each with what to do. commands : what to
    type, with ``net.tflite``, ``net.onnx`` and alike in place of the user's files."""

    means: str
    causes: tuple[str, ...]
    commands: tuple[str, ...]


ENTRIES: dict[type[ErgoError], Explanation] = {
    errors.ModelError: Explanation(
        "The model file cannot be read, or holds something that no network can hold: it is cut off, its shapes are not "
        "known, its weights are not numbers.",
        (
            "An input has dynamic axes: name the shape with --input-shape.",
            "It is another format than its ending says, or a download that was cut off: export or fetch it again.",
            "It needs more bytes than files may ask for: raise --max-model-bytes if you trust it.",
            "It is a .pt, .h5, .keras or SavedModel file: export it to ONNX, .tflite or .pt2 (torch.export) first.",
        ),
        (
            "tvm-ergo compile net.onnx --input-shape input=1,3,224,224",
            "tvm-ergo report net.onnx --max-model-bytes 8GiB",
        ),
    ),
    errors.UnsupportedError: Explanation(
        "The chip cannot do something in the way it was asked for: an operator with these parameters under --strict, "
        "or an option that does not fit the network.",
        (
            "An operator would run on the host CPU: leave --strict out to see what that costs, or change the operator "
            "as the remedy says.",
            "The network is in float and no calibration data were given, so nothing could be quantized: give some.",
            "--lengths, --generate or --stream were asked of a network that has no tokens, no causal mask, no picture.",
        ),
        ("tvm-ergo ops conv2d", "tvm-ergo compile net.onnx --calibration samples.npz", "tvm-ergo card net.onnx"),
    ),
    errors.AccuracyError: Explanation(
        "After quantization the outputs differ from the float network's by more than --strict-accuracy allows, "
        "measured on calibration inputs.",
        (
            "Too few or untypical calibration inputs: a few dozen that look like real ones.",
            "Some tensors have a few very large values: --sixteen-bits or --float-parts for the worst.",
            "The network was not made for 8 bits: train it with quantization and export QuantizeLinear nodes.",
        ),
        (
            "tvm-ergo report net.onnx --calibration samples.npz --compare samples.npz",
            "tvm-ergo compile net.onnx --calibration samples.npz --sixteen-bits 0.05",
            "tvm-ergo compile net.onnx --calibration samples.npz --float-parts 0.1",
        ),
    ),
    errors.CalibrationError: Explanation(
        "Calibration data are missing, empty, of another shape, or not finite, or a tensor was never seen with them.",
        (
            "Names or shapes differ from the model's inputs: the message has both. An .npz has one array an input, "
            "first axis samples.",
            "Values are NaN or infinite: look at how the file was made.",
        ),
        ("tvm-ergo compile net.onnx --calibration samples.npz",),
    ),
    errors.InputError: Explanation(
        "A value that was given has the wrong name, shape, type or range: an option, an array, a state.",
        (
            "An option is misspelt or contradicts another one: the remedy names the nearest.",
            "An array has another shape or dtype than the model's input: the message has both.",
        ),
        ("tvm-ergo report net.ergo", "tvm-ergo card net.onnx --input-shape input=1,3,224,224"),
    ),
    errors.ProgramError: Explanation(
        "The bytes of a compiled model (.ergo), or the text of a Program, are damaged or of another version.",
        (
            "The file was cut off or changed: compile it again.",
            "It was compiled by another version of the product: compile it again with this one.",
        ),
        ("tvm-ergo compile net.tflite -o net.ergo", "tvm-ergo disasm net.ergo"),
    ),
    errors.TargetError: Explanation(
        "There is no such chip, or a chip file does not describe one.",
        (
            "The name is misspelt: the built-in chips are ergo/1 and ergo/2.",
            "A field of a chip file is missing or out of range: the message names it; docs/chip_file.md has them all.",
        ),
        ("tvm-ergo targets", "tvm-ergo targets chip.json"),
    ),
    errors.OutOfMemoryError: Explanation(
        "The network does not fit the chip's memory in any plan that was found. The message has the least size found; "
        "it is not proven to be the least there is.",
        (
            "Activations are too large: --stream where rows of the picture arrive one by one, --objective memory, "
            "--compression auto with calibration data.",
            "Constants are too large: --weights coded, or make the network smaller with compress.",
            "The chip is too small: see what each size buys with explore.",
        ),
        (
            "tvm-ergo compile net.tflite --stream --objective memory",
            "tvm-ergo explore net.tflite --stream",
            "tvm-ergo compress net.onnx --calibration samples.npz --max-drop 0.5 --data test.npz -o net.ergoz",
        ),
    ),
    errors.MachineError: Explanation(
        "The emulated chip was asked for something undefined: an address outside its memory, bytes nobody wrote, two "
        "engines at the same bytes. A compiled Program never does that; one written or changed by hand may.",
        (
            "The Program was written or changed by hand: the message names the instruction.",
            "Otherwise this is a fault of the compiler: please report it with the model.",
        ),
        ("tvm-ergo disasm net.ergo",),
    ),
    errors.CompressionError: Explanation(
        "The network cannot be made as small as was asked, or not at so little loss.",
        (
            "The target is below what was reached: the message has the sizes found and their losses.",
            "The network is quantized already: compress the float network it was made from.",
        ),
        ("tvm-ergo compress net.onnx --calibration samples.npz --data test.npz --max-drop 1.0 -o net.ergoz",),
    ),
    errors.RemoteError: Explanation(
        "Workers on other machines that were to measure schedules cannot be reached, or failed.",
        (
            "No worker listens at that address, or a firewall is in between: start one there.",
            "The key differs: both sides need the same file.",
        ),
        (
            "tvm-ergo worker --listen 0.0.0.0:9190 --key key.txt",
            "tvm-ergo tune net.tflite --workers host:9190 --key key.txt --out tuned",
        ),
    ),
    errors.BudgetError: Explanation(
        "The network cannot meet the power, energy, latency or frame rate that was asked for. The message has what "
        "bounds it and the nearest that was found.",
        (
            "The rate is beyond the chip's fastest operating point: lower it, or make the network smaller.",
            "Leakage alone takes the power: --gating, or a chip with less memory.",
        ),
        (
            "tvm-ergo tune net.tflite --fps 30 --power-budget 5mW --gating --out tuned",
            "tvm-ergo report net.tflite --fps 30",
        ),
    ),
    errors.DatabaseError: Explanation(
        "Results of tuning were made for something else: another chip, model, compiler or memory limit.",
        ("The model or its options changed since: tune again, or compile with what it was tuned with.",),
        ("tvm-ergo tune net.tflite --out tuned", "tvm-ergo compile net.tflite --database tuned"),
    ),
    errors.OutputError: Explanation(
        "A result cannot be written. Nothing is half written: an old file of that name is still whole.",
        (
            "The folder does not exist or may not be written to.",
            "The disk is full.",
            "Two results were asked for in one file, or a result would replace an input.",
        ),
        ("tvm-ergo compile net.tflite -o out/net.ergo",),
    ),
}


def explanation(code: str) -> tuple[type[ErgoError], Explanation]:
    """By the name of an error class, in any case, with or without "Error". Errors: InputError with the nearest."""
    names = {cls.__name__.lower().removesuffix("error"): cls for cls in ENTRIES}
    wanted = code.lower().removesuffix("error")
    found = names.get(wanted)
    if found is None:
        near = difflib.get_close_matches(wanted, names, 1, 0.5)
        raise InputError(
            f"there is no error {code}",
            available=", ".join(cls.__name__ for cls in ENTRIES),
            remedy=f"tvm-ergo explain {names[near[0]].__name__}" if near else "tvm-ergo explain",
        )
    return found, ENTRIES[found]
