// The arithmetic of optimizers and clipping, operation by operation as recsys/table/optimizer_rules.py
// states it. Included once for each instruction set.

// Lane j takes columns j, j + 16, ...; then the upper half of the lanes is added to the lower until one
// is left: the one order of every row sum, in all instruction sets and in Python.
template <class Column>
[[gnu::always_inline]] inline float sum_of_squares(std::size_t dim, Column column) noexcept {
  if (dim == 1) return column(0) * column(0);
  float lane[16] = {};
  std::size_t begin = 0;
  for (; begin + 16 <= dim; begin += 16)
    for (std::size_t j = 0; j < 16; ++j) {
      const float x = column(begin + j);
      lane[j] += x * x;
    }
  for (std::size_t j = 0; begin + j < dim; ++j) {
    const float x = column(begin + j);
    lane[j] += x * x;
  }
  for (std::size_t j = 0; j < 8; ++j) lane[j] += lane[j + 8];
  for (std::size_t j = 0; j < 4; ++j) lane[j] += lane[j + 4];
  for (std::size_t j = 0; j < 2; ++j) lane[j] += lane[j + 2];
  return lane[0] + lane[1];
}

// Absolute floats are in the order of their bits, and integers have a vector maximum without lanes.
template <class Column>
[[gnu::always_inline]] inline float largest_square(std::size_t dim, Column column) noexcept {
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(std::abs(column(i)));
    largest = bits > largest ? bits : largest;
  }
  return std::bit_cast<float>(largest) * std::bit_cast<float>(largest);
}

[[gnu::always_inline]] inline float average(float kept, float old, float next) noexcept {
  // Not old + (1 - kept) * (next - old): that makes a NaN of an infinite old.
  return kept * old + (1.0f - kept) * next;
}

[[gnu::always_inline]] inline float over_root(float rate, float n) noexcept {
  return n > 0.0f ? rate / std::sqrt(n) : 0.0f;
}

// Raises both powers by one step and returns the rate less the bias of averages that started at 0.
[[gnu::always_inline]] inline float corrected(float rate, float beta1, float beta2, float* powers) noexcept {
  constexpr float kLeastNormal = std::numeric_limits<float>::min();
  powers[0] *= beta1;
  powers[1] *= beta2;
  // Below the normal range a product can round back to itself and be slow; 1 - power is 1 long before.
  for (std::size_t k = 0; k < 2; ++k) powers[k] = powers[k] < kLeastNormal ? 0.0f : powers[k];
  return rate * std::sqrt(1.0f - powers[1]) / (1.0f - powers[0]);
}

[[gnu::always_inline]] inline void sgd(const Rule&, float rate, std::size_t dim, float* __restrict w, float*,
                                       const float* __restrict g) noexcept {
  for (std::size_t i = 0; i < dim; ++i) w[i] -= rate * g[i];
}

[[gnu::always_inline]] inline void momentum(const Rule& rule, float rate, std::size_t dim,
                                            float* __restrict w, float* __restrict state,
                                            const float* __restrict g) noexcept {
  const float mu = rule.numbers[0], weight_decay = rule.numbers[1];
  const bool is_nesterov = rule.numbers[2] != 0.0f;
  for (std::size_t i = 0; i < dim; ++i) {
    const float kept = mu * state[i];
    const float n = kept - rate * (g[i] + weight_decay * w[i]);
    w[i] += is_nesterov ? (1.0f + mu) * n - kept : n;
    state[i] = n;
  }
}

[[gnu::always_inline]] inline void adagrad(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                           float* __restrict state, const float* __restrict g) noexcept {
  const bool is_decoupled = rule.numbers[2] != 0.0f;
  const float coupled = is_decoupled ? 0.0f : rule.numbers[1];
  const float shrink = is_decoupled ? rate * rule.numbers[1] : 0.0f;
  for (std::size_t i = 0; i < dim; ++i) {
    const float d = g[i] + coupled * w[i];
    state[i] += d * d;
    w[i] = w[i] - shrink * w[i] - d * over_root(rate, state[i]);
  }
}

[[gnu::always_inline]] inline void rowwise_adagrad(const Rule& rule, float rate, std::size_t dim,
                                                   float* __restrict w, float* __restrict state,
                                                   const float* __restrict g) noexcept {
  const float weight_decay = rule.numbers[1];
  const auto decayed = [=](std::size_t i) { return g[i] + weight_decay * w[i]; };
  state[0] += sum_of_squares(dim, decayed) / static_cast<float>(dim);
  const float scale = over_root(rate, state[0]);
  for (std::size_t i = 0; i < dim; ++i) w[i] -= decayed(i) * scale;
}

[[gnu::always_inline]] inline void adam(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                        float* __restrict state, const float* __restrict g) noexcept {
  const float beta1 = rule.numbers[0], beta2 = rule.numbers[1], epsilon = rule.numbers[2];
  const float weight_decay = rule.numbers[3];
  const bool is_nesterov = rule.numbers[4] != 0.0f;
  float* __restrict m = state;
  float* __restrict v = state + dim;
  const float step = corrected(rate, beta1, beta2, state + 2 * dim);
  for (std::size_t i = 0; i < dim; ++i) {
    const float d = g[i] + weight_decay * w[i];
    m[i] = average(beta1, m[i], d);
    v[i] = average(beta2, v[i], d * d);
    const float ahead = is_nesterov ? average(beta1, m[i], d) : m[i];
    w[i] -= ahead * (step / (std::sqrt(v[i]) + epsilon));
  }
}

[[gnu::always_inline]] inline void rowwise_adam(const Rule& rule, float rate, std::size_t dim,
                                                float* __restrict w, float* __restrict state,
                                                const float* __restrict g) noexcept {
  const float beta1 = rule.numbers[0], beta2 = rule.numbers[1], epsilon = rule.numbers[2];
  const float weight_decay = rule.numbers[3];
  const auto decayed = [=](std::size_t i) { return g[i] + weight_decay * w[i]; };
  float& v = state[dim];
  v = average(beta2, v, sum_of_squares(dim, decayed) / static_cast<float>(dim));
  const float scale = corrected(rate, beta1, beta2, state + dim + 1) / (std::sqrt(v) + epsilon);
  for (std::size_t i = 0; i < dim; ++i) {
    state[i] = average(beta1, state[i], decayed(i));
    w[i] -= state[i] * scale;
  }
}

[[gnu::always_inline]] inline void amsgrad(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                           float* __restrict state, const float* __restrict g) noexcept {
  const float beta1 = rule.numbers[0], beta2 = rule.numbers[1], epsilon = rule.numbers[2];
  const float weight_decay = rule.numbers[3];
  float* __restrict m = state;
  float* __restrict v = state + dim;
  float* __restrict largest = state + 2 * dim;
  const float step = corrected(rate, beta1, beta2, state + 3 * dim);
  for (std::size_t i = 0; i < dim; ++i) {
    const float d = g[i] + weight_decay * w[i];
    m[i] = average(beta1, m[i], d);
    v[i] = average(beta2, v[i], d * d);
    largest[i] = v[i] > largest[i] ? v[i] : largest[i];
    w[i] -= m[i] * (step / (std::sqrt(largest[i]) + epsilon));
  }
}

// Of FTRL and its group form: what w is solved from. Two passes, since one would be too much for vectors.
[[gnu::always_inline]] inline float ftrl_divisor(const Rule& rule, float rate, float n) noexcept {
  return std::sqrt(n) + rule.numbers[1] + rule.numbers[3] * rate;
}

[[gnu::always_inline]] inline bool ftrl_moves(float n, float divisor) noexcept {
  return (n <= std::numeric_limits<float>::max()) & (divisor > 0.0f);
}

[[gnu::always_inline]] inline void follow(const Rule& rule, float rate, std::size_t dim,
                                          const float* __restrict w, float* __restrict n, float* __restrict y,
                                          const float* __restrict g) noexcept {
  for (std::size_t i = 0; i < dim; ++i) {
    const float new_n = n[i] + g[i] * g[i];
    const float new_y = y[i] + (rate * g[i] - w[i] * (std::sqrt(new_n) - std::sqrt(n[i])));
    y[i] = ftrl_moves(new_n, ftrl_divisor(rule, rate, new_n)) ? new_y : y[i];
    n[i] = new_n;
  }
}

// A column that stays is divided by 1: a division that all take needs no branch.
[[gnu::always_inline]] inline float solved(const Rule& rule, float rate, float w, float n,
                                           float top) noexcept {
  const float divisor = ftrl_divisor(rule, rate, n);
  const bool moves = ftrl_moves(n, divisor);
  return (moves ? top : w) / (moves ? divisor : 1.0f);
}

[[gnu::always_inline]] inline void ftrl(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                        float* __restrict state, const float* __restrict g) noexcept {
  const float threshold = rate * rule.numbers[2];
  const float* __restrict y = state + dim;
  follow(rule, rate, dim, w, state, state + dim, g);
  for (std::size_t i = 0; i < dim; ++i) {
    const float top = std::copysign(threshold, y[i]) - y[i];
    w[i] = solved(rule, rate, w[i], state[i], std::abs(y[i]) <= threshold ? 0.0f : top);
  }
}

[[gnu::always_inline]] inline void group_ftrl(const Rule& rule, float rate, std::size_t dim,
                                              float* __restrict w, float* __restrict state,
                                              const float* __restrict g) noexcept {
  const float threshold = rate * rule.numbers[2];
  const float* __restrict y = state + dim;
  follow(rule, rate, dim, w, state, state + dim, g);
  const float norm = std::sqrt(sum_of_squares(dim, [=](std::size_t i) { return y[i]; }));
  const bool is_zero = norm <= threshold;
  const float scale = threshold / norm - 1.0f;
  for (std::size_t i = 0; i < dim; ++i)
    w[i] = solved(rule, rate, w[i], state[i], is_zero ? 0.0f : y[i] * scale);
}

[[gnu::always_inline]] inline void group_adagrad(const Rule& rule, float rate, std::size_t dim,
                                                 float* __restrict w, float* __restrict state,
                                                 const float* __restrict g) noexcept {
  const float weight_decay = rule.numbers[3];
  const auto decayed = [=](std::size_t i) { return g[i] + weight_decay * w[i]; };
  state[0] += largest_square(dim, decayed);
  const float divisor = rule.numbers[1] + std::sqrt(state[0]);
  if (!(divisor > 0.0f)) return;
  const float eta = rate / divisor;
  const float threshold = eta * rule.numbers[2];
  for (std::size_t i = 0; i < dim; ++i) w[i] = eta * decayed(i) - w[i];
  const float norm = std::sqrt(sum_of_squares(dim, [=](std::size_t i) { return w[i]; }));
  const bool is_zero = norm <= threshold;
  const float scale = threshold / norm - 1.0f;
  for (std::size_t i = 0; i < dim; ++i) w[i] = is_zero ? 0.0f : w[i] * scale;
}

[[gnu::always_inline]] inline void rmsprop(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                           float* __restrict state, const float* __restrict g) noexcept {
  const float rho = rule.numbers[0], epsilon = rule.numbers[1], weight_decay = rule.numbers[2];
  const float entering = rule.numbers[3] != 0.0f ? 1.0f - rho : 1.0f;
  for (std::size_t i = 0; i < dim; ++i) {
    const float d = g[i] + weight_decay * w[i];
    state[i] = rho * state[i] + entering * (d * d);
    w[i] -= d * (rate / (std::sqrt(state[i]) + epsilon));
  }
}

[[gnu::always_inline]] inline void adadelta(const Rule& rule, float rate, std::size_t dim, float* __restrict w,
                                            float* __restrict state, const float* __restrict g) noexcept {
  const float rho = rule.numbers[0], epsilon = rule.numbers[1], weight_decay = rule.numbers[2];
  float* __restrict a = state;
  float* __restrict u = state + dim;
  for (std::size_t i = 0; i < dim; ++i) {
    const float d = g[i] + weight_decay * w[i];
    a[i] = average(rho, a[i], d * d);
    const float step = d * (std::sqrt(u[i] + epsilon) / std::sqrt(a[i] + epsilon));
    w[i] -= rate * step;
    u[i] = average(rho, u[i], step * step);
  }
}

[[gnu::always_inline]] inline void moving_average(const Rule& rule, float, std::size_t dim,
                                                  float* __restrict w, float*,
                                                  const float* __restrict g) noexcept {
  for (std::size_t i = 0; i < dim; ++i) w[i] = average(rule.numbers[0], w[i], g[i]);
}

// With a width that the compiler knows, the usual short rows need no loop; long ones gain nothing by it.
template <Update kStep>
inline void sized(const Rule& rule, float rate, std::size_t dim, float* w, float* state,
                  const float* g) noexcept {
  switch (dim) {
    case 8: return kStep(rule, rate, 8, w, state, g);
    case 16: return kStep(rule, rate, 16, w, state, g);
    default: return kStep(rule, rate, dim, w, state, g);
  }
}

inline Update update_of(Optimizer kind) noexcept {
  switch (kind) {
    case Optimizer::kSgd: return sized<sgd>;
    case Optimizer::kMomentum: return sized<momentum>;
    case Optimizer::kAdagrad: return sized<adagrad>;
    case Optimizer::kRowWiseAdagrad: return sized<rowwise_adagrad>;
    case Optimizer::kAdam: return sized<adam>;
    case Optimizer::kRowWiseAdam: return sized<rowwise_adam>;
    case Optimizer::kAmsgrad: return sized<amsgrad>;
    case Optimizer::kFtrl: return sized<ftrl>;
    case Optimizer::kGroupFtrl: return sized<group_ftrl>;
    case Optimizer::kGroupAdagrad: return sized<group_adagrad>;
    case Optimizer::kRmsprop: return sized<rmsprop>;
    case Optimizer::kAdadelta: return sized<adadelta>;
    case Optimizer::kMovingAverage: return sized<moving_average>;
  }
  return nullptr;
}

inline void clip_by_value(float limit, std::size_t dim, float* g) noexcept {
  for (std::size_t i = 0; i < dim; ++i) {
    const float above = g[i] < -limit ? -limit : g[i];
    g[i] = above > limit ? limit : above;
  }
}

inline void clip_by_norm(float limit, std::size_t dim, float* g) noexcept {
  // A power of two, so that scaling by it is exact; the squares of what it scales cannot overflow.
  constexpr float kShrink = 0x1p-80f;
  const auto norm_of = [=](float shrink) {
    return std::sqrt(sum_of_squares(dim, [=](std::size_t i) { return g[i] * shrink; }));
  };
  float shrink = 1.0f;
  float norm = norm_of(shrink);
  if (norm > std::numeric_limits<float>::max()) {
    shrink = kShrink;
    norm = norm_of(shrink);
  }
  if (norm <= limit * shrink) return;
  const float scale = limit / norm;
  for (std::size_t i = 0; i < dim; ++i) g[i] = g[i] * shrink * scale;
}
