"""A decode entry as C writes what the emulator writes: keys and values stay in its memory from one run to the next."""

import shutil
import subprocess

import pytest

import tvm_ergo

from . import decoders

LOOP = """
#include <stdio.h>
#include "net.h"
static uint8_t arena[NET_ARENA_BYTES] __attribute__((aligned(8)));
static uint8_t workspace[NET_WORKSPACE_BYTES + 1] __attribute__((aligned(8)));
static uint8_t kept[NET_STATE_BYTES + 1] __attribute__((aligned(8)));
int main(void) {
  static ergo_net net;
  int prompt[] = {PROMPT}, given = sizeof prompt / sizeof *prompt;
  int32_t id = 0;
  if (ergo_load(&net, net_program, net_program_bytes) || ergo_start(&net, arena, sizeof arena) ||
      ergo_state_reset(&net, arena, net_states, NET_STATES, kept))
    return 1;
  for (int32_t p = 0; p < COUNT; p++) {
    int16_t narrow = (int16_t)p, out[NET_OUTPUT_LOGITS_BYTES / 2];
    if (p < given) id = prompt[p];
    printf("%d ", (int)id);
    if (ergo_set_input(&net, arena, IDS, &id, 4) || ergo_set_input(&net, arena, POSITION, &p, 4) ||
        ergo_set_input(&net, arena, NARROW, &narrow, 2))
      return 2;
    if (ergo_state_before(&net, arena, net_states, NET_STATES, kept) ||
        ergo_run(&net, arena, sizeof arena, workspace, sizeof workspace, NULL, NULL) ||
        ergo_state_after(&net, arena, net_states, NET_STATES, kept) ||
        ergo_get_output(&net, arena, LOGITS, out, sizeof out))
      return 3;
    id = 0;
    for (int i = 1; i < (int)(sizeof out / 2); i++)
      if (out[i] > out[id]) id = i;
  }
  return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_same_text(tmp_path):
    feeds = decoders.samples(2)
    model = tvm_ergo.compile(decoders.decoder(True, decoders.GROUPS), calibration=feeds, generate=True, lengths=[6])
    entry = next(e.model for e in model.entries if e.name == "decode_24")
    folder = tmp_path / "c"
    tvm_ergo.export_c(entry, folder, name="net")
    (program,) = entry.programs.values()
    ports = {p.name: n for n, p in enumerate(program.inputs)}
    (logits,) = [n for n, p in enumerate(program.outputs) if p.operand.shape == (1, 1, decoders.V)]
    prompt, count = [1, 5, 9], decoders.S - 1
    defined = {
        "PROMPT": ",".join(map(str, prompt)),
        "COUNT": count,
        "IDS": ports["ids_int32"],
        "POSITION": ports["position"],
        "NARROW": ports["position_int16"],
        "LOGITS": logits,
        "NET_OUTPUT_LOGITS_BYTES": f"NET_OUTPUT_{logits}_BYTES",
    }
    (folder / "main.c").write_text("".join(f"#define {n} {v}\n" for n, v in defined.items()) + LOOP)
    sources = [str(p) for p in folder.glob("*.c")]
    subprocess.run(["cc", "-std=c11", "-O1", "-o", str(folder / "write"), *sources], check=True, cwd=folder)
    told = subprocess.run([str(folder / "write")], check=True, capture_output=True, text=True).stdout
    assert [int(n) for n in told.split()] == list(model.generate(prompt, tokens=count - len(prompt)).tokens)
