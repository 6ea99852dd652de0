"""Timeline against a naive event simulation; totals, power, exports of the trace."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Add, Conv, Copy, DType, Engine, Event, Fill, Halt, contiguous
from tvm_ergo.target.machine import Machine, Trace
from tvm_ergo.target.machine.timeline import simulate
from tvm_ergo.target.program import Buffer, BufferKind, Node, Port, Program

CHIP = chip("ergo/1")


def i8(addr, *shape):
    return contiguous(addr, DType.I8, shape)


def convolution(addr, out, channels, waits):
    vector = contiguous(4096, DType.I32, (channels,))
    return Conv(
        x=i8(addr, 1, 8, 8, 4),
        w=i8(2048, channels, 3, 3, 4),
        bias=vector,
        mult=vector,
        shift=i8(4096, channels),
        out=i8(out, 1, 8, 8, channels),
        strides=(1, 1),
        padding=(1, 1, 1, 1),
        dilation=(1, 1),
        groups=1,
        in_zp=0,
        w_zp=0,
        out_zp=0,
        lo=-128,
        hi=127,
        waits=waits,
        node=1,
    )


def program(instructions, **fields):
    nodes = [Node("a", "add", "layer a"), Node("conv", "conv2d", "layer b")]
    return Program(
        chip_name="ergo/1",
        instructions=[*instructions, Halt()],
        data=[],
        inputs=[],
        outputs=[],
        memory_bytes=16384,
        nodes=nodes,
        **fields,
    )


@st.composite
def programs(draw):
    instructions, issued = [], {Engine.TENSOR: 0, Engine.VECTOR: 0, Engine.DMA: 0}
    for _ in range(draw(st.integers(0, 12))):
        waits = {e: draw(st.integers(0, n)) for e, n in issued.items() if draw(st.booleans())}
        size = draw(st.integers(1, 2000))
        kind = draw(st.sampled_from(["fill", "copy", "add", "conv"]))
        made = {
            "fill": lambda: Fill(out=i8(0, size), value=1, waits=waits),
            "copy": lambda: Copy(src=i8(0, size), out=i8(2000, size), waits=waits),
            "add": lambda: Add(
                a=i8(0, size),
                b=i8(0, size),
                out=i8(2000, size),
                a_zp=0,
                b_zp=0,
                a_mult=1,
                b_mult=1,
                shift=0,
                out_zp=0,
                lo=-128,
                hi=127,
                waits=waits,
            ),
            "conv": lambda: convolution(0, 8192, draw(st.integers(1, 40)), waits),
        }[kind]()
        instructions.append(made)
        issued[made.engine] += 1
    return program(instructions)


def naive_simulation(compiled):
    """Clock by clock: every engine starts its next instruction when it is free and what it waits for is done."""
    queues = {e: [i for i, ins in enumerate(compiled.instructions) if ins.engine == e] for e in Engine}
    running: dict[Engine, tuple[int, int]] = {}
    done, starts, ends, cycle = {e: 0 for e in Engine}, {}, {}, 0
    while len(ends) < len(compiled.instructions):
        for engine, (index, left) in list(running.items()):
            if left == 0:
                ends[index], done[engine] = cycle, done[engine] + 1
                del running[engine]
        for engine, queue in queues.items():
            if engine not in running and queue:
                instruction = compiled.instructions[queue[0]]
                ready = (
                    len(ends) == queue[0]
                    if isinstance(instruction, Halt)
                    else all(done[e] >= n for e, n in instruction.waits.items())
                )
                if ready:
                    index = queue.pop(0)
                    starts[index], running[engine] = cycle, (index, instruction.cost(CHIP).cycles)
        running = {engine: (index, left - 1) for engine, (index, left) in running.items()}
        cycle += 1
    return [starts[i] for i in range(len(starts))], [ends[i] for i in range(len(ends))]


@settings(max_examples=60, deadline=None)
@given(programs())
def test_timeline_equals_naive_simulation(compiled):
    timeline = simulate(compiled, CHIP)
    starts, ends = naive_simulation(compiled)
    assert list(timeline.starts_cycles) == starts and list(timeline.ends_cycles) == ends
    assert timeline.cycles == max(ends)


@settings(max_examples=40, deadline=None)
@given(programs(), st.sampled_from([p.name for p in CHIP.points]))
def test_totals_agree_with_each_other(compiled, point):
    trace = Trace(compiled, CHIP, point)
    assert sum(trace.energy_by_event_pj.values()) == pytest.approx(trace.dynamic_pj)
    assert sum(trace.energy_by_engine_pj.values()) == pytest.approx(sum(e.energy_pj for e in trace.entries))
    assert sum(t.energy_pj for t in trace.by_node) == pytest.approx(trace.dynamic_pj)
    assert sum(t.cycles for t in trace.by_node) == sum(trace.busy_cycles.values())
    assert (
        trace.macs == sum(t.macs for t in trace.by_node) == sum(e.events.get(Event.MAC_8X8, 0) for e in trace.entries)
    )
    assert trace.energy_pj == pytest.approx(trace.dynamic_pj + CHIP.leakage_pj(trace.cycles, point))
    assert {e: sum(places.values()) for e, places in trace.energy_split_pj.items()} == pytest.approx(
        trace.energy_by_engine_pj
    )
    assert sum(trace.leakage_by_part_pj().values()) == pytest.approx(trace.leakage_pj, rel=1e-4)
    assert trace.seconds == trace.cycles / CHIP.point(point).clock_hz
    assert all(0 <= share <= 1 for share in trace.occupancy.values()) and 0 <= trace.mac_utilisation <= 1
    assert all(0 <= trace.entry_utilisation(e) <= 1 for e in trace.entries)


def small():
    buffers = [
        Buffer("x", 0, 100, 0, 2, BufferKind.INPUT),
        Buffer("y", 100, 50, 1, 4, BufferKind.OUTPUT),
        Buffer("w", 200, 7, 0, 4, BufferKind.CONSTANT),
    ]
    return program(
        [Fill(out=i8(0, 100), value=1), convolution(0, 8192, 3, {Engine.DMA: 1}), Fill(out=i8(0, 100), value=2)],
        buffers=buffers,
    )


def test_bytes_over_time():
    trace = Trace(small(), CHIP)
    assert {k.name: v.tolist() for k, v in trace.bytes_over_time.items()} == {
        "INPUT": [100, 100, 0, 0],
        "STATE": [0, 0, 0, 0],
        "OUTPUT": [0, 50, 50, 50],
        "CONSTANT": [7] * 4,
        "ACTIVATION": [0] * 4,
        "SCRATCH": [0] * 4,
    }
    assert trace.peak_bytes == 157


def test_mac_count_of_a_convolution():
    total = next(t for t in Trace(small(), CHIP).by_node if t.name == "conv")
    assert (total.op, total.layer, total.macs) == ("conv2d", "layer b", 8 * 8 * 3 * 3 * 3 * 4)


def test_power_at_a_frame_rate():
    trace = Trace(small(), CHIP)
    rate = trace.inferences_per_s
    assert trace.power_mw(rate * (1 - 1e-12)) == pytest.approx(trace.energy_pj * 1e-12 / trace.seconds * 1e3)
    assert trace.power_mw(rate / 2) == pytest.approx((trace.energy_pj * 1e-9 * rate + CHIP.idle_mw) / 2)
    for impossible in (rate * 1.01, 0, -1, float("nan")):
        with pytest.raises(MachineError, match="frames per second"):
            trace.power_mw(impossible)


def test_json_is_plain_and_complete():
    trace = Trace(small(), CHIP)
    data = json.loads(json.dumps(trace.to_json(), allow_nan=False))
    assert (
        data["cycles"] == trace.cycles
        and len(data["instructions"]) == 4
        and data["bytes_over_time"]["output"] == [0, 50, 50, 50]
    )
    assert data["nodes"][1]["macs"] == trace.macs and data["energy_by_event_pj"].keys() == data["events"].keys()


def test_chrome_trace_spans_match_the_timeline():
    trace = Trace(small(), CHIP)
    data = json.loads(json.dumps(trace.to_chrome(), allow_nan=False))
    spans = [e for e in data["traceEvents"] if e["ph"] == "X"]
    assert [s[key] * 1e-6 * trace.point.clock_hz for s in spans for key in ("ts", "dur")] == pytest.approx(
        [cycles for e in trace.entries for cycles in (e.start_cycle, e.cycles)]
    )
    assert {e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M"} == {"TENSOR", "DMA", "CPU"}


def test_machine_takes_an_operating_point():
    x = i8(0, 4)
    compiled = program([Fill(out=x, value=5)])
    compiled.outputs.append(Port("x", x))
    for point in CHIP.points:
        result = Machine(compiled, CHIP, strict=True, point=point.name).run({})
        assert result.trace.seconds == result.trace.cycles / point.clock_hz
        np.testing.assert_array_equal(result.outputs["x"], [5] * 4)
