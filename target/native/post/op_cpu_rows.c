/* CPU_CALL: TOP_ROWS, LOG_SOFTMAX: functions on whole rows. target/isa/cpu_rows.py */
#include "box.h"

typedef struct rows {
  const ergo_ins *ins;
  uint32_t length, kept;
  int64_t sx, so;
  const uint8_t *lut;
  int64_t step;
} rows;

/* Walks over the rows of input 0 and of the output, whose last axes the inner loop sees to. */
static void walk(ergo_ctx *ctx, const ergo_ins *ins, unsigned output, rows *r,
                 void (*inner)(const void *user, const ergo_box *box, uint8_t *const *places, uint32_t count)) {
  ergo_operand x = ins->t[0], out = ins->t[output];
  const ergo_operand *t[2] = {&x, &out};
  uint8_t *places[2] = {ergo_at(ctx, &ins->t[0]), ergo_at(ctx, &ins->t[output])};
  unsigned last = x.rank - 1u;
  ergo_box box;
  r->ins = ins, r->length = x.shape[last], r->kept = out.shape[last], r->sx = x.strides[last], r->so = out.strides[last];
  if (x.rank > 1)
    x.rank--, out.rank--;
  else
    x.shape[0] = out.shape[0] = 1;
  ergo_box_of(&box, &out, 0, 2, t);
  ergo_box_walk(&box, places, inner, r);
}

static ergo_status top_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *out = &ins->t[1];
  if (ins->lists[0] != 1 || ins->lists[1] != 1 || ins->v[1] || x->dtype != ERGO_I8 ||
      (out->dtype != ERGO_I8 && out->dtype != ERGO_I32) || out->rank != x->rank)
    return ERGO_PRECONDITION;
  if (memcmp(out->shape, x->shape, (x->rank - 1u) * sizeof *out->shape)) return ERGO_PRECONDITION;
  return out->shape[x->rank - 1] <= x->shape[x->rank - 1] ? ERGO_OK : ERGO_PRECONDITION;
}

/* Insertion into the output, which holds the largest so far; equal ones stay behind those that came first. */
static void top_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const rows *r = user;
  int positions = r->ins->t[1].dtype == ERGO_I32;
  for (uint32_t i = 0; i < count; i++) {
    const int8_t *x = (const int8_t *)p[0] + i * box->strides[0][box->rank - 1];
    uint8_t *out = p[1] + i * box->strides[1][box->rank - 1];
    uint32_t held = 0;
    for (uint32_t n = 0; n < r->length; n++) {
      int8_t value = x[n * r->sx];
      uint32_t at = held;
      while (at > 0) {
        uint8_t *before = out + (at - 1) * r->so;
        int8_t theirs = positions ? x[ergo_i32(before) * r->sx] : *(int8_t *)before;
        if (theirs >= value) break;
        if (at < r->kept) {
          if (positions)
            ergo_put_i32(before + r->so, ergo_i32(before));
          else
            *(int8_t *)(before + r->so) = theirs;
        }
        at--;
      }
      if (at >= r->kept) continue;
      if (positions)
        ergo_put_i32(out + at * r->so, (int32_t)n);
      else
        *(int8_t *)(out + at * r->so) = value;
      if (held < r->kept) held++;
    }
  }
}

static ergo_status top(ergo_ctx *ctx, const ergo_ins *ins) {
  rows r = {0};
  walk(ctx, ins, 1, &r, top_inner);
  return ERGO_OK;
}

enum { X_MULT = 2, LOG_MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status log_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *lut = &ins->t[1], *out = &ins->t[2];
  const int64_t *v = ins->v;
  if (ins->lists[0] != 2 || ins->lists[1] != 1 || v[1] != 6 || x->dtype != ERGO_I8 || lut->dtype != ERGO_I32 ||
      out->dtype != ERGO_I8 || lut->rank != 1 || lut->shape[0] != 256 || out->rank != x->rank ||
      memcmp(out->shape, x->shape, x->rank * sizeof *out->shape) || x->shape[x->rank - 1] >= 1u << 14)
    return ERGO_PRECONDITION;
  return v[X_MULT] >= 0 && v[X_MULT] < 1 << 30 && v[LOG_MULT] >= 0 && v[LOG_MULT] < 1 << 30 && v[SHIFT] >= 0 &&
                 v[SHIFT] <= 40 && v[OUT_ZP] >= -128 && v[OUT_ZP] <= 127 && v[LO] >= -128 && v[LO] <= v[HI] && v[HI] <= 127
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static int32_t at(const rows *r, int index) { return ergo_i32(r->lut + index * r->step); }

/* With 16 fraction bits, a bit for every squaring of the mantissa. */
static int64_t log2_of(int64_t total) {
  int64_t power = 0;
  while (total >> (power + 1)) power++;
  uint64_t mantissa = power < 30 ? (uint64_t)total << (30 - power) : (uint64_t)total >> (power - 30);
  for (int i = 0; i < 16; i++) {
    mantissa = mantissa * mantissa >> 30;
    unsigned bit = (unsigned)(mantissa >> 31);
    mantissa >>= bit;
    power = 2 * power + bit;
  }
  return power;
}

static void log_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const rows *r = user;
  const int64_t *v = r->ins->v, half = (INT64_C(1) << v[SHIFT]) >> 1;
  for (uint32_t i = 0; i < count; i++) {
    const int8_t *x = (const int8_t *)p[0] + i * box->strides[0][box->rank - 1];
    int8_t *out = (int8_t *)p[1] + i * box->strides[1][box->rank - 1];
    int64_t total = 0;
    int top = -128;
    for (uint32_t n = 0; n < r->length; n++) top = x[n * r->sx] > top ? x[n * r->sx] : top;
    for (uint32_t n = 0; n < r->length; n++) total += at(r, top - x[n * r->sx]);
    int64_t log = (log2_of(total < 1 ? 1 : total) - (22 << 16)) * v[LOG_MULT];
    for (uint32_t n = 0; n < r->length; n++) {
      int64_t sum = half - ((top - x[n * r->sx]) * v[X_MULT] + log), rounded = ergo_floor_shift(sum, (int)v[SHIFT]);
      out[n * r->so] = ergo_clip(rounded + v[OUT_ZP], v[LO], v[HI]);
    }
  }
}

static ergo_status log_softmax(ergo_ctx *ctx, const ergo_ins *ins) {
  rows r = {0};
  r.lut = ergo_at(ctx, &ins->t[1]), r.step = ins->t[1].strides[0];
  for (int i = 0; i < 256; i++)
    if (at(&r, i) < 0 || at(&r, i) >= 1 << 23) return ERGO_BAD_CONSTANT;
  walk(ctx, ins, 2, &r, log_inner);
  return ERGO_OK;
}

const ergo_cpu_function ergo_cpu_top_rows = {11, top_check, top};
const ergo_cpu_function ergo_cpu_log_softmax = {12, log_check, log_softmax};
