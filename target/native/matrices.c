#include "matrices.h"

/* Length of a batch axis of t, counted from the last one of the output's. */
static uint32_t batch(const ergo_operand *t, unsigned from_end) {
  return from_end + 2 < t->rank ? t->shape[t->rank - 3 - from_end] : 1;
}

int ergo_matrices_fit(const ergo_operand *a, const ergo_operand *b, const ergo_operand *out, int transposed) {
  if (a->rank < 2 || b->rank < 2 || out->rank < 2 || a->rank > out->rank || b->rank > out->rank) return 0;
  uint32_t k = b->shape[b->rank - (transposed ? 1 : 2)], n = b->shape[b->rank - (transposed ? 2 : 1)];
  if (a->shape[a->rank - 1] != k || out->shape[out->rank - 2] != a->shape[a->rank - 2] ||
      out->shape[out->rank - 1] != n)
    return 0;
  for (unsigned i = 0; i + 2 < out->rank; i++) {
    uint32_t one = batch(a, i), other = batch(b, i), most = one > other ? one : other;
    if ((one != 1 && one != most) || (other != 1 && other != most) || batch(out, i) != most) return 0;
  }
  return 1;
}

/* Bytes to the matrix at a batch index. */
static int64_t offset(const ergo_operand *t, unsigned out_rank, const uint32_t *index) {
  int64_t bytes = 0;
  for (unsigned i = 0; i + 2 < t->rank; i++)
    if (t->shape[i] != 1) bytes += (int64_t)t->strides[i] * index[out_rank - t->rank + i];
  return bytes;
}

void ergo_matrices_walk(const ergo_operand *a, const ergo_operand *b, const ergo_operand *out, const uint8_t *a_place,
                        const uint8_t *b_place, uint8_t *out_place,
                        void (*product)(const void *user, const uint8_t *a, const uint8_t *b, uint8_t *out),
                        const void *user) {
  uint32_t index[ERGO_MAX_RANK] = {0};
  for (;;) {
    product(user, a_place + offset(a, out->rank, index), b_place + offset(b, out->rank, index),
            out_place + offset(out, out->rank, index));
    unsigned axis = out->rank - 2u;
    while (axis-- > 0) {
      if (++index[axis] < out->shape[axis]) break;
      index[axis] = 0;
    }
    if (axis == (unsigned)-1) return;
  }
}
