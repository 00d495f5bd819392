// Random programs on the table and on a standard map, for as many seconds as the first argument says.
// The second is the first seed; a failure repeats with the seed that was printed last.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "made_keys.h"
#include "table.h"
#include "tables.h"

using namespace recsys::table;

namespace {

struct Row {
  std::vector<float> weights;
  std::uint32_t last_seen_s, count;
};

struct Settings {
  std::vector<Slice> slices;
  std::uint64_t max_rows;  // 0: no bound
  std::uint32_t max_idle_s, max_skew_s;
  std::size_t threads;
  std::uint64_t n_keys;
};

Settings drawn(std::mt19937_64& random) {
  Settings settings{{plain_sgd(1 + random() % 9)}, 0, 0, 40, 1 + random() % 3, 1 + random() % 2500};
  // Whole numbers as small as these are exact in 16 bits too.
  if (random() % 2 == 0) settings.slices.push_back(plain_sgd(1 + random() % 20, Codec::kFp16));
  if (random() % 2 == 0) settings.max_rows = 1 + random() % 2000;
  if (random() % 2 == 0) settings.max_idle_s = static_cast<std::uint32_t>(1 + random() % 60);
  return settings;
}

KeyRules rules_of(const Settings& settings, std::mt19937_64& random) {
  KeyRules rules = rules_with(settings.max_rows);
  rules.expiry = Expiry(settings.max_idle_s, settings.max_skew_s);
  rules.policy = static_cast<Score>(random() % 3);
  return rules;
}

// The table beside what it should hold. Weights are whole numbers and rates are 1, so every sum is exact.
class Fuzz {
 public:
  explicit Fuzz(std::uint64_t seed)
      : random_(seed),
        settings_(drawn(random_)),
        layout_(settings_.slices),
        table_(settings_.slices, rules_of(settings_, random_), false, Nonfinite::kRefuse, settings_.threads),
        follower_(table_.follow()) {}

  void run(int steps) {
    for (int step = 0; step < steps; ++step) {
      change();
      look();
    }
    holds_what_the_model_holds();
  }

 private:
  using Key = std::uint64_t;
  std::size_t dim() const { return layout_.dim(); }

  Key key() {
    switch (random_() % 12) {
      case 0: return clashing_key(random_() % 40, random_() % 2);
      case 1: return 0 - random_() % 3;
      default: return random_() % settings_.n_keys;
    }
  }
  std::vector<Key> some_keys() {
    const bool is_big = random_() % 60 == 0;
    std::vector<Key> keys(is_big ? random_() % 12'000 : random_() % 100);
    for (Key& each : keys) each = is_big && random_() % 2 == 0 ? random_() % 30'000 : key();
    return keys;
  }
  std::vector<float> whole_numbers(std::size_t rows) {
    std::vector<float> numbers(rows * dim());
    for (float& number : numbers) number = static_cast<float>(random_() % 7) - 3.0f;
    return numbers;
  }
  std::uint32_t tick() {
    const auto event_s = static_cast<std::uint32_t>(random_() % 30 + clock_s_.value_or(1000) - 10);
    seen_s_ = clock_s_ ? std::min(event_s, *clock_s_ + settings_.max_skew_s) : event_s;
    clock_s_ = std::max(clock_s_.value_or(0), seen_s_);
    return event_s;
  }

  void change() {
    switch (random_() % 16) {
      case 0: return erase();
      case 1: return sweep();
      case 2: return random_() % 8 == 0 ? table_.compact() : void();
      case 3: return random_() % 64 == 0 ? clear() : void();
      case 4: return assign();
      case 5: return import_rows();
      case 6: return admit();
      case 7: case 8: case 9: return learn_bags();
      default: return learn();
    }
  }

  // Gives the model a row for each key of a batch that now has one in the table, and takes those away that
  // gave way to them. None is refused but by a table full of the batch's own rows.
  void follow_batch(const std::vector<Key>& keys) {
    const auto [touched, removed] = table_.drain(follower_).value();
    const std::set<Key> in_batch(keys.begin(), keys.end());
    for (const Key gone : removed)
      CHECK(settings_.max_rows != 0 && !in_batch.contains(gone) && model_.erase(gone) == 1);
    std::set<Key> placed;
    for (const Key each : in_batch) {
      bool is_there = false;
      table_.contains({&each, 1}, &is_there);
      CHECK(is_there || (!model_.contains(each) && table_.size() == settings_.max_rows));
      if (!is_there) continue;
      model_.try_emplace(each, Row{std::vector<float>(dim()), 0, 0});
      placed.insert(each);
    }
    if (notes_) CHECK(touched == std::vector<Key>(placed.begin(), placed.end()));
    CHECK(table_.size() == model_.size());
  }
  void see(Key each) {
    if (const auto row = model_.find(each); row != model_.end()) {
      row->second.last_seen_s = std::max(row->second.last_seen_s, seen_s_);
      ++row->second.count;
    }
  }
  void step(Key each, const float* gradient, float scale) {
    see(each);
    if (const auto row = model_.find(each); row != model_.end())
      for (std::size_t d = 0; d < dim(); ++d) row->second.weights[d] -= gradient[d] * scale;
  }

  void learn() {
    const auto keys = some_keys();
    const auto gradients = whole_numbers(keys.size());
    CHECK(!table_.learn(keys, gradients.data(), tick(), kRateOfOne));
    follow_batch(keys);
    for (std::size_t i = 0; i < keys.size(); ++i) step(keys[i], &gradients[i * dim()], 1.0f);
  }
  std::vector<std::int64_t> offsets_of(const std::vector<Key>& keys) {
    std::vector<std::int64_t> offsets(1 + random_() % 20);
    for (auto& offset : offsets) offset = static_cast<std::int64_t>(random_() % (keys.size() + 1));
    offsets.push_back(0);
    offsets.push_back(static_cast<std::int64_t>(keys.size()));
    std::sort(offsets.begin(), offsets.end());
    return offsets;
  }
  void learn_bags() {
    const auto keys = some_keys();
    const auto offsets = offsets_of(keys);
    const std::vector<float> scale(offsets.size() - 1, random_() % 2 == 0 ? 1.0f : 2.0f);
    const auto gradients = whole_numbers(scale.size());
    CHECK(!table_.learn_bags(keys, {offsets, scale.data()}, gradients.data(), tick(), kRateOfOne));
    follow_batch(keys);
    for (std::size_t bag = 0; bag < scale.size(); ++bag)
      for (auto i = offsets[bag]; i < offsets[bag + 1]; ++i)
        step(keys[static_cast<std::size_t>(i)], &gradients[bag * dim()], scale[bag]);
  }
  void admit() {
    const auto keys = some_keys();
    std::vector<std::int64_t> rows(keys.size()), again(keys.size());
    table_.admit(keys, tick(), kRateOfOne, rows.data());
    follow_batch(keys);
    for (const Key each : keys) see(each);
    table_.row_numbers(keys, again.data());
    CHECK(rows == again);
  }
  void assign() {
    const auto keys = some_keys();
    const auto weights = whole_numbers(keys.size());
    table_.assign(keys, weights.data(), kRateOfOne);
    follow_batch(keys);
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (const auto row = model_.find(keys[i]); row != model_.end())
        std::copy_n(&weights[i * dim()], dim(), row->second.weights.begin());
  }
  void import_rows() {
    const auto keys = some_keys();
    RowBuffers rows(keys.size(), layout_);
    rows.weights = whole_numbers(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      rows.last_seen_s[i] = static_cast<std::uint32_t>(random_() % 2000);
      rows.count[i] = static_cast<std::uint32_t>(random_() % 10);
    }
    table_.import_rows(keys, rows.in(), kRateOfOne);
    notes_ = false;  // rows that come from elsewhere are no changes
    follow_batch(keys);
    notes_ = true;
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (const auto row = model_.find(keys[i]); row != model_.end())
        row->second = {{&rows.weights[i * dim()], &rows.weights[i * dim()] + dim()},
                       rows.last_seen_s[i], rows.count[i]};
  }

  void erase() {
    const auto keys = some_keys();
    std::set<Key> gone;
    for (const Key each : keys)
      if (model_.erase(each) == 1) gone.insert(each);
    CHECK(table_.erase(keys) == gone.size());
    removed_are(gone);
  }
  void sweep() {
    const bool is_whole = random_() % 2 == 0;
    const std::size_t n = table_.sweep(is_whole ? 1u << 30 : random_() % 300);
    std::set<Key> gone;
    const auto removed = table_.drain(follower_).value().second;
    const auto is_expired = [&](const Row& row) {
      return settings_.max_idle_s != 0 && clock_s_ && *clock_s_ >= row.last_seen_s + settings_.max_idle_s;
    };
    for (const Key each : removed) CHECK(is_expired(model_.at(each)) && model_.erase(each) == 1);
    CHECK(removed.size() == n);
    if (is_whole)
      for (const auto& [each, row] : model_) CHECK(!is_expired(row));
  }
  void clear() {
    table_.clear();
    model_.clear();
    clock_s_.reset();
    removed_are({});
  }
  void removed_are(const std::set<Key>& gone) {
    const auto [touched, removed] = table_.drain(follower_).value();
    CHECK(touched.empty() && removed == std::vector<Key>(gone.begin(), gone.end()));
  }

  void look() {
    const auto keys = some_keys();
    const auto offsets = offsets_of(keys);
    std::vector<float> weights(keys.size() * dim());
    std::vector<float> sums((offsets.size() - 1) * dim()), expected(sums.size());
    table_.lookup(keys, weights.data());
    table_.lookup_bags(keys, {offsets, nullptr}, sums.data());
    std::size_t bag = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      while (offsets[bag + 1] <= static_cast<std::int64_t>(i)) ++bag;
      const auto row = model_.find(keys[i]);
      for (std::size_t d = 0; d < dim(); ++d) {
        const float w = row == model_.end() ? 0.0f : row->second.weights[d];
        CHECK(weights[i * dim() + d] == w);
        expected[bag * dim() + d] += w;
      }
    }
    CHECK(sums == expected);
    CHECK(settings_.max_rows == 0 || table_.size() <= settings_.max_rows);
  }

  void holds_what_the_model_holds() {
    RowBuffers rows(700, layout_);
    std::size_t n_rows = 0;
    std::uint32_t cursor = 0;
    do {
      const auto [n, next] = table_.scan(cursor, 700, rows.keys.data(), rows.out());
      for (std::size_t i = 0; i < n; ++i) {
        const Row& row = model_.at(rows.keys[i]);
        CHECK(row.last_seen_s == rows.last_seen_s[i] && row.count == rows.count[i]);
        CHECK(std::equal(row.weights.begin(), row.weights.end(), &rows.weights[i * dim()]));
      }
      n_rows += n;
      cursor = next;
    } while (cursor != 0);
    CHECK(n_rows == model_.size() && table_.keys().size() == n_rows);
    const KeyCounters counters = table_.with_map([](KeyMap& map) { return map.counters(); });
    CHECK(counters.admitted >= n_rows + counters.evicted + counters.expired);
  }

  std::mt19937_64 random_;
  const Settings settings_;
  const Layout layout_;
  Table table_;
  ChangeLog::Follower follower_;
  std::map<Key, Row> model_;
  std::optional<std::uint32_t> clock_s_;
  std::uint32_t seen_s_ = 0;
  bool notes_ = true;
};

}  // namespace

int main(int n_arguments, char** arguments) {
  using Clock = std::chrono::steady_clock;
  const double seconds = n_arguments > 1 ? std::stod(arguments[1]) : 5.0;
  const std::uint64_t first = n_arguments > 2 ? std::stoull(arguments[2]) : 1;
  const auto start = Clock::now();
  std::uint64_t seed = first;
  for (; std::chrono::duration<double>(Clock::now() - start).count() < seconds; ++seed) {
    std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
    Fuzz(seed).run(400);
  }
  std::printf("%llu programs\n", static_cast<unsigned long long>(seed - first));
}
