/* Real values, exponential and sigmoid in integers. */
#include "ergo_internal.h"
#include "ergo_post.h"

#define LOG2_E 1549082005 /* in 2**-30 */
#define LN_2 744261118u

/* 2**(i/32) and 2**(i/1024), in 2**-30 */
static const uint32_t coarse[32] = {
    1073741824u, 1097253708u, 1121280436u, 1145833280u, 1170923762u, 1196563654u, 1222764986u, 1249540052u,
    1276901417u, 1304861917u, 1333434672u, 1362633090u, 1392470869u, 1422962010u, 1454120821u, 1485961921u,
    1518500250u, 1551751076u, 1585730000u, 1620452965u, 1655936265u, 1692196547u, 1729250827u, 1767116489u,
    1805811301u, 1845353420u, 1885761398u, 1927054196u, 1969251188u, 2012372174u, 2056437387u, 2101467502u,
};
static const uint32_t fine[32] = {
    1073741824u, 1074468888u, 1075196443u, 1075924492u, 1076653033u, 1077382068u, 1078111597u, 1078841619u,
    1079572136u, 1080303147u, 1081034654u, 1081766656u, 1082499153u, 1083232146u, 1083965636u, 1084699622u,
    1085434106u, 1086169087u, 1086904565u, 1087640541u, 1088377016u, 1089113990u, 1089851462u, 1090589434u,
    1091327906u, 1092066877u, 1092806349u, 1093546322u, 1094286796u, 1095027771u, 1095769248u, 1096511227u,
};

int32_t ergo_element(const ergo_tensor *t, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint8_t *p = t->data + (int64_t)a * t->strides[0] + (int64_t)b * t->strides[1] + (int64_t)c * t->strides[2] +
                     (int64_t)d * t->strides[3];
  switch (t->dtype) {
    case ERGO_I8:
      return (int8_t)*p;
    case ERGO_U8:
      return *p;
    case ERGO_I16:
      return (int16_t)(uint16_t)(p[0] | p[1] << 8);
    default:
      return ergo_i32(p);
  }
}

int32_t ergo_real(const ergo_values *s, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const ergo_tensor *scales = &s->scales;
  uint32_t group = scales->shape[1] > 1 ? c : 0, channel = scales->shape[2] > 1 ? d : 0;
  const uint8_t *p = scales->data + (int64_t)group * scales->strides[1] + (int64_t)channel * scales->strides[2];
  int64_t value = (int64_t)ergo_element(&s->x, a, b, c, d) - ergo_i32(p + 2 * (int64_t)scales->strides[3]);
  value = ergo_scale(value, ergo_i32(p), ergo_i32(p + scales->strides[3]));
  return (int32_t)(value > ERGO_MOST_REAL ? ERGO_MOST_REAL : value < -ERGO_MOST_REAL ? -ERGO_MOST_REAL : value);
}

int ergo_scales_hold(const ergo_tensor *scales) {
  for (uint32_t b = 0; b < scales->shape[1]; b++)
    for (uint32_t c = 0; c < scales->shape[2]; c++) {
      int32_t multiplier = ergo_element(scales, 0, b, c, 0), shift = ergo_element(scales, 0, b, c, 1);
      if (multiplier < 0 || multiplier >= 1 << 24 || shift < 0 || shift > 62) return 0;
    }
  return 1;
}

/* e**x = m * 2**(n - 30) with m in [2**30, 2**31). */
static uint32_t power(int32_t x, int *n) {
  int64_t t = (int64_t)x * LOG2_E; /* in 2**-46 */
  *n = (int)ergo_floor_shift(t, 46);
  uint32_t f = (uint32_t)((uint64_t)t >> 14); /* in 2**-32 */
  uint64_t m = ((uint64_t)coarse[f >> 27] * fine[f >> 22 & 31]) >> 30;
  uint64_t rest = ((uint64_t)(f & 0x3FFFFFu) * LN_2) >> 30;
  return (uint32_t)(m + (m * rest >> 32));
}

int32_t ergo_exp(int32_t x) {
  int n;
  uint32_t m = power(x, &n);
  if (n >= 15) return INT32_MAX;
  return n < 14 - 31 ? 0 : (int32_t)(m >> (14 - n));
}

int32_t ergo_exp_below(int32_t x) {
  int n;
  uint32_t m = power(x, &n);
  return n < -31 ? 0 : (int32_t)(m >> -n);
}

int32_t ergo_sigmoid(int32_t x) {
  int64_t below = ergo_exp_below(x < 0 ? x : -x);
  int32_t above = (int32_t)(((int64_t)1 << 60) / (ERGO_ONE + below));
  return x < 0 ? ERGO_ONE - above : above;
}
