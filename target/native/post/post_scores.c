/* Softmax, sigmoid, the k largest, greedy CTC decoding. */
#include "ergo_internal.h"
#include "ergo_post.h"

static uint8_t *place(uint8_t *out, const int32_t *strides, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return out + (int64_t)a * strides[0] + (int64_t)b * strides[1] + (int64_t)c * strides[2] + (int64_t)d * strides[3];
}

void ergo_post_softmax(const ergo_values *x, uint8_t *out, const int32_t *out_strides) {
  const uint32_t *n = x->x.shape;
  for (uint32_t a = 0; a < n[0]; a++)
    for (uint32_t b = 0; b < n[1]; b++)
      for (uint32_t c = 0; c < n[2]; c++) {
        int32_t most = INT32_MIN;
        int64_t sum = 0;
        for (uint32_t d = 0; d < n[3]; d++) {
          int32_t value = ergo_real(x, a, b, c, d);
          if (value > most) most = value;
        }
        for (uint32_t d = 0; d < n[3]; d++) {
          int32_t e = ergo_exp_below(ergo_real(x, a, b, c, d) - most);
          ergo_put_i32(place(out, out_strides, a, b, c, d), e);
          sum += e;
        }
        for (uint32_t d = 0; d < n[3]; d++) {
          uint8_t *p = place(out, out_strides, a, b, c, d);
          ergo_put_i32(p, (int32_t)(((int64_t)ergo_i32(p) << 30) / sum));
        }
      }
}

void ergo_post_sigmoid(const ergo_values *x, uint8_t *out, const int32_t *out_strides) {
  const uint32_t *n = x->x.shape;
  for (uint32_t a = 0; a < n[0]; a++)
    for (uint32_t b = 0; b < n[1]; b++)
      for (uint32_t c = 0; c < n[2]; c++)
        for (uint32_t d = 0; d < n[3]; d++)
          ergo_put_i32(place(out, out_strides, a, b, c, d), ergo_sigmoid(ergo_real(x, a, b, c, d)));
}

void ergo_post_topk(const ergo_values *x, uint32_t k, uint8_t *indices, int32_t index_stride, uint8_t *values,
                    int32_t value_stride) {
  uint32_t held = 0;
  for (uint32_t d = 0; d < x->x.shape[3]; d++) {
    int32_t value = ergo_real(x, 0, 0, 0, d);
    uint32_t at = held;
    while (at > 0 && value > ergo_i32(values + (int64_t)(at - 1) * value_stride)) at--;
    if (at == k) continue;
    if (held < k) held++;
    for (uint32_t i = held - 1; i > at; i--) {
      memcpy(values + (int64_t)i * value_stride, values + (int64_t)(i - 1) * value_stride, 4);
      memcpy(indices + (int64_t)i * index_stride, indices + (int64_t)(i - 1) * index_stride, 4);
    }
    ergo_put_i32(values + (int64_t)at * value_stride, value);
    ergo_put_i32(indices + (int64_t)at * index_stride, (int32_t)d);
  }
}

uint32_t ergo_post_ctc(const ergo_values *x, uint32_t blank, uint8_t *out, int32_t out_stride) {
  uint32_t count = 0, before = UINT32_MAX;
  for (uint32_t t = 0; t < x->x.shape[2]; t++) {
    uint32_t best = 0;
    int32_t most = INT32_MIN;
    for (uint32_t d = 0; d < x->x.shape[3]; d++) {
      int32_t value = ergo_real(x, 0, 0, t, d);
      if (value > most) most = value, best = d;
    }
    if (best != before && best != blank) ergo_put_i32(out + (int64_t)count++ * out_stride, (int32_t)best);
    before = best;
  }
  for (uint32_t i = count; i < x->x.shape[2]; i++) ergo_put_i32(out + (int64_t)i * out_stride, -1);
  return count;
}

int32_t ergo_post_anomaly(const ergo_values *x, const ergo_values *y) {
  const uint32_t *n = x->x.shape;
  const int64_t most = (int64_t)1 << 26; /* 1024: of one difference */
  int64_t sum = 0, count = (int64_t)n[0] * n[1] * n[2] * n[3];
  for (uint32_t a = 0; a < n[0]; a++)
    for (uint32_t b = 0; b < n[1]; b++)
      for (uint32_t c = 0; c < n[2]; c++)
        for (uint32_t d = 0; d < n[3]; d++) {
          int64_t off = (int64_t)ergo_real(x, a, b, c, d) - ergo_real(y, a, b, c, d);
          off = off > most ? most : off < -most ? -most : off;
          sum += off * off >> 8; /* in 2**-24 */
        }
  int64_t mean = sum / count >> 8;
  return mean > INT32_MAX ? INT32_MAX : (int32_t)mean;
}
