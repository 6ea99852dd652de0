/* MATMUL: product of two activations over broadcasting batch axes, one requantization for all elements. */
#include "ergo_internal.h"
#include "window.h"

enum { A, B, OUT };
enum { TRANSPOSE, A_ZP, B_ZP, MULT, SHIFT, OUT_ZP, LO, HI };

/* Length of a batch axis of t, counted from the last one of the output's. */
static uint32_t batch(const ergo_operand *t, unsigned from_end) {
  return from_end + 2 < t->rank ? t->shape[t->rank - 3 - from_end] : 1;
}

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *a = &ins->t[A], *b = &ins->t[B], *out = &ins->t[OUT];
  if (a->rank < 2 || b->rank < 2 || out->rank < 2 || ins->v[LO] > ins->v[HI]) return ERGO_PRECONDITION;
  uint32_t k = b->shape[b->rank - (ins->v[TRANSPOSE] ? 1 : 2)], n = b->shape[b->rank - (ins->v[TRANSPOSE] ? 2 : 1)];
  if (a->shape[a->rank - 1] != k || out->shape[out->rank - 2] != a->shape[a->rank - 2] ||
      out->shape[out->rank - 1] != n)
    return ERGO_PRECONDITION;
  if (a->rank > out->rank || b->rank > out->rank) return ERGO_PRECONDITION;
  for (unsigned i = 0; i + 2 < out->rank; i++) {
    uint32_t one = batch(a, i), other = batch(b, i), most = one > other ? one : other;
    if ((one != 1 && one != most) || (other != 1 && other != most) || batch(out, i) != most) return ERGO_PRECONDITION;
  }
  return ERGO_OK;
}

static size_t workspace(const ergo_ins *ins) {
  const ergo_operand *b = &ins->t[B];
  return b->codec == ERGO_RAW ? 0 : ergo_weights_bytes(b) + ERGO_ROUND(ergo_elements(b));
}

static void one_product(const ergo_ins *ins, const int8_t *a, const int8_t *b, const ergo_operand *dense_b,
                        uint8_t *out) {
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

/* Bytes to the matrix at a batch index. */
static int64_t offset(const ergo_operand *t, unsigned out_rank, const uint32_t *index) {
  int64_t bytes = 0;
  for (unsigned i = 0; i + 2 < t->rank; i++)
    if (t->shape[i] != 1) bytes += (int64_t)t->strides[i] * index[out_rank - t->rank + i];
  return bytes;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  ergo_operand b = ins->t[B];
  const int8_t *left = (const int8_t *)ergo_at(ctx, &ins->t[A]), *right;
  uint8_t *result = ergo_at(ctx, out);
  if (b.codec != ERGO_RAW) {
    int8_t *values = NULL;
    ergo_status status = ergo_weights_all(ctx, &b, &values);
    if (status) return status;
    right = values;
    for (unsigned i = b.rank, step = 1; i-- > 0; step *= b.shape[i]) b.strides[i] = (int32_t)step;
  } else {
    right = (const int8_t *)ergo_at(ctx, &b);
  }
  uint32_t index[ERGO_MAX_RANK] = {0};
  for (;;) {
    one_product(ins, left + offset(&ins->t[A], out->rank, index), right + offset(&b, out->rank, index), &b,
                result + offset(out, out->rank, index));
    unsigned axis = out->rank - 2u;
    while (axis-- > 0) {
      if (++index[axis] < out->shape[axis]) break;
      index[axis] = 0;
    }
    if (axis == (unsigned)-1) return ERGO_OK;
  }
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
