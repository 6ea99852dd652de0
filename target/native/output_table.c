/* The output stage's table: int8 results are looked up on their way out. target/isa/output_table.py */
#include "box.h"

unsigned ergo_out_of(const ergo_ins *ins) {
  unsigned i = 0;
  while (i + 1 < ins->operands && !ins->op->spec[i].out) i++;
  return i;
}

ergo_status ergo_check_table(const ergo_ins *ins) {
  const ergo_operand *table = &ins->t[ins->table], *out = &ins->t[ergo_out_of(ins)];
  if (out->dtype != ERGO_I8 || table->codec || table->rank > 2 || table->shape[table->rank - 1] != 256)
    return ERGO_PRECONDITION;
  return table->rank == 2 && table->shape[0] != out->shape[out->rank - 1] ? ERGO_PRECONDITION : ERGO_OK;
}

typedef struct tables {
  const uint8_t *first;
  int64_t channel, step;
} tables;

static void shared(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const uint8_t *by_byte = user;
  int64_t step = box->strides[0][box->rank - 1];
  if (step == 1)
    for (uint32_t i = 0; i < count; i++) p[0][i] = by_byte[p[0][i]];
  else
    for (uint32_t i = 0; i < count; i++) p[0][i * step] = by_byte[p[0][i * step]];
}

static void per_channel(const void *user, const ergo_box *box, uint8_t *const *p, uint32_t count) {
  const tables *t = user;
  int64_t step = box->strides[0][box->rank - 1];
  for (uint32_t i = 0; i < count; i++) p[0][i * step] = t->first[i * t->channel + (p[0][i * step] ^ 128) * t->step];
}

void ergo_look_up(const ergo_ctx *ctx, const ergo_ins *ins, const ergo_operand *out, uint8_t *place) {
  const ergo_operand *table = &ins->t[ins->table], *t[1] = {out};
  tables all = {ergo_at(ctx, table), table->rank == 2 ? table->strides[0] : 0, table->strides[table->rank - 1]};
  uint8_t by_byte[256], *places[1] = {place};
  ergo_box box;
  ergo_box_of(&box, out, 0, 1, t);
  if (table->rank == 2) { /* the last axis says which table */
    ergo_box_walk(&box, places, per_channel, &all);
    return;
  }
  for (int i = 0; i < 256; i++) by_byte[i] = all.first[(i ^ 128) * all.step];
  ergo_box_merge(&box);
  ergo_box_walk(&box, places, shared, by_byte);
}

ergo_status ergo_execute(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_status status = ins->op->run(ctx, ins);
  const ergo_operand *out = &ins->t[ergo_out_of(ins)];
  if (!status && ins->table && out->codec == ERGO_RAW) ergo_look_up(ctx, ins, out, ergo_at(ctx, out));
  return status;
}
