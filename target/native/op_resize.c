/* RESIZE: per output row and column (low index, high index, weight of high in 0..2048), rounded >> 22.
   RESIZE_SCALED: the same sums of x - in_zp into another quantization, rounded once. */
#include "ergo_internal.h"

enum { X, ROWS, COLS, OUT };
enum { IN_ZP, MULT, SHIFT, OUT_ZP, LO, HI };
#define WHOLE 2048

typedef struct tap {
  int32_t low, high, weight;
} tap;

static tap tap_at(const ergo_operand *t, const uint8_t *taps, uint32_t index) {
  const uint8_t *place = taps + (int64_t)index * t->strides[0];
  tap found = {ergo_i32(place), ergo_i32(place + t->strides[1]), ergo_i32(place + 2 * (int64_t)t->strides[1])};
  return found;
}

static int are_inside(const ergo_operand *t, const uint8_t *taps, uint32_t size) {
  for (uint32_t i = 0; i < t->shape[0]; i++) {
    tap p = tap_at(t, taps, i);
    if (p.low < 0 || p.high < 0 || p.weight < 0 || (uint32_t)p.low >= size || (uint32_t)p.high >= size ||
        p.weight > WHOLE)
      return 0;
  }
  return 1;
}

/* v: the fields of RESIZE_SCALED, NULL of RESIZE. */
static ergo_status resized(ergo_ctx *ctx, const ergo_ins *ins, const int64_t *v) {
  const ergo_operand *x = &ins->t[X], *rows = &ins->t[ROWS], *cols = &ins->t[COLS], *out = &ins->t[OUT];
  const uint8_t *row_taps = ergo_at(ctx, rows), *col_taps = ergo_at(ctx, cols), *in = ergo_at(ctx, x);
  uint8_t *result = ergo_at(ctx, out);
  if (!are_inside(rows, row_taps, x->shape[1]) || !are_inside(cols, col_taps, x->shape[2])) return ERGO_BAD_CONSTANT;
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t oh = 0; oh < out->shape[1]; oh++) {
      tap r = tap_at(rows, row_taps, oh);
      const uint8_t *low = in + (int64_t)n * x->strides[0] + (int64_t)r.low * x->strides[1],
                    *high = low + ((int64_t)r.high - r.low) * x->strides[1];
      for (uint32_t ow = 0; ow < out->shape[2]; ow++) {
        tap c = tap_at(cols, col_taps, ow);
        int64_t left = (int64_t)c.low * x->strides[2], right = (int64_t)c.high * x->strides[2];
        uint8_t *place =
            result + (int64_t)n * out->strides[0] + (int64_t)oh * out->strides[1] + (int64_t)ow * out->strides[2];
        for (uint32_t channel = 0; channel < out->shape[3]; channel++) {
          int64_t at = (int64_t)channel * x->strides[3];
          int32_t a = (int8_t)low[left + at] * (WHOLE - r.weight) + (int8_t)high[left + at] * r.weight;
          int32_t b = (int8_t)low[right + at] * (WHOLE - r.weight) + (int8_t)high[right + at] * r.weight;
          int32_t sum = a * (WHOLE - c.weight) + b * c.weight;
          *(int8_t *)(place + (int64_t)channel * out->strides[3]) =
              v ? ergo_requantize(sum - (int64_t)v[IN_ZP] * (1 << 22), v[MULT], 22 + (int)v[SHIFT], v[OUT_ZP], v[LO],
                                  v[HI])
                : (int8_t)ergo_floor_shift(sum + (1 << 21), 22);
        }
      }
    }
  return ERGO_OK;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) { return resized(ctx, ins, NULL); }

static ergo_status run_scaled(ergo_ctx *ctx, const ergo_ins *ins) { return resized(ctx, ins, ins->v); }

static ergo_status check_scaled(const ergo_ins *ins) {
  return ins->v[LO] <= ins->v[HI] && ins->v[SHIFT] <= 40 ? ERGO_OK : ERGO_PRECONDITION;
}

const ergo_op ergo_op_resize_scaled = {0x2C,
                                       1,
                                       "RESIZE_SCALED",
                                       "TTTT z mh zzz",
                                       {{ERGO_IS_I8, 0, "NHWC", ERGO_NO_OPERAND, 0},
                                        {ERGO_IS_I32, 0, "P3", ERGO_NO_OPERAND, 0},
                                        {ERGO_IS_I32, 0, "Q3", ERGO_NO_OPERAND, 0},
                                        {ERGO_IS_I8, 1, "NPQC", ERGO_NO_OPERAND, 0}},
                                       0,
                                       0,
                                       check_scaled,
                                       NULL,
                                       run_scaled};
const ergo_op ergo_op_resize = {0x17,
                                1,
                                "RESIZE",
                                "TTTT",
                                {{ERGO_IS_I8, 0, "NHWC", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I32, 0, "P3", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I32, 0, "Q3", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I8, 1, "NPQC", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                NULL,
                                NULL,
                                run};
