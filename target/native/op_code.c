/* ENCODE and DECODE: whole tensors into slots, and rows out of them. */
#include "ergo_internal.h"

enum { X, OUT };
enum { CODEC, TILE_ROWS, ENCODE_ZP };
enum { LAST_ROWS = 2, SKIP, DECODE_ZP };
/* Values that the slots of one instruction hold: without a limit a tile's height asks for any workspace. */
#define MOST_VALUES ((uint64_t)1 << 26)

static ergo_status slots_fit(const ergo_ins *ins, const ergo_operand *slots, const ergo_operand *plain, uint64_t rows) {
  uint64_t row = (uint64_t)plain->shape[1] * plain->shape[2];
  if (row && rows > MOST_VALUES / row) return ERGO_PRECONDITION;
  if (ins->v[CODEC] > 14) return ERGO_MALFORMED;
  if (slots->shape[1] < 4 || slots->shape[1] > (1u << 27) - 1 || slots->strides[1] != 1) return ERGO_PRECONDITION;
  if (slots->shape[0] != (rows + (uint64_t)ins->v[TILE_ROWS] - 1) / (uint64_t)ins->v[TILE_ROWS])
    return ERGO_PRECONDITION;
  return ergo_slot_codec_of((uint8_t)ins->v[CODEC]) ? ERGO_OK : ERGO_UNKNOWN_CODEC;
}

static ergo_status encode_check(const ergo_ins *ins) { return slots_fit(ins, &ins->t[OUT], &ins->t[X], ins->t[X].shape[0]); }

static uint64_t rows_in(const ergo_ins *ins) {
  return (ins->t[X].shape[0] - (uint64_t)1) * (uint64_t)ins->v[TILE_ROWS] + (uint64_t)ins->v[LAST_ROWS];
}

static ergo_status decode_check(const ergo_ins *ins) {
  const int64_t *v = ins->v;
  uint64_t rows = rows_in(ins), wanted = (uint64_t)v[SKIP] + ins->t[OUT].shape[0];
  if (v[LAST_ROWS] > v[TILE_ROWS] || wanted > rows || v[SKIP] >= v[TILE_ROWS] ||
      rows - wanted >= (uint64_t)v[TILE_ROWS])
    return ERGO_PRECONDITION;
  return slots_fit(ins, &ins->t[X], &ins->t[OUT], rows);
}

static uint32_t tile_rows(const ergo_ins *ins, uint64_t rows) {
  return (uint64_t)ins->v[TILE_ROWS] < rows ? (uint32_t)ins->v[TILE_ROWS] : (uint32_t)rows;
}

static size_t tile_bytes(const ergo_ins *ins, const ergo_operand *plain, uint64_t rows) {
  uint32_t tile = tile_rows(ins, rows);
  return ERGO_ROUND((uint64_t)tile * plain->shape[1] * plain->shape[2]) +
         ERGO_ROUND(
             ergo_slot_scratch(ergo_slot_codec_of((uint8_t)ins->v[CODEC]), tile, plain->shape[1], plain->shape[2]));
}

static size_t encode_workspace(const ergo_ins *ins) { return tile_bytes(ins, &ins->t[X], ins->t[X].shape[0]); }

static size_t decode_workspace(const ergo_ins *ins) { return tile_bytes(ins, &ins->t[OUT], rows_in(ins)); }

/* Rows of a plain operand [H, W, C] to or from dense ones. */
static void move(const ergo_operand *t, uint8_t *place, uint64_t first, uint64_t rows, int8_t *dense, int to_dense) {
  for (uint64_t h = first; h < first + rows; h++)
    for (uint32_t w = 0; w < t->shape[1]; w++)
      for (uint32_t c = 0; c < t->shape[2]; c++, dense++) {
        int8_t *at =
            (int8_t *)place + (int64_t)h * t->strides[0] + (int64_t)w * t->strides[1] + (int64_t)c * t->strides[2];
        if (to_dense)
          *dense = *at;
        else
          *at = *dense;
      }
}

static ergo_status encode(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  const ergo_slot_codec *codec = ergo_slot_codec_of((uint8_t)ins->v[CODEC]);
  uint32_t tile = tile_rows(ins, x->shape[0]), width = x->shape[1], channels = x->shape[2];
  int8_t *dense = ergo_take(ctx, (size_t)tile * width * channels);
  void *scratch = ergo_take(ctx, ergo_slot_scratch(codec, tile, width, channels));
  uint8_t *in = ergo_at(ctx, x), *slots = ergo_at(ctx, out);
  if (!dense || !scratch) return ctx->status;
  ergo_status status = ERGO_OK;
  for (uint32_t i = 0; i < out->shape[0] && !status; i++) {
    uint32_t first = i * tile, rows = x->shape[0] - first < tile ? x->shape[0] - first : tile;
    move(x, in, first, rows, dense, 1);
    status = ergo_slot_write(codec, slots + (int64_t)i * out->strides[0], out->shape[1], (int)ins->v[ENCODE_ZP], rows,
                             width, channels, scratch, dense, ctx->dropped);
  }
  return status;
}

static ergo_status decode(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  const ergo_slot_codec *codec = ergo_slot_codec_of((uint8_t)ins->v[CODEC]);
  uint64_t all = rows_in(ins), skip = (uint64_t)ins->v[SKIP], end = skip + out->shape[0];
  uint32_t tile = tile_rows(ins, all), width = out->shape[1], channels = out->shape[2];
  int8_t *dense = ergo_take(ctx, (size_t)tile * width * channels);
  void *scratch = ergo_take(ctx, ergo_slot_scratch(codec, tile, width, channels));
  uint8_t *slots = ergo_at(ctx, x), *result = ergo_at(ctx, out);
  if (!dense || !scratch) return ctx->status;
  for (uint32_t i = 0; i < x->shape[0]; i++) {
    uint64_t first = (uint64_t)i * tile, rows = i + 1 < x->shape[0] ? tile : (uint64_t)ins->v[LAST_ROWS];
    ergo_status status = ergo_slot_read(codec, slots + (int64_t)i * x->strides[0], x->shape[1], (int)ins->v[DECODE_ZP],
                                        (uint32_t)rows, width, channels, scratch, dense);
    if (status) return status;
    uint64_t begin = first < skip ? skip : first, stop = first + rows < end ? first + rows : end;
    if (begin < stop) move(out, result, begin - skip, stop - begin, dense + (begin - first) * width * channels, 0);
  }
  return ERGO_OK;
}

const ergo_op ergo_op_encode = {0x22,
                                2,
                                "ENCODE",
                                "TT k P z",
                                {{ERGO_IS_I8, 0, "HWC", ERGO_NO_OPERAND, 0}, {ERGO_IS_U8, 1, "TS", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                encode_check,
                                encode_workspace,
                                encode};
const ergo_op ergo_op_decode = {0x23,
                                2,
                                "DECODE",
                                "TT k P P I z",
                                {{ERGO_IS_U8, 0, "TS", ERGO_NO_OPERAND, 0}, {ERGO_IS_I8, 1, "HWC", ERGO_NO_OPERAND, 0}},
                                0,
                                0,
                                decode_check,
                                decode_workspace,
                                decode};
