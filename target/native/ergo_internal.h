/* What the runtime's own files share. An instruction is one `ergo_op`: how its bytes are read, its preconditions, its
 * meaning. */
#ifndef ERGO_INTERNAL_H
#define ERGO_INTERNAL_H

#include <string.h>

#include "ergo.h"

#define ERGO_OPERANDS 8
#define ERGO_VALUES 34 /* CPU_CALL: function, count, 32 parameters */
#define ERGO_NO_OPERAND 255

/* Inner loops that the host's compiler may build for several processors. */
#if defined(ERGO_HOST) && defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define ERGO_WIDE __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define ERGO_WIDE
#endif

typedef enum ergo_codec_id {
  ERGO_RAW = 0,
  ERGO_BITMASK = 1,
  ERGO_BITPLANE = 2,
  ERGO_CONTEXT = 3,
  ERGO_STATIC = 5,
  ERGO_PREDICT = 6,
  ERGO_HUFFMAN = 9,
  ERGO_HUFFMAN_RUNS = 10,
  ERGO_RUNS = 11,
  ERGO_CABAC = 12,
  ERGO_PACKED = 13
} ergo_codec_id;

typedef struct ergo_op ergo_op;

/* An instruction taken apart. t: operands, v: all other fields, both in the order of its bytes. */
typedef struct ergo_ins {
  const ergo_op *op;
  uint32_t node, length;
  uint32_t waits[6];
  uint8_t operands, lists[2];
  uint8_t table; /* index in t of the output stage's table, or 0: none */
  int8_t table_zp;
  ergo_operand t[ERGO_OPERANDS];
  int64_t v[ERGO_VALUES];
} ergo_ins;

/* What a run reaches. Constants of a loaded net are read from its bytes; elsewhere net is null and memory holds
 * everything from base on. */
typedef struct ergo_ctx {
  const ergo_net *net;
  uint8_t *memory;
  uint32_t base;
  uint8_t *work;
  size_t work_bytes, work_used;
  ergo_receive receive;
  void *user;
  int64_t *dropped; /* [9]: tiles by the low bits they lost, or null */
  ergo_status status;
} ergo_ctx;

/* Kinds of element types as bits. */
#define ERGO_IS_I8 1u
#define ERGO_IS_U8 2u
#define ERGO_IS_I16 4u
#define ERGO_IS_I32 8u
#define ERGO_IS_ANY 15u

/* dims: a letter an axis, equal letters are equal lengths, '1' and '3' themselves, 'Z' 256; "*" any shape. zero_point:
 * index in v of the zero point of a tensor that may stand in slots, or ERGO_NO_OPERAND. */
typedef struct ergo_spec {
  uint8_t dtypes, out;
  const char *dims;
  uint8_t zero_point, weights;
} ergo_spec;

struct ergo_op {
  uint8_t opcode, engine;
  const char *name;
  const char *fields; /* how its bytes are read: parse.c */
  ergo_spec spec[ERGO_OPERANDS];
  uint8_t in_place; /* bit i: the output may take exactly the place of operand i */
  uint8_t table;    /* results may go through a table on their way out */
  ergo_status (*check)(const ergo_ins *ins);
  size_t (*workspace)(const ergo_ins *ins); /* or null: none */
  ergo_status (*run)(ergo_ctx *ctx, const ergo_ins *ins);
};

/* The instructions and codecs of this build, ended by null: registry.c, or what an export lists. */
extern const ergo_op *const ergo_ops[];

/* A function of CPU_CALL (v: its number, how many parameters, the parameters), and those of this build, ended by null. */
typedef struct ergo_cpu_function {
  uint8_t number;
  ergo_status (*check)(const ergo_ins *ins);
  ergo_status (*run)(ergo_ctx *ctx, const ergo_ins *ins);
} ergo_cpu_function;
extern const ergo_cpu_function *const ergo_cpu_functions[];

/* Tiles of distance codes uint8[rows, width, channels] (the coder of slots). encode: bytes written, or -1 where they
 * exceed capacity. state_bytes: scratch. decode: nonzero where no encoder wrote this. */
typedef struct ergo_slot_codec {
  uint8_t codec;
  size_t (*state_bytes)(uint32_t rows, uint32_t width, uint32_t channels);
  int64_t (*encode)(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                    uint8_t *out, int64_t capacity);
  int (*decode)(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                const uint8_t *data, uint32_t size);
} ergo_slot_codec;
extern const ergo_slot_codec *const ergo_slot_codecs[];

/* A stream of weights, row after row: weights.c. */
struct ergo_weights;
typedef struct ergo_weight_codec {
  uint8_t codec;
  size_t (*state_bytes)(void);
  int (*tables)(struct ergo_weights *w);                               /* what stands before the lanes */
  void (*lane)(struct ergo_weights *w);                                /* a lane begins */
  int (*row)(struct ergo_weights *w, uint8_t *folded, uint64_t count); /* folded codes of so many columns */
  int (*end)(struct ergo_weights *w);                                  /* the lane's bytes must end here */
} ergo_weight_codec;
extern const ergo_weight_codec *const ergo_weight_codecs[];

/* ---- parse.c ---- */
ergo_status ergo_parse(const uint8_t *bytes, size_t size, ergo_ins *ins);
ergo_status ergo_parse_operand(const uint8_t *bytes, size_t size, ergo_operand *operand, size_t *used);

/* ---- operand.c ---- */
uint32_t ergo_itemsize(uint8_t dtype);
int ergo_of_weights(uint8_t codec);
ergo_operand ergo_stored(const ergo_operand *operand);
/* Half-open byte range; 0 where it is no range of addresses. */
int ergo_extent(const ergo_operand *operand, int64_t *low, int64_t *high);
int ergo_is_contiguous(const ergo_operand *operand);
int ergo_is_injective(const ergo_operand *operand);
int ergo_overlap(const ergo_operand *a, const ergo_operand *b);
int ergo_same_place(const ergo_operand *a, const ergo_operand *b);
uint64_t ergo_elements(const ergo_operand *operand);
ergo_status ergo_check(const ergo_ins *ins); /* check.c: all preconditions but bounds */

/* ---- memory.c ---- */
uint8_t *ergo_at(const ergo_ctx *ctx, const ergo_operand *operand); /* its first element */
void *ergo_take(ergo_ctx *ctx, size_t bytes); /* of the workspace; null and ctx->status where it is used up */
#define ERGO_ROUND(bytes) (((size_t)(bytes) + 7u) & ~(size_t)7u)
int ergo_find_section(const ergo_net *net, uint64_t low, uint64_t high, const uint8_t **place);

static inline int32_t ergo_i32(const uint8_t *p) {
  return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}
static inline void ergo_put_i32(uint8_t *p, int32_t value) {
  uint32_t u = (uint32_t)value;
  p[0] = (uint8_t)u, p[1] = (uint8_t)(u >> 8), p[2] = (uint8_t)(u >> 16), p[3] = (uint8_t)(u >> 24);
}
static inline void ergo_put_i16(uint8_t *p, int64_t value) {
  uint32_t u = (uint32_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
  p[0] = (uint8_t)u, p[1] = (uint8_t)(u >> 8);
}
static inline int8_t ergo_clip(int64_t value, int64_t lo, int64_t hi) {
  return (int8_t)(value < lo ? lo : value > hi ? hi : value);
}
static inline int64_t ergo_floor_shift(int64_t value, int shift) {
  return value >= 0 ? value >> shift : -((-value - 1) >> shift) - 1;
}
/* floor(acc * mult / 2**shift + 1/2) */
static inline int64_t ergo_scale(int64_t acc, int64_t mult, int shift) {
  return ergo_floor_shift(acc * mult + (shift ? (int64_t)1 << (shift - 1) : 0), shift);
}
static inline int8_t ergo_requantize(int64_t acc, int64_t mult, int shift, int64_t zp, int64_t lo, int64_t hi) {
  return ergo_clip(ergo_scale(acc, mult, shift) + zp, lo, hi);
}
/* floor(n / d + 1/2), d > 0. */
static inline int64_t ergo_divide(int64_t n, int64_t d) {
  int64_t a = 2 * n + d, b = 2 * d, q = a / b;
  return q - (a % b < 0);
}

/* ---- output_table.c: the table of the output stage ---- */
unsigned ergo_out_of(const ergo_ins *ins); /* index in t of what it writes first */
ergo_status ergo_check_table(const ergo_ins *ins);
void ergo_look_up(const ergo_ctx *ctx, const ergo_ins *ins, const ergo_operand *out, uint8_t *place);
ergo_status ergo_execute(ergo_ctx *ctx, const ergo_ins *ins); /* the instruction, its results through its table */

/* ---- rows.c: rows of an operand [N, H, W, C], plain or in slots ---- */
typedef struct ergo_rows {
  ergo_ctx *ctx;
  uint8_t *plain;
  int64_t sn, sh, sw, sc;
  const ergo_slot_codec *codec; /* null: plain */
  uint32_t height, width, channels, slot_bytes, kept;
  int zero_point;
  uint8_t *slots, *buffer, *codes;
  uint32_t *holds;           /* which row each kept one is */
  const ergo_ins *looked_up; /* an output's rows go through this instruction's table before they are shrunk */
  void *state;
} ergo_rows;
size_t ergo_rows_bytes(const ergo_operand *operand, uint64_t kept);
ergo_status ergo_rows_open(ergo_ctx *ctx, const ergo_ins *ins, unsigned operand, uint64_t kept, ergo_rows *rows);
const int8_t *ergo_row(ergo_rows *rows, uint32_t n, uint32_t h); /* null: ctx->status says why */
uint8_t *ergo_row_out(ergo_rows *rows, uint32_t n, uint32_t h);
ergo_status ergo_row_done(ergo_rows *rows, uint32_t h);
const ergo_slot_codec *ergo_slot_codec_of(uint8_t codec);

/* ---- slots.c ---- */
size_t ergo_slot_scratch(const ergo_slot_codec *codec, uint32_t rows, uint32_t width, uint32_t channels);
ergo_status ergo_slot_read(const ergo_slot_codec *codec, const uint8_t *slot, uint32_t slot_bytes, int zero_point,
                           uint32_t rows, uint32_t width, uint32_t channels, void *scratch, int8_t *out);
ergo_status ergo_slot_write(const ergo_slot_codec *codec, uint8_t *slot, uint32_t slot_bytes, int zero_point,
                            uint32_t rows, uint32_t width, uint32_t channels, void *scratch, const int8_t *in,
                            int64_t *dropped);

/* ---- requantizing outputs of the tensor engine: output.c ---- */
typedef struct ergo_output {
  const uint8_t *bias, *mult, *shift; /* operands' bytes; null: none */
  int64_t bias_step, mult_step, shift_step;
  int64_t zp, lo, hi;
  uint8_t dtype; /* of the output: int8; int16: zero point 0, its own range; int32: the sums themselves */
} ergo_output_stage;
/* Operands bias, mult, shift are t[first..first + 2]; v[zp..zp + 2] are out_zp, lo, hi. Checks every channel's numbers.
 */
ergo_status ergo_output_open(ergo_ctx *ctx, const ergo_ins *ins, unsigned first, unsigned zp, const ergo_operand *out,
                             ergo_output_stage *stage);
static inline void ergo_output_put(const ergo_output_stage *s, uint32_t o, int64_t acc, uint8_t *place) {
  acc += ergo_i32(s->bias + (int64_t)o * s->bias_step);
  if (s->dtype == ERGO_I32) {
    ergo_put_i32(place, (int32_t)(uint32_t)(uint64_t)acc);
    return;
  }
  int64_t value =
      ergo_scale(acc, ergo_i32(s->mult + (int64_t)o * s->mult_step), *(s->shift + (int64_t)o * s->shift_step));
  if (s->dtype == ERGO_I16)
    ergo_put_i16(place, value);
  else
    *(int8_t *)place = ergo_clip(value + s->zp, s->lo, s->hi);
}

/* ---- weights.c ---- */
typedef struct ergo_weights {
  const ergo_weight_codec *codec;
  const uint8_t *data, *lane_data;
  uint64_t size, at, rows, columns, inner;
  uint64_t lane_size, lane_row, lane_rows, lane_bit, steps, busiest, said_steps, sizes_at, payload_at;
  uint32_t lanes, lane, entries, default_code;
  int8_t table[256];
  uint8_t started;
  void *state;
} ergo_weights;
size_t ergo_weights_bytes(const ergo_operand *operand);
ergo_status ergo_weights_open(ergo_ctx *ctx, const ergo_operand *operand, ergo_weights *w);
/* The next `count` = columns weights, dense. */
ergo_status ergo_weights_row(ergo_weights *w, int8_t *values);
ergo_status ergo_weights_all(ergo_ctx *ctx, const ergo_operand *operand, int8_t **values);
uint64_t ergo_varint(ergo_weights *w, int *bad);

#endif
