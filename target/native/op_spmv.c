/* SPMV: a sparse matrix in EIE's format times vectors. target/codecs/eie.py says what its bytes are. */
#include "ergo_internal.h"

enum { X, W, BIAS, MULT, SHIFT, OUT };
enum { IN_ZP, OUT_ZP, LO, HI, ENTRIES, ENTRY_BITS, PER_WORD, EXPECTED };
#define BASE_BITS 20

typedef struct matrix {
  const uint8_t *values, *places, *entries, *at, *end;
  uint32_t pes, rows, columns, slots, code_bits, entry_bits, length_bits, pointer_bytes;
} matrix;

static ergo_status check(const ergo_ins *ins) {
  const int64_t *v = ins->v;
  if (v[LO] > v[HI] || !ergo_is_contiguous(&ins->t[W]) || ins->t[OUT].shape[1] > 1u << 16) return ERGO_PRECONDITION;
  if (v[ENTRY_BITS] < 1 || v[ENTRY_BITS] > 16 || v[PER_WORD] > 44) return ERGO_MALFORMED;
  return (uint64_t)v[ENTRIES] > 8 * (uint64_t)ins->t[W].shape[0] / (uint64_t)v[ENTRY_BITS] ? ERGO_PRECONDITION
                                                                                           : ERGO_OK;
}

/* Sums of all outputs, and which row each position is: positions are fewer than rows + 4096. */
static size_t workspace(const ergo_ins *ins) {
  uint64_t rows = ins->t[OUT].shape[1];
  return ERGO_ROUND(8 * rows) + ERGO_ROUND(4 * (rows + 4096));
}

static uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return (uint32_t)ergo_i32(p); }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

/* The next section; null where it ends too early. */
static const uint8_t *section(matrix *m, uint64_t bytes) {
  const uint8_t *found = m->at;
  bytes = (bytes + 7) / 8 * 8;
  if ((uint64_t)(m->end - m->at) < bytes) return NULL;
  m->at += bytes;
  return found;
}

static int open_matrix(matrix *m, const uint8_t *data, uint64_t size, uint32_t rows, uint32_t columns) {
  memset(m, 0, sizeof *m);
  m->at = data, m->end = data + size;
  const uint8_t *head = section(m, 16);
  if (!head) return 1;
  m->pes = u16(head), m->code_bits = head[2], m->entry_bits = (uint32_t)head[2] + head[3], m->length_bits = head[4],
  m->pointer_bytes = head[5];
  uint8_t flags = head[6];
  m->rows = u32(head + 8), m->columns = u32(head + 12);
  if (m->rows != rows || m->columns != columns || head[7] || flags & ~2 || m->pes < 1 || m->pes > 4096 ||
      m->code_bits < 1 || m->code_bits > 8 || m->entry_bits > 16 || m->length_bits > 44 ||
      (m->length_bits ? m->pointer_bytes != 8 : m->pointer_bytes != 2 && m->pointer_bytes != 4))
    return 1;
  m->slots = (rows + m->pes - 1) / m->pes;
  m->values = section(m, 1u << m->code_bits);
  if (flags & 2) m->places = section(m, 2 * (uint64_t)rows);
  m->entries = section(m, 4 * (uint64_t)m->pes);
  return !m->values || m->values[0] || (flags & 2 && !m->places) || !m->entries;
}

static int find_rows(const matrix *m, uint32_t *row_at) {
  for (uint32_t i = 0; i < m->slots * m->pes; i++) row_at[i] = UINT32_MAX;
  for (uint32_t r = 0; r < m->rows; r++) {
    uint32_t place = m->places ? u16(m->places + 2 * r) : r;
    if (place >= m->slots * m->pes || row_at[place] != UINT32_MAX) return 1;
    row_at[place] = r;
  }
  return 0;
}

/* Where a column begins and how many entries it has. */
static void column_of(const matrix *m, const uint8_t *pointers, uint32_t column, uint64_t *begin, uint64_t *count) {
  if (m->length_bits) {
    uint32_t per_word = 44 / m->length_bits, within = column % per_word;
    uint64_t word = u64(pointers + 8 * (uint64_t)(column / per_word)), mask = ((uint64_t)1 << m->length_bits) - 1;
    *begin = word & ((1u << BASE_BITS) - 1);
    for (uint32_t i = 0; i < within; i++) *begin += word >> (BASE_BITS + i * m->length_bits) & mask;
    *count = word >> (BASE_BITS + within * m->length_bits) & mask;
    return;
  }
  uint64_t even = ((uint64_t)m->columns + 2) / 2, bounds[2];
  for (uint32_t i = 0; i < 2; i++) {
    uint64_t at = (column + i) % 2 ? even + (column + i) / 2 : (column + i) / 2;
    bounds[i] = m->pointer_bytes == 2 ? u16(pointers + 2 * at) : u32(pointers + 4 * at);
  }
  *begin = bounds[0], *count = bounds[1] - bounds[0];
}

/* One processing element's share of a product. */
static int element(const matrix *m, uint32_t pe, const uint8_t *pointers, const uint8_t *lines, uint32_t total,
                   const uint32_t *row_at, const int8_t *x, int64_t x_step, int64_t zp, int64_t *sums) {
  uint32_t per_line = 64 / m->entry_bits;
  uint64_t expected = 0;
  for (uint32_t column = 0; column < m->columns; column++) {
    uint64_t begin, count, slot = 0;
    column_of(m, pointers, column, &begin, &count);
    if (begin != expected || count > total - expected) return 1;
    expected += count;
    int64_t input = x[column * x_step] - zp;
    for (uint64_t e = begin; e < begin + count; e++, slot++) {
      uint64_t entry =
          u64(lines + 8 * (e / per_line)) >> (e % per_line * m->entry_bits) & (((uint64_t)1 << m->entry_bits) - 1);
      uint64_t code = entry & ((1u << m->code_bits) - 1), run = entry >> m->code_bits;
      slot += run;
      if (slot >= m->slots) return 1;
      if (!code) {
        if (e + 1 == begin + count || run != (1u << (m->entry_bits - m->code_bits)) - 1u) return 1;
        continue;
      }
      uint32_t row = row_at[slot * m->pes + pe];
      if (row == UINT32_MAX) return 1;
      sums[row] += input * (int8_t)m->values[code];
    }
  }
  return expected != total;
}

static int product(matrix m, const uint32_t *row_at, const int8_t *x, int64_t x_step, int64_t zp, int64_t *sums) {
  matrix pointers_of = m;
  uint64_t bytes = m.length_bits ? 8 * (((uint64_t)m.columns + 44 / m.length_bits - 1) / (44 / m.length_bits))
                                 : (uint64_t)m.pointer_bytes * ((uint64_t)m.columns + 1);
  for (uint32_t pe = 0; pe < m.pes; pe++)
    if (!section(&m, bytes)) return 1;
  for (uint32_t pe = 0; pe < m.pes; pe++) {
    uint32_t total = u32(m.entries + 4 * pe), per_line = 64 / m.entry_bits;
    const uint8_t *pointers = section(&pointers_of, bytes),
                  *lines = section(&m, 8 * (((uint64_t)total + per_line - 1) / per_line));
    if (!lines || element(&m, pe, pointers, lines, total, row_at, x, x_step, zp, sums)) return 1;
  }
  return m.at != m.end;
}

static ergo_status run(ergo_ctx *ctx, const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[X], *out = &ins->t[OUT];
  ergo_output_stage stage;
  matrix m;
  ergo_status status = ergo_output_open(ctx, ins, BIAS, OUT_ZP, out, &stage);
  if (status) return status;
  if (open_matrix(&m, ergo_at(ctx, &ins->t[W]), ins->t[W].shape[0], out->shape[1], x->shape[1]))
    return ERGO_BROKEN_CODE;
  int64_t *sums = ergo_take(ctx, 8 * (size_t)m.rows);
  uint32_t *row_at = ergo_take(ctx, 4 * ((size_t)m.rows + 4096));
  if (!sums || !row_at) return ctx->status;
  if (find_rows(&m, row_at)) return ERGO_BROKEN_CODE;
  const int8_t *in = (const int8_t *)ergo_at(ctx, x);
  uint8_t *result = ergo_at(ctx, out);
  for (uint32_t i = 0; i < x->shape[0]; i++) {
    memset(sums, 0, 8 * (size_t)m.rows);
    if (product(m, row_at, in + (int64_t)i * x->strides[0], x->strides[1], ins->v[IN_ZP], sums))
      return ERGO_BROKEN_CODE;
    for (uint32_t o = 0; o < m.rows; o++)
      ergo_output_put(&stage, o, sums[o], result + (int64_t)i * out->strides[0] + (int64_t)o * out->strides[1]);
  }
  return ERGO_OK;
}

const ergo_op ergo_op_spmv = {0x40,
                              4,
                              "SPMV",
                              "TTTTTT z zzz I k k W",
                              {{ERGO_IS_I8, 0, "MC", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_U8, 0, "B", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I32, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I8, 0, "O", ERGO_NO_OPERAND, 0},
                               {ERGO_IS_I8 | ERGO_IS_I32, 1, "MO", ERGO_NO_OPERAND, 0}},
                              0,
                              0,
                              check,
                              workspace,
                              run};
