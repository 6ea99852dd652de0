/* Walks over elements of several operands at once: axes merged where all lie densely, the innermost left to a loop of
 * its own. */
#ifndef ERGO_BOX_H
#define ERGO_BOX_H

#include "ergo_internal.h"

#define ERGO_BOX_OPERANDS 4

typedef struct ergo_box {
  unsigned rank, operands;
  uint32_t shape[ERGO_MAX_RANK];
  int64_t strides[ERGO_BOX_OPERANDS][ERGO_MAX_RANK];
} ergo_box;

/* The box of `out`'s shape; operand i broadcasts to it (aligned at the last axis). `skip` leading axes of out are left
 * out. */
void ergo_box_of(ergo_box *box, const ergo_operand *out, unsigned skip, unsigned operands,
                 const ergo_operand *const *t);
/* Makes neighbouring axes one where that changes no place. */
void ergo_box_merge(ergo_box *box);
/* inner(user, places, count): `count` elements from these places on, box->strides[i][rank - 1] apart. */
void ergo_box_walk(const ergo_box *box, uint8_t *const *places,
                   void (*inner)(const void *user, const ergo_box *box, uint8_t *const *places, uint32_t count),
                   const void *user);

#endif
