/* The output stage of the tensor engine: per-channel bias, multiplier and shift, read where they lie. */
#include "ergo_internal.h"

ergo_status ergo_output_open(ergo_ctx *ctx, const ergo_ins *ins, unsigned first, unsigned zp, const ergo_operand *out,
                             ergo_output_stage *stage) {
  const ergo_operand *bias = &ins->t[first], *mult = bias + 1, *shift = bias + 2;
  stage->bias = ergo_at(ctx, bias), stage->mult = ergo_at(ctx, mult), stage->shift = ergo_at(ctx, shift);
  stage->bias_step = bias->strides[0], stage->mult_step = mult->strides[0], stage->shift_step = shift->strides[0];
  stage->zp = ins->v[zp], stage->lo = ins->v[zp + 1], stage->hi = ins->v[zp + 2];
  stage->dtype = out->dtype;
  for (uint32_t o = 0; o < bias->shape[0]; o++) {
    int32_t m = ergo_i32(stage->mult + (int64_t)o * stage->mult_step),
            s = *(const int8_t *)(stage->shift + (int64_t)o * stage->shift_step);
    if (m < 0 || m >= 1 << 24 || s < 0 || s > 62) return ERGO_BAD_CONSTANT;
  }
  return ERGO_OK;
}
