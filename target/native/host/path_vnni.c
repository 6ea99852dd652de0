/* AVX-512 with VNNI: uint8 x int8 in fours, summed in 32 bits (vpdpbusd, which does not saturate). Inputs are x + 128.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#include "path_shared.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#include <immintrin.h>

#define ROWS 12
#define VECTORS 2

static int usable(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

ERGO_INLINE __mmask64 first_of(size_t count) { return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }

static void copy(void *to, const int8_t *from, size_t count, int zero_point) {
  (void)zero_point;
  const __m512i flip = _mm512_set1_epi8(-128);
  uint8_t *out = to;
  for (; count >= 64; count -= 64, from += 64, out += 64)
    _mm512_storeu_si512(out, _mm512_xor_si512(_mm512_loadu_si512(from), flip));
  __mmask64 rest = first_of(count);
  if (rest) _mm512_mask_storeu_epi8(out, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, from), flip));
}

ERGO_INLINE void some_rows(const int rows, const uint8_t *a, size_t a_step, const int8_t *w, size_t steps, int32_t *acc) {
  __m512i sum[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm512_setzero_si512();
  for (size_t k = 0; k < steps; k++, w += 128) {
    const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      int32_t four;
      memcpy(&four, a + (size_t)r * a_step + 4 * k, 4);
      const __m512i x = _mm512_set1_epi32(four);
      sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], x, w0), sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], x, w1);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
    _mm512_storeu_si512(acc + 32 * r, sum[r][0]), _mm512_storeu_si512(acc + 32 * r + 16, sum[r][1]);
}

static void tile(const void *patches, size_t a_step, int rows, const void *weights, size_t steps, int32_t *acc) {
  ERGO_TILE(some_rows, ROWS, 4, 16 * VECTORS);
}

typedef struct lanes { /* of sixteen channels */
  __m512i mult_even, mult_odd, add_even, add_odd, shift_even, shift_odd;
} lanes;

ERGO_INLINE lanes lanes_at(const int64_t *n) {
  lanes l = {_mm512_loadu_si512(n),      _mm512_loadu_si512(n + 8),  _mm512_loadu_si512(n + 16),
             _mm512_loadu_si512(n + 24), _mm512_loadu_si512(n + 32), _mm512_loadu_si512(n + 40)};
  return l;
}

/* Sixteen int32 between -128 and 127. */
ERGO_INLINE __m512i scaled(__m512i acc, const lanes *l, __m512i low, __m512i high, __m512i zp) {
  __m512i even = _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(acc, l->mult_even), l->add_even), l->shift_even);
  __m512i odd = _mm512_srav_epi64(
      _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(acc, 32), l->mult_odd), l->add_odd), l->shift_odd);
  even = _mm512_min_epi64(_mm512_max_epi64(even, low), high), odd = _mm512_min_epi64(_mm512_max_epi64(odd, low), high);
  return _mm512_add_epi32(_mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)), zp);
}

static void store(const int32_t *acc, int rows, int channels, const ergo_scales *s, size_t first_group,
                  uint8_t *const *to) {
  const __m512i low = _mm512_set1_epi64(s->lo - s->zp), high = _mm512_set1_epi64(s->hi - s->zp),
                zp = _mm512_set1_epi32((int)s->zp);
  for (int first = 0; first < channels; first += 16) {
    size_t group = first_group + (size_t)first / 16;
    __mmask16 mask = channels - first >= 16 ? 0xFFFF : (__mmask16)((1u << (channels - first)) - 1);
    if (s->to_i32) {
      const __m512i add = _mm512_loadu_si512(s->raw + 16 * group);
      for (int r = 0; r < rows; r++)
        _mm512_mask_storeu_epi32(to[r] + 4 * first, mask,
                                 _mm512_add_epi32(_mm512_loadu_si512(acc + 32 * r + first), add));
      continue;
    }
    const lanes l = lanes_at(s->numbers + 48 * group);
    for (int r = 0; r < rows; r++) {
      const __m512i value = scaled(_mm512_loadu_si512(acc + 32 * r + first), &l, low, high, zp);
      if (s->to_i16)
        _mm512_mask_cvtepi32_storeu_epi16(to[r] + 2 * first, mask, value);
      else
        _mm512_mask_cvtepi32_storeu_epi8(to[r] + first, mask, value);
    }
  }
}

/* Four bytes of a channel lie together after two rounds of interleaving within 128-bit lanes: sums come in this order
 * of channels. */
static int order(int place) { return place % 16 / 4 * 16 + place / 16 * 4 + place % 4; }

/* A tap of one, two or four pixels, whose channels lie in halves or quarters. */
ERGO_INLINE __m512i tap_of(const int pixels, const int8_t *const *place, size_t taps, size_t channel, __mmask64 mask) {
  if (pixels == 1) return _mm512_maskz_loadu_epi8(mask, place[0] + channel);
  if (pixels == 2)
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8((__mmask32)mask, place[0] + channel)),
                              _mm256_maskz_loadu_epi8((__mmask32)mask, place[taps] + channel), 1);
  __m128i quarter[4];
  for (size_t i = 0; i < 4; i++) quarter[i] = _mm_maskz_loadu_epi8((__mmask16)mask, place[i * taps] + channel);
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(quarter[1], quarter[0])),
                            _mm256_set_m128i(quarter[3], quarter[2]), 1);
}

ERGO_INLINE void some_pixels(const int pixels, const int8_t *const *places, size_t taps, size_t channel, int channels,
                        const int8_t *w, const ergo_scales *s, uint8_t *const *to) {
  const __mmask64 mask = first_of((size_t)channels);
  const __m512i flip = _mm512_set1_epi8(-128);
  const int each = 64 / pixels;
  __m512i sum[4];
  for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_si512();
  for (size_t tap = 0; tap < taps; tap += 4, w += 256) {
    __m512i x[4];
    for (size_t i = 0; i < 4; i++) x[i] = _mm512_xor_si512(tap_of(pixels, places + tap + i, taps, channel, mask), flip);
    __m512i low01 = _mm512_unpacklo_epi8(x[0], x[1]), high01 = _mm512_unpackhi_epi8(x[0], x[1]);
    __m512i low23 = _mm512_unpacklo_epi8(x[2], x[3]), high23 = _mm512_unpackhi_epi8(x[2], x[3]);
    sum[0] = _mm512_dpbusd_epi32(sum[0], _mm512_unpacklo_epi16(low01, low23), _mm512_loadu_si512(w));
    sum[1] = _mm512_dpbusd_epi32(sum[1], _mm512_unpackhi_epi16(low01, low23), _mm512_loadu_si512(w + 64));
    sum[2] = _mm512_dpbusd_epi32(sum[2], _mm512_unpacklo_epi16(high01, high23), _mm512_loadu_si512(w + 128));
    sum[3] = _mm512_dpbusd_epi32(sum[3], _mm512_unpackhi_epi16(high01, high23), _mm512_loadu_si512(w + 192));
  }
  if (s->to_i32) {
    int32_t all[64];
    for (int i = 0; i < 4; i++) _mm512_storeu_si512(all + 16 * i, sum[i]);
    ergo_put_raw(all, 64, each, channels, order, s->raw, to);
    return;
  }
  const __m512i low = _mm512_set1_epi64(s->lo - s->zp), high = _mm512_set1_epi64(s->hi - s->zp),
                zp = _mm512_set1_epi32((int)s->zp);
  for (int i = 0; i < 4; i++) {
    const lanes l = lanes_at(s->numbers + 48 * i);
    sum[i] = scaled(sum[i], &l, low, high, zp);
  }
  const __m512i all = _mm512_packs_epi16(_mm512_packs_epi32(sum[0], sum[1]), _mm512_packs_epi32(sum[2], sum[3]));
  if (pixels == 1) {
    _mm512_mask_storeu_epi8(to[0], mask, all);
  } else if (pixels == 2) {
    _mm256_mask_storeu_epi8(to[0], (__mmask32)mask, _mm512_castsi512_si256(all)),
        _mm256_mask_storeu_epi8(to[1], (__mmask32)mask, _mm512_extracti64x4_epi64(all, 1));
  } else {
    _mm_mask_storeu_epi8(to[0], (__mmask16)mask, _mm512_castsi512_si128(all)),
        _mm_mask_storeu_epi8(to[1], (__mmask16)mask, _mm512_extracti32x4_epi32(all, 1));
    _mm_mask_storeu_epi8(to[2], (__mmask16)mask, _mm512_extracti32x4_epi32(all, 2)),
        _mm_mask_storeu_epi8(to[3], (__mmask16)mask, _mm512_extracti32x4_epi32(all, 3));
  }
}

static void depth(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels, const void *w,
                  const ergo_scales *s, int zero_point, uint8_t *const *to) {
  (void)zero_point;
  if (pixels == 1)
    some_pixels(1, places, taps, channel, channels, w, s, to);
  else if (pixels == 2)
    some_pixels(2, places, taps, channel, channels, w, s, to);
  else
    some_pixels(4, places, taps, channel, channels, w, s, to);
}

const ergo_path ergo_path_vnni = {"avx512_vnni", usable, ROWS, 16 * VECTORS, 4, 1, 128, 16,   copy,
                                  tile,          store,  4,    64,           4, order, depth};

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
typedef int ergo_no_vnni;
#endif
