/* CPU_CALL: softmax, sigmoid, top-k, CTC, anomaly score. */
#include "op_post.h"

static int same_shape(const ergo_operand *a, const ergo_operand *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static void four_strides(const ergo_operand *t, int32_t *strides) {
  for (unsigned i = 0; i < ERGO_POST_RANK; i++)
    strides[i] = i < (unsigned)ERGO_POST_RANK - t->rank ? 0 : t->strides[i + t->rank - ERGO_POST_RANK];
}

static ergo_status elementwise_check(const ergo_ins *ins) {
  return ergo_post_form(ins, 2, 1, 0) && ergo_scales_fit(&ins->t[0], &ins->t[1]) && ins->t[2].dtype == ERGO_I32 &&
                 same_shape(&ins->t[0], &ins->t[2])
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status softmax(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  int32_t strides[ERGO_POST_RANK];
  four_strides(&ins->t[2], strides);
  if (!ctx->status) ergo_post_softmax(&x, ergo_at(ctx, &ins->t[2]), strides);
  return ctx->status;
}

static ergo_status sigmoid(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  int32_t strides[ERGO_POST_RANK];
  four_strides(&ins->t[2], strides);
  if (!ctx->status) ergo_post_sigmoid(&x, ergo_at(ctx, &ins->t[2]), strides);
  return ctx->status;
}

static ergo_status topk_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *indices = &ins->t[2], *values = &ins->t[3];
  return ergo_post_form(ins, 2, 2, 0) && x->rank == 1 && ergo_scales_fit(x, &ins->t[1]) &&
                 ergo_post_is(indices, ERGO_I32, 1) && ergo_post_is(values, ERGO_I32, 1) &&
                 indices->shape[0] == values->shape[0] && indices->shape[0] <= x->shape[0]
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status topk(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  const ergo_operand *indices = &ins->t[2], *values = &ins->t[3];
  if (!ctx->status)
    ergo_post_topk(&x, indices->shape[0], ergo_at(ctx, indices), indices->strides[0], ergo_at(ctx, values),
                   values->strides[0]);
  return ctx->status;
}

static ergo_status ctc_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *out = &ins->t[2], *count = &ins->t[3];
  return ergo_post_form(ins, 2, 2, 1) && x->rank == 2 && ergo_scales_fit(x, &ins->t[1]) &&
                 ergo_post_is(out, ERGO_I32, 1) && out->shape[0] == x->shape[0] && ergo_post_is(count, ERGO_I32, 1) &&
                 count->shape[0] == 1 && POST_PARAMS(ins)[0] >= -1
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status ctc(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  if (!ctx->status)
    ergo_put_i32(ergo_at(ctx, &ins->t[3]), (int32_t)ergo_post_ctc(&x, (uint32_t)POST_PARAMS(ins)[0],
                                                                  ergo_at(ctx, &ins->t[2]), ins->t[2].strides[0]));
  return ctx->status;
}

static ergo_status anomaly_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *y = &ins->t[2], *out = &ins->t[4];
  return ergo_post_form(ins, 4, 1, 0) && ergo_scales_fit(x, &ins->t[1]) && ergo_scales_fit(y, &ins->t[3]) &&
                 same_shape(x, y) && ergo_elements(x) <= 1u << 18 && ergo_post_is(out, ERGO_I32, 1) &&
                 out->shape[0] == 1
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status anomaly(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0), y = ergo_values_of(ctx, ins, 2);
  if (!ctx->status) ergo_put_i32(ergo_at(ctx, &ins->t[4]), ergo_post_anomaly(&x, &y));
  return ctx->status;
}

const ergo_cpu_function ergo_cpu_softmax = {2, elementwise_check, softmax};
const ergo_cpu_function ergo_cpu_sigmoid = {3, elementwise_check, sigmoid};
const ergo_cpu_function ergo_cpu_topk = {4, topk_check, topk};
const ergo_cpu_function ergo_cpu_ctc = {9, ctc_check, ctc};
const ergo_cpu_function ergo_cpu_anomaly = {10, anomaly_check, anomaly};
