/* GATHER: rows of a table by number, each with a scale of its own. target/isa/rows.py */
#include "elements.h"

enum { TABLE, SCALE, IDS, OUT };

static ergo_status check(const ergo_ins *ins) {
  const ergo_operand *ids = &ins->t[IDS], *out = &ins->t[OUT];
  if (out->rank != ids->rank + 1 || out->shape[ids->rank] != ins->t[TABLE].shape[1]) return ERGO_PRECONDITION;
  for (unsigned i = 0; i < ids->rank; i++)
    if (ids->shape[i] != out->shape[i]) return ERGO_PRECONDITION;
  return ERGO_OK;
}

typedef struct task {
  const ergo_ins *ins;
  const uint8_t *table, *scale;
  ergo_finish finish;
} task;

static void row(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const task *t = user;
  const ergo_operand *table = &t->ins->t[TABLE];
  int64_t rows = table->shape[0], id = ergo_i32(p[0]), so = box->strides[1][box->rank - 1], values[ERGO_RUN];
  int32_t x[ERGO_RUN];
  ergo_finish finish = t->finish;
  if (id < 0) id += rows;
  id = id < 0 ? 0 : id >= rows ? rows - 1 : id;
  const uint8_t *from = t->table + id * table->strides[0];
  finish.mult = ergo_i32(t->scale + id * t->ins->t[SCALE].strides[0]);
  for (uint32_t at = 0, n; at < count; at += n) {
    n = count - at < ERGO_RUN ? count - at : ERGO_RUN;
    ergo_read_run(from + (int64_t)at * table->strides[1], ERGO_I8, table->strides[1], n, x);
    for (uint32_t i = 0; i < n; i++) values[i] = x[i];
    ergo_write_run(&finish, values, n, p[1] + at * so, so);
  }
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *out = &ins->t[OUT];
  ergo_operand ids = ins->t[IDS];
  const ergo_operand *each[2] = {&ids, out};
  ids.shape[ids.rank] = 1, ids.strides[ids.rank] = 0, ids.rank++; /* a number for a whole row */
  uint8_t *places[2] = {ergo_at(ctx, &ins->t[IDS]), ergo_at(ctx, out)};
  task t = {ins, ergo_at(ctx, &ins->t[TABLE]), ergo_at(ctx, &ins->t[SCALE]),
            {1, 0, INT16_MIN, INT16_MAX, (int)ins->v[0], ERGO_I16}};
  ergo_box box;
  ergo_box_of(&box, out, 0, 2, each);
  ergo_box_walk(&box, places, row, &t);
  return ERGO_OK;
}

const ergo_op ergo_op_gather = {0x1F,
                                1,
                                "GATHER",
                                "TTTT h",
                                {{ERGO_IS_I8, 0, "VC", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I32, 0, "V", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I32, 0, "*", ERGO_NO_OPERAND, 0},
                                 {ERGO_IS_I16, 1, "*", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                check,
                                NULL,
                                run};
