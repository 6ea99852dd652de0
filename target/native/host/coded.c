#include "coded.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "fast_internal.h"
#include "pool.h"

enum { X, OUT = 5 };
#define DROPPED 9 /* numbers of low bits that a tile may lose, 0 too */

static void make_plain(ergo_operand *t) {
  if (t->codec == ERGO_RAW) return;
  int32_t step = 1;
  for (unsigned axis = 4; axis-- > 0; step *= (int32_t)t->shape[axis]) t->strides[axis] = step;
  t->codec = ERGO_RAW, t->addr = 0;
}

ergo_ins ergo_plain_of(const ergo_ins *ins) {
  ergo_ins plain = *ins;
  make_plain(&plain.t[X]), make_plain(&plain.t[OUT]);
  return plain;
}

/* Rows between slots and a dense array. */
typedef struct job {
  const ergo_slot_codec *codec;
  uint8_t *slots;
  int8_t *dense;
  uint32_t slot_bytes, width, channels;
  int zero_point, write;
  int64_t *dropped; /* [rows][DROPPED] */
  atomic_int status;
} job;

static void row(void *user, int index) {
  job *j = user;
  uint8_t *slot = j->slots + (size_t)index * j->slot_bytes;
  int8_t *values = j->dense + (size_t)index * j->width * j->channels;
  void *scratch = ergo_thread_scratch(ergo_slot_scratch(j->codec, 1, j->width, j->channels) + 64);
  ergo_status status = ERGO_WORKSPACE_TOO_SMALL;
  if (scratch && j->write)
    status = ergo_slot_write(j->codec, slot, j->slot_bytes, j->zero_point, 1, j->width, j->channels, scratch, values,
                             j->dropped + (size_t)index * DROPPED);
  else if (scratch)
    status = ergo_slot_read(j->codec, slot, j->slot_bytes, j->zero_point, 1, j->width, j->channels, scratch, values);
  if (status) atomic_store(&j->status, (int)status);
}

static ergo_status all_rows(ergo_ctx *ctx, const ergo_ins *ins, unsigned operand, int8_t *dense, int threads) {
  const ergo_operand *t = &ins->t[operand];
  uint32_t rows = t->shape[1];
  job j = {.codec = ergo_slot_codec_of(t->codec), .slots = ergo_at(ctx, t), .dense = dense};
  j.slot_bytes = (uint32_t)t->strides[1], j.width = t->shape[2], j.channels = t->shape[3];
  j.zero_point = (int)ins->v[ins->op->spec[operand].zero_point], j.write = operand == OUT;
  if (j.write && ins->table) j.zero_point = ins->table_zp;
  if (j.write && !(j.dropped = calloc(rows, DROPPED * sizeof *j.dropped))) return ERGO_WORKSPACE_TOO_SMALL;
  ergo_pool_run(threads, (int)rows, row, &j);
  for (size_t i = 0; j.dropped && ctx->dropped && i < (size_t)rows * DROPPED; i++)
    ctx->dropped[i % DROPPED] += j.dropped[i];
  free(j.dropped);
  return (ergo_status)atomic_load(&j.status);
}

static int8_t *dense_for(const ergo_operand *t) { return malloc((size_t)ergo_elements(t) + 64); }

ergo_status ergo_coded_run(const ergo_fast *fast, ergo_ctx *ctx, const ergo_ins *ins, const ergo_ins *plain,
                           int threads) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  int8_t *from = x->codec ? dense_for(x) : NULL, *to = out->codec ? dense_for(out) : NULL;
  ergo_status status = (x->codec && !from) || (out->codec && !to) ? ERGO_WORKSPACE_TOO_SMALL : ERGO_OK;
  uint8_t *place = to ? (uint8_t *)to : ergo_at(ctx, out);
  if (!status && from) status = all_rows(ctx, ins, X, from, threads);
  if (!status)
    status = ergo_fast_run(fast, plain, from ? (const uint8_t *)from : ergo_at(ctx, x), place, threads);
  if (!status && ins->table) ergo_look_up(ctx, ins, &plain->t[OUT], place);
  if (!status && to) status = all_rows(ctx, ins, OUT, to, threads);
  free(from), free(to);
  return status;
}
