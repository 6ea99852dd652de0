"""The road from any imported module to an executable: one flat list of named stages, each callable alone.

``stages(options)`` is the list; ``run_stages(mod, options, until="partition")`` walks it. TVM's own entry points run
the same list: ``tvm.compile(mod, target="ergo")`` through `build_pipeline`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import tvm
from tvm import relax, tirx

from tvm_ergo.codegen.byoc import OBJECTIVE
from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.exclusive import exclusively
from tvm_ergo.codegen.output_tables import OUTPUT_TABLES
from tvm_ergo.codegen.space import Objective
from tvm_ergo.codegen.stream import STREAM, graph_of
from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.attention.declared import from_file
from tvm_ergo.relay_passes.attention.find import has_rows
from tvm_ergo.relay_passes.attention.quantize import quantize as quantize_module
from tvm_ergo.relay_passes.attention.sealed import is_sealed, lower_sealed
from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions, is_chip_function
from tvm_ergo.relay_passes.cpu import LegalizeForCPU, ScheduleForCPU
from tvm_ergo.relay_passes.dialect import is_ergo_call
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.macro.choose_ranks import Projection
from tvm_ergo.relay_passes.micro.binarize import BinarizeLayers, sign_inputs
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.micro.lower_quantized import HostFallback, LowerQuantized, host_fallbacks
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of
from tvm_ergo.relay_passes.support import analyse
from tvm_ergo.stage_watch import current as current_watch
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import (
    CalibrationError,
    InputError,
    ModelError,
    OutOfMemoryError,
    UnsupportedError,
    restored,
)
from tvm_ergo.target.machine.kernels.workers import single_threaded_blas
from tvm_ergo.target.tags import DEFAULT_CHIP, chip_of_target, is_ergo, target_of_chip
from tvm_ergo.tuning.store import Database, current
from tvm_ergo.waiting import Compression, compress_waiting, compression_advice
from tvm_ergo.weights import code_weights, speed_advice, weights_advice

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PipelineOptions:
    """What the stages need to know.

    chip : the chip compiled for. calibration : inputs for quantizing a float model (see
    ``micro.calibrate.samples_of``), None if there are none. quantize : choices of the quantization. strict : refuse
    models of which anything stays on the host.
    progress : ``progress(step, done, total)``. on_equalized, on_projected : see ``micro.quantize.quantize``.
    objective : what the memory plans are chosen for. stream : the chip receives the picture row by row as it needs it.
    compression : see `tvm_ergo.waiting`. weights : see `tvm_ergo.weights`. database : tuning results
    (`tvm_ergo.tuning.store`) that plans are taken from. on_seen : see ``attention.quantize``. binary : layers of signs
    run packed on the binary engine (``micro.binarize``) where the chip has one. binary_inputs : float inputs of
    two values -v and v on all calibration samples are taken for signs."""

    chip: Chip
    calibration: object = None
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    strict: bool = False
    progress: Progress | None = None
    on_equalized: Callable[[tvm.IRModule], None] | None = None
    objective: Objective = Objective.LATENCY
    on_projected: Callable[[Projection], None] | None = None
    stream: bool = False
    compression: Compression = Compression.AUTO
    weights: Weights = Weights.AUTO
    database: Database | None = None
    on_seen: Callable | None = None
    binary: bool = True
    binary_inputs: bool = False

    @property
    def target(self) -> tvm.target.Target:
        return target_of_chip(self.chip)


@dataclass(frozen=True)
class Stage:
    """A named step, ``run(mod, options) -> mod``; ``what`` says what it leaves."""

    name: str
    what: str
    run: Callable[[tvm.IRModule, PipelineOptions], tvm.IRModule]


def _normalize(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    return mod if is_integer(mod) else normalize(mod)


def _quantize(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    if is_integer(mod) or is_quantized(mod) or not (analyse(main_of(mod)).groups or has_rows(mod)):
        if options.calibration is not None and is_integer(mod):
            for _ in samples_of(mod, options.calibration):  # it may be measured on later: what is wrong is said now
                pass
        if options.quantize.project_channels is not None:
            raise InputError(
                "no channels are projected: "
                + (
                    "nothing of the model runs on the chip"
                    if not is_integer(mod) and not is_quantized(mod)
                    else "the model is quantized already, and it is done before that"
                ),
                where="option project_channels (--project-channels)",
                remedy="give the float model and calibration data, or leave the option out",
            )
        if options.calibration is None or is_integer(mod) or not is_quantized(mod):
            return mod
    if options.calibration is None:
        raise CalibrationError(
            "the model is in floating point and there is no calibration data to quantize it with",
            required="a few typical inputs (about 100)",
            remedy="--calibration FILE.npz on the command line, tvm_ergo.compile(model, calibration=inputs) in Python, "
            "or tvm_ergo.quantize(mod, inputs) before tvm.compile",
        )
    return quantize_module(
        mod,
        options.calibration,
        options.quantize,
        progress=options.progress,
        on_equalized=options.on_equalized,
        on_projected=options.on_projected,
        on_seen=options.on_seen,
    )


def _lower_quantized(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    if is_integer(mod):
        return mod
    if is_sealed(mod):
        return lower_sealed(mod)
    found = from_file(mod) if is_quantized(mod) else None
    mod = LowerQuantized()(mod) if found is None else found
    if not options.binary or options.chip.binary is None:
        return mod
    known = ()
    if options.binary_inputs and options.calibration is not None:
        known = sign_inputs(main_of(mod), samples_of(mod, options.calibration))
    return BinarizeLayers(known)(mod)


def _check_strict(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    left = fallbacks_of(mod)
    if options.strict and left:
        listed = "\n".join(f"    {f.node} ({f.op}): {f.reason}; {f.remedy}" for f in left)
        raise UnsupportedError(
            f"{len(left)} operators cannot run on the chip:\n{listed}",
            remedy="without strict they run on the host CPU; `tvm-ergo ops` lists what the chip supports",
        )
    return mod


def _partition(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    mod = Partition()(mod)
    if options.chip.tensor.output_table_lanes:
        mod = mod.clone()
        for name, func in chip_functions(mod):
            mod[mod.get_global_var(name)] = func.with_attr(OUTPUT_TABLES, 1)
    return _streamed(mod) if options.stream else mod


def _streamed(mod: tvm.IRModule) -> tvm.IRModule:
    """Marks the chip function that the model's input reaches first: the others run when the frame is gone.

    Errors: UnsupportedError if it takes no picture.
    """
    shapes = "nothing of the model runs on the chip"
    first = next(
        (
            v.op
            for _, v in bindings_of(main_of(mod))
            if isinstance(v, relax.Call) and isinstance(v.op, tvm.ir.GlobalVar) and is_chip_function(mod[v.op])
        ),
        None,
    )
    if first is not None:
        func = mod[first].with_attr(STREAM, 1)
        if graph_of(func).streams:
            mod = mod.clone()
            mod[first] = func
            return mod
        shapes = ", ".join(f"{p.name}: {p.ty}" for p in func.params) or "the chip takes no input"
    raise UnsupportedError(
        "no input can be streamed row by row",
        required="a picture: an input [1, H, W, C] or [1, C, H, W] of the first chip function",
        available=shapes,
        remedy="compile without stream (--stream)",
    )


def _tuned(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    return mod if options.database is None else options.database.applied(mod, options.chip)


def _codegen(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    if not any(isinstance(f, relax.Function) and is_chip_function(f) for f in mod.functions.values()):
        return mod
    mod = mod.clone()
    for gvar, func in list(mod.functions_items()):
        if isinstance(func, relax.Function) and is_chip_function(func):
            mod[gvar] = func.with_attr(OBJECTIVE, options.objective.value)
    try:
        with options.target:
            return relax.transform.RunCodegen()(mod)
    except OutOfMemoryError as error:
        error, functions = restored(error), dict(chip_functions(mod))
        advice = (
            speed_advice(functions, options),
            weights_advice(functions, options),
            compression_advice(functions, options),
        )
        found = [part for part in (*(error.remedy or "").split("; "), *advice) if part]
        remedy = "; ".join(sorted(found, key=lambda part: "--" not in part)[:REMEDIES])  # stable
        raise OutOfMemoryError(
            error.what, where=error.where, required=error.required, available=error.available, remedy=remedy
        ) from None


@contextlib.contextmanager
def host_build() -> Iterator[None]:
    """TVM's errors while it builds the host's operators, as UnsupportedError with TVM's reason (its last line)."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:  # its Python legalizers assert
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnsupportedError(
            "TVM cannot build an operator that is left to the host CPU",
            available=(lines or [type(error).__name__])[-1][:300],
            remedy="replace the operator or its element type before exporting",
        ) from error


def _host(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    """The host's share as scheduled PrimFuncs; sorting and scanning through TVM's own library first, as its default
    pipeline does."""
    dispatch = [relax.backend.DispatchSampling(), relax.backend.DispatchSortScan()]
    with host_build(), compat.host_llvm_target():
        return tvm.transform.Sequential([*dispatch, LegalizeForCPU(), ScheduleForCPU()])(mod)


def _virtual_machine(mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    """TVM's own last passes; then every PrimFunc is bound to llvm, so that the TIR pipeline does not take it for the
    chip's."""
    from tvm.relax.pipeline import default_build_pipeline

    host = compat.host_llvm_target()
    with host_build(), host:
        mod = default_build_pipeline()(mod).clone()
    bound = host.with_host(host)
    for gvar, func in list(mod.functions_items()):
        if isinstance(func, tirx.PrimFunc) and (func.attrs is None or func.attrs.get("target", None) is None):
            mod[gvar] = func.with_attr("target", bound)
    return mod


REMEDIES = 3
"""As many ways out as a message names: what can be typed comes first."""

STAGES = (
    Stage("normalize", "normal form: NHWC, folded, weights constant (docs/architecture.md, section 3)", _normalize),
    Stage(
        "quantize",
        "QDQ: every layer's scales and zero points, from calibration data; of a network with attention the integer "
        "dialect",
        _quantize,
    ),
    Stage(
        "lower_quantized", "integer ops relax.ergo.* where the chip can, the source's ops elsewhere", _lower_quantized
    ),
    Stage("check_strict", "the same; refuses host operators if asked to", _check_strict),
    Stage("partition", 'functions with Codegen="ergo"', _partition),
    Stage("tuned", "the same; functions of which there are tuning results carry their plans (tvm_ergo.tuning)", _tuned),
    Stage(
        "code_weights",
        "the same; constant weights coded where that costs no time or the memory demands it (tvm_ergo.weights)",
        code_weights,
    ),
    Stage(
        "compress",
        "the same; tensors that wait are compressed where the memory demands it (tvm_ergo.waiting)",
        compress_waiting,
    ),
    Stage("codegen", "Programs in runtime modules, called by their symbols", _codegen),
    Stage("host", "PrimFuncs for the host CPU", _host),
    Stage("virtual_machine", "what TVM's virtual machine takes", _virtual_machine),
)


def run_stages(
    mod: tvm.IRModule, options: PipelineOptions, *, start: str = STAGES[0].name, until: str = STAGES[-1].name
) -> tvm.IRModule:
    """``mod`` after the stages ``start`` to ``until``, both included."""
    for _, mod in walk(mod, options, start=start, until=until):
        pass
    return mod


def walk(
    mod: tvm.IRModule, options: PipelineOptions, *, start: str = STAGES[0].name, until: str = STAGES[-1].name
) -> Iterator[tuple[str, tvm.IRModule]]:
    """The stages' names and results, one by one."""
    names = [stage.name for stage in STAGES]
    for stage in STAGES[names.index(start) : names.index(until) + 1]:
        if options.progress:
            options.progress(stage.name, names.index(stage.name), len(names))
        watch = current_watch()
        with (
            exclusively(),
            single_threaded_blas(),  # threads that wait for each other cost small products more than they gain
            watch.timed(stage.name),
        ):
            mod = _as_pass(stage, mod, options)
        watch.left(stage.name, mod)
        yield stage.name, mod


def _as_pass(stage: Stage, mod: tvm.IRModule, options: PipelineOptions) -> tvm.IRModule:
    """The stage run as a pass of TVM's, so that its instruments see it. What it raises goes past TVM's function
    boundary, which would keep the text alone."""
    raised: list[BaseException] = []
    made = [mod]  # the object itself, by which a stage that did nothing is known

    def run(_mod: tvm.IRModule, _context) -> tvm.IRModule:
        try:
            made.append(stage.run(mod, options))
        except BaseException as error:  # noqa: BLE001
            raised.append(error)
        return made[-1]

    tvm.transform.module_pass(run, opt_level=0, name=f"ergo.{stage.name}")(mod)
    if raised:
        raise raised[0]
    return made[-1]


def is_integer(mod: tvm.IRModule) -> bool:
    """Whether the module is in the integer dialect already (or has only functions for the chip)."""
    if "main" not in [gv.name_hint for gv in mod.get_global_vars()]:
        return False
    return any(is_ergo_call(value) for _, value in bindings_of(main_of(mod))) or any(
        isinstance(f, relax.Function) and is_chip_function(f) for f in mod.functions.values()
    )


def fallbacks_of(mod: tvm.IRModule) -> list[HostFallback]:
    """What stays on the host in a lowered module, with reasons."""
    return host_fallbacks(mod)


def build_pipeline() -> tvm.transform.Pass:
    """TVM's Relax pipeline "ergo": all stages, for the chip of the current target."""

    @tvm.transform.module_pass(opt_level=0, name="ErgoPipeline")
    def _pipeline(mod: tvm.IRModule, _context) -> tvm.IRModule:
        target = tvm.target.Target.current()
        if not any(gv.name_hint == "main" for gv in mod.get_global_vars()):
            raise ModelError(
                "the module has no function main", available=", ".join(gv.name_hint for gv in mod.get_global_vars())
            )
        return run_stages(
            mod, PipelineOptions(chip_of_target(target if is_ergo(target) else DEFAULT_CHIP), database=current())
        )

    return _pipeline
