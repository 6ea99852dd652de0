/* A stream of coded weights, read row after row: target/codecs/weights.py is the definition. */
#include "ergo_internal.h"

#define STREAM_VERSION 1u

static const ergo_weight_codec *codec_of(uint8_t codec) {
  for (const ergo_weight_codec *const *c = ergo_weight_codecs; *c; c++)
    if ((*c)->codec == codec) return *c;
  return NULL;
}

/* Seven bits a byte, the lowest first; at most five bytes. */
uint64_t ergo_varint(ergo_weights *w, int *bad) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 35; shift += 7) {
    if (w->at >= w->size) break;
    uint8_t byte = w->data[w->at++];
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) {
      if (!byte && shift) break;
      return value;
    }
  }
  *bad = 1;
  return 0;
}

static int read_table(ergo_weights *w, unsigned form) {
  uint64_t left = w->size - w->at;
  const uint8_t *p = w->data + w->at;
  w->entries = 0;
  if (form == 2) { /* first and last of consecutive values */
    if (left < 2) return 1;
    for (int v = (int8_t)p[0]; v <= (int8_t)p[1]; v++) w->table[w->entries++] = (int8_t)v;
    w->at += 2;
  } else if (form == 1) { /* a bit a value */
    if (left < 32) return 1;
    for (int i = 0; i < 256; i++)
      if (p[i >> 3] >> (7 - (i & 7)) & 1) w->table[w->entries++] = (int8_t)(i - 128);
    w->at += 32;
  } else if (form == 0) {
    if (!left || left < 2u + p[0]) return 1;
    w->entries = p[0] + 1u;
    memcpy(w->table, p + 1, w->entries);
    w->at += 1 + w->entries;
  } else {
    return 1; /* wider values are no weights of an instruction */
  }
  for (uint32_t i = 1; i < w->entries; i++)
    if (w->table[i] <= w->table[i - 1]) return 1;
  return !w->entries;
}

static int read_lanes(ergo_weights *w) {
  int bad = 0;
  if (w->at >= w->size) return 1;
  w->lanes = w->data[w->at++] + 1u;
  if (w->lanes > 16 || w->lanes > w->rows) return 1;
  w->sizes_at = w->at;
  for (uint32_t i = 1; i < w->lanes; i++) ergo_varint(w, &bad);
  w->payload_at = w->at;
  return bad;
}

size_t ergo_weights_bytes(const ergo_operand *t) {
  const ergo_weight_codec *codec = codec_of(t->codec);
  return codec ? ERGO_ROUND(codec->state_bytes()) : 0;
}

ergo_status ergo_weights_open(ergo_ctx *ctx, const ergo_operand *t, ergo_weights *w) {
  int bad = 0;
  memset(w, 0, sizeof *w);
  w->codec = codec_of(t->codec);
  if (!w->codec) return ERGO_UNKNOWN_CODEC;
  w->data = ergo_at(ctx, t), w->size = (uint64_t)t->strides[0];
  if (!(w->state = ergo_take(ctx, w->codec->state_bytes()))) return ctx->status;
  if (w->size < 2 || w->data[0] != t->codec || w->data[1] >> 4 != STREAM_VERSION) return ERGO_BROKEN_CODE;
  unsigned form = w->data[1] & 15;
  w->at = 2;
  w->rows = ergo_varint(w, &bad), w->columns = ergo_varint(w, &bad), w->inner = ergo_varint(w, &bad);
  if (bad || !w->inner || w->rows != t->shape[0] || w->columns != ergo_elements(t) / t->shape[0])
    return ERGO_BROKEN_CODE;
  if (read_table(w, form) || w->at >= w->size) return ERGO_BROKEN_CODE;
  w->default_code = w->data[w->at++];
  if (w->default_code >= w->entries || (w->codec->tables && w->codec->tables(w)) || read_lanes(w))
    return ERGO_BROKEN_CODE;
  if (w->lanes != ((uint32_t)t->strides[1] & 15u) + 1) return ERGO_BROKEN_CODE;
  w->said_steps = (uint32_t)t->strides[1] >> 4;
  return ERGO_OK;
}

/* The next lane's rows and bytes. */
static int begin_lane(ergo_weights *w) {
  int bad = 0;
  uint64_t begin = w->payload_at, size = 0;
  w->at = w->sizes_at;
  for (uint32_t i = 0; i <= w->lane; i++) {
    begin += size;
    size = i + 1 < w->lanes ? ergo_varint(w, &bad) : w->size - (begin < w->size ? begin : w->size);
    if (bad || begin > w->size || size > w->size - begin) return 1;
  }
  w->lane_data = w->data + begin, w->lane_size = size, w->lane_row = 0, w->lane_bit = 0, w->steps = 0;
  w->lane_rows = (uint64_t)(w->lane + 1) * w->rows / w->lanes - (uint64_t)w->lane * w->rows / w->lanes;
  if (w->codec->lane) w->codec->lane(w);
  w->started = 1;
  return 0;
}

ergo_status ergo_weights_row(ergo_weights *w, int8_t *values) {
  if (!w->started && (w->lane >= w->lanes || begin_lane(w))) return ERGO_BROKEN_CODE;
  if (w->codec->row(w, (uint8_t *)values, w->columns)) return ERGO_BROKEN_CODE;
  const uint8_t *folded = (const uint8_t *)values;
  for (uint64_t i = 0; i < w->columns; i++) { /* 0 is the default, others count from 1 */
    uint32_t code = folded[i] ? folded[i] - (uint32_t)(folded[i] <= w->default_code) : w->default_code;
    if (code >= w->entries) return ERGO_BROKEN_CODE;
    values[i] = w->table[code];
  }
  if (++w->lane_row < w->lane_rows) return ERGO_OK;
  if (w->codec->end(w)) return ERGO_BROKEN_CODE;
  if (w->steps > w->busiest) w->busiest = w->steps;
  w->lane++, w->started = 0;
  return w->lane == w->lanes && w->busiest != w->said_steps ? ERGO_BROKEN_CODE : ERGO_OK;
}

ergo_status ergo_weights_all(ergo_ctx *ctx, const ergo_operand *t, int8_t **values) {
  ergo_weights w;
  ergo_status status = ergo_weights_open(ctx, t, &w);
  if (status) return status;
  if (!(*values = ergo_take(ctx, (size_t)ergo_elements(t)))) return ctx->status;
  for (uint64_t row = 0; row < w.rows && !status; row++) status = ergo_weights_row(&w, *values + row * w.columns);
  return status;
}
