/* Operands: how far they reach, and whether they meet. Exact, like target/isa/operand.py. */
#include "ergo_internal.h"

#define FARTHEST ((int64_t)1 << 40) /* beyond every address; sums of six stay far from overflow */

uint32_t ergo_itemsize(uint8_t dtype) { return dtype == ERGO_I32 ? 4 : dtype == ERGO_I16 ? 2 : 1; }

int ergo_of_weights(uint8_t codec) { return codec >= ERGO_HUFFMAN && codec <= ERGO_PACKED; }

uint64_t ergo_elements(const ergo_operand *t) {
  uint64_t count = 1;
  for (unsigned i = 0; i < t->rank; i++) {
    if (count > (uint64_t)1 << 40) return UINT64_MAX >> 1;
    count *= t->shape[i];
  }
  return count;
}

static uint32_t positive(int32_t stride) { return stride < 1 ? 1 : (uint32_t)stride; }

/* What lies in memory: the operand itself, its slots uint8[H, S], or its stream uint8[S]. */
ergo_operand ergo_stored(const ergo_operand *t) {
  ergo_operand s = *t;
  if (ergo_of_weights(t->codec) && t->rank >= 2) {
    s.rank = 1, s.shape[0] = positive(t->strides[0]), s.strides[0] = 1;
  } else if (t->codec != ERGO_RAW && !ergo_of_weights(t->codec) && t->rank == 4) {
    s.rank = 2, s.shape[0] = t->shape[1], s.shape[1] = positive(t->strides[1]), s.strides[0] = t->strides[1],
    s.strides[1] = 1;
  } else {
    return s;
  }
  s.dtype = ERGO_U8, s.codec = ERGO_RAW;
  return s;
}

int ergo_extent(const ergo_operand *operand, int64_t *low, int64_t *high) {
  ergo_operand t = ergo_stored(operand);
  *low = t.addr, *high = (int64_t)t.addr + ergo_itemsize(t.dtype);
  for (unsigned i = 0; i < t.rank; i++) {
    int64_t stride = t.strides[i], steps = (int64_t)t.shape[i] - 1;
    if (stride && steps > FARTHEST / (stride < 0 ? -stride : stride)) return 0;
    if (stride < 0)
      *low += stride * steps;
    else
      *high += stride * steps;
  }
  return 1;
}

int ergo_is_contiguous(const ergo_operand *operand) {
  ergo_operand t = ergo_stored(operand);
  uint64_t expected = ergo_itemsize(t.dtype);
  for (unsigned i = t.rank; i-- > 0;) {
    if (t.shape[i] != 1 && (t.strides[i] < 0 || (uint64_t)t.strides[i] != expected)) return 0;
    if (expected > (uint64_t)FARTHEST) return 0;
    expected *= t.shape[i];
  }
  return 1;
}

/* An operand as the set of its bytes: axes of rising positive strides, the bytes of an element first. */
typedef struct bytes_of {
  int64_t first, reach[ERGO_MAX_RANK + 1]; /* reach: of everything below an axis, from its first byte to its last */
  int64_t stride[ERGO_MAX_RANK + 1], count[ERGO_MAX_RANK + 1];
  unsigned axes;
} bytes_of;

static void take_apart(const ergo_operand *operand, bytes_of *set) {
  ergo_operand t = ergo_stored(operand);
  set->first = t.addr, set->axes = 1, set->stride[0] = 1, set->count[0] = ergo_itemsize(t.dtype);
  for (unsigned i = 0; i < t.rank; i++) {
    int64_t stride = t.strides[i], count = t.shape[i];
    if (count == 1 || !stride) continue;
    if (stride < 0) set->first += stride * (count - 1), stride = -stride;
    unsigned at = set->axes++;
    for (; at > 1 && set->stride[at - 1] > stride; at--)
      set->stride[at] = set->stride[at - 1], set->count[at] = set->count[at - 1];
    set->stride[at] = stride, set->count[at] = count;
  }
  unsigned kept = 1; /* dense neighbours become one axis: longer runs, fewer of them */
  for (unsigned i = 1; i < set->axes; i++) {
    if (set->stride[i] == set->stride[kept - 1] * set->count[kept - 1])
      set->count[kept - 1] *= set->count[i];
    else
      set->stride[kept] = set->stride[i], set->count[kept++] = set->count[i];
  }
  set->axes = kept;
  int64_t reach = 0;
  for (unsigned i = 0; i < kept; i++) set->reach[i] = reach, reach += set->stride[i] * (set->count[i] - 1);
}

int ergo_is_injective(const ergo_operand *operand) {
  ergo_operand t = ergo_stored(operand);
  for (unsigned i = 0; i < t.rank; i++)
    if (t.shape[i] > 1 && !t.strides[i]) return 0;
  bytes_of set;
  take_apart(operand, &set);
  for (unsigned i = 1; i < set.axes; i++)
    if (set.stride[i] <= set.reach[i]) return 0;
  return 1;
}

/* Whether axes below `axes` of the set, from byte `first` on, have a byte in [low, high). As deep as there are axes. */
static int meets(const bytes_of *set, unsigned axes, int64_t first, int64_t low, int64_t high) {
  if (!axes) return first >= low && first < high;
  unsigned axis = axes - 1;
  int64_t stride = set->stride[axis], last = set->count[axis] - 1, reach = set->reach[axis];
  int64_t end = high - 1 < first ? -1 : (high - 1 - first) / stride; /* last index that begins before high */
  if (end > last) end = last;
  if (end < 0) return 0;
  if (first + end * stride >= low) return 1; /* it begins inside */
  for (int64_t i = end; i >= 0 && first + i * stride + reach >= low; i--)
    if (meets(set, axis, first + i * stride, low, high)) return 1;
  return 0;
}

static uint64_t runs_of(const bytes_of *set) {
  uint64_t runs = 1;
  for (unsigned i = 1; i < set->axes; i++) runs *= (uint64_t)set->count[i];
  return runs;
}

int ergo_overlap(const ergo_operand *a, const ergo_operand *b) {
  int64_t a_low, a_high, b_low, b_high;
  if (!ergo_extent(a, &a_low, &a_high) || !ergo_extent(b, &b_low, &b_high)) return 1;
  if (a_low >= b_high || b_low >= a_high) return 0;
  if (ergo_is_contiguous(a) && ergo_is_contiguous(b)) return 1;
  bytes_of one, other;
  take_apart(a, &one), take_apart(b, &other);
  if (runs_of(&one) > runs_of(&other)) {
    bytes_of held = one;
    one = other, other = held;
  }
  int64_t index[ERGO_MAX_RANK + 1] = {0}, at = one.first, run = one.count[0];
  for (;;) {
    if (meets(&other, other.axes, other.first, at, at + run)) return 1;
    unsigned axis = 1;
    for (; axis < one.axes; axis++) {
      at += one.stride[axis];
      if (++index[axis] < one.count[axis]) break;
      at -= one.stride[axis] * one.count[axis], index[axis] = 0;
    }
    if (axis >= one.axes) return 0;
  }
}

int ergo_same_place(const ergo_operand *a, const ergo_operand *b) {
  if (a->addr != b->addr || a->rank != b->rank || a->codec != b->codec ||
      ergo_itemsize(a->dtype) != ergo_itemsize(b->dtype))
    return 0;
  for (unsigned i = 0; i < a->rank; i++)
    if (a->shape[i] != b->shape[i] || a->strides[i] != b->strides[i]) return 0;
  return 1;
}
