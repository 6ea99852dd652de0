"""Post-processing in the CPU's library: preconditions, meaning and cycles; `target.post` computes it.

Cycles are the most that a run can take, whatever its data: an assumption, as the chip's CPU is not public. A 32-bit
in-order core with a 32 x 32 bit multiplier and no divider of 64 bits (Arm's Cortex-M33 is of that kind): a load or
store takes 2 cycles, a multiplication into 64 bits 2, a branch 3, a division of 64 bits 60 in software."""

from __future__ import annotations

from tvm_ergo.target.isa.operand import DType, Operand, overlap
from tvm_ergo.target.post import arithmetic, boxes, others
from tvm_ergo.target.post.boxes import CANDIDATE, Activation, Head, Level

REAL_CYCLES = 16  # load, subtract the zero point, multiply, shift, limit, loop
COMPARE_CYCLES = 4
EXP_CYCLES = 40  # five multiplications, two table loads, shifts
DIVIDE_CYCLES = 60
HEAP_STEP_CYCLES = 24  # a level of a heap: two rows compared, one moved
BOX_CYCLES = 400  # one box: up to four exponentials or sigmoids, products, limits
PAIR_CYCLES = 40  # two boxes' intersection and union, three products
MOST_STEP, MOST_CELLS, MOST_BINS, MOST_LEVELS, MOST_ELEMENTS = 1 << 20, 4096, 256, 8, 1 << 18


def _form(call, inputs: int, outputs: int, params: int) -> None:
    name = call.function.name
    found = (len(call.inputs), len(call.outputs), len(call.params))
    call.require(
        found == (inputs, outputs, params),
        f"{name} takes {inputs} inputs, {outputs} outputs, {params} parameters",
        available=found,
    )
    for number, out in enumerate(call.outputs):
        call.require(
            not any(overlap(out, other) for other in call.outputs[:number]), f"two outputs of {name} share bytes"
        )
    call.require(all(o.rank <= 4 for o in (*call.inputs, *call.outputs)), f"{name} takes at most four axes")


def _scales(call, x: Operand, scales: Operand) -> None:
    """int32 [F or 1, 3], perhaps with an axis before it: multiplier, shift, zero point of each channel of x."""
    fits = scales.dtype == DType.I32 and scales.rank in (2, 3) and scales.shape[-1] == 3
    fits = fits and scales.shape[-2] in (1, x.shape[-1])
    fits = fits and (scales.rank == 2 or scales.shape[0] == 1 or x.rank > 1 and scales.shape[0] == x.shape[-2])
    call.require(fits, "the scales do not fit their values", f"int32[{x.shape[-1]} or 1, 3]", scales)


def _result(call, out: Operand, dtype: DType, shape: tuple[int, ...]) -> None:
    call.require(
        out.dtype == dtype and out.shape == tuple(shape),
        "an output has the wrong type or shape",
        f"{dtype.name.lower()}{list(shape)}",
        out,
    )


class Softmax:
    """``outputs[0] i32 = softmax of inputs[0] [..., K]`` along the last axis, in 2**-30; inputs[1]: scales."""

    @staticmethod
    def check(call) -> None:
        _form(call, 2, 1, 0)
        _scales(call, *call.inputs)
        _result(call, call.outputs[0], DType.I32, call.inputs[0].shape)

    @staticmethod
    def run(inputs, outputs, params) -> None:
        outputs[0][...] = arithmetic.softmax(arithmetic.real(*inputs))

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (2 * REAL_CYCLES + COMPARE_CYCLES + EXP_CYCLES + DIVIDE_CYCLES)


class Sigmoid(Softmax):
    """``outputs[0] i32 = sigmoid of inputs[0]`` of any shape, in 2**-30; inputs[1]: scales."""

    @staticmethod
    def run(inputs, outputs, params) -> None:
        outputs[0][...] = arithmetic.sigmoid(arithmetic.real(*inputs))

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (REAL_CYCLES + EXP_CYCLES + DIVIDE_CYCLES)


class TopK:
    """The k largest real values of inputs[0] [K], of equal ones the lower index: outputs i32[k] indices, i32[k]
    values."""

    @staticmethod
    def check(call) -> None:
        _form(call, 2, 2, 0)
        x, indices = call.inputs[0], call.outputs[0]
        call.require(x.rank == 1, "TOPK takes one axis", "[K]", x.shape)
        _scales(call, *call.inputs)
        call.require(indices.shape[0] <= x.shape[0], "more are asked for than there are", x.shape[0], indices.shape)
        for out in call.outputs:
            _result(call, out, DType.I32, indices.shape[:1])

    @staticmethod
    def run(inputs, outputs, params) -> None:
        others.topk(*inputs, *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (REAL_CYCLES + outputs[0].elements * 2 * COMPARE_CYCLES)


class Boxes:
    """Candidates of one level of a detection head into outputs[0] i32[1 + room, 6] (`target.post.boxes`). Inputs: boxes
    [H, W, A, B] and scales, perhaps objectness [H, W, A, 1] and scales, classes [H, W, A, C] and scales, perhaps
    anchors. Parameters: those of `Level`."""

    @staticmethod
    def check(call) -> None:
        name = "BOXES"
        call.require(len(call.params) == len(Level.__dataclass_fields__), f"{name} takes the parameters of a level")
        level = Level(*call.params)
        call.require(level.head in tuple(Head), f"{name} does not know this head", available=level.head)
        head = Head(level.head)
        _form(call, 4 + 2 * head.has_objectness + head.has_anchors, 1, len(call.params))
        values, classes = call.inputs[0], call.inputs[2 + 2 * head.has_objectness]
        pairs = [(values, None), (classes, None), *([(call.inputs[2], 1)] if head.has_objectness else [])]
        for operand, last in pairs:
            fits = operand.rank == 4 and operand.shape[:3] == values.shape[:3] and last in (None, operand.shape[3])
            call.require(fits, f"{name} takes [H, W, A, n] of one grid", values.shape, operand.shape)
        for at in range(0, 4 + 2 * head.has_objectness, 2):
            _scales(call, call.inputs[at], call.inputs[at + 1])
        if head.has_anchors:
            Boxes._anchors(call, head, values, call.inputs[-1])
        Boxes._limits(call, level, head, values, classes)
        out = call.outputs[0]
        fits = out.dtype == DType.I32 and out.rank == 2 and out.shape[0] > 1 and out.shape[1] == CANDIDATE
        call.require(fits and out.is_contiguous, f"{name} gives dense int32[1 + room, {CANDIDATE}]", available=out)

    @staticmethod
    def _anchors(call, head: Head, values: Operand, anchors: Operand) -> None:
        shape = (values.shape[1] * values.shape[2], 4) if head is Head.SSD else (values.shape[2], 2)
        fits = anchors.dtype == DType.I32 and anchors.shape == shape
        alone = head is not Head.SSD or values.shape[0] == 1
        call.require(fits and alone, "the anchors do not fit the boxes", f"int32{list(shape)}", anchors)

    @staticmethod
    def _limits(call, level: Level, head: Head, values: Operand, classes: Operand) -> None:
        most = Activation.SOFTMAX if head is Head.SSD else Activation.SIGMOID
        bins = values.shape[3] % 4 == 0 and values.shape[3] <= 4 * MOST_BINS
        fits = (
            0 <= level.activation <= most
            and 0 <= level.first_class < classes.shape[3]
            and level.threshold >= 0
            and all(0 <= v <= MOST_STEP for v in (level.step_y, level.step_x, level.centre, level.size))
            and level.rows_first in (0, 1)
            and (bins if head is Head.YOLOV8 else values.shape[3] == 4)
            and (head is Head.SSD or max(values.shape[:2]) <= MOST_CELLS)
            and classes.elements < 2**31
        )
        call.require(fits, "a parameter or size of BOXES is out of its range", available=level)

    @staticmethod
    def run(inputs, outputs, params) -> None:
        boxes.candidates(Level(*params), inputs, outputs[0])

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        """Every value looked at, with an exponential and a division for each where scores are computed; the heap filled
        and emptied twice."""
        room = outputs[0].shape[0] - 1
        read = sum(x.elements for x in inputs[2:] if x.rank == 4)
        heap = 4 * room * max(1, room.bit_length()) * HEAP_STEP_CYCLES
        activation = Level(*params).activation
        each = REAL_CYCLES + COMPARE_CYCLES + (EXP_CYCLES + DIVIDE_CYCLES) * (activation != Activation.AS_IS)
        scores = read * (each + (2 * REAL_CYCLES + EXP_CYCLES) * (activation == Activation.SOFTMAX))
        bins = inputs[0].shape[3] * (2 * REAL_CYCLES + EXP_CYCLES)
        return scores + heap + room * (BOX_CYCLES + bins)


class Suppress:
    """Non-maximum suppression within each class of the candidates inputs[0] i32[rows, 6] of several levels. Parameters:
    IoU in 2**-16, the rows of each level. Outputs: boxes i32[most, 4] (x1, y1, x2, y2 in 1/64 pixel), scores i32[most]
    (2**-30), classes i32[most], their number i32[1]; unused rows are 0, their class -1."""

    @staticmethod
    def check(call) -> None:
        _form(call, 1, 4, len(call.params))
        call.require(2 <= len(call.params) <= 1 + MOST_LEVELS, f"SUPPRESS takes 1 to {MOST_LEVELS} levels")
        iou, *rows = call.params
        (found,), (places, *_) = call.inputs, call.outputs
        call.require(0 <= iou <= 65536 and min(rows) >= 1, "a parameter of SUPPRESS is out of its range")
        _result(call, found, DType.I32, (sum(rows), CANDIDATE))
        most = places.shape[0]
        for out, shape in zip(call.outputs, ((most, 4), (most,), (most,), (1,))):
            _result(call, out, DType.I32, shape)

    @staticmethod
    def run(inputs, outputs, params) -> None:
        boxes.suppress(inputs[0], list(params[1:]), params[0], *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        """Every candidate against all that are kept."""
        return inputs[0].shape[0] * (outputs[0].shape[0] * PAIR_CYCLES + 8 * REAL_CYCLES)


class Keypoints:
    """Of heat maps inputs[0] [H, W, K] each channel's largest value: outputs i32[K, 2] (x, y in 1/64 pixel), i32[K] its
    real value. Parameters: step_y, step_x from cell to cell, in 1/64 pixel."""

    @staticmethod
    def check(call) -> None:
        _form(call, 2, 2, 2)
        x = call.inputs[0]
        call.require(x.rank == 3, "KEYPOINTS takes [H, W, K]", available=x.shape)
        _scales(call, *call.inputs)
        call.require(all(0 <= step <= MOST_STEP for step in call.params), "a step of KEYPOINTS is out of its range")
        _result(call, call.outputs[0], DType.I32, (x.shape[2], 2))
        _result(call, call.outputs[1], DType.I32, (x.shape[2],))

    @staticmethod
    def run(inputs, outputs, params) -> None:
        others.keypoints(*inputs, *params, *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * 2 * COMPARE_CYCLES + outputs[0].elements * 4 * REAL_CYCLES


class Mask:
    """``outputs[0] u8[H, W]``: the first class with the largest real value of inputs[0] [H, W, C], C at most 256."""

    @staticmethod
    def check(call) -> None:
        _form(call, 2, 1, 0)
        x = call.inputs[0]
        call.require(x.rank == 3 and x.shape[2] <= 256, "MASK takes [H, W, C], at most 256 classes", available=x.shape)
        _scales(call, *call.inputs)
        _result(call, call.outputs[0], DType.U8, x.shape[:2])

    @staticmethod
    def run(inputs, outputs, params) -> None:
        others.mask(*inputs, *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (REAL_CYCLES + COMPARE_CYCLES)


class Ctc:
    """Greedy decoding of inputs[0] [T, C]: outputs i32[T] tokens (unused -1), i32[1] their number. Parameter: the
    blank's class, -1 for none."""

    @staticmethod
    def check(call) -> None:
        _form(call, 2, 2, 1)
        x = call.inputs[0]
        call.require(x.rank == 2 and call.params[0] >= -1, "CTC takes [T, C] and a blank", available=x.shape)
        _scales(call, *call.inputs)
        _result(call, call.outputs[0], DType.I32, x.shape[:1])
        _result(call, call.outputs[1], DType.I32, (1,))

    @staticmethod
    def run(inputs, outputs, params) -> None:
        others.ctc(*inputs, *params, *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (REAL_CYCLES + COMPARE_CYCLES) + outputs[0].elements * COMPARE_CYCLES


class Anomaly:
    """``outputs[0] i32[1]``: mean squared difference of the real values of inputs[0] and inputs[2], one shape
    (inputs[1], inputs[3]: scales), in 2**-16."""

    @staticmethod
    def check(call) -> None:
        _form(call, 4, 1, 0)
        a, a_scales, b, b_scales = call.inputs
        call.require(a.shape == b.shape, "ANOMALY takes two tensors of one shape", a.shape, b.shape)
        call.require(
            a.elements <= MOST_ELEMENTS, f"ANOMALY takes at most {MOST_ELEMENTS} elements", available=a.elements
        )
        _scales(call, a, a_scales)
        _scales(call, b, b_scales)
        _result(call, call.outputs[0], DType.I32, (1,))

    @staticmethod
    def run(inputs, outputs, params) -> None:
        others.anomaly(*inputs, *outputs)

    @staticmethod
    def cycles(inputs, outputs, params) -> int:
        return inputs[0].elements * (2 * REAL_CYCLES + 3 * COMPARE_CYCLES) + DIVIDE_CYCLES
