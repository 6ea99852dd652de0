/* NORM: layer or RMS normalization of rows, in integers. target/isa/rows.py has the formulas. */
#include "elements.h"

enum { X, GAMMA, BETA, OUT };
enum { CENTRE, IN_ZP, EPS, EPS_SHIFT, BETA_SHIFT, SHIFT, OUT_ZP, LO, HI };
#define ELEMENTS (ERGO_IS_I8 | ERGO_IS_I16)

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X];
  const int64_t *v = ins->v;
  uint32_t length = x->shape[x->rank - 1];
  if (v[EPS_SHIFT] > 28 || v[BETA_SHIFT] > 24) return ERGO_MALFORMED;
  if (v[LO] > v[HI] || !ergo_same_shape(x, &ins->t[OUT]) || length != ins->t[GAMMA].shape[0] ||
      length >= (x->dtype == ERGO_I8 ? 1u << 20 : 1u << 14))
    return ERGO_PRECONDITION;
  return x->dtype == ERGO_I8 || !v[IN_ZP] ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct task {
  const ergo_ins *ins;
  ergo_finish finish;
  const uint8_t *gamma, *beta;
} task;

/* Largest r with r * r <= value, which is below 2**34. */
static int64_t root_of(uint64_t value) {
  uint64_t root = 0;
  for (uint64_t bit = 1u << 16; bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= value) root |= bit;
  return (int64_t)root;
}

/* Of 1 over the deviation: r, and the shift that goes with it. */
static int64_t inverse(uint64_t spread, int *shift) {
  int exponent = -31, k;
  for (uint64_t rest = spread; rest; rest >>= 1) exponent++;
  k = exponent >= 0 ? exponent / 2 : -((1 - exponent) / 2);
  *shift = 17 + k;
  return root_of(((uint64_t)1 << 62) / (k < 0 ? spread << -2 * k : spread >> 2 * k));
}

ERGO_WIDE static void add_up(const int32_t *x, uint32_t count, int64_t zp, int64_t *total, int64_t *squares) {
  int64_t sum = 0, square = 0;
  for (uint32_t i = 0; i < count; i++) {
    int64_t value = x[i] - zp;
    sum += value, square += value * value;
  }
  *total += sum, *squares += square;
}

ERGO_WIDE static void centred(const int32_t *x, uint32_t count, int64_t length, int64_t constant, int64_t root,
                              int shift, const int32_t *gamma, const int64_t *beta, int64_t *to) {
  const int64_t half = shift ? (int64_t)1 << (shift - 1) : 0;
  for (uint32_t i = 0; i < count; i++)
    to[i] = (((length * x[i] + constant) * root + half) >> shift) * gamma[i] + beta[i];
}

static void row(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  const int64_t *v = t->ins->v, sx = box->strides[0][box->rank - 1], so = box->strides[1][box->rank - 1];
  const ergo_operand *gamma = &t->ins->t[GAMMA], *beta = &t->ins->t[BETA];
  int32_t x[ERGO_RUN], factor[ERGO_RUN];
  int64_t total = 0, squares = 0, length = count, summand[ERGO_RUN], values[ERGO_RUN];
  int shift;
  for (uint32_t at = 0, n; at < count; at += n) {
    n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[0] + at * sx, t->ins->t[X].dtype, sx, n, x);
    add_up(x, n, v[IN_ZP], &total, &squares);
  }
  if (!v[CENTRE]) total = 0;
  int64_t spread = length * squares - total * total + (v[EPS] << v[EPS_SHIFT]);
  int64_t root = inverse(spread < 1 ? 1 : (uint64_t)spread, &shift);
  for (uint32_t at = 0, n; at < count; at += n) {
    n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(p[0] + at * sx, t->ins->t[X].dtype, sx, n, x);
    ergo_read_run(t->gamma + (int64_t)at * gamma->strides[0], ERGO_I16, gamma->strides[0], n, factor);
    for (uint32_t i = 0; i < n; i++)
      summand[i] = ergo_i32(t->beta + (int64_t)(at + i) * beta->strides[0]) * ((int64_t)1 << v[BETA_SHIFT]);
    centred(x, n, length, -length * v[IN_ZP] - total, root, shift, factor, summand, values);
    ergo_write_run(&t->finish, values, n, p[1] + at * so, so);
  }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *each[2] = {&ins->t[X], &ins->t[OUT]};
  uint8_t *places[2] = {ergo_at(ctx, each[0]), ergo_at(ctx, each[1])};
  task t = {ins, ergo_finish_of(ins, each[1], 1, SHIFT), ergo_at(ctx, &ins->t[GAMMA]), ergo_at(ctx, &ins->t[BETA])};
  ergo_box box;
  ergo_box_of(&box, each[1], 0, 2, each);
  ergo_box_walk(&box, places, row, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_norm = {0x1C,
                              1,
                              "NORM",
                              "TTTT f z I k k h zzz",
                              {{ELEMENTS, 0, "*", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I16, 0, "C", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I32, 0, "C", ERGO_NO_OPERAND, 0},
                               {ELEMENTS, 1, "*", ERGO_NO_OPERAND, 0}},
                              0,
                              0,
                              check,
                              NULL,
                              run};
