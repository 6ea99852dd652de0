/* EXP_ROWS: softmax before its division, under masks. target/isa/rows.py */
#include "elements.h"

enum { X, LUT, OUT, MASK };
enum { CAUSAL, OFFSET };
#define LEAST (-32768)

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X];
  if (ins->v[OFFSET] < -(1 << 20) || ins->v[OFFSET] > 1 << 20) return ERGO_MALFORMED;
  if (x->rank < 2 || !ergo_same_shape(x, &ins->t[OUT])) return ERGO_PRECONDITION;
  return ins->operands <= MASK || ergo_broadcasts(&ins->t[MASK], x) ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct task {
  const ergo_ins *ins;
  int32_t lut[256];
  int64_t step[3]; /* along a row: x, out, mask */
  uint32_t length;
  int masked;
} task;

ERGO_WIDE static int32_t most(const int32_t *x, uint32_t count, int32_t top) {
  for (uint32_t i = 0; i < count; i++) top = x[i] > top ? x[i] : top;
  return top;
}

ERGO_WIDE static void powers(const int32_t *lut, const int32_t *x, int32_t top, uint32_t count, uint8_t *to) {
  for (uint32_t i = 0; i < count; i++) {
    int32_t distance = top - x[i], shift = distance >> 8;
    shift = shift < 0 ? 0 : shift > 31 ? 31 : shift;
    int32_t power = (int32_t)((uint32_t)(lut[distance & 255] >> shift) + 64u) >> 7;
    to[i] = (uint8_t)(power < 255 ? power : 255);
  }
}

/* Elements [at, at + count) of a row, those under the mask as small as can be. */
static void read(const task *t, uint8_t *const *p, uint32_t at, uint32_t count, int32_t *x) {
  ergo_read_run(p[0] + at * t->step[0], ERGO_I16, t->step[0], count, x);
  for (uint32_t i = 0; t->masked && i < count; i++)
    if (!p[2][(at + i) * t->step[2]]) x[i] = LEAST;
}

/* Of a row of which `valid` elements are left by causality. */
static void row(const task *t, uint8_t *const *p, uint32_t valid) {
  int32_t x[ERGO_RUN], top = LEAST;
  uint8_t result[ERGO_RUN];
  for (uint32_t at = 0, n; at < valid; at += n) {
    n = valid - at < ERGO_RUN ? valid - at : ERGO_RUN;
    read(t, p, at, n, x);
    top = most(x, n, top);
  }
  for (uint32_t at = 0, n; at < valid; at += n) {
    n = valid - at < ERGO_RUN ? valid - at : ERGO_RUN;
    read(t, p, at, n, x);
    powers(t->lut, x, top, n, result);
    for (uint32_t i = 0; t->masked && i < n; i++)
      if (!p[2][(at + i) * t->step[2]]) result[i] = 0;
    if (t->step[1] == 1)
      memcpy(p[1] + at, result, n);
    else
      for (uint32_t i = 0; i < n; i++) p[1][(at + i) * t->step[1]] = result[i];
  }
  for (uint32_t i = valid; i < t->length; i++) p[1][i * t->step[1]] = 0;
}

static void rows(const void *user, const ergo_box *box, uint8_t *const *places, uint32_t count) {
  const task *t = user;
  unsigned axis = box->rank - 1;
  for (uint32_t m = 0; m < count; m++) {
    int64_t valid = t->ins->v[CAUSAL] ? (int64_t)m + t->ins->v[OFFSET] + 1 : t->length;
    uint8_t *p[3] = {places[0] + m * box->strides[0][axis], places[1] + m * box->strides[1][axis],
                     t->masked ? places[2] + m * box->strides[2][axis] : NULL};
    row(t, p, (uint32_t)(valid < 0 ? 0 : valid < t->length ? valid : t->length));
  }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *lut = &ins->t[LUT];
  const ergo_operand *each[3] = {x, &ins->t[OUT], &ins->t[MASK]};
  uint8_t *places[3] = {NULL, NULL, NULL};
  const uint8_t *exponentials = ergo_at(ctx, lut);
  task t = {.ins = ins, .length = x->shape[x->rank - 1], .masked = ins->operands > MASK};
  ergo_box box;
  for (int i = 0; i < 256; i++) t.lut[i] = ergo_i32(exponentials + i * (int64_t)lut->strides[0]);
  ergo_box_of(&box, x, 0, t.masked ? 3 : 2, each);
  for (unsigned i = 0; i < box.operands; i++)
    places[i] = ergo_at(ctx, each[i]), t.step[i] = box.strides[i][box.rank - 1];
  box.rank--; /* rows are the walk's innermost axis: their number is needed */
  ergo_box_walk(&box, places, rows, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_exp_rows = {0x1D,
                                  1,
                                  "EXP_ROWS",
                                  "TTOT f i",
                                  {{ERGO_IS_I16, 0, "*", ERGO_NO_OPERAND, 0},
                                   {ERGO_IS_I32, 0, "Z", ERGO_NO_OPERAND, 0},
                                   {ERGO_IS_U8, 1, "*", ERGO_NO_OPERAND, 0},
                                   {ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0}},
                                  0,
                                  0,
                                  check,
                                  NULL,
                                  run};
