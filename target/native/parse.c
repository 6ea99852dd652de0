/* Instructions out of their bytes: opcode u8, wait mask u8, length u16, node u32, a u32 count per engine of the mask,
 * the fields. */
#include "ergo_internal.h"

#define HEADER_BYTES 8u
#define ENGINES 6u
#define ERGO_MOST_PARAMS 32u

typedef struct cursor {
  const uint8_t *at, *end;
  int bad;
} cursor;

static uint64_t take(cursor *c, unsigned bytes) {
  uint64_t value = 0;
  if (c->bad || (size_t)(c->end - c->at) < bytes) return c->bad = 1, 0;
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)c->at[i] << 8 * i;
  c->at += bytes;
  return value;
}

static void take_operand(cursor *c, ergo_operand *t) {
  size_t used = 0;
  if (c->bad || ergo_parse_operand(c->at, (size_t)(c->end - c->at), t, &used)) {
    c->bad = 1;
    return;
  }
  c->at += used;
}

ergo_status ergo_parse_operand(const uint8_t *bytes, size_t size, ergo_operand *t, size_t *used) {
  cursor c = {bytes, bytes + size, 0};
  memset(t, 0, sizeof *t);
  t->dtype = (uint8_t)take(&c, 1), t->codec = (uint8_t)take(&c, 1), t->rank = (uint8_t)take(&c, 1);
  uint64_t zero = take(&c, 1);
  t->addr = (uint32_t)take(&c, 4);
  if (c.bad || zero || t->dtype > ERGO_I32 || t->rank < 1 || t->rank > ERGO_MAX_RANK || t->codec > 14 || t->codec == 7)
    return ERGO_MALFORMED;
  for (unsigned i = 0; i < t->rank; i++)
    if ((t->shape[i] = (uint32_t)take(&c, 4)) < 1) return ERGO_MALFORMED;
  for (unsigned i = 0; i < t->rank; i++) {
    uint32_t stride = (uint32_t)take(&c, 4);
    if (stride == 0x80000000u) return ERGO_MALFORMED;
    t->strides[i] = stride < 0x80000000u ? (int32_t)stride : -(int32_t)(0u - stride);
  }
  *used = (size_t)(c.at - bytes);
  return c.bad ? ERGO_MALFORMED : ERGO_OK;
}

static int64_t take_signed(cursor *c, unsigned bytes) {
  uint64_t value = take(c, bytes), sign = (uint64_t)1 << (8 * bytes - 1);
  return value < sign ? (int64_t)value : (int64_t)value - (int64_t)(sign << 1);
}

/* One field of v. e: u16. s: u16 from 1. z: i8. m: u32 multiplier. h: u8 shift. M: i32 signed multiplier. f: flag. k:
 * u8. I: u32. P: u32 from 1. i: i32. W: u16 per mille.
 * y: i16. */
static int64_t take_value(cursor *c, char field) {
  int64_t value, low = 0, high = INT64_MAX;
  switch (field) {
    case 'e':
      value = (int64_t)take(c, 2);
      break;
    case 's':
      value = (int64_t)take(c, 2), low = 1;
      break;
    case 'W':
      value = (int64_t)take(c, 2), high = 1000;
      break;
    case 'z':
      value = take_signed(c, 1), low = -128;
      break;
    case 'y':
      value = take_signed(c, 2), low = INT16_MIN;
      break;
    case 'm':
      value = (int64_t)take(c, 4), high = (1 << 24) - 1;
      break;
    case 'h':
      value = (int64_t)take(c, 1), high = 62;
      break;
    case 'M':
      value = take_signed(c, 4), low = -(1 << 21) + 1, high = (1 << 21) - 1;
      break;
    case 'f':
      value = (int64_t)take(c, 1), high = 1;
      break;
    case 'k':
      value = (int64_t)take(c, 1);
      break;
    case 'I':
      value = (int64_t)take(c, 4);
      break;
    case 'P':
      value = (int64_t)take(c, 4), low = 1;
      break;
    default:
      value = take_signed(c, 4), low = INT32_MIN;
      break;
  }
  if (value < low || value > high) c->bad = 1;
  return value;
}

/* T: operand. O: list of one or none, which comes behind all others. L: list of operands, its length in lists. A: list
 * of up to six axes u8; Q: list of up to 32 i32: the length and then the values in v. All others: take_value. */
static void take_fields(cursor *c, ergo_ins *ins) {
  unsigned values = 0, lists = 0;
  ergo_operand behind;
  uint64_t more = 0;
  for (const char *f = ins->op->fields; *f && !c->bad; f++) {
    if (*f == ' ') continue;
    if (*f == 'T') {
      take_operand(c, &ins->t[ins->operands++]);
    } else if (*f == 'O') {
      if ((more = take(c, 1)) > 1) c->bad = 1;
      if (more && !c->bad) take_operand(c, &behind);
    } else if (*f == 'L') {
      uint64_t count = take(c, 1);
      if (count + ins->operands > ERGO_OPERANDS) c->bad = 1;
      ins->lists[lists++] = (uint8_t)count;
      for (uint64_t i = 0; i < count && !c->bad; i++) take_operand(c, &ins->t[ins->operands++]);
    } else if (*f == 'A' || *f == 'Q') {
      uint64_t count = take(c, 1);
      if (count > (*f == 'A' ? ERGO_MAX_RANK : ERGO_MOST_PARAMS)) c->bad = 1;
      ins->v[values] = (int64_t)count;
      for (uint64_t i = 0; i < count && *f == 'Q' && !c->bad; i++) ins->v[values + 1 + i] = take_value(c, 'i');
      for (uint64_t i = 0; i < ERGO_MAX_RANK && *f == 'A' && !c->bad; i++)
        ins->v[values + 1 + i] = i < count ? (int64_t)take(c, 1) : 0;
      values += 1 + (*f == 'A' ? ERGO_MAX_RANK : ERGO_MOST_PARAMS);
    } else {
      ins->v[values++] = take_value(c, *f);
    }
  }
  if (more && !c->bad) ins->t[ins->operands++] = behind;
}

ergo_status ergo_parse(const uint8_t *bytes, size_t size, ergo_ins *ins) {
  cursor c = {bytes, bytes + size, 0};
  memset(ins, 0, sizeof *ins);
  uint8_t opcode = (uint8_t)take(&c, 1), mask = (uint8_t)take(&c, 1);
  ins->length = (uint32_t)take(&c, 2), ins->node = (uint32_t)take(&c, 4);
  if (c.bad || ins->length < HEADER_BYTES || ins->length > size || mask >> ENGINES) return ERGO_MALFORMED;
  c.end = bytes + ins->length;
  for (unsigned engine = 0; engine < ENGINES; engine++) {
    if (!(mask >> engine & 1)) continue;
    ins->waits[engine] = (uint32_t)take(&c, 4);
    if (!ins->waits[engine]) return ERGO_MALFORMED;
  }
  for (const ergo_op *const *op = ergo_ops; *op; op++)
    if ((*op)->opcode == opcode) ins->op = *op;
  if (!ins->op) return ERGO_UNKNOWN_INSTRUCTION;
  take_fields(&c, ins);
  if (ins->op->table && !c.bad &&
      c.at < c.end) { /* optional: a list of one table and the zero point of what it gives */
    if (take(&c, 1) != 1 || ins->operands >= ERGO_OPERANDS) return ERGO_UNKNOWN_INSTRUCTION;
    ins->table = ins->operands++;
    take_operand(&c, &ins->t[ins->table]);
    ins->table_zp = (int8_t)take_signed(&c, 1);
  }
  if (c.bad) return ERGO_MALFORMED;
  return c.at == c.end ? ERGO_OK : ERGO_UNKNOWN_INSTRUCTION; /* a form with more fields than are known here */
}
