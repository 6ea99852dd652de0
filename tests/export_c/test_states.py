"""Networks that keep values from one run to the next, as C: three runs are the emulator's."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.exporting_c import port_states
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import Copy, DType, Halt, PutRows, contiguous
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.native.export import exported
from tvm_ergo.target.native.exported_states import RUNS, PortState
from tvm_ergo.target.program import Port, Program

from ..compile.test_step_window import network
from ..frontend.tflite.test_states import ring
from ..target.native.sanitized import samples
from .test_export_c import pytestmark, run_on  # noqa: F401  the same packages are needed

RNG = np.random.default_rng(7)


def emulated(program: Program, states: tuple[PortState, ...]) -> list[list[int]]:
    """Outputs that are no states, run after run."""
    given, machine, hidden = samples(program), Machine(program, native=False), {s.output for s in states if s.hidden}
    for state in states:
        port = program.inputs[state.input]
        values = np.frombuffer(state.initial, port.operand.dtype.numpy)
        given[port.name] = values.reshape(port.operand.shape)
    found = []
    for _ in range(RUNS):
        outputs = list(machine.run(given).outputs.values())
        found += [array.ravel().tolist() for number, array in enumerate(outputs) if number not in hidden]
        given |= {program.inputs[s.input].name: outputs[s.output] for s in states}
    return found


@pytest.mark.parametrize("board", ["here", "cortex-m", "riscv"])
@pytest.mark.parametrize("kind", ["int8", "float"])
def test_runs_go_on_from_each_other(kind, board, tmp_path):
    if kind == "int8":
        model = tvm_ergo.compile(ring(RNG.integers(-128, 128, (1, 3, 1, 6))))
    else:
        frames = RNG.normal(size=(40, 1, 1, 1, 6)).astype(np.float32)
        model = tvm_ergo.compile(ring(dtype="float32"), calibration=frames)
    (program,) = model.programs.values()
    states = port_states(model, program)
    assert [s.name for s in states] == [s.name for s in model.states]
    tvm_ergo.export_c(model, tmp_path / "net", name="net")
    found = run_on(board, tmp_path / "net", "net")
    assert found == emulated(program, states)
    assert len({tuple(line) for line in found}) > 1  # the runs differ: something was kept
    if kind == "int8":
        x = samples(program)["x"]
        assert [model.run(x).outputs["y"].ravel().tolist() for _ in range(RUNS)] == found


@pytest.mark.parametrize("board", ["here", "cortex-m", "riscv"])
def test_new_rows_of_a_window(board, tmp_path):
    """A network that listens: its rows stay in the arena, at one place, and no copies of them are kept beside it."""
    model, shape = network(8, 1, [("conv", 3, 1, 1, (0, 0), True), ("relu",)], "mean", 5)
    rng = np.random.default_rng(0)
    calibration = [rng.normal(0, 1, shape).astype(np.float32) for _ in range(12)]
    stepped = tvm_ergo.compile(model, calibration=calibration, new_rows=1)
    (program,) = stepped.programs.values()
    tvm_ergo.export_c(stepped, tmp_path / "net", name="net")
    assert "#define NET_STATE_BYTES 0u" in (tmp_path / "net" / "net.h").read_text()
    found = run_on(board, tmp_path / "net", "net")
    assert found == emulated(program, port_states(stepped, program))
    assert len({tuple(line) for line in found}) > 1


def cache() -> Program:
    """A row is put into a cache that stays where it is; the cache's rows come out."""
    whole, row, position = (
        contiguous(64, DType.I8, (4, 3)),
        contiguous(96, DType.I8, (1, 3)),
        contiguous(112, "int32", (1,)),
    )
    return Program(
        chip_name="ergo/1",
        instructions=[
            PutRows(src=row, position=position, out=whole),
            Copy(src=whole, out=contiguous(128, DType.I8, (4, 3))),
            Halt(),
        ],
        data=[],
        inputs=[Port("cache", whole), Port("x", row), Port("position", position)],
        outputs=[Port("kept", whole), Port("y", contiguous(128, DType.I8, (4, 3)))],
        memory_bytes=256,
    )


def test_a_state_that_stays_in_its_place_takes_no_memory(tmp_path):
    program, states = cache(), (PortState("cache", 0, 0, bytes(range(12))),)
    for path, text in exported(program, "net", {}, states).files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert "#define NET_STATE_BYTES 0u" in (tmp_path / "net.h").read_text()
    assert run_on("here", tmp_path, "net") == emulated(program, states)


def test_get_and_set_between_runs(tmp_path):
    model = tvm_ergo.compile(ring(np.zeros((1, 3, 1, 6))))
    tvm_ergo.export_c(model, tmp_path / "net", name="net")
    main = (tmp_path / "net" / "main.c").read_text()
    head, _ = main.split("int main(void) {")
    (tmp_path / "net" / "main.c").write_text(
        head
        + r"""
#include <assert.h>
#include <string.h>
int main(void) {
  ergo_net net;
  NET_STATE_0_TYPE values[NET_STATE_0_ELEMENTS], again[NET_STATE_0_ELEMENTS];
  assert(!ergo_load(&net, net_program, net_program_bytes) && !ergo_start(&net, arena, sizeof arena));
  assert(!ergo_state_reset(&net, arena, net_states, NET_STATES, kept));
  memset(values, 7, sizeof values);
  assert(!ergo_state_set(&net, arena, &net_states[0], kept, values, sizeof values));
  assert(!ergo_state_get(&net, arena, &net_states[0], kept, again, sizeof again));
  assert(!memcmp(values, again, sizeof again));
  assert(ergo_state_set(&net, arena, &net_states[0], kept, values, 1) == ERGO_NO_SUCH_PORT);
  assert(ergo_state_get(&net, arena, &net_states[0], kept, NULL, 0) == ERGO_NULL);
  assert(ergo_state_before(&net, arena, NULL, 1, kept) == ERGO_NULL);
  (void)receive, (void)failed, (void)workspace, (void)sample;
  puts("net: 1");
  return 0;
}
"""
    )
    assert run_on("here", tmp_path / "net", "net") == [[1]]


def test_a_state_in_two_forms_is_refused(tmp_path, monkeypatch):
    model = tvm_ergo.compile(ring(np.zeros((1, 3, 1, 6))))
    monkeypatch.setattr("tvm_ergo.exporting_c._port_state", lambda *_: None)
    with pytest.raises(UnsupportedError, match="another form"):
        tvm_ergo.export_c(model, tmp_path / "net")
