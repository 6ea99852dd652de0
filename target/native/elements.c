#include "elements.h"

static int16_t i16(const uint8_t *p) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  int16_t value;
  memcpy(&value, p, sizeof value);
  return value;
#else
  uint32_t u = p[0] | (uint32_t)p[1] << 8;
  return (int16_t)(u < 32768 ? (int32_t)u : (int32_t)u - 65536);
#endif
}

ERGO_WIDE void ergo_read_run(const uint8_t *place, uint8_t dtype, int64_t step, uint32_t count, int32_t *to) {
  if (dtype == ERGO_I16 && step == 2)
    for (uint32_t i = 0; i < count; i++) to[i] = i16(place + 2 * i);
  else if (dtype == ERGO_I16)
    for (uint32_t i = 0; i < count; i++) to[i] = i16(place + i * step);
  else if (step == 1)
    for (uint32_t i = 0; i < count; i++) to[i] = (int8_t)place[i];
  else
    for (uint32_t i = 0; i < count; i++) to[i] = (int8_t)place[i * step];
}

ergo_finish ergo_finish_of(const ergo_ins *ins, const ergo_operand *out, int64_t mult, unsigned first) {
  const int64_t *v = ins->v + first;
  ergo_finish f = {mult, v[1], v[2], v[3], (int)v[0], out->dtype};
  if (out->dtype == ERGO_I16) f.zp = 0, f.lo = INT16_MIN, f.hi = INT16_MAX;
  return f;
}

ERGO_WIDE void ergo_write_run(const ergo_finish *f, const int64_t *values, uint32_t count, uint8_t *place,
                              int64_t step) {
  const int64_t mult = f->mult, half = f->shift ? (int64_t)1 << (f->shift - 1) : 0, zp = f->zp, lo = f->lo, hi = f->hi;
  const int shift = f->shift;
  int16_t result[ERGO_RUN];
  for (uint32_t i = 0; i < count; i++) {
    int64_t y = ((values[i] * mult + half) >> shift) + zp;
    y = y < lo ? lo : y;
    result[i] = (int16_t)(y > hi ? hi : y);
  }
  if (f->dtype == ERGO_I16 && step == 2)
    for (uint32_t i = 0; i < count; i++) place[2 * i] = (uint8_t)result[i], place[2 * i + 1] = (uint8_t)(result[i] >> 8);
  else if (f->dtype == ERGO_I16)
    for (uint32_t i = 0; i < count; i++) ergo_put_i16(place + i * step, result[i]);
  else
    for (uint32_t i = 0; i < count; i++) place[i * step] = (uint8_t)result[i];
}

int ergo_broadcasts(const ergo_operand *t, const ergo_operand *out) {
  if (t->rank > out->rank) return 0;
  for (unsigned i = 0; i < t->rank; i++)
    if (t->shape[i] != 1 && t->shape[i] != out->shape[out->rank - t->rank + i]) return 0;
  return 1;
}

int ergo_same_shape(const ergo_operand *a, const ergo_operand *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, sizeof a->shape);
}
