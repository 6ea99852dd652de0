"""``tvm_ergo.compile`` and ``tvm_ergo.quantize``: the short forms with all options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tvm

from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.accuracy import judged, measure, telling_samples
from tvm_ergo.chain import described
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.space import Objective
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.entries import checked, with_entries
from tvm_ergo.pipeline import PipelineOptions, Progress, fallbacks_of, host_build, is_integer, run_stages, walk
from tvm_ergo.post import post_options
from tvm_ergo.post.behind import behind
from tvm_ergo.relay_passes.attention.declared import stripped
from tvm_ergo.relay_passes.attention.lengths import tokens_of
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized
from tvm_ergo.relay_passes.micro.raise_bits import sixteen_of
from tvm_ergo.stage_watch import current as current_watch
from tvm_ergo.states import carried
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import CalibrationError, InputError
from tvm_ergo.target.tags import chip_of_target, target_of_chip
from tvm_ergo.tokenizer import Tokenizer
from tvm_ergo.tuning.store import Database, current
from tvm_ergo.waiting import Compression
from tvm_ergo.windows import check_alone, given_rows, notes_of, stepped, whole_run


@exclusively()
def quantize(
    model,
    calibration,
    options: QuantizeOptions = QuantizeOptions(),
    *,
    input_shapes: dict | None = None,
    batch: int = 1,
    example_inputs=None,
    progress: Progress | None = None,
) -> tvm.IRModule:
    """A model in QDQ normal form, ready for ``tvm.compile(mod, target="ergo")``.

    Parameters
    ----------
    model : whatever `tvm_ergo.frontend.load` reads. calibration : typical inputs: an array [n, ...] for a net with one
    input, or a sequence of dicts (or arrays) per sample. options : ranges, equalization, bias correction. input_shapes,
    batch : for dynamic dimensions. example_inputs : of a ``torch.nn.Module`` (see `compile`).

    Errors: ModelError, CalibrationError, InputError (an option of a wrong type).
    """
    from tvm_ergo.relay_passes.attention.quantize import quantize as quantize_module

    options, progress = given.quantization("options", options), given.callback("progress", progress)
    input_shapes, batch = given.shapes(input_shapes), given.whole_number("batch", batch)
    if calibration is None:
        raise CalibrationError(
            "there is no calibration data",
            required="a few typical inputs (about 100)",
            remedy="give calibration=[...] (--calibration FILE.npz), samples as the network takes them",
        )
    imported = frontend.load(
        model, input_shapes=input_shapes, batch=batch, example_inputs=example_inputs, calibration=calibration
    )
    return quantize_module(normalize(imported.mod), renamed(calibration, imported), options, progress=progress)


@exclusively()
def compile(
    model,
    *,
    target: str | Path | tvm.target.Target | Chip = "ergo",
    calibration=None,
    memory: int | str | None = None,  # noqa: A001
    objective: str = "latency",
    compression: str = "auto",
    weights: str = "auto",
    binary: bool = True,
    binary_inputs: bool = False,
    stream: bool = False,
    strict: bool = False,
    strict_accuracy: float | None = None,
    quantize: QuantizeOptions = QuantizeOptions(),
    input_shapes: dict | None = None,
    batch: int = 1,
    example_inputs=None,
    database: str | Path | None = None,
    lengths: Sequence[int] = (),
    generate: bool = False,
    tokenizer: str | Path | Tokenizer | None = None,
    new_rows: int | None = None,
    rows_axis: int | None = None,
    post=None,
    progress: Progress | None = None,
) -> CompiledModel:
    """A model compiled for the chip, with what does not fit it on the host CPU.

    Parameters
    ----------
    model : path or bytes of an ONNX or TFLite file, path of a ``torch.export`` archive (.pt2), an ``onnx.ModelProto``,
    a ``torch.nn.Module``, a ``torch.export.ExportedProgram``, a Relax module, or what `frontend.load` gave.
    target : tag ("ergo", "ergo/1", "ergo/2"), path of a chip file, TVM target, or Chip.
    calibration : typical inputs, needed to quantize a model in floating point (see `quantize`), and what a model that
    is quantized in part leaves in float.
    memory : bytes of unified memory (65536 or "64KiB"), instead of the chip's own: weights, frame and activations
    together. Layers that do not fit it whole run in rows and tiles.
    objective : what is made least within that memory: "latency", "energy", or "memory" (activation bytes, at the cost
    of time).
    stream : the input picture is not in the memory when the chip starts: its rows are received as they are needed, and
    the frame never exists as a whole (`run` takes the array as ever). strict : refuse models that need the host CPU.
    strict_accuracy : refuse a float network of whose outputs more than this is lost (`tvm_ergo.accuracy`: rms error
    relative to their deviation, on a few calibration samples, as the chip computes them); without it,
    ``CompiledModel.accuracy`` tells, and above 0.2 there is an AccuracyWarning.
    quantize : choices of the quantization. input_shapes, batch : for dynamic dimensions, which
    otherwise take the sizes of the calibration data. example_inputs : what a ``torch.nn.Module`` is called with:
    a tensor (or array), a tuple of them, or a dict by argument name.
    compression : "auto" compresses tensors that wait where the network does not fit otherwise, or objective="memory"
    gains by it; it measures them on the calibration data (give some for quantized models too). Data denser than those
    lose low bits, tile by tile, and a run counts that. "lossless" reserves the worst case instead, so that nothing is
    ever lost. "off" compresses nothing.
    weights : "auto" codes constant weights where their decoder keeps up with the layer, so that it costs no time, and
    more of them where the network does not fit otherwise or objective="memory" asks for it; "coded" takes the fewest
    bytes, whatever time that costs; "dense" codes nothing. Results are the same to the bit.
    binary : layers of signs with weights of two magnitudes run packed on the binary engine, where the chip has one;
    False: in int8. Results are the same to the bit. binary_inputs : float inputs that hold two values -v and v in all
    of 8 or more calibration samples are taken for signs, so that the first layer may run packed too; any other value
    counts as the nearer of the two.
    database : folder that `tvm_ergo.tune` (``tvm-ergo tune --out``) wrote: chip functions found in it are carried out
    as planned there, with the same results; others as ever. Made for another chip, compiler, model or for more memory,
    it is refused; so are weights, objective and compression other than their defaults and than those it was tuned with.
    lengths : of a network with attention: numbers of tokens below that of the file for which there are Programs too,
    with shared weights; `CompiledModel.run` takes arrays of fewer tokens and chooses. Weights are then stored dense.
    generate : a causal network also writes token by token (`CompiledModel.generate`), with caches of keys and values in
    the chip's memory. tokenizer : its vocabulary, a file (see `tvm_ergo.tokenizer`), kept in the compiled model.
    new_rows : the input is a window that moves over a signal by so many rows a run: `run` takes these alone, rows that
    are needed again stay in the chip's memory as states, and only what the new rows change is computed. After each run
    the outputs are those of the whole network over the last rows, to the bit; rows before the first run count as zeros
    (docs/always_on.md). rows_axis : the input's axis that counts rows; without it, that with which least is computed.
    post : post-processing on the chip's CPU behind the network (`tvm_ergo.post`): an object (``Yolox(score=0.3)``) or a
    name ("softmax"); the model's outputs are then boxes, classes and the like (docs/post.md).
    progress : ``progress(step, done, total)``, called on long work.

    Errors: AccuracyError (strict_accuracy), DatabaseError (see database), ModelError (model unreadable),
    CalibrationError (missing or unusable data), OutOfMemoryError (does not fit), UnsupportedError (strict, or stream
    without a picture), TargetError (unknown chip), InputError (an option of a wrong type or value)."""
    quantize, progress = given.quantization("quantize", quantize), given.callback("progress", progress)
    stream, strict = given.flag("stream", stream), given.flag("strict", strict)
    strict_accuracy = given.positive("strict_accuracy", strict_accuracy)
    objective, compression = (
        given.choice("objective", objective, Objective),
        given.choice("compression", compression, Compression),
    )
    weights, binary = given.choice("weights", weights, Weights), given.flag("binary", binary)
    binary_inputs = given.flag("binary_inputs", binary_inputs)
    input_shapes, batch = given.shapes(input_shapes), given.whole_number("batch", batch)
    generate, lengths = given.flag("generate", generate), given.whole_numbers("lengths", lengths)
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        tokenizer = Tokenizer.read(tokenizer)
    post = post_options(post)
    new_rows, rows_axis = given_rows(new_rows, rows_axis)
    if new_rows is not None:
        check_alone({"lengths": bool(lengths), "generate": generate, "post": post is not None, "stream": stream})
    chip = chip_of_target(target)
    if memory is not None:
        chip = chip.with_memory(memory)
    tuned = current() if database is None else Database.read(database)
    if tuned is not None:
        tuned.check(chip)
        asked = {"weights": weights, "objective": objective, "compression": compression}
        tuned.check_options(
            **{
                name: value.value
                for name, value in asked.items()
                if value not in (Weights.AUTO, Objective.LATENCY, Compression.AUTO)
            }
        )
    imported = frontend.load(
        model, input_shapes=input_shapes, batch=batch, example_inputs=example_inputs, calibration=calibration
    )
    if hasattr(calibration, "__next__"):
        calibration = list(calibration)  # quantizing and measuring both look at it
    options = PipelineOptions(
        chip,
        renamed(calibration, imported),
        quantize,
        strict,
        progress,
        (equalized := []).append,
        objective,
        (projected := []).append,
        stream,
        compression,
        weights,
        tuned,
        (seen := []).append,
        binary=binary,
        binary_inputs=binary_inputs,
    )
    reference = run_stages(imported.mod, options, until="normalize")
    wanted = checked(lengths, generate, tokens_of(reference))
    if wanted is not None and post is not None:
        raise InputError(
            "post-processing behind a network for several lengths is not there yet",
            required="post, or lengths and generate",
            remedy="leave out --post, or --lengths and --generate",
        )
    quantized = run_stages(reference, options, start="quantize", until="quantize")
    if is_integer(quantized) and not is_integer(reference) and is_quantized(reference):
        reference = stripped(reference)[0]  # what the chip's tensors stand for: the file's weights, nothing rounded
    whole = lowered = run_stages(quantized, options, start="lower_quantized", until="lower_quantized")
    ports = imported
    if new_rows is not None:
        made, ports = stepped(lowered, imported, new_rows, rows_axis)
        lowered = made.mod
    data_of_windows = replace(options, calibration=None, compression=Compression.OFF)
    chain, partitioned, mod = None, lowered, lowered
    for name, mod in walk(lowered, options if new_rows is None else data_of_windows, start="check_strict"):
        if name == "compress":
            chain, partitioned = described(mod), mod
    with host_build(), current_watch().timed("build"):
        executable = tvm.relax.build(mod, target_of_chip(chip), relax_pipeline=None)
        module = executable.jit()
    compiled = CompiledModel(
        module,
        chip,
        ports.inputs,
        ports.outputs,
        tuple(fallbacks_of(lowered)),
        ports.source,
        quantized=quantized,
        lowered=lowered,
        reference=reference,
        executable=executable,
        equalized=equalized[0] if equalized else None,
        projection=projected[0] if projected else None,
        sample=_first_sample(calibration, imported),
        chain=chain,
        states=ports.states,
    )
    if (
        options.calibration is not None
        and compiled.programs
        and not imported.states
        and not is_integer(reference)
        and (not is_quantized(reference) or quantized is not reference)
    ):
        data = list(samples_of(reference, options.calibration, quantize.samples))
        names = dict(zip(imported.parameters, (i.name for i in imported.inputs)))
        samples = [{names.get(n, n): a for n, a in sample.items()} for sample in telling_samples(data)]
        with current_watch().timed("measure_accuracy"):
            of_windows = replace(compiled, inputs=imported.inputs, states=())  # what the float network takes
            run = None if new_rows is None else whole_run(of_windows, whole)
            loss = measure(of_windows if run else compiled, samples, len(data), is_quantized(reference), run)
        compiled = replace(compiled, accuracy=judged(loss, strict_accuracy))
    raised = sixteen_of(quantized)
    if raised is not None:
        compiled = replace(compiled, notes=(str(raised),))
    if new_rows is not None:
        # the float network and its samples are of whole windows
        compiled = replace(
            compiled, reference=None, quantized=None, sample=None, notes=(*compiled.notes, *notes_of(made))
        )
    if wanted is not None:
        compiled = with_entries(compiled, seen[-1] if seen else None, options, wanted)
    if post is not None:
        compiled = behind(compiled, partitioned, post)
    return compiled if tokenizer is None else replace(compiled, tokenizer=tokenizer)


def renamed(calibration, imported: frontend.Imported):
    """Calibration samples by the model's input names, renamed to the parameters of its function (names made
    identifiers); with the states before each."""
    return carried(_renamed(calibration, imported), imported)


def _renamed(calibration, imported: frontend.Imported):
    names = dict(zip((i.name for i in imported.inputs), imported.parameters))

    def one(sample):
        return {names.get(k, k): v for k, v in sample.items()} if isinstance(sample, dict) else sample

    if all(a == b for a, b in names.items()) or calibration is None:
        return calibration
    if isinstance(calibration, dict):
        return one(calibration)
    return calibration if hasattr(calibration, "shape") else [one(sample) for sample in calibration]


def _first_sample(calibration, imported: frontend.Imported) -> dict | None:
    """One calibration input by the model's input names, for the comparison of layers; None where it cannot be had
    twice."""
    names = [i.name for i in imported.inputs]
    if isinstance(calibration, dict):
        return {name: np.asarray(calibration[name])[:1] for name in names if name in calibration} or None
    if hasattr(calibration, "shape") and len(names) == 1:
        return {names[0]: calibration[:1]}
    if isinstance(calibration, (list, tuple)) and calibration:
        first = calibration[0]
        return dict(first) if isinstance(first, dict) else {names[0]: np.asarray(first)} if len(names) == 1 else None
    return None
