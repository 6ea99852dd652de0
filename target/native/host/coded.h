/* Fast kernels between coded rows: rows are expanded and shrunk by all threads, the kernel works on plain ones. */
#ifndef ERGO_CODED_H
#define ERGO_CODED_H

#include "fast.h"

/* The instruction with plain operands in place of coded ones: x and out dense. */
ergo_ins ergo_plain_of(const ergo_ins *ins);
/* plain: what ergo_plain_of gave. */
ergo_status ergo_coded_run(const ergo_fast *fast, ergo_ctx *ctx, const ergo_ins *ins, const ergo_ins *plain,
                           int threads);

#endif
