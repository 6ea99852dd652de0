/* The entropy coder of STATIC and PREDICT. */
#ifndef ERGO_RANS_H
#define ERGO_RANS_H

#include "ergo_internal.h"

/* Frequencies of sixteen symbols by level, 4096 a row. */
typedef const uint16_t (*ergo_rans_table)[16];

size_t ergo_rans_bytes(uint32_t rows, uint32_t width, uint32_t channels); /* scratch of the encoder */
/* Bytes written, or -1 where they exceed capacity. */
int64_t ergo_rans_encode(ergo_rans_table table, const uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels,
                         void *scratch, uint8_t *out, int64_t capacity);
/* Nonzero where no encoder wrote this. */
int ergo_rans_decode(ergo_rans_table table, uint8_t *codes, uint32_t rows, uint32_t width, uint32_t channels,
                     const uint8_t *data, uint32_t size);

#endif
