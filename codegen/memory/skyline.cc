// Exact placement of buffers in a given capacity: a search over canonical placements.
//
// Any placement can be pushed down until every buffer rests on another or on the floor. Such a placement is found by
// placing buffers in the order of (offset, rank), each at the lowest place its neighbours in time leave it. The ideas of
// the search space (canonical skylines, monotone floor, dominance, inference over sections of time, splitting at
// times that no open buffer crosses) are those of MiniMalloc (Moffitt, ASPLOS 2024); the inference here is stronger: each section
// of time is a machine with release dates, with Jackson's bound and the not-first rule. Runs with several ranks are
// limited in nodes and restarted; buffers that often fail gain weight in later ranks. All is deterministic.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace {

using Bytes = int64_t;
constexpr Bytes kFar = Bytes{1} << 60;
constexpr int kRanks = 8;           // ways to rank the buffers
constexpr int64_t kFirstNodes = 2000;  // nodes of a run in the first round; each round adds as many

struct Problem {
  int count, sections;
  const Bytes *size, *alignment;
  const int32_t *first, *last;  // half-open range of sections
  const double* span;           // real length of the lifetime
};

class Search {
 public:
  Search(const Problem& p, Bytes capacity, int64_t work_limit)
      : p_(p), capacity_(capacity), work_limit_(work_limit), rounded_(p.count), offset_(p.count), rank_(p.count), placed_(p.count),
        eligible_(p.count), weight_(p.count, 1.0), neighbours_(p.count), crowd_(p.count), load_(p.sections), lowest_(p.sections),
        second_(p.sections), owner_(p.sections) {
    Bytes grain = 0;
    for (int i = 0; i < p_.count; i++) grain = std::gcd(grain, p_.alignment[i]);
    for (int i = 0; i < p_.count; i++) {
      rounded_[i] = RoundUp(p_.size[i], grain);
      slack_ = std::max(slack_, rounded_[i] - p_.size[i]);  // the topmost buffer of a stack needs no rounding
      for (int j = 0; j < p_.count; j++)
        if (i != j && p_.first[i] < p_.last[j] && p_.first[j] < p_.last[i]) neighbours_[i].push_back(j);
    }
    std::vector<Bytes> total(p_.sections, 0);
    for (int i = 0; i < p_.count; i++)
      for (int s = p_.first[i]; s < p_.last[i]; s++) total[s] += p_.size[i];
    for (int i = 0; i < p_.count; i++)
      for (int s = p_.first[i]; s < p_.last[i]; s++) crowd_[i] = std::max(crowd_[i], total[s]);
  }

  // 1: found, in offsets(); -1: proven that there is none; 0: the work limit came first.
  int Run() {
    std::mt19937 random(0);
    for (int run = 0; work_ < work_limit_; run++) {
      std::vector<int> order = Rank(run % kRanks, run >= kRanks, random);
      std::fill(offset_.begin(), offset_.end(), 0);
      std::fill(placed_.begin(), placed_.end(), 0);
      nodes_ = 0;
      node_limit_ = kFirstNodes * (1 + run / kRanks);
      if (Split(order, std::vector<Bytes>(order.size(), 0), 0, -1)) return 1;
      if (!Exhausted()) return -1;
    }
    return 0;
  }

  const std::vector<Bytes>& offsets() const { return offset_; }
  int64_t work() const { return work_; }

 private:
  static Bytes RoundUp(Bytes value, Bytes grain) { return (value + grain - 1) / grain * grain; }
  bool Exhausted() const { return nodes_ > node_limit_ || work_ >= work_limit_; }
  bool Eligible(int i, Bytes floor, int last) const { return offset_[i] > floor || (offset_[i] == floor && rank_[i] > last); }

  // Buffers by falling keys: width, total (most bytes live beside it), area, size, weight; later rounds perturb them.
  std::vector<int> Rank(int kind, bool noisy, std::mt19937& random) {
    std::vector<std::vector<double>> keys(p_.count);
    for (int i = 0; i < p_.count; i++) {
      double noise = noisy ? std::exp((static_cast<int>(random() % 1000) / 1000.0 - 0.5) * 0.8) : 1.0;
      double w = p_.span[i], z = static_cast<double>(p_.size[i]), a = w * z, t = static_cast<double>(crowd_[i]), f = weight_[i];
      switch (kind) {
        case 0: keys[i] = {w * noise, a, t}; break;
        case 1: keys[i] = {t, a * noise, w}; break;
        case 2: keys[i] = {t, w * noise, a}; break;
        case 3: keys[i] = {a * noise, w, t}; break;
        case 4: keys[i] = {z * noise, w, t}; break;
        case 5: keys[i] = {f * noise, a, w}; break;
        case 6: keys[i] = {f * a * noise, w, t}; break;
        default: keys[i] = {t, f * w * noise, a}; break;
      }
    }
    std::vector<int> order(p_.count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return keys[a] > keys[b]; });
    for (int i = 0; i < p_.count; i++) rank_[order[i]] = i;
    return order;
  }

  // Open buffers fall apart where none crosses a boundary of sections; every part must be solved, the smallest first.
  // bounds: what each open buffer's offset is known to be at least. floor, last: nothing is placed before (offset, rank) again.
  bool Split(const std::vector<int>& open, const std::vector<Bytes>& bounds, Bytes floor, int last) {
    if (open.empty()) return true;
    std::vector<int> crossing(p_.sections + 1, 0), part(p_.sections, 0);
    for (int i : open) crossing[p_.first[i] + 1]++, crossing[p_.last[i]]--;
    int parts = 0;
    for (int s = 1, open_here = 0; s < p_.sections; s++) {
      open_here += crossing[s];
      if (open_here == 0) parts++;
      part[s] = parts;
    }
    work_ += p_.sections;
    if (parts == 0) return Place(open, bounds, floor, last);
    std::vector<std::vector<int>> members(parts + 1);
    for (size_t k = 0; k < open.size(); k++) members[part[p_.first[open[k]]]].push_back(static_cast<int>(k));
    std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
    std::vector<Bytes> before(open.size());
    for (size_t k = 0; k < open.size(); k++) before[k] = offset_[open[k]];
    for (const auto& some : members) {
      std::vector<int> buffers;
      std::vector<Bytes> known;
      for (int k : some) buffers.push_back(open[k]), known.push_back(bounds[k]);
      if (!buffers.empty() && !Place(buffers, known, floor, last)) {
        for (size_t k = 0; k < open.size(); k++) offset_[open[k]] = before[k], placed_[open[k]] = 0;
        return false;
      }
    }
    return true;
  }

  // Raises bounds; false where some section of time cannot hold what is open there.
  bool Infer(const std::vector<int>& open, std::vector<Bytes>& bounds, Bytes floor, int last) {
    const size_t n = open.size();
    for (size_t k = 0; k < n; k++) {
      eligible_[open[k]] = Eligible(open[k], floor, last);
      bounds[k] = std::max(bounds[k], eligible_[open[k]] ? offset_[open[k]] : floor);
    }
    std::vector<int> falling(n);
    for (int pass = 0; pass < 3; pass++) {
      std::fill(load_.begin(), load_.end(), 0);
      std::fill(lowest_.begin(), lowest_.end(), kFar);
      std::fill(second_.begin(), second_.end(), kFar);
      std::fill(owner_.begin(), owner_.end(), -1);
      std::iota(falling.begin(), falling.end(), 0);
      std::sort(falling.begin(), falling.end(), [&](int a, int b) { return bounds[a] != bounds[b] ? bounds[a] > bounds[b] : a < b; });
      for (int k : falling) {
        int i = open[k];
        Bytes room = capacity_ + slack_ - bounds[k], end = bounds[k] + p_.size[i];
        work_ += p_.last[i] - p_.first[i];
        for (int s = p_.first[i]; s < p_.last[i]; s++) {
          if ((load_[s] += rounded_[i]) > room) {  // Jackson: what starts here or later does not fit above here
            for (size_t q = 0; q < n; q++)
              if (p_.first[open[q]] <= s && s < p_.last[open[q]] && bounds[q] >= bounds[k]) weight_[open[q]] += 1;
            return false;
          }
          if (end < lowest_[s]) second_[s] = lowest_[s], lowest_[s] = end, owner_[s] = i;
          else if (end < second_[s]) second_[s] = end;
        }
      }
      bool changed = false;
      for (size_t k = 0; k < n; k++) {
        int i = open[k];
        bool lifted = bounds[k] > offset_[i] || !eligible_[i];  // it will rest on a buffer that is still open
        Bytes support = kFar, raised = bounds[k];
        work_ += p_.last[i] - p_.first[i];
        for (int s = p_.first[i]; s < p_.last[i]; s++) {
          Bytes others = owner_[s] == i ? second_[s] : lowest_[s];
          support = std::min(support, others);
          if (bounds[k] + load_[s] > capacity_ + slack_) raised = std::max(raised, others);  // it cannot be the lowest one here
        }
        if (lifted) raised = std::max(raised, support);
        if (raised > bounds[k]) {
          if (raised + p_.size[i] > capacity_) {
            weight_[i] += 1;
            return false;
          }
          bounds[k] = raised;
          changed = true;
        }
      }
      if (!changed) return true;
    }
    return true;
  }

  // Tries every open buffer that may come next in a canonical placement.
  bool Place(const std::vector<int>& open, std::vector<Bytes> bounds, Bytes floor, int last) {
    nodes_++;
    if (Exhausted() || !Infer(open, bounds, floor, last)) return false;
    Bytes top = kFar;  // where another could lie wholly below, this one would not be next
    for (int i : open) top = std::min(top, offset_[i] + p_.size[i]);
    std::vector<int> next;
    for (size_t k = 0; k < open.size(); k++)
      if (eligible_[open[k]] && offset_[open[k]] < top && bounds[k] == offset_[open[k]]) next.push_back(static_cast<int>(k));
    std::sort(next.begin(), next.end(), [&](int a, int b) {
      int i = open[a], j = open[b];
      return offset_[i] != offset_[j] ? offset_[i] < offset_[j] : rank_[i] < rank_[j];
    });
    for (int k : next) {
      if (TryOne(open, bounds, k)) return true;
      if (Exhausted()) return false;
    }
    return false;
  }

  bool TryOne(const std::vector<int>& open, const std::vector<Bytes>& bounds, int chosen) {
    int i = open[chosen];
    Bytes end = offset_[i] + p_.size[i];
    std::vector<std::pair<int, Bytes>> undo;
    bool fits = end <= capacity_;
    placed_[i] = 1;
    work_ += static_cast<int64_t>(neighbours_[i].size());
    for (int j : neighbours_[i]) {
      Bytes above = RoundUp(end, p_.alignment[j]);
      if (placed_[j] || offset_[j] >= above) continue;
      undo.emplace_back(j, offset_[j]);
      offset_[j] = above;
      fits = fits && above + p_.size[j] <= capacity_;
    }
    if (fits) {
      std::vector<int> rest(open);
      std::vector<Bytes> known(bounds);
      rest.erase(rest.begin() + chosen);
      known.erase(known.begin() + chosen);
      if (Split(rest, known, offset_[i], rank_[i])) return true;
    }
    for (auto it = undo.rbegin(); it != undo.rend(); ++it) offset_[it->first] = it->second;
    placed_[i] = 0;
    return false;
  }

  const Problem p_;
  const Bytes capacity_;
  const int64_t work_limit_;
  int64_t work_ = 0, nodes_ = 0, node_limit_ = 0;
  Bytes slack_ = 0;
  std::vector<Bytes> rounded_, offset_;  // offset_: of open buffers the lowest place above what is placed
  std::vector<int> rank_;
  std::vector<char> placed_, eligible_;
  std::vector<double> weight_;
  std::vector<std::vector<int>> neighbours_;
  std::vector<Bytes> crowd_, load_, lowest_, second_;
  std::vector<int> owner_;
};

}  // namespace

// Offsets for `count` buffers of positive size and lifetime within `capacity` bytes. work: in, the limit in elementary
// steps; out, the steps taken. Returns 1 (found), -1 (there is none), 0 (undecided).
extern "C" __attribute__((visibility("default"))) int tvm_ergo_place(
    int count, int sections, const int64_t* size, const int64_t* alignment, const int32_t* first, const int32_t* last,
    const double* span, int64_t capacity, int64_t* work, int64_t* offsets) {
  Search search(Problem{count, sections, size, alignment, first, last, span}, capacity, *work);
  int found = search.Run();
  *work = search.work();
  if (found == 1) std::copy(search.offsets().begin(), search.offsets().end(), offsets);
  return found;
}
