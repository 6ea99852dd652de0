/* DEPTHWISE: one filter a channel, then requantization per channel. */
#include "ergo_internal.h"
#include "window.h"

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { STRIDE, PAD = 2, DILATION = 6, IN_ZP = 8, W_ZP, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const uint32_t *x = ins->t[X].shape, *w = ins->t[W].shape, *out = ins->t[OUT].shape;
  const int64_t *v = ins->v;
  for (unsigned a = 0; a < 2; a++)
    if (ergo_positions(x[1 + a], w[a], v[STRIDE + a], v[PAD + a], v[PAD + 2 + a], v[DILATION + a]) !=
        (int64_t)out[1 + a])
      return ERGO_PRECONDITION;
  return v[LO] > v[HI] ? ERGO_PRECONDITION : ERGO_OK;
}

static uint64_t window_rows(const ergo_ins *ins) {
  return (ins->t[W].shape[0] - (uint64_t)1) * (uint64_t)ins->v[DILATION] + 1;
}

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W];
  size_t bytes = ergo_rows_bytes(&ins->t[X], window_rows(ins)) + ergo_rows_bytes(&ins->t[OUT], 1);
  return w->codec == ERGO_RAW ? bytes : bytes + ergo_weights_bytes(w) + ERGO_ROUND(ergo_elements(w));
}

static int64_t pixel(const ergo_ins *ins, ergo_rows *x, uint32_t n, int64_t top, int64_t left, uint32_t c,
                     const int8_t *w, const int64_t *steps) {
  int64_t total = 0, width = ins->t[X].shape[2];
  int32_t in_zp = (int32_t)ins->v[IN_ZP], w_zp = (int32_t)ins->v[W_ZP];
  for (int64_t i = 0; i < (int64_t)ins->t[W].shape[0]; i++) {
    int64_t h = top + i * ins->v[DILATION];
    if (h < 0 || h >= (int64_t)ins->t[X].shape[1]) continue;
    const int8_t *row = ergo_row(x, n, (uint32_t)h);
    if (!row) return 0;
    row += c * x->sc;
    const int8_t *filter = w + i * steps[0] + c * steps[2];
    for (int64_t j = 0; j < (int64_t)ins->t[W].shape[1]; j++) {
      int64_t column = left + j * ins->v[DILATION + 1];
      if (column >= 0 && column < width) total += (row[column * x->sw] - in_zp) * (filter[j * steps[1]] - w_zp);
    }
  }
  return total;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W], *out = &ins->t[OUT];
  ergo_rows x, y;
  ergo_output_stage stage;
  ergo_status status = ergo_output_open(ctx, ins, BIAS, OUT_ZP, out, &stage);
  if (!status) status = ergo_rows_open(ctx, ins, X, window_rows(ins), &x);
  if (!status) status = ergo_rows_open(ctx, ins, OUT, 1, &y);
  int8_t *values = NULL;
  int64_t steps[3] = {w->strides[0], w->strides[1], w->strides[2]};
  if (!status && w->codec != ERGO_RAW) {
    status = ergo_weights_all(ctx, w, &values);
    steps[0] = (int64_t)w->shape[1] * w->shape[2], steps[1] = w->shape[2], steps[2] = 1;
  } else if (!status) {
    values = (int8_t *)ergo_at(ctx, w);
  }
  for (uint32_t n = 0; n < out->shape[0] && !status; n++)
    for (uint32_t oh = 0; oh < out->shape[1] && !status; oh++) {
      uint8_t *row = ergo_row_out(&y, n, oh);
      for (uint32_t ow = 0; ow < out->shape[2]; ow++)
        for (uint32_t c = 0; c < out->shape[3]; c++) {
          int64_t acc = pixel(ins, &x, n, (int64_t)oh * ins->v[STRIDE] - ins->v[PAD],
                              (int64_t)ow * ins->v[STRIDE + 1] - ins->v[PAD + 1], c, values, steps);
          if (ctx->status) return ctx->status;
          ergo_output_put(&stage, c, acc, row + ow * y.sw + c * y.sc);
        }
      status = ergo_row_done(&y, oh);
    }
  return status;
}

const ergo_op ergo_op_depthwise = {0x02,
                                   0,
                                   "DEPTHWISE",
                                   "TTTTTT ss eeee ss zz zzz",
                                   {{ERGO_IS_I8, 0, "NHWC", IN_ZP, 0},
                                    {ERGO_IS_I8, 0, "KLC", ERGO_NO_OPERAND, 1},
                                    {ERGO_IS_I32, 0, "C", ERGO_NO_OPERAND, 0},
                                    {ERGO_IS_I32, 0, "C", ERGO_NO_OPERAND, 0},
                                    {ERGO_IS_I8, 0, "C", ERGO_NO_OPERAND, 0},
                                    {ERGO_IS_I8 | ERGO_IS_I32, 1, "NPQC", OUT_ZP, 0}},
                                   0,
                                   1,
                                   check,
                                   workspace,
                                   run};
