/* Rows of an operand [N, H, W, C]: where they lie, or, of one in slots, expanded into the workspace and kept as long as
 * a window needs them. */
#include "ergo_internal.h"

#define NO_ROW UINT32_MAX

const ergo_slot_codec *ergo_slot_codec_of(uint8_t codec) {
  for (const ergo_slot_codec *const *c = ergo_slot_codecs; *c; c++)
    if ((*c)->codec == codec) return *c;
  return NULL;
}

static uint64_t kept_rows(const ergo_operand *t, uint64_t kept) { return kept < t->shape[1] ? kept : t->shape[1]; }

size_t ergo_rows_bytes(const ergo_operand *t, uint64_t kept) {
  if (t->codec == ERGO_RAW) return 0;
  size_t row = (size_t)t->shape[2] * t->shape[3];
  kept = kept_rows(t, kept);
  return ERGO_ROUND(kept * sizeof(uint32_t)) + ERGO_ROUND(kept * row) +
         ERGO_ROUND(ergo_slot_scratch(ergo_slot_codec_of(t->codec), 1, t->shape[2], t->shape[3]));
}

ergo_status ergo_rows_open(ergo_ctx *ctx, const ergo_ins *ins, unsigned operand, uint64_t kept, ergo_rows *rows) {
  const ergo_operand *t = &ins->t[operand];
  memset(rows, 0, sizeof *rows);
  rows->ctx = ctx, rows->height = t->shape[1], rows->width = t->shape[2], rows->channels = t->shape[3];
  if (t->codec == ERGO_RAW) {
    rows->plain = ergo_at(ctx, t);
    rows->sn = t->strides[0], rows->sh = t->strides[1], rows->sw = t->strides[2], rows->sc = t->strides[3];
    return ERGO_OK;
  }
  rows->codec = ergo_slot_codec_of(t->codec);
  rows->slots = ergo_at(ctx, t);
  rows->slot_bytes = (uint32_t)t->strides[1];
  rows->zero_point = (int)ins->v[ins->op->spec[operand].zero_point];
  if (ins->table && ins->op->spec[operand].out) rows->zero_point = ins->table_zp, rows->looked_up = ins;
  rows->sw = rows->channels, rows->sc = 1;
  rows->kept = (uint32_t)kept_rows(t, kept);
  rows->holds = ergo_take(ctx, rows->kept * sizeof(uint32_t));
  rows->buffer = ergo_take(ctx, (size_t)rows->kept * rows->width * rows->channels);
  rows->state = ergo_take(ctx, ergo_slot_scratch(rows->codec, 1, rows->width, rows->channels));
  if (!rows->holds || !rows->buffer || !rows->state) return ctx->status;
  for (uint32_t i = 0; i < rows->kept; i++) rows->holds[i] = NO_ROW;
  return ERGO_OK;
}

const int8_t *ergo_row(ergo_rows *r, uint32_t n, uint32_t h) {
  if (!r->codec) return (const int8_t *)r->plain + (int64_t)n * r->sn + (int64_t)h * r->sh;
  uint32_t place = h % r->kept;
  int8_t *row = (int8_t *)r->buffer + (size_t)place * r->width * r->channels;
  if (r->holds[place] == h) return row;
  r->holds[place] = NO_ROW;
  r->ctx->status = ergo_slot_read(r->codec, r->slots + (size_t)h * r->slot_bytes, r->slot_bytes, r->zero_point, 1,
                                  r->width, r->channels, r->state, row);
  if (r->ctx->status) return NULL;
  r->holds[place] = h;
  return row;
}

uint8_t *ergo_row_out(ergo_rows *r, uint32_t n, uint32_t h) {
  return r->codec ? r->buffer : r->plain + (int64_t)n * r->sn + (int64_t)h * r->sh;
}

ergo_status ergo_row_done(ergo_rows *r, uint32_t h) {
  if (!r->codec) return ERGO_OK;
  if (r->looked_up) {
    ergo_operand row = {0, {r->width, r->channels}, {(int32_t)r->channels, 1}, ERGO_I8, ERGO_RAW, 2};
    ergo_look_up(r->ctx, r->looked_up, &row, r->buffer);
  }
  return ergo_slot_write(r->codec, r->slots + (size_t)h * r->slot_bytes, r->slot_bytes, r->zero_point, 1, r->width,
                         r->channels, r->state, (const int8_t *)r->buffer, r->ctx->dropped);
}
