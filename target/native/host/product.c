/* Products of two activations: rows of the left side meet panels of the right one. */
#include "product.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "../elements.h"
#include "fast_internal.h"
#include "pool.h"

enum { A, B, OUT };
#define MATMUL 0x04
#define WEIGHTED_MEAN 0x05
#define MOST_DEPTH 32767u /* 255 * 255 times that fits 32 bits */
#define BLOCK_BYTES (64 * 1024)
#define SPLIT_WORK ((uint64_t)1 << 20)
#define LEAST_WORK 128u /* products of one matrix; fewer are not worth packing */

struct ergo_product {
  const ergo_path *path;
  int mean, transposed, a_zp, b_zp;
  int offset; /* what is added to a on its way into a tile */
  uint32_t m, k, n;
  uint64_t batches;
  size_t padded, steps, panels, panel_bytes, matrix_bytes, sums_bytes;
  uint8_t *packed; /* every matrix of a constant b, each followed by its columns' sums; null: b is none */
  ergo_finish finish;
};

static size_t element(const ergo_path *path) { return path->bytes ? 1 : 2; }

/* Four rows of b between each other, a column's four bytes together. */
static void pack_bytes(const ergo_product *p, const int8_t *b, int64_t bk, int64_t bn, uint8_t *to) {
  static const uint8_t nothing[ERGO_MOST_WIDTH];
  size_t width = (size_t)p->path->width;
  for (size_t panel = 0; panel < p->panels; panel++) {
    uint32_t columns = p->n - panel * width < width ? (uint32_t)(p->n - panel * width) : (uint32_t)width;
    const uint8_t *from = (const uint8_t *)b + (int64_t)(panel * width) * bn;
    for (uint32_t k = 0; k < p->padded; k += 4, to += 4 * width) {
      uint32_t rows = p->k - k < 4 ? p->k - k : 4;
      const uint8_t *r[4];
      for (uint32_t j = 0; j < 4; j++) r[j] = j < rows ? from + (int64_t)(k + j) * bk : nothing;
      if (columns < width) memset(to, 0, 4 * width);
      if (bn == 1)
        for (uint32_t n = 0; n < columns; n++) {
          uint32_t four = r[0][n] | (uint32_t)r[1][n] << 8 | (uint32_t)r[2][n] << 16 | (uint32_t)r[3][n] << 24;
          memcpy(to + 4 * n, &four, 4);
        }
      else if (bk == 1 && rows == 4)
        for (uint32_t n = 0; n < columns; n++) memcpy(to + 4 * n, r[0] + n * bn, 4);
      else
        for (uint32_t n = 0; n < columns; n++)
          for (uint32_t j = 0; j < 4; j++) to[4 * n + j] = j < rows ? r[j][n * bn] : 0;
    }
  }
}

static void pack_words(const ergo_product *p, const int8_t *b, int64_t bk, int64_t bn, uint8_t *to) {
  size_t width = (size_t)p->path->width, step = (size_t)p->path->step;
  int16_t *out = (int16_t *)(void *)to;
  memset(to, 0, p->panels * p->panel_bytes);
  for (size_t panel = 0; panel < p->panels; panel++, out += p->padded * width) {
    uint32_t columns = p->n - panel * width < width ? (uint32_t)(p->n - panel * width) : (uint32_t)width;
    const int8_t *from = b + (int64_t)(panel * width) * bn;
    for (uint32_t k = 0; k < p->k; k++)
      for (uint32_t n = 0; n < columns; n++)
        out[(k / step * width + n) * step + k % step] = (int16_t)(from[k * bk + n * bn] - p->b_zp);
  }
}

/* Sums of the columns: a row of ones times them. */
static void pack(const ergo_product *p, const int8_t *b, int64_t bk, int64_t bn, uint8_t *to, uint8_t *ones) {
  if (!p->path->bytes) {
    pack_words(p, b, bk, bn, to);
    return;
  }
  pack_bytes(p, b, bk, bn, to);
  int32_t *sums = (int32_t *)(void *)(to + p->panels * p->panel_bytes);
  memset(ones, 1, p->padded);
  for (size_t panel = 0; panel < p->panels; panel++)
    p->path->tile(ones, p->padded, 1, to + panel * p->panel_bytes, p->steps, sums + panel * (size_t)p->path->width);
}

/* Elements of a row into a tile's. x: dense. */
static void put_row(const ergo_product *p, const uint8_t *x, uint8_t *to) {
  int16_t *words = (int16_t *)(void *)to;
  if (!p->mean)
    p->path->copy(to, (const int8_t *)x, p->k, p->a_zp);
  else if (!p->path->bytes)
    for (uint32_t k = 0; k < p->k; k++) words[k] = x[k];
  else
    for (uint32_t k = 0; k < p->k; k++) to[k] = (uint8_t)(x[k] ^ (p->offset ? 128 : 0));
  memset(to + p->k * element(p->path), 0, (p->padded - p->k) * element(p->path));
}

/* Sum of a row of the left side, as it is stored there. */
ERGO_WIDE static int64_t sum_of(const uint8_t *x, int64_t step, uint32_t count, int is_signed) {
  int32_t sum = 0;
  if (is_signed)
    for (uint32_t k = 0; k < count; k++) sum += (int8_t)x[k * step];
  else
    for (uint32_t k = 0; k < count; k++) sum += x[k * step];
  return sum;
}

ERGO_WIDE static void totals(const int32_t *acc, const int32_t *columns, int64_t factor, int64_t row, uint32_t count,
                             int64_t *to) {
  if (columns)
    for (uint32_t n = 0; n < count; n++) to[n] = acc[n] - columns[n] * factor + row;
  else
    for (uint32_t n = 0; n < count; n++) to[n] = acc[n];
}

ERGO_WIDE static void means(int64_t *values, int64_t factor, uint32_t count) {
  for (uint32_t n = 0; n < count; n++) values[n] = (values[n] * factor + ((int64_t)1 << 21)) >> 22;
}

static void put_values(const ergo_product *p, const int64_t *values, uint32_t count, uint8_t *place, int64_t step) {
  if (p->finish.dtype != ERGO_I32)
    ergo_write_run(&p->finish, values, count, place, step);
  else
    for (uint32_t n = 0; n < count; n++) ergo_put_i32(place + n * step, (int32_t)(uint32_t)(uint64_t)values[n]);
}

typedef struct job {
  const ergo_product *p;
  const ergo_operand *a, *b, *out;
  const uint8_t *a_place, *b_place;
  uint8_t *out_place;
  uint32_t parts, block; /* parts: of the rows of a matrix; block: rows gathered at once */
  atomic_int failed;
} job;

/* Bytes to the matrices of a number; which of b's it is. */
static void places_of(const job *j, uint64_t number, int64_t *a, int64_t *b, int64_t *out, uint64_t *b_number) {
  uint64_t b_step = 1;
  *a = *b = *out = 0, *b_number = 0;
  for (unsigned i = 3; i <= j->out->rank; i++) {
    uint64_t at = number % j->out->shape[j->out->rank - i];
    number /= j->out->shape[j->out->rank - i];
    *out += (int64_t)at * j->out->strides[j->out->rank - i];
    if (i <= j->a->rank && j->a->shape[j->a->rank - i] != 1) *a += (int64_t)at * j->a->strides[j->a->rank - i];
    if (i > j->b->rank) continue;
    if (j->b->shape[j->b->rank - i] != 1)
      *b += (int64_t)at * j->b->strides[j->b->rank - i], *b_number += at * b_step;
    b_step *= j->b->shape[j->b->rank - i];
  }
}

typedef struct row_terms {
  int64_t add, factor; /* of the means: 2**30 over the sum of the weights */
} row_terms;

static void gather_rows(const job *j, const uint8_t *a, uint32_t count, uint8_t *to, row_terms *terms, uint8_t *spare) {
  const ergo_product *p = j->p;
  int64_t am = j->a->strides[j->a->rank - 2], ak = j->a->strides[j->a->rank - 1];
  for (uint32_t i = 0; i < count; i++, a += am, to += p->padded * element(p->path), terms++) {
    const uint8_t *row = a;
    if (ak != 1) {
      for (uint32_t k = 0; k < p->k; k++) spare[k] = a[k * ak];
      row = spare;
    }
    put_row(p, row, to);
    int64_t sum = p->mean || p->b_zp ? sum_of(row, 1, p->k, !p->mean) : 0;
    terms->add = p->b_zp * ((int64_t)p->a_zp * p->k - sum);
    terms->factor = ((int64_t)1 << 30) / (p->mean && sum > 1 ? sum : 1);
  }
}

/* Rows [first, first + count) of one product. */
static void some_rows(const job *j, const uint8_t *rows, const row_terms *terms, uint32_t count, const uint8_t *packed,
                      uint8_t *out) {
  const ergo_product *p = j->p;
  const ergo_path *path = p->path;
  size_t width = (size_t)path->width, row = p->padded * element(path);
  int64_t om = j->out->strides[j->out->rank - 2], on = j->out->strides[j->out->rank - 1], values[ERGO_MOST_WIDTH];
  int32_t acc[ERGO_MOST_ROWS * ERGO_MOST_WIDTH] __attribute__((aligned(64)));
  const int32_t *sums = path->bytes ? (const int32_t *)(const void *)(packed + p->panels * p->panel_bytes) : NULL;
  for (size_t panel = 0; panel < p->panels; panel++) {
    uint32_t columns = p->n - panel * width < width ? (uint32_t)(p->n - panel * width) : (uint32_t)width;
    for (uint32_t i = 0; i < count; i += (uint32_t)path->rows) {
      int some = (int)(count - i < (uint32_t)path->rows ? count - i : (uint32_t)path->rows);
      path->tile(rows + i * row, row, some, packed + panel * p->panel_bytes, p->steps, acc);
      for (uint32_t r = i; r < i + (uint32_t)some; r++) {
        totals(acc + (r - i) * width, sums ? sums + panel * width : NULL, p->offset + p->a_zp, terms[r].add, columns,
               values);
        if (p->mean) means(values, terms[r].factor, columns);
        put_values(p, values, columns, out + r * om + (int64_t)(panel * width) * on, on);
      }
    }
  }
}

static void part(void *user, int index) {
  job *j = user;
  const ergo_product *p = j->p;
  uint64_t number = (uint64_t)index / j->parts, b_number;
  uint32_t which = (uint32_t)index % j->parts, first = (uint32_t)((uint64_t)p->m * which / j->parts),
           end = (uint32_t)((uint64_t)p->m * (which + 1) / j->parts);
  size_t own = p->packed ? 0 : p->matrix_bytes, row = p->padded * element(p->path),
         spare = (p->padded + 63) / 64 * 64, block = (row * j->block + 63) / 64 * 64;
  int64_t a, b, out;
  uint8_t *memory = ergo_thread_scratch(own + spare + block + j->block * sizeof(row_terms) + 128);
  if (!memory) {
    atomic_store(&j->failed, 1);
    return;
  }
  uint8_t *rows = memory + own + spare;
  row_terms *terms = (row_terms *)(void *)(rows + block);
  places_of(j, number, &a, &b, &out, &b_number);
  const uint8_t *packed = memory;
  if (p->packed)
    packed = p->packed + b_number * p->matrix_bytes;
  else
    pack(p, (const int8_t *)j->b_place + b, j->b->strides[j->b->rank - (p->transposed ? 1 : 2)],
         j->b->strides[j->b->rank - (p->transposed ? 2 : 1)], memory, memory + own);
  for (uint32_t at = first; at < end; at += j->block) {
    uint32_t count = end - at < j->block ? end - at : j->block;
    gather_rows(j, j->a_place + a + (int64_t)at * j->a->strides[j->a->rank - 2], count, rows, terms, memory + own);
    some_rows(j, rows, terms, count, packed, j->out_place + out + (int64_t)at * j->out->strides[j->out->rank - 2]);
  }
}

ergo_status ergo_product_run(const ergo_product *p, ergo_ctx *ctx, const ergo_ins *ins, int threads) {
  job j = {.p = p, .a = &ins->t[A], .b = &ins->t[B], .out = &ins->t[OUT], .parts = 1};
  j.a_place = ergo_at(ctx, j.a), j.b_place = ergo_at(ctx, j.b), j.out_place = ergo_at(ctx, j.out);
  uint32_t rows = (uint32_t)p->path->rows;
  size_t block = BLOCK_BYTES / (p->padded * element(p->path));
  j.block = (uint32_t)(block < rows ? rows : block > p->m ? p->m : block / rows * rows);
  if (p->batches * p->m * p->n * p->k < SPLIT_WORK) threads = 1;
  if (p->batches < (uint64_t)threads && p->m >= 2 * rows) j.parts = (uint32_t)threads;
  ergo_pool_run(threads, (int)(p->batches * j.parts), part, &j);
  return atomic_load(&j.failed) ? ERGO_WORKSPACE_TOO_SMALL : ERGO_OK;
}

/* All matrices of a constant b. */
static int pack_all(ergo_product *p, const ergo_operand *t, const int8_t *b) {
  uint64_t each = (uint64_t)p->k * p->n, count = ergo_elements(t) / each;
  uint8_t *ones = calloc(1, p->padded + 64);
  p->packed = aligned_alloc(64, (size_t)count * p->matrix_bytes + 128);
  for (uint64_t i = 0; ones && p->packed && i < count; i++)
    pack(p, b + i * each, p->transposed ? 1 : p->n, p->transposed ? p->k : 1, p->packed + i * p->matrix_bytes, ones);
  free(ones);
  return !ones || !p->packed;
}

ergo_product *ergo_product_new(const ergo_ins *ins, int path, const int8_t *b) {
  const ergo_operand *a = &ins->t[A], *right = &ins->t[B], *out = &ins->t[OUT];
  const int64_t *v = ins->v;
  int mean = ins->op->opcode == WEIGHTED_MEAN;
  uint32_t k = a->shape[a->rank - 1], m = out->shape[out->rank - 2], n = out->shape[out->rank - 1];
  if (!ergo_path_at(path) || k > MOST_DEPTH || (right->codec && !b) || (uint64_t)m * k * n < LEAST_WORK) return NULL;
  ergo_product *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->path = ergo_path_at(path), p->mean = mean, p->m = m, p->k = k, p->n = n;
  p->transposed = !mean && v[0], p->a_zp = mean ? 0 : (int)v[1], p->b_zp = (int)v[mean ? 0 : 2];
  p->offset = p->path->bytes ? (mean ? p->path->offset - 128 : p->path->offset) : 0;
  p->finish = ergo_finish_of(ins, out, v[mean ? 1 : 3], mean ? 2 : 4);
  size_t step = (size_t)p->path->step, width = (size_t)p->path->width;
  p->padded = (k + step - 1) / step * step, p->steps = p->padded / step, p->panels = (n + width - 1) / width;
  p->panel_bytes = p->padded * width * element(p->path);
  p->matrix_bytes = (p->panels * (p->panel_bytes + width * sizeof(int32_t)) + 127) / 64 * 64;
  p->batches = 1;
  for (unsigned i = 0; i + 2 < out->rank; i++) p->batches *= out->shape[i];
  if (p->batches > 1u << 20 || (b && pack_all(p, right, b))) return ergo_product_free(p), NULL;
  return p;
}

void ergo_product_free(ergo_product *p) {
  if (!p) return;
  free(p->packed), free(p);
}
