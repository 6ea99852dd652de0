"""``tvm_ergo.compress``: a trained network in, the same network in fewer bytes out, at a stated size or a stated loss.

No training: weights are rounded, shared and pruned layer by layer by reconstruction from calibration data
(`relay_passes.micro.reconstruct`), the form of every layer chosen by what it costs and what it does to the outputs
(`relay_passes.micro.allocate`). What comes out is quantized, ready for `tvm_ergo.compile` without calibration data;
what is said of its accuracy is measured on the file by the integers that the chip computes (`measured`), so that
``eval`` of it says the same, against the float network in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tvm

from tvm_ergo import frontend
from tvm_ergo import options as given
from tvm_ergo.api import renamed
from tvm_ergo.compressed.file import Contents, pack, write
from tvm_ergo.compressed.holdout import apart
from tvm_ergo.compressed.layers import LayerRow, layer_rows
from tvm_ergo.compressed.measured import Measure
from tvm_ergo.compressed.report import Attempt, CompressionReport, Given, Held
from tvm_ergo.compressed.request import check_targets, test_of
from tvm_ergo.evaluation.runner import Outcome
from tvm_ergo.evaluation.tasks import Test
from tvm_ergo.pipeline import Progress, is_integer
from tvm_ergo.relay_passes.attention.counted import for_rows
from tvm_ergo.relay_passes.attention.quantize import has_rows, quantize_for_file
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.allocate import ROUNDING, AllocateOptions, Way, choose, measure, smallest_within
from tvm_ergo.relay_passes.micro.calibrate import samples_of
from tvm_ergo.relay_passes.micro.lower_context import kept_in_float
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, is_quantized
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, children, main_of
from tvm_ergo.target.chip import bytes_of
from tvm_ergo.target.errors import CalibrationError, CompressionError, InputError, UnsupportedError
from tvm_ergo.target.machine.kernels.workers import single_threaded_blas

SIZE_ATTEMPTS = 5
NEXT_TO_LEAST = (1.0, 1.02, 1.035, 1.05)
"""Times the fewest bytes of weights. The digits network: 8,844, 8,868, 8,707 and 8,958 bytes of file."""
CLOSE = 0.98
"""A file of at least this share of the size asked for is as good as one that fills it."""


@dataclass(frozen=True, eq=False)
class CompressedNetwork:
    """mod : quantized (QDQ). contents : its file. report : sizes, layers, accuracy."""

    mod: tvm.IRModule
    contents: Contents
    report: CompressionReport

    @property
    def size_bytes(self) -> int:
        return len(self.contents.data)

    def save(self, path: str | Path) -> None:
        """Writes the file (``.ergoz``), which every command takes in place of the network. Errors: OutputError."""
        write(path, self.contents)


def compress(
    model,
    calibration=None,
    *,
    evaluation: Test | tuple[np.ndarray, np.ndarray] | None = None,
    max_drop: float | None = None,
    size: int | str | None = None,
    limit: int | None = None,
    holdout: float = 0.0,
    quantize: QuantizeOptions = QuantizeOptions(),
    allocate: AllocateOptions = AllocateOptions(),
    input_shapes: dict | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> CompressedNetwork:
    """A network in as few bytes as a loss of accuracy allows, or as accurate as a size allows.

    Parameters
    ----------
    model : whatever `tvm_ergo.frontend.load` reads, in float or quantized. One that is quantized, or for which neither
    ``max_drop`` nor ``size`` is given, keeps its values, whatever ``max_drop`` allows: zeros, shared values and codes
    are found and coded, nothing is lost. calibration : as in `tvm_ergo.quantize`. evaluation : labelled data, ``(inputs
    [n, ...], labels [n])`` or a Test; limit : at most so many of its samples; holdout : share of them that nothing is
    chosen by and the result is measured on as well. max_drop : of the test's first figure (top-1 in percent for
    labelled data), from the float network. size : of the file, bytes or "500KB". quantize, allocate : choices of
    quantization and of what layers may become.

    Errors: InputError (both or unusable targets, max_drop without evaluation), CalibrationError, ModelError,
    UnsupportedError, CompressionError (no such size, or nothing within the drop)."""
    quantize, progress = given.quantization("quantize", quantize), given.callback("progress", progress)
    imported = frontend.load(model, input_shapes=given.shapes(input_shapes), batch=given.whole_number("batch", batch))
    if imported.states:
        raise UnsupportedError(
            "a network that keeps values from one run to the next cannot be compressed",
            where=imported.source,
            available=", ".join(s.name for s in imported.states),
            remedy="export it with these values as inputs and outputs",
        )
    size_bytes = bytes_of(size) if isinstance(size, str) else size
    test = test_of(evaluation, imported)
    check_targets(max_drop, size_bytes, test, limit)
    if hasattr(calibration, "__next__"):
        calibration = list(calibration)
    test, held = (test, None) if test is None else apart(test, holdout, limit)
    work = _Work(imported, renamed(calibration, imported), test, limit, quantize, allocate, progress, held)
    lossy = max_drop is not None or size_bytes is not None
    if work.quantized or not lossy:
        return work.lossless(size_bytes, max_drop)
    if work.calibration is None:
        raise CalibrationError(
            "there is no calibration data",
            required="a few typical inputs (about 100)",
            remedy="calibration=..., --calibration FILE.npz",
        )
    if not weight_layers(work.float_mod):
        raise InputError(
            "the network has no float weights that could be made smaller",
            where=imported.source,
            remedy="leave size and max_drop (--size, --max-drop) out: its constants are then coded, and nothing is "
            "lost",
        )
    with single_threaded_blas():
        return work.within(max_drop) if max_drop is not None else work.of_size(size_bytes)


@dataclass(frozen=True, eq=False)
class _Allocated:
    mod: tvm.IRModule
    ways: dict[str, Way]
    packed: Contents


@dataclass(eq=False)
class _Work:
    """One compression: the network given in normal form (``float_mod``, in float unless ``quantized``), and what is
    measured of it."""

    imported: frontend.Imported
    calibration: object
    test: Test | None
    limit: int | None
    quantize: QuantizeOptions
    allocate: AllocateOptions
    progress: Progress | None
    held: Test | None = None
    attempts: list[Attempt] = field(default_factory=list)
    last: tuple[tvm.IRModule, tvm.IRModule] | None = None
    file: tuple[tvm.IRModule, Contents] | None = None
    calibrated: int = 0

    def __post_init__(self):
        mod = self.imported.mod
        self.float_mod = mod if is_integer(mod) else normalize(mod)
        self.quantized = is_integer(self.float_mod) or is_quantized(self.float_mod)
        self.measure = Measure([i.name for i in self.imported.inputs], self.limit, self.say)
        self.float_bytes = sum(
            a.size * 4 for a in _constants(self.float_mod) if a.dtype.kind == "f" or a.dtype.itemsize == 1
        )

    def say(self, step: str, done: int = 0, total: int = 1) -> None:
        if self.progress:
            self.progress(step, done, total)

    def figure(self, mod: tvm.IRModule, step: str) -> float:
        """The test's first figure, higher better. ``mod`` : quantized; its file is measured, as the chip computes
        it."""
        return self.noted(self.measure.of_file(mod, self.packed(mod), self.test, step))

    def float_figure(self) -> float:
        self.before = self.noted(self.measure.of_float(self.float_mod, self.test, "evaluate the float network"))
        return self.before

    def noted(self, outcome: Outcome) -> float:
        self.samples, self.primary, self.sign = outcome.samples, outcome.primary, 1 if outcome.higher_is_better else -1
        return outcome.figures[outcome.primary] * self.sign

    def integer(self, mod: tvm.IRModule) -> tvm.IRModule:
        """A float network quantized, not yet lowered to the chip's integers; the last one is kept."""
        if self.last is None or self.last[0] is not mod:
            self.last = mod, quantize_for_file(mod, self.calibration, self.quantize)
        return self.last[1]

    @cached_property
    def plain(self) -> tvm.IRModule:
        """Int8 and nothing else. Making it also finds ``base``: the float network, its channels equalized where that
        helps, which is done before weights get a structure, as afterwards nobody touches them."""
        found: list[tvm.IRModule] = []
        made = quantize_for_file(self.float_mod, self.calibration, self.quantize, on_equalized=found.append)
        self.base = found[-1] if found else self.float_mod
        return made

    def measured(self, mod: tvm.IRModule) -> float:
        """What `smallest_within` asks: the float network's figure, and those of attempts after quantization."""
        if mod is self.base:
            return self.float_figure()
        size_bytes = len(self.packed(self.integer(mod)).data)
        figure = self.figure(self.integer(mod), f"evaluate {size_bytes:,} bytes")
        self.attempts.append(Attempt(size_bytes=size_bytes, figure=figure * self.sign))
        return figure

    def packed(self, mod: tvm.IRModule) -> Contents:
        """The file of a module; the last one is kept."""
        if self.file is None or self.file[0] is not mod:
            self.file = mod, pack(mod, self.measure.inputs, [o.name for o in self.imported.outputs])
        return self.file[1]

    def ways(self) -> dict[str, tuple[Way, ...]]:
        self.say("quantize")
        _ = self.plain
        if has_rows(self.base):
            self.allocate = replace(self.allocate, reconstruct=for_rows(self.base) | dict(self.allocate.reconstruct))
        self.calibrated = sum(1 for _ in samples_of(self.base, self.calibration, self.allocate.samples))
        return measure(
            self.base, self.calibration, self.allocate, lambda done, total: self.say("measure layers", done, total)
        )

    def within(self, max_drop: float) -> CompressedNetwork:
        try:
            ways = self.ways()
            found = smallest_within(self.base, self.calibration, self.measured, max_drop, self.allocate, ways=ways)
        except CompressionError:  # int8 without more is the finest there is
            figure = self.figure(self.plain, "evaluate int8")
            if self.before - figure <= max_drop + ROUNDING:
                return self.result(self.plain, {}, figure, max_drop, None)
            smaller = max((a.figure * self.sign for a in self.attempts), default=figure) * self.sign
            raise CompressionError(
                "no form of the network stays within the drop",
                where=self.imported.source,
                required=f"a {self.primary} of {self.sign * (self.before - max_drop):g} or better",
                available=f"{figure * self.sign:g} with int8 weights and nothing else, {smaller:g} at best with "
                f"smaller ones",
                remedy="a larger drop, more samples to measure on (one of few counts much), or retraining "
                "(tvm_ergo.retrain)",
            ) from None
        return self.result(self.integer(found.mod), found.ways, found.figure, max_drop, None)

    def of_size(self, size_bytes: int) -> CompressedNetwork:
        """Int8 weights as they are where these fit. The estimate of a size and the file's differ: the size asked of the
        weights is corrected until the file fits."""
        if len(self.packed(self.plain).data) <= size_bytes:
            return self.result(self.plain, {}, self.compared(self.plain), None, size_bytes)
        ways, found = self.ways(), []
        low, high = (float(sum(f(w.bytes for w in some) for some in ways.values())) for f in (min, max))
        asked = float(size_bytes)
        for attempt in range(SIZE_ATTEMPTS):
            self.say("allocate", attempt, SIZE_ATTEMPTS)
            asked = min(max(asked, low), high)
            found.append(self.allocated(ways, asked))
            size = len(found[-1].packed.data)
            if CLOSE * size_bytes <= size <= size_bytes or asked == low and size > size_bytes:
                break
            low, high = (asked, high) if size <= size_bytes else (low, asked)
            asked = self.next_size(
                found[-1],
                size_bytes,
                low,
                high,
                last=attempt == SIZE_ATTEMPTS - 2 and all(len(f.packed.data) > size_bytes for f in found),
            )
        best = max(
            (f for f in found if len(f.packed.data) <= size_bytes), key=lambda f: len(f.packed.data), default=None
        )
        best = best or self.least(ways)
        if len(best.packed.data) > size_bytes:
            least = len(best.packed.data)
            raise CompressionError(
                "the network cannot be made so small without training",
                where=self.imported.source,
                required=f"{size_bytes:,} bytes",
                available=f"{least:,} bytes, the least of those tried",
                remedy=f"size={least}, --size {least}, or retraining (tvm_ergo.retrain)",
            )
        return self.result(best.mod, best.ways, self.compared(best.mod), None, size_bytes)

    def least(self, ways: dict[str, tuple[Way, ...]]) -> _Allocated:
        """The smallest file of a few with next to the fewest bytes of weights: the fewest give not the smallest file,
        since very coarse layers leave more to those behind them. Whatever was asked for, these are the same, so that
        the size named where it is refused is met when it is asked for."""
        fewest, tried = sum(min(w.bytes for w in some) for some in ways.values()), []
        for number, share in enumerate(NEXT_TO_LEAST):
            self.say("look for the least", number, len(NEXT_TO_LEAST))
            tried.append(self.allocated(ways, share * fewest))
        return min(tried, key=lambda made: len(made.packed.data))

    def allocated(self, ways: dict[str, tuple[Way, ...]], asked: float) -> _Allocated:
        """The network with weights of about so many bytes, and its file."""
        picked = choose(ways, asked)
        mod = self.integer(
            self.allocate.pass_for(self.calibration, {name: way.target for name, way in picked.items()})(self.base)
        )
        return _Allocated(mod, picked, self.packed(mod))

    def next_size(self, made: _Allocated, size_bytes: int, low: float, high: float, last: bool) -> float:
        """What to ask of the weights next: what the file has besides them is known now. Between what fitted and what
        did not; at last the least there is."""
        if last:
            return low
        besides = len(made.packed.data) - sum(way.bytes for way in made.ways.values())
        wanted = 0.995 * size_bytes - besides
        return wanted if low < wanted < high else (low + high) / 2

    def compared(self, mod: tvm.IRModule) -> float | None:
        """The figure of a quantized network, that of the float one noted beside it; None without a test."""
        if self.test is None:
            return None
        self.float_figure()
        return self.figure(mod, "evaluate the compressed network")

    def lossless(self, size_bytes: int | None, max_drop: float | None) -> CompressedNetwork:
        """The network as it is, coded; a float network is quantized first if there is calibration data."""
        mod, figure = self.float_mod, None
        if not self.quantized and self.calibration is not None:
            mod = self.plain
        if self.test is not None:
            figure = self.figure(
                mod, "evaluate the network as it is" if mod is self.float_mod else "evaluate the quantized network"
            )
            self.before = figure if mod is self.float_mod else self.float_figure()
        found = self.result(mod, {}, figure, max_drop, size_bytes)
        if size_bytes is not None and found.size_bytes > size_bytes:
            raise CompressionError(
                "a quantized network is only coded, its values stay: it does not become so small",
                where=self.imported.source,
                required=f"{size_bytes:,} bytes",
                available=f"{found.size_bytes:,} bytes",
                remedy="give the float network",
            )
        return found

    def held_rows(self, mod: tvm.IRModule, figure: float | None, max_drop: float | None) -> Held | None:
        """The network given and the compressed one on the samples kept apart."""
        if self.held is None or figure is None:
            return None
        step = "evaluate what was kept apart"
        after = self.measure.of_file(mod, self.packed(mod), self.held, step)
        before = after if mod is self.float_mod else self.measure.of_float(self.float_mod, self.held, step)
        figures = before.figures[before.primary], after.figures[after.primary]
        drop = self.sign * (figures[0] - figures[1])
        return Held(
            samples=after.samples,
            before=figures[0],
            after=figures[1],
            drop=drop,
            within=None if max_drop is None else drop <= max_drop + ROUNDING,
        )

    def result(self, mod, ways, figure, max_drop, size_bytes) -> CompressedNetwork:
        contents, kept = self.packed(mod), kept_in_float(main_of(mod))
        total = sum(way.error for way in ways.values())
        errors = {name: way.error / total if total else 0.0 for name, way in ways.items()}
        layers: Sequence[LayerRow] = layer_rows(mod, contents, errors)
        int8 = sum(a.nbytes for a in _constants(mod)) if not kept and (is_integer(mod) or is_quantized(mod)) else None
        before, after = (
            None if value is None else value * self.sign for value in (getattr(self, "before", None), figure)
        )
        report = CompressionReport(
            model=Path(str(self.imported.source)).name,
            file_bytes=len(contents.data),
            graph_bytes=contents.graph_bytes,
            weight_bytes=sum(row.stored_bytes for row in layers),
            float_bytes=self.float_bytes,
            int8_bytes=int8,
            max_drop=max_drop,
            asked_bytes=size_bytes,
            figure=getattr(self, "primary", None),
            samples=getattr(self, "samples", 0),
            before=before,
            after=after,
            attempts=list(self.attempts),
            layers=list(layers),
            calibration_samples=self.calibrated if ways else 0,
            held=self.held_rows(mod, figure, max_drop),
            kept_in_float=kept and kept[0],
            given=Given.QUANTIZED if self.quantized else Given.FLOAT,
        )
        return CompressedNetwork(mod, contents, report)


def _constants(mod: tvm.IRModule) -> list[np.ndarray]:
    """Each constant of main once."""
    found: dict[int, np.ndarray] = {}
    for _, value in bindings_of(main_of(mod)):
        for operand in children(value):
            if isinstance(operand, Constant):
                found[hash(operand)] = array_of(operand)
    return list(found.values())
