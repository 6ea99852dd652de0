#include "box.h"

void ergo_box_of(ergo_box *box, const ergo_operand *out, unsigned skip, unsigned operands,
                 const ergo_operand *const *t) {
  memset(box, 0, sizeof *box);
  box->rank = out->rank - skip, box->operands = operands;
  for (unsigned axis = 0; axis < box->rank; axis++) {
    box->shape[axis] = out->shape[skip + axis];
    for (unsigned i = 0; i < operands; i++) {
      unsigned missing = (unsigned)(out->rank - t[i]->rank);
      if (skip + axis < missing) continue;
      unsigned own = skip + axis - missing;
      box->strides[i][axis] = t[i]->shape[own] == 1 && box->shape[axis] != 1 ? 0 : t[i]->strides[own];
    }
  }
}

void ergo_box_merge(ergo_box *box) {
  unsigned kept = 0;
  for (unsigned axis = 0; axis < box->rank; axis++) {
    if (box->shape[axis] == 1 && box->rank > 1 && (kept || axis + 1 < box->rank)) continue;
    int joins = kept > 0;
    for (unsigned i = 0; i < box->operands; i++)
      joins = joins && box->strides[i][kept - 1] == box->strides[i][axis] * (int64_t)box->shape[axis];
    if (joins && (uint64_t)box->shape[kept - 1] * box->shape[axis] <= UINT32_MAX) {
      box->shape[kept - 1] *= box->shape[axis];
      for (unsigned i = 0; i < box->operands; i++) box->strides[i][kept - 1] = box->strides[i][axis];
      continue;
    }
    box->shape[kept] = box->shape[axis];
    for (unsigned i = 0; i < box->operands; i++) box->strides[i][kept] = box->strides[i][axis];
    kept++;
  }
  box->rank = kept;
}

void ergo_box_walk(const ergo_box *box, uint8_t *const *places,
                   void (*inner)(const void *user, const ergo_box *box, uint8_t *const *places, uint32_t count),
                   const void *user) {
  uint32_t index[ERGO_MAX_RANK] = {0};
  uint8_t *at[ERGO_BOX_OPERANDS] = {NULL};
  for (unsigned i = 0; i < box->operands; i++) at[i] = places[i];
  for (;;) {
    inner(user, box, at, box->shape[box->rank - 1]);
    unsigned axis = box->rank - 1;
    while (axis-- > 0) {
      for (unsigned i = 0; i < box->operands; i++) at[i] += box->strides[i][axis];
      if (++index[axis] < box->shape[axis]) break;
      for (unsigned i = 0; i < box->operands; i++) at[i] -= box->strides[i][axis] * (int64_t)box->shape[axis];
      index[axis] = 0;
    }
    if (axis == (unsigned)-1) return;
  }
}
