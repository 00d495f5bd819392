#include "optimizers.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

constexpr float kTolerance = 1e-6f;
constexpr float kRate = 0.1f;

bool near(float got, double wanted) { return std::abs(got - wanted) <= kTolerance; }

// The levels that this machine can run.
std::vector<Isa> levels() {
  std::vector<Isa> all{Isa::kPortable};
  if (isa() >= Isa::kAvx2) all.push_back(Isa::kAvx2);
  if (isa() >= Isa::kAvx512) all.push_back(Isa::kAvx512);
  return all;
}

struct Golden {
  Rule rule;
  bool from_zero;
  double first, second;
};

// Values worked out apart from any implementation: w0 = (0.5, -0.25) or 0, learning rate 0.1.
const std::vector<Golden> kGolden{
    {{Optimizer::kSgd, {}}, false, 0.5180000, -0.2350000},
    {{Optimizer::kMomentum, {0.9f, 0.0f, 0.0f}}, false, 0.5279000, -0.2053000},
    {{Optimizer::kMomentum, {0.9f, 0.0f, 1.0f}}, false, 0.5431100, -0.1947700},
    {{Optimizer::kAdagrad, {0.1f, 0.0f, 0.0f}}, false, 0.5324632, -0.2097931},
    {{Optimizer::kAdagrad, {0.1f, 0.01f, 0.0f}}, false, 0.5291314, -0.2082113},
    {{Optimizer::kAdagrad, {0.1f, 0.01f, 1.0f}}, false, 0.5309579, -0.2091374},
    {{Optimizer::kRowWiseAdagrad, {0.1f, 0.0f}}, false, 0.5393802, -0.2055139},
    {{Optimizer::kAdam, {0.9f, 0.99f, 0.01f, 0.0f, 0.0f}}, false, 0.5133635, -0.1272436},
    {{Optimizer::kAdam, {0.9f, 0.99f, 0.01f, 0.0f, 1.0f}}, false, 0.5124971, -0.0850167},
    {{Optimizer::kAmsgrad, {0.9f, 0.99f, 0.01f, 0.0f}}, false, 0.5133044, -0.1273260},
    {{Optimizer::kFtrl, {0.1f, 0.0f, 0.0f, 0.0f}}, true, 0.0324632, 0.0402069},
    {{Optimizer::kFtrl, {0.1f, 1.0f, 0.05f, 0.1f}}, true, 0.0086260, 0.0072332},
    {{Optimizer::kGroupFtrl, {0.0f, 1.0f, 0.05f, 0.1f}}, true, 0.0096500, 0.0096249},
    {{Optimizer::kGroupAdagrad, {0.1f, 0.0f, 0.05f, 0.0f}}, false, 0.4998839, -0.1943232},
    {{Optimizer::kRmsprop, {0.9f, 1.0f, 0.0f, 1.0f}}, false, 0.5157646, -0.2358976},
    {{Optimizer::kRmsprop, {0.9f, 1.0f, 0.0f, 0.0f}}, false, 0.5121895, -0.2375132},
    {{Optimizer::kAdadelta, {0.9f, 0.01f, 0.0f}}, false, 0.5108540, -0.2379144},
    {{Optimizer::kMovingAverage, {0.9f}}, false, 0.3476000, -0.1939500},
};

void three_steps_end_at_the_published_values() {
  for (const Isa level : levels())
    for (const Golden& golden : kGolden) {
      std::vector<float> w = golden.from_zero ? std::vector{0.0f, 0.0f} : std::vector{0.5f, -0.25f};
      std::vector<float> state(state_dim(golden.rule, 2));
      initial_state(golden.rule, 2, kRate, w.data(), state.data());
      for (const std::array<float, 2> g : {std::array{0.1f, -0.2f}, {-0.3f, 0.05f}, {0.02f, 0.0f}})
        update_for(golden.rule.kind, level)(golden.rule, kRate, 2, w.data(), state.data(), g.data());
      CHECK(near(w[0], golden.first) && near(w[1], golden.second));
    }
}

// Every number away from 0, where a mistake would hide.
const std::vector<Rule> kBusy{
    {Optimizer::kSgd, {}},
    {Optimizer::kMomentum, {0.9f, 0.01f, 0.0f}},
    {Optimizer::kMomentum, {0.9f, 0.01f, 1.0f}},
    {Optimizer::kAdagrad, {0.1f, 0.01f, 0.0f}},
    {Optimizer::kAdagrad, {0.1f, 0.01f, 1.0f}},
    {Optimizer::kRowWiseAdagrad, {0.1f, 0.01f}},
    {Optimizer::kAdam, {0.9f, 0.99f, 0.01f, 0.01f, 0.0f}},
    {Optimizer::kAdam, {0.9f, 0.99f, 0.01f, 0.01f, 1.0f}},
    {Optimizer::kRowWiseAdam, {0.9f, 0.99f, 0.01f, 0.01f}},
    {Optimizer::kAmsgrad, {0.9f, 0.99f, 0.01f, 0.01f}},
    {Optimizer::kFtrl, {0.1f, 1.0f, 0.5f, 0.1f}},
    {Optimizer::kGroupFtrl, {0.1f, 1.0f, 0.5f, 0.1f}},
    {Optimizer::kGroupAdagrad, {0.1f, 1.0f, 0.5f, 0.01f}},
    {Optimizer::kRmsprop, {0.9f, 1.0f, 0.01f, 1.0f}},
    {Optimizer::kRmsprop, {0.9f, 1.0f, 0.01f, 0.0f}},
    {Optimizer::kAdadelta, {0.9f, 0.01f, 0.01f}},
    {Optimizer::kMovingAverage, {0.9f}},
};

struct Learned {
  std::vector<float> w, state;
};

// Ten steps over arrays that end where their last column does, so that a sanitizer sees one read too many.
Learned learn(const Rule& rule, Isa level, std::size_t dim, float largest_exponent) {
  std::mt19937 random(static_cast<unsigned>(dim));
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> exponent(-largest_exponent, largest_exponent);
  Learned row{std::vector<float>(dim), std::vector<float>(state_dim(rule, dim))};
  std::vector<float> g(dim);
  for (float& x : row.w) x = normal(random);
  initial_state(rule, dim, kRate, row.w.data(), row.state.data());
  for (int step = 0; step < 10; ++step) {
    for (float& x : g) x = step % 3 == 2 ? 0.0f : normal(random) * std::pow(10.0f, exponent(random));
    update_for(rule.kind, level)(rule, kRate, dim, row.w.data(), row.state.data(), g.data());
  }
  return row;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

void all_instruction_sets_give_the_same_finite_bits() {
  for (const Rule& rule : kBusy)
    for (const std::size_t dim : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 67, 128})
      for (const float largest_exponent : {0.0f, 30.0f}) {
        const Learned portable = learn(rule, Isa::kPortable, dim, largest_exponent);
        for (const float w : portable.w) CHECK(std::isfinite(w));
        for (const Isa level : levels()) {
          const Learned other = learn(rule, level, dim, largest_exponent);
          CHECK(same_bits(portable.w, other.w) && same_bits(portable.state, other.state));
        }
      }
}

void a_penalty_larger_than_the_gradients_zeroes_the_row() {
  const std::vector<float> g{0.1f, -0.2f, 0.3f};
  for (const Isa level : levels()) {
    for (const Optimizer kind : {Optimizer::kFtrl, Optimizer::kGroupFtrl, Optimizer::kGroupAdagrad}) {
      const Rule rule{kind, {0.1f, 1.0f, 100.0f, 0.0f}};
      std::vector<float> w(3), state(state_dim(rule, 3));
      initial_state(rule, 3, kRate, w.data(), state.data());
      if (kind == Optimizer::kGroupAdagrad) w = {0.5f, -0.25f, 1.0f};
      update_for(kind, level)(rule, kRate, 3, w.data(), state.data(), g.data());
      CHECK(same_bits(w, {0.0f, 0.0f, 0.0f}));
    }
  }
}

void nothing_moves_along_a_zero_gradient_over_a_zero_accumulator() {
  for (const Optimizer kind : {Optimizer::kAdagrad, Optimizer::kRowWiseAdagrad, Optimizer::kFtrl,
                               Optimizer::kGroupFtrl, Optimizer::kGroupAdagrad}) {
    const Rule rule{kind, {}};
    std::vector<float> w{0.5f, -0.25f}, state(state_dim(rule, 2));
    const std::vector<float> g{0.0f, 0.0f};
    initial_state(rule, 2, kRate, w.data(), state.data());
    update_for(kind)(rule, kRate, 2, w.data(), state.data(), g.data());
    CHECK(same_bits(w, {0.5f, -0.25f}));
  }
}

void clipping_keeps_what_is_within_and_bounds_what_is_not() {
  std::vector<float> g{3.0f, -4.0f};
  clip(Clip::kNone, 1.0f, 2, g.data());
  clip(Clip::kByNorm, 5.0f, 2, g.data());
  clip(Clip::kByValue, 4.0f, 2, g.data());
  CHECK(same_bits(g, {3.0f, -4.0f}));
  clip(Clip::kByNorm, 1.0f, 2, g.data());
  CHECK(near(g[0], 0.6) && near(g[1], -0.8));
  clip(Clip::kByValue, 0.7f, 2, g.data());
  CHECK(near(g[0], 0.6) && g[1] == -0.7f);
  g = {3e38f, -3e38f};
  clip(Clip::kByNorm, 1.0f, 2, g.data());
  CHECK(near(g[0], std::sqrt(0.5)) && near(g[1], -std::sqrt(0.5)));
}

}  // namespace

int main() {
  three_steps_end_at_the_published_values();
  all_instruction_sets_give_the_same_finite_bits();
  a_penalty_larger_than_the_gradients_zeroes_the_row();
  nothing_moves_along_a_zero_gradient_over_a_zero_accumulator();
  clipping_keeps_what_is_within_and_bounds_what_is_not();
}
