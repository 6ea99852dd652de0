/* Windows over rows and columns, and the product they share. */
#ifndef ERGO_WINDOW_H
#define ERGO_WINDOW_H

#include "ergo_internal.h"

#define ERGO_DOT_PART 32768u /* products of at most 255 * 255: their sum stays below 2**31 */

/* How often a dilated window fits; 0 or less where it does not. */
static inline int64_t ergo_positions(int64_t size, int64_t kernel, int64_t stride, int64_t before, int64_t after,
                                     int64_t dilation) {
  int64_t room = size + before + after - (kernel - 1) * dilation - 1;
  return (room >= 0 ? room / stride : -((stride - 1 - room) / stride)) + 1;
}

/* sum (x - x_zp) * (w - w_zp), exact. */
static inline int64_t ergo_dot(const int8_t *x, int64_t x_step, const int8_t *w, int64_t w_step, uint32_t count,
                               int32_t x_zp, int32_t w_zp) {
  int64_t total = 0;
  while (count) {
    uint32_t part = count < ERGO_DOT_PART ? count : ERGO_DOT_PART;
    int32_t acc = 0;
    if (x_step == 1 && w_step == 1)
      for (uint32_t c = 0; c < part; c++) acc += (x[c] - x_zp) * (w[c] - w_zp);
    else
      for (uint32_t c = 0; c < part; c++) acc += (x[c * x_step] - x_zp) * (w[c * w_step] - w_zp);
    total += acc, count -= part, x += part * x_step, w += part * w_step;
  }
  return total;
}

#endif
