// The context coder in C++: the same integers as context.py and arithmetic.py, one tile at a time. Those are the definition.
//
// Lanes of a group decide in lockstep: all predictions of a step are made before the first of its updates, and where lanes
// share a state the last lane's update stands. Tables come from Python, so that no logarithm is computed twice.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

constexpr int kMaxLanes = 32, kInputs = 3, kSides = 14, kPlaces = 24, kUnrest[3] = {6, 20, 48};
constexpr int kWeightSets = 9, kBias = 77, kFirstWeight = 19661, kLearning = 5, kLimit = 60, kDomain = 2047, kOffset = 255;
constexpr int kCoarse = 43, kFine = 88, kDepths = 7, kKept = 2;
constexpr int kPlaceStates = kSides * kSides * kCoarse, kShared = kPlaceStates + kPlaces * 4 * kFine;

// What context_tables.py computes, in its order.
struct Tables {
  const int32_t *stretch, *squash, *rate, *level, *side, *place, *value, *first, *coarse;

  explicit Tables(const int32_t* const* t)
      : stretch(t[0]), squash(t[1]), rate(t[2]), level(t[3]), side(t[4]), place(t[5]), value(t[6]), first(t[7]), coarse(t[8]) {}
};

struct Interval {
  uint32_t low = 0, high = 0xFFFFFFFFu;

  uint32_t Middle(uint32_t p1) const { return low + static_cast<uint32_t>((static_cast<uint64_t>(high - low) * p1) >> 16); }
  void Take(uint32_t middle, bool bit) { bit ? high = middle : low = middle + 1; }
  bool Settled() const { return ((low ^ high) >> 24) == 0; }
  void Shift() { low <<= 8, high = high << 8 | 0xFF; }
};

class Encoder {
 public:
  explicit Encoder(int lanes) : interval_(lanes), bytes_(lanes) {}

  int Code(int lane, uint32_t p1, int bit) {
    Interval& i = interval_[lane];
    i.Take(i.Middle(p1), bit);
    for (; i.Settled(); i.Shift()) bytes_[lane].push_back(i.high >> 24);
    return bit;
  }

  const std::vector<uint8_t>& Finish(int lane) {
    std::vector<uint8_t>& out = bytes_[lane];
    if (interval_[lane].low) out.push_back((interval_[lane].low >> 24) + 1);
    while (!out.empty() && out.back() == 0) out.pop_back();
    return out;
  }

 private:
  std::vector<Interval> interval_;
  std::vector<std::vector<uint8_t>> bytes_;
};

class Decoder {
 public:
  // ends[i] is where lane i's stream ends in data; it begins where the one before ends.
  Decoder(const uint8_t* data, const int64_t* ends, int lanes) : data_(data), lane_(lanes) {
    for (int i = 0; i < lanes; i++) {
      lane_[i].at = i ? ends[i - 1] : 0, lane_[i].end = ends[i];
      for (int k = 0; k < 4; k++) Pull(lane_[i]);
    }
  }

  int Code(int lane, uint32_t p1, int) {
    Lane& l = lane_[lane];
    uint32_t middle = l.interval.Middle(p1);
    int bit = l.word <= middle;
    l.interval.Take(middle, bit);
    for (; l.interval.Settled(); l.interval.Shift()) Pull(l);
    return bit;
  }

 private:
  struct Lane {
    Interval interval;
    uint32_t word = 0;
    int64_t at, end;
  };

  void Pull(Lane& l) { l.word = l.word << 8 | (l.at < l.end ? data_[l.at++] : 0); }

  const uint8_t* data_;
  std::vector<Lane> lane_;
};

template <class Coder>
class Tile {
 public:
  Tile(uint8_t* values, int rows, int width, int channels, int lanes, int scale, const Tables& tables, Coder& coder, bool known)
      : v_(values), rows_(rows), width_(width), channels_(channels), lanes_(lanes), scale_(scale), t_(tables), coder_(coder), known_(known),
        state_(kShared + static_cast<size_t>(channels) * kCoarse, 32768 << 8), weights_(kWeightSets * kCoarse) {
    for (Weights& w : weights_) w = {{kFirstWeight, kFirstWeight, kFirstWeight, 0}};
  }

  void Walk() {
    for (int y = 0; y < rows_; y++)
      for (int x = 0; x < width_; x++)
        for (int first = 0; first < channels_; first += lanes_) Group(y, x, first, std::min(lanes_, channels_ - first));
  }

 private:
  struct Weights {
    int64_t w[kInputs + 1];
  };
  struct Value {
    uint32_t* context[kInputs];  // first state of each context
    Weights* weights;
    int known, length, value;
  };
  struct Update {
    uint32_t *state[kInputs], next[kInputs];
    Weights *weights, next_weights;
  };

  // Difference from the zero point.
  int At(int y, int x, int c) const { return t_.value[v_[(static_cast<int64_t>(y) * width_ + x) * channels_ + c]]; }

  void Contexts(int y, int x, int c, Value& out) {
    int left = x ? At(y, x - 1, c) : y ? At(y - 1, x, c) : 0;
    int up = y ? At(y - 1, x, c) : left;
    int up_left = x && y ? At(y - 1, x - 1, c) : up;
    int up_right = y && x + 1 < width_ ? At(y - 1, x + 1, c) : up;
    int left2 = x > 1 ? At(y, x - 2, c) : left;
    int up2 = y > 1 ? At(y - 2, x, c) : up;
    int gradient = std::min(std::max(left + up - up_left, std::min(left, up)), std::max(left, up));
    int place = t_.place[((2 * gradient + left + up) >> 2) + kOffset];
    int varies = scale_ * (std::abs(left - up_left) + std::abs(up - up_left) + std::abs(up - up_right)), unrest = 0;
    for (int bound : kUnrest) unrest += varies >= bound;
    out.context[0] = state_.data() + (t_.side[left + kOffset] * kSides + t_.side[up + kOffset]) * kCoarse;
    out.context[1] = state_.data() + kShared + static_cast<int64_t>(c) * kCoarse;
    out.context[2] = state_.data() + kPlaceStates + (place * 4 + unrest) * kFine;
    int local = scale_ * (2 * (std::abs(left) + std::abs(up)) + std::abs(up_left) + std::abs(up_right) + std::abs(left2) + std::abs(up2));
    out.weights = weights_.data() + std::min(t_.level[local] >> 1, kWeightSets - 1) * kCoarse;
  }

  // One value in each lane of a group.
  void Group(int y, int x, int first, int count) {
    uint8_t* place = v_ + (static_cast<int64_t>(y) * width_ + x) * channels_ + first;
    for (int i = 0; i < count; i++) {
      Contexts(y, x, first + i, value_[i]);
      value_[i].known = known_ ? place[i] : 0;
      value_[i].length = 0;
      going_[i] = i;
    }
    int going = count;
    for (int k = 0; k < 8 && going; k++) {
      int still = 0;
      for (int j = 0; j < going; j++) {
        Value& v = value_[going_[j]];
        if (Decide(going_[j], j, k, v.known >> k != 0)) v.length = k + 1, going_[still++] = going_[j];
      }
      Learn(going);
      going = still;
    }
    for (int i = 0; i < count; i++) value_[i].value = value_[i].length > 0;
    for (int depth = 0; depth < 7; depth++) {
      going = 0;
      for (int i = 0; i < count; i++) {
        Value& v = value_[i];
        int size = v.length;
        if (size < depth + 2) continue;
        int node = t_.first[size * kDepths + depth] + ((v.value & ((1 << depth) - 1)) >> std::max(depth - kKept, 0));
        v.value = v.value << 1 | Decide(i, going++, node, v.known >> (size - 2 - depth) & 1);
      }
      if (!going) break;
      Learn(going);
    }
    for (int i = 0; i < count; i++) place[i] = value_[i].value;
  }

  // Predicts, codes, and keeps the update for Learn. Returns the bit.
  int Decide(int lane, int slot, int node, int bit) {
    Value& v = value_[lane];
    Update& u = update_[slot];
    int coarse = t_.coarse[node];
    u.weights = v.weights + coarse;
    int32_t x[kInputs + 1];
    int64_t sum = 0;
    for (int i = 0; i < kInputs; i++) {
      u.state[i] = v.context[i] + (i == 2 ? node : coarse);
      x[i] = t_.stretch[*u.state[i] >> 12];
      sum += u.weights->w[i] * x[i];
    }
    x[kInputs] = kBias;
    sum += u.weights->w[kInputs] * kBias;
    int64_t mixed = std::min<int64_t>(std::max<int64_t>(sum >> 16, -kDomain), kDomain);
    int32_t p1 = t_.squash[mixed + kDomain];
    bit = coder_.Code(lane, p1, bit);
    int32_t target = bit << 16;
    int64_t error = static_cast<int64_t>(target - p1) * kLearning;
    for (int i = 0; i <= kInputs; i++) u.next_weights.w[i] = u.weights->w[i] + ((x[i] * error + 32768) >> 16);
    for (int i = 0; i < kInputs; i++) {
      int32_t p = *u.state[i] >> 8, seen = *u.state[i] & 255;
      p += static_cast<int32_t>((static_cast<int64_t>(target - p) * t_.rate[seen]) >> 16);
      p = std::min(std::max(p, 32), 65503);
      u.next[i] = static_cast<uint32_t>(p) << 8 | std::min(seen + 1, kLimit);
    }
    return bit;
  }

  void Learn(int count) {
    for (int j = 0; j < count; j++) {
      for (int i = 0; i < kInputs; i++) *update_[j].state[i] = update_[j].next[i];
      *update_[j].weights = update_[j].next_weights;
    }
  }

  uint8_t* v_;
  int rows_, width_, channels_, lanes_, scale_;
  const Tables t_;
  Coder& coder_;
  bool known_;
  std::vector<uint32_t> state_;  // probability of a one << 8 | observations
  std::vector<Weights> weights_;
  Value value_[kMaxLanes];
  Update update_[kMaxLanes];
  int going_[kMaxLanes];
};

}  // namespace

extern "C" {

// Of this interface; native.py expects it.
__attribute__((visibility("default"))) int tvm_ergo_context_version() { return 3; }

// values: uint8[rows][width][channels] of distance codes. Writes u16 lengths and streams into out and returns their bytes; -1 where a lane's length does
// not fit 16 bits, -2 where the capacity is too small.
__attribute__((visibility("default"))) int64_t tvm_ergo_context_encode(uint8_t* values, int rows, int width, int channels, int lanes,
                                                                       int is_signed, const int32_t* const* tables, uint8_t* out, int64_t capacity) {
  Encoder coder(lanes);
  Tile<Encoder>(values, rows, width, channels, lanes, is_signed ? 2 : 1, Tables(tables), coder, true).Walk();
  int64_t at = 2 * lanes;
  if (at > capacity) return -2;
  for (int i = 0; i < lanes; i++) {
    const std::vector<uint8_t>& stream = coder.Finish(i);
    if (stream.size() >= 1 << 16) return -1;
    if (at + static_cast<int64_t>(stream.size()) > capacity) return -2;
    out[2 * i] = stream.size() & 255, out[2 * i + 1] = stream.size() >> 8;
    std::copy(stream.begin(), stream.end(), out + at);
    at += stream.size();
  }
  return at;
}

// ends: int64[lanes], rising ends of the lanes' streams in data. Fills values; any streams give some values.
__attribute__((visibility("default"))) void tvm_ergo_context_decode(uint8_t* values, int rows, int width, int channels, int lanes,
                                                                    int is_signed, const int32_t* const* tables, const uint8_t* data,
                                                                    const int64_t* ends) {
  Decoder coder(data, ends, lanes);
  Tile<Decoder>(values, rows, width, channels, lanes, is_signed ? 2 : 1, Tables(tables), coder, false).Walk();
}

}  // extern "C"
