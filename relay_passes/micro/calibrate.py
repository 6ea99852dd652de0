"""Calibration: run the float net on sample inputs and decide, per tensor, which range its 256 levels should span.

Sources: min-max and percentile are common practice; least mean squared error follows Nagel et al., "A White Paper on
Neural Network Quantization" (2021), section 3.1.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tvm

from tvm_ergo.relay_passes.array_files import read_arrays
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.observe import Histogram, Range
from tvm_ergo.relay_passes.port_scales import INFINITE_MASK, how_to_quantize, input_scales, meaning
from tvm_ergo.relay_passes.relax_utils import dtype_of, main_of, shape_of
from tvm_ergo.target.errors import CalibrationError

VALUES_PER_RUN = 16384
REMEDY = (
    "give some (100 or so) inputs like those the net will see: arrays, a dict of arrays, an .npz file, or an iterator "
    "of dicts"
)


class Method(enum.Enum):
    """How a range follows from the values seen."""

    MSE = "mse"
    MINMAX = "minmax"
    PERCENTILE = "percentile"


@dataclass(frozen=True)
class Ranges:
    """Result of calibration: ``ranges[variable name]``, the number of ``samples`` seen, and the ``method``.

    ``peaks[name]`` is the largest magnitude of each last-axis channel, ``powers[name]`` the mean of its squares, both
    [C]. ``kept``: tensors that are not quantized (`micro.float_parts`). ``wide_tables``: see `micro.wide_tail`.
    ``sixteen``: tensors in int16 with the extremes that were seen (`micro.sixteen_bits`)."""

    ranges: Mapping[str, Range]
    samples: int
    method: Method
    peaks: Mapping[str, np.ndarray] = field(default_factory=dict)
    powers: Mapping[str, np.ndarray] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    wide_tables: bool = False
    sixteen: Mapping[str, Range] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Range:
        return self.ranges[name]

    def __contains__(self, name: str) -> bool:
        return name in self.ranges

    def within(self, required: Mapping[str, Range], forced: Mapping[str, Range]) -> Ranges:
        """The same with ``required`` ranges added to those seen, and ``forced`` ones in their place
        (`micro.saturate`)."""
        changed = {
            n: Range(min(self.ranges[n].lo, r.lo), max(self.ranges[n].hi, r.hi))
            for n, r in required.items()
            if n in self.ranges
        }
        changed |= {n: r.with_zero() for n, r in forced.items()}
        return replace(self, ranges={**self.ranges, **changed})


def input_shapes(mod: tvm.IRModule) -> dict[str, tuple[tuple[int, ...], str]]:
    """``{input name: (shape, dtype)}`` of main's inputs, parameters bound as constants excluded."""
    func = main_of(mod)
    count = int(func.attrs["num_input"]) if func.attrs and "num_input" in func.attrs else len(func.params)
    return {p.name: (shape_of(p), dtype_of(p)) for p in func.params[:count]}


def _wanted(shapes: dict[str, tuple[tuple[int, ...], str]]) -> str:
    """What every input takes, for an error: ``a float32 [n, 3, 32, 32], b ...``."""
    return ", ".join(
        f"{name} {dtype} [{', '.join(map(str, ('n', *shape[1:]) if shape[:1] == (1,) else shape))}]"
        for name, (shape, dtype) in shapes.items()
    )


def _remedy(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """For arrays whose channels are at the other end how to turn them, else what calibration data are."""
    orders = {(0, 3, 1, 2): (shape[2:] + shape[1:2]), (0, 2, 3, 1): (shape[3:] + shape[1:3])}
    for axes, dims in orders.items():
        if len(shape) == len(given) == 4 and given[1:] == dims:
            return (
                f"the channels are at the other end: numpy.transpose(array, {axes}), beside the network's own "
                f"preprocessing"
            )
    if math.prod(given[1:]) == math.prod(shape[1:]) and shape[:1] == (1,) and given:
        return f"where the elements are in this order: array.reshape({', '.join(map(str, (-1, *shape[1:])))})"
    if math.prod(given) == math.prod(shape[1:]):
        return f"for one sample: array.reshape({', '.join(map(str, (1, *shape[1:])))})"
    return REMEDY


def _as_mapping(item, shapes: dict[str, tuple[tuple[int, ...], str]], number: int) -> dict[str, np.ndarray]:
    """One calibration item as name -> array."""
    names = list(shapes)
    if isinstance(item, Mapping):
        given = dict(item)
        if len(names) == 1 and set(given) in (
            {"x"},
            {"x", "y"},
        ):  # named as evaluation data are, whose labels are not wanted here
            given = {names[0]: given["x"]}
    elif len(names) == 1:
        given = {names[0]: item}
    elif isinstance(item, (tuple, list)) and len(item) == len(names):
        given = dict(zip(names, item))
    else:
        raise CalibrationError(
            f"calibration sample {number} does not say which array is which input",
            required=_wanted(shapes),
            available=type(item).__name__,
            remedy="give dicts {input name: array}",
        )
    if set(given) != set(names):
        raise CalibrationError(
            f"calibration sample {number} has other inputs than the net",
            required=_wanted(shapes),
            available=", ".join(map(str, given)) or "none",
            remedy="name the arrays like the inputs"
            + ("; for one input an .npy file will do" if len(names) == 1 else ""),
        )
    return given


def _checked(
    name: str, value, shape: tuple[int, ...], dtype: str, number: int | None, scale: tuple = (None, None)
) -> np.ndarray:
    """The array of one input, [n, *shape[1:]] with n >= 1, in the net's dtype and finite. number : of the item, None
    where one array holds all samples. scale : and zero point of an integer input, if known."""
    where = f"input {name}" if number is None else f"input {name}, calibration sample {number}"
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise CalibrationError(
            "calibration data is ragged",
            where=where,
            required=f"an array of shape {shape}",
            remedy="give samples of one size: numpy.stack(samples)",
        ) from error
    if array.dtype.kind not in "fiub":
        raise CalibrationError(
            "calibration data is not numeric",
            where=where,
            required=dtype,
            available=str(array.dtype),
            remedy=f"array.astype({dtype!r})",
        )
    if array.shape == shape[1:] and shape[:1] == (1,):
        array = array[None]
    batched = shape[:1] == (1,) and array.ndim == len(shape) and array.shape[1:] == shape[1:]
    if array.shape != shape and not batched:
        raise CalibrationError(
            "calibration data has the wrong shape",
            where=where,
            required=f"[{', '.join(map(str, ('n', *shape[1:]) if shape[:1] == (1,) else shape))}]"
            + (", n samples" if shape[:1] == (1,) else ""),
            available=f"[{', '.join(map(str, array.shape))}]",
            remedy=_remedy(array.shape, shape),
        )
    if array.size == 0:
        raise CalibrationError("calibration data is empty", where=where, required="at least one sample", remedy=REMEDY)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationError(
            "calibration data holds NaN or infinity",
            where=where,
            required="finite values",
            remedy=INFINITE_MASK if np.isneginf(array[~np.isfinite(array)]).all() else "",
        )
    if np.dtype(dtype).kind in "iu" and array.dtype != dtype:
        _require_integers(array, dtype, where, scale)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        raise CalibrationError(
            f"calibration data does not fit {dtype}",
            where=where,
            required="finite values",
            remedy="check the preprocessing: the values are larger than the type holds",
        )
    return cast


def _require_integers(array: np.ndarray, dtype: str, where: str, scale: tuple) -> None:
    """Errors: CalibrationError for what an integer input does not take: real numbers, and integers beyond its range."""
    limits, low, high = np.iinfo(dtype), array.min(), array.max()
    if array.dtype.kind == "f" or low < limits.min or high > limits.max:
        raise CalibrationError(
            f"calibration data is not what an input of {dtype} takes",
            where=where,
            required=f"integers from {limits.min} to {limits.max}{meaning(*scale)}",
            available=f"{array.dtype} from {low:g} to {high:g}",
            remedy=how_to_quantize(dtype, *scale),
        )


def _items(data, names: list[str]) -> Iterable:
    """The top-level container of calibration data as an iterable of items (each a batch of one or more)."""
    if data is None:
        raise CalibrationError(
            "a float net needs calibration data", required=", ".join(names), available="none", remedy=REMEDY
        )
    if isinstance(data, (str, Path)):
        loaded = read_arrays(data)
        lone = "" in loaded or len(names) == 1 and len(loaded) == 1
        return [next(iter(loaded.values())) if lone else loaded]
    if isinstance(data, (Mapping, np.ndarray)):
        return [data]
    if isinstance(data, Iterable):
        return data
    raise CalibrationError("calibration data is of no known form", available=type(data).__name__, remedy=REMEDY)


def samples_of(mod: tvm.IRModule, data, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yields single samples ``{input: array [1, ...]}`` from any accepted form of calibration data, checked.

    Forms: one array [n, ...] (single-input nets), a dict of arrays [n, ...], the path of an .npz or .npy file, or an
    iterable of arrays or dicts, each a sample with or without batch axis, or a batch. Errors: CalibrationError naming
    input and sample."""
    shapes, scales, count = input_shapes(mod), input_scales(main_of(mod)), 0
    items = _items(data, list(shapes))
    whole = items is not data and isinstance(items, list)
    for number, item in enumerate(items):
        given = _as_mapping(item, shapes, number)
        at = None if whole else number
        arrays = {n: _checked(n, given[n], *shapes[n], at, scales.get(n, (None, None))) for n in shapes}
        lengths = {n: len(a) if shapes[n][0][:1] == (1,) else 1 for n, a in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise CalibrationError(
                "the arrays of calibration data hold different numbers of samples"
                if whole
                else f"calibration sample {number} has inputs of different batch sizes",
                required="the same number of samples",
                available=", ".join(f"{n}: {c}" for n, c in lengths.items()),
                remedy="give every input as many samples as the others",
            )
        size = next(iter(lengths.values()), 1)
        for i in range(size):
            if limit is not None and count >= limit:
                return
            yield {n: a if size == 1 else a[i : i + 1] for n, a in arrays.items()}
            count += 1
    if not count:
        raise CalibrationError(
            "calibration data is empty", required="at least one sample", available="0 samples", remedy=REMEDY
        )


def channel_extremes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value of every column of ``rows`` [n, C]. Short rows are joined to long ones first, which NumPy
    reduces faster."""
    count, channels = rows.shape
    joined = math.gcd(count, 1 << max(0, (1024 // max(channels, 1)).bit_length() - 1))
    wide = rows.reshape(count // joined, joined * channels)
    return tuple(f(f(wide, axis=0).reshape(joined, channels), axis=0) for f in (np.min, np.max))


class Watched:
    """What was seen of one tensor: its histogram, and per last-axis channel the largest magnitude and the mean square.

    Extremes are those of all values; histogram and squares take whole rows (pixels), spread evenly, so that a run adds
    at most about ``VALUES_PER_RUN`` values: calibration is a few times faster for it, and a million values tell no more
    about a range."""

    def __init__(self, channels: int):
        self.histogram = Histogram()
        self.peak, self._squares, self._rows, self._runs = np.zeros(channels), np.zeros(channels), 0, 0

    @property
    def power(self) -> np.ndarray:
        return self._squares / max(self._rows, 1)

    def update(self, rows: np.ndarray) -> bool:
        """Takes in rows float [n, channels]; False, and nothing happens, where one is not finite."""
        if not rows.size:
            return True
        low, high = channel_extremes(rows)
        lowest, highest = float(low.min()), float(high.max())
        if not np.isfinite((lowest, highest)).all():
            return False
        np.maximum(self.peak, np.maximum(high, -low), out=self.peak)
        step = -(-rows.size // VALUES_PER_RUN)
        step += step > 1 and step % 2 == 0  # odd, so that it walks through all columns of an image with even width
        some = rows[self._runs % step :: step] if step > 1 and len(rows) > step else rows
        self.histogram.update(some)
        self.histogram.lo, self.histogram.hi = min(self.histogram.lo, lowest), max(self.histogram.hi, highest)
        self._squares += np.einsum("ij,ij->j", some, some, dtype=np.float64)
        self._rows, self._runs = self._rows + len(some), self._runs + 1
        return True


@dataclass(frozen=True)
class Observations:
    """What was seen of every tensor, over ``samples`` inputs."""

    watched: Mapping[str, Watched]
    samples: int

    @property
    def histograms(self) -> dict[str, Histogram]:
        return {name: w.histogram for name, w in self.watched.items()}

    def ranges(
        self, method: str | Method = Method.MSE, percentile: float = 99.99, methods: Mapping[str, Method] | None = None
    ) -> Ranges:
        """A range for every tensor by ``method``, or by ``methods[name]``. Errors: CalibrationError (unknown method,
        bad percentile)."""
        method = _method(method)
        if not 50 < percentile <= 100:
            raise CalibrationError(
                "the percentile is out of range",
                required="above 50, up to 100",
                available=str(percentile),
                remedy="for instance 99.99",
            )
        chosen = {n: _range_of(h, (methods or {}).get(n, method), percentile) for n, h in self.histograms.items()}
        return Ranges(
            chosen,
            self.samples,
            method,
            {n: w.peak for n, w in self.watched.items()},
            {n: w.power for n, w in self.watched.items()},
        )


def _range_of(histogram: Histogram, method: Method, percentile: float) -> Range:
    if method is Method.MINMAX:
        return histogram.min_max()
    return histogram.percentile(percentile) if method is Method.PERCENTILE else histogram.least_error()


def observe(
    mod: tvm.IRModule,
    data,
    *,
    samples: int | None = None,
    tensors: set[str] | None = None,
    watch: Callable[[str, np.ndarray], None] | None = None,
    progress: Callable[[int], None] | None = None,
    outputs: list[list[np.ndarray]] | None = None,
) -> Observations:
    """Runs ``mod`` (float normal form) on calibration data and gathers what its float tensors hold.

    Parameters: data, see ``samples_of``; samples, use at most so many; tensors, names of the variables to observe (None
    = all); watch(name, array), called for every tensor as well; progress(samples done), after each sample; outputs,
    gets each sample's outputs. Errors: CalibrationError (missing, empty, wrong shape, NaN, or values that make the net
    itself overflow)."""
    watched: dict[str, Watched] = {}

    def see(name: str, value: np.ndarray) -> None:
        if watch:
            watch(name, value)
        if value.dtype.kind != "f" or (tensors is not None and name not in tensors):
            return
        rows = value.reshape(-1, value.shape[-1] if value.ndim else 1)
        if not watched.setdefault(name, Watched(rows.shape[1])).update(rows):
            raise CalibrationError(
                "the net's own values overflow on the calibration data",
                where=name,
                required="finite values",
                remedy="check the scaling of the calibration inputs against the model's preprocessing",
            )

    interpreter, count = Interpreter(mod), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for sample in samples_of(mod, data, samples):
            results = interpreter.run(sample, see)
            if outputs is not None:
                outputs.append(results)
            count += 1
            if progress:
                progress(count)
    return Observations(watched, count)


def calibrate(
    mod: tvm.IRModule,
    data,
    method: str | Method = Method.MSE,
    *,
    percentile: float = 99.99,
    samples: int | None = None,
    tensors: set[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Ranges:
    """Ranges of the float tensors of ``mod`` on calibration data: ``observe`` and ``Observations.ranges`` in one."""
    _method(method)
    return observe(mod, data, samples=samples, tensors=tensors, progress=progress).ranges(method, percentile)


def _method(method: str | Method) -> Method:
    try:
        return Method(method)
    except ValueError:
        raise CalibrationError(
            "unknown calibration method",
            required=", ".join(m.value for m in Method),
            available=str(method),
            remedy="use one of these",
        ) from None
