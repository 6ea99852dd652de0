#include "transposed.h"

#include <stdlib.h>

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { STRIDE, PAD = 2, DILATION = 8, IN_ZP = 10 }; /* fields of CONV_TRANSPOSE */
enum { CONV_STRIDE, CONV_PAD = 2, CONV_DILATION = 6, GROUPS = 8, CONV_IN_ZP }; /* and of CONV */
#define MOST_PHASES 64

typedef struct phase {
  ergo_ins ins;
  ergo_fast *fast;
} phase;

struct ergo_transposed {
  int phases;
  phase each[MOST_PHASES];
};

extern const ergo_op ergo_op_conv;

/* The convolution that fills every stride-th row and column from first[0], first[1] on; tap[a]: its first tap. */
static void describe(const ergo_ins *ins, const uint32_t *first, uint32_t *tap, ergo_ins *conv) {
  ergo_operand *w = &conv->t[W], *out = &conv->t[OUT];
  *conv = *ins;
  conv->op = &ergo_op_conv, conv->table = 0; /* looked up when all phases are done */
  for (unsigned a = 0; a < 2; a++) {
    int64_t stride = ins->v[STRIDE + a], place = first[a] + ins->v[PAD + a];
    tap[a] = (uint32_t)(place % stride);
    uint32_t taps = (uint32_t)((w->shape[1 + a] - tap[a] + (uint32_t)stride - 1) / (uint32_t)stride);
    w->shape[1 + a] = taps;
    out->addr += first[a] * (uint32_t)out->strides[1 + a];
    out->shape[1 + a] = (uint32_t)((out->shape[1 + a] - first[a] + (uint32_t)stride - 1) / (uint32_t)stride);
    out->strides[1 + a] *= (int32_t)stride;
    conv->v[CONV_STRIDE + a] = conv->v[CONV_DILATION + a] = 1;
    conv->v[CONV_PAD + a] = (int64_t)taps - 1 - place / stride;
    conv->v[CONV_PAD + 2 + a] = 0;
  }
  conv->v[GROUPS] = 1;
  memcpy(conv->v + CONV_IN_ZP, ins->v + IN_ZP, 5 * sizeof *ins->v);
}

/* The phase's taps, the last one first. */
static int8_t *taken(const ergo_ins *ins, const ergo_ins *conv, const uint32_t *tap, const int8_t *w) {
  const uint32_t *whole = ins->t[W].shape, *some = conv->t[W].shape;
  size_t channels = whole[3];
  int8_t *found = malloc((size_t)some[0] * some[1] * some[2] * channels), *to = found;
  for (uint32_t o = 0; o < some[0] && found; o++)
    for (uint32_t i = some[1]; i-- > 0;)
      for (uint32_t j = some[2]; j-- > 0; to += channels) {
        size_t row = tap[0] + i * (size_t)ins->v[STRIDE], column = tap[1] + j * (size_t)ins->v[STRIDE + 1];
        memcpy(to, w + ((o * (size_t)whole[1] + row) * whole[2] + column) * channels, channels);
      }
  return found;
}

ergo_transposed *ergo_transposed_new(const ergo_ins *ins, int path, const int8_t *w, const int32_t *bias,
                                     const int32_t *mult, const int8_t *shift) {
  const int64_t *v = ins->v;
  const uint32_t *kernel = ins->t[W].shape, *size = ins->t[OUT].shape;
  if (v[DILATION] != 1 || v[DILATION + 1] != 1 || v[STRIDE] * v[STRIDE + 1] > MOST_PHASES ||
      v[STRIDE] > (int64_t)kernel[1] || v[STRIDE + 1] > (int64_t)kernel[2])
    return NULL;
  ergo_transposed *t = calloc(1, sizeof *t);
  uint32_t first[2], tap[2];
  for (first[0] = 0; t && first[0] < v[STRIDE] && first[0] < size[1]; first[0]++)
    for (first[1] = 0; t && first[1] < v[STRIDE + 1] && first[1] < size[2]; first[1]++) {
      phase *p = &t->each[t->phases++];
      describe(ins, first, tap, &p->ins);
      int8_t *some = taken(ins, &p->ins, tap, w);
      p->fast = some ? ergo_fast_new(&p->ins, path, some, bias, mult, shift) : NULL;
      free(some);
      if (!p->fast) ergo_transposed_free(t), t = NULL;
    }
  return t;
}

void ergo_transposed_free(ergo_transposed *t) {
  for (int i = 0; t && i < t->phases; i++) ergo_fast_free(t->each[i].fast);
  free(t);
}

ergo_status ergo_transposed_run(const ergo_transposed *t, ergo_ctx *ctx, int threads) {
  ergo_status status = ERGO_OK;
  for (int i = 0; i < t->phases && !status; i++) {
    const ergo_ins *ins = &t->each[i].ins;
    status = ergo_fast_run(t->each[i].fast, ins, ergo_at(ctx, &ins->t[X]), ergo_at(ctx, &ins->t[OUT]), threads);
  }
  return status;
}
