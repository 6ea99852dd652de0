/* Preconditions that all instructions share: element types, named axes, alignment, coded operands, no overlap. Bounds
 * come before. */
#include "ergo_internal.h"

#define SLOT_HEADER_BYTES 4
#define MOST_SLOT_BYTES ((1 << 27) - 1)
#define MOST_LANES 16u

static int all_zero(const int32_t *strides, unsigned first, unsigned count) {
  for (unsigned i = first; i < count; i++)
    if (strides[i]) return 0;
  return 1;
}

static ergo_status coded(const ergo_spec *spec, const ergo_operand *t) {
  if (ergo_of_weights(t->codec)) {
    if (!spec->weights || t->dtype != ERGO_I8 || t->rank < 2 || t->strides[0] < 1 || t->strides[1] < 16 ||
        !all_zero(t->strides, 2, t->rank))
      return ERGO_PRECONDITION;
    uint32_t lanes = ((uint32_t)t->strides[1] & 15u) + 1;
    if (lanes > t->shape[0] || lanes > MOST_LANES) return ERGO_PRECONDITION;
    for (const ergo_weight_codec *const *c = ergo_weight_codecs; *c; c++)
      if ((*c)->codec == t->codec) return ERGO_OK;
    return ERGO_UNKNOWN_CODEC;
  }
  if (spec->zero_point == ERGO_NO_OPERAND || t->dtype != ERGO_I8 || t->rank != 4 || t->shape[0] != 1 || t->strides[0] ||
      !all_zero(t->strides, 2, 4) || t->strides[1] < SLOT_HEADER_BYTES || t->strides[1] > MOST_SLOT_BYTES)
    return ERGO_PRECONDITION;
  return ergo_slot_codec_of(t->codec) ? ERGO_OK : ERGO_UNKNOWN_CODEC;
}

static int dims_fit(const char *dims, const ergo_operand *t, uint32_t *lengths) {
  if (*dims == '*') return 1;
  if (strlen(dims) != t->rank) return 0;
  for (unsigned i = 0; i < t->rank; i++) {
    char letter = dims[i];
    uint32_t expected = letter == '1' ? 1 : letter == '3' ? 3 : letter == 'Z' ? 256 : 0;
    if (!expected) {
      uint32_t *length = &lengths[letter - 'A'];
      if (!*length) *length = t->shape[i];
      expected = *length;
    }
    if (t->shape[i] != expected) return 0;
  }
  return 1;
}

static int is_out(const ergo_ins *ins, int lists, unsigned i) {
  return lists ? i >= ins->lists[0] : (!ins->table || i != ins->table) && ins->op->spec[i].out;
}

ergo_status ergo_check(const ergo_ins *ins) {
  uint32_t lengths[26] = {0};
  int lists = ins->op->fields[0] == 'k' && strchr(ins->op->fields, 'L') != NULL; /* CPU_CALL: lists of any operands */
  for (unsigned i = 0; i < ins->operands; i++) {
    const ergo_operand *t = &ins->t[i];
    ergo_spec any = {ERGO_IS_ANY, i >= ins->lists[0], "*", ERGO_NO_OPERAND, 0};
    const ergo_spec *spec = lists || (ins->table && i == ins->table) ? &any : &ins->op->spec[i];
    if (ins->table && i == ins->table) any.out = 0, any.dtypes = ERGO_IS_I8;
    int32_t size = (int32_t)ergo_itemsize(t->dtype);
    if (!(spec->dtypes >> t->dtype & 1) || t->addr % (uint32_t)size) return ERGO_PRECONDITION;
    for (unsigned axis = 0; axis < t->rank; axis++)
      if (t->strides[axis] % size) return ERGO_PRECONDITION;
    ergo_status status = t->codec == ERGO_RAW ? ERGO_OK : coded(spec, t);
    if (status) return status;
    if ((spec->out && !ergo_is_injective(t)) || !dims_fit(spec->dims, t, lengths)) return ERGO_PRECONDITION;
  }
  ergo_status status = ins->op->check ? ins->op->check(ins) : ERGO_OK;
  if (!status && ins->table) status = ergo_check_table(ins);
  for (unsigned out = 0; out < ins->operands && !status; out++) {
    if (!is_out(ins, lists, out)) continue;
    for (unsigned in = 0; in < ins->operands; in++) {
      if (in == out || is_out(ins, lists, in)) continue;
      if (ins->op->in_place >> in & 1 && ergo_same_place(&ins->t[in], &ins->t[out])) continue;
      if (ergo_overlap(&ins->t[in], &ins->t[out])) return ERGO_PRECONDITION;
    }
  }
  return status;
}
