/* WEIGHTED_MEAN: means of the rows of b with the weights in a's rows. target/isa/rows.py */
#include "elements.h"
#include "matrices.h"

enum { A, B, OUT };
enum { B_ZP, MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *a = &ins->t[A], *b = &ins->t[B], *out = &ins->t[OUT];
  if (ins->v[LO] > ins->v[HI] || a->rank < 2 || a->shape[a->rank - 1] >= 1u << 15) return ERGO_PRECONDITION;
  return ergo_matrices_fit(a, b, out, 0) ? ERGO_OK : ERGO_PRECONDITION;
}

/* sums[n] += weight * (b[n] - zp): below 2**31 after 2**15 rows. */
ERGO_WIDE static void add_row(int32_t *sums, int32_t weight, const uint8_t *b, int64_t step, int32_t zp,
                              uint32_t count) {
  if (step == 1)
    for (uint32_t n = 0; n < count; n++) sums[n] += weight * ((int8_t)b[n] - zp);
  else
    for (uint32_t n = 0; n < count; n++) sums[n] += weight * ((int8_t)b[n * step] - zp);
}

typedef struct task {
  const ergo_ins *ins;
  ergo_finish finish;
} task;

static void product(const void *user, const uint8_t *a, const uint8_t *b, uint8_t *out) {
  const task *t = user;
  const ergo_operand *ta = &t->ins->t[A], *tb = &t->ins->t[B], *to = &t->ins->t[OUT];
  int64_t am = ta->strides[ta->rank - 2], ak = ta->strides[ta->rank - 1], bk = tb->strides[tb->rank - 2],
          bn = tb->strides[tb->rank - 1], om = to->strides[to->rank - 2], on = to->strides[to->rank - 1];
  uint32_t depth = ta->shape[ta->rank - 1], columns = to->shape[to->rank - 1];
  for (uint32_t m = 0; m < to->shape[to->rank - 2]; m++, a += am, out += om) {
    int64_t weight = 0;
    for (uint32_t k = 0; k < depth; k++) weight += a[k * ak];
    int64_t factor = ((int64_t)1 << 30) / (weight < 1 ? 1 : weight), half = (int64_t)1 << 21;
    for (uint32_t n = 0, count; n < columns; n += count) {
      int32_t sums[ERGO_RUN] = {0};
      int64_t values[ERGO_RUN];
      count = columns - n < ERGO_RUN ? columns - n : ERGO_RUN;
      for (uint32_t k = 0; k < depth; k++)
        if (a[k * ak]) add_row(sums, a[k * ak], b + k * bk + n * bn, bn, (int32_t)t->ins->v[B_ZP], count);
      for (uint32_t i = 0; i < count; i++) values[i] = ergo_floor_shift(sums[i] * factor + half, 22);
      ergo_write_run(&t->finish, values, count, out + n * on, on);
    }
  }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  task t = {ins, ergo_finish_of(ins, out, ins->v[MULT], SHIFT)};
  ergo_matrices_walk(&ins->t[A], &ins->t[B], out, ergo_at(ctx, &ins->t[A]), ergo_at(ctx, &ins->t[B]),
                     ergo_at(ctx, out), product, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_weighted_mean = {0x05,
                                       0,
                                       "WEIGHTED_MEAN",
                                       "TTT z mh zzz",
                                       {{ERGO_IS_U8, 0, "*", ERGO_NO_OPERAND, 0},
                                        {ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0},
                                        {ERGO_IS_I8 | ERGO_IS_I16, 1, "*", ERGO_NO_OPERAND, 0}},
                                       0,
                                       0,
                                       check,
                                       NULL,
                                       run};
