/* The fast kernels in plain C, for processors without a path of their own: weights as int16, sixteen channels at once.
 */
#include "fast.h"

#define ROWS 4
#define WIDTH 16

static int usable(void) { return 1; }

static void copy(void *to, const int8_t *from, size_t count, int zero_point) {
  int16_t *out = to;
  for (size_t i = 0; i < count; i++) out[i] = (int16_t)(from[i] - zero_point);
}

static void tile(const void *a, size_t a_step, int rows, const void *w, size_t steps, int32_t *acc) {
  for (int r = 0; r < rows; r++) {
    const int16_t *row = (const void *)((const uint8_t *)a + (size_t)r * a_step), *column = w;
    int32_t sum[WIDTH] = {0};
    for (size_t k = 0; k < steps; k++, column += WIDTH)
      for (int n = 0; n < WIDTH; n++) sum[n] += row[k] * column[n];
    memcpy(acc + r * WIDTH, sum, sizeof sum);
  }
}

static void put(const ergo_scales *s, size_t channel, int64_t acc, uint8_t *to) {
  const int64_t *at = s->numbers + channel / 2 * 6 + channel % 2;
  if (s->to_i32)
    ergo_put_i32(to, (int32_t)((uint32_t)(uint64_t)acc + (uint32_t)s->raw[channel]));
  else if (s->to_i16)
    ergo_put_i16(to, ergo_floor_shift(acc * at[0] + at[2], (int)at[4]));
  else
    *(int8_t *)to = ergo_clip(ergo_floor_shift(acc * at[0] + at[2], (int)at[4]) + s->zp, s->lo, s->hi);
}

static void store(const int32_t *acc, int rows, int channels, const ergo_scales *s, size_t first_group,
                  uint8_t *const *to) {
  size_t size = s->to_i32 ? 4 : s->to_i16 ? 2 : 1;
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < channels; n++)
      put(s, first_group * 2 + (size_t)n, acc[r * WIDTH + n], to[r] + (size_t)n * size);
}

static int order(int place) { return place; }

static void depth(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels, const void *w,
                  const ergo_scales *s, int zero_point, uint8_t *const *to) {
  (void)pixels;
  const int16_t *weights = w;
  int32_t sum[WIDTH] = {0};
  for (size_t tap = 0; tap < taps; tap++, weights += WIDTH)
    for (int n = 0; n < channels; n++) sum[n] += (places[tap][channel + (size_t)n] - zero_point) * weights[n];
  for (int n = 0; n < channels; n++) put(s, (size_t)n, sum[n], to[0] + (size_t)n * (s->to_i32 ? 4 : 1));
}

const ergo_path ergo_path_portable = {"portable", usable, ROWS, WIDTH, 1, 0, 0, 2,    copy,
                                      tile,       store,  1,    WIDTH, 1, order, depth};
