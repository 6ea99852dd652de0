/* Fast MATMUL and WEIGHTED_MEAN: tiles of the paths in fast.h, the right side packed once where it is constant, else
 * matrix by matrix. Exact as there: depths whose sums might leave 32 bits are refused. */
#ifndef ERGO_PRODUCT_H
#define ERGO_PRODUCT_H

#include "fast.h"

typedef struct ergo_product ergo_product;
/* Null where this instruction has no fast kernel. b: the right side, dense in its shape, or null: it is no constant. */
ergo_product *ergo_product_new(const ergo_ins *ins, int path, const int8_t *b);
void ergo_product_free(ergo_product *product);
ergo_status ergo_product_run(const ergo_product *product, ergo_ctx *ctx, const ergo_ins *ins, int threads);

#endif
