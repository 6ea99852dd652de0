// The coders of weights in C++: the same integers as cabac.py, huffman.py and huffman_runs.py, which are the definition.
#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int kWindow = 4096, kPlaces = 512, kPlaceStates = 2 * kPlaces, kPatterns = 32, kCounts = 729, kLevels = 7, kNodes = 256;
constexpr int kFlagInputs = 4, kValueInputs = 3, kFlagSets = 3, kDepths = 8, kSure = 4;
constexpr int kFirstFlagWeight = 19661, kFirstValueWeight = 24030, kLearning = 20, kDomain = 2047;
constexpr uint32_t kUnknown = (1u << 21) << 10;
constexpr int kHalfWeight = 1 << 19, kLimit = 1023, kLowest = 64, kHighest = (1 << 22) - 64;

struct Interval {
  uint32_t low = 0, high = 0xFFFFFFFFu;

  uint32_t Middle(uint32_t p1) const { return low + static_cast<uint32_t>((static_cast<uint64_t>(high - low) * p1) >> 16); }
  void Take(uint32_t middle, bool bit) { bit ? high = middle : low = middle + 1; }
  bool Settled() const { return ((low ^ high) >> 24) == 0; }
  void Shift() { low <<= 8, high = high << 8 | 0xFF; }
};

class Encoder {
 public:
  Encoder(uint8_t* out, int64_t capacity) : out_(out), capacity_(capacity) {}

  int Code(uint32_t p1, int bit) {
    interval_.Take(interval_.Middle(p1), bit);
    for (; interval_.Settled(); interval_.Shift()) Put(interval_.high >> 24);
    return bit;
  }

  // Bytes written, or -1 where the capacity was too small.
  int64_t Finish() {
    if (interval_.low) Put((interval_.low >> 24) + 1);
    return at_ > capacity_ ? -1 : at_;
  }

 private:
  void Put(uint8_t byte) {
    if (at_ < capacity_) out_[at_] = byte;
    at_++;
  }

  Interval interval_;
  uint8_t* out_;
  int64_t capacity_, at_ = 0;
};

class Decoder {
 public:
  Decoder(const uint8_t* data, int64_t size) : data_(data), size_(size) {
    for (int k = 0; k < 4; k++) Pull();
  }

  int Code(uint32_t p1, int) {
    uint32_t middle = interval_.Middle(p1);
    int bit = word_ <= middle;
    interval_.Take(middle, bit);
    for (; interval_.Settled(); interval_.Shift()) Pull();
    return bit;
  }

 private:
  void Pull() { word_ = word_ << 8 | (at_ < size_ ? data_[at_] : 0), at_++; }

  Interval interval_;
  const uint8_t* data_;
  int64_t size_, at_ = 0;
  uint32_t word_ = 0;
};

int Ones(int byte) { return __builtin_popcount(byte); }

template <class Coder>
class Matrix {
 public:
  // tables: stretch[4096], squash[4095], rate[kLimit + 1], level[256].
  Matrix(uint8_t* codes, int64_t rows, int64_t columns, int64_t inner, int values, const int32_t* const* tables, Coder& coder, bool known)
      : v_(codes), rows_(rows), columns_(columns), inner_(inner), values_(values), stretch_(tables[0]), squash_(tables[1]), rate_(tables[2]),
        level_(tables[3]), coder_(coder), known_(known), states_(kPatterns + kWindow + kCounts + kPlaceStates + kNodes * (1 + 2 * kLevels), kUnknown),
        flag_weights_(kFlagSets * kFlagInputs, kFirstFlagWeight), value_weights_(kDepths * kSure * kValueInputs, kFirstValueWeight),
        column_(kWindow, 0), up_(kWindow, 0), plane_(kPlaces, 0) {
    while ((1 << bits_) < values) bits_++;
  }

  // Decisions coded.
  int64_t Walk() {
    for (int64_t row = 0; row < rows_; row++) Row(row);
    return decisions_;
  }

 private:
  void Row(int64_t row) {
    int left = 0, left_level = 0, set = (row >= 2) + (row >= 16);
    std::fill(plane_.begin(), plane_.end(), 0);
    uint8_t* place = v_ + row * columns_;
    int64_t channel = 0, tap = 0;
    for (int64_t column = 0; column < columns_; column++) {
      int at = column & (kWindow - 1), tap_at = tap & (kPlaces - 1);
      int history = column_[at], planes = plane_[tap_at];
      uint32_t* inputs[kFlagInputs];
      uint32_t* first = states_.data();
      inputs[0] = first + ((left & 3) | (history & 3) << 2 | (planes & 1) << 4);
      inputs[1] = (first += kPatterns) + (channel & (kWindow - 1));
      inputs[2] = (first += kWindow) + (Ones(left) * 9 + Ones(history)) * 9 + Ones(planes);
      inputs[3] = (first += kCounts) + 2 * tap_at + (history & 1);
      int value = known_ ? place[column] : 0;
      int other = Decide<kFlagInputs>(inputs, flag_weights_.data() + set * kFlagInputs, value != 0);
      if (other) value = 1 + Value(first + kPlaceStates, left_level, up_[at], value - 1);
      place[column] = value;
      left = (left << 1 | other) & 255, left_level = level_[value];
      column_[at] = (history << 1 | other) & 255, plane_[tap_at] = (planes << 1 | other) & 255, up_[at] = left_level;
      if (++tap == inner_) tap = 0, channel++;
    }
  }

  int Value(uint32_t* first, int left_level, int up_level, int known) {
    int node = 1, value = 0;
    for (int k = bits_ - 1; k >= 0; k--) {
      int bit = 0;
      if ((static_cast<int64_t>(value << 1 | 1) << k) < values_) {
        uint32_t* inputs[kValueInputs] = {first + node, first + kNodes * (1 + left_level) + node, first + kNodes * (1 + kLevels + up_level) + node};
        int seen = *inputs[0] & 1023, sure = (seen >= 4) + (seen >= 16) + (seen >= 64);
        bit = Decide<kValueInputs>(inputs, value_weights_.data() + ((bits_ - 1 - k) * kSure + sure) * kValueInputs, known >> k & 1);
      }
      node = node << 1 | bit, value = value << 1 | bit;
    }
    return value;
  }

  template <int n>
  int Decide(uint32_t* const* inputs, int64_t* weights, int bit) {
    int64_t x[n], sum = 0;
    for (int i = 0; i < n; i++) x[i] = stretch_[*inputs[i] >> 20], sum += weights[i] * x[i];
    int64_t mixed = std::min<int64_t>(std::max<int64_t>(sum >> 16, -kDomain), kDomain);
    int32_t p1 = squash_[mixed + kDomain];
    bit = coder_.Code(p1, bit);
    decisions_++;
    int64_t error = static_cast<int64_t>((bit << 16) - p1) * kLearning;
    for (int i = 0; i < n; i++) {
      weights[i] += (x[i] * error + kHalfWeight) >> 20;
      int32_t p = *inputs[i] >> 10, seen = *inputs[i] & 1023;
      p += static_cast<int32_t>((static_cast<int64_t>((bit << 22) - p) * rate_[seen]) >> 16);
      p = std::min(std::max(p, kLowest), kHighest);
      *inputs[i] = static_cast<uint32_t>(p) << 10 | std::min(seen + 1, kLimit);
    }
    return bit;
  }

  uint8_t* v_;
  int64_t rows_, columns_, inner_;
  int values_, bits_ = 0;
  const int32_t *stretch_, *squash_, *rate_, *level_;
  Coder& coder_;
  bool known_;
  std::vector<uint32_t> states_;  // probability of a one << 10 | observations
  std::vector<int64_t> flag_weights_, value_weights_;
  std::vector<uint8_t> column_, up_, plane_;
  int64_t decisions_ = 0;
};

class Bits {
 public:
  Bits(const uint8_t* data, int64_t size) : data_(data), end_(8 * size) {}

  // The next symbol of a canonical code: lookup[next `longest` bits] = symbol << 4 | length. -1 where the bits end too early.
  int Symbol(const int32_t* lookup, int longest) {
    uint32_t window = 0;
    int64_t byte = at_ >> 3;
    for (int k = 0; k < 4; k++) window = window << 8 | (8 * (byte + k) < end_ ? data_[byte + k] : 0);
    int32_t entry = lookup[window << (at_ & 7) >> (32 - longest)];
    at_ += entry & 15;
    return at_ > end_ ? -1 : entry >> 4;
  }

  int64_t at() const { return at_; }

 private:
  const uint8_t* data_;
  int64_t end_, at_ = 0;
};

}  // namespace

extern "C" {

// Of this interface; weights_native.py expects it.
__attribute__((visibility("default"))) int tvm_ergo_weights_version() { return 1; }

// codes: uint8[rows][columns], 0 the default, 1..values the others. Returns the bytes written, or -1 where they exceed the capacity.
__attribute__((visibility("default"))) int64_t tvm_ergo_cabac_encode(uint8_t* codes, int64_t rows, int64_t columns, int64_t inner, int values,
                                                                     const int32_t* const* tables, uint8_t* out, int64_t capacity, int64_t* decisions) {
  Encoder coder(out, capacity);
  *decisions = Matrix<Encoder>(codes, rows, columns, inner, values, tables, coder, true).Walk();
  return coder.Finish();
}

// Any bytes give some codes. Returns the decisions.
__attribute__((visibility("default"))) int64_t tvm_ergo_cabac_decode(uint8_t* codes, int64_t rows, int64_t columns, int64_t inner, int values,
                                                                     const int32_t* const* tables, const uint8_t* data, int64_t size) {
  Decoder coder(data, size);
  return Matrix<Decoder>(codes, rows, columns, inner, values, tables, coder, false).Walk();
}

// Fields of widths[i] bits one after the other into zeroed bytes, most significant bit first.
__attribute__((visibility("default"))) void tvm_ergo_pack(const int32_t* values, const int32_t* widths, int64_t count, uint8_t* out) {
  uint64_t word = 0;
  int held = 0;
  for (int64_t i = 0; i < count; i++) {
    word = word << widths[i] | static_cast<uint32_t>(values[i]);
    held += widths[i];
    for (; held >= 8; held -= 8) *out++ = word >> (held - 8);
  }
  if (held) *out = word << (8 - held);
}

// Returns the bits read, or -1 where they end too early.
__attribute__((visibility("default"))) int64_t tvm_ergo_huffman_decode(const uint8_t* data, int64_t size, const int32_t* lookup, int longest,
                                                                       uint8_t* out, int64_t count) {
  Bits bits(data, size);
  for (int64_t i = 0; i < count; i++) {
    int symbol = bits.Symbol(lookup, longest);
    if (symbol < 0) return -1;
    out[i] = symbol;
  }
  return bits.at();
}

// Runs of zeros, each followed by a value (symbol + 1) unless it is `longest_run` or reaches the end. out is zeroed. Returns the bits read, -1 where they
// end too early, -2 where a run passes the end.
__attribute__((visibility("default"))) int64_t tvm_ergo_huffman_runs_decode(const uint8_t* data, int64_t size, const int32_t* runs, int longest,
                                                                            const int32_t* values, int longest_value, int longest_run, uint8_t* out,
                                                                            int64_t count) {
  Bits bits(data, size);
  for (int64_t at = 0; at < count;) {
    int run = bits.Symbol(runs, longest);
    if (run < 0) return -1;
    at += run;
    if (at > count) return -2;
    if (run == longest_run || at == count) continue;
    int value = bits.Symbol(values, longest_value);
    if (value < 0) return -1;
    out[at++] = value + 1;
  }
  return bits.at();
}

}  // extern "C"
