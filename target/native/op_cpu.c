/* CPU_CALL: the CPU's library; HALT. */
#include "box.h"

static ergo_status argmax_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *out = &ins->t[1];
  if (ins->lists[0] != 1 || ins->lists[1] != 1 || ins->v[1] || x->dtype > ERGO_U8 || out->dtype != ERGO_I32)
    return ERGO_PRECONDITION;
  if (x->rank == 1) return out->rank == 1 && out->shape[0] == 1 ? ERGO_OK : ERGO_PRECONDITION;
  return out->rank == x->rank - 1 && !memcmp(out->shape, x->shape, out->rank * sizeof *out->shape) ? ERGO_OK
                                                                                                   : ERGO_PRECONDITION;
}

typedef struct axis {
  uint32_t length;
  int64_t step;
  int is_signed;
} axis;

static void argmax_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const axis *a = user;
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *x = p[0] + i * box->strides[0][box->rank - 1];
    int best = 0, most = -129;
    for (uint32_t k = 0; k < a->length; k++) {
      int value = a->is_signed ? (int8_t)x[k * a->step] : x[k * a->step];
      if (value > most) most = value, best = (int)k;
    }
    ergo_put_i32(p[1] + i * box->strides[1][box->rank - 1], best);
  }
}

static ergo_status argmax(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_operand x = ins->t[0];
  const ergo_operand *out = &ins->t[1], *t[2] = {&x, out};
  axis a = {x.shape[x.rank - 1], x.strides[x.rank - 1], x.dtype == ERGO_I8};
  uint8_t *places[2] = {ergo_at(ctx, &ins->t[0]), ergo_at(ctx, out)};
  if (x.rank > 1)
    x.rank--;
  else
    x.shape[0] = 1;
  ergo_box box;
  ergo_box_of(&box, out, 0, 2, t);
  ergo_box_walk(&box, places, argmax_inner, &a);
  return ERGO_OK;
}

static ergo_status gather_check(const ergo_ins *ins) {
  const ergo_operand *table = &ins->t[0], *indices = &ins->t[1], *out = &ins->t[2];
  if (ins->lists[0] != 2 || ins->lists[1] != 1 || ins->v[1] || table->rank != 2 || indices->dtype != ERGO_I32 ||
      out->dtype != table->dtype)
    return ERGO_PRECONDITION;
  unsigned axes = indices->rank;
  if (out->rank == axes && indices->shape[axes - 1] == 1) axes--; /* a last axis of length 1 may be left out */
  if (out->rank != axes + 1u || memcmp(out->shape, indices->shape, axes * sizeof *out->shape)) return ERGO_PRECONDITION;
  return out->shape[out->rank - 1] == table->shape[1] ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct rows_of {
  const ergo_operand *table, *out;
  const uint8_t *first;
} rows_of;

static void gather_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const rows_of *r = user;
  uint32_t size = ergo_itemsize(r->table->dtype);
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *row = r->first + (int64_t)ergo_i32(p[0] + i * box->strides[0][box->rank - 1]) * r->table->strides[0];
    uint8_t *out = p[1] + i * box->strides[1][box->rank - 1];
    for (uint32_t c = 0; c < r->table->shape[1]; c++)
      memcpy(out + (int64_t)c * r->out->strides[r->out->rank - 1], row + (int64_t)c * r->table->strides[1], size);
  }
}

static void range_inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const uint32_t rows = *(const uint32_t *)user;
  for (uint32_t i = 0; i < count; i++) {
    int32_t index = ergo_i32(p[0] + i * box->strides[0][box->rank - 1]);
    if (index < 0 || (uint32_t)index >= rows) *p[1] = 1;
  }
}

static ergo_status gather(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *indices = &ins->t[1];
  ergo_operand out = ins->t[2], flag = *indices;
  uint8_t outside = 0;
  const ergo_operand *checked[2] = {indices, &flag};
  uint8_t *in = ergo_at(ctx, indices);
  ergo_box box;
  memset(flag.strides, 0, sizeof flag.strides);
  ergo_box_of(&box, indices, 0, 2, checked);
  uint8_t *looked[2] = {in, &outside};
  ergo_box_walk(&box, looked, range_inner, &ins->t[0].shape[0]);
  if (outside) return ERGO_BAD_CONSTANT;
  rows_of rows = {&ins->t[0], &ins->t[2], ergo_at(ctx, &ins->t[0])};
  if (out.rank == indices->rank)
    out.shape[out.rank - 1] = 1;
  else
    out.rank--;
  const ergo_operand *t[2] = {indices, &out};
  uint8_t *places[2] = {in, ergo_at(ctx, &ins->t[2])};
  ergo_box_of(&box, &out, 0, 2, t);
  ergo_box_walk(&box, places, gather_inner, &rows);
  return ERGO_OK;
}

const ergo_cpu_function ergo_cpu_argmax = {0, argmax_check, argmax};
const ergo_cpu_function ergo_cpu_gather_rows = {1, gather_check, gather};

static const ergo_cpu_function *called(const ergo_ins *ins) {
  const ergo_cpu_function *const *f = ergo_cpu_functions;
  while (*f && (*f)->number != ins->v[0]) f++;
  return *f;
}

static ergo_status check(const ergo_ins *ins) {
  return called(ins) ? called(ins)->check(ins) : ERGO_UNKNOWN_INSTRUCTION;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  return called(ins) ? called(ins)->run(ctx, ins) : ERGO_UNKNOWN_INSTRUCTION;
}

static ergo_status halt(ergo_ctx *ctx, const ergo_ins *ins) { return (void)ctx, (void)ins, ERGO_OK; }

const ergo_op ergo_op_cpu_call = {0x30, 3, "CPU_CALL", "k L L Q", {{0, 0, "*", ERGO_NO_OPERAND, 0}},
                                  0,    0, check,      NULL,      run};
const ergo_op ergo_op_halt = {0x3F, 3, "HALT", "", {{0, 0, "*", ERGO_NO_OPERAND, 0}}, 0, 0, NULL, NULL, halt};
