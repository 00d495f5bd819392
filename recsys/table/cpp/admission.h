// Which keys earn a row. The rules and their reasons are told in recsys/table/admission.py, whose
// filter gives the same bits as this one when one thread calls at a time.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "hashing.h"

namespace recsys::table {

struct AdmissionRule {
  enum Kind : std::uint8_t { kAll, kOccurrence, kProbabilistic };
  Kind kind = kAll;
  std::uint32_t threshold = 1;   // 1 to 65535
  std::uint32_t width = 0;       // cells in one row of the sketch, a power of two; 0 unless kOccurrence
  std::uint32_t depth = 0;       // rows of the sketch, 1 to 8; 0 unless kOccurrence
  std::uint64_t window = 0;      // new keys between two halvings; 0 never halves
  double probability = 0.0;      // of one occurrence under the equal rule
  bool linear = false;           // the linear rule of kProbabilistic
  std::uint64_t seed = 0;
};

// 1 - (1 - p)^c by repeated multiplication, as in Python.
inline double equal_probability(double probability, std::uint32_t occurrences) noexcept {
  double out = 1.0;
  for (std::uint32_t i = 0; i < occurrences; ++i) {
    out *= 1.0 - probability;
    if (1.0 - out == 1.0) break;  // it stays so
  }
  return 1.0 - out;
}

inline bool passes_draw(std::uint64_t draw, double probability) noexcept {
  return probability >= 1.0 || draw < static_cast<std::uint64_t>(probability * 0x1p64);
}

// Any number of threads may call admit; one may read counters, cells and fill beside them and sees
// values that were each true a moment ago. restore excludes every other call.
//
// What threads can cost: without halving, an estimate is never below what any one thread has counted
// of the key, so threads that count the same key at the same instant may lose all but the largest of
// their additions; other keys lose nothing. A halving beside additions may undo those that land in
// one cell while it is being halved, at most one from each thread, and the next window may start with
// as many additions uncounted.
class AdmissionFilter {
 public:
  static constexpr std::size_t kCounters = 5;  // admitted, refused, draws, fresh, additions
  static constexpr std::size_t kMaxDepth = 8;
  using Counters = std::array<std::uint64_t, kCounters>;

  explicit AdmissionFilter(AdmissionRule rule)
      : rule_(checked(rule)), cells_(std::size_t{rule.width} * rule.depth) {
    for (std::uint32_t row = 0; row < rule_.depth; ++row) row_seed_[row] = mix64(rule_.seed + row);
  }

  // Counts `occurrences` >= 1 sightings of a key without a row; true if it gets one now.
  bool admit(std::uint64_t key, std::uint32_t occurrences) noexcept {
    const bool is_in = decide(key, occurrences);
    add(is_in ? kAdmitted : kRefused, 1);
    return is_in;
  }

  // Starts loading the cells of a key that will be asked about soon.
  void prefetch(std::uint64_t key) const noexcept {
    for (std::size_t row = 0; row < rule_.depth; ++row) __builtin_prefetch(&cells_[cell_of(key, row)], 1);
  }

  std::uint64_t admitted() const noexcept { return read(kAdmitted); }
  std::uint64_t refused() const noexcept { return read(kRefused); }
  std::size_t bytes() const noexcept { return sizeof *this + cells_.size() * sizeof cells_[0]; }
  std::size_t depth() const noexcept { return rule_.depth; }
  std::size_t width() const noexcept { return rule_.width; }

  // Share of the cells that are not zero, read one by one.
  double fill() const noexcept {
    if (cells_.empty()) return 0.0;
    const auto used = std::count_if(cells_.begin(), cells_.end(), [](const Cell& cell) {
      return cell.load(std::memory_order_relaxed) != 0;
    });
    return static_cast<double>(used) / static_cast<double>(cells_.size());
  }

  // A copy, since a snapshot is taken while learning goes on: cells row by row, depth * width of them.
  [[nodiscard]] bool save_cells(std::span<std::uint16_t> out) const noexcept {
    if (out.size() != cells_.size()) return false;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = cells_[i].load(std::memory_order_relaxed);
    return true;
  }
  Counters counters() const noexcept {
    Counters out{};
    for (std::size_t i = 0; i < kCounters; ++i) out[i] = read(static_cast<Counter>(i));
    return out;
  }

  // False, and nothing changed, unless there are depth * width cells and kCounters counters.
  [[nodiscard]] bool restore(std::span<const std::uint16_t> cells,
                             std::span<const std::uint64_t> counters) noexcept {
    if (cells.size() != cells_.size() || counters.size() != kCounters) return false;
    for (std::size_t i = 0; i < cells.size(); ++i) cells_[i].store(cells[i], std::memory_order_relaxed);
    for (std::size_t i = 0; i < kCounters; ++i) counters_[i].store(counters[i], std::memory_order_relaxed);
    return true;
  }

 private:
  using Cell = std::atomic<std::uint16_t>;
  enum Counter : std::size_t { kAdmitted, kRefused, kDraws, kFresh, kAdditions };
  static constexpr std::uint32_t kLargestCount = 0xffff;

  static AdmissionRule checked(const AdmissionRule& rule) {
    if (rule.threshold < 1 || rule.threshold > kLargestCount)
      throw std::invalid_argument("admission: threshold must be in 1..65535");
    const bool has_sketch = rule.kind == AdmissionRule::kOccurrence;
    if (has_sketch ? !std::has_single_bit(rule.width) || rule.depth < 1 || rule.depth > kMaxDepth
                   : rule.width != 0 || rule.depth != 0)
      throw std::invalid_argument(
          "admission: a sketch has a width of a power of two and a depth in 1..8; others have none");
    if (rule.window > rule.width / 4)
      throw std::invalid_argument("admission: window must be at most width / 4");
    if (!(rule.probability >= 0.0 && rule.probability <= 1.0))
      throw std::invalid_argument("admission: probability must be in 0..1");
    return rule;
  }

  std::uint64_t read(Counter counter) const noexcept {
    return counters_[counter].load(std::memory_order_relaxed);
  }
  std::uint64_t add(Counter counter, std::uint64_t amount) noexcept {
    return counters_[counter].fetch_add(amount, std::memory_order_relaxed);
  }

  bool decide(std::uint64_t key, std::uint32_t occurrences) noexcept {
    switch (rule_.kind) {
      case AdmissionRule::kAll: return true;
      case AdmissionRule::kOccurrence: return count(key, occurrences) >= rule_.threshold;
      case AdmissionRule::kProbabilistic: return draw(key, occurrences);
    }
    return true;
  }

  std::size_t cell_of(std::uint64_t key, std::size_t row) const noexcept {
    return row * rule_.width + (mix64(key ^ row_seed_[row]) & (rule_.width - 1));
  }

  // The key's estimate after the addition.
  std::uint32_t count(std::uint64_t key, std::uint32_t occurrences) noexcept {
    std::array<std::size_t, kMaxDepth> at;
    std::uint32_t before = kLargestCount;
    for (std::size_t row = 0; row < rule_.depth; ++row) {
      at[row] = cell_of(key, row);
      before = std::min<std::uint32_t>(before, cells_[at[row]].load(std::memory_order_relaxed));
    }
    const std::uint32_t after = before + std::min(occurrences, kLargestCount - before);
    for (std::size_t row = 0; row < rule_.depth; ++row)
      raise(cells_[at[row]], static_cast<std::uint16_t>(after));
    if (rule_.window != 0) age(before == 0, occurrences);
    return after;
  }

  // To at least `height`. It never takes away what another thread has added meanwhile.
  static void raise(Cell& cell, std::uint16_t height) noexcept {
    std::uint16_t seen = cell.load(std::memory_order_relaxed);
    while (seen < height && !cell.compare_exchange_weak(seen, height, std::memory_order_relaxed)) {
    }
  }

  void age(bool is_new, std::uint32_t occurrences) noexcept {
    if (is_new) add(kFresh, 1);
    add(kAdditions, occurrences);
    if (!window_is_over() || halving_.test_and_set(std::memory_order_acquire)) return;
    if (window_is_over()) {  // still: another thread may have halved since
      halve();
      counters_[kFresh].store(0, std::memory_order_relaxed);
      counters_[kAdditions].store(0, std::memory_order_relaxed);
    }
    halving_.clear(std::memory_order_release);
  }

  bool window_is_over() const noexcept {
    return read(kFresh) >= rule_.window || read(kAdditions) >= rule_.window * rule_.threshold;
  }

  // A plain store: an exchange of each cell would take far longer, and what it can undo is stated above.
  void halve() noexcept {
    for (Cell& cell : cells_)
      cell.store(static_cast<std::uint16_t>(cell.load(std::memory_order_relaxed) >> 1),
                 std::memory_order_relaxed);
  }

  bool draw(std::uint64_t key, std::uint32_t occurrences) noexcept {
    const std::uint64_t drawn = mix64(mix64(rule_.seed ^ key) + add(kDraws, 1));
    if (rule_.linear) return passes_draw(drawn, static_cast<double>(occurrences) / rule_.threshold);
    return passes_draw(drawn, equal_probability(rule_.probability, occurrences));
  }

  const AdmissionRule rule_;
  std::array<std::uint64_t, kMaxDepth> row_seed_{};
  std::vector<Cell> cells_;
  std::array<std::atomic<std::uint64_t>, kCounters> counters_{};
  std::atomic_flag halving_;
};

}  // namespace recsys::table
