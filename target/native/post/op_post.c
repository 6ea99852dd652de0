/* What the functions of CPU_CALL for post-processing share. */
#include "op_post.h"

ergo_tensor ergo_tensor_of(const ergo_ctx *ctx, const ergo_operand *t) {
  ergo_tensor found = {ergo_at(ctx, t), {1, 1, 1, 1}, {0, 0, 0, 0}, t->dtype};
  unsigned skipped = ERGO_POST_RANK - t->rank;
  for (unsigned i = 0; i < t->rank; i++) found.shape[skipped + i] = t->shape[i], found.strides[skipped + i] = t->strides[i];
  return found;
}

ergo_values ergo_values_of(ergo_ctx *ctx, const ergo_ins *ins, unsigned at) {
  ergo_values found = {ergo_tensor_of(ctx, &ins->t[at]), ergo_tensor_of(ctx, &ins->t[at + 1])};
  if (!ergo_scales_hold(&found.scales)) ctx->status = ERGO_BAD_CONSTANT;
  return found;
}

int ergo_post_form(const ergo_ins *ins, unsigned inputs, unsigned outputs, unsigned params) {
  if (ins->lists[0] != inputs || ins->lists[1] != outputs || ins->v[1] != params) return 0;
  for (unsigned i = 0; i < ins->operands; i++) {
    if (ins->t[i].rank > ERGO_POST_RANK) return 0;
    for (unsigned k = inputs; k < i; k++)
      if (i > inputs && ergo_overlap(&ins->t[k], &ins->t[i])) return 0;
  }
  return 1;
}

int ergo_post_is(const ergo_operand *t, ergo_dtype dtype, unsigned rank) { return t->dtype == dtype && t->rank == rank; }

int ergo_scales_fit(const ergo_operand *x, const ergo_operand *scales) {
  unsigned rank = scales->rank;
  if (scales->dtype != ERGO_I32 || rank < 2 || rank > 3 || scales->shape[rank - 1] != 3) return 0;
  if (scales->shape[rank - 2] != 1 && scales->shape[rank - 2] != x->shape[x->rank - 1]) return 0;
  return rank == 2 || scales->shape[0] == 1 || (x->rank > 1 && scales->shape[0] == x->shape[x->rank - 2]);
}
