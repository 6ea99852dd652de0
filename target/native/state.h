/* What a network keeps from one run to the next. */
#ifndef ERGO_STATE_H
#define ERGO_STATE_H

#include "ergo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ERGO_IN_ARENA UINT32_MAX

/* An input port that the next run takes from an output port. at: its bytes' place among those that are kept beside the
 * arena, or ERGO_IN_ARENA: the network leaves them where it finds them, so the arena must be left alone between runs. */
typedef struct ergo_state {
  uint32_t input, output, bytes, at;
  const uint8_t *initial;
} ergo_state;

/* As before the first run. */
ergo_status ergo_state_reset(const ergo_net *net, void *arena, const ergo_state *states, uint32_t count, void *kept);
/* Before a run, and after it. */
ergo_status ergo_state_before(const ergo_net *net, void *arena, const ergo_state *states, uint32_t count,
                              const void *kept);
ergo_status ergo_state_after(const ergo_net *net, const void *arena, const ergo_state *states, uint32_t count,
                             void *kept);
/* Values of one state between two runs: a dense array of exactly its bytes. */
ergo_status ergo_state_get(const ergo_net *net, const void *arena, const ergo_state *state, const void *kept,
                           void *values, size_t bytes);
ergo_status ergo_state_set(const ergo_net *net, void *arena, const ergo_state *state, void *kept, const void *values,
                           size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
