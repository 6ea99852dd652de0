/* Blocks of output pixels: patches gathered once per block, then tile by tile; or, depthwise, pixel by pixel. Blocks
 * are shared out over threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fast_internal.h"
#include "pool.h"

#define BLOCK_BYTES (96 * 1024) /* of gathered patches: beside a panel of weights in a core's L2 */
#define MOST_BLOCK 512u
#define SPLIT_WORK ((uint64_t)1 << 21) /* products; fewer are not worth waking a thread */

typedef struct scratch {
  size_t bytes;
  void *memory;
} scratch;

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void release(void *held) {
  free(((scratch *)held)->memory);
  free(held);
}

static void make_key(void) { pthread_key_create(&key, release); }

void *ergo_thread_scratch(size_t bytes) {
  pthread_once(&once, make_key);
  scratch *s = pthread_getspecific(key);
  if (!s) {
    if (!(s = calloc(1, sizeof *s)) || pthread_setspecific(key, s)) return free(s), NULL;
  }
  if (s->bytes < bytes) {
    free(s->memory);
    s->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    s->bytes = s->memory ? bytes : 0;
  }
  return s->memory;
}

/* What all parts of one instruction share. stride, pad, dilation: rows, columns. */
typedef struct layer {
  const ergo_fast *f;
  const uint8_t *x;
  uint8_t *out;
  const ergo_operand *in, *to;
  int64_t stride[2], pad[2], dilation[2];
  uint64_t pixels;
  uint32_t block, blocks, parts; /* pixels a block; parts: of the panels */
  atomic_int failed;
} layer;

typedef struct position {
  uint32_t n, oh, ow;
} position;

static position place_of(const layer *l, uint64_t pixel) {
  uint32_t width = l->to->shape[2], height = l->to->shape[1];
  position p = {(uint32_t)(pixel / width / height), (uint32_t)(pixel / width % height), (uint32_t)(pixel % width)};
  return p;
}

static void next(const layer *l, position *p) {
  if (++p->ow < l->to->shape[2]) return;
  p->ow = 0;
  if (++p->oh < l->to->shape[1]) return;
  p->oh = 0, p->n++;
}

/* Taps of a window along an axis that lie inside: [begin, end). */
static void inside(const layer *l, unsigned axis, int64_t first, int64_t *begin, int64_t *end) {
  int64_t dilation = l->dilation[axis], size = l->in->shape[1 + axis], taps = l->f->kernel[axis];
  *begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
  *end = first < size ? (size - first + dilation - 1) / dilation : 0;
  if (*begin > taps) *begin = taps;
  if (*end > taps) *end = taps;
  if (*end < *begin) *end = *begin;
}

/* One patch of a group's channels, in the path's element type. */
static void gather(const layer *l, position p, size_t group, uint8_t *to) {
  const ergo_fast *f = l->f;
  size_t element = f->path->bytes ? 1 : 2, depth = f->depth / f->taps, run = depth * element;
  int64_t top = (int64_t)p.oh * l->stride[0] - l->pad[0], left = (int64_t)p.ow * l->stride[1] - l->pad[1], rows[2],
          columns[2];
  int fill = f->path->bytes ? f->in_zp + f->path->offset : 0;
  const uint8_t *image = l->x + (int64_t)p.n * l->in->strides[0] + group * depth;
  inside(l, 0, top, &rows[0], &rows[1]), inside(l, 1, left, &columns[0], &columns[1]);
  for (int64_t i = 0; i < f->kernel[0]; i++) {
    if (i < rows[0] || i >= rows[1] || columns[0] == columns[1]) {
      memset(to, fill, run * f->kernel[1]);
      to += run * f->kernel[1];
      continue;
    }
    const uint8_t *row = image + (top + i * l->dilation[0]) * l->in->strides[1];
    int64_t step = l->dilation[1] * l->in->strides[2];
    if (columns[0]) memset(to, fill, run * (size_t)columns[0]);
    to += run * (size_t)columns[0];
    const uint8_t *at = row + (left + columns[0] * l->dilation[1]) * l->in->strides[2];
    size_t taps = (size_t)(columns[1] - columns[0]);
    if (step == (int64_t)depth) {
      f->path->copy(to, (const int8_t *)at, taps * depth, f->in_zp);
      to += taps * run;
    } else {
      for (size_t j = 0; j < taps; j++, at += step, to += run) f->path->copy(to, (const int8_t *)at, depth, f->in_zp);
    }
    size_t behind = run * (size_t)(f->kernel[1] - columns[1]);
    if (behind) memset(to, fill, behind);
    to += behind;
  }
}

static uint8_t *out_at(const layer *l, position p) {
  return l->out + (int64_t)p.n * l->to->strides[0] + (int64_t)p.oh * l->to->strides[1] +
         (int64_t)p.ow * l->to->strides[2];
}

/* Patches of pixels [first, first + count) of a group. */
static void gather_block(const layer *l, uint64_t first, uint32_t count, size_t group, uint8_t *patches, size_t row) {
  const ergo_fast *f = l->f;
  position p = place_of(l, first);
  size_t element = f->path->bytes ? 1 : 2, half = f->padded * element, used = f->depth * element;
  int dense = f->taps == 1 && f->planes == 1 && f->depth == f->padded && l->stride[0] == 1 && l->stride[1] == 1 &&
              !l->pad[0] && !l->pad[1] && f->groups == 1 && ergo_is_contiguous(l->in) &&
              l->in->shape[1] == l->to->shape[1] && l->in->shape[2] == l->to->shape[2];
  if (dense) {
    f->path->copy(patches, (const int8_t *)l->x + first * f->depth, count * f->depth, f->in_zp);
    return;
  }
  for (uint32_t i = 0; i < count; i++, next(l, &p), patches += row) {
    gather(l, p, group, patches);
    if (used < half) memset(patches + used, 0, half - used);
    for (int plane = 1; plane < f->planes; plane++) memcpy(patches + (size_t)plane * half, patches, half);
  }
}

static void conv_part(void *user, int index) {
  layer *l = user;
  const ergo_fast *f = l->f;
  const ergo_path *path = f->path;
  size_t element = path->bytes ? 1 : 2, row = f->padded * (size_t)f->planes * element, width = (size_t)path->width,
         itemsize = ergo_itemsize(l->to->dtype);
  uint32_t part = (uint32_t)index % l->parts;
  uint64_t first = (uint64_t)((uint32_t)index / l->parts) * l->block;
  uint32_t count = l->pixels - first < l->block ? (uint32_t)(l->pixels - first) : l->block;
  size_t patch_bytes = (row * count + 127) / 64 * 64;
  uint8_t *memory = ergo_thread_scratch(patch_bytes + count * sizeof(uint8_t *) + 64);
  if (!memory) {
    atomic_store(&l->failed, 1);
    return;
  }
  uint8_t **places = (uint8_t **)(void *)(memory + patch_bytes), *to[ERGO_MOST_ROWS];
  position p = place_of(l, first);
  for (uint32_t i = 0; i < count; i++, next(l, &p)) places[i] = out_at(l, p);
  int32_t acc[ERGO_MOST_ROWS * ERGO_MOST_WIDTH] __attribute__((aligned(64)));
  for (size_t group = 0; group < f->groups; group++) {
    gather_block(l, first, count, group, memory, row);
    size_t begin = f->panels * part / l->parts, end = f->panels * (part + 1) / l->parts;
    for (size_t panel = begin; panel < end; panel++) {
      size_t number = group * f->panels + panel, channel = panel * width,
             channels = f->per_group - channel < width ? f->per_group - channel : width;
      for (uint32_t i = 0; i < count; i += (uint32_t)path->rows) {
        int rows = (int)(count - i < (uint32_t)path->rows ? count - i : (uint32_t)path->rows);
        path->tile(memory + i * row, row, rows, f->w + number * f->panel_bytes, f->steps, acc);
        for (int r = 0; r < rows; r++) to[r] = places[i + (uint32_t)r] + (group * f->per_group + channel) * itemsize;
        path->store(acc, rows, (int)channels, &f->scales, number * width / (size_t)path->group, to);
      }
    }
  }
}

#define AT_ONCE 4 /* pixels whose places are looked up together */

/* Where the taps of one output pixel read; those in the padding stay as they are. */
static void find_taps(const layer *l, const int8_t **places, position p, const int64_t *rows, int64_t top) {
  const ergo_fast *f = l->f;
  int64_t left = (int64_t)p.ow * l->stride[1] - l->pad[1], columns[2];
  inside(l, 1, left, &columns[0], &columns[1]);
  for (int64_t i = rows[0]; i < rows[1]; i++) {
    const int8_t **at = places + i * f->kernel[1];
    const int8_t *row =
        (const int8_t *)l->x + (int64_t)p.n * l->in->strides[0] + (top + i * l->dilation[0]) * l->in->strides[1];
    for (int64_t j = 0; j < f->kernel[1]; j++)
      at[j] = j >= columns[0] && j < columns[1] ? row + (left + j * l->dilation[1]) * l->in->strides[2] : f->outside;
  }
  for (int plane = 1; plane < f->planes; plane++)
    memcpy(places + (size_t)plane * f->padded, places, f->padded * sizeof *places);
}

/* `count` neighbouring pixels of a row, at most AT_ONCE; spare: where what is computed too much goes. */
static void some_depthwise(const layer *l, const int8_t *const *places, uint32_t count, uint8_t *const *out,
                           uint8_t *spare) {
  const ergo_fast *f = l->f;
  const ergo_path *path = f->path;
  size_t width = (size_t)path->depth_width, group = (size_t)path->group, itemsize = ergo_itemsize(l->to->dtype),
         channels = l->to->shape[3];
  for (size_t block = 0; block < f->panels; block++) {
    size_t c = block * width, left = channels - c < width ? channels - c : width;
    uint32_t pixels = (uint32_t)ergo_pixels_at_once(path, channels - c);
    ergo_scales scales = f->scales;
    scales.numbers += c / group * 3 * group, scales.raw += c;
    for (uint32_t i = 0; i < count; i += pixels) {
      uint8_t *to[AT_ONCE];
      for (uint32_t k = 0; k < pixels; k++) to[k] = i + k < count ? out[i + k] + c * itemsize : spare;
      path->depth(places + i * f->steps, f->steps, c, (int)left, (int)pixels, f->w + block * f->panel_bytes, &scales,
                  f->in_zp, to);
    }
  }
}

/* One row of depthwise outputs. */
static void depthwise_part(void *user, int index) {
  layer *l = user;
  const ergo_fast *f = l->f;
  const int8_t **places = ergo_thread_scratch(AT_ONCE * f->steps * sizeof *places);
  if (!places) {
    atomic_store(&l->failed, 1);
    return;
  }
  position p = {(uint32_t)index / l->to->shape[1], (uint32_t)index % l->to->shape[1], 0};
  int64_t top = (int64_t)p.oh * l->stride[0] - l->pad[0], rows[2];
  inside(l, 0, top, &rows[0], &rows[1]);
  for (size_t tap = 0; tap < AT_ONCE * f->steps; tap++) places[tap] = f->outside;
  uint8_t *out[AT_ONCE], spare[4 * 64];
  for (uint32_t first = 0; first < l->to->shape[2]; first += AT_ONCE) {
    uint32_t count = l->to->shape[2] - first < AT_ONCE ? l->to->shape[2] - first : AT_ONCE;
    for (uint32_t i = 0; i < count; i++) {
      p.ow = first + i, out[i] = out_at(l, p);
      find_taps(l, places + i * f->steps, p, rows, top);
    }
    some_depthwise(l, places, count, out, spare);
  }
}

static uint64_t work_of(const layer *l) {
  const ergo_fast *f = l->f;
  return l->pixels *
         (f->depthwise ? (uint64_t)f->channels_in * f->taps * 4 : (uint64_t)f->groups * f->per_group * f->depth);
}

/* The input with its channels side by side, where they are not: planes of an image that lies channel by channel. To be
 * freed. */
static int8_t *gathered_channels(const uint8_t *x, ergo_operand *t) {
  int8_t *dense = malloc((size_t)ergo_elements(t)), *to = dense;
  int64_t width = t->shape[2], channels = t->shape[3];
  for (uint32_t n = 0; n < t->shape[0] && dense; n++)
    for (uint32_t h = 0; h < t->shape[1]; h++, to += width * channels)
      for (int64_t c = 0; c < channels; c++) {
        const int8_t *from =
            (const int8_t *)x + (int64_t)n * t->strides[0] + (int64_t)h * t->strides[1] + c * t->strides[3];
        for (int64_t w = 0; w < width; w++) to[w * channels + c] = from[w * t->strides[2]];
      }
  int64_t step = 1;
  for (unsigned axis = 4; axis-- > 0; step *= t->shape[axis]) t->strides[axis] = (int32_t)step;
  return dense;
}

ergo_status ergo_fast_run(const ergo_fast *f, const ergo_ins *ins, const uint8_t *x, uint8_t *out, int threads) {
  layer l;
  memset(&l, 0, sizeof l);
  l.f = f, l.in = &ins->t[0], l.to = &ins->t[5], l.x = x, l.out = out;
  unsigned dilation = 6;
  ergo_operand dense = ins->t[0];
  int8_t *copied = NULL;
  if (dense.strides[3] != 1 && dense.shape[3] > 1) {
    if (!(copied = gathered_channels(l.x, &dense))) return ERGO_WORKSPACE_TOO_SMALL;
    l.in = &dense, l.x = (const uint8_t *)copied;
  }
  for (unsigned a = 0; a < 2; a++)
    l.stride[a] = ins->v[a], l.pad[a] = ins->v[2 + a], l.dilation[a] = ins->v[dilation + a];
  l.pixels = (uint64_t)l.to->shape[0] * l.to->shape[1] * l.to->shape[2];
  if (work_of(&l) < SPLIT_WORK) threads = 1;
  if (f->depthwise) {
    ergo_pool_run(threads, (int)(l.to->shape[0] * l.to->shape[1]), depthwise_part, &l);
  } else {
    size_t row = f->padded * (size_t)f->planes * (f->path->bytes ? 1 : 2), rows = (size_t)f->path->rows;
    uint64_t block = BLOCK_BYTES / row, share = (l.pixels + (uint64_t)threads - 1) / (uint64_t)threads;
    block = block > MOST_BLOCK ? MOST_BLOCK : block;
    if (share < block && share >= 4 * rows) block = share; /* every thread gets one */
    block = block < rows ? rows : block / rows * rows;
    l.block = (uint32_t)block, l.blocks = (uint32_t)((l.pixels + block - 1) / block);
    l.parts = l.blocks >= (uint32_t)threads ? 1 : (uint32_t)threads;
    if (l.parts > f->panels) l.parts = (uint32_t)f->panels;
    ergo_pool_run(threads, (int)(l.blocks * l.parts), conv_part, &l);
  }
  free(copied);
  return atomic_load(&l.failed) ? ERGO_WORKSPACE_TOO_SMALL : ERGO_OK;
}
