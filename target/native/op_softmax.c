/* SOFTMAX over the last axis: e = lut[max - x], out_zp + rounding_divide(e * mult, sum(e) << shift). */
#include "box.h"

enum { X, LUT, OUT };
enum { MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  if (ins->v[LO] > ins->v[HI] || x->rank != out->rank || x->shape[x->rank - 1] >= 1u << 14) return ERGO_PRECONDITION;
  for (unsigned i = 0; i < x->rank; i++)
    if (x->shape[i] != out->shape[i]) return ERGO_PRECONDITION;
  return ERGO_OK;
}

typedef struct exponentials {
  const ergo_ins *ins;
  const uint8_t *lut;
  int64_t step;
} exponentials;

static int32_t at(const exponentials *e, int index) { return ergo_i32(e->lut + index * e->step); }

static void row(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const exponentials *e = user;
  const int64_t *v = e->ins->v;
  const int8_t *x = (const int8_t *)p[0];
  int64_t sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1], total = 0,
          shift = v[SHIFT] < 25 ? v[SHIFT] : 25; /* beyond, all is rounded to 0 */
  int top = -128;
  for (uint32_t i = 0; i < count; i++) top = x[i * sx] > top ? x[i * sx] : top;
  for (uint32_t i = 0; i < count; i++) total += at(e, top - x[i * sx]);
  if (total < 1) total = 1;
  for (uint32_t i = 0; i < count; i++)
    *(int8_t *)(p[1] + i * so) =
        ergo_clip(ergo_divide(at(e, top - x[i * sx]) * v[MULT], total << shift) + v[OUT_ZP], v[LO], v[HI]);
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *lut = &ins->t[LUT], *t[2] = {&ins->t[X], &ins->t[OUT]};
  uint8_t *places[2] = {ergo_at(ctx, t[0]), ergo_at(ctx, t[1])};
  exponentials e = {ins, ergo_at(ctx, lut), lut->strides[0]};
  ergo_box box;
  for (int i = 0; i < 256; i++)
    if (at(&e, i) < 0 || at(&e, i) >= 1 << 23) return ERGO_BAD_CONSTANT;
  ergo_box_of(&box, t[1], 0, 2, t);
  ergo_box_walk(&box, places, row, &e);
  return ERGO_OK;
}

const ergo_op ergo_op_softmax = {0x16,
                                 1,
                                 "SOFTMAX",
                                 "TTT mh zzz",
                                 {{ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I32, 0, "Z", ERGO_NO_OPERAND, 0},
                                  {ERGO_IS_I8, 1, "*", ERGO_NO_OPERAND, 0}},
                                 0,
                                 0,
                                 check,
                                 NULL,
                                 run};
