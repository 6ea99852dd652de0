/* HUFFMAN and HUFFMAN_RUNS: canonical prefix codes, read bit by bit from counts of lengths, so that no look-up table is
 * needed. target/codecs/prefix_code.py, huffman.py, huffman_runs.py */
#include "ergo_internal.h"

#define LONGEST 12u
#define LONGEST_RUN 255u

/* Symbols in the order of their codes; how many have each length. */
typedef struct prefix {
  uint16_t counts[16];
  uint8_t symbols[256];
} prefix;

typedef struct bit_source {
  const uint8_t *data;
  uint64_t at, end;
} bit_source;

static int one_bit(bit_source *b) {
  if (b->at >= b->end) return -1;
  int bit = b->data[b->at >> 3] >> (7 - (b->at & 7)) & 1;
  b->at++;
  return bit;
}

/* A single symbol has one bit, which may be either. */
static int symbol(bit_source *b, const prefix *p) {
  uint32_t code = 0, first = 0, index = 0;
  for (unsigned length = 1; length <= LONGEST; length++) {
    int bit = one_bit(b);
    if (bit < 0) return -1;
    code |= (uint32_t)bit;
    uint32_t count = p->counts[length];
    if (code - first < count) return p->symbols[index + code - first];
    if (length == 1 && count == 1 && !p->counts[0]) return p->symbols[0];
    index += count, first = (first + count) << 1, code <<= 1;
  }
  return -1;
}

/* counts[0] becomes the number of symbols less one, so that a lone symbol can be told. Nonzero where the lengths are no
 * code. */
static int make(prefix *p, const uint8_t *lengths, unsigned symbols, unsigned longest) {
  uint32_t used = 0, kraft = 0;
  memset(p->counts, 0, sizeof p->counts);
  for (unsigned length = 1; length < 16; length++)
    for (unsigned s = 0; s < symbols; s++)
      if (lengths[s] == length) {
        if (length > longest) return 1;
        p->counts[length]++, p->symbols[used++] = (uint8_t)s, kraft += 1u << (15 - length);
      }
  if (!used) return 1;
  p->counts[0] = (uint16_t)(used - 1);
  return !(used == 1 && p->counts[1] == 1) && kraft != 1u << 15;
}

static int read_prefix(ergo_weights *w, unsigned symbols, prefix *p) {
  uint8_t lengths[256], inner[16];
  if (w->at >= w->size) return 1;
  unsigned form = w->data[w->at++];
  bit_source b = {w->data + w->at, 0, 8 * (w->size - w->at)};
  if (form > 1) return 1;
  if (!form) {
    uint64_t bytes = (symbols + 1u) / 2;
    if (w->size - w->at < bytes) return 1;
    for (unsigned s = 0; s < symbols; s++) lengths[s] = w->data[w->at + s / 2] >> (s & 1 ? 0 : 4) & 15;
    w->at += bytes;
    return make(p, lengths, symbols, LONGEST);
  }
  prefix of_lengths;
  for (unsigned i = 0; i < 16; i++) {
    inner[i] = 0;
    for (unsigned k = 0; k < 3; k++) {
      int bit = one_bit(&b);
      if (bit < 0) return 1;
      inner[i] = (uint8_t)(inner[i] << 1 | bit);
    }
  }
  if (make(&of_lengths, inner, 16, 7)) return 1;
  for (unsigned s = 0; s < symbols; s++) {
    int length = symbol(&b, &of_lengths);
    if (length < 0) return 1;
    lengths[s] = (uint8_t)length;
  }
  w->at += (b.at + 7) / 8;
  return make(p, lengths, symbols, LONGEST);
}

static bit_source lane_bits(const ergo_weights *w) {
  bit_source b = {w->lane_data, w->lane_bit, 8 * w->lane_size};
  return b;
}

static size_t huffman_bytes(void) { return sizeof(prefix); }

static int huffman_tables(ergo_weights *w) { return read_prefix(w, w->entries, w->state); }

static int huffman_row(ergo_weights *w, uint8_t *folded, uint64_t count) {
  bit_source b = lane_bits(w);
  for (uint64_t i = 0; i < count; i++) {
    int code = symbol(&b, w->state);
    if (code < 0) return 1;
    folded[i] = (uint8_t)code;
  }
  w->lane_bit = b.at, w->steps += count;
  return 0;
}

static int ends(ergo_weights *w) { return (w->lane_bit + 7) / 8 != w->lane_size; }

const ergo_weight_codec ergo_codec_huffman = {ERGO_HUFFMAN, huffman_bytes, huffman_tables, NULL, huffman_row, ends};

typedef struct run_codes {
  prefix runs, values;
  uint64_t left; /* weights of the lane that are not decoded */
  uint32_t zeros, follows;
} run_codes;

static size_t runs_bytes(void) { return sizeof(run_codes); }

static int runs_tables(ergo_weights *w) {
  run_codes *s = w->state;
  if (w->at >= w->size) return 1;
  unsigned runs = w->data[w->at++] + 1u;
  return read_prefix(w, runs, &s->runs) || read_prefix(w, w->entries > 1 ? w->entries - 1 : 1, &s->values);
}

static void runs_lane(ergo_weights *w) {
  run_codes *s = w->state;
  s->left = w->lane_rows * w->columns, s->zeros = s->follows = 0;
}

static int runs_row(ergo_weights *w, uint8_t *folded, uint64_t count) {
  run_codes *s = w->state;
  bit_source b = lane_bits(w);
  for (uint64_t i = 0; i < count;) {
    if (!s->zeros && !s->follows) {
      int run = symbol(&b, &s->runs);
      if (run < 0 || (uint32_t)run > s->left) return 1;
      w->steps++;
      s->zeros = (uint32_t)run, s->follows = (uint32_t)run != LONGEST_RUN && (uint32_t)run < s->left;
    }
    for (; s->zeros && i < count; s->zeros--, s->left--) folded[i++] = 0;
    if (s->zeros || !s->follows || i == count) continue;
    int value = symbol(&b, &s->values);
    if (value < 0) return 1;
    folded[i++] = (uint8_t)(value + 1);
    w->steps++, s->left--, s->follows = 0;
  }
  w->lane_bit = b.at;
  return 0;
}

const ergo_weight_codec ergo_codec_huffman_runs = {ERGO_HUFFMAN_RUNS, runs_bytes, runs_tables,
                                                   runs_lane,         runs_row,   ends};
