/* PACKED and RUNS: fields of fixed width. target/codecs/packed.py, target/codecs/runs.py */
#include "ergo_internal.h"

static unsigned code_bits(const ergo_weights *w) {
  unsigned bits = 1;
  while ((w->entries - 1) >> bits) bits++;
  return bits;
}

static uint32_t field(const ergo_weights *w, uint64_t bit, unsigned width) {
  uint32_t window = 0;
  for (uint64_t k = bit >> 3; k < (bit >> 3) + 4; k++) window = window << 8 | (k < w->lane_size ? w->lane_data[k] : 0u);
  return window << (bit & 7) >> (32 - width);
}

static size_t no_state(void) { return 0; }

static int packed_row(ergo_weights *w, uint8_t *folded, uint64_t count) {
  unsigned width = code_bits(w);
  if (w->lane_size != (w->lane_rows * w->columns * width + 7) / 8) return 1;
  for (uint64_t i = 0; i < count; i++, w->lane_bit += width) folded[i] = (uint8_t)field(w, w->lane_bit, width);
  return 0;
}

static int packed_end(ergo_weights *w) {
  w->steps = (w->lane_rows * w->columns + 15) / 16;
  return 0;
}

const ergo_weight_codec ergo_codec_packed = {ERGO_PACKED, no_state, NULL, NULL, packed_row, packed_end};

/* Entries are a run of defaults and the code behind it; what a row leaves of a run waits for the next. */
typedef struct runs_state {
  uint32_t run_bits, left, code, waits;
} runs_state;

static size_t runs_bytes(void) { return sizeof(runs_state); }

static int runs_tables(ergo_weights *w) {
  runs_state *s = w->state;
  if (w->at >= w->size) return 1;
  s->run_bits = w->data[w->at++];
  return s->run_bits != 4 && s->run_bits != 5 && s->run_bits != 8;
}

static void runs_lane(ergo_weights *w) {
  runs_state *s = w->state;
  s->left = 0, s->waits = 0;
}

static int runs_row(ergo_weights *w, uint8_t *folded, uint64_t count) {
  runs_state *s = w->state;
  unsigned width = code_bits(w), size = s->run_bits + width;
  for (uint64_t i = 0; i < count;) {
    if (!s->waits) {
      if (w->lane_bit + size > 8 * w->lane_size) return 1;
      uint32_t entry = field(w, w->lane_bit, size);
      w->lane_bit += size, w->steps++;
      s->left = entry >> width, s->code = entry & ((1u << width) - 1), s->waits = 1;
    }
    for (; s->left && i < count; s->left--) folded[i++] = 0;
    if (!s->left && i < count) folded[i++] = (uint8_t)s->code, s->waits = 0;
  }
  return 0;
}

static int runs_end(ergo_weights *w) {
  const runs_state *s = w->state;
  return s->waits || (w->lane_bit + 7) / 8 != w->lane_size;
}

const ergo_weight_codec ergo_codec_runs = {ERGO_RUNS, runs_bytes, runs_tables, runs_lane, runs_row, runs_end};
