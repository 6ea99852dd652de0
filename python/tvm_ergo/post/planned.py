"""From options and a network's outputs to calls of the CPU's library, and what the model then gives."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field

import numpy as np

from tvm_ergo.codegen.post import Call, Kept, Piece, Post, Rows
from tvm_ergo.frontend import TensorInfo
from tvm_ergo.post.heads import LevelPlaces, Outputs, levels_of, wrong
from tvm_ergo.post.options import Anomaly, Argmax, Ctc, Detection, Keypoints, PostOptions, Sigmoid, Softmax, Ssd, TopK
from tvm_ergo.post.sources import Places, operand_of, scales_of
from tvm_ergo.target.errors import InputError, UnsupportedError
from tvm_ergo.target.isa import CpuFunction, DType
from tvm_ergo.target.post.arithmetic import ONE
from tvm_ergo.target.post.boxes import Activation, Head, Level
from tvm_ergo.target.program import Program

UNIT, REAL, PIXEL = 2.0**-30, 2.0**-16, 2.0**-6
PIXELS, PROBABILITY = 64, "probabilities, in 2**-30"


@dataclass(frozen=True)
class Network:
    """What post-processing is put behind. outputs : the model's, with their places. inputs : the model's. kept_scale :
    of the Program's first input, for a comparison with it. ends : names of the last operators that compute outputs."""

    program: Program
    inputs: tuple[TensorInfo, ...]
    outputs: Outputs
    kept_scale: tuple[float, int] | None = None
    ends: frozenset[str] = frozenset()

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the first input. Errors: InputError."""
        shape = self.inputs[0].shape
        if len(shape) != 4:
            raise InputError(
                "post-processing of pictures needs a network that takes one",
                where=f"input {self.inputs[0].name!r}",
                required="[1, C, H, W] or [1, H, W, C]",
                available=str(list(shape)),
                remedy="leave post (--post) out, or compile a network with one picture as its input",
            )
        return (shape[2], shape[3]) if shape[1] <= 4 < shape[2] or shape[3] > 4 else (shape[1], shape[2])


@dataclass
class _Builder:
    network: Network
    options: PostOptions
    pieces: list[Piece] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[TensorInfo] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    more: dict[str, int] = field(default_factory=dict)

    def constant(self, name: str, array: np.ndarray) -> str:
        name = f"post_{name}"
        self.pieces.append(Piece(name, array.shape, DType.I32, array.astype(np.int32)))
        return name

    def scratch(self, name: str, shape) -> str:
        name = f"post_{name}"
        self.pieces.append(Piece(name, tuple(shape), scratch=True))
        return name

    def result(self, name: str, shape, unit: str, scale: float | None = None, dtype: DType = DType.I32) -> str:
        """An output of the model, and what its integers mean."""
        self.pieces.append(Piece(name, tuple(shape), dtype))
        zero_point = None if scale is None else 0
        self.results.append(TensorInfo(name, tuple(shape), dtype.numpy.name, scale, zero_point))
        self.units[name] = unit
        return name

    def stored(self, name: str, places: Places, keep: int = 1) -> list:
        """Operand and scales of a part of the outputs. Errors: UnsupportedError where it is not in one place."""
        operand = operand_of(self.network.program, places)
        scales = scales_of(places, keep, name)
        if operand is None or scales is None:
            raise UnsupportedError(
                "a part of the head does not lie in the chip's memory as one tensor",
                where=f"{name} {list(places.shape)}, post-processing {self.options.NAME}",
                remedy="export the network with one output for each level of its head",
            )
        return [operand, self.constant(f"{name}_scales", scales)]

    def call(self, function: CpuFunction, inputs, outputs, params=()) -> None:
        self.calls.append(Call(function, inputs, outputs, params, f"post_{function.name.lower()}_{len(self.calls)}"))

    def post(self) -> Post:
        about = {**self.options.described(), "outputs": self.units, **self.more}
        return Post(self.pieces, self.calls, [r.name for r in self.results], about)


def planned(options: PostOptions, network: Network) -> tuple[Post, tuple[TensorInfo, ...]]:
    """The calls, and the model's new outputs. Errors: InputError for outputs of other shapes, UnsupportedError."""
    build = _Builder(network, options)
    next(plan for cls, plan in _PLANS if isinstance(options, cls))(build, options)
    return build.post(), tuple(build.results)


def _one(build: _Builder, required: str) -> Places:
    if len(build.network.outputs) != 1:
        raise wrong(build.options, build.network.outputs, f"one output: {required}")
    return build.network.outputs[0][1]


def _squeezed(build: _Builder, required: str, rank: int | None = None) -> Places:
    """The one output without leading axes of length 1."""
    places = _one(build, required)
    shape = places.shape
    while len(shape) > (rank or 1) and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > 4 or rank is not None and len(shape) != rank or not shape or math.prod(shape) == 0:
        raise wrong(build.options, build.network.outputs, required)
    return places.reshape(*shape)


def _softmax(build: _Builder, options: Softmax) -> None:
    x = _squeezed(build, "[..., classes], at most four axes")
    if options.k is None:
        out = build.result("probabilities", x.shape, PROBABILITY, UNIT)
        return build.call(CpuFunction.SOFTMAX, build.stored("x", x), [out])
    if len(x.shape) != 1:
        raise wrong(options, build.network.outputs, "[1, classes], for the best k")
    between = build.scratch("probabilities", x.shape)
    build.call(CpuFunction.SOFTMAX, build.stored("x", x), [between])
    as_they_are = build.constant("units", np.array([[1, 0, 0]]))
    _best(build, [between, as_they_are], x.shape[0], options.k, UNIT, PROBABILITY)


def _topk(build: _Builder, options: TopK) -> None:
    x = _squeezed(build, "[1, classes]", 1)
    _best(build, build.stored("x", x), x.shape[0], options.k, REAL, "the network's own values, in 2**-16")


def _best(build: _Builder, inputs: list, count: int, k: int, scale: float, unit: str) -> None:
    if k > count:
        raise InputError(
            "more classes are asked for than the network has",
            where=f"post-processing {build.options.NAME}, option k",
            required=f"at most {count}",
            available=str(k),
            remedy="ask for fewer (option k)",
        )
    build.more["classes"] = count
    classes = build.result("classes", (k,), "numbers of classes, the best first")
    scores = build.result("scores", (k,), unit, scale)
    build.call(CpuFunction.TOPK, inputs, [classes, scores])


def _sigmoid(build: _Builder, options: Sigmoid) -> None:
    x = _squeezed(build, "at most four axes")
    out = build.result("probabilities", x.shape, PROBABILITY, UNIT)
    build.call(CpuFunction.SIGMOID, build.stored("x", x), [out])


def _map(build: _Builder, what: str) -> Places:
    """An output [1, C, H, W] or [1, H, W, C] as [H, W, C]: a network with planes in front gives planes in front."""
    places = _one(build, what)
    if len(places.shape) != 4 or places.shape[0] != 1:
        raise wrong(build.options, build.network.outputs, what)
    height, width = build.network.picture
    planes = (height, width) == tuple(build.network.inputs[0].shape[2:])
    return places[0].transpose(1, 2, 0) if planes else places[0]


def _keypoints(build: _Builder, options: Keypoints) -> None:
    x = _map(build, "heat maps [1, K, H, W] or [1, H, W, K], as the input has its axes")
    steps = [round(n * PIXELS / cells) for n, cells in zip(build.network.picture, x.shape[:2])]
    points = build.result("points", (x.shape[2], 2), "x, y in 1/64 pixel of the input", PIXEL)
    scores = build.result("scores", (x.shape[2],), "the heat map's value there, in 2**-16", REAL)
    build.call(CpuFunction.KEYPOINTS, build.stored("x", x), [points, scores], steps)


def _argmax(build: _Builder, options: Argmax) -> None:
    x = _map(build, "class scores [1, C, H, W] or [1, H, W, C], as the input has its axes, of at most 256 classes")
    if x.shape[2] > 256:
        raise wrong(options, build.network.outputs, "at most 256 classes")
    mask = build.result("mask", x.shape[:2], "the best class of each pixel", dtype=DType.U8)
    build.call(CpuFunction.MASK, build.stored("x", x), [mask])


def _ctc(build: _Builder, options: Ctc) -> None:
    x = _one(build, "[1, T, classes] or [T, 1, classes]")
    shape = tuple(n for i, n in enumerate(x.shape) if n != 1 or i == len(x.shape) - 1)
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2:
        raise wrong(options, build.network.outputs, "[1, T, classes] or [T, 1, classes]")
    blank = shape[1] - 1 if options.blank < 0 else options.blank
    if blank >= shape[1]:
        raise InputError(
            "the blank is no class",
            where="post-processing ctc, option blank",
            required=f"0 to {shape[1] - 1}",
            available=str(blank),
            remedy="give the blank's number among the classes",
        )
    tokens = build.result("tokens", shape[:1], "numbers of classes; unused: -1")
    count = build.result("count", (1,), "tokens found")
    build.call(CpuFunction.CTC, build.stored("x", x.reshape(*shape)), [tokens, count], [blank])


def _anomaly(build: _Builder, options: Anomaly) -> None:
    places, program, inputs = _one(build, "the input's reconstruction"), build.network.program, build.network.inputs
    if len(inputs) != 1 or len(program.inputs) != 1 or math.prod(inputs[0].shape) != math.prod(places.shape):
        raise wrong(options, build.network.outputs, f"one output as large as the one input {list(inputs[0].shape)}")
    port = program.inputs[0]
    if port.streamed:
        raise UnsupportedError(
            "the input is streamed, and the score compares it with the result",
            where="post-processing anomaly",
            remedy="compile without stream (--stream)",
        )
    if build.network.kept_scale is None:
        raise UnsupportedError("nothing says what the chip's input stands for", where="post-processing anomaly")
    scale, zero_point = build.network.kept_scale
    if len(port.operand.shape) > 4:
        raise wrong(options, build.network.outputs, "an input of at most four axes")
    operand, scales = build.stored("x", places.reshape(*port.operand.shape))
    kept = Places(*(np.full(1, v) for v in (0, 0, scale, float(zero_point))))
    ours = build.constant("input_scales", scales_of(kept, 1, "the input"))
    score = build.result("score", (1,), "mean squared difference of input and output, in 2**-16", REAL)
    build.call(CpuFunction.ANOMALY, [Kept(port.name), ours, operand, scales], [score])


def _activation(options: Detection, network: Network) -> Activation:
    """What was asked for; else a sigmoid, unless the network itself ends with one (or with a softmax)."""
    name = options.activation
    if name == "auto":
        name = "none" if network.ends & {"relax.sigmoid", "relax.nn.softmax"} else "sigmoid"
    if name == "softmax" and not isinstance(options, Ssd):
        raise InputError(
            "this head has no softmax",
            where=f"post-processing {options.NAME}, option activation",
            required="none, sigmoid",
            remedy="give one of these as activation",
        )
    return {"none": Activation.AS_IS, "sigmoid": Activation.SIGMOID, "softmax": Activation.SOFTMAX}[name]


def _detection(build: _Builder, options: Detection) -> None:
    levels = levels_of(options, build.network.outputs, build.network.picture)
    head = Head[options.NAME.upper()]
    if len(levels) > 8:
        raise UnsupportedError(
            "more levels than suppression takes",
            where=f"post-processing {options.NAME}",
            required="at most 8",
            available=str(len(levels)),
        )
    sizes = [min(options.room, math.prod(level.classes.shape)) for level in levels]
    rows = [1 + size for size in sizes]
    found = build.scratch("candidates", (sum(rows), 6))
    for i, level in enumerate(levels):
        _level(build, options, head, level, i, Rows(found, sum(rows[:i]), rows[i]))
    boxes = build.result("boxes", (options.most, 4), "x1, y1, x2, y2 in 1/64 pixel of the input", PIXEL)
    scores = build.result("scores", (options.most,), "in 2**-30, the best first", UNIT)
    classes = build.result("classes", (options.most,), "numbers of classes; unused: -1")
    count = build.result("count", (1,), "boxes found")
    build.call(CpuFunction.SUPPRESS, [found], [boxes, scores, classes, count], [round(options.iou * 65536), *rows])


def _level(build: _Builder, options: Detection, head: Head, level: LevelPlaces, number: int, out: Rows) -> None:
    activation = _activation(options, build.network)
    inputs = build.stored(f"boxes_{number}", level.boxes, 2)
    if level.objectness is not None:
        inputs += build.stored(f"objectness_{number}", level.objectness, 2)
    inputs += build.stored(f"classes_{number}", level.classes, 2)
    if level.anchors is not None:
        inputs.append(build.constant(f"anchors_{number}", np.rint(level.anchors * PIXELS)))
    threshold = min(int(options.score * ONE), ONE)
    parameters = Level(
        head=int(head),
        activation=int(activation),
        floor=_floor(options.score, activation),
        threshold=threshold,
        first_class=options.background if isinstance(options, Ssd) else 0,
        step_y=round(level.step[0] * PIXELS),
        step_x=round(level.step[1] * PIXELS),
        centre=round(options.centre * 65536) if isinstance(options, Ssd) else 0,
        size=round(options.size * 65536) if isinstance(options, Ssd) else 0,
        rows_first=int(isinstance(options, Ssd) and options.order == "yxhw"),
    )
    build.call(CpuFunction.BOXES, inputs, [out], astuple(parameters))


def _floor(score: float, activation: Activation) -> int:
    """The real value, 2**-16, that no factor of a score above the threshold can be below: a little lower than exact."""
    if activation is Activation.AS_IS:
        return max(0, int(score * 65536) - 1)
    if score <= 0:
        return -(2**31)
    if score >= 1:
        return 2**30 - 1
    return int(math.floor(math.log(score / (1 - score)) * 65536)) - 64


_PLANS = (
    (Detection, _detection),
    (Softmax, _softmax),
    (TopK, _topk),
    (Sigmoid, _sigmoid),
    (Keypoints, _keypoints),
    (Argmax, _argmax),
    (Ctc, _ctc),
    (Anomaly, _anomaly),
)
__all__ = ["Network", "planned"]
