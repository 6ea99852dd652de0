/* arm64. neon: int16 x int16, summed in 32 bits (smlal); inputs are x less their zero point. neon_dotprod: int8 x int8
 * in fours (sdot, which does not saturate); inputs are x. */
#if defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>

#include "path_shared.h"
#ifdef __linux__
#include <sys/auxv.h>
#endif

#define WIDTH 16
#define NEON_ROWS 4
#define DOT_ROWS 6
/* acc plus four products of each four bytes. Older clangs know the intrinsic only where all of a file may use it. */
#ifdef __clang__
#define DOTPROD
ERGO_INLINE int32x4_t dot(int32x4_t acc, int8x16_t a, int8x16_t b) {
  __asm__(".arch_extension dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
  return acc;
}
#else
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
DOTPROD ERGO_INLINE int32x4_t dot(int32x4_t acc, int8x16_t a, int8x16_t b) { return vdotq_s32(acc, a, b); }
#endif

static int always(void) { return 1; }

static int has_dotprod(void) {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
  return 1; /* all of them */
#else
  return 0;
#endif
}

/* Four int32, clipped, of four channels; numbers: multipliers, additions and shifts of two channels at a time. */
ERGO_INLINE int32x4_t scaled(int32x4_t acc, const int64_t *n, const ergo_scales *s) {
  int32x2_t half[2] = {vget_low_s32(acc), vget_high_s32(acc)};
  for (int i = 0; i < 2; i++, n += 6) {
    int64x2_t value = vaddq_s64(vmull_s32(half[i], vmovn_s64(vld1q_s64(n))), vld1q_s64(n + 2));
    half[i] = vqmovn_s64(vshlq_s64(value, vnegq_s64(vld1q_s64(n + 4)))); /* shifts down round to the floor */
  }
  int32x4_t all = vcombine_s32(half[0], half[1]);
  all = vmaxq_s32(all, vdupq_n_s32((int32_t)(s->lo - s->zp))), all = vminq_s32(all, vdupq_n_s32((int32_t)(s->hi - s->zp)));
  return vaddq_s32(all, vdupq_n_s32((int32_t)s->zp));
}

/* Sixteen sums of neighbouring channels, `channels` of which there are. */
ERGO_INLINE void put(const int32x4_t *acc, int channels, const int64_t *numbers, const int32_t *raw, const ergo_scales *s,
                uint8_t *to) {
  int32x4_t value[4];
  uint8_t bytes[64];
  size_t size = s->to_i32 ? 4 : s->to_i16 ? 2 : 1;
  for (int i = 0; i < 4; i++) {
    if (4 * i >= channels)
      value[i] = vdupq_n_s32(0);
    else
      value[i] = s->to_i32 ? vaddq_s32(acc[i], vld1q_s32(raw + 4 * i)) : scaled(acc[i], numbers + 12 * i, s);
  }
  uint8_t *out = channels == WIDTH ? to : bytes;
  if (s->to_i32) {
    for (int i = 0; i < 4; i++) vst1q_u8(out + 16 * i, vreinterpretq_u8_s32(value[i]));
  } else {
    int16x8_t low = vcombine_s16(vmovn_s32(value[0]), vmovn_s32(value[1])),
              high = vcombine_s16(vmovn_s32(value[2]), vmovn_s32(value[3]));
    if (s->to_i16)
      vst1q_u8(out, vreinterpretq_u8_s16(low)), vst1q_u8(out + 16, vreinterpretq_u8_s16(high));
    else
      vst1q_u8(out, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high))));
  }
  if (out != to) memcpy(to, bytes, size * (size_t)channels);
}

static void store(const int32_t *acc, int rows, int channels, const ergo_scales *s, size_t first_group,
                  uint8_t *const *to) {
  for (int r = 0; r < rows; r++, acc += WIDTH) {
    int32x4_t sums[4] = {vld1q_s32(acc), vld1q_s32(acc + 4), vld1q_s32(acc + 8), vld1q_s32(acc + 12)};
    put(sums, channels, s->numbers + 6 * first_group, s->raw + 2 * first_group, s, to[r]);
  }
}

static int order(int place) { return place; }

ERGO_INLINE int8x16_t sixteen(const int8_t *x, int channels) {
  int8_t some[16] = {0};
  if (channels < 16) memcpy(some, x, (size_t)channels), x = some;
  return vld1q_s8(x);
}

/* ---- int16 ---- */
static void copy_words(void *to, const int8_t *from, size_t count, int zero_point) {
  const int16x8_t zp = vdupq_n_s16((int16_t)zero_point);
  int16_t *out = to;
  for (; count >= 16; count -= 16, from += 16, out += 16) {
    int8x16_t x = vld1q_s8(from);
    vst1q_s16(out, vsubq_s16(vmovl_s8(vget_low_s8(x)), zp)), vst1q_s16(out + 8, vsubq_s16(vmovl_high_s8(x), zp));
  }
  for (; count; count--) *out++ = (int16_t)(*from++ - zero_point);
}

#define LANE(r, lane)                                                               \
  sum[r][0] = vmlal_lane_s16(sum[r][0], vget_low_s16(w##lane[0]), x[r], lane),      \
  sum[r][1] = vmlal_high_lane_s16(sum[r][1], w##lane[0], x[r], lane),               \
  sum[r][2] = vmlal_lane_s16(sum[r][2], vget_low_s16(w##lane[1]), x[r], lane),      \
  sum[r][3] = vmlal_high_lane_s16(sum[r][3], w##lane[1], x[r], lane)

ERGO_INLINE void some_rows(const int rows, const uint8_t *a, size_t a_step, const int16_t *w, size_t steps, int32_t *acc) {
  int32x4_t sum[NEON_ROWS][4];
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < 4; i++) sum[r][i] = vdupq_n_s32(0);
  size_t k = 0;
  for (; k + 4 <= steps; k += 4, w += 4 * WIDTH) {
    const int16x8_t w0[2] = {vld1q_s16(w), vld1q_s16(w + 8)}, w1[2] = {vld1q_s16(w + 16), vld1q_s16(w + 24)},
                    w2[2] = {vld1q_s16(w + 32), vld1q_s16(w + 40)}, w3[2] = {vld1q_s16(w + 48), vld1q_s16(w + 56)};
    int16x4_t x[NEON_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) x[r] = vld1_s16((const int16_t *)(const void *)(a + (size_t)r * a_step) + k);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) LANE(r, 0), LANE(r, 1), LANE(r, 2), LANE(r, 3);
  }
  for (; k < steps; k++, w += WIDTH) {
    const int16x8_t low = vld1q_s16(w), high = vld1q_s16(w + 8);
    for (int r = 0; r < rows; r++) {
      const int16_t x = ((const int16_t *)(const void *)(a + (size_t)r * a_step))[k];
      sum[r][0] = vmlal_n_s16(sum[r][0], vget_low_s16(low), x), sum[r][1] = vmlal_high_n_s16(sum[r][1], low, x);
      sum[r][2] = vmlal_n_s16(sum[r][2], vget_low_s16(high), x), sum[r][3] = vmlal_high_n_s16(sum[r][3], high, x);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < 4; i++) vst1q_s32(acc + WIDTH * r + 4 * i, sum[r][i]);
}

static void tile_words(const void *patches, size_t a_step, int rows, const void *weights, size_t steps, int32_t *acc) {
  ERGO_TILE(some_rows, NEON_ROWS, 2, WIDTH);
}

static void depth_words(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels,
                        const void *weights, const ergo_scales *s, int zero_point, uint8_t *const *to) {
  (void)pixels;
  const int16x8_t zp = vdupq_n_s16((int16_t)zero_point);
  const int16_t *w = weights;
  int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
  for (size_t tap = 0; tap < taps; tap++, w += WIDTH) {
    const int8x16_t x = sixteen(places[tap] + channel, channels);
    const int16x8_t low = vsubq_s16(vmovl_s8(vget_low_s8(x)), zp), high = vsubq_s16(vmovl_high_s8(x), zp),
                    w0 = vld1q_s16(w), w1 = vld1q_s16(w + 8);
    sum[0] = vmlal_s16(sum[0], vget_low_s16(low), vget_low_s16(w0)), sum[1] = vmlal_high_s16(sum[1], low, w0);
    sum[2] = vmlal_s16(sum[2], vget_low_s16(high), vget_low_s16(w1)), sum[3] = vmlal_high_s16(sum[3], high, w1);
  }
  put(sum, channels, s->numbers, s->raw, s, to[0]);
}

/* ---- int8 ---- */
static void copy_bytes(void *to, const int8_t *from, size_t count, int zero_point) {
  (void)zero_point;
  memcpy(to, from, count);
}

DOTPROD ERGO_INLINE void some_dot_rows(const int rows, const uint8_t *a, size_t a_step, const int8_t *w, size_t steps,
                                  int32_t *acc) {
  int32x4_t sum[DOT_ROWS][4];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < 4; i++) sum[r][i] = vdupq_n_s32(0);
  for (size_t k = 0; k < steps; k++, w += 4 * WIDTH) {
    const int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), w2 = vld1q_s8(w + 32), w3 = vld1q_s8(w + 48);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      int32_t four;
      memcpy(&four, a + (size_t)r * a_step + 4 * k, 4);
      const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
      sum[r][0] = dot(sum[r][0], w0, x), sum[r][1] = dot(sum[r][1], w1, x);
      sum[r][2] = dot(sum[r][2], w2, x), sum[r][3] = dot(sum[r][3], w3, x);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < 4; i++) vst1q_s32(acc + WIDTH * r + 4 * i, sum[r][i]);
}

DOTPROD static void tile_bytes(const void *patches, size_t a_step, int rows, const void *weights, size_t steps,
                               int32_t *acc) {
  ERGO_TILE(some_dot_rows, DOT_ROWS, 2, WIDTH);
}

static void depth_bytes(const int8_t *const *places, size_t taps, size_t channel, int channels, int pixels,
                        const void *weights, const ergo_scales *s, int zero_point, uint8_t *const *to) {
  (void)pixels, (void)zero_point;
  const int8_t *w = weights;
  int32x4_t sum[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
  for (size_t tap = 0; tap < taps; tap++, w += WIDTH) {
    const int8x16_t x = sixteen(places[tap] + channel, channels), factors = vld1q_s8(w);
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(factors)), high = vmull_high_s8(x, factors);
    sum[0] = vaddw_s16(sum[0], vget_low_s16(low)), sum[1] = vaddw_high_s16(sum[1], low);
    sum[2] = vaddw_s16(sum[2], vget_low_s16(high)), sum[3] = vaddw_high_s16(sum[3], high);
  }
  put(sum, channels, s->numbers, s->raw, s, to[0]);
}

const ergo_path ergo_path_neon = {"neon",     always, NEON_ROWS, WIDTH, 1, 0,     0,          2, copy_words,
                                  tile_words, store,  1,         WIDTH, 1, order, depth_words};
const ergo_path ergo_path_neon_dotprod = {"neon_dotprod", has_dotprod, DOT_ROWS, WIDTH, 4,     1,          0, 2,
                                          copy_bytes,     tile_bytes,  store,    1,     WIDTH, 1,          order,
                                          depth_bytes};
#else
typedef int ergo_no_neon;
#endif
