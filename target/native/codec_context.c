/* CONTEXT: adaptive binary arithmetic code, logistic mixing of three contexts. target/codecs/context.py is the
 * definition.
 *
 * Lanes of a group decide in lockstep: all predictions of a step are made before the first of its updates. */
#include "ergo_internal.h"
#include "logistic.h"

#define MOST_LANES 32u
#define INPUTS 3
#define SIDES 14
#define PLACES 24
#define WEIGHT_SETS 9
#define COARSE 43
#define FINE 88
#define PLACE_STATES (SIDES * SIDES * COARSE)
#define SHARED (PLACE_STATES + PLACES * 4 * FINE)
#define LIMIT 60
#define BIAS 77
#define KEPT 2

typedef struct mixer {
  int64_t w[INPUTS + 1];
} mixer;

typedef struct value {
  uint32_t *context[INPUTS];
  mixer *weights;
  int known, length, code;
} value;

typedef struct update {
  uint32_t *state[INPUTS], next[INPUTS];
  mixer *weights, next_weights;
} update;

typedef struct stream {
  uint32_t low, high;
  uint8_t *out;
  uint64_t count, most;
} stream;

typedef struct tile {
  uint8_t *codes;
  uint32_t rows, width, channels, lanes;
  int zero_point, is_signed, encodes, full;
  mixer weights[WEIGHT_SETS * COARSE];
  value values[MOST_LANES];
  update updates[MOST_LANES];
  uint32_t going[MOST_LANES];
  stream out[MOST_LANES];
  ergo_interval in[MOST_LANES];
  uint8_t first[9][7], coarse[FINE];
  int16_t difference[256]; /* of each code from the zero point */
  uint32_t *states;        /* probability of a one << 8 | observations; behind this struct */
} tile;

static uint64_t count_of(uint32_t rows, uint32_t width, uint32_t channels) { return (uint64_t)rows * width * channels; }

static uint32_t lanes_of(uint32_t rows, uint32_t width, uint32_t channels) {
  uint64_t wanted = count_of(rows, width, channels) / 4096;
  uint32_t most = channels < MOST_LANES ? channels : MOST_LANES;
  return wanted < 1 ? 1 : wanted < most ? (uint32_t)wanted : most;
}

/* The coder, its states, and a stream a lane: one longer than the tile itself is of no use. */
static size_t state_bytes(uint32_t rows, uint32_t width, uint32_t channels) {
  return ERGO_ROUND(sizeof(tile)) + ERGO_ROUND(4 * (SHARED + (size_t)channels * COARSE)) +
         (size_t)(lanes_of(rows, width, channels) * (count_of(rows, width, channels) + 1));
}

static int magnitude(int d) { return d < 0 ? -d : d; }
static int least(int a, int b) { return a < b ? a : b; }
static int greatest(int a, int b) { return a > b ? a : b; }

static int level_of(int sum) {
  int length = 0;
  if (sum < 4) return sum;
  while (sum >> length) length++;
  return 4 + 2 * (length - 3) + (sum >> (length - 2) & 1);
}

static int side_of(const tile *t, int d) {
  if (t->is_signed) return (d < 0) * (SIDES / 2) + least(level_of(2 * magnitude(d)) / 2, SIDES / 2 - 1);
  return least(level_of(greatest(d, 0)), SIDES - 1);
}

static int place_of(const tile *t, int d) {
  int m = t->is_signed ? magnitude(d) : greatest(d, 0);
  if (t->is_signed) return (d < 0) * (PLACES / 2) + least(m < 6 ? m : 6 + (m - 6) / 8, PLACES / 2 - 1);
  return least(m < 6 ? m : m < 62 ? 6 + (m - 6) / 7 : 14 + (m - 62) / 20, PLACES - 1);
}

static void decisions(tile *t) {
  static const uint8_t lower[9] = {0, 0, 0, 0, 28, 29, 31, 34, 38};
  unsigned node = 0;
  memset(t->first, 0, sizeof t->first);
  for (; node < 9; node++) t->coarse[node] = (uint8_t)node;
  for (unsigned length = 2; length < 9; length++)
    for (unsigned depth = 0; depth + 1 < length; depth++) {
      t->first[length][depth] = (uint8_t)node;
      for (unsigned bits = 0; bits < 1u << (depth < KEPT ? depth : KEPT); bits++)
        t->coarse[node++] = (uint8_t)(depth == 0   ? 7 + length
                                      : depth == 1 ? 10 + 2 * length + bits
                                                   : lower[length] + depth - 2);
    }
}

/* Distance codes alternate between the signs (+1, -1, ...) as long as both exist. */
static void differences(tile *t) {
  int both = least(t->zero_point + 128, 127 - t->zero_point);
  for (int x = -128; x < 128; x++) {
    int d = x - t->zero_point, m = magnitude(d), code = m <= both ? (d > 0 ? 2 * d - 1 : -2 * d) : m + both;
    t->difference[code & 255] = (int16_t)d;
  }
}

static void start(tile *t, uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point,
                  int encodes) {
  memset(t, 0, sizeof *t);
  t->codes = codes, t->rows = rows, t->width = width, t->channels = channels,
  t->lanes = lanes_of(rows, width, channels);
  t->zero_point = zero_point, t->is_signed = zero_point > -128, t->encodes = encodes;
  t->states = (uint32_t *)(void *)((uint8_t *)t + ERGO_ROUND(sizeof *t));
  for (size_t i = 0; i < SHARED + (size_t)channels * COARSE; i++) t->states[i] = (uint32_t)32768 << 8;
  for (int i = 0; i < WEIGHT_SETS * COARSE; i++)
    for (int k = 0; k < INPUTS; k++) t->weights[i].w[k] = 19661;
  decisions(t);
  differences(t);
}

static int at(const tile *t, uint32_t y, uint32_t x, uint32_t c) {
  return t->difference[t->codes[((uint64_t)y * t->width + x) * t->channels + c]];
}

static void contexts(tile *t, uint32_t y, uint32_t x, uint32_t c, value *v) {
  static const int unrest_at[3] = {6, 20, 48};
  int left = x ? at(t, y, x - 1, c) : y ? at(t, y - 1, x, c) : 0, up = y ? at(t, y - 1, x, c) : left;
  int corner = x && y ? at(t, y - 1, x - 1, c) : up, right = y && x + 1 < t->width ? at(t, y - 1, x + 1, c) : up;
  int left2 = x > 1 ? at(t, y, x - 2, c) : left, up2 = y > 1 ? at(t, y - 2, x, c) : up, scale = t->is_signed ? 2 : 1;
  int gradient = least(greatest(left + up - corner, least(left, up)), greatest(left, up));
  int place = place_of(t, (int)ergo_floor_shift(2 * gradient + left + up, 2)), unrest = 0;
  int varies = scale * (magnitude(left - corner) + magnitude(up - corner) + magnitude(up - right));
  for (int i = 0; i < 3; i++) unrest += varies >= unrest_at[i];
  v->context[0] = t->states + (side_of(t, left) * SIDES + side_of(t, up)) * COARSE;
  v->context[1] = t->states + SHARED + (size_t)c * COARSE;
  v->context[2] = t->states + PLACE_STATES + (place * 4 + unrest) * FINE;
  int local = scale * (2 * (magnitude(left) + magnitude(up)) + magnitude(corner) + magnitude(right) + magnitude(left2) +
                       magnitude(up2));
  v->weights = t->weights + least(level_of(local) >> 1, WEIGHT_SETS - 1) * COARSE;
}

static void put(tile *t, stream *s, uint32_t byte) {
  if (s->count < s->most)
    s->out[s->count++] = (uint8_t)byte;
  else
    t->full = 1;
}

static int code_bit(tile *t, uint32_t lane, uint32_t p1, int bit) {
  if (!t->encodes) return ergo_interval_decode(&t->in[lane], p1);
  stream *s = &t->out[lane];
  uint32_t middle = s->low + (uint32_t)(((uint64_t)(s->high - s->low) * p1) >> 16);
  if (bit)
    s->high = middle;
  else
    s->low = middle + 1;
  for (; !((s->low ^ s->high) >> 24); s->low <<= 8, s->high = s->high << 8 | 0xFF) put(t, s, s->high >> 24);
  return bit;
}

/* Predicts, codes, and keeps the update for `learn`. */
static int decide(tile *t, uint32_t lane, uint32_t slot, unsigned node, int bit) {
  value *v = &t->values[lane];
  update *u = &t->updates[slot];
  unsigned coarse = t->coarse[node];
  int64_t x[INPUTS + 1], sum = 0;
  u->weights = v->weights + coarse;
  for (int i = 0; i < INPUTS; i++) {
    u->state[i] = v->context[i] + (i == 2 ? node : coarse);
    x[i] = ergo_stretch(*u->state[i] >> 12);
    sum += u->weights->w[i] * x[i];
  }
  x[INPUTS] = BIAS, sum += u->weights->w[INPUTS] * BIAS;
  int64_t mixed = ergo_floor_shift(sum, 16);
  mixed = mixed < -ERGO_DOMAIN ? -ERGO_DOMAIN : mixed > ERGO_DOMAIN ? ERGO_DOMAIN : mixed;
  int32_t p1 = (int32_t)ergo_squash((int32_t)mixed);
  bit = code_bit(t, lane, (uint32_t)p1, bit);
  int64_t target = (int64_t)bit << 16, error = (target - p1) * 5;
  for (int i = 0; i <= INPUTS; i++)
    u->next_weights.w[i] = u->weights->w[i] + ergo_floor_shift(x[i] * error + 32768, 16);
  for (int i = 0; i < INPUTS; i++) {
    int64_t p = *u->state[i] >> 8, seen = *u->state[i] & 255;
    p += ergo_floor_shift((target - p) * (655360 / (10 * seen + 16)), 16);
    p = p < 32 ? 32 : p > 65503 ? 65503 : p;
    u->next[i] = (uint32_t)p << 8 | (uint32_t)(seen < LIMIT ? seen + 1 : LIMIT);
  }
  return bit;
}

static void learn(tile *t, uint32_t count) {
  for (uint32_t j = 0; j < count; j++) {
    for (int i = 0; i < INPUTS; i++) *t->updates[j].state[i] = t->updates[j].next[i];
    *t->updates[j].weights = t->updates[j].next_weights;
  }
}

/* One value in each lane of a group. */
static void group(tile *t, uint32_t y, uint32_t x, uint32_t first, uint32_t count) {
  uint8_t *codes = t->codes + ((uint64_t)y * t->width + x) * t->channels + first;
  uint32_t going = count;
  for (uint32_t i = 0; i < count; i++) {
    contexts(t, y, x, first + i, &t->values[i]);
    t->values[i].known = t->encodes ? codes[i] : 0, t->values[i].length = 0;
    t->going[i] = i;
  }
  for (int k = 0; k < 8 && going; k++) {
    uint32_t still = 0;
    for (uint32_t j = 0; j < going; j++) {
      uint32_t lane = t->going[j];
      if (decide(t, lane, j, (unsigned)k, t->values[lane].known >> k != 0))
        t->values[lane].length = k + 1, t->going[still++] = lane;
    }
    learn(t, going);
    going = still;
  }
  for (uint32_t i = 0; i < count; i++) t->values[i].code = t->values[i].length > 0;
  for (int depth = 0; depth < 7; depth++) {
    going = 0;
    for (uint32_t i = 0; i < count; i++) {
      value *v = &t->values[i];
      if (v->length < depth + 2) continue;
      unsigned node =
          t->first[v->length][depth] + ((unsigned)(v->code & ((1 << depth) - 1)) >> greatest(depth - KEPT, 0));
      v->code = v->code << 1 | decide(t, i, going++, node, v->known >> (v->length - 2 - depth) & 1);
    }
    if (!going) break;
    learn(t, going);
  }
  for (uint32_t i = 0; i < count; i++) codes[i] = (uint8_t)t->values[i].code;
}

static void walk(tile *t) {
  for (uint32_t y = 0; y < t->rows; y++)
    for (uint32_t x = 0; x < t->width; x++)
      for (uint32_t first = 0; first < t->channels; first += t->lanes)
        group(t, y, x, first, t->channels - first < t->lanes ? t->channels - first : t->lanes);
}

static int64_t encode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                      uint8_t *out, int64_t capacity) {
  tile *t = state;
  start(t, codes, rows, width, channels, zero_point, 1);
  uint8_t *streams = (uint8_t *)(t->states) + ERGO_ROUND(4 * (SHARED + (size_t)channels * COARSE));
  uint64_t most = count_of(rows, width, channels) + 1, total = 2 * t->lanes;
  for (uint32_t i = 0; i < t->lanes; i++)
    t->out[i].high = 0xFFFFFFFFu, t->out[i].out = streams + i * most, t->out[i].most = most;
  walk(t);
  for (uint32_t i = 0; i < t->lanes; i++) {
    stream *s = &t->out[i];
    if (s->low) put(t, s, (s->low >> 24) + 1);
    while (s->count && !s->out[s->count - 1]) s->count--;
    if (s->count >> 16) return -1;
    total += s->count;
  }
  if (t->full || total > (uint64_t)capacity) return -1;
  for (uint32_t i = 0; i < t->lanes; i++)
    out[2 * i] = (uint8_t)t->out[i].count, out[2 * i + 1] = (uint8_t)(t->out[i].count >> 8);
  out += 2 * t->lanes;
  for (uint32_t i = 0; i < t->lanes; out += t->out[i++].count) memcpy(out, t->out[i].out, (size_t)t->out[i].count);
  return (int64_t)total;
}

static int decode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                  const uint8_t *data, uint32_t size) {
  tile *t = state;
  start(t, codes, rows, width, channels, zero_point, 0);
  uint64_t begin = 2 * t->lanes;
  if (size < begin) return 1;
  for (uint32_t i = 0; i < t->lanes; i++) {
    uint64_t length = data[2 * i] | (uint64_t)data[2 * i + 1] << 8;
    if (length > size - begin) return 1;
    ergo_interval_start(&t->in[i], data + begin, length);
    begin += length;
  }
  if (begin != size) return 1;
  walk(t);
  return 0;
}

const ergo_slot_codec ergo_codec_context = {ERGO_CONTEXT, state_bytes, encode, decode};
