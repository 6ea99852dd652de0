/* Loads and runs Programs out of a file, one after another: u32 size and the bytes of each. Prints a line each: a
 * status' name, or the outputs' hash.
 *
 * Arena and workspace are exactly as large as the runtime asks for, so that the sanitizers see every access beyond
 * them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ergo.h"

static uint8_t sample(uint32_t port, uint32_t at) { return (uint8_t)(at * 31u + at / 97u + port * 7u); }

static int receive(void *user, uint32_t port, uint32_t offset, uint32_t size, void *destination) {
  (void)user;
  for (uint32_t i = 0; i < size; i++) ((uint8_t *)destination)[i] = sample(port, offset + i);
  return 0;
}

static uint64_t hash(uint64_t held, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) held = (held ^ bytes[i]) * 0x100000001b3u;
  return held;
}

static ergo_status once(const uint8_t *program, size_t size, uint64_t *outputs) {
  ergo_net net;
  ergo_status status = ergo_load(&net, program, size);
  if (status) return status;
  if (ergo_arena_bytes(&net) > 1u << 28 || ergo_workspace_bytes(&net) > 1u << 28)
    return ERGO_WORKSPACE_TOO_SMALL; /* none has so much memory */
  uint8_t *arena = malloc(ergo_arena_bytes(&net)), *work = malloc(ergo_workspace_bytes(&net) + 1);
  status = ergo_start(&net, arena, ergo_arena_bytes(&net));
  ergo_port port;
  for (uint32_t i = 0; !status && !ergo_input(&net, i, &port); i++) {
    if (port.streamed) continue;
    uint8_t *values = malloc(port.bytes);
    for (uint32_t k = 0; k < port.bytes; k++) values[k] = sample(i, k);
    status = ergo_set_input(&net, arena, i, values, port.bytes);
    free(values);
  }
  if (!status) status = ergo_run(&net, arena, ergo_arena_bytes(&net), work, ergo_workspace_bytes(&net), receive, NULL);
  *outputs = 0xcbf29ce484222325u;
  for (uint32_t i = 0; !status && !ergo_output(&net, i, &port); i++) {
    uint8_t *values = malloc(port.bytes);
    status = ergo_get_output(&net, arena, i, values, port.bytes);
    *outputs = hash(*outputs, values, port.bytes);
    free(values);
  }
  free(arena), free(work);
  return status;
}

int main(int argc, char **argv) {
  FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
  uint8_t head[4];
  if (!file) return 2;
  while (fread(head, 1, 4, file) == 4) {
    size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    uint8_t *program = malloc(size ? size : 1);
    uint64_t outputs = 0;
    if (fread(program, 1, size, file) != size) return 2;
    ergo_status status = once(program, size, &outputs);
    if (status)
      printf("%s\n", ergo_status_name(status));
    else
      printf("%016llx\n", (unsigned long long)outputs);
    fflush(stdout);
    free(program);
  }
  return fclose(file);
}
