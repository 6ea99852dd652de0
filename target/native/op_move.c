/* COPY, FILL, RECEIVE: strided movement. */
#include "box.h"

#define ANY ERGO_IS_ANY

static int same_shape(const ergo_operand *a, const ergo_operand *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof a->shape);
}

enum { SRC, DST };

static ergo_status copy_check(const ergo_ins *ins) {
  return same_shape(&ins->t[SRC], &ins->t[DST]) && ins->t[SRC].dtype == ins->t[DST].dtype ? ERGO_OK : ERGO_PRECONDITION;
}

static void copy_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  uint32_t size = *(const uint32_t *)user;
  int64_t from = box->strides[0][box->rank - 1], to = box->strides[1][box->rank - 1];
  if (from == to && from == (int64_t)size) {
    memcpy(p[1], p[0], (size_t)count * size);
    return;
  }
  if (size == 1)
    for (uint32_t i = 0; i < count; i++) p[1][i * to] = p[0][i * from];
  else
    for (uint32_t i = 0; i < count; i++) memcpy(p[1] + i * to, p[0] + i * from, size);
}

static ergo_status copy(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *t[2] = {&ins->t[SRC], &ins->t[DST]};
  uint8_t *places[2] = {ergo_at(ctx, t[0]), ergo_at(ctx, t[1])};
  uint32_t size = ergo_itemsize(t[0]->dtype);
  ergo_box box;
  ergo_box_of(&box, t[1], 0, 2, t);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, copy_inner, &size);
  return ERGO_OK;
}

static ergo_status fill_check(const ergo_ins *ins) {
  static const int64_t lows[4] = {INT8_MIN, 0, INT16_MIN, INT32_MIN},
                       highs[4] = {INT8_MAX, UINT8_MAX, INT16_MAX, INT32_MAX};
  unsigned dtype = ins->t[0].dtype;
  return ins->v[0] >= lows[dtype] && ins->v[0] <= highs[dtype] ? ERGO_OK : ERGO_PRECONDITION;
}

static void fill_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const ergo_ins *ins = user;
  uint32_t size = ergo_itemsize(ins->t[0].dtype);
  int64_t to = box->strides[0][box->rank - 1];
  uint8_t value[4];
  ergo_put_i32(value, (int32_t)ins->v[0]);
  if (size == 1 && to == 1)
    memset(p[0], value[0], count);
  else
    for (uint32_t i = 0; i < count; i++) memcpy(p[0] + i * to, value, size);
}

static ergo_status fill(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *t[1] = {&ins->t[0]};
  uint8_t *places[1] = {ergo_at(ctx, t[0])};
  ergo_box box;
  ergo_box_of(&box, t[0], 0, 1, t);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, fill_inner, ins);
  return ERGO_OK;
}

enum { PORT, OFFSET, STEPS };

static ergo_status receive_check(const ergo_ins *ins) {
  for (unsigned i = ins->t[0].rank; i < ERGO_MAX_RANK; i++)
    if (ins->v[STEPS + i]) return ERGO_PRECONDITION;
  return ERGO_OK;
}

/* The last axes that lie densely here and at the sender come at once: a row, or several. */
static ergo_status receive(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[0];
  const int64_t *steps = ins->v + STEPS;
  unsigned axes = out->rank;
  uint32_t index[ERGO_MAX_RANK] = {0}, bytes = ergo_itemsize(out->dtype);
  for (; axes > 0; axes--) {
    uint32_t length = out->shape[axes - 1];
    if (length != 1 && (out->strides[axes - 1] != (int64_t)bytes || steps[axes - 1] != (int64_t)bytes)) break;
    bytes *= length;
  }
  int64_t offset = ins->v[OFFSET];
  uint8_t *place = ergo_at(ctx, out);
  if (!ctx->receive) return ERGO_NULL;
  for (;;) {
    if (ctx->receive(ctx->user, (uint32_t)ins->v[PORT], (uint32_t)offset, bytes, place)) return ERGO_STOPPED;
    unsigned axis = axes;
    while (axis-- > 0) {
      place += out->strides[axis], offset += steps[axis];
      if (++index[axis] < out->shape[axis]) break;
      place -= (int64_t)out->strides[axis] * out->shape[axis], offset -= steps[axis] * (int64_t)out->shape[axis],
          index[axis] = 0;
    }
    if (axis == (unsigned)-1) return ERGO_OK;
  }
}

const ergo_op ergo_op_copy = {
    0x20, 2, "COPY",     "TT", {{ANY, 0, "*", ERGO_NO_OPERAND, 0}, {ANY, 1, "*", ERGO_NO_OPERAND, 0}},
    0,    0, copy_check, NULL, copy};
const ergo_op ergo_op_fill = {0x21, 2, "FILL",     "T i", {{ANY, 1, "*", ERGO_NO_OPERAND, 0}},
                              0,    0, fill_check, NULL,  fill};
const ergo_op ergo_op_receive = {0x24, 2, "RECEIVE",     "e I IIIIII T", {{ANY, 1, "*", ERGO_NO_OPERAND, 0}},
                                 0,    0, receive_check, NULL,           receive};
