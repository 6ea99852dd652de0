/* ROTATE: rotary position embedding of rows. target/isa/rows.py */
#include "elements.h"

enum { X, COS, SIN, OUT };
enum { INTERLEAVED, MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X];
  if (ins->v[LO] > ins->v[HI] || !ergo_same_shape(x, &ins->t[OUT]) || x->shape[x->rank - 1] % 2)
    return ERGO_PRECONDITION;
  return ergo_broadcasts(&ins->t[COS], x) && ergo_broadcasts(&ins->t[SIN], x) ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct task {
  int interleaved;
  ergo_finish finish;
} task;

ERGO_WIDE static void turned(const int32_t *x, const int32_t *y, const int32_t *cosines, const int32_t *sines,
                             uint32_t count, int64_t *to) {
  for (uint32_t i = 0; i < count; i++) to[i] = (int64_t)x[i] * cosines[i] + (int64_t)y[i] * sines[i];
}

static void row(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  int64_t step[4], values[ERGO_RUN];
  int32_t x[ERGO_RUN], y[ERGO_RUN], cosines[ERGO_RUN], sines[ERGO_RUN];
  uint32_t half = t->interleaved ? count : count / 2; /* partners lie within a part, or in the other one */
  for (unsigned i = 0; i < 4; i++) step[i] = box->strides[i][box->rank - 1];
  for (uint32_t first = 0; first < count; first += half)
    for (uint32_t done = 0, n; done < half; done += n) {
      uint32_t at = first + done;
      n = half - done < ERGO_RUN ? half - done : ERGO_RUN;
      ergo_read_run(p[X] + at * step[X], ERGO_I16, step[X], n, x);
      ergo_read_run(p[COS] + at * step[COS], ERGO_I16, step[COS], n, cosines);
      ergo_read_run(p[SIN] + at * step[SIN], ERGO_I16, step[SIN], n, sines);
      if (t->interleaved)
        for (uint32_t i = 0; i < n; i++) y[i] = x[i ^ 1u];
      else
        ergo_read_run(p[X] + (first ? done : half + done) * step[X], ERGO_I16, step[X], n, y);
      turned(x, y, cosines, sines, n, values);
      ergo_write_run(&t->finish, values, n, p[OUT] + at * step[OUT], step[OUT]);
    }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *each[4];
  uint8_t *places[4];
  task t = {(int)ins->v[INTERLEAVED], ergo_finish_of(ins, &ins->t[OUT], ins->v[MULT], SHIFT)};
  ergo_box box;
  for (unsigned i = 0; i < 4; i++) each[i] = &ins->t[i], places[i] = ergo_at(ctx, each[i]);
  ergo_box_of(&box, each[OUT], 0, 4, each);
  ergo_box_walk(&box, places, row, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_rotate = {0x1E,
                                1,
                                "ROTATE",
                                "TTTT f mh zzz",
                                {{ERGO_IS_I16, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I16, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I16, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I8 | ERGO_IS_I16, 1, "*", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                check,
                                NULL,
                                run};
