#include "gradient_sums.h"

#include <limits>
#include <map>
#include <random>

#include "check.h"

using namespace recsys::table;

namespace {

void parts_together_hold_every_key_once_with_its_sum() {
  std::mt19937_64 random(3);
  std::vector<std::uint64_t> keys;
  std::vector<float> gradients;
  std::map<std::uint64_t, float> expected;
  for (int i = 0; i < 5'000; ++i) {
    keys.push_back((random() % 700) << 50);
    gradients.push_back(static_cast<float>(random() % 64));
    expected[keys.back()] += gradients.back();
  }
  GradientSums sums;
  std::size_t seen = 0;
  for (std::uint64_t part = 0; part < 3; ++part) {
    sums.collect(keys, gradients.data(), 1, part, 3);
    for (std::size_t k = 0; k < sums.keys().size(); ++k, ++seen)
      CHECK(sums.sums()[k] == expected.at(sums.keys()[k]));
  }
  CHECK(seen == expected.size());
}

void terms_are_added_in_order_of_occurrence() {
  const std::vector<std::uint64_t> keys{4, 9, 4, 4};
  const std::vector<float> gradients{1e8f, 1.0f, -1e8f, 1.0f};
  GradientSums sums;
  sums.collect(keys, gradients.data(), 1, 0, 1);
  CHECK(sums.keys()[0] == 4 && sums.sums()[0] == 1.0f && sums.sums()[1] == 1.0f);
}

void a_sum_that_is_not_finite_names_its_key() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  const std::vector<std::uint64_t> keys{1, 2, 2};
  GradientSums sums;
  for (const std::vector<float>& bad : {std::vector{0.0f, infinity, -infinity},
                                        {0.0f, largest, largest},
                                        {0.0f, 0.0f, std::numeric_limits<float>::quiet_NaN()}}) {
    sums.collect(keys, bad.data(), 1, 0, 1);
    CHECK(sums.key_not_finite(1) == 2);
  }
  const std::vector<float> good{1.0f, largest, 0.0f};
  sums.collect(keys, good.data(), 1, 0, 1);
  CHECK(!sums.key_not_finite(1));
}

}  // namespace

int main() {
  parts_together_hold_every_key_once_with_its_sum();
  terms_are_added_in_order_of_occurrence();
  a_sum_that_is_not_finite_names_its_key();
}
