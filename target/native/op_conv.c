/* CONV: acc = bias + sum (x - in_zp) * (w - w_zp) over the taps inside the input, then requantization per channel. */
#include "ergo_internal.h"
#include "window.h"

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { STRIDE, PAD = 2, DILATION = 6, GROUPS = 8, IN_ZP, W_ZP, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const uint32_t *x = ins->t[X].shape, *w = ins->t[W].shape, *out = ins->t[OUT].shape;
  const int64_t *v = ins->v;
  if ((int64_t)x[3] != (int64_t)w[3] * v[GROUPS] || w[0] % v[GROUPS] || v[LO] > v[HI]) return ERGO_PRECONDITION;
  for (unsigned a = 0; a < 2; a++)
    if (ergo_positions(x[1 + a], w[1 + a], v[STRIDE + a], v[PAD + a], v[PAD + 2 + a], v[DILATION + a]) !=
        (int64_t)out[1 + a])
      return ERGO_PRECONDITION;
  return ERGO_OK;
}

static uint64_t window_rows(const ergo_ins *ins) {
  return (ins->t[W].shape[1] - (uint64_t)1) * (uint64_t)ins->v[DILATION] + 1;
}

static int in_slots(const ergo_ins *ins) { return ins->t[X].codec != ERGO_RAW || ins->t[OUT].codec != ERGO_RAW; }

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W];
  size_t bytes = ergo_rows_bytes(&ins->t[X], window_rows(ins)) + ergo_rows_bytes(&ins->t[OUT], 1);
  if (w->codec == ERGO_RAW) return bytes;
  uint64_t elements = ergo_elements(w);
  return bytes + ergo_weights_bytes(w) + ERGO_ROUND(in_slots(ins) ? elements : elements / w->shape[0]);
}

/* Where the weights of a channel are. */
typedef struct filter {
  const int8_t *w;
  int64_t row, column, channel; /* steps */
} filter;

/* Taps whose columns lie inside the input: [begin, end). */
static void taps_inside(const ergo_ins *ins, int64_t left, int64_t *begin, int64_t *end) {
  int64_t dilation = ins->v[DILATION + 1], width = ins->t[X].shape[2];
  *begin = left < 0 ? (-left + dilation - 1) / dilation : 0;
  *end = left < width ? (width - left + dilation - 1) / dilation : 0;
  if (*end > (int64_t)ins->t[W].shape[2]) *end = ins->t[W].shape[2];
}

static int64_t pixel(const ergo_ins *ins, ergo_rows *x, uint32_t n, int64_t top, int64_t left, uint32_t first_channel,
                     const filter *f) {
  int64_t total = 0, begin, end, dilation = ins->v[DILATION], step = ins->v[DILATION + 1];
  taps_inside(ins, left, &begin, &end);
  for (int64_t i = 0; i < (int64_t)ins->t[W].shape[1]; i++) {
    int64_t h = top + i * dilation;
    if (h < 0 || h >= (int64_t)ins->t[X].shape[1]) continue;
    const int8_t *row = ergo_row(x, n, (uint32_t)h);
    if (!row) return 0;
    row += first_channel * x->sc;
    for (int64_t j = begin; j < end; j++)
      total += ergo_dot(row + (left + j * step) * x->sw, x->sc, f->w + i * f->row + j * f->column, f->channel,
                        ins->t[W].shape[3], (int32_t)ins->v[IN_ZP], (int32_t)ins->v[W_ZP]);
  }
  return total;
}

/* Channels [first, last) of every output. */
static ergo_status channels(ergo_ctx *ctx, const ergo_ins *ins, ergo_rows *x, ergo_rows *y,
                            const ergo_output_stage *stage, const filter *filters, int64_t filter_step, uint32_t first,
                            uint32_t last) {
  const ergo_operand *out = &ins->t[OUT];
  uint32_t per_group = ins->t[W].shape[0] / (uint32_t)ins->v[GROUPS], depth = ins->t[W].shape[3];
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t oh = 0; oh < out->shape[1]; oh++) {
      uint8_t *row = ergo_row_out(y, n, oh);
      for (uint32_t ow = 0; ow < out->shape[2]; ow++)
        for (uint32_t o = first; o < last; o++) {
          filter f = *filters;
          f.w += (o - first) * filter_step;
          int64_t acc = pixel(ins, x, n, (int64_t)oh * ins->v[STRIDE] - ins->v[PAD],
                              (int64_t)ow * ins->v[STRIDE + 1] - ins->v[PAD + 1], o / per_group * depth, &f);
          if (ctx->status) return ctx->status;
          ergo_output_put(stage, o, acc, row + ow * y->sw + o * y->sc);
        }
      ergo_status status = ergo_row_done(y, oh);
      if (status) return status;
    }
  return ERGO_OK;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W];
  ergo_rows x, y;
  ergo_output_stage stage;
  ergo_status status = ergo_output_open(ctx, ins, BIAS, OUT_ZP, &ins->t[OUT], &stage);
  if (!status) status = ergo_rows_open(ctx, ins, X, window_rows(ins), &x);
  if (!status) status = ergo_rows_open(ctx, ins, OUT, 1, &y);
  if (status) return status;
  filter f = {NULL, (int64_t)w->shape[2] * w->shape[3], w->shape[3], 1};
  int64_t step = (int64_t)w->shape[1] * f.row;
  if (w->codec == ERGO_RAW) {
    f.w = (const int8_t *)ergo_at(ctx, w), f.row = w->strides[1], f.column = w->strides[2], f.channel = w->strides[3];
    return channels(ctx, ins, &x, &y, &stage, &f, w->strides[0], 0, w->shape[0]);
  }
  int8_t *values = NULL;
  if (in_slots(ins)) { /* rows must be finished one by one: all weights at once */
    if ((status = ergo_weights_all(ctx, w, &values))) return status;
    f.w = values;
    return channels(ctx, ins, &x, &y, &stage, &f, step, 0, w->shape[0]);
  }
  ergo_weights stream;
  if ((status = ergo_weights_open(ctx, w, &stream))) return status;
  if (!(values = ergo_take(ctx, (size_t)step))) return ctx->status;
  f.w = values;
  for (uint32_t o = 0; o < w->shape[0] && !status; o++)
    if (!(status = ergo_weights_row(&stream, values))) status = channels(ctx, ins, &x, &y, &stage, &f, 0, o, o + 1);
  return status;
}

const ergo_op ergo_op_conv = {0x01,
                              0,
                              "CONV",
                              "TTTTTT ss eeee ss s zz zzz",
                              {{ERGO_IS_I8, 0, "NHWC", IN_ZP, 0},
                               {ERGO_IS_I8, 0, "OKLG", ERGO_NO_OPERAND, 1},
                               {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I8, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I8 | ERGO_IS_I16 | ERGO_IS_I32, 1, "NPQO", OUT_ZP, 0}},
                              0,
                              1,
                              check,
                              workspace,
                              run};
