/* AVX2: int16 x int16 in pairs, summed in 32 bits (vpmaddwd). Inputs are x less their zero point, so that nothing
 * saturates. */
#if defined(__x86_64__) && defined(__GNUC__)
#include "path_shared.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#include <immintrin.h>

#define ROWS 6
#define WIDTH 16

static int usable(void) { return __builtin_cpu_supports("avx2"); }

ERGO_INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

static void copy(void *to, const int8_t *from, size_t count, int zero_point) {
  const __m256i zp = _mm256_set1_epi16((short)zero_point);
  int16_t *out = to;
  for (; count >= 16; count -= 16, from += 16, out += 16)
    _mm256_storeu_si256((__m256i *)out,
                        _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from)), zp));
  for (; count; count--) *out++ = (int16_t)(*from++ - zero_point);
}

ERGO_INLINE void some_rows(const int rows, const uint8_t *a, size_t a_step, const int16_t *w, size_t steps, int32_t *acc) {
  __m256i sum[ROWS][2];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (size_t k = 0; k < steps; k++, w += 32) {
    const __m256i w0 = load(w), w1 = load(w + 16);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
      int32_t two;
      memcpy(&two, a + (size_t)r * a_step + 4 * k, 4);
      const __m256i x = _mm256_set1_epi32(two);
      sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(x, w0)),
      sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(x, w1));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
    _mm256_storeu_si256((__m256i *)(acc + WIDTH * r), sum[r][0]),
        _mm256_storeu_si256((__m256i *)(acc + WIDTH * r + 8), sum[r][1]);
}

static void tile(const void *patches, size_t a_step, int rows, const void *weights, size_t steps, int32_t *acc) {
  ERGO_TILE(some_rows, ROWS, 2, WIDTH);
}

/* floor(value / 2**shift) of signed 64-bit numbers above -2**62: offset, so that a logical shift does it. */
ERGO_INLINE __m256i shifted(__m256i value, __m256i shift) {
  const __m256i offset = _mm256_set1_epi64x((int64_t)1 << 62);
  return _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_add_epi64(value, offset), shift), _mm256_srlv_epi64(offset, shift));
}

ERGO_INLINE __m256i clipped(__m256i value, __m256i low, __m256i high) {
  value = _mm256_blendv_epi8(value, low, _mm256_cmpgt_epi64(low, value));
  return _mm256_blendv_epi8(value, high, _mm256_cmpgt_epi64(value, high));
}

/* Eight int32 between -128 and 127. */
ERGO_INLINE __m256i scaled(__m256i acc, const int64_t *n, const ergo_scales *s) {
  const __m256i low = _mm256_set1_epi64x(s->lo - s->zp), high = _mm256_set1_epi64x(s->hi - s->zp),
                zp = _mm256_set1_epi32((int)s->zp);
  __m256i even = shifted(_mm256_add_epi64(_mm256_mul_epi32(acc, load(n)), load(n + 8)), load(n + 16));
  __m256i odd =
      shifted(_mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), load(n + 4)), load(n + 12)), load(n + 20));
  even = clipped(even, low, high), odd = clipped(odd, low, high);
  return _mm256_add_epi32(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA), zp);
}

static void store(const int32_t *acc, int rows, int channels, const ergo_scales *s, size_t first_group,
                  uint8_t *const *to) {
  for (int r = 0; r < rows; r++)
    for (int first = 0; first < channels; first += 8) {
      size_t group = first_group + (size_t)first / 8, count = channels - first < 8 ? (size_t)(channels - first) : 8;
      __m256i sum = load(acc + WIDTH * r + first);
      int32_t raw[8];
      if (s->to_i32) {
        _mm256_storeu_si256((__m256i *)raw, _mm256_add_epi32(sum, load(s->raw + 8 * group)));
        memcpy(to[r] + 4 * first, raw, 4 * count);
        continue;
      }
      __m256i value = scaled(sum, s->numbers + 24 * group, s);
      __m128i bytes = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
      if (s->to_i16) {
        _mm_storeu_si128((__m128i *)raw, bytes);
        memcpy(to[r] + 2 * first, raw, 2 * count);
        continue;
      }
      _mm_storel_epi64((__m128i *)raw, _mm_packs_epi16(bytes, bytes));
      memcpy(to[r] + first, raw, count);
    }
}

/* Pairs of a channel lie together after interleaving within 128-bit lanes. */
static int order(int place) { return place % 8 / 4 * 8 + place / 8 * 4 + place % 4; }

ERGO_INLINE __m256i sixteen(const int8_t *x, int channels, __m256i zp) {
  int8_t some[16] = {0};
  if (channels < 16) memcpy(some, x, (size_t)channels);
  return _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(channels < 16 ? some : x))), zp);
}

static void depth(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels,
                  const void *weights, const ergo_scales *s, int zero_point, uint8_t *const *to) {
  (void)pixels;
  const __m256i zp = _mm256_set1_epi16((short)zero_point);
  const int16_t *w = weights;
  __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t tap = 0; tap < taps; tap += 2, w += 32) {
    __m256i one = sixteen(places[tap] + channel, channels, zp),
            other = sixteen(places[tap + 1] + channel, channels, zp);
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(one, other), load(w)));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(one, other), load(w + 16)));
  }
  if (s->to_i32) {
    int32_t all[16];
    _mm256_storeu_si256((__m256i *)all, sum[0]), _mm256_storeu_si256((__m256i *)(all + 8), sum[1]);
    ergo_put_raw(all, 16, 16, channels, order, s->raw, to);
    return;
  }
  const __m256i pairs = _mm256_packs_epi32(scaled(sum[0], s->numbers, s), scaled(sum[1], s->numbers + 24, s));
  int8_t bytes[16];
  _mm_storeu_si128((__m128i *)bytes,
                   _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
  memcpy(to[0], bytes, (size_t)channels);
}

const ergo_path ergo_path_avx2 = {"avx2", usable, ROWS, WIDTH, 2, 0, 0, 8, copy, tile, store, 2, 16, 1, order, depth};

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
typedef int ergo_no_avx2;
#endif
