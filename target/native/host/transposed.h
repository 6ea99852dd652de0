/* Fast CONV_TRANSPOSE: each phase of the output (its place modulo the strides) is a convolution of its own, with every
 * stride-th tap. */
#ifndef ERGO_TRANSPOSED_H
#define ERGO_TRANSPOSED_H

#include "fast.h"

typedef struct ergo_transposed ergo_transposed;
/* Null where there is no fast kernel: dilated, or with phases that no tap reaches. w, bias, mult, shift: dense. */
ergo_transposed *ergo_transposed_new(const ergo_ins *ins, int path, const int8_t *w, const int32_t *bias,
                                     const int32_t *mult, const int8_t *shift);
void ergo_transposed_free(ergo_transposed *transposed);
ergo_status ergo_transposed_run(const ergo_transposed *transposed, ergo_ctx *ctx, int threads);

#endif
