#ifndef ERGO_FAST_INTERNAL_H
#define ERGO_FAST_INTERNAL_H

#include "fast.h"

struct ergo_fast {
  const ergo_path *path;
  int depthwise, planes, in_zp;
  uint32_t kernel[2];
  size_t taps, channels_in, groups, per_group, depth, padded, steps, panels, panel_bytes;
  uint8_t *w;
  ergo_scales scales;
  int8_t *outside; /* a pixel of the zero point: what lies in the padding */
};

/* How many pixels a block of the depthwise kernel takes at once: 1, 2 or 4, the more the fewer channels are left for
 * it. */
static inline int ergo_pixels_at_once(const ergo_path *path, size_t channels) {
  int pixels = 1;
  while (pixels * 2 <= path->most_pixels && channels * (size_t)pixels * 2 <= (size_t)path->depth_width) pixels *= 2;
  return pixels;
}

/* This thread's scratch of at least so many bytes; null where there is no memory. */
void *ergo_thread_scratch(size_t bytes);

#endif
