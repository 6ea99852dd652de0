/* Runs of int8 or int16 elements as 32-bit numbers, and requantized results back into int8 or int16. */
#ifndef ERGO_ELEMENTS_H
#define ERGO_ELEMENTS_H

#include "box.h"

#define ERGO_RUN 64u /* elements at a time */

/* How integers become elements: clip(zp + floor(value * mult / 2**shift + 1/2)); int16: zp 0, the type's own bounds. */
typedef struct ergo_finish {
  int64_t mult, zp, lo, hi;
  int shift;
  uint8_t dtype;
} ergo_finish;

/* v[first]: the shift, then out_zp, lo, hi. */
ergo_finish ergo_finish_of(const ergo_ins *ins, const ergo_operand *out, int64_t mult, unsigned first);
void ergo_read_run(const uint8_t *place, uint8_t dtype, int64_t step, uint32_t count, int32_t *to);
void ergo_write_run(const ergo_finish *f, const int64_t *values, uint32_t count, uint8_t *place, int64_t step);

/* Whether t broadcasts to out's shape, aligned at the last axis. */
int ergo_broadcasts(const ergo_operand *t, const ergo_operand *out);
int ergo_same_shape(const ergo_operand *a, const ergo_operand *b);

#endif
