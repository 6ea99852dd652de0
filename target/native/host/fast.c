/* Packing of weights and scales, and which paths there are. */
#include "fast.h"

#include <stdlib.h>

#include "fast_internal.h"

static const ergo_path *const paths[] = {
    &ergo_path_portable,
#if defined(__x86_64__) && defined(__GNUC__)
    &ergo_path_avx2,
    &ergo_path_vnni,
#endif
#if defined(__aarch64__) && defined(__GNUC__)
    &ergo_path_neon,
    &ergo_path_neon_dotprod,
#endif
};

const ergo_path *ergo_path_at(int index) {
  return index >= 0 && (size_t)index < sizeof paths / sizeof *paths ? paths[index] : NULL;
}

int ergo_best_path(void) {
  int best = 0;
  for (int i = 0; ergo_path_at(i); i++)
    if (ergo_path_at(i)->usable()) best = i;
  return best;
}

static int64_t magnitude(int64_t value) { return value < 0 ? -value : value; }

/* Numbers of channel `o` at `place` of the scales. */
static void put_scale(ergo_fast *f, const ergo_ins *ins, size_t place, int64_t addition, int64_t mult, int shift) {
  (void)ins;
  size_t group = (size_t)f->path->group, half = group / 2;
  int64_t *at = f->scales.numbers + place / group * 3 * group + (place % 2) * half + place % group / 2;
  at[0] = mult, at[group] = addition * mult + (shift ? (int64_t)1 << (shift - 1) : 0), at[2 * group] = shift;
  f->scales.raw[place] = (int32_t)(uint32_t)(uint64_t)addition;
}

/* One weight less its zero point at depth `k` of column `n` in a panel `width` wide. */
static void put_weight(const ergo_fast *f, uint8_t *panel, size_t width, size_t k, size_t n, int value) {
  size_t step = (size_t)f->path->step, at = (k / step * width + n) * step + k % step;
  if (f->path->bytes)
    ((int8_t *)panel)[at] = (int8_t)value;
  else
    ((int16_t *)(void *)panel)[at] = (int16_t)value;
}

/* The weight in up to three parts that fit int8 and add up to it. */
static int plane_of(const ergo_fast *f, int value, int plane) {
  return value * (plane + 1) / f->planes - value * plane / f->planes;
}

static void *zeroed(size_t bytes) { return calloc(1, bytes + 128); }

static int make_room(ergo_fast *f, size_t weight_bytes, size_t channels) {
  size_t group = (size_t)f->path->group, places = (channels + group - 1) / group * group;
  f->w = zeroed(weight_bytes), f->scales.numbers = zeroed(places * 3 * sizeof(int64_t)),
  f->scales.raw = zeroed(places * sizeof(int32_t));
  f->outside = zeroed(f->channels_in);
  if (!f->w || !f->scales.numbers || !f->scales.raw || !f->outside) return 1;
  memset(f->outside, f->in_zp, f->channels_in);
  return 0;
}

/* Weights [O][depth] as int16, their planes; nonzero where sums might leave 32 bits. */
static int look_at(ergo_fast *f, const int8_t *w, size_t channels, size_t depth, size_t channel_step, size_t depth_step,
                   int w_zp) {
  f->planes = 1;
  for (size_t o = 0; o < channels; o++) {
    int64_t total = 0;
    for (size_t k = 0; k < depth; k++) {
      int value = w[o * channel_step + k * depth_step] - w_zp;
      if (f->path->bytes && f->planes < 3 && (value > 127 || value < -128)) f->planes = value > 254 ? 3 : 2;
      total += magnitude(value);
    }
    if (total * 255 > INT32_MAX) return 1;
  }
  return 0;
}

static int pack_conv(ergo_fast *f, const ergo_ins *ins, const int8_t *w, const int32_t *bias, const int32_t *mult,
                     const int8_t *shift) {
  const uint32_t *shape = ins->t[1].shape;
  int w_zp = (int)ins->v[10];
  size_t step = (size_t)f->path->step, width = (size_t)f->path->width, element = f->path->bytes ? 1 : 2;
  f->groups = (size_t)ins->v[8], f->per_group = shape[0] / f->groups, f->depth = (size_t)shape[1] * shape[2] * shape[3];
  if (look_at(f, w, shape[0], f->depth, f->depth, 1, w_zp)) return 1;
  f->padded = (f->depth + step - 1) / step * step;
  f->steps = f->padded * (size_t)f->planes / step;
  f->panels = (f->per_group + width - 1) / width;
  f->panel_bytes = f->steps * step * width * element;
  if (make_room(f, f->groups * f->panels * f->panel_bytes, f->groups * f->panels * width)) return 1;
  for (size_t o = 0; o < shape[0]; o++) {
    size_t group = o / f->per_group, within = o % f->per_group, panel = group * f->panels + within / width;
    int64_t sum = 0;
    for (size_t k = 0; k < f->depth; k++) {
      int value = w[o * f->depth + k] - w_zp;
      sum += value;
      for (int plane = 0; plane < f->planes; plane++)
        put_weight(f, f->w + panel * f->panel_bytes, width, (size_t)plane * f->padded + k, within % width,
                   plane_of(f, value, plane));
    }
    put_scale(f, ins, panel * width + within % width, bias[o] - (f->path->bytes ? f->path->offset + f->in_zp : 0) * sum, mult[o],
              shift[o]);
  }
  return 0;
}

/* Taps in steps of tap_step: [block of channels][step][place in the block][tap of the step]. */
static int pack_depthwise(ergo_fast *f, const ergo_ins *ins, const int8_t *w, size_t channel_step, size_t tap_step,
                          int w_zp, const int32_t *bias, const int32_t *mult, const int8_t *shift) {
  size_t step = (size_t)f->path->tap_step, width = (size_t)f->path->depth_width, element = f->path->bytes ? 1 : 2,
         channels = f->channels_in;
  f->depthwise = 1;
  if (look_at(f, w, channels, f->taps, channel_step, tap_step, w_zp)) return 1;
  f->padded = (f->taps + step - 1) / step * step;
  f->steps = f->padded * (size_t)f->planes;
  f->panels = (channels + width - 1) / width, f->panel_bytes = f->steps * width * element;
  if (make_room(f, f->panels * f->panel_bytes, f->panels * width)) return 1;
  for (size_t block = 0; block < f->panels; block++)
    for (size_t place = 0; place < width; place++) {
      size_t each =
          width / (size_t)ergo_pixels_at_once(f->path, channels - block * width); /* the same for every pixel */
      size_t c = block * width + (size_t)f->path->order((int)place) % each;
      if (c >= channels) continue;
      int64_t sum = 0;
      for (size_t tap = 0; tap < f->taps; tap++) {
        int value = w[c * channel_step + tap * tap_step] - w_zp;
        sum += value;
        for (int plane = 0; plane < f->planes; plane++) {
          size_t at = (size_t)plane * f->padded + tap;
          size_t index = (at / step * width + place) * step + at % step;
          if (f->path->bytes)
            ((int8_t *)f->w)[block * f->panel_bytes + index] = (int8_t)plane_of(f, value, plane);
          else
            ((int16_t *)(void *)(f->w + block * f->panel_bytes))[index] = (int16_t)value;
        }
      }
      put_scale(f, ins, block * width + place, bias[c] - (f->path->bytes ? f->path->offset + f->in_zp : 0) * sum, mult[c],
                shift[c]);
    }
  return 0;
}

static int fits(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *out = &ins->t[5];
  return (ins->op->opcode == 0x01 || ins->op->opcode == 0x02) && !x->codec && !out->codec && (out->dtype != ERGO_I16 || ins->v[8] == 1 || ins->t[1].shape[3] > 1) &&
         ergo_elements(x) < (uint64_t)1 << 31 &&
         (out->strides[3] == (int32_t)ergo_itemsize(out->dtype) || out->shape[3] == 1);
}

ergo_fast *ergo_fast_new(const ergo_ins *ins, int path, const int8_t *w, const int32_t *bias, const int32_t *mult,
                         const int8_t *shift) {
  if (!fits(ins) || !ergo_path_at(path)) return NULL;
  ergo_fast *f = calloc(1, sizeof *f);
  if (!f) return NULL;
  int conv = ins->op->opcode == 0x01, failed;
  const uint32_t *shape = ins->t[1].shape;
  const int64_t *v = ins->v;
  unsigned zps = conv ? 9 : 8;
  f->path = ergo_path_at(path), f->in_zp = (int)v[zps], f->channels_in = ins->t[0].shape[3];
  f->scales.zp = v[zps + 2], f->scales.lo = v[zps + 3], f->scales.hi = v[zps + 4],
  f->scales.to_i32 = ins->t[5].dtype == ERGO_I32;
  if ((f->scales.to_i16 = ins->t[5].dtype == ERGO_I16) != 0)
    f->scales.zp = 0, f->scales.lo = INT16_MIN, f->scales.hi = INT16_MAX;
  f->kernel[0] = conv ? shape[1] : shape[0], f->kernel[1] = conv ? shape[2] : shape[1],
  f->taps = (size_t)f->kernel[0] * f->kernel[1];
  for (uint32_t o = 0; o < (conv ? shape[0] : shape[2]); o++)
    if (mult[o] < 0 || mult[o] >= 1 << 24 || shift[o] < 0 || shift[o] > 62) return ergo_fast_free(f), NULL;
  if (!conv)
    failed = pack_depthwise(f, ins, w, 1, shape[2], (int)v[9], bias, mult, shift);
  else if (v[8] > 1 && shape[3] == 1)
    failed = shape[0] != f->channels_in || pack_depthwise(f, ins, w, f->taps, 1, (int)v[10], bias, mult, shift);
  else
    failed = pack_conv(f, ins, w, bias, mult, shift);
  if (failed) return ergo_fast_free(f), NULL;
  return f;
}

void ergo_fast_free(ergo_fast *f) {
  if (!f) return;
  free(f->w), free(f->scales.numbers), free(f->scales.raw), free(f->outside), free(f);
}
