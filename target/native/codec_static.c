/* STATIC: the codes in `rans`, over the built-in tables. target/codecs/static.py */
#include "rans.h"

/* target/codecs/static_default.py: FEATURES. */
static const uint16_t features[18][16] = {
    {3531, 114, 68, 47, 68, 46, 60, 38, 44, 24, 24, 12, 10, 5, 3, 2},
    {2421, 818, 278, 159, 158, 81, 79, 36, 33, 13, 10, 4, 3, 1, 1, 1},
    {1689, 1035, 488, 243, 244, 124, 121, 57, 50, 19, 14, 5, 3, 2, 1, 1},
    {1641, 704, 608, 363, 322, 154, 143, 63, 52, 20, 14, 5, 3, 2, 1, 1},
    {1262, 472, 746, 491, 487, 222, 200, 88, 70, 26, 18, 6, 4, 2, 1, 1},
    {991, 314, 419, 762, 740, 325, 275, 114, 87, 32, 22, 7, 4, 2, 1, 1},
    {801, 208, 261, 348, 1054, 574, 455, 176, 129, 44, 28, 9, 5, 2, 1, 1},
    {620, 136, 161, 184, 546, 1008, 830, 288, 199, 64, 38, 11, 6, 2, 2, 1},
    {482, 90, 104, 111, 276, 420, 1451, 594, 365, 109, 63, 17, 8, 3, 2, 1},
    {383, 61, 67, 69, 159, 199, 653, 1318, 802, 218, 118, 29, 13, 4, 2, 1},
    {311, 40, 44, 45, 96, 113, 297, 490, 1721, 566, 275, 62, 26, 6, 3, 1},
    {246, 25, 26, 27, 55, 61, 146, 194, 709, 1636, 746, 151, 57, 11, 4, 2},
    {199, 15, 17, 16, 34, 36, 80, 99, 284, 525, 2119, 466, 164, 30, 9, 3},
    {183, 9, 10, 10, 19, 20, 45, 51, 126, 177, 713, 1995, 601, 105, 26, 6},
    {137, 5, 5, 5, 10, 11, 22, 25, 56, 76, 235, 494, 2461, 440, 96, 18},
    {119, 3, 3, 3, 5, 5, 10, 11, 23, 26, 74, 112, 622, 2523, 488, 69},
    {62, 2, 2, 2, 3, 3, 4, 5, 10, 12, 29, 43, 162, 481, 2993, 283},
    {108, 2, 2, 2, 2, 3, 4, 4, 11, 9, 21, 24, 72, 111, 657, 3064},
};

static int64_t encode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                      uint8_t *out, int64_t capacity) {
  (void)zero_point;
  return ergo_rans_encode(features, codes, rows, width, channels, state, out, capacity);
}

static int decode(uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels, int zero_point, void *state,
                  const uint8_t *data, uint32_t size) {
  (void)zero_point, (void)state;
  return ergo_rans_decode(features, codes, rows, width, channels, data, size);
}

const ergo_slot_codec ergo_codec_static = {ERGO_STATIC, ergo_rans_bytes, encode, decode};
