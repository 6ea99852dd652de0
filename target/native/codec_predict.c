/* PREDICT: every value less what its neighbours let expect, in `rans`. target/codecs/predict.py
 *
 * Slots have no previous tensor: only the two predictions in space are there, with and without the error of the channel
 * before. */
#include "rans.h"

#define OUTSIDE 128
#define PREDICTIONS 2u

/* target/codecs/static_default.py: RESIDUALS. */
static const uint16_t residuals[18][16] = {
    {3112, 250, 252, 136, 197, 76, 33, 12, 9, 4, 4, 2, 3, 2, 2, 2},
    {1926, 588, 686, 254, 379, 153, 67, 19, 12, 4, 3, 1, 1, 1, 1, 1},
    {1765, 671, 601, 299, 405, 167, 103, 33, 25, 10, 7, 4, 3, 1, 1, 1},
    {1520, 608, 589, 375, 580, 220, 123, 37, 24, 8, 5, 2, 2, 1, 1, 1},
    {1357, 589, 595, 403, 574, 275, 174, 56, 40, 14, 9, 4, 3, 1, 1, 1},
    {1089, 563, 553, 428, 658, 339, 258, 93, 64, 23, 15, 5, 4, 2, 1, 1},
    {819, 492, 489, 403, 671, 427, 413, 168, 122, 43, 28, 10, 6, 2, 2, 1},
    {557, 381, 399, 333, 628, 475, 593, 302, 242, 88, 58, 20, 12, 4, 3, 1},
    {359, 282, 295, 261, 513, 452, 689, 442, 433, 173, 121, 40, 23, 7, 4, 2},
    {248, 208, 213, 198, 397, 368, 646, 507, 633, 301, 234, 77, 46, 12, 6, 2},
    {181, 159, 162, 155, 306, 286, 534, 476, 721, 436, 402, 149, 91, 24, 11, 3},
    {136, 123, 121, 118, 234, 225, 429, 395, 680, 519, 602, 266, 175, 45, 23, 5},
    {109, 99, 97, 97, 192, 180, 349, 329, 591, 499, 704, 390, 314, 94, 43, 9},
    {91, 81, 80, 84, 156, 151, 290, 268, 490, 444, 710, 470, 492, 181, 90, 18},
    {89, 73, 74, 74, 134, 128, 234, 228, 418, 373, 644, 493, 621, 295, 182, 36},
    {104, 70, 71, 60, 129, 109, 221, 192, 349, 309, 548, 452, 678, 392, 331, 81},
    {115, 60, 69, 73, 129, 119, 212, 178, 328, 288, 503, 442, 586, 421, 425, 148},
    {561, 153, 115, 85, 156, 141, 249, 178, 234, 204, 344, 318, 528, 313, 375, 142},
};

static size_t count_of(uint32_t rows, uint32_t width, uint32_t channels) { return (size_t)rows * width * channels; }

/* Values, residuals of a prediction, and the entropy coder's own. */
static size_t state_bytes(uint32_t rows, uint32_t width, uint32_t channels) {
  return 2 * ERGO_ROUND(count_of(rows, width, channels)) + ergo_rans_bytes(rows, width, channels);
}

/* The distance code of every x + 128; and back. */
static void tables_of(int zero_point, uint8_t *code_of, uint8_t *value_of) {
  int both = zero_point + 128 < 127 - zero_point ? zero_point + 128 : 127 - zero_point;
  for (int x = -128; x < 128; x++) {
    int d = x - zero_point, size = d < 0 ? -d : d, code = size <= both ? (d > 0 ? 2 * d - 1 : -2 * d) : size + both;
    code_of[x + 128] = (uint8_t)code, value_of[code] = (uint8_t)(x + 128);
  }
}

/* The median of left, upper and left + upper - upper left; x: the value's place, neighbours before it. */
static int expected(const uint8_t *x, uint64_t row, uint64_t column, size_t width, size_t channels) {
  const uint8_t *above = x - width * channels;
  if (!row && !column) return OUTSIDE;
  if (!row) return *(x - channels);
  if (!column) return *above;
  int left = *(x - channels), up = *above, low = left < up ? left : up, high = left < up ? up : left,
      plane = left + up - *(above - channels);
  return plane < low ? low : plane > high ? high : plane;
}

static unsigned bit_length(unsigned value) {
  unsigned n = 0;
  while (value >> n) n++;
  return n;
}

/* Codes of the residuals, and the sum of their logarithms. */
static uint64_t predict(const uint8_t *x, uint32_t rows, uint32_t width, uint32_t channels, int joint,
                        const uint8_t *code_of, uint8_t *codes) {
  uint64_t bits = 0;
  for (uint32_t y = 0; y < rows; y++)
    for (uint32_t column = 0; column < width; column++)
      for (uint32_t c = 0, before = 0; c < channels; c++, x++, codes++) {
        unsigned error = (unsigned)*x - (unsigned)expected(x, y, column, width, channels);
        *codes = code_of[(error - (joint ? before : 0) + 128) & 255];
        before = error, bits += bit_length(*codes + 1u);
      }
  return bits;
}

static int64_t encode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                      uint8_t *out, int64_t capacity) {
  size_t count = count_of(rows, width, channels);
  uint8_t *x = state, *errors = x + ERGO_ROUND(count), code_of[256], value_of[256], *coder = errors + ERGO_ROUND(count);
  tables_of(zero_point, code_of, value_of);
  for (size_t i = 0; i < count; i++) x[i] = value_of[codes[i]];
  tables_of(0, code_of, value_of);
  uint64_t alone = predict(x, rows, width, channels, 0, code_of, errors);
  int joint = predict(x, rows, width, channels, 1, code_of, errors) < alone;
  if (!joint) predict(x, rows, width, channels, 0, code_of, errors);
  if (capacity < 1) return -1;
  *out = (uint8_t)joint;
  int64_t size = ergo_rans_encode(residuals, errors, rows, width, channels, coder, out + 1, capacity - 1);
  return size < 0 ? size : size + 1;
}

static int decode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                  const uint8_t *data, uint32_t size) {
  (void)state;
  uint8_t code_of[256], error_of[256], *x = codes;
  if (size < 1 || data[0] >= PREDICTIONS || ergo_rans_decode(residuals, codes, rows, width, channels, data + 1, size - 1))
    return 1;
  tables_of(0, code_of, error_of);
  for (uint32_t y = 0; y < rows; y++)
    for (uint32_t column = 0; column < width; column++)
      for (uint32_t c = 0, before = 0; c < channels; c++, x++) {
        unsigned error = error_of[*x] - 128u + (data[0] ? before : 0);
        *x = (uint8_t)((unsigned)expected(x, y, column, width, channels) + error);
        before = error;
      }
  tables_of(zero_point, code_of, error_of);
  for (size_t i = 0, count = count_of(rows, width, channels); i < count; i++) codes[i] = code_of[codes[i]];
  return 0;
}

const ergo_slot_codec ergo_codec_predict = {ERGO_PREDICT, state_bytes, encode, decode};
