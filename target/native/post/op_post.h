/* How post-processing becomes functions of CPU_CALL. */
#ifndef ERGO_OP_POST_H
#define ERGO_OP_POST_H

#include "ergo_internal.h"
#include "ergo_post.h"

#define POST_PARAMS(ins) ((ins)->v + 2) /* behind the function's number and the count */

ergo_tensor ergo_tensor_of(const ergo_ctx *ctx, const ergo_operand *operand); /* at most four axes */
/* Operands `at` and `at + 1`: stored values and their scales. Status in ctx. */
ergo_values ergo_values_of(ergo_ctx *ctx, const ergo_ins *ins, unsigned at);
/* Whether there are so many inputs, outputs and parameters, of at most four axes, and no output meets another. */
int ergo_post_form(const ergo_ins *ins, unsigned inputs, unsigned outputs, unsigned params);
/* Whether operand `scales` has scales for operand `x`. */
int ergo_scales_fit(const ergo_operand *x, const ergo_operand *scales);
int ergo_post_is(const ergo_operand *t, ergo_dtype dtype, unsigned rank);

#endif
