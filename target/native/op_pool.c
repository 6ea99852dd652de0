/* POOL: maximum (padding never wins) or average over windows of rows and columns. */
#include "ergo_internal.h"
#include "window.h"

enum { X, OUT };
enum { KIND, SIZE, STRIDE = 3, PAD = 5, DILATION = 9, INCLUDE_PAD = 11, IN_ZP, MULT, SHIFT, OUT_ZP, LO, HI };
enum { MAX, AVG };

static ergo_status check(const ergo_ins *ins) {
  const uint32_t *x = ins->t[X].shape, *out = ins->t[OUT].shape;
  const int64_t *v = ins->v;
  if (v[KIND] > AVG) return ERGO_MALFORMED;
  if (v[LO] > v[HI] || (v[KIND] == AVG && (v[DILATION] != 1 || v[DILATION + 1] != 1))) return ERGO_PRECONDITION;
  for (unsigned a = 0; a < 2; a++) {
    int64_t size = v[SIZE + a], stride = v[STRIDE + a], dilation = v[DILATION + a];
    if (ergo_positions(x[1 + a], size, stride, v[PAD + a], v[PAD + 2 + a], dilation) != (int64_t)out[1 + a])
      return ERGO_PRECONDITION;
    for (uint32_t o = 0; o < out[1 + a]; o++) { /* no window lies in the padding entirely */
      int64_t first = (int64_t)o * stride - v[PAD + a], skipped = first < 0 ? (-first + dilation - 1) / dilation : 0;
      if (skipped >= size || first + skipped * dilation >= (int64_t)x[1 + a]) return ERGO_PRECONDITION;
    }
  }
  return ERGO_OK;
}

static uint64_t window_rows(const ergo_ins *ins) {
  return (uint64_t)(ins->v[SIZE] - 1) * (uint64_t)ins->v[DILATION] + 1;
}

static size_t workspace(const ergo_ins *ins) {
  return ergo_rows_bytes(&ins->t[X], window_rows(ins)) + ergo_rows_bytes(&ins->t[OUT], 1);
}

/* Taps of an axis inside the input: [begin, end). */
static void inside(const ergo_ins *ins, unsigned axis, int64_t first, int64_t *begin, int64_t *end) {
  int64_t dilation = ins->v[DILATION + axis], size = ins->t[X].shape[1 + axis];
  *begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
  *end = first < size ? (size - first + dilation - 1) / dilation : 0;
  if (*end > ins->v[SIZE + axis]) *end = ins->v[SIZE + axis];
}

#define CHANNELS 64u /* whose running values are held at once */

ERGO_WIDE static void most(int32_t *held, const int8_t *x, int64_t step, uint32_t count) {
  if (step == 1)
    for (uint32_t c = 0; c < count; c++) held[c] = held[c] > x[c] ? held[c] : x[c];
  else
    for (uint32_t c = 0; c < count; c++) held[c] = held[c] > x[c * step] ? held[c] : x[c * step];
}

ERGO_WIDE static void sums(int32_t *held, const int8_t *x, int64_t step, uint32_t count) {
  if (step == 1)
    for (uint32_t c = 0; c < count; c++) held[c] += x[c];
  else
    for (uint32_t c = 0; c < count; c++) held[c] += x[c * step];
}

static ergo_status pixel(ergo_ctx *ctx, const ergo_ins *ins, ergo_rows *x, uint32_t n, int64_t top, int64_t left,
                         uint32_t first, uint32_t count, int32_t *held, int64_t *taps) {
  int64_t row_begin, row_end, begin, end;
  inside(ins, 0, top, &row_begin, &row_end), inside(ins, 1, left, &begin, &end);
  for (uint32_t c = 0; c < count; c++) held[c] = ins->v[KIND] == MAX ? -128 : 0;
  for (int64_t i = row_begin; i < row_end; i++) {
    const int8_t *row = ergo_row(x, n, (uint32_t)(top + i * ins->v[DILATION]));
    if (!row) return ctx->status;
    for (int64_t j = begin; j < end; j++) {
      const int8_t *place = row + (left + j * ins->v[DILATION + 1]) * x->sw + first * x->sc;
      (ins->v[KIND] == MAX ? most : sums)(held, place, x->sc, count);
    }
  }
  *taps = (row_end - row_begin) * (end - begin);
  return ERGO_OK;
}

static int8_t average(const ergo_ins *ins, int64_t sum, int64_t taps) {
  const int64_t *v = ins->v;
  int64_t count = v[INCLUDE_PAD] ? v[SIZE] * v[SIZE + 1] : taps,
          shift = v[SHIFT] < 34 ? v[SHIFT] : 34; /* beyond, all is rounded to 0 */
  return ergo_clip(ergo_divide((sum - v[IN_ZP] * taps) * v[MULT], count << shift) + v[OUT_ZP], v[LO], v[HI]);
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  ergo_rows x, y;
  ergo_status status = ergo_rows_open(ctx, ins, X, window_rows(ins), &x);
  if (!status) status = ergo_rows_open(ctx, ins, OUT, 1, &y);
  int32_t held[CHANNELS];
  int64_t taps = 0;
  for (uint32_t n = 0; n < out->shape[0] && !status; n++)
    for (uint32_t oh = 0; oh < out->shape[1] && !status; oh++) {
      uint8_t *row = ergo_row_out(&y, n, oh);
      for (uint32_t ow = 0; ow < out->shape[2]; ow++)
        for (uint32_t first = 0; first < out->shape[3]; first += CHANNELS) {
          uint32_t count = out->shape[3] - first < CHANNELS ? out->shape[3] - first : CHANNELS;
          status = pixel(ctx, ins, &x, n, (int64_t)oh * ins->v[STRIDE] - ins->v[PAD],
                         (int64_t)ow * ins->v[STRIDE + 1] - ins->v[PAD + 1], first, count, held, &taps);
          if (status) return status;
          for (uint32_t c = 0; c < count; c++)
            *(int8_t *)(row + ow * y.sw + (first + c) * y.sc) =
                ins->v[KIND] == MAX ? (int8_t)held[c] : average(ins, held[c], taps);
        }
      status = ergo_row_done(&y, oh);
    }
  return status;
}

const ergo_op ergo_op_pool = {0x14,
                              1,
                              "POOL",
                              "TT k ss ss eeee ss f z mh zzz",
                              {{ERGO_IS_I8, 0, "NHWC", IN_ZP, 0}, {ERGO_IS_I8, 1, "NPQC", OUT_ZP, 0}},
                              0,
                              1,
                              check,
                              workspace,
                              run};
