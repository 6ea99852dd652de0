/* Slots: a tile of rows in so many bytes, as few low bits dropped as that takes. target/codecs/slots.py is the
 * definition. */
#include "ergo_internal.h"

#define SLOT_HEADER 4u
#define LENGTH_MASK ((1u << 27) - 1)
#define PACKED (1u << 31)
#define MOST_DROPPED 8

/* Scratch: the tile's codes, then the codec's state. */
size_t ergo_slot_scratch(const ergo_slot_codec *codec, uint32_t rows, uint32_t width, uint32_t channels) {
  return ERGO_ROUND((uint64_t)rows * width * channels) + ERGO_ROUND(codec->state_bytes(rows, width, channels));
}

static int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }
static int level_of(int x, int zero_point, int dropped) {
  return (int)ergo_floor_shift(x - zero_point + (1 << dropped >> 1), dropped);
}

/* Lowest and highest level: codes must do for all of them. */
static void levels(int zero_point, int dropped, int *below, int *above) {
  *below = -level_of(-128, zero_point, dropped), *above = level_of(127, zero_point, dropped);
  if (*below + *above + 1 > 1 << (8 - dropped)) {
    if (*above >= *below)
      --*above;
    else
      --*below;
  }
}

static void code_table(int zero_point, int dropped, uint8_t codes[256]) {
  int below, above;
  levels(zero_point, dropped, &below, &above);
  int both = below < above ? below : above;
  for (int x = -128; x < 128; x++) {
    int level = clamp(level_of(x, zero_point, dropped), -below, above), size = level < 0 ? -level : level;
    codes[x + 128] = (uint8_t)(size <= both ? (level > 0 ? 2 * size - 1 : 2 * size) : size + both);
  }
}

/* The middle of what each code stands for. */
static void value_table(int zero_point, int dropped, int8_t values[256]) {
  uint8_t codes[256], seen[256] = {0};
  int8_t first[256];
  code_table(zero_point, dropped, codes);
  memset(values, zero_point, 256);
  for (int x = -128; x < 128; x++) {
    uint8_t code = codes[x + 128];
    if (!seen[code]) seen[code] = 1, first[code] = (int8_t)x;
    if (code) values[code] = (int8_t)ergo_floor_shift(first[code] + x + 1, 1);
  }
}

static uint64_t packed_bytes(uint64_t count, unsigned width) { return (count * width + 7) / 8; }

static void pack(const uint8_t *codes, uint64_t count, unsigned width, uint8_t *out) {
  uint32_t word = 0;
  unsigned held = 0;
  for (uint64_t i = 0; i < count; i++) {
    word = word << width | codes[i];
    for (held += width; held >= 8; held -= 8) *out++ = (uint8_t)(word >> (held - 8));
  }
  if (held) *out = (uint8_t)(word << (8 - held));
}

static void unpack(const uint8_t *data, uint64_t count, unsigned width, uint8_t *codes) {
  uint32_t word = 0;
  unsigned held = 0;
  for (uint64_t i = 0; i < count; i++) {
    for (; held < width; held += 8) word = word << 8 | *data++;
    codes[i] = (uint8_t)(word >> (held - width) & ((1u << width) - 1));
    held -= width;
  }
}

ergo_status ergo_slot_read(const ergo_slot_codec *codec, const uint8_t *slot, uint32_t slot_bytes, int zero_point,
                           uint32_t rows, uint32_t width, uint32_t channels, void *scratch, int8_t *out) {
  uint64_t count = (uint64_t)rows * width * channels;
  uint32_t head = (uint32_t)ergo_i32(slot), length = head & LENGTH_MASK, dropped = head >> 27 & 15;
  uint8_t *codes = scratch;
  int8_t values[256];
  if (length > slot_bytes - SLOT_HEADER || dropped > MOST_DROPPED) return ERGO_BROKEN_CODE;
  if (head & PACKED) {
    if (length != packed_bytes(count, 8 - dropped)) return ERGO_BROKEN_CODE;
    unpack(slot + SLOT_HEADER, count, 8 - dropped, codes);
  } else if (codec->decode(codes, rows, width, channels, zero_point, codes + ERGO_ROUND(count), slot + SLOT_HEADER,
                           length)) {
    return ERGO_BROKEN_CODE;
  }
  value_table(zero_point, (int)dropped, values);
  for (uint64_t i = 0; i < count; i++) {
    if (codes[i] >> (8 - dropped)) return ERGO_BROKEN_CODE;
    out[i] = values[codes[i]];
  }
  return ERGO_OK;
}

ergo_status ergo_slot_write(const ergo_slot_codec *codec, uint8_t *slot, uint32_t slot_bytes, int zero_point,
                            uint32_t rows, uint32_t width, uint32_t channels, void *scratch, const int8_t *in,
                            int64_t *lost) {
  uint64_t count = (uint64_t)rows * width * channels, room = slot_bytes - SLOT_HEADER;
  uint8_t *codes = scratch, table[256];
  for (unsigned dropped = 0; dropped <= MOST_DROPPED; dropped++) {
    uint64_t plain = packed_bytes(count, 8 - dropped);
    int64_t coded = -1;
    code_table(zero_point, (int)dropped, table);
    for (uint64_t i = 0; i < count; i++) codes[i] = table[in[i] + 128];
    if (dropped < MOST_DROPPED)
      coded = codec->encode(codes, rows, width, channels, zero_point, codes + ERGO_ROUND(count), slot + SLOT_HEADER,
                            (int64_t)room);
    int packed = coded < 0 || (uint64_t)coded >= plain;
    if (packed && plain > room)
      continue; /* the codes are those of the next try: encoders may use up the slot's bytes */
    uint64_t length = packed ? plain : (uint64_t)coded;
    if (packed) pack(codes, count, 8 - dropped, slot + SLOT_HEADER);
    ergo_put_i32(slot, (int32_t)(length | dropped << 27 | (packed ? PACKED : 0)));
    memset(slot + SLOT_HEADER + length, 0, (size_t)(room - length));
    if (lost) lost[dropped]++;
    return ERGO_OK;
  }
  return ERGO_BROKEN_CODE; /* not reached: with all bits dropped nothing but the header is left */
}
