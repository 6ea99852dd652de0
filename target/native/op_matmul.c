/* MATMUL: product of two activations over broadcasting batch axes, one requantization for all elements. */
#include "matrices.h"
#include "window.h"

enum { A, B, OUT };
enum { TRANSPOSE, A_ZP, B_ZP, MULT, SHIFT, OUT_ZP, LO, HI };

static ergo_status check(const ergo_ins *ins) {
  if (ins->v[LO] > ins->v[HI]) return ERGO_PRECONDITION;
  return ergo_matrices_fit(&ins->t[A], &ins->t[B], &ins->t[OUT], (int)ins->v[TRANSPOSE]) ? ERGO_OK : ERGO_PRECONDITION;
}

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *b = &ins->t[B];
  return b->codec == ERGO_RAW ? 0 : ergo_weights_bytes(b) + ERGO_ROUND(ergo_elements(b));
}

typedef struct task {
  const ergo_ins *ins;
  const ergo_operand *dense_b;
} task;

static void product(const void *user, const uint8_t *left, const uint8_t *right, uint8_t *out) {
  const ergo_ins *ins = ((const task *)user)->ins;
  const ergo_operand *dense_b = ((const task *)user)->dense_b;
  const int8_t *a = (const int8_t *)left, *b = (const int8_t *)right;
  const ergo_operand *ta = &ins->t[A], *to = &ins->t[OUT];
  int64_t am = ta->strides[ta->rank - 2], ak = ta->strides[ta->rank - 1], om = to->strides[to->rank - 2],
          on = to->strides[to->rank - 1];
  int64_t bk = dense_b->strides[dense_b->rank - (ins->v[TRANSPOSE] ? 1 : 2)],
          bn = dense_b->strides[dense_b->rank - (ins->v[TRANSPOSE] ? 2 : 1)];
  for (int64_t m = 0; m < (int64_t)to->shape[to->rank - 2]; m++)
    for (int64_t n = 0; n < (int64_t)to->shape[to->rank - 1]; n++) {
      int64_t acc = ergo_dot(a + m * am, ak, b + n * bn, bk, ta->shape[ta->rank - 1], (int32_t)ins->v[A_ZP],
                             (int32_t)ins->v[B_ZP]);
      uint8_t *place = out + m * om + n * on;
      if (to->dtype == ERGO_I32)
        ergo_put_i32(place, (int32_t)(uint32_t)(uint64_t)acc);
      else if (to->dtype == ERGO_I16)
        ergo_put_i16(place, ergo_scale(acc, ins->v[MULT], (int)ins->v[SHIFT]));
      else
        *(int8_t *)place =
            ergo_requantize(acc, ins->v[MULT], (int)ins->v[SHIFT], ins->v[OUT_ZP], ins->v[LO], ins->v[HI]);
    }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  ergo_operand b = ins->t[B];
  const uint8_t *right;
  if (b.codec != ERGO_RAW) {
    int8_t *values = NULL;
    ergo_status status = ergo_weights_all(ctx, &b, &values);
    if (status) return status;
    right = (const uint8_t *)values;
    for (unsigned i = b.rank, step = 1; i-- > 0; step *= b.shape[i]) b.strides[i] = (int32_t)step;
  } else {
    right = ergo_at(ctx, &b);
  }
  task t = {ins, &b};
  ergo_matrices_walk(&ins->t[A], &b, out, ergo_at(ctx, &ins->t[A]), right, ergo_at(ctx, out), product, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_matmul = {0x04,
                                0,
                                "MATMUL",
                                "TTT f zz mh zzz",
                                {{ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 1},
                                 {ERGO_IS_I8 | ERGO_IS_I16 | ERGO_IS_I32, 1, "*", ERGO_NO_OPERAND, 0}},
                                0,
                                1,
                                check,
                                workspace,
                                run};
