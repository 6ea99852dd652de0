"""Opening a model for any command: a compiled ``.ergo`` file is loaded, anything else is compiled first."""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

from tvm_ergo.cli.common import DEFAULT_TARGET, console, read_calibration, write_results_together
from tvm_ergo.cli.post_arguments import read_post
from tvm_ergo.cli.progress import progress_bar
from tvm_ergo.target.errors import InputError


def is_compiled(path: str) -> bool:
    return Path(path).suffix == ".ergo"


COMPILE_OPTIONS = (
    "target",
    "memory",
    "objective",
    "calibration",
    "method",
    "percentile",
    "equalize",
    "project_channels",
    "float_parts",
    "sixteen_bits",
    "strict_accuracy",
    "input_shape",
    "strict",
    "stream",
    "new_rows",
    "rows_axis",
    "compression",
    "weights",
    "lossless",
    "post",
    "post_option",
    "no_binary",
    "binary_inputs",
)
"""Names of the options that only compiling heeds."""


def refuse_compile_options(arguments: argparse.Namespace) -> None:
    """Errors: InputError if an option is given that only compiling would heed."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in COMPILE_OPTIONS
        if getattr(arguments, name, None) not in (None, [], False, DEFAULT_TARGET)
    ]
    if given:
        raise InputError(
            f"a compiled model does not change any more: {', '.join(given)} would have no effect",
            where=arguments.model,
            remedy="give the model file (.onnx, .tflite) with these options, or leave them out",
        )


def without_compile_options(arguments: argparse.Namespace) -> argparse.Namespace:
    """A copy in which no option is given that only compiling would heed."""
    found = argparse.Namespace(**vars(arguments))
    for name in COMPILE_OPTIONS:
        if hasattr(found, name):
            value = getattr(found, name)
            given = DEFAULT_TARGET if name == "target" else [] if isinstance(value, list) else False
            setattr(found, name, given if name == "target" or isinstance(value, (list, bool)) else None)
    return found


def open_model(arguments: argparse.Namespace):
    """The CompiledModel of ``arguments.model``. Errors: every ErgoError of loading or compiling."""
    import tvm_ergo
    from tvm_ergo.accuracy import AccuracyWarning

    if is_compiled(arguments.model):
        refuse_compile_options(arguments)
        return tvm_ergo.load(arguments.model, programs_only=getattr(arguments, "programs_only", False))
    if getattr(arguments, "programs_only", False) and not arguments.strict:
        raise InputError(
            "--programs-only is of compiled models (.ergo)",
            where=arguments.model,
            remedy="leave it out; --strict refuses models that need the host CPU",
        )
    post, calibration = read_post(arguments), read_calibration(arguments.calibration)
    start = time.perf_counter()
    with progress_bar(f"compiling {Path(arguments.model).name}") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", AccuracyWarning)  # the report says it
        compiled = tvm_ergo.compile(
            imported_model(arguments, calibration),
            target=arguments.target,
            memory=arguments.memory,
            objective=arguments.objective or "latency",
            calibration=calibration,
            stream=arguments.stream,
            strict=arguments.strict,
            strict_accuracy=arguments.strict_accuracy,
            progress=lambda stage, done, total: advance(done, total, description=stage),
            quantize=quantize_options(arguments),
            compression=compression(arguments),
            weights=arguments.weights or "auto",
            binary=not getattr(arguments, "no_binary", False),
            binary_inputs=getattr(arguments, "binary_inputs", False),
            database=getattr(arguments, "database", None),
            new_rows=getattr(arguments, "new_rows", None),
            rows_axis=getattr(arguments, "rows_axis", None),
            lengths=lengths_of(arguments),
            generate=getattr(arguments, "generate", False),
            tokenizer=getattr(arguments, "tokenizer", None),
            post=post,
        )
    console(arguments).print(
        f"compiled {arguments.model} for {compiled.chip.name} in {time.perf_counter() - start:.1f} s"
    )
    for note in compiled.notes:
        console(arguments).print(f"note: {note}")
    if compiled.projection:
        console(arguments).print(str(compiled.projection))
    return compiled


def lengths_of(arguments: argparse.Namespace) -> list[int]:
    """The numbers of ``--lengths``. Errors: InputError."""
    text = getattr(arguments, "lengths", None)
    try:
        return [int(n) for n in text.split(",")] if text else []
    except ValueError:
        raise InputError("--lengths are no numbers", available=text, remedy="--lengths 16,64") from None


def asked_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Of weights, objective and compression those that were given, by name."""
    asked = {
        "weights": arguments.weights,
        "objective": arguments.objective,
        "compression": compression(arguments) if arguments.compression or arguments.lossless else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def imported_model(arguments: argparse.Namespace, calibration=None):
    """The model file, imported. Errors: those of `frontend.load`; InputError for options that a model which is
    quantized already could not heed."""
    from tvm_ergo import frontend
    from tvm_ergo.relay_passes.micro.quantize import is_quantized

    imported = frontend.load(arguments.model, input_shapes=dict(arguments.input_shape) or None, calibration=calibration)
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("method", "percentile", "equalize", "project_channels", "float_parts", "sixteen_bits")
        if getattr(arguments, name, None) is not None
    ]
    if given and is_quantized(imported.mod):
        raise InputError(
            f"the model is quantized already: {', '.join(given)} would have no effect",
            where=arguments.model,
            remedy="leave them out, or give the float model",
        )
    return imported


def compression(arguments: argparse.Namespace) -> str:
    """What ``--compression`` and ``--lossless`` ask for. Errors: InputError where they contradict each other."""
    if arguments.lossless and arguments.compression not in (None, "lossless"):
        raise InputError(
            "--lossless contradicts --compression", available=arguments.compression, remedy="give one of the two"
        )
    return "lossless" if arguments.lossless else arguments.compression or "auto"


def quantize_options(arguments: argparse.Namespace):
    """The QuantizeOptions of ``--method``, ``--percentile``, ``--equalize``, ``--project-channels``,
    ``--sixteen-bits`` and ``--float-parts``; what is not given keeps its default."""
    import tvm_ergo

    if arguments.percentile is not None and arguments.method != "percentile":
        raise InputError(
            "--percentile has an effect with --method percentile only",
            available=f"--method {arguments.method or 'not given'}",
            remedy="write --method percentile, or leave it out",
        )
    given = {
        "method": arguments.method,
        "percentile": arguments.percentile,
        "project_channels": arguments.project_channels,
        "sixteen_bits": getattr(arguments, "sixteen_bits", None),
        "equalize": {"auto": "auto", "on": True, "off": False}.get(arguments.equalize),
    }
    options = replace(tvm_ergo.QuantizeOptions(), **{name: value for name, value in given.items() if value is not None})
    return (
        options
        if arguments.float_parts is None
        else replace(options, float_parts=None if arguments.float_parts == "off" else arguments.float_parts)
    )


def write_results(arguments: argparse.Namespace, compiled, report, model: str | None = None) -> None:
    """``--json``, ``--html`` and ``--trace`` of a report, and the compiled model where ``model`` names a file: all of
    them or none. Errors: OutputError."""
    import json

    from tvm_ergo.report.build import merged_chrome_trace
    from tvm_ergo.report.html import html_page

    trace = arguments.trace and json.dumps(
        merged_chrome_trace(compiled.programs, compiled.chip, getattr(arguments, "point", None))
    )
    write_results_together(
        (model, compiled.to_bytes() if model else b""),
        (arguments.html, html_page(report) if arguments.html else ""),
        (arguments.trace, trace or ""),
        (arguments.json, report.model_dump_json(indent=1)),
    )


def model_name(compiled, path: str) -> str:
    return Path(compiled.source or path).name


def report_of(arguments: argparse.Namespace, compiled):
    """The Report of a compiled model under the command's ``--fps``, ``--point`` and ``--window``."""
    from tvm_ergo.report.build import DEFAULT_FPS, accuracy_row, build_report
    from tvm_ergo.report.entries import entry_rows
    from tvm_ergo.target.machine.peak import WINDOW_S

    report = build_report(
        model_name(compiled, arguments.model),
        compiled.programs,
        compiled.chip,
        point=getattr(arguments, "point", None),
        host=compiled.fallbacks,
        frames_per_s=arguments.fps or DEFAULT_FPS,
        window_s=getattr(arguments, "window", None) or WINDOW_S,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        states=compiled.states,
    )
    if compiled.entries:
        rows = entry_rows(compiled, getattr(arguments, "point", None))
        report = report.model_copy(update={"entries": rows})
    if getattr(arguments, "battery", None) is not None:
        from tvm_ergo.report.sleep import battery_rows

        report = report.model_copy(update={"battery": battery_rows(report, arguments.battery)})
    return (
        report if compiled.accuracy is None else report.model_copy(update={"accuracy": accuracy_row(compiled.accuracy)})
    )
