/* CABAC: every decision predicted by neighbours, predictions mixed, everything learned on the way.
 * target/codecs/cabac.py is the definition. */
#include "ergo_internal.h"
#include "logistic.h"

#define WINDOW 4096
#define PLACES 512
#define PATTERNS 32
#define COUNTS 729
#define LEVELS 7
#define NODES 256
#define STATES (PATTERNS + WINDOW + COUNTS + 2 * PLACES + NODES * (1 + 2 * LEVELS))
#define FLAG_INPUTS 4
#define VALUE_INPUTS 3
#define UNKNOWN ((uint32_t)1 << 31)
#define LIMIT 1023

typedef struct cabac {
  ergo_interval coder;
  uint32_t states[STATES]; /* probability of a one << 10 | observations */
  int64_t flag_weights[3][FLAG_INPUTS], value_weights[8][4][VALUE_INPUTS];
  uint8_t column[WINDOW], up[WINDOW], plane[PLACES], level[256];
  int bits, values;
} cabac;

static size_t state_bytes(void) { return sizeof(cabac); }

static void lane(ergo_weights *w) {
  cabac *s = w->state;
  memset(s, 0, sizeof *s);
  ergo_interval_start(&s->coder, w->lane_data, w->lane_size);
  for (int i = 0; i < STATES; i++) s->states[i] = UNKNOWN;
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < FLAG_INPUTS; k++) s->flag_weights[i][k] = 19661;
  for (int i = 0; i < 8; i++)
    for (int k = 0; k < 4 * VALUE_INPUTS; k++) s->value_weights[i][k / VALUE_INPUTS][k % VALUE_INPUTS] = 24030;
  s->values = (int)w->entries - 1;
  while ((1 << s->bits) < s->values) s->bits++;
  for (int rank = 0; rank < 255; rank++) {
    int side = rank >= (int)w->default_code, distance = 2 * (rank - (int)w->default_code) + 1,
        third = 2 * (distance < 0 ? -distance : distance) / (int)w->entries;
    s->level[rank + 1] = (uint8_t)(1 + 2 * (third < 2 ? third : 2) + side);
  }
}

static int ones(unsigned byte) {
  int count = 0;
  for (; byte; byte &= byte - 1) count++;
  return count;
}

/* Right shift that rounds down, of any sign. */
static int64_t down(int64_t value, int shift) { return ergo_floor_shift(value, shift); }

static int decide(ergo_weights *w, uint32_t *const *inputs, int count, int64_t *weights) {
  cabac *s = w->state;
  int64_t x[FLAG_INPUTS], sum = 0;
  for (int i = 0; i < count; i++) x[i] = ergo_stretch(*inputs[i] >> 20), sum += weights[i] * x[i];
  int64_t mixed = down(sum, 16);
  mixed = mixed < -ERGO_DOMAIN ? -ERGO_DOMAIN : mixed > ERGO_DOMAIN ? ERGO_DOMAIN : mixed;
  int32_t p1 = (int32_t)ergo_squash((int32_t)mixed);
  int bit = ergo_interval_decode(&s->coder, (uint32_t)p1);
  int64_t error = (int64_t)((bit << 16) - p1) * 20;
  w->steps++;
  for (int i = 0; i < count; i++) {
    weights[i] += down(x[i] * error + (1 << 19), 20);
    int32_t p = (int32_t)(*inputs[i] >> 10), seen = (int32_t)(*inputs[i] & 1023);
    p += (int32_t)down((int64_t)((bit << 22) - p) * (2 * 65536 / (2 * seen + 3)), 16);
    p = p < 64 ? 64 : p > (1 << 22) - 64 ? (1 << 22) - 64 : p;
    *inputs[i] = (uint32_t)p << 10 | (uint32_t)(seen < LIMIT ? seen + 1 : LIMIT);
  }
  return bit;
}

static int value_of(ergo_weights *w, uint32_t *first, int left_level, int up_level) {
  cabac *s = w->state;
  int node = 1, value = 0;
  for (int k = s->bits - 1; k >= 0; k--) {
    int bit = 0;
    if (((value << 1 | 1) << k) < s->values) {
      uint32_t *inputs[VALUE_INPUTS] = {first + node, first + NODES * (1 + left_level) + node,
                                        first + NODES * (1 + LEVELS + up_level) + node};
      uint32_t seen = *inputs[0] & 1023;
      bit =
          decide(w, inputs, VALUE_INPUTS, s->value_weights[s->bits - 1 - k][(seen >= 4) + (seen >= 16) + (seen >= 64)]);
    }
    node = node << 1 | bit, value = value << 1 | bit;
  }
  return value;
}

static int row(ergo_weights *w, uint8_t *folded, uint64_t count) {
  cabac *s = w->state;
  unsigned left = 0;
  int left_level = 0, set = (w->lane_row >= 2) + (w->lane_row >= 16);
  uint64_t channel = 0, tap = 0;
  memset(s->plane, 0, sizeof s->plane);
  for (uint64_t column = 0; column < count; column++) {
    unsigned at = column & (WINDOW - 1), tap_at = tap & (PLACES - 1), history = s->column[at],
             planes = s->plane[tap_at];
    uint32_t *first = s->states, *inputs[FLAG_INPUTS];
    inputs[0] = first + ((left & 3) | (history & 3) << 2 | (planes & 1) << 4);
    inputs[1] = (first += PATTERNS) + (channel & (WINDOW - 1));
    inputs[2] = (first += WINDOW) + (ones(left) * 9 + ones(history)) * 9 + ones(planes);
    inputs[3] = (first += COUNTS) + 2 * tap_at + (history & 1);
    int other = decide(w, inputs, FLAG_INPUTS, s->flag_weights[set]), value = 0;
    if (other) value = 1 + value_of(w, first + 2 * PLACES, left_level, s->up[at]);
    folded[column] = (uint8_t)value;
    left = (left << 1 | (unsigned)other) & 255, left_level = s->level[value];
    s->column[at] = (uint8_t)(history << 1 | (unsigned)other),
    s->plane[tap_at] = (uint8_t)(planes << 1 | (unsigned)other), s->up[at] = (uint8_t)left_level;
    if (++tap == w->inner) tap = 0, channel++;
  }
  return 0;
}

static int end(ergo_weights *w) { return (void)w, 0; }

const ergo_weight_codec ergo_codec_cabac = {ERGO_CABAC, state_bytes, NULL, lane, row, end};
