/* ADD_16, MUL_16, RESCALE_16 and TABLE_16: elements of 8 or 16 bits with zero points of 16, one by one.
 * target/isa/int16.py */
#include "elements.h"

#define ELEMENTS (ERGO_IS_I8 | ERGO_IS_I16)

static int holds(const ergo_operand *t, int64_t value) {
  return t->dtype == ERGO_I16 || (value >= INT8_MIN && value <= INT8_MAX);
}

/* v[first..first + 2]: out_zp, lo, hi. */
static int ends_hold(const ergo_ins *ins, const ergo_operand *out, unsigned first) {
  const int64_t *v = ins->v + first;
  return v[1] <= v[2] && holds(out, v[0]) && holds(out, v[1]) && holds(out, v[2]);
}

typedef struct task {
  const ergo_ins *ins;
  ergo_finish finish;
  const int16_t *lut;
} task;

static ergo_status walk(ergo_ctx *ctx, const ergo_ins *ins, unsigned operands, const unsigned *which, const task *t,
                        void (*inner)(const void *, const ergo_box *, uint8_t *const *, uint32_t)) {
  const ergo_operand *each[3];
  uint8_t *places[3];
  ergo_box box;
  for (unsigned i = 0; i < operands; i++) each[i] = &ins->t[which[i]], places[i] = ergo_at(ctx, each[i]);
  ergo_box_of(&box, each[operands - 1], 0, operands, each);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, inner, t);
  return ERGO_OK;
}

/* ---- two operands ---- */
enum { A, B, OUT };
enum { A_ZP, B_ZP, A_MULT, B_MULT, ADD_SHIFT, ADD_ENDS };
enum { MUL_MULT = 2, MUL_SHIFT, MUL_ENDS };
static const unsigned THREE[] = {A, B, OUT};

static ergo_status pair_check(const ergo_ins *ins, unsigned ends) {
  const ergo_operand *t = ins->t;
  if (!ergo_broadcasts(&t[A], &t[OUT]) || !ergo_broadcasts(&t[B], &t[OUT])) return ERGO_PRECONDITION;
  return holds(&t[A], ins->v[A_ZP]) && holds(&t[B], ins->v[B_ZP]) && ends_hold(ins, &t[OUT], ends) ? ERGO_OK
                                                                                                  : ERGO_PRECONDITION;
}

static ergo_status add_check(const ergo_ins *ins) { return pair_check(ins, ADD_ENDS); }
static ergo_status mul_check(const ergo_ins *ins) { return pair_check(ins, MUL_ENDS); }

static void pair_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count, int product) {
  const task *t = user;
  const int64_t *v = t->ins->v;
  int64_t step[3], values[ERGO_RUN];
  int32_t a[ERGO_RUN], b[ERGO_RUN];
  for (unsigned i = 0; i < 3; i++) step[i] = box->strides[i][box->rank - 1];
  for (uint32_t at = 0; at < count; at += ERGO_RUN) {
    uint32_t n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[A] + at * step[A], t->ins->t[A].dtype, step[A], n, a);
    ergo_read_run(p[B] + at * step[B], t->ins->t[B].dtype, step[B], n, b);
    for (uint32_t i = 0; i < n; i++)
      values[i] = product ? (a[i] - v[A_ZP]) * (b[i] - v[B_ZP])
                          : (a[i] - v[A_ZP]) * v[A_MULT] + (b[i] - v[B_ZP]) * v[B_MULT];
    ergo_write_run(&t->finish, values, n, p[OUT] + at * step[OUT], step[OUT]);
  }
}

static void add_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  pair_run_of(user, box, p, count, 0);
}
static void mul_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  pair_run_of(user, box, p, count, 1);
}

static ergo_finish finish_of(const ergo_ins *ins, unsigned out, int64_t mult, unsigned shift, unsigned ends) {
  const int64_t *v = ins->v;
  return (ergo_finish){mult, v[ends], v[ends + 1], v[ends + 2], (int)v[shift], ins->t[out].dtype};
}

static ergo_status add_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, finish_of(ins, OUT, 1, ADD_SHIFT, ADD_ENDS), NULL};
  return walk(ctx, ins, 3, THREE, &t, add_run_of);
}

static ergo_status mul_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, finish_of(ins, OUT, ins->v[MUL_MULT], MUL_SHIFT, MUL_ENDS), NULL};
  return walk(ctx, ins, 3, THREE, &t, mul_run_of);
}

/* ---- one operand ---- */
enum { X, RESULT };
enum { IN_ZP, MULT, SHIFT, ENDS };
static const unsigned TWO[] = {X, RESULT};

static ergo_status rescale_check(const ergo_ins *ins) {
  if (!holds(&ins->t[X], ins->v[IN_ZP]) || !ends_hold(ins, &ins->t[RESULT], ENDS)) return ERGO_PRECONDITION;
  return ergo_same_shape(&ins->t[X], &ins->t[RESULT]) ? ERGO_OK : ERGO_PRECONDITION;
}

static void rescale_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  const int64_t sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1], zp = t->ins->v[IN_ZP];
  int64_t values[ERGO_RUN];
  int32_t x[ERGO_RUN];
  for (uint32_t at = 0; at < count; at += ERGO_RUN) {
    uint32_t n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[0] + at * sx, t->ins->t[X].dtype, sx, n, x);
    for (uint32_t i = 0; i < n; i++) values[i] = x[i] - zp;
    ergo_write_run(&t->finish, values, n, p[1] + at * so, so);
  }
}

static ergo_status rescale_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, finish_of(ins, RESULT, ins->v[MULT], SHIFT, ENDS), NULL};
  return walk(ctx, ins, 2, TWO, &t, rescale_run_of);
}

/* ---- tables ---- */
enum { LUT = 1, LOOKED_UP };
static const unsigned LOOK_UP[] = {X, LOOKED_UP};

static ergo_status table_check(const ergo_ins *ins) {
  if (ins->v[0] > 15 || ins->t[LUT].shape[0] != (1u << (16 - ins->v[0])) + 1) return ERGO_PRECONDITION;
  return ergo_same_shape(&ins->t[X], &ins->t[LOOKED_UP]) ? ERGO_OK : ERGO_PRECONDITION;
}

static void table_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  const int64_t sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1];
  const int bits = (int)t->ins->v[0], narrow = t->ins->t[LOOKED_UP].dtype == ERGO_I8;
  const int64_t half = bits ? (int64_t)1 << (bits - 1) : 0, stride = t->ins->t[LUT].strides[0];
  const uint8_t *lut = (const uint8_t *)t->lut;
  int32_t x[ERGO_RUN];
  for (uint32_t at = 0; at < count; at += ERGO_RUN) {
    uint32_t n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[0] + at * sx, ERGO_I16, sx, n, x);
    for (uint32_t i = 0; i < n; i++) {
      int32_t u = x[i] + 32768, index = u >> bits, ends[2];
      ergo_read_run(lut + index * stride, ERGO_I16, stride, 2, ends);
      int64_t slope = (int64_t)(ends[1] - ends[0]) * (u - (index << bits));
      int64_t value = ends[0] + ergo_floor_shift(slope + half, bits);
      uint8_t *place = p[1] + (at + i) * so;
      if (narrow)
        *(int8_t *)place = (int8_t)value;
      else
        ergo_put_i16(place, value);
    }
  }
}

static ergo_status table_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, {0, 0, 0, 0, 0, 0}, (const int16_t *)(const void *)ergo_at(ctx, &ins->t[LUT])};
  return walk(ctx, ins, 2, LOOK_UP, &t, table_run_of);
}

#define EITHER {ELEMENTS, 0, "*", ERGO_NO_OPERAND, 0}
#define EITHER_OUT {ELEMENTS, 1, "*", ERGO_NO_OPERAND, 0}
const ergo_op ergo_op_add_16 = {0x28, 1, "ADD_16", "TTT yy MM h yyy", {EITHER, EITHER, EITHER_OUT}, 3, 0, add_check,
                                NULL, add_run};
const ergo_op ergo_op_mul_16 = {0x29, 1, "MUL_16", "TTT yy mh yyy", {EITHER, EITHER, EITHER_OUT}, 3, 0, mul_check,
                                NULL, mul_run};
const ergo_op ergo_op_rescale_16 = {0x2A, 1, "RESCALE_16", "TT y mh yyy", {EITHER, EITHER_OUT}, 1, 0, rescale_check,
                                    NULL, rescale_run};
const ergo_op ergo_op_table_16 = {0x2B,
                                  1,
                                  "TABLE_16",
                                  "TTT k",
                                  {{ERGO_IS_I16, 0, "*", ERGO_NO_OPERAND, 0},
                                   {ERGO_IS_I16, 0, "L", ERGO_NO_OPERAND, 0},
                                   EITHER_OUT},
                                  1,
                                  0,
                                  table_check,
                                  NULL,
                                  table_run};
