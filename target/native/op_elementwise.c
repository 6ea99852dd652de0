/* ADD, MUL, MAXMIN: two operands that broadcast to the output's shape, element by element; ADD and MUL also with rows
 * in slots. */
#include "box.h"

enum { A, B, OUT };

static int broadcasts(const ergo_operand *t, const ergo_operand *out) {
  if (t->rank > out->rank) return 0;
  for (unsigned i = 0; i < t->rank; i++)
    if (t->shape[i] != 1 && t->shape[i] != out->shape[out->rank - t->rank + i]) return 0;
  return 1;
}

static ergo_status check_shapes(const ergo_ins *ins) {
  return broadcasts(&ins->t[A], &ins->t[OUT]) && broadcasts(&ins->t[B], &ins->t[OUT]) ? ERGO_OK : ERGO_PRECONDITION;
}

typedef struct add_scale {
  int64_t a_mult, b_mult, constant;
  int32_t shift, zp, lo, hi;
} add_scale;

/* All of it fits 32 bits: shifts to 30. */
ERGO_WIDE static void add_narrow(const add_scale *s, const int8_t *a, int64_t sa, const int8_t *b, int64_t sb,
                                 int8_t *out, int64_t so, uint32_t count) {
  int32_t am = (int32_t)s->a_mult, bm = (int32_t)s->b_mult, constant = (int32_t)s->constant, lo = s->lo, hi = s->hi,
          zp = s->zp;
  int shift = s->shift;
  if (sa == 1 && sb == 1 && so == 1)
    for (uint32_t i = 0; i < count; i++) {
      int32_t y = ((a[i] * am + b[i] * bm + constant) >> shift) + zp;
      y = y < lo ? lo : y, out[i] = (int8_t)(y > hi ? hi : y);
    }
  else
    for (uint32_t i = 0; i < count; i++) {
      int32_t y = ((a[i * sa] * am + b[i * sb] * bm + constant) >> shift) + zp;
      y = y < lo ? lo : y, out[i * so] = (int8_t)(y > hi ? hi : y);
    }
}

static void add(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const add_scale *s = user;
  const int8_t *a = (const int8_t *)p[A], *b = (const int8_t *)p[B];
  int8_t *out = (int8_t *)p[OUT];
  unsigned last = box->rank - 1;
  int64_t sa = box->strides[A][last], sb = box->strides[B][last], so = box->strides[OUT][last];
  if (s->shift <= 30) {
    add_narrow(s, a, sa, b, sb, out, so, count);
    return;
  }
  for (uint32_t i = 0; i < count; i++)
    out[i * so] = ergo_clip(
        ergo_floor_shift(a[i * sa] * s->a_mult + b[i * sb] * s->b_mult + s->constant, s->shift) + s->zp, s->lo, s->hi);
}

typedef struct mul_scale {
  int32_t a_zp, b_zp, zp, lo, hi;
  int shift;
  int64_t mult;
} mul_scale;

ERGO_WIDE static void mul(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const mul_scale s = *(const mul_scale *)user;
  const int8_t *a = (const int8_t *)p[A], *b = (const int8_t *)p[B];
  int8_t *out = (int8_t *)p[OUT];
  unsigned last = box->rank - 1;
  int64_t sa = box->strides[A][last], sb = box->strides[B][last], so = box->strides[OUT][last],
          half = s.shift ? (int64_t)1 << (s.shift - 1) : 0;
  for (uint32_t i = 0; i < count; i++) {
    int64_t y = (((int64_t)((a[i * sa] - s.a_zp) * (b[i * sb] - s.b_zp)) * s.mult + half) >> s.shift) + s.zp;
    y = y < s.lo ? s.lo : y, out[i * so] = (int8_t)(y > s.hi ? s.hi : y);
  }
}

ERGO_WIDE static void maxmin(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  int least = *(const int64_t *)user != 0;
  const int8_t *a = (const int8_t *)p[A], *b = (const int8_t *)p[B];
  int8_t *out = (int8_t *)p[OUT];
  unsigned last = box->rank - 1;
  int64_t sa = box->strides[A][last], sb = box->strides[B][last], so = box->strides[OUT][last];
  for (uint32_t i = 0; i < count; i++) {
    int8_t x = a[i * sa], y = b[i * sb];
    out[i * so] = least == (x < y) ? x : y;
  }
}

typedef void (*inner)(const void *, const ergo_box *, uint8_t *const *, uint32_t);

static ergo_status plain(ergo_ctx *ctx, const ergo_ins *ins, inner loop, const void *user) {
  const ergo_operand *t[3] = {&ins->t[A], &ins->t[B], &ins->t[OUT]};
  uint8_t *places[3];
  ergo_box box;
  for (unsigned i = 0; i < 3; i++) places[i] = ergo_at(ctx, t[i]);
  ergo_box_of(&box, t[OUT], 0, 3, t);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, loop, user);
  return ERGO_OK;
}

static int in_slots(const ergo_ins *ins) { return ins->t[A].codec || ins->t[B].codec || ins->t[OUT].codec; }

/* Row by row: each operand's row is expanded, or found where it lies. */
static ergo_status rowwise(ergo_ctx *ctx, const ergo_ins *ins, inner loop, const void *user) {
  const ergo_operand *out = &ins->t[OUT];
  ergo_operand t[3];
  const ergo_operand *each[3] = {&t[0], &t[1], &t[2]};
  ergo_rows rows[3];
  ergo_box box;
  ergo_status status = ERGO_OK;
  for (unsigned i = 0; i < 3 && !status; i++) {
    t[i] = ins->t[i];
    for (; t[i].rank < out->rank; t[i].rank++) { /* as many axes as the output */
      memmove(t[i].shape + 1, t[i].shape, (ERGO_MAX_RANK - 1) * sizeof *t[i].shape),
          memmove(t[i].strides + 1, t[i].strides, (ERGO_MAX_RANK - 1) * sizeof *t[i].strides);
      t[i].shape[0] = 1, t[i].strides[0] = 0;
    }
    status = ergo_rows_open(ctx, ins, i, 1, &rows[i]);
    if (!t[i].codec) rows[i].sn = t[i].strides[0], rows[i].sh = t[i].strides[1];
    if (t[i].codec) t[i].strides[2] = (int32_t)rows[i].sw, t[i].strides[3] = (int32_t)rows[i].sc;
  }
  if (status) return status;
  ergo_box_of(&box, &t[OUT], 2, 3, each);
  ergo_box_merge(&box);
  for (uint32_t n = 0; n < out->shape[0]; n++)
    for (uint32_t h = 0; h < out->shape[1] && !status; h++) {
      uint8_t *places[3] = {NULL, NULL, ergo_row_out(&rows[OUT], n, h)};
      for (unsigned i = 0; i < 2; i++) {
        const int8_t *row = ergo_row(&rows[i], t[i].shape[0] == 1 ? 0 : n, t[i].shape[1] == 1 ? 0 : h);
        if (!row) return ctx->status;
        places[i] = (uint8_t *)(uintptr_t)row;
      }
      ergo_box_walk(&box, places, loop, user);
      status = ergo_row_done(&rows[OUT], h);
    }
  return status;
}

static size_t workspace(const ergo_ins *ins) {
  return ergo_rows_bytes(&ins->t[A], 1) + ergo_rows_bytes(&ins->t[B], 1) + ergo_rows_bytes(&ins->t[OUT], 1);
}

enum { ADD_A_ZP, ADD_B_ZP, A_MULT, B_MULT, ADD_SHIFT, ADD_OUT_ZP, ADD_LO, ADD_HI };

static ergo_status add_check(const ergo_ins *ins) {
  if ((in_slots(ins) && ins->t[OUT].rank != 4) || ins->v[ADD_LO] > ins->v[ADD_HI]) return ERGO_PRECONDITION;
  return check_shapes(ins);
}

static ergo_status add_run(ergo_ctx *ctx, const ergo_ins *ins) {
  const int64_t *v = ins->v;
  int64_t half = v[ADD_SHIFT] ? (int64_t)1 << (v[ADD_SHIFT] - 1) : 0;
  add_scale s = {v[A_MULT],
                 v[B_MULT],
                 half - v[ADD_A_ZP] * v[A_MULT] - v[ADD_B_ZP] * v[B_MULT],
                 (int32_t)v[ADD_SHIFT],
                 (int32_t)v[ADD_OUT_ZP],
                 (int32_t)v[ADD_LO],
                 (int32_t)v[ADD_HI]};
  return (in_slots(ins) ? rowwise : plain)(ctx, ins, add, &s);
}

enum { MUL_A_ZP, MUL_B_ZP, MULT, MUL_SHIFT, MUL_OUT_ZP, MUL_LO, MUL_HI };

static ergo_status mul_check(const ergo_ins *ins) {
  if ((in_slots(ins) && ins->t[OUT].rank != 4) || ins->v[MUL_LO] > ins->v[MUL_HI]) return ERGO_PRECONDITION;
  return check_shapes(ins);
}

static ergo_status mul_run(ergo_ctx *ctx, const ergo_ins *ins) {
  const int64_t *v = ins->v;
  mul_scale s = {(int32_t)v[MUL_A_ZP],
                 (int32_t)v[MUL_B_ZP],
                 (int32_t)v[MUL_OUT_ZP],
                 (int32_t)v[MUL_LO],
                 (int32_t)v[MUL_HI],
                 (int)v[MUL_SHIFT],
                 v[MULT]};
  return (in_slots(ins) ? rowwise : plain)(ctx, ins, mul, &s);
}

static ergo_status maxmin_check(const ergo_ins *ins) { return ins->v[0] > 1 ? ERGO_MALFORMED : check_shapes(ins); }

static ergo_status maxmin_run(ergo_ctx *ctx, const ergo_ins *ins) { return plain(ctx, ins, maxmin, &ins->v[0]); }

const ergo_op ergo_op_add = {
    0x10,
    1,
    "ADD",
    "TTT zz MM h zzz",
    {{ERGO_IS_I8, 0, "*", ADD_A_ZP, 0}, {ERGO_IS_I8, 0, "*", ADD_B_ZP, 0}, {ERGO_IS_I8, 1, "*", ADD_OUT_ZP, 0}},
    3,
    1,
    add_check,
    workspace,
    add_run};
const ergo_op ergo_op_mul = {
    0x11,
    1,
    "MUL",
    "TTT zz mh zzz",
    {{ERGO_IS_I8, 0, "*", MUL_A_ZP, 0}, {ERGO_IS_I8, 0, "*", MUL_B_ZP, 0}, {ERGO_IS_I8, 1, "*", MUL_OUT_ZP, 0}},
    3,
    1,
    mul_check,
    workspace,
    mul_run};
const ergo_op ergo_op_maxmin = {0x12,
                                1,
                                "MAXMIN",
                                "TTT k",
                                {{ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I8, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I8, 1, "*", ERGO_NO_OPERAND, 0}},
                                3,
                                0,
                                maxmin_check,
                                NULL,
                                maxmin_run};
