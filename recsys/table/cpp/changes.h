// Which keys have changed since each follower last asked: one log with a mark for every follower.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace recsys::table {

// Not synchronised. A drain costs as much as there is to drain; nothing is ever dropped.
class ChangeLog {
 public:
  using Follower = std::uint64_t;

  Follower follow() {
    begin_segment();
    marks_[next_] = segments_.size() - 1;
    return next_++;
  }

  bool unfollow(Follower follower) {
    if (marks_.erase(follower) == 0) return false;
    if (marks_.empty()) forget_all();
    else forget_what_none_needs();
    return true;
  }

  bool is_followed() const noexcept { return !marks_.empty(); }

  // Notes a key unless it was noted in the running period; `noted_in` is what its row remembers of that.
  void note(std::uint64_t key, std::uint32_t& noted_in) {
    if (marks_.empty() || noted_in == period_) return;
    noted_in = period_;
    segments_.back().add(key);
  }

  // Keys that changed since the follower's last drain, ascending; nothing for a stranger.
  std::optional<std::vector<std::uint64_t>> drain(Follower follower) {
    const auto mark = marks_.find(follower);
    if (mark == marks_.end()) return std::nullopt;
    std::vector<std::uint64_t> keys;
    if (marks_.size() == 1 && mark->second + 1 == segments_.size()) {
      keys.swap(segments_.back().keys);
      ++period_;
    } else {
      for (std::size_t s = mark->second; s < segments_.size(); ++s)
        keys.insert(keys.end(), segments_[s].keys.begin(), segments_[s].keys.end());
      begin_segment();
      mark->second = segments_.size() - 1;
      forget_what_none_needs();
    }
    keep_distinct(keys);
    return keys;
  }

  std::size_t bytes() const noexcept {
    std::size_t bytes = 0;
    for (const Segment& segment : segments_) bytes += segment.keys.capacity() * sizeof(std::uint64_t);
    return bytes;
  }

  void clear() {
    forget_all();
    for (auto& [follower, at] : marks_) at = 0;
    ++period_;
  }

 private:
  // A key that was erased and learned again is listed twice; now and then that is put right, so that the
  // list stays within twice the number of distinct keys.
  struct Segment {
    std::vector<std::uint64_t> keys;
    std::size_t distinct_at = 1024;

    void add(std::uint64_t key) {
      if (keys.size() >= 2 * distinct_at) {
        keep_distinct(keys);
        distinct_at = std::max<std::size_t>(1024, keys.size());
      }
      keys.push_back(key);
    }
  };

  static void keep_distinct(std::vector<std::uint64_t>& keys) {
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  }

  // Assigning an empty segment to the first one would keep its memory.
  void forget_all() { segments_ = std::vector<Segment>(1); }

  std::size_t marks_at(std::size_t segment) const {
    return static_cast<std::size_t>(std::count_if(
        marks_.begin(), marks_.end(), [&](const auto& mark) { return mark.second == segment; }));
  }

  void begin_segment() {
    if (!segments_.back().keys.empty()) segments_.emplace_back();
    ++period_;
  }

  // Joins segments between which no follower stands and drops those that all have passed, so that there
  // are never more of them than followers.
  void forget_what_none_needs() {
    std::vector<Segment> kept;
    std::map<std::size_t, std::size_t> moved;
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      if (marks_at(s) > 0 || kept.empty()) {
        if (marks_at(s) == 0 && s + 1 < segments_.size()) continue;
        moved[s] = kept.size();
        kept.push_back(std::move(segments_[s]));
      } else {
        for (const std::uint64_t key : segments_[s].keys) kept.back().add(key);
      }
    }
    for (auto& [follower, at] : marks_) at = moved[at];
    segments_ = std::move(kept);
  }

  std::vector<Segment> segments_{1};
  std::map<Follower, std::size_t> marks_;  // where each follower's undrained segments begin
  Follower next_ = 0;
  std::uint32_t period_ = 1;
};

}  // namespace recsys::table
