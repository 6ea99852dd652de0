/* TAKE_ROWS and PUT_ROWS: rows of axis -2 of a larger tensor, at a position in the memory. SHIFT_ROWS: rows in at the
   end of an axis. target/isa/positions.py */
#include "box.h"

enum { SRC, POSITION, OUT };

static ergo_status check(const ergo_ins *ins, unsigned large, unsigned small) {
  const ergo_operand *whole = &ins->t[large], *part = &ins->t[small];
  if (whole->rank < 2 || whole->rank != part->rank || whole->dtype != part->dtype) return ERGO_PRECONDITION;
  for (unsigned i = 0; i < whole->rank; i++) {
    int rows = i + 2 == whole->rank;
    if (rows ? part->shape[i] > whole->shape[i] : part->shape[i] != whole->shape[i]) return ERGO_PRECONDITION;
  }
  return ERGO_OK;
}

static ergo_status take_check(const ergo_ins *ins) { return check(ins, SRC, OUT); }
static ergo_status put_check(const ergo_ins *ins) { return check(ins, OUT, SRC); }

static void inner(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const size_t size = *(const size_t *)user;
  const int64_t from = box->strides[0][box->rank - 1], to = box->strides[1][box->rank - 1];
  if (from == (int64_t)size && to == from)
    memcpy(p[1], p[0], size * count);
  else
    for (uint32_t i = 0; i < count; i++) memcpy(p[1] + i * to, p[0] + i * from, size);
}

static ergo_status move(ergo_ctx *ctx, const ergo_ins *ins, unsigned large) {
  ergo_operand t[2] = {ins->t[SRC], ins->t[OUT]};
  unsigned which = large == OUT, axis = t[0].rank - 2u;
  const ergo_operand *each[2] = {&t[0], &t[1]};
  uint8_t *places[2] = {ergo_at(ctx, &ins->t[SRC]), ergo_at(ctx, &ins->t[OUT])};
  int64_t position = ergo_i32(ergo_at(ctx, &ins->t[POSITION])), rows = t[!which].shape[axis],
          last = (int64_t)t[which].shape[axis] - rows;
  position = position < 0 ? 0 : position > last ? last : position;
  places[which] += position * t[which].strides[axis];
  t[which].shape[axis] = (uint32_t)rows;
  size_t size = ergo_itemsize(t[0].dtype);
  ergo_box box;
  ergo_box_of(&box, each[1], 0, 2, each);
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, inner, &size);
  return ERGO_OK;
}

static ergo_status take_run(ergo_ctx *ctx, const ergo_ins *ins) { return move(ctx, ins, SRC); }
static ergo_status put_run(ergo_ctx *ctx, const ergo_ins *ins) { return move(ctx, ins, OUT); }

#define SPEC                                                                               \
  {{ERGO_IS_ANY, 0, "*", ERGO_NO_OPERAND, 0},                                              \
   {ERGO_IS_I32, 0, "1", ERGO_NO_OPERAND, 0},                                              \
   {ERGO_IS_ANY, 1, "*", ERGO_NO_OPERAND, 0}}
const ergo_op ergo_op_take_rows = {0x25, 2, "TAKE_ROWS", "TTT", SPEC, 0, 0, take_check, NULL, take_run};
const ergo_op ergo_op_put_rows = {0x26, 2, "PUT_ROWS", "TTT", SPEC, 0, 0, put_check, NULL, put_run};

enum { NEW, ROWS };

static ergo_status shift_check(const ergo_ins *ins) {
  const ergo_operand *fresh = &ins->t[NEW], *rows = &ins->t[ROWS];
  const int64_t axis = ins->v[0];
  if (fresh->rank != rows->rank || fresh->dtype != rows->dtype || axis >= (int64_t)rows->rank) return ERGO_PRECONDITION;
  for (unsigned i = 0; i < rows->rank; i++)
    if ((int64_t)i == axis ? fresh->shape[i] > rows->shape[i] : fresh->shape[i] != rows->shape[i])
      return ERGO_PRECONDITION;
  return ERGO_OK;
}

/* one row after the other: none is written before it was read */
static ergo_status shift_run(ergo_ctx *ctx, const ergo_ins *ins) {
  const unsigned axis = (unsigned)ins->v[0];
  ergo_operand from = ins->t[NEW], to = ins->t[ROWS];
  const uint32_t rows = to.shape[axis], fresh = from.shape[axis];
  uint8_t *const whole = ergo_at(ctx, &ins->t[ROWS]), *const added = ergo_at(ctx, &ins->t[NEW]);
  size_t size = ergo_itemsize(to.dtype);
  from.shape[axis] = to.shape[axis] = 1;
  const ergo_operand *inside[2] = {&to, &to}, *outside[2] = {&from, &to};
  for (uint32_t row = 0; row < rows; row++) {
    const int64_t next = (int64_t)row + fresh;
    const int moved = next < (int64_t)rows;
    uint8_t *places[2] = {moved ? whole + next * to.strides[axis] : added + (next - (int64_t)rows) * from.strides[axis],
                          whole + (int64_t)row * to.strides[axis]};
    ergo_box box;
    ergo_box_of(&box, &to, 0, 2, moved ? inside : outside);
    ergo_box_merge(&box);
    ergo_box_walk(&box, places, inner, &size);
  }
  return ERGO_OK;
}

const ergo_op ergo_op_shift_rows = {0x27,
                                    2,
                                    "SHIFT_ROWS",
                                    "TT e",
                                    {{ERGO_IS_ANY, 0, "*", ERGO_NO_OPERAND, 0}, {ERGO_IS_ANY, 1, "*", ERGO_NO_OPERAND, 0}},
                                    0,
                                    0,
                                    shift_check,
                                    NULL,
                                    shift_run};
