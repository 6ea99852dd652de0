/* BITPLANE: a two-level map of zeros, nonzero magnitudes in blocks of as many bit planes as they need.
 * target/codecs/bitplane.py */
#include "ergo_internal.h"

#define GROUP 16u
#define BLOCK 8u

static size_t state_bytes(uint32_t rows, uint32_t width, uint32_t channels) {
  return (void)rows, (void)width, (void)channels, 0;
}

/* Values come channel by channel: the place of the i-th among codes[rows * width][channels]. */
static uint64_t place(uint64_t i, uint64_t pixels, uint32_t channels) { return i % pixels * channels + i / pixels; }

typedef struct bits {
  uint8_t *out;
  uint32_t word;
  unsigned held;
} bits;

static void put(bits *b, unsigned value, unsigned width) {
  b->word = b->word << width | value;
  for (b->held += width; b->held >= 8; b->held -= 8) *b->out++ = (uint8_t)(b->word >> (b->held - 8));
}

static void flush(bits *b) {
  if (b->held) *b->out++ = (uint8_t)(b->word << (8 - b->held));
  b->word = 0, b->held = 0;
}

static unsigned bit_length(unsigned value) {
  unsigned n = 0;
  while (value >> n) n++;
  return n;
}

/* Walks the blocks of nonzero values: planes are written where `planes` is given, magnitudes where `values` is; returns
 * the bits of the latter. */
static uint64_t blocks(const uint8_t *codes, uint64_t pixels, uint32_t channels, bits *planes, bits *values) {
  uint64_t count = pixels * channels, total = 0;
  uint8_t block[BLOCK];
  unsigned filled = 0;
  for (uint64_t i = 0; i <= count; i++) {
    uint8_t code = i < count ? codes[place(i, pixels, channels)] : 0;
    if (code) block[filled++] = (uint8_t)(code - 1);
    if (filled < BLOCK && (i < count || !filled)) continue;
    unsigned most = 0;
    for (unsigned k = 0; k < filled; k++) most |= block[k];
    unsigned width = bit_length(most);
    if (planes) put(planes, width, 4);
    for (unsigned k = 0; k < filled && values; k++) put(values, block[k], width);
    total += (uint64_t)filled * width, filled = 0;
  }
  return total;
}

static int64_t encode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                      uint8_t *out, int64_t capacity) {
  (void)zero_point, (void)state;
  uint64_t pixels = (uint64_t)rows * width, count = pixels * channels, groups = (count + GROUP - 1) / GROUP, kept = 0,
           occupied = 0;
  for (uint64_t g = 0; g < groups; g++) {
    uint64_t before = kept;
    for (uint64_t i = g * GROUP; i < count && i < (g + 1) * GROUP; i++) kept += codes[place(i, pixels, channels)] != 0;
    occupied += kept > before;
  }
  uint64_t total = (groups + 7) / 8 + 2 * occupied + (4 * ((kept + BLOCK - 1) / BLOCK) + 7) / 8 +
                   (blocks(codes, pixels, channels, NULL, NULL) + 7) / 8;
  if (total > (uint64_t)capacity) return -1;
  uint8_t *map = out + (groups + 7) / 8;
  memset(out, 0, (size_t)(groups + 7) / 8);
  for (uint64_t g = 0; g < groups; g++) {
    unsigned bitmap = 0;
    for (uint64_t i = g * GROUP; i < (g + 1) * GROUP; i++)
      bitmap = bitmap << 1 | (i < count && codes[place(i, pixels, channels)]);
    if (!bitmap) continue;
    out[g >> 3] = (uint8_t)(out[g >> 3] | 128u >> (g & 7));
    *map++ = (uint8_t)(bitmap >> 8), *map++ = (uint8_t)bitmap;
  }
  bits writer = {map, 0, 0};
  blocks(codes, pixels, channels, &writer, NULL);
  flush(&writer);
  blocks(codes, pixels, channels, NULL, &writer);
  flush(&writer);
  return (int64_t)total;
}

static int decode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                  const uint8_t *data, uint32_t size) {
  (void)zero_point, (void)state;
  uint64_t pixels = (uint64_t)rows * width, count = pixels * channels, groups = (count + GROUP - 1) / GROUP,
           occupied = 0, kept = 0, total = 0;
  if (size < (groups + 7) / 8) return 1;
  for (uint64_t g = 0; g < groups; g++) occupied += data[g >> 3] >> (7 - (g & 7)) & 1;
  const uint8_t *map = data + (groups + 7) / 8, *planes = map + 2 * occupied;
  if ((uint64_t)size < (groups + 7) / 8 + 2 * occupied) return 1;
  for (uint64_t i = 0; i < 16 * occupied; i++) kept += map[i >> 3] >> (7 - (i & 7)) & 1;
  uint64_t full = (kept + BLOCK - 1) / BLOCK, head = (groups + 7) / 8 + 2 * occupied + (4 * full + 7) / 8;
  if (size < head) return 1;
  for (uint64_t b = 0; b < full; b++) {
    unsigned width_of = planes[b >> 1] >> (b & 1 ? 0 : 4) & 15;
    if (width_of > 8) return 1;
    total += (b + 1 < full ? BLOCK : (kept - 1) % BLOCK + 1) * width_of;
  }
  if (size != head + (total + 7) / 8) return 1;
  const uint8_t *values = data + head;
  uint64_t seen = 0, group = 0;
  uint32_t word = 0;
  unsigned held = 0;
  for (uint64_t g = 0; g < groups; g++) {
    unsigned bitmap = 0;
    if (data[g >> 3] >> (7 - (g & 7)) & 1) bitmap = (unsigned)map[2 * group] << 8 | map[2 * group + 1], group++;
    for (uint64_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
      unsigned code = 0;
      if (bitmap >> (15 - i % GROUP) & 1) {
        uint64_t b = seen++ / BLOCK;
        unsigned width_of = planes[b >> 1] >> (b & 1 ? 0 : 4) & 15;
        for (; held < width_of; held += 8) word = word << 8 | *values++;
        held -= width_of;
        code = (word >> held & ((1u << width_of) - 1)) + 1;
        if (i >= count || code > 255) return 1;
      }
      if (i < count) codes[place(i, pixels, channels)] = (uint8_t)code;
    }
  }
  return 0;
}

const ergo_slot_codec ergo_codec_bitplane = {ERGO_BITPLANE, state_bytes, encode, decode};
