/* SHA-256 (FIPS 180-4) of pieces one after the other. */
#ifndef ERGO_SHA256_H
#define ERGO_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct ergo_sha256 {
  uint32_t state[8];
  uint64_t bytes;
  uint8_t block[64];
} ergo_sha256;

void ergo_sha256_start(ergo_sha256 *sha);
void ergo_sha256_add(ergo_sha256 *sha, const uint8_t *data, size_t size);
void ergo_sha256_end(ergo_sha256 *sha, uint8_t digest[32]);

#endif
