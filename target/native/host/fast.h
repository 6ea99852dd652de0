/* Fast kernels of the host for CONV and DEPTHWISE with constant weights: packed once, run by one of several paths.
 *
 * All arithmetic is exact: products are summed in 32 bits that cannot overflow (checked when packing), biases and
 * multipliers in 64.
 */
#ifndef ERGO_FAST_H
#define ERGO_FAST_H

#include "../ergo_internal.h"

#define ERGO_MOST_ROWS 16  /* of a tile */
#define ERGO_MOST_WIDTH 64 /* channels of a tile */

/* Scales of `group` channels: multipliers, additions, shifts; of the even ones, then of the odd ones, as 64-bit
 * numbers. */
typedef struct ergo_scales {
  int64_t *numbers;
  int32_t *raw; /* the additions without multiplier, for int32 outputs, modulo 2**32 */
  int64_t zp, lo, hi;
  int to_i32, to_i16;
} ergo_scales;

/* One way to do it. A tile is `rows` pixels times `width` channels. bytes: input elements are bytes (x + offset), else
 * int16 (x - zero point). step: elements of the depth that a multiplication takes together. */
typedef struct ergo_path {
  const char *name;
  int (*usable)(void);
  int rows, width, step, bytes, offset, group;
  void (*copy)(void *to, const int8_t *from, size_t count, int zero_point);
  /* acc int32[rows][width] = sum over `steps` of a[row] * w */
  void (*tile)(const void *a, size_t a_step, int rows, const void *w, size_t steps, int32_t *acc);
  void (*store)(const int32_t *acc, int rows, int channels, const ergo_scales *s, size_t first_group,
                uint8_t *const *to);
  /* `channels` channels of `pixels` pixels over `taps` (a multiple of tap_step) places each; acc in the order of
   * `order`. depth_width: channels of a block, or, where at most half of them or a quarter are left, of as many pixels
   * at once as fit: most_pixels */
  int tap_step, depth_width, most_pixels;
  int (*order)(int place);
  void (*depth)(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels, const void *w,
                const ergo_scales *s, int zero_point, uint8_t *const *to);
} ergo_path;

extern const ergo_path ergo_path_portable, ergo_path_avx2, ergo_path_vnni, ergo_path_neon, ergo_path_neon_dotprod;
const ergo_path *ergo_path_at(
    int index); /* null beyond the last; those that this processor has not are left out by ergo_best_path */
int ergo_best_path(void);

typedef struct ergo_fast ergo_fast;
/* Null where this instruction has no fast kernel. w, bias, mult, shift: dense. */
ergo_fast *ergo_fast_new(const ergo_ins *ins, int path, const int8_t *w, const int32_t *bias, const int32_t *mult,
                         const int8_t *shift);
void ergo_fast_free(ergo_fast *fast);
/* x, out: where the first elements of these operands lie. */
ergo_status ergo_fast_run(const ergo_fast *fast, const ergo_ins *ins, const uint8_t *x, uint8_t *out, int threads);

#endif
