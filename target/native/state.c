#include "state.h"

#include <string.h>

ergo_status ergo_state_set(const ergo_net *net, void *arena, const ergo_state *state, void *kept, const void *values,
                           size_t bytes) {
  if (!net || !state || !values) return ERGO_NULL;
  if (bytes != state->bytes) return ERGO_NO_SUCH_PORT;
  if (state->at == ERGO_IN_ARENA) return ergo_set_input(net, arena, state->input, values, bytes);
  if (!kept) return ERGO_NULL;
  memcpy((uint8_t *)kept + state->at, values, bytes);
  return ERGO_OK;
}

ergo_status ergo_state_get(const ergo_net *net, const void *arena, const ergo_state *state, const void *kept,
                           void *values, size_t bytes) {
  if (!net || !state || !values) return ERGO_NULL;
  if (bytes != state->bytes) return ERGO_NO_SUCH_PORT;
  if (state->at == ERGO_IN_ARENA) return ergo_get_output(net, arena, state->output, values, bytes);
  if (!kept) return ERGO_NULL;
  memcpy(values, (const uint8_t *)kept + state->at, bytes);
  return ERGO_OK;
}

ergo_status ergo_state_reset(const ergo_net *net, void *arena, const ergo_state *states, uint32_t count, void *kept) {
  ergo_status status = states ? ERGO_OK : ERGO_NULL;
  for (uint32_t i = 0; i < count && !status; i++)
    status = ergo_state_set(net, arena, &states[i], kept, states[i].initial, states[i].bytes);
  return status;
}

ergo_status ergo_state_before(const ergo_net *net, void *arena, const ergo_state *states, uint32_t count,
                              const void *kept) {
  if (!states) return ERGO_NULL;
  for (uint32_t i = 0; i < count; i++) {
    if (states[i].at == ERGO_IN_ARENA) continue;
    if (!kept) return ERGO_NULL;
    ergo_status status =
        ergo_set_input(net, arena, states[i].input, (const uint8_t *)kept + states[i].at, states[i].bytes);
    if (status) return status;
  }
  return ERGO_OK;
}

ergo_status ergo_state_after(const ergo_net *net, const void *arena, const ergo_state *states, uint32_t count,
                             void *kept) {
  if (!states) return ERGO_NULL;
  for (uint32_t i = 0; i < count; i++) {
    if (states[i].at == ERGO_IN_ARENA) continue;
    if (!kept) return ERGO_NULL;
    ergo_status status =
        ergo_get_output(net, arena, states[i].output, (uint8_t *)kept + states[i].at, states[i].bytes);
    if (status) return status;
  }
  return ERGO_OK;
}
