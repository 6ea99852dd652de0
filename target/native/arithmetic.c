#include "logistic.h"

static void pull(ergo_interval *i) {
  i->word = i->word << 8 | (i->at < i->size ? i->data[i->at] : 0u);
  i->at++;
}

void ergo_interval_start(ergo_interval *i, const uint8_t *data, uint64_t size) {
  i->low = 0, i->high = 0xFFFFFFFFu, i->word = 0, i->data = data, i->at = 0, i->size = size;
  for (int k = 0; k < 4; k++) pull(i);
}

int ergo_interval_decode(ergo_interval *i, uint32_t p1) {
  uint32_t middle = i->low + (uint32_t)(((uint64_t)(i->high - i->low) * p1) >> 16);
  int bit = i->word <= middle;
  if (bit)
    i->high = middle;
  else
    i->low = middle + 1;
  for (; !((i->low ^ i->high) >> 24); pull(i)) i->low <<= 8, i->high = i->high << 8 | 0xFF;
  return bit;
}
