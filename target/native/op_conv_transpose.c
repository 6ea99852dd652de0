/* CONV_TRANSPOSE: out[ih * stride - pad + i * dilation] gets (x[ih] - in_zp) * (w[i] - w_zp); gathered output by
 * output. */
#include "ergo_internal.h"
#include "window.h"

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { STRIDE, PAD = 2, MORE = 6, DILATION = 8, IN_ZP = 10, W_ZP, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const uint32_t *x = ins->t[X].shape, *w = ins->t[W].shape, *out = ins->t[OUT].shape;
  const int64_t *v = ins->v;
  for (unsigned a = 0; a < 2; a++)
    if (((int64_t)x[1 + a] - 1) * v[STRIDE + a] - v[PAD + a] - v[PAD + 2 + a] +
            ((int64_t)w[1 + a] - 1) * v[DILATION + a] + 1 + v[MORE + a] !=
        (int64_t)out[1 + a])
      return ERGO_PRECONDITION;
  return v[LO] > v[HI] ? ERGO_PRECONDITION : ERGO_OK;
}

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W];
  return w->codec == ERGO_RAW ? 0 : ergo_weights_bytes(w) + ERGO_ROUND(ergo_elements(w) / w->shape[0]);
}

/* The input index that tap `i` of output `o` meets along an axis, or -1. */
static int64_t meets(const ergo_ins *ins, unsigned axis, int64_t o, int64_t i) {
  int64_t place = o + ins->v[PAD + axis] - i * ins->v[DILATION + axis], stride = ins->v[STRIDE + axis];
  return place < 0 || place % stride || place / stride >= (int64_t)ins->t[X].shape[1 + axis] ? -1 : place / stride;
}

static int64_t pixel(const ergo_ins *ins, const int8_t *x, int64_t oh, int64_t ow, const int8_t *w,
                     const int64_t *steps) {
  const ergo_operand *in = &ins->t[X];
  int64_t total = 0;
  for (int64_t i = 0; i < (int64_t)ins->t[W].shape[1]; i++) {
    int64_t h = meets(ins, 0, oh, i);
    for (int64_t j = 0; j < (int64_t)ins->t[W].shape[2] && h >= 0; j++) {
      int64_t column = meets(ins, 1, ow, j);
      if (column < 0) continue;
      total +=
          ergo_dot(x + h * in->strides[1] + column * in->strides[2], in->strides[3], w + i * steps[0] + j * steps[1],
                   steps[2], in->shape[3], (int32_t)ins->v[IN_ZP], (int32_t)ins->v[W_ZP]);
    }
  }
  return total;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W], *out = &ins->t[OUT], *in = &ins->t[X];
  ergo_output_stage stage;
  ergo_status status = ergo_output_open(ctx, ins, BIAS, OUT_ZP, out, &stage);
  if (status) return status;
  const int8_t *x = (const int8_t *)ergo_at(ctx, in);
  uint8_t *y = ergo_at(ctx, out);
  int8_t *values = NULL;
  int64_t steps[3] = {w->strides[1], w->strides[2], w->strides[3]};
  ergo_weights stream;
  if (w->codec != ERGO_RAW) {
    if ((status = ergo_weights_open(ctx, w, &stream))) return status;
    if (!(values = ergo_take(ctx, (size_t)(ergo_elements(w) / w->shape[0])))) return ctx->status;
    steps[0] = (int64_t)w->shape[2] * w->shape[3], steps[1] = w->shape[3], steps[2] = 1;
  }
  for (uint32_t o = 0; o < out->shape[3]; o++) {
    if (w->codec == ERGO_RAW)
      values = (int8_t *)ergo_at(ctx, w) + (int64_t)o * w->strides[0];
    else if ((status = ergo_weights_row(&stream, values)))
      return status;
    for (uint32_t n = 0; n < out->shape[0]; n++)
      for (uint32_t oh = 0; oh < out->shape[1]; oh++)
        for (uint32_t ow = 0; ow < out->shape[2]; ow++)
          ergo_output_put(&stage, o, pixel(ins, x + (int64_t)n * in->strides[0], oh, ow, values, steps),
                          y + (int64_t)n * out->strides[0] + (int64_t)oh * out->strides[1] +
                              (int64_t)ow * out->strides[2] + (int64_t)o * out->strides[3]);
  }
  return ERGO_OK;
}

const ergo_op ergo_op_conv_transpose = {0x03,
                                        0,
                                        "CONV_TRANSPOSE",
                                        "TTTTTT ss eeee ee ss zz zzz",
                                        {{ERGO_IS_I8, 0, "NHWC", ERGO_NO_OPERAND, 0},
                                         {ERGO_IS_I8, 0, "OKLC", ERGO_NO_OPERAND, 1},
                                         {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                                         {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                                         {ERGO_IS_I8, 0, "O", ERGO_NO_OPERAND, 0},
                                         {ERGO_IS_I8 | ERGO_IS_I32, 1, "NPQO", ERGO_NO_OPERAND, 0}},
                                        0,
                                        1,
                                        check,
                                        workspace,
                                        run};
