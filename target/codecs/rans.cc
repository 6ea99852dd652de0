// The static entropy coder in C++: the same bytes as rans.py, which is the definition, one tile at a time.
#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int kSymbols = 16, kTotalBits = 12, kRestart = 16;

struct Shape {
  int rows, width, channels, lanes;

  int Groups() const { return (channels + lanes - 1) / lanes; }
};

// frequency, begin: [row][symbol]; symbol_at: [row][slot]; first_row: [channel]; level: of sums; raw_bits and first: [symbol]; symbol: [code].
struct Tables {
  const int32_t *frequency, *begin;
  const uint8_t* symbol_at;
  const int32_t *first_row, *level, *raw_bits, *first, *symbol;

  explicit Tables(const void* const* t)
      : frequency(I32(t[0])), begin(I32(t[1])), symbol_at(static_cast<const uint8_t*>(t[2])), first_row(I32(t[3])), level(I32(t[4])),
        raw_bits(I32(t[5])), first(I32(t[6])), symbol(I32(t[7])) {}

  static const int32_t* I32(const void* p) { return static_cast<const int32_t*>(p); }
};

// Table row of the code at a place, from the codes to the left and above.
int Row(const uint8_t* values, const Shape& s, const Tables& t, int y, int x, int c) {
  const uint8_t* at = values + (static_cast<int64_t>(y) * s.width + x) * s.channels + c;
  int left = x ? at[-s.channels] : y ? at[-static_cast<int64_t>(s.width) * s.channels] : 0;
  int up = y ? at[-static_cast<int64_t>(s.width) * s.channels] : left;
  return t.first_row[c] + t.level[left + up];
}

}  // namespace

extern "C" {

// values: uint8[rows][width][channels]. Writes the lanes' states and the words into out, which holds 4 * lanes + 4 * values bytes; returns the bytes.
__attribute__((visibility("default"))) int64_t tvm_ergo_rans_encode(const uint8_t* values, int rows, int width, int channels, int lanes,
                                                                    const void* const* tables, uint8_t* out) {
  const Shape s{rows, width, channels, lanes};
  const Tables t(tables);
  std::vector<uint32_t> state(lanes, 1u << kRestart);
  std::vector<uint16_t> words;
  auto ask = [&](uint32_t& x, uint64_t limit) {
    if (x >= limit) words.push_back(x & 0xFFFF), x >>= 16;
  };
  for (int64_t pixel = static_cast<int64_t>(rows) * width - 1; pixel >= 0; pixel--)
    for (int group = s.Groups() - 1; group >= 0; group--) {
      int begin = group * lanes, count = std::min(lanes, channels - begin);
      const uint8_t* code = values + pixel * channels + begin;
      for (int i = count - 1; i >= 0; i--) {
        int bits = t.raw_bits[t.symbol[code[i]]];
        ask(state[i], uint64_t{1} << (32 - bits));
        state[i] = state[i] << bits | (code[i] & ((1u << bits) - 1));
      }
      for (int i = count - 1; i >= 0; i--) {
        int entry = Row(values, s, t, pixel / width, pixel % width, begin + i) * kSymbols + t.symbol[code[i]];
        uint32_t frequency = t.frequency[entry];
        ask(state[i], static_cast<uint64_t>(frequency) << (32 - kTotalBits));
        state[i] = (state[i] / frequency << kTotalBits) + state[i] % frequency + t.begin[entry];
      }
    }
  uint8_t* at = out;
  for (uint32_t x : state)
    for (int shift = 0; shift < 32; shift += 8) *at++ = x >> shift;
  for (auto word = words.rbegin(); word != words.rend(); ++word) *at++ = *word & 255, *at++ = *word >> 8;
  return at - out;
}

// data: size bytes, 4 * lanes at least. Fills values; returns 0, or -1 where the payload does not end with its last code. Reads nothing beyond it.
__attribute__((visibility("default"))) int tvm_ergo_rans_decode(uint8_t* values, int rows, int width, int channels, int lanes,
                                                                const void* const* tables, const uint8_t* data, int64_t size) {
  const Shape s{rows, width, channels, lanes};
  const Tables t(tables);
  std::vector<uint32_t> state(lanes);
  const uint8_t *at = data, *end = data + size;
  for (uint32_t& x : state) x = at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24, at += 4;
  auto refill = [&](uint32_t& x) {
    if (x >= 1u << kRestart) return true;
    if (end - at < 2) return false;
    x = x << 16 | at[0] | at[1] << 8;
    at += 2;
    return true;
  };
  std::vector<int> symbol(lanes);
  for (int64_t pixel = 0; pixel < static_cast<int64_t>(rows) * width; pixel++)
    for (int begin = 0; begin < channels; begin += lanes) {
      int count = std::min(lanes, channels - begin);
      for (int i = 0; i < count; i++) {
        int row = Row(values, s, t, pixel / width, pixel % width, begin + i), slot = state[i] & ((1 << kTotalBits) - 1);
        symbol[i] = t.symbol_at[(static_cast<int64_t>(row) << kTotalBits) + slot];
        int entry = row * kSymbols + symbol[i];
        state[i] = t.frequency[entry] * (state[i] >> kTotalBits) + slot - t.begin[entry];
        if (!refill(state[i])) return -1;
      }
      uint8_t* code = values + pixel * channels + begin;
      for (int i = 0; i < count; i++) {
        int bits = t.raw_bits[symbol[i]];
        code[i] = t.first[symbol[i]] + (state[i] & ((1u << bits) - 1));
        state[i] >>= bits;
        if (!refill(state[i])) return -1;
      }
    }
  return at == end && std::all_of(state.begin(), state.end(), [](uint32_t x) { return x == 1u << kRestart; }) ? 0 : -1;
}

}  // extern "C"
