"""What a way takes before anything is emitted: instructions, busy cycles and events of its steps, added up. Features of
the cost model, and bounds for budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.cost import Apart
from tvm_ergo.codegen.space.order import Needs
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.weights.coding import Coding
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.isa import Engine, Event, Instruction

ENGINES, EVENTS = tuple(Engine), tuple(Event)
MNEMONICS = (
    "CONV",
    "DEPTHWISE",
    "CONV_TRANSPOSE",
    "MATMUL",
    "ADD",
    "MUL",
    "MAXMIN",
    "TABLE",
    "POOL",
    "REDUCE",
    "SOFTMAX",
    "RESIZE",
    "RESIZE_SCALED",
    "CONV_16",
    "ADD_16",
    "MUL_16",
    "RESCALE_16",
    "TABLE_16",
    "COPY",
    "FILL",
    "ENCODE",
    "DECODE",
    "CPU_CALL",
    "SPMV",
    "RECEIVE",
)
WIDTH = len(ENGINES) + len(EVENTS) + len(MNEMONICS)


@dataclass(frozen=True, eq=False)
class Counts:
    """totals : float64[WIDTH]: busy cycles per engine, events, instructions per mnemonic. steps, shifts : how many."""

    totals: np.ndarray
    steps: int
    shifts: int

    @property
    def busy_cycles(self) -> np.ndarray:
        return self.totals[: len(ENGINES)]

    @property
    def events(self) -> dict[Event, float]:
        return dict(zip(EVENTS, self.totals[len(ENGINES) : len(ENGINES) + len(EVENTS)]))

    @property
    def least_cycles(self) -> float:
        """No run takes fewer: the busiest engine has as much to do."""
        return float(self.busy_cycles.max())


class StepCounts:
    """Counts of the steps of one graph on one chip, remembered by node, coding of its constant and the size of its
    boxes."""

    def __init__(self, graph: Graph, chip: Chip, needs: Needs):
        self.graph, self.chip, self.needs = graph, chip, needs
        self._apart = Apart(graph)
        self._known: dict[tuple, np.ndarray] = {}
        self._boxes: dict[tuple, dict[Region, np.ndarray]] = {}  # the same, by node and codings, then by box

    def of(self, steps: Iterable[Step | Shift], codings: Mapping[int, Coding], views: Sequence[View]) -> Counts:
        """codings : of constants. views : where tensors lie, from which it is seen what is moved and what is in
        place."""
        total, shifts, number = np.zeros(WIDTH), 0, 0
        self._apart.codings = dict(codings)
        known: dict[int, dict[Region, np.ndarray] | None] = {}
        for step in steps:
            number += 1
            if isinstance(step, Shift):
                shifts += 1
                total += self._shift(step)
                continue
            node = step.node
            if node.id not in known:
                known[node.id] = (
                    None
                    if _in_place(node, views)
                    else self._boxes.setdefault((node.id, tuple(codings.get(t) for t in node.inputs)), {})
                )
            boxes = known[node.id]
            if boxes is not None:
                if step.region not in boxes:
                    boxes[step.region] = self._step(step, codings)
                total += boxes[step.region]
        return Counts(total, number, shifts)

    def _step(self, step: Step, codings: Mapping[int, Coding]) -> np.ndarray:
        node = step.node
        boxes = (step.region, *self.needs.boxes(node, step.region))
        key = (
            node.id,
            tuple(codings.get(t) for t in node.inputs),
            *(tuple(end - begin for begin, end in box) for box in boxes),
        )
        if key not in self._known:
            emit = Emitter(self._apart)
            emit.lower(node, step.region)
            self._known[key] = _added(emit.instructions, self.chip)
        return self._known[key]

    def _shift(self, shift: Shift) -> np.ndarray:
        dma, size, found = self.chip.dma, shift.size_bytes, np.zeros(WIDTH)
        found[ENGINES.index(Engine.DMA)] = len(shift.runs) * dma.issue_cycles + size // dma.bytes_per_cycle
        for event, count in (
            (Event.SRAM_READ_BYTE, size),
            (Event.SRAM_WRITE_BYTE, size),
            (Event.INSTRUCTION, len(shift.runs)),
        ):
            found[len(ENGINES) + EVENTS.index(event)] = count
        found[len(ENGINES) + len(EVENTS) + MNEMONICS.index("COPY")] = len(shift.runs)
        return found


def _in_place(node: Node, views: Sequence[View]) -> bool:
    """Whether a node that moves finds what it reads in its result's buffer."""
    roots = {views[t].root for t in node.outputs}
    return node.op.traits.move is not None and all(views[t].root in roots for t in node.inputs)


def _added(instructions: Iterable[Instruction], chip: Chip) -> np.ndarray:
    found = np.zeros(WIDTH)
    for instruction in instructions:
        cost = instruction.cost(chip)
        found[ENGINES.index(instruction.engine)] += cost.cycles
        for event, count in cost.events.items():
            found[len(ENGINES) + EVENTS.index(event)] += count
        if instruction.MNEMONIC in MNEMONICS:
            found[len(ENGINES) + len(EVENTS) + MNEMONICS.index(instruction.MNEMONIC)] += 1
    return found
