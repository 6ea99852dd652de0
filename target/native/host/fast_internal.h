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

/* This thread's scratch of at least so many bytes; null where there is no memory. */
void *ergo_thread_scratch(size_t bytes);

#endif
