"""``tvm_ergo.explore``: the memory, time and energy that a network can be had for, before anyone decides on a limit."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.api import renamed
from tvm_ergo.codegen.explore import POINTS, Point, combined, pareto
from tvm_ergo.codegen.space.bound import Bound, least_possible_bytes
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.pipeline import PipelineOptions, Progress, run_stages
from tvm_ergo.relay_passes.compile.partition import chip_functions
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.report.front import Front, front_of, series_of
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.tags import chip_of_target

RESIDENT, STREAMED = "resident", "streamed"
MOST_POINTS = 1000


def explore(model, *, target: str | Path | tvm.target.Target | Chip = "ergo", calibration=None, stream: bool = False, points: int = POINTS,
            point: str | None = None, quantize: QuantizeOptions = QuantizeOptions(), input_shapes: dict | None = None, batch: int = 1,
            progress: Progress | None = None) -> Front:
    """The Pareto front of activation bytes, cycles and energy, from the smallest plan to whole layers, whatever memory the chip has.

    Every point is a plan that was lowered to a Program and priced by its trace. Nothing is compressed.

    Parameters
    ----------
    model : as in `tvm_ergo.compile`, or a CompiledModel that was compiled in this process. stream : also with the frame received row by row, as a
    second series. points : limits tried between the smallest plan and whole layers, for latency and for energy. point : operating point of
    the chip. Others : as in `tvm_ergo.compile`.

    Errors: those of `compile` but OutOfMemoryError; InputError for fewer than two points or a CompiledModel that was loaded. A model without a
    picture to stream is refused before anything is planned.
    """
    quantize, progress, stream = given.quantization("quantize", quantize), given.callback("progress", progress), given.flag("stream", stream)
    points, point = given.whole_number("points", points, least=2, most=MOST_POINTS), given.text("point", point)
    input_shapes, batch = given.shapes(input_shapes), given.whole_number("batch", batch)
    chip = chip_of_target(target)
    at = chip.point(point)
    name, lowered = _lowered(model, chip, calibration, quantize, input_shapes, batch, progress)
    # all before the first is planned, which takes long: a model without a picture to stream is refused here
    partitioned = {label: run_stages(lowered, PipelineOptions(chip, stream=label == STREAMED), start="partition", until="code_weights")
                   for label in (RESIDENT, *((STREAMED,) if stream else ()))}
    series, constants = [], 0
    for label, mod in partitioned.items():
        found, bound = _front(mod, chip, points, point, label, progress)
        constants = found[0].constant_bytes
        series.append(series_of(label, found, bound, at.clock_hz))
    return front_of(name, chip, point, constants, series)


def _lowered(model, chip: Chip, calibration, quantize: QuantizeOptions, input_shapes, batch: int, progress) -> tuple[str, tvm.IRModule]:
    """The model's name and its module in the integer dialect."""
    if isinstance(model, CompiledModel):
        if model.lowered is None:
            raise InputError("a loaded model does not hold the network to plan again", where=model.source, remedy="give the model file")
        return Path(model.source or "model").name, model.lowered
    imported = frontend.load(model, input_shapes=input_shapes, batch=batch)
    options = PipelineOptions(chip, renamed(calibration, imported), quantize, progress=progress)
    return Path(imported.source or "model").name, run_stages(imported.mod, options, until="lower_quantized")


def _front(mod: tvm.IRModule, chip: Chip, points: int, at: str | None, label: str, progress: Progress | None) -> tuple[list[Point], Bound]:
    graphs = [graph_of(func, name) for name, func in chip_functions(mod)]
    if not graphs:
        raise UnsupportedError("nothing of the model runs on the chip", remedy="`tvm-ergo ops` lists what the chip supports")
    fronts = []
    for number, graph in enumerate(graphs):
        def advance(done, total, number=number):
            progress(f"plans, frame {label}", number * total + done, total * len(graphs))

        fronts.append(pareto(graph, chip, points=points, at=at, progress=advance if progress else None))
    return combined(fronts), max((least_possible_bytes(graph) for graph in graphs), key=lambda bound: bound.size_bytes)
