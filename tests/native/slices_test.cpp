#include "slices.h"

#include <array>
#include <cmath>

#include "check.h"

using namespace recsys::table;

namespace {

constexpr float kTolerance = 1e-6f;

Slice slice_of(std::size_t dim, Optimizer optimizer) {
  return {dim, optimizer, 0.1f, 0.1f, 0.5f, 0.0f, 0};
}

bool near(float got, double wanted) { return std::abs(got - wanted) <= kTolerance; }

// Values worked out apart from any implementation: w0 = (0.5, -0.25), lr 0.1, accumulator 0.1.
void three_steps_end_at_the_published_values(Optimizer optimizer, double first, double second) {
  const Layout layout({slice_of(2, optimizer)});
  std::array<float, 2> w{0.5f, -0.25f};
  std::array<float, 2> state{0.1f, 0.1f};
  for (const std::array<float, 2> g : {std::array{0.1f, -0.2f}, {-0.3f, 0.05f}, {0.02f, 0.0f}})
    layout.update(w.data(), state.data(), g.data());
  CHECK(near(w[0], first) && near(w[1], second));
}

void an_accumulator_of_zero_takes_no_step_along_a_zero_gradient() {
  for (const Optimizer optimizer : {Optimizer::kAdagrad, Optimizer::kRowWiseAdagrad}) {
    const Layout layout({slice_of(2, optimizer)});
    std::array<float, 2> w{0.5f, -0.25f}, state{0.0f, 0.0f};
    const std::array<float, 2> g{0.0f, 0.0f};
    layout.update(w.data(), state.data(), g.data());
    CHECK(w[0] == 0.5f && w[1] == -0.25f);
  }
}

void slices_lie_side_by_side_and_learn_alone() {
  const Layout layout({slice_of(1, Optimizer::kSgd), slice_of(2, Optimizer::kAdagrad),
                       slice_of(2, Optimizer::kRowWiseAdagrad)});
  CHECK(layout.dim() == 5 && layout.state_dim() == 3);
  std::array<float, 5> w{};
  std::array<float, 3> state{};
  layout.initial_weights(1, w.data());
  layout.initial_state(state.data());
  CHECK(w[4] == 0.5f && state[0] == 0.1f && state[2] == 0.1f);
  const std::array<float, 5> g{1.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  layout.update(w.data(), state.data(), g.data());
  CHECK(near(w[0], 0.4) && w[1] == 0.5f && w[4] == 0.5f && state[0] == 0.1f);
}

void uniform_draws_fill_their_range_evenly() {
  Slice slice = slice_of(4, Optimizer::kSgd);
  slice.low = -1.0f;
  slice.width = 3.0f;
  const Layout layout({slice});
  std::array<float, 4> w{};
  double sum = 0.0, squares = 0.0;
  for (std::uint64_t key = 0; key < 20'000; ++key) {
    layout.initial_weights(key, w.data());
    for (const float x : w) {
      CHECK(x >= -1.0f && x < 2.0f);
      sum += x;
      squares += x * x;
    }
  }
  const double mean = sum / 80'000, variance = squares / 80'000 - mean * mean;
  CHECK(std::abs(mean - 0.5) < 0.015 && std::abs(variance - 0.75) < 0.015);  // width^2 / 12
}

}  // namespace

int main() {
  three_steps_end_at_the_published_values(Optimizer::kSgd, 0.5180000, -0.2350000);
  three_steps_end_at_the_published_values(Optimizer::kAdagrad, 0.5324632, -0.2097931);
  three_steps_end_at_the_published_values(Optimizer::kRowWiseAdagrad, 0.5393802, -0.2055139);
  an_accumulator_of_zero_takes_no_step_along_a_zero_gradient();
  slices_lie_side_by_side_and_learn_alone();
  uniform_draws_fill_their_range_evenly();
}
