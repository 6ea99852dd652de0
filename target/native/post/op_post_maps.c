/* CPU_CALL: keypoints of heat maps, masks. */
#include "op_post.h"

#define MOST_STEP (1 << 20)

static ergo_status keypoints_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *points = &ins->t[2], *values = &ins->t[3];
  const int64_t *p = POST_PARAMS(ins); /* step_y, step_x */
  if (!ergo_post_form(ins, 2, 2, 2) || x->rank != 3 || !ergo_scales_fit(x, &ins->t[1])) return ERGO_PRECONDITION;
  if (p[0] < 0 || p[0] > MOST_STEP || p[1] < 0 || p[1] > MOST_STEP) return ERGO_PRECONDITION;
  return ergo_post_is(points, ERGO_I32, 2) && points->shape[0] == x->shape[2] && points->shape[1] == 2 &&
                 ergo_post_is(values, ERGO_I32, 1) && values->shape[0] == x->shape[2]
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status keypoints(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  const ergo_operand *points = &ins->t[2], *values = &ins->t[3];
  if (!ctx->status)
    ergo_post_keypoints(&x, (int32_t)POST_PARAMS(ins)[0], (int32_t)POST_PARAMS(ins)[1], ergo_at(ctx, points),
                        points->strides, ergo_at(ctx, values), values->strides[0]);
  return ctx->status;
}

static ergo_status mask_check(const ergo_ins *ins) {
  const ergo_operand *x = &ins->t[0], *out = &ins->t[2];
  return ergo_post_form(ins, 2, 1, 0) && x->rank == 3 && x->shape[2] <= 256 && ergo_scales_fit(x, &ins->t[1]) &&
                 ergo_post_is(out, ERGO_U8, 2) && out->shape[0] == x->shape[0] && out->shape[1] == x->shape[1]
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status mask(ergo_ctx *ctx, const ergo_ins *ins) {
  ergo_values x = ergo_values_of(ctx, ins, 0);
  if (!ctx->status) ergo_post_mask(&x, ergo_at(ctx, &ins->t[2]), ins->t[2].strides);
  return ctx->status;
}

const ergo_cpu_function ergo_cpu_keypoints = {7, keypoints_check, keypoints};
const ergo_cpu_function ergo_cpu_mask = {8, mask_check, mask};
