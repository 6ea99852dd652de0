/* Matrices [..., M, K] and [..., K, N] over batch axes that broadcast. */
#ifndef ERGO_MATRICES_H
#define ERGO_MATRICES_H

#include "ergo_internal.h"

/* Whether shapes fit: a [..., M, K], b [..., K, N] or, transposed, [..., N, K], out [..., M, N]. */
int ergo_matrices_fit(const ergo_operand *a, const ergo_operand *b, const ergo_operand *out, int transposed);
/* product(user, a, b, out) for the matrices at every batch index, given where the first ones lie. */
void ergo_matrices_walk(const ergo_operand *a, const ergo_operand *b, const ergo_operand *out, const uint8_t *a_place,
                        const uint8_t *b_place, uint8_t *out_place,
                        void (*product)(const void *user, const uint8_t *a, const uint8_t *b, uint8_t *out),
                        const void *user);

#endif
