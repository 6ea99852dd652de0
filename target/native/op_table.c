/* TABLE: out = lut[(c,) x + 128] for int8 x, lut[(c,) x] for uint8 x. */
#include "box.h"

enum { X, LUT, OUT };

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *lut = &ins->t[LUT], *out = &ins->t[OUT];
  if (x->rank != out->rank || lut->dtype != out->dtype || lut->rank > 2 || lut->shape[lut->rank - 1] != 256)
    return ERGO_PRECONDITION;
  for (unsigned i = 0; i < x->rank; i++)
    if (x->shape[i] != out->shape[i]) return ERGO_PRECONDITION;
  return lut->rank == 2 && lut->shape[0] != x->shape[x->rank - 1] ? ERGO_PRECONDITION : ERGO_OK;
}

typedef struct tables {
  const uint8_t *lut;
  int64_t channel, step;
  uint8_t flip; /* int8 inputs count from -128 */
} tables;

static void shared(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const uint8_t *lut = user, *x = p[0];
  uint8_t *out = p[1];
  int64_t sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1];
  if (sx == 1 && so == 1)
    for (uint32_t i = 0; i < count; i++) out[i] = lut[x[i]];
  else
    for (uint32_t i = 0; i < count; i++) out[i * so] = lut[x[i * sx]];
}

static void per_channel(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const tables *t = user;
  int64_t sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1];
  for (uint32_t i = 0; i < count; i++) p[1][i * so] = t->lut[i * t->channel + (p[0][i * sx] ^ t->flip) * t->step];
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *lut = &ins->t[LUT], *out = &ins->t[OUT], *t[2] = {x, out};
  uint8_t *places[2] = {ergo_at(ctx, x), ergo_at(ctx, out)}, flip = x->dtype == ERGO_I8 ? 128 : 0;
  tables all = {ergo_at(ctx, lut), lut->rank == 2 ? lut->strides[0] : 0, lut->strides[lut->rank - 1], flip};
  ergo_box box;
  ergo_box_of(&box, out, 0, 2, t);
  if (lut->rank == 2) { /* the last axis says which table */
    ergo_box_walk(&box, places, per_channel, &all);
    return ERGO_OK;
  }
  uint8_t by_byte[256];
  for (int i = 0; i < 256; i++) by_byte[i] = all.lut[(i ^ flip) * all.step];
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, shared, by_byte);
  return ERGO_OK;
}

#define BYTES (ERGO_IS_I8 | ERGO_IS_U8)
const ergo_op ergo_op_table = {
    0x13,
    1,
    "TABLE",
    "TTT",
    {{BYTES, 0, "*", ERGO_NO_OPERAND, 0}, {BYTES, 0, "*", ERGO_NO_OPERAND, 0}, {BYTES, 1, "*", ERGO_NO_OPERAND, 0}},
    1,
    0,
    check,
    NULL,
    run};
