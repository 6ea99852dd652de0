/* ADD_WIDE and RESCALE: elements of 8 or 16 bits, one by one. target/isa/wide.py */
#include "elements.h"

#define ELEMENTS (ERGO_IS_I8 | ERGO_IS_I16)

enum { A, B, OUT };
enum { A_ZP, B_ZP, A_MULT, B_MULT, ADD_SHIFT };

/* Of 16 bits, the zero point is 0. */
static int has_zero(const ergo_operand *t, int64_t zero_point) { return t->dtype == ERGO_I8 || !zero_point; }

static ergo_status add_check(const ergo_ins *ins) {
  const ergo_operand *t = ins->t;
  if (!ergo_broadcasts(&t[A], &t[OUT]) || !ergo_broadcasts(&t[B], &t[OUT])) return ERGO_PRECONDITION;
  return has_zero(&t[A], ins->v[A_ZP]) && has_zero(&t[B], ins->v[B_ZP]) ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct task {
  const ergo_ins *ins;
  ergo_finish finish;
} task;

ERGO_WIDE static void sums(const int64_t *v, const int32_t *a, const int32_t *b, uint32_t count, int64_t *to) {
  const int64_t a_mult = v[A_MULT], b_mult = v[B_MULT], constant = -v[A_ZP] * a_mult - v[B_ZP] * b_mult;
  for (uint32_t i = 0; i < count; i++) to[i] = a[i] * a_mult + b[i] * b_mult + constant;
}

static void add_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  int64_t step[3], values[ERGO_RUN];
  int32_t a[ERGO_RUN], b[ERGO_RUN];
  for (unsigned i = 0; i < 3; i++) step[i] = box->strides[i][box->rank - 1];
  for (uint32_t at = 0; at < count; at += ERGO_RUN) {
    uint32_t n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[A] + at * step[A], t->ins->t[A].dtype, step[A], n, a);
    ergo_read_run(p[B] + at * step[B], t->ins->t[B].dtype, step[B], n, b);
    sums(t->ins->v, a, b, n, values);
    ergo_write_run(&t->finish, values, n, p[OUT] + at * step[OUT], step[OUT]);
  }
}

static ergo_status walk(ergo_ctx *ctx, const ergo_ins *ins, unsigned operands, const task *t,
                        void (*inner)(const void *, const ergo_box *, uint8_t *const *, uint32_t)) {
  const ergo_operand *each[3];
  uint8_t *places[3];
  ergo_box box;
  for (unsigned i = 0; i < operands; i++) each[i] = &ins->t[i], places[i] = ergo_at(ctx, &ins->t[i]);
  ergo_box_of(&box, each[operands - 1], 0, operands, each);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, inner, t);
  return ERGO_OK;
}

static ergo_status add_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, {1, 0, INT16_MIN, INT16_MAX, (int)ins->v[ADD_SHIFT], ERGO_I16}};
  return walk(ctx, ins, 3, &t, add_run_of);
}

enum { X, RESULT };
enum { IN_ZP, MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status rescale_check(const ergo_ins *ins) {
  if (ins->v[LO] > ins->v[HI] || !has_zero(&ins->t[X], ins->v[IN_ZP])) return ERGO_PRECONDITION;
  return ergo_same_shape(&ins->t[X], &ins->t[RESULT]) ? ERGO_OK : ERGO_PRECONDITION;
}

static void rescale_run_of(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  const int64_t sx = box->strides[X][box->rank - 1], so = box->strides[RESULT][box->rank - 1], zp = t->ins->v[IN_ZP];
  int64_t values[ERGO_RUN];
  int32_t x[ERGO_RUN];
  for (uint32_t at = 0; at < count; at += ERGO_RUN) {
    uint32_t n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[X] + at * sx, t->ins->t[X].dtype, sx, n, x);
    for (uint32_t i = 0; i < n; i++) values[i] = x[i] - zp;
    ergo_write_run(&t->finish, values, n, p[RESULT] + at * so, so);
  }
}

static ergo_status rescale_run(ergo_ctx *ctx, const ergo_ins *ins) {
  task t = {ins, ergo_finish_of(ins, &ins->t[RESULT], ins->v[MULT], SHIFT)};
  return walk(ctx, ins, 2, &t, rescale_run_of);
}

const ergo_op ergo_op_add_wide = {0x1A,
                                  1,
                                  "ADD_WIDE",
                                  "TTT zz MM h",
                                  {{ELEMENTS, 0, "*", ERGO_NO_OPERAND, 0},
                                   {ELEMENTS, 0, "*", ERGO_NO_OPERAND, 0},
                                   {ERGO_IS_I16, 1, "*", ERGO_NO_OPERAND, 0}},
                                  3,
                                  0,
                                  add_check,
                                  NULL,
                                  add_run};
const ergo_op ergo_op_rescale = {0x1B,
                                 1,
                                 "RESCALE",
                                 "TT z mh zzz",
                                 {{ELEMENTS, 0, "*", ERGO_NO_OPERAND, 0}, {ELEMENTS, 1, "*", ERGO_NO_OPERAND, 0}},
                                 1,
                                 0,
                                 rescale_check,
                                 NULL,
                                 rescale_run};
