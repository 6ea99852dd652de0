/* REDUCE: sum (requantized), maximum or minimum over axes. */
#include "ergo_internal.h"

enum { X, OUT };
enum { KIND, AXES, KEEP = AXES + 1 + ERGO_MAX_RANK, IN_ZP, MULT, SHIFT, OUT_ZP, LO, HI };
enum { SUM, MAX, MIN };

static int reduced(const ergo_ins *ins, unsigned axis) {
  for (int64_t i = 0; i < ins->v[AXES]; i++)
    if (ins->v[AXES + 1 + i] == (int64_t)axis) return 1;
  return 0;
}

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  if (ins->v[KIND] > MIN) return ERGO_MALFORMED;
  if (ins->v[LO] > ins->v[HI]) return ERGO_PRECONDITION;
  for (int64_t i = 0; i < ins->v[AXES]; i++)
    if (ins->v[AXES + 1 + i] >= x->rank || (i && ins->v[AXES + 1 + i] <= ins->v[AXES + i])) return ERGO_PRECONDITION;
  unsigned at = 0;
  for (unsigned axis = 0; axis < x->rank; axis++) {
    if (reduced(ins, axis) && !ins->v[KEEP]) continue;
    if (at >= out->rank || out->shape[at++] != (reduced(ins, axis) ? 1 : x->shape[axis])) return ERGO_PRECONDITION;
  }
  if (!at) return out->rank == 1 && out->shape[0] == 1 ? ERGO_OK : ERGO_PRECONDITION;
  return at == out->rank ? ERGO_OK : ERGO_PRECONDITION;
}

/* Axes of x by what becomes of them. */
typedef struct split {
  unsigned kept, gone;
  uint32_t kept_shape[ERGO_MAX_RANK], gone_shape[ERGO_MAX_RANK];
  int64_t kept_in[ERGO_MAX_RANK], kept_out[ERGO_MAX_RANK], gone_in[ERGO_MAX_RANK];
} split;

static void take_apart(const ergo_ins *ins, split *s) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  unsigned at = 0;
  memset(s, 0, sizeof *s);
  for (unsigned axis = 0; axis < x->rank; axis++) {
    if (reduced(ins, axis)) {
      s->gone_shape[s->gone] = x->shape[axis], s->gone_in[s->gone++] = x->strides[axis];
      at += ins->v[KEEP] != 0;
    } else {
      s->kept_shape[s->kept] = x->shape[axis], s->kept_in[s->kept] = x->strides[axis],
      s->kept_out[s->kept++] = out->strides[at++];
    }
  }
}

/* Over the reduced axes, from x on. */
static int64_t over(const split *s, const int8_t *x, int64_t kind) {
  uint32_t index[ERGO_MAX_RANK] = {0};
  int64_t total = kind == SUM ? 0 : *x;
  for (;;) {
    int64_t value = *x;
    total = kind == SUM   ? total + value
            : kind == MAX ? (value > total ? value : total)
                          : (value < total ? value : total);
    unsigned axis = s->gone;
    while (axis-- > 0) {
      x += s->gone_in[axis];
      if (++index[axis] < s->gone_shape[axis]) break;
      x -= s->gone_in[axis] * (int64_t)s->gone_shape[axis], index[axis] = 0;
    }
    if (axis == (unsigned)-1) return total;
  }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const int8_t *x = (const int8_t *)ergo_at(ctx, &ins->t[X]);
  int8_t *out = (int8_t *)ergo_at(ctx, &ins->t[OUT]);
  split s;
  take_apart(ins, &s);
  int64_t count = 1;
  for (unsigned i = 0; i < s.gone; i++) count *= s.gone_shape[i];
  uint32_t index[ERGO_MAX_RANK] = {0};
  for (;;) {
    int64_t value = over(&s, x, ins->v[KIND]);
    if (ins->v[KIND] == SUM)
      value = ergo_requantize(value - ins->v[IN_ZP] * count, ins->v[MULT], (int)ins->v[SHIFT], ins->v[OUT_ZP],
                              ins->v[LO], ins->v[HI]);
    *out = (int8_t)value;
    unsigned axis = s.kept;
    while (axis-- > 0) {
      x += s.kept_in[axis], out += s.kept_out[axis];
      if (++index[axis] < s.kept_shape[axis]) break;
      x -= s.kept_in[axis] * (int64_t)s.kept_shape[axis], out -= s.kept_out[axis] * (int64_t)s.kept_shape[axis],
          index[axis] = 0;
    }
    if (axis == (unsigned)-1) return ERGO_OK;
  }
}

const ergo_op ergo_op_reduce = {0x15,
                                1,
                                "REDUCE",
                                "TT k A f z mh zzz",
                                {{ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0}, {ERGO_IS_I8, 1, "*", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                check,
                                NULL,
                                run};
