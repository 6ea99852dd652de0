/* BINARIZE, BINARY_POOL, XNOR, XNOR_SUM: signs packed eight to a byte along the channels. Channel c is bit c % 8 of byte
 * c / 8; surplus bits are ignored where they are read and cleared where they are written. */
#include "ergo_internal.h"
#include "window.h"

#define MOST_PRODUCTS 32767
#define WORD 8u

static ergo_status sizes(const ergo_ins *ins, const ergo_operand *out, const int64_t *kernel, const int64_t *v) {
  const uint32_t *x = ins->t[0].shape; /* v: strides, padding, dilation */
  for (unsigned a = 0; a < 2; a++)
    if (ergo_positions(x[1 + a], kernel[a], v[a], v[2 + a], v[4 + a], v[6 + a]) != (int64_t)out->shape[1 + a])
      return ERGO_PRECONDITION;
  return ERGO_OK;
}

/* ---- BINARIZE ---- */
enum { B_X, B_LOW, B_HIGH, B_OUT };

static ergo_status binarize_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[B_X], *out = &ins->t[B_OUT];
  unsigned last = x->rank - 1u;
  if (out->rank != x->rank || x->shape[last] != ins->t[B_LOW].shape[0]) return ERGO_PRECONDITION;
  for (unsigned i = 0; i < last; i++)
    if (x->shape[i] != out->shape[i]) return ERGO_PRECONDITION;
  return out->shape[last] == x->shape[last] / 8 + (x->shape[last] % 8 != 0) ? ERGO_OK : ERGO_PRECONDITION;
}

static uint8_t byte_of(const int8_t *x, int64_t sx, const int8_t *low, int64_t sl, const int8_t *high, int64_t sh,
                       uint32_t count) {
  unsigned bits = 0;
  for (uint32_t i = 0; i < count; i++)
    bits |= (unsigned)(low[i * sl] <= x[i * sx] && x[i * sx] <= high[i * sh]) << i;
  return (uint8_t)bits;
}

static ergo_status binarize(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[B_X], *out = &ins->t[B_OUT], *low = &ins->t[B_LOW], *high = &ins->t[B_HIGH];
  unsigned last = x->rank - 1u;
  uint32_t at[ERGO_MAX_RANK] = {0}, channels = x->shape[last];
  const uint8_t *from = ergo_at(ctx, x), *lows = ergo_at(ctx, low), *highs = ergo_at(ctx, high);
  uint8_t *to = ergo_at(ctx, out);
  for (;;) {
    int64_t in = 0, place = 0;
    for (unsigned i = 0; i < last; i++)
      in += (int64_t)at[i] * x->strides[i], place += (int64_t)at[i] * out->strides[i];
    for (uint32_t b = 0; b < out->shape[last]; b++) {
      uint32_t c = 8 * b, count = channels - c < 8 ? channels - c : 8;
      to[place + (int64_t)b * out->strides[last]] =
          byte_of((const int8_t *)from + in + (int64_t)c * x->strides[last], x->strides[last],
                  (const int8_t *)lows + (int64_t)c * low->strides[0], low->strides[0],
                  (const int8_t *)highs + (int64_t)c * high->strides[0], high->strides[0], count);
    }
    unsigned axis = last;
    while (axis && ++at[axis - 1] == x->shape[axis - 1]) at[--axis] = 0;
    if (!axis) return ERGO_OK;
  }
}

/* ---- BINARY_POOL ---- */
enum { P_X, P_OUT };
enum { P_SIZE, P_STRIDE = 2, P_PAD = 4, P_DILATION = 8 };

static ergo_status pool_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[P_X], *out = &ins->t[P_OUT];
  const int64_t *v = ins->v;
  ergo_status status = sizes(ins, out, v + P_SIZE, v + P_STRIDE);
  for (unsigned a = 0; a < 2 && !status; a++)
    for (uint32_t o = 0; o < out->shape[1 + a]; o++) { /* no window lies in the padding entirely */
      int64_t first = (int64_t)o * v[P_STRIDE + a] - v[P_PAD + a], d = v[P_DILATION + a],
              skipped = first < 0 ? (-first + d - 1) / d : 0;
      if (skipped >= v[P_SIZE + a] || first + skipped * d >= (int64_t)x->shape[1 + a]) return ERGO_PRECONDITION;
    }
  return status;
}

static ergo_status pool(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[P_X], *out = &ins->t[P_OUT];
  const int64_t *v = ins->v;
  const uint8_t *from = ergo_at(ctx, x);
  uint8_t *to = ergo_at(ctx, out);
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t oh = 0; oh < out->shape[1]; oh++)
      for (uint32_t ow = 0; ow < out->shape[2]; ow++)
        for (uint32_t b = 0; b < out->shape[3]; b++) {
          uint8_t held = 0;
          for (int64_t i = 0; i < v[P_SIZE]; i++) {
            int64_t h = (int64_t)oh * v[P_STRIDE] - v[P_PAD] + i * v[P_DILATION];
            if (h < 0 || h >= (int64_t)x->shape[1]) continue;
            for (int64_t j = 0; j < v[P_SIZE + 1]; j++) {
              int64_t w = (int64_t)ow * v[P_STRIDE + 1] - v[P_PAD + 1] + j * v[P_DILATION + 1];
              if (w >= 0 && w < (int64_t)x->shape[2])
                held |= from[(int64_t)n * x->strides[0] + h * x->strides[1] + w * x->strides[2] +
                             (int64_t)b * x->strides[3]];
            }
          }
          to[(int64_t)n * out->strides[0] + (int64_t)oh * out->strides[1] + (int64_t)ow * out->strides[2] +
             (int64_t)b * out->strides[3]] = held;
        }
  return ERGO_OK;
}

/* ---- XNOR, XNOR_SUM ---- */
enum { X, W, LOW, HIGH, OUT, SCALE = 2, BIAS, MULT, SHIFT, SUM_OUT };
enum { STRIDE, PAD = 2, DILATION = 6, CHANNELS = 8, PAD_VALUE, OUT_ZP, LO, HI };

static ergo_status products_check(const ergo_ins *ins, const ergo_operand *out) {
  const uint32_t *w = ins->t[W].shape;
  const int64_t *v = ins->v, kernel[2] = {w[1], w[2]};
  if (v[PAD_VALUE] < -1 || v[PAD_VALUE] > 1) return ERGO_MALFORMED;
  if ((v[CHANNELS] + 7) / 8 != (int64_t)w[3] || v[CHANNELS] > MOST_PRODUCTS || w[1] > MOST_PRODUCTS ||
      w[2] > MOST_PRODUCTS || v[CHANNELS] * w[1] > MOST_PRODUCTS || v[CHANNELS] * w[1] * w[2] > MOST_PRODUCTS)
    return ERGO_PRECONDITION;
  return sizes(ins, out, kernel, v + STRIDE);
}

static ergo_status xnor_check(const ergo_ins *ins) {
  uint32_t channels = ins->t[W].shape[0];
  if (ins->t[OUT].shape[3] != channels / 8 + (channels % 8 != 0)) return ERGO_PRECONDITION;
  return products_check(ins, &ins->t[OUT]);
}

static ergo_status sum_check(const ergo_ins *ins) {
  return ins->v[LO] > ins->v[HI] ? ERGO_PRECONDITION : products_check(ins, &ins->t[SUM_OUT]);
}

static uint32_t ones(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (uint32_t)(x * 0x0101010101010101u >> 56);
}

/* Bits that differ in `bytes` bytes, of the last one those of the mask. */
ERGO_WIDE static uint32_t differing(const uint8_t *x, int64_t sx, const uint8_t *w, int64_t sw, uint32_t bytes,
                                    uint8_t mask) {
  uint32_t found = 0, b = 0;
  if (sx == 1 && sw == 1)
    for (; b + WORD < bytes; b += WORD) {
      uint64_t p, q;
      memcpy(&p, x + b, WORD), memcpy(&q, w + b, WORD);
      found += ones(p ^ q);
    }
  for (; b + 1 < bytes; b++) found += ones((uint8_t)(x[b * sx] ^ w[b * sw]));
  return found + ones((uint8_t)((x[b * sx] ^ w[b * sw]) & mask));
}

/* The sum of one channel's products at a place. */
static int64_t dot(const ergo_ins *ins, const uint8_t *x, const uint8_t *w, int64_t top, int64_t left) {
  const ergo_operand *in = &ins->t[X], *weights = &ins->t[W];
  const int64_t *v = ins->v;
  uint32_t bytes = weights->shape[3];
  uint8_t mask = (uint8_t)(255u >> (8 * bytes - (uint32_t)v[CHANNELS])), outside = v[PAD_VALUE] > 0 ? 255 : 0;
  int64_t total = 0;
  for (uint32_t i = 0; i < weights->shape[1]; i++)
    for (uint32_t j = 0; j < weights->shape[2]; j++) {
      int64_t h = top + (int64_t)i * v[DILATION], c = left + (int64_t)j * v[DILATION + 1];
      int inside = h >= 0 && h < (int64_t)in->shape[1] && c >= 0 && c < (int64_t)in->shape[2];
      const uint8_t *tap = w + (int64_t)i * weights->strides[1] + (int64_t)j * weights->strides[2];
      if (!inside && !v[PAD_VALUE]) continue;
      total += v[CHANNELS];
      total -= 2 * (int64_t)(inside ? differing(x + h * in->strides[1] + c * in->strides[2], in->strides[3], tap,
                                                weights->strides[3], bytes, mask)
                                    : differing(&outside, 0, tap, weights->strides[3], bytes, mask));
    }
  return total;
}

static int64_t dot_at(ergo_ctx *ctx, const ergo_ins *ins, uint32_t n, uint32_t oh, uint32_t ow, uint32_t o) {
  const uint8_t *x = ergo_at(ctx, &ins->t[X]), *w = ergo_at(ctx, &ins->t[W]);
  return dot(ins, x + (int64_t)n * ins->t[X].strides[0], w + (int64_t)o * ins->t[W].strides[0],
             (int64_t)oh * ins->v[STRIDE] - ins->v[PAD], (int64_t)ow * ins->v[STRIDE + 1] - ins->v[PAD + 1]);
}

static int16_t i16_at(ergo_ctx *ctx, const ergo_operand *t, uint32_t index) {
  const uint8_t *place = (const uint8_t *)ergo_at(ctx, t) + (int64_t)index * t->strides[0];
  unsigned value = (unsigned)place[0] | (unsigned)place[1] << 8;
  return (int16_t)(value < 0x8000u ? (int)value : (int)value - 0x10000);
}

static uint8_t *out_at(ergo_ctx *ctx, const ergo_operand *out, uint32_t n, uint32_t h, uint32_t w) {
  return (uint8_t *)ergo_at(ctx, out) + (int64_t)n * out->strides[0] + (int64_t)h * out->strides[1] +
         (int64_t)w * out->strides[2];
}

static ergo_status xnor(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  uint32_t channels = ins->t[W].shape[0];
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t oh = 0; oh < out->shape[1]; oh++)
      for (uint32_t ow = 0; ow < out->shape[2]; ow++) {
        uint8_t *place = out_at(ctx, out, n, oh, ow);
        for (uint32_t b = 0; b < out->shape[3]; b++) {
          unsigned bits = 0;
          for (uint32_t k = 0; k < 8 && 8 * b + k < channels; k++) {
            int64_t total = dot_at(ctx, ins, n, oh, ow, 8 * b + k);
            bits |= (unsigned)(i16_at(ctx, &ins->t[LOW], 8 * b + k) <= total &&
                               total <= i16_at(ctx, &ins->t[HIGH], 8 * b + k))
                    << k;
          }
          place[(int64_t)b * out->strides[3]] = (uint8_t)bits;
        }
      }
  return ERGO_OK;
}

static ergo_status xnor_sum(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[SUM_OUT], *bias = &ins->t[BIAS], *mult = &ins->t[MULT], *shift = &ins->t[SHIFT];
  const int64_t *v = ins->v;
  for (uint32_t o = 0; o < out->shape[3]; o++) {
    int64_t scale = i16_at(ctx, &ins->t[SCALE], o),
            first = ergo_i32((const uint8_t *)ergo_at(ctx, bias) + (int64_t)o * bias->strides[0]);
    int32_t m = ergo_i32((const uint8_t *)ergo_at(ctx, mult) + (int64_t)o * mult->strides[0]),
            s = *((const int8_t *)ergo_at(ctx, shift) + (int64_t)o * shift->strides[0]);
    if (m < 0 || m >= 1 << 24 || s < 0 || s > 62) return ERGO_BAD_CONSTANT;
    for (uint32_t n = 0; n < out->shape[0]; n++)
      for (uint32_t oh = 0; oh < out->shape[1]; oh++)
        for (uint32_t ow = 0; ow < out->shape[2]; ow++) {
          int64_t acc = first + scale * dot_at(ctx, ins, n, oh, ow, o);
          uint8_t *place = out_at(ctx, out, n, oh, ow) + (int64_t)o * out->strides[3];
          if (out->dtype == ERGO_I32)
            ergo_put_i32(place, (int32_t)(uint32_t)(uint64_t)acc); /* wraps around */
          else
            *(int8_t *)place = ergo_requantize(acc, m, s, v[OUT_ZP], v[LO], v[HI]);
        }
  }
  return ERGO_OK;
}

#define PLAIN ERGO_NO_OPERAND, 0
const ergo_op ergo_op_binarize = {0x4A, 1, "BINARIZE", "TTTT",
                                  {{ERGO_IS_I8, 0, "*", PLAIN}, {ERGO_IS_I8, 0, "C", PLAIN},
                                   {ERGO_IS_I8, 0, "C", PLAIN}, {ERGO_IS_U8, 1, "*", PLAIN}},
                                  0, 0, binarize_check, NULL, binarize};
const ergo_op ergo_op_binary_pool = {0x4B, 1, "BINARY_POOL", "TT ss ss eeee ss",
                                     {{ERGO_IS_U8, 0, "NHWB", PLAIN}, {ERGO_IS_U8, 1, "NPQB", PLAIN}},
                                     0, 0, pool_check, NULL, pool};
const ergo_op ergo_op_xnor = {0x48, 5, "XNOR", "TTTTT ss eeee ss P z",
                              {{ERGO_IS_U8, 0, "NHWB", PLAIN}, {ERGO_IS_U8, 0, "OKLB", PLAIN},
                               {ERGO_IS_I16, 0, "O", PLAIN}, {ERGO_IS_I16, 0, "O", PLAIN},
                               {ERGO_IS_U8, 1, "NPQR", PLAIN}},
                              0, 0, xnor_check, NULL, xnor};
const ergo_op ergo_op_xnor_sum = {0x49, 5, "XNOR_SUM", "TTTTTTT ss eeee ss P z zzz",
                                  {{ERGO_IS_U8, 0, "NHWB", PLAIN}, {ERGO_IS_U8, 0, "OKLB", PLAIN},
                                   {ERGO_IS_I16, 0, "O", PLAIN}, {ERGO_IS_I32, 0, "O", PLAIN},
                                   {ERGO_IS_I32, 0, "O", PLAIN}, {ERGO_IS_I8, 0, "O", PLAIN},
                                   {ERGO_IS_I8 | ERGO_IS_I32, 1, "NPQO", PLAIN}},
                                  0, 0, sum_check, NULL, xnor_sum};
