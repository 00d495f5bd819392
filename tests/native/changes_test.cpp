#include "changes.h"

#include <iterator>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

// Rows as the log sees them: what each remembers, and that a key which comes back remembers nothing.
class Rows {
 public:
  explicit Rows(ChangeLog& log) : log_(log) {}
  void learn(std::uint64_t key) { log_.note(key, noted_in_[key]); }
  void drop(std::uint64_t key) {
    learn(key);
    noted_in_.erase(key);
  }

 private:
  ChangeLog& log_;
  std::map<std::uint64_t, std::uint32_t> noted_in_;
};

using Key = std::uint64_t;
using Followers = std::map<ChangeLog::Follower, std::set<Key>>;

void drained_keys_are(ChangeLog& log, ChangeLog::Follower follower, std::set<Key>& expected) {
  const auto keys = log.drain(follower);
  CHECK(keys && *keys == std::vector<Key>(expected.begin(), expected.end()));
  expected.clear();
}

void one_step(ChangeLog& log, Rows& rows, Followers& followers, std::mt19937_64& random) {
  const Key key = random() % 3000;
  auto any = followers.begin();
  if (!followers.empty()) std::advance(any, static_cast<int>(random() % followers.size()));
  switch (random() % 200) {
    case 0: {
      if (followers.size() < 5) CHECK(followers.emplace(log.follow(), std::set<Key>()).second);
      break;
    }
    case 1:
    case 2:
    case 3:
      if (any != followers.end()) drained_keys_are(log, any->first, any->second);
      break;
    case 4:
      if (any == followers.end() || random() % 4 != 0) break;
      CHECK(log.unfollow(any->first));
      CHECK(!log.drain(any->first) && !log.unfollow(any->first));
      followers.erase(any);
      break;
    default:
      if (random() % 3 == 0) rows.drop(key);
      else rows.learn(key);
      for (auto& [follower, expected] : followers) expected.insert(key);
  }
  CHECK(log.is_followed() == !followers.empty());
}

void every_follower_gets_every_key_that_changed_since_it_last_asked() {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    ChangeLog log;
    Rows rows(log);
    Followers followers;
    for (int step = 0; step < 20'000; ++step) one_step(log, rows, followers, random);
    for (auto& [follower, expected] : followers) drained_keys_are(log, follower, expected);
    for (auto& [follower, expected] : followers) CHECK(log.drain(follower)->empty());
  }
}

void a_late_follower_takes_nothing_from_an_early_one() {
  ChangeLog log;
  Rows rows(log);
  const auto early = log.follow();
  rows.learn(1);
  const auto late = log.follow();
  rows.learn(2);
  CHECK(log.drain(late) == std::vector<Key>{2});
  CHECK(log.drain(early) == (std::vector<Key>{1, 2}));
}

// 100 keys change 200'000 times; one follower asks all the time and one never.
void memory_is_bounded_by_the_distinct_keys_not_by_the_changes() {
  ChangeLog log;
  Rows rows(log);
  log.follow();
  const auto eager = log.follow();
  for (Key i = 0; i < 200'000; ++i) {
    if (i % 3 == 0) rows.drop(i % 100);
    else rows.learn(i % 100);
    if (i % 10 == 0) log.drain(eager);
  }
  CHECK(log.bytes() <= 2 * 4096 * sizeof(Key));
}

void clearing_forgets_the_keys_but_not_the_followers() {
  ChangeLog log;
  std::uint32_t noted_in = 0;
  const auto first = log.follow();
  log.note(1, noted_in);
  const auto second = log.follow();
  log.note(1, noted_in);
  log.clear();
  CHECK(log.drain(first)->empty());
  log.note(1, noted_in);
  CHECK(log.drain(first) == std::vector<Key>{1} && log.drain(second) == std::vector<Key>{1});
}

void nothing_is_kept_for_nobody() {
  ChangeLog log;
  Rows rows(log);
  for (Key key = 0; key < 1000; ++key) rows.learn(key);
  CHECK(log.bytes() == 0);
  const auto follower = log.follow();
  for (Key key = 0; key < 1000; ++key) rows.learn(key);
  CHECK(log.bytes() >= 1000 * sizeof(Key));
  CHECK(log.unfollow(follower) && !log.unfollow(follower));
  CHECK(log.bytes() == 0);
}

}  // namespace

int main() {
  a_late_follower_takes_nothing_from_an_early_one();
  every_follower_gets_every_key_that_changed_since_it_last_asked();
  memory_is_bounded_by_the_distinct_keys_not_by_the_changes();
  clearing_forgets_the_keys_but_not_the_followers();
  nothing_is_kept_for_nobody();
}
