/* What the paths share: how tiles of any number of rows are made of those that a kernel has registers for, and sums that
 * leave as int32. */
#ifndef ERGO_PATH_SHARED_H
#define ERGO_PATH_SHARED_H

#include "fast.h"

#define ERGO_INLINE static inline __attribute__((always_inline))

/* The body of a path's `tile`: `kernel(rows, ...)` with constant numbers of rows, `most` where there are so many, else
 * by `some`, by two, alone. */
#define ERGO_TILE(kernel, most, some, width)                                                                       \
  const uint8_t *a = patches;                                                                                      \
  if (rows == (most)) {                                                                                            \
    kernel(most, a, a_step, weights, steps, acc);                                                                  \
    return;                                                                                                        \
  }                                                                                                                \
  for (; rows >= (some); rows -= (some), a += (some) * a_step, acc += (some) * (width))                            \
    kernel(some, a, a_step, weights, steps, acc);                                                                  \
  for (; rows >= 2; rows -= 2, a += 2 * a_step, acc += 2 * (width)) kernel(2, a, a_step, weights, steps, acc);     \
  if (rows) kernel(1, a, a_step, weights, steps, acc)

/* Sums of a depthwise block in the path's order, `each` channels a pixel, to their places as int32. */
ERGO_INLINE void ergo_put_raw(const int32_t *sums, int places, int each, int channels, int (*order)(int),
                              const int32_t *raw, uint8_t *const *to) {
  for (int place = 0; place < places; place++) {
    int pixel = order(place) / each, c = order(place) % each;
    if (c < channels) ergo_put_i32(to[pixel] + 4 * c, (int32_t)((uint32_t)sums[place] + (uint32_t)raw[place]));
  }
}

#endif
