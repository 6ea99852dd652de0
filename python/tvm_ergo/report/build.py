"""From Programs to a Report. What an inference costs depends on no data, so nothing has to be run for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tvm_ergo.report.buffers import buffer_rows, kind_rows, tensor_rows
from tvm_ergo.report.inputs import input_rows, streamed_buffers
from tvm_ergo.report.model import AccuracyRow, HostRow, LayerRow, MemoryRow, PortRow, ProgramReport, Report
from tvm_ergo.report.plan import plan_report
from tvm_ergo.report.post import post_row
from tvm_ergo.report.power import power_parts
from tvm_ergo.report.sleep import sleep_rows
from tvm_ergo.report.weights import decoding_cycles, weights_rows
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa.cost import Event
from tvm_ergo.target.machine.peak import WINDOW_S
from tvm_ergo.target.machine.trace import Trace
from tvm_ergo.target.program import BufferKind, Program
from tvm_ergo.target.sums import added

PJ_PER_UJ = 1e6
DEFAULT_FPS = (1.0, 30.0)


def build_report(
    model: str,
    programs: dict[str, Program],
    chip: Chip,
    *,
    point: str | None = None,
    host: Iterable = (),
    frames_per_s: Iterable[float] = DEFAULT_FPS,
    window_s: float = WINDOW_S,
    inputs: Iterable = (),
    outputs: Iterable = (),
    states: Iterable = (),
) -> Report:
    """The cost of one inference of a network whose chip parts are ``programs`` (each run once, one after another).

    host : operators left to the host CPU (objects with node, op, reason, remedy); their time and energy are not
    counted. window_s : of the peak power. inputs, outputs,
    states : of the network (objects with name, dtype, shape, scale, zero_point). Errors: TargetError for an unknown
    operating point, MachineError for a window that is not positive, ProgramError for a Program whose notes for reports
    (``meta``) are not as the compiler writes them."""
    try:
        return _report(model, programs, chip, point, host, frames_per_s, window_s, inputs, outputs, states)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        ArithmeticError,
    ) as error:  # any part of the meta may be anything in a file from somebody else
        raise ProgramError(
            "what a Program says of itself for reports is damaged",
            where=model,
            available=f"{type(error).__name__}: {error}"[:200],
            remedy="compile the model again",
        ) from error


def _report(
    model: str,
    programs: dict[str, Program],
    chip: Chip,
    point: str | None,
    host: Iterable,
    frames_per_s: Iterable[float],
    window_s: float,
    inputs: Iterable,
    outputs: Iterable,
    states: Iterable,
) -> Report:
    traces = {symbol: Trace(program, chip, point) for symbol, program in programs.items()}
    at = chip.point(point)
    cycles = sum(trace.cycles for trace in traces.values())
    seconds = cycles / at.clock_hz
    energy_pj = added(trace.energy_pj for trace in traces.values())
    rates = list(frames_per_s)
    parts = power_parts(list(traces.values()), chip, rates, window_s)
    return Report(
        model=model,
        chip=chip.name,
        point=at.name,
        clock_hz=at.clock_hz,
        voltage_v=at.voltage_v,
        chip_memory_bytes=chip.memory_bytes,
        cycles=cycles,
        latency_ms=seconds * 1e3,
        inferences_per_s=1 / seconds if seconds else 0.0,
        energy_uj=energy_pj / PJ_PER_UJ,
        leakage_uj=added(trace.leakage_pj for trace in traces.values()) / PJ_PER_UJ,
        energy_by_event_uj=_summed(trace.energy_by_event_pj for trace in traces.values()),
        energy_by_engine_uj=_summed(trace.energy_by_engine_pj for trace in traces.values()),
        macs=sum(trace.macs for trace in traces.values()),
        power=parts.power,
        parts=parts.parts,
        peak=parts.peak,
        points=parts.points,
        gates=parts.gates,
        sleep=sleep_rows(list(traces.values()), chip, rates),
        programs=[_program(symbol, trace) for symbol, trace in traces.items()],
        post=post_row(traces.values()),
        host=[HostRow(name=h.node, op=h.op, reason=h.reason, remedy=h.remedy) for h in host],
        ports=[
            PortRow(
                name=t.name, direction=direction, dtype=t.dtype, shape=t.shape, scale=t.scale, zero_point=t.zero_point
            )
            for direction, tensors in (("input", inputs), ("output", outputs), ("state", states))
            for t in tensors
        ],
    )


def accuracy_row(accuracy) -> AccuracyRow:
    """From a `tvm_ergo.accuracy.Accuracy`."""
    from tvm_ergo.accuracy import WARN, helps

    return AccuracyRow(
        outputs=dict(accuracy.outputs),
        samples=accuracy.samples,
        seconds=accuracy.seconds,
        warn_above=WARN,
        tensors=dict(accuracy.tensors),
        in_float=list(accuracy.in_float),
        remedies=list(helps(accuracy) or accuracy.remedies),
        unseen=[name for name, _, _ in accuracy.unseen],
        text=str(accuracy),
    )


def merged_chrome_trace(programs: dict[str, Program], chip: Chip, point: str | None = None) -> dict:
    """Chrome/Perfetto trace of all programs, one process each, laid one after another in time."""
    events, offset_us = [], 0.0
    for number, (symbol, program) in enumerate(programs.items()):
        trace = Trace(program, chip, point)
        events.append({"name": "process_name", "ph": "M", "pid": number, "args": {"name": symbol}})
        for event in trace.to_chrome()["traceEvents"]:
            moved = {**event, "pid": number}
            if "ts" in moved:
                moved["ts"] += offset_us
            events.append(moved)
        offset_us += trace.seconds * 1e6
    at = chip.point(point)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"chip": chip.name, "point": at.name}}


def _summed(tables: Iterable[dict]) -> dict[str, float]:
    total: Counter = Counter()
    for table in tables:
        for key, pj in table.items():
            total[key.name] += pj / PJ_PER_UJ
    return dict(total)


def _program(symbol: str, trace: Trace) -> ProgramReport:
    program = trace.program
    live = trace.bytes_over_time
    constant = live[BufferKind.CONSTANT]
    activation = sum(live.values()) - constant
    us = 1e6 / trace.point.clock_hz
    starts = [entry.start_cycle for entry in trace.entries]

    def time_us(index: int) -> float:
        return _time(index, starts, trace.cycles) * us

    buffers = buffer_rows(program, streamed_buffers(program), time_us)
    return ProgramReport(
        symbol=symbol,
        instructions=len(program.instructions),
        cycles=trace.cycles,
        energy_uj=trace.dynamic_pj / PJ_PER_UJ,
        memory_bytes=max((b.addr + b.size_bytes for b in program.buffers), default=0),
        constant_bytes=program.meta.get("constant_bytes", int(constant.max(initial=0))),  # gaps between them included
        peak_activation_bytes=min(
            int(activation.max(initial=0)), program.meta.get("live_bytes", 1 << 62)
        ),  # the map's boxes may be coarser
        inputs=input_rows(program, time_us),
        kinds=kind_rows(buffers, len(starts)),
        plan=plan_report(program),
        tensors=tensor_rows(program, buffers),
        weights=weights_rows(program),
        decoding_cycles=decoding_cycles(trace),
        layers=_layers(trace),
        buffers=buffers,
        memory_over_time=[
            MemoryRow(time_us=start * us, constant_bytes=int(c), activation_bytes=int(a))
            for start, c, a in zip(starts, constant, activation)
        ],
    )


def _time(index: int, starts: list[int], end: int) -> int:
    return starts[index] if index < len(starts) else end


def _layers(trace: Trace) -> list[LayerRow]:
    """One row a source layer (all nodes that came from it), in order of first execution; unnamed nodes stay apart."""
    peak = trace.chip.tensor.macs_per_cycle
    engines: dict[int, set] = {}
    counts: Counter = Counter()
    for entry in trace.entries:
        if entry.mnemonic != "HALT":
            engines.setdefault(entry.node, set()).add(entry.engine.name)
            counts[entry.node] += 1
    rows = []
    for total in trace.by_node:
        if not counts[total.node]:
            continue  # only HALT
        rows.append(
            LayerRow(
                name=total.layer or total.name,
                op=total.op,
                engine="+".join(sorted(engines[total.node])),
                instructions=counts[total.node],
                cycles=total.cycles,
                macs=total.macs,
                utilisation=total.macs / (total.cycles * peak) if total.cycles else 0.0,
                energy_uj=total.energy_pj / PJ_PER_UJ,
                read_bytes=total.events.get(Event.SRAM_READ_BYTE, 0),
                write_bytes=total.events.get(Event.SRAM_WRITE_BYTE, 0),
            )
        )
    return rows
