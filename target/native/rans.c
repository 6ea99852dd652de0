/* Range asymmetric numeral systems over tables of sixteen symbols: target/codecs/rans.py. */
#include "rans.h"

#define TOTAL_BITS 12
#define RESTART ((uint32_t)1 << 16)
#define MOST_LANES 32u

static uint32_t lanes_of(uint32_t rows, uint32_t width, uint32_t channels) {
  uint64_t wanted = (uint64_t)rows * width * channels / 2048;
  uint32_t most = channels < MOST_LANES ? channels : MOST_LANES;
  return wanted < 1 ? 1 : wanted < most ? (uint32_t)wanted : most;
}

static unsigned bit_length(unsigned value) {
  unsigned n = 0;
  while (value >> n) n++;
  return n;
}

static unsigned raw_bits(unsigned code) { return code < 4 ? 0 : bit_length(code) - 2; }
static unsigned symbol_of(unsigned code) {
  return code < 4 ? code : 4 + 2 * (bit_length(code) - 3) + (code >> raw_bits(code) & 1);
}
static unsigned bits_of_symbol(unsigned s) { return s < 4 ? 0 : (s - 4) / 2 + 1; }
static unsigned first_code(unsigned s) { return s < 4 ? s : (2 + (s & 1)) << bits_of_symbol(s); }
static unsigned level_of(unsigned sum) {
  return sum < 4 ? sum : 4 + 2 * (bit_length(sum) - 3) + (sum >> (bit_length(sum) - 2) & 1);
}

static const uint16_t *row_of(ergo_rans_table table, const uint8_t *codes, uint32_t width, uint32_t channels, uint64_t pixel, uint32_t c) {
  const uint8_t *at = codes + pixel * channels + c;
  uint64_t y = pixel / width, x = pixel % width;
  unsigned left = x   ? *(at - channels)
                  : y ? *(at - (uint64_t)width * channels)
                      : 0,
           up = y ? *(at - (uint64_t)width * channels) : left;
  return table[level_of(left + up)];
}

static unsigned begin_of(const uint16_t *row, unsigned symbol) {
  unsigned begin = 0;
  for (unsigned s = 0; s < symbol; s++) begin += row[s];
  return begin;
}

/* Words in the order they are made; more than half as many bytes as codes is never shorter than plain. */
size_t ergo_rans_bytes(uint32_t rows, uint32_t width, uint32_t channels) {
  return (size_t)((uint64_t)rows * width * channels + 4);
}

typedef struct words {
  uint8_t *out;
  uint64_t count, most;
} words;

static int ask(words *w, uint32_t *state, uint64_t limit) {
  if (*state < limit) return 0;
  if (w->count == w->most) return 1;
  w->out[2 * w->count] = (uint8_t)*state, w->out[2 * w->count + 1] = (uint8_t)(*state >> 8);
  w->count++, *state >>= 16;
  return 0;
}

int64_t ergo_rans_encode(ergo_rans_table table, const uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels,
                         void *scratch, uint8_t *out, int64_t capacity) {
  uint32_t lanes = lanes_of(rows, width, channels), state[MOST_LANES];
  words w = {scratch, 0, ((uint64_t)rows * width * channels + 1) / 2};
  for (uint32_t i = 0; i < lanes; i++) state[i] = RESTART;
  for (uint64_t pixel = (uint64_t)rows * width; pixel-- > 0;)
    for (uint32_t group = (channels + lanes - 1) / lanes; group-- > 0;) {
      uint32_t begin = group * lanes, count = channels - begin < lanes ? channels - begin : lanes;
      const uint8_t *code = codes + pixel * channels + begin;
      for (uint32_t i = count; i-- > 0;) {
        unsigned bits = raw_bits(code[i]);
        if (ask(&w, &state[i], (uint64_t)1 << (32 - bits))) return -1;
        state[i] = state[i] << bits | (code[i] & ((1u << bits) - 1));
      }
      for (uint32_t i = count; i-- > 0;) {
        const uint16_t *row = row_of(table, codes, width, channels, pixel, begin + i);
        uint32_t symbol = symbol_of(code[i]), frequency = row[symbol];
        if (ask(&w, &state[i], (uint64_t)frequency << (32 - TOTAL_BITS))) return -1;
        state[i] = (state[i] / frequency << TOTAL_BITS) + state[i] % frequency + begin_of(row, symbol);
      }
    }
  if ((int64_t)(4 * (uint64_t)lanes + 2 * w.count) > capacity) return -1;
  for (uint32_t i = 0; i < lanes; i++, out += 4) ergo_put_i32(out, (int32_t)state[i]);
  for (uint64_t i = w.count; i-- > 0; out += 2) out[0] = w.out[2 * i], out[1] = w.out[2 * i + 1];
  return (int64_t)(4 * (uint64_t)lanes + 2 * w.count);
}

typedef struct source {
  const uint8_t *at, *end;
} source;

static int refill(source *s, uint32_t *state) {
  if (*state >= RESTART) return 0;
  if (s->end - s->at < 2) return 1;
  *state = *state << 16 | s->at[0] | (uint32_t)s->at[1] << 8;
  s->at += 2;
  return 0;
}

int ergo_rans_decode(ergo_rans_table table, uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels,
                     const uint8_t *data, uint32_t size) {
  uint32_t lanes = lanes_of(rows, width, channels), state[MOST_LANES], symbol[MOST_LANES];
  if (size < 4 * lanes) return 1;
  for (uint32_t i = 0; i < lanes; i++) state[i] = (uint32_t)ergo_i32(data + 4 * i);
  source s = {data + 4 * lanes, data + size};
  for (uint64_t pixel = 0; pixel < (uint64_t)rows * width; pixel++)
    for (uint32_t begin = 0; begin < channels; begin += lanes) {
      uint32_t count = channels - begin < lanes ? channels - begin : lanes;
      uint8_t *code = codes + pixel * channels + begin;
      for (uint32_t i = 0; i < count; i++) {
        const uint16_t *row = row_of(table, codes, width, channels, pixel, begin + i);
        uint32_t slot = state[i] & ((1u << TOTAL_BITS) - 1), first = 0, found = 0;
        while (slot >= first + row[found]) first += row[found++];
        symbol[i] = found;
        state[i] = row[found] * (state[i] >> TOTAL_BITS) + slot - first;
        if (refill(&s, &state[i])) return 1;
      }
      for (uint32_t i = 0; i < count; i++) {
        unsigned bits = bits_of_symbol(symbol[i]);
        code[i] = (uint8_t)(first_code(symbol[i]) + (state[i] & ((1u << bits) - 1)));
        state[i] >>= bits;
        if (refill(&s, &state[i])) return 1;
      }
    }
  for (uint32_t i = 0; i < lanes; i++)
    if (state[i] != RESTART) return 1;
  return s.at != s.end;
}
