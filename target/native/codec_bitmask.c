/* BITMASK: u8 width, one bit per value, the nonzero ones in `width` bits. target/codecs/bitmask.py */
#include "ergo_internal.h"

static size_t state_bytes(uint32_t rows, uint32_t width, uint32_t channels) {
  return (void)rows, (void)width, (void)channels, 0;
}

static int64_t encode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                      uint8_t *out, int64_t capacity) {
  (void)zero_point, (void)state;
  uint64_t count = (uint64_t)rows * width * channels, kept = 0;
  unsigned all = 0, bits = 0, held = 0;
  uint32_t word = 0;
  for (uint64_t i = 0; i < count; i++) all |= codes[i], kept += codes[i] != 0;
  while (all >> bits) bits++;
  uint64_t mask = (count + 7) / 8, total = 1 + mask + (kept * bits + 7) / 8;
  if (total > (uint64_t)capacity) return -1;
  *out++ = (uint8_t)bits;
  uint8_t *values = out + mask;
  memset(out, 0, (size_t)mask);
  for (uint64_t i = 0; i < count; i++) {
    if (!codes[i]) continue;
    out[i >> 3] = (uint8_t)(out[i >> 3] | 128u >> (i & 7));
    word = word << bits | codes[i];
    for (held += bits; held >= 8; held -= 8) *values++ = (uint8_t)(word >> (held - 8));
  }
  if (held) *values = (uint8_t)(word << (8 - held));
  return (int64_t)total;
}

static int decode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                  const uint8_t *data, uint32_t size) {
  (void)zero_point, (void)state;
  uint64_t count = (uint64_t)rows * width * channels, mask = (count + 7) / 8, kept = 0;
  if (size < 1 + mask || data[0] > 8) return 1;
  unsigned bits = data[0], held = 0;
  const uint8_t *map = data + 1, *values = map + mask;
  for (uint64_t i = 0; i < count; i++) kept += map[i >> 3] >> (7 - (i & 7)) & 1;
  if (size != 1 + mask + (kept * bits + 7) / 8) return 1;
  uint32_t word = 0;
  for (uint64_t i = 0; i < count; i++) {
    codes[i] = 0;
    if (!(map[i >> 3] >> (7 - (i & 7)) & 1)) continue;
    for (; held < bits; held += 8) word = word << 8 | *values++;
    held -= bits;
    codes[i] = (uint8_t)(word >> held & ((1u << bits) - 1));
  }
  return 0;
}

const ergo_slot_codec ergo_codec_bitmask = {ERGO_BITMASK, state_bytes, encode, decode};
