/* ACCUMULATE and REQUANTIZE: int32 sums over rows and columns that see their input band by band. */
#include "box.h"

enum { X, ACC };
enum { FIRST, IN_ZP };

static ergo_status accumulate(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *acc = &ins->t[ACC];
  const uint8_t *in = ergo_at(ctx, x);
  uint8_t *sums = ergo_at(ctx, acc);
  for (uint32_t n = 0; n < x->shape[0]; n++)
    for (uint32_t c = 0; c < x->shape[3]; c++) {
      uint8_t *place = sums + (int64_t)n * acc->strides[0] + (int64_t)c * acc->strides[3];
      int64_t total = ins->v[FIRST] ? 0 : ergo_i32(place);
      for (uint32_t h = 0; h < x->shape[1]; h++)
        for (uint32_t w = 0; w < x->shape[2]; w++)
          total += (int8_t)in[(int64_t)n * x->strides[0] + (int64_t)h * x->strides[1] + (int64_t)w * x->strides[2] +
                              (int64_t)c * x->strides[3]] -
                   ins->v[IN_ZP];
      ergo_put_i32(place, (int32_t)(uint32_t)(uint64_t)total); /* wraps around */
    }
  return ERGO_OK;
}

enum { IN, OUT };
enum { MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  if (ins->v[LO] > ins->v[HI] || ins->t[IN].rank != ins->t[OUT].rank) return ERGO_PRECONDITION;
  return memcmp(ins->t[IN].shape, ins->t[OUT].shape, sizeof ins->t[IN].shape) ? ERGO_PRECONDITION : ERGO_OK;
}

static void inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const int64_t *v = user;
  int64_t si = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1];
  for (uint32_t i = 0; i < count; i++)
    *(int8_t *)(p[1] + i * so) =
        ergo_requantize(ergo_i32(p[0] + i * si), v[MULT], (int)v[SHIFT], v[OUT_ZP], v[LO], v[HI]);
}

static ergo_status requantize(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *t[2] = {&ins->t[IN], &ins->t[OUT]};
  uint8_t *places[2] = {ergo_at(ctx, t[0]), ergo_at(ctx, t[1])};
  ergo_box box;
  ergo_box_of(&box, t[1], 0, 2, t);
  ergo_box_walk(&box, places, inner, ins->v);
  return ERGO_OK;
}

const ergo_op ergo_op_accumulate = {
    0x18,
    1,
    "ACCUMULATE",
    "TT f z",
    {{ERGO_IS_I8, 0, "NHWC", ERGO_NO_OPERAND, 0}, {ERGO_IS_I32, 1, "N11C", ERGO_NO_OPERAND, 0}},
    2,
    0,
    NULL,
    NULL,
    accumulate};
const ergo_op ergo_op_requantize = {
    0x19,
    1,
    "REQUANTIZE",
    "TT mh zzz",
    {{ERGO_IS_I32, 0, "*", ERGO_NO_OPERAND, 0}, {ERGO_IS_I8, 1, "*", ERGO_NO_OPERAND, 0}},
    0,
    0,
    check,
    NULL,
    requantize};
