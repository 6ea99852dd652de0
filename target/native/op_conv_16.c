/* CONV_16: acc = bias + sum (x - in_zp) * (w - w_zp) over the taps inside the input, x of 8 or 16 bits, then
 * requantization per channel into 8 or 16 bits. target/isa/int16.py */
#include "ergo_internal.h"
#include "window.h"

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { STRIDE, PAD = 2, DILATION = 6, GROUPS = 8, IN_ZP, W_ZP, OUT_ZP, LO, HI };

#define SUM_LIMIT ((int64_t)1 << 38)

static int holds(const ergo_operand *t, int64_t value) {
  return t->dtype == ERGO_I16 || (value >= INT8_MIN && value <= INT8_MAX);
}

/* Whether no sum reaches SUM_LIMIT, whatever the input. */
static int sums_fit(const ergo_ins *ins) {
  const int64_t low = ins->t[X].dtype == ERGO_I16 ? INT16_MIN : INT8_MIN, high = -low - 1, x = ins->v[IN_ZP],
                w = ins->v[W_ZP], most_x = high - x > x - low ? high - x : x - low,
                most_w = 127 - w > w + 128 ? 127 - w : w + 128;
  int64_t products = 1;
  for (unsigned a = 1; a < 4; a++) {
    products *= ins->t[W].shape[a];
    if (products > 1 << 20) return 0;
  }
  return products * most_x * most_w + ((int64_t)1 << 31) < SUM_LIMIT;
}

static ergo_status check(const ergo_ins *ins) {
  const uint32_t *x = ins->t[X].shape, *w = ins->t[W].shape, *out = ins->t[OUT].shape;
  const int64_t *v = ins->v;
  if ((int64_t)x[3] != (int64_t)w[3] * v[GROUPS] || w[0] % v[GROUPS] || v[LO] > v[HI]) return ERGO_PRECONDITION;
  if (!holds(&ins->t[X], v[IN_ZP])) return ERGO_PRECONDITION;
  for (unsigned i = OUT_ZP; i <= HI; i++)
    if (!holds(&ins->t[OUT], v[i])) return ERGO_PRECONDITION;
  for (unsigned a = 0; a < 2; a++)
    if (ergo_positions(x[1 + a], w[1 + a], v[STRIDE + a], v[PAD + a], v[PAD + 2 + a], v[DILATION + a]) !=
        (int64_t)out[1 + a])
      return ERGO_PRECONDITION;
  return sums_fit(ins) ? ERGO_OK : ERGO_PRECONDITION;
}

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *w = &ins->t[W];
  return w->codec == ERGO_RAW ? 0 : ergo_weights_bytes(w) + ERGO_ROUND(ergo_elements(w));
}

static int64_t dot(const uint8_t *x, int wide, int64_t x_step, const int8_t *w, int64_t w_step, uint32_t count,
                   int64_t x_zp, int64_t w_zp) {
  int64_t total = 0;
  for (uint32_t c = 0; c < count; c++, x += x_step, w += w_step) {
    int64_t value = wide ? (int16_t)(uint16_t)(x[0] | x[1] << 8) : (int8_t)x[0];
    total += (value - x_zp) * (*w - w_zp);
  }
  return total;
}

typedef struct filter {
  const int8_t *w;
  int64_t out, row, column, channel; /* steps */
} filter;

static int64_t pixel(const ergo_ins *ins, const uint8_t *image, int64_t top, int64_t left, uint32_t o,
                     const filter *f) {
  const ergo_operand *x = &ins->t[X];
  const uint32_t *w = ins->t[W].shape;
  int64_t total = 0;
  image += (int64_t)(o / (w[0] / (uint32_t)ins->v[GROUPS])) * w[3] * x->strides[3];
  for (int64_t i = 0; i < (int64_t)w[1]; i++) {
    int64_t h = top + i * ins->v[DILATION];
    if (h < 0 || h >= (int64_t)x->shape[1]) continue;
    for (int64_t j = 0; j < (int64_t)w[2]; j++) {
      int64_t column = left + j * ins->v[DILATION + 1];
      if (column < 0 || column >= (int64_t)x->shape[2]) continue;
      total += dot(image + h * x->strides[1] + column * x->strides[2], x->dtype == ERGO_I16, x->strides[3],
                   f->w + o * f->out + i * f->row + j * f->column, f->channel, w[3], ins->v[IN_ZP], ins->v[W_ZP]);
    }
  }
  return total;
}

static ergo_status weights(ergo_ctx *ctx, const ergo_operand *w, filter *f) {
  if (w->codec == ERGO_RAW) {
    *f = (filter){(const int8_t *)ergo_at(ctx, w), w->strides[0], w->strides[1], w->strides[2], w->strides[3]};
    return ERGO_OK;
  }
  int8_t *values = NULL;
  ergo_status status = ergo_weights_all(ctx, w, &values);
  int64_t column = w->shape[3], row = column * w->shape[2];
  *f = (filter){values, row * w->shape[1], row, column, 1};
  return status;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  ergo_output_stage s;
  filter f;
  ergo_status status = ergo_output_open(ctx, ins, BIAS, OUT_ZP, out, &s);
  if (!status) status = weights(ctx, &ins->t[W], &f);
  if (status) return status;
  const uint8_t *from = ergo_at(ctx, x);
  uint8_t *to = ergo_at(ctx, out);
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t oh = 0; oh < out->shape[1]; oh++)
      for (uint32_t ow = 0; ow < out->shape[2]; ow++)
        for (uint32_t o = 0; o < out->shape[3]; o++) {
          int64_t acc = pixel(ins, from + (int64_t)n * x->strides[0], (int64_t)oh * ins->v[STRIDE] - ins->v[PAD],
                              (int64_t)ow * ins->v[STRIDE + 1] - ins->v[PAD + 1], o, &f);
          uint8_t *place = to + (int64_t)n * out->strides[0] + (int64_t)oh * out->strides[1] +
                           (int64_t)ow * out->strides[2] + (int64_t)o * out->strides[3];
          acc += ergo_i32(s.bias + (int64_t)o * s.bias_step);
          int64_t value = ergo_scale(acc, ergo_i32(s.mult + (int64_t)o * s.mult_step),
                                     *(s.shift + (int64_t)o * s.shift_step)) + s.zp;
          value = value < s.lo ? s.lo : value > s.hi ? s.hi : value;
          if (out->dtype == ERGO_I16)
            ergo_put_i16(place, value);
          else
            *(int8_t *)place = (int8_t)value;
        }
  return ERGO_OK;
}

const ergo_op ergo_op_conv_16 = {0x06,
                                 0,
                                 "CONV_16",
                                 "TTTTTT ss eeee ss s yz yyy",
                                 {{ERGO_IS_I8 | ERGO_IS_I16, 0, "NHWC", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I8, 0, "OKLG", ERGO_NO_OPERAND, 1},
                                  {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I8, 0, "O", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I8 | ERGO_IS_I16, 1, "NPQO", ERGO_NO_OPERAND, 0}},
                                 0,
                                 0,
                                 check,
                                 workspace,
                                 run};
