"""The callback that a streamed input comes through: null, or one that gives up, is an error by name."""

from __future__ import annotations

import pytest

from tvm_ergo.target.isa import Copy, DType, Halt, Receive, contiguous
from tvm_ergo.target.native.library import library
from tvm_ergo.target.program import Port, Program

from .test_export_c import run_on, write

pytestmark = pytest.mark.skipif(library() is None, reason="the native runtime was not built: pip install -e .")


@pytest.mark.parametrize("board", ["here", "cortex-m"])
def test_null_and_failing_callbacks(board, tmp_path):
    row, out = contiguous(64, DType.I8, (8,)), contiguous(80, DType.I8, (2, 8))
    steps = (1, 0, 0, 0, 0, 0)
    program = Program(
        chip_name="ergo/1",
        instructions=[
            i
            for n in range(2)
            for i in (
                Receive(port=0, offset=8 * n, steps=steps, out=row),
                Copy(src=row, out=contiguous(80 + 8 * n, DType.I8, (8,))),
            )
        ]
        + [Halt()],
        data=[],
        inputs=[Port("x", contiguous(0, DType.I8, (2, 8)), True)],
        outputs=[Port("y", out)],
        memory_bytes=96,
    )
    write(program, tmp_path)
    (tmp_path / "main.c").write_text(r"""
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "net.h"
static uint8_t arena[NET_ARENA_BYTES + 16];
static uint32_t calls;
static int one_row(void *user, uint32_t port, uint32_t offset, uint32_t size, void *destination) {
  assert(user == &calls && port == 0 && offset == 8 * calls && size == 8);
  memset(destination, 3, size);
  return ++calls == 2;
}
int main(void) {
  ergo_net net;
  int8_t y[NET_OUTPUT_0_BYTES];
  memset(arena, 0x5A, sizeof arena);
  assert(!ergo_load(&net, net_program, net_program_bytes) && !ergo_start(&net, arena, NET_ARENA_BYTES));
  assert(ergo_set_input(&net, arena, 0, y, sizeof y) == ERGO_NO_SUCH_PORT);
  assert(ergo_run(&net, arena, NET_ARENA_BYTES, NULL, 0, NULL, NULL) == ERGO_NULL);
  assert(ergo_run(&net, arena, NET_ARENA_BYTES, NULL, 0, one_row, &calls) == ERGO_STOPPED && calls == 2);
  assert(ergo_get_output(&net, arena, 0, NULL, sizeof y) == ERGO_NULL);
  assert(!ergo_get_output(&net, arena, 0, y, sizeof y) && y[7] == 3);
  for (unsigned i = 0; i < 16; i++) assert(arena[NET_ARENA_BYTES + i] == 0x5A);
  printf("net: %s\n", strcmp(ergo_status_name(ERGO_STOPPED), "ERGO_STOPPED") ? "0" : "1");
  return 0;
}
""")
    assert run_on(board, tmp_path, "net") == [[1]]
