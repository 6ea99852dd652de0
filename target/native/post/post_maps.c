/* Keypoints of heat maps, masks of the best class. */
#include "ergo_internal.h"
#include "ergo_post.h"

static int32_t refined(uint32_t at, uint32_t length, int32_t before, int32_t after, int32_t step) {
  int64_t quarters = 4 * (int64_t)at + (at > 0 && at + 1 < length ? (after > before) - (after < before) : 0);
  int64_t found = ergo_floor_shift(quarters * step, 2);
  return (int32_t)(found > ERGO_MOST_PLACE ? ERGO_MOST_PLACE : found < -ERGO_MOST_PLACE ? -ERGO_MOST_PLACE : found);
}

void ergo_post_keypoints(const ergo_values *s, int32_t step_y, int32_t step_x, uint8_t *points,
                         const int32_t *point_strides, uint8_t *values, int32_t value_stride) {
  const ergo_tensor *x = &s->x;
  uint32_t height = x->shape[1], width = x->shape[2];
  for (uint32_t k = 0; k < x->shape[3]; k++) {
    uint32_t row = 0, column = 0;
    int32_t most = ergo_element(x, 0, 0, 0, k);
    for (uint32_t h = 0; h < height; h++)
      for (uint32_t w = 0; w < width; w++) {
        int32_t value = ergo_element(x, 0, h, w, k);
        if (value > most) most = value, row = h, column = w;
      }
    uint8_t *point = points + (int64_t)k * point_strides[0];
    ergo_put_i32(point, refined(column, width, ergo_element(x, 0, row, column > 0 ? column - 1 : 0, k),
                                ergo_element(x, 0, row, column + 1 < width ? column + 1 : column, k), step_x));
    ergo_put_i32(point + point_strides[1],
                 refined(row, height, ergo_element(x, 0, row > 0 ? row - 1 : 0, column, k),
                         ergo_element(x, 0, row + 1 < height ? row + 1 : row, column, k), step_y));
    ergo_put_i32(values + (int64_t)k * value_stride, ergo_real(s, 0, row, column, k));
  }
}

void ergo_post_mask(const ergo_values *x, uint8_t *out, const int32_t *out_strides) {
  for (uint32_t h = 0; h < x->x.shape[1]; h++)
    for (uint32_t w = 0; w < x->x.shape[2]; w++) {
      uint32_t best = 0;
      int32_t most = INT32_MIN;
      for (uint32_t c = 0; c < x->x.shape[3]; c++) {
        int32_t value = ergo_real(x, 0, h, w, c);
        if (value > most) most = value, best = c;
      }
      out[(int64_t)h * out_strides[0] + (int64_t)w * out_strides[1]] = (uint8_t)best;
    }
}
