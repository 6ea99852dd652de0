/* What the adaptive coders share: the logistic domain and the arithmetic decoder. target/codecs/context_tables.py,
 * arithmetic.py */
#ifndef ERGO_LOGISTIC_H
#define ERGO_LOGISTIC_H

#include <stddef.h>
#include <stdint.h>

#define ERGO_DOMAIN 2047

int32_t ergo_stretch(uint32_t p12);  /* of a probability's upper 12 bits */
uint32_t ergo_squash(int32_t mixed); /* 16 bits, of -DOMAIN..DOMAIN */

typedef struct ergo_interval {
  uint32_t low, high, word;
  const uint8_t *data;
  uint64_t at, size;
} ergo_interval;

void ergo_interval_start(ergo_interval *i, const uint8_t *data, uint64_t size); /* for decoding */
int ergo_interval_decode(ergo_interval *i, uint32_t p1);

#endif
