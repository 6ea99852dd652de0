/* Runs the network once and prints its outputs. In place of `sample` stands what the inputs come from: a camera, a microphone, a file. */
#include <stdio.h>

#include "@NAME@.h"

static uint8_t arena[@CAPS@_ARENA_BYTES] __attribute__((aligned(8)));
static uint8_t workspace[@CAPS@_WORKSPACE_BYTES + 1] __attribute__((aligned(8)));
@KEPT@
/* Byte `at` of an input's dense array. */
static uint8_t sample(uint32_t port, uint32_t at) { return (uint8_t)(at * 31u + at / 97u + port * 7u); }

/* Rows of a streamed input, when the network wants them. They come in ascending order; what is left out is never asked for again. */
static int receive(void *user, uint32_t port, uint32_t offset, uint32_t size, void *destination) {
  (void)user;
  for (uint32_t i = 0; i < size; i++) ((uint8_t *)destination)[i] = sample(port, offset + i);
  return 0;
}

static int failed(const char *what, ergo_status status) {
  printf("%s: %s\n", what, ergo_status_name(status));
  return 1;
}

int main(void) {
  static ergo_net net;
  ergo_status status = ergo_load(&net, @NAME@_program, @NAME@_program_bytes);
  if (status) return failed("load", status);
  if ((status = ergo_start(&net, arena, sizeof arena))) return failed("start", status);
@RESET@@INPUTS@
@BEFORE@  if ((status = ergo_run(&net, arena, sizeof arena, workspace, sizeof workspace, receive, NULL))) return failed("run", status);
@AFTER@@OUTPUTS@
@END@  return 0;
}
