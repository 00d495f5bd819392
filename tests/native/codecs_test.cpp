#include "codecs.h"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

constexpr float kNaN = std::bit_cast<float>(0x7fc00055u);  // a payload must not become a level
constexpr float kInfinite = std::numeric_limits<float>::infinity();
constexpr float kAmplitude = 0.05f;
constexpr std::array kRules{
    CodecRule{Codec::kFp32, 0, false},    CodecRule{Codec::kFp16, 0, false},
    CodecRule{Codec::kFp16, 0, true},     CodecRule{Codec::kBf16, 0, false},
    CodecRule{Codec::kBf16, 0, true},     CodecRule{Codec::kInt8Row, 0, false},
    CodecRule{Codec::kInt4Row, 0, false}, CodecRule{Codec::kOneBit, kAmplitude, false}};
constexpr std::array<std::size_t, 12> kDims{1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 65};

using Bytes = std::vector<std::byte>;

Bytes encoded(const CodecRule& rule, const std::vector<float>& x, Isa with, std::uint64_t stream = 7) {
  Bytes out(codec_bytes(rule, x.size()));
  codec_kernels(rule.kind, with).encode(rule, x.size(), x.data(), stream, out.data());
  return out;
}

std::vector<float> decoded(const CodecRule& rule, const Bytes& in, std::size_t dim, Isa with = isa()) {
  std::vector<float> x(dim);
  codec_kernels(rule.kind, with).decode(rule, dim, in.data(), x.data());
  return x;
}

Bytes bytes_of(std::initializer_list<int> values) {
  Bytes out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Ordinary numbers, or any bits at all: subnormals, infinities and NaN included.
std::vector<float> row(std::size_t dim, std::uint64_t seed, bool any_bits) {
  std::vector<float> x(dim);
  for (std::size_t i = 0; i < dim; ++i) {
    const std::uint64_t random = mix64(seed * 1000 + i);
    x[i] = any_bits ? std::bit_cast<float>(static_cast<std::uint32_t>(random))
                    : static_cast<float>(random >> 40) * 0x1p-23f - 1.0f;
  }
  return x;
}

void every_instruction_set_gives_the_same_bits() {
  for (const CodecRule& rule : kRules)
    for (const std::size_t dim : kDims)
      for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const std::vector<float> x = row(dim, seed, seed % 2);
        const Bytes packed = encoded(rule, x, Isa::kPortable, seed);
        std::vector<float> sum = row(dim, seed + 500, false), wanted = sum;
        const std::vector<float> y = decoded(rule, packed, dim, Isa::kPortable);
        for (std::size_t i = 0; i < dim; ++i) wanted[i] += y[i];
        const bool has_levels = rule.kind == Codec::kInt8Row || rule.kind == Codec::kInt4Row;
        for (const Isa with : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
          if (with > isa()) continue;
          CHECK(encoded(rule, x, with, seed) == packed);
          if (seed % 2 && !has_levels) continue;  // the payload of a NaN is nobody's promise
          CHECK(same_bits(decoded(rule, packed, dim, with), y));
          std::vector<float> total = sum;
          codec_kernels(rule.kind, with).decode_add(rule, dim, packed.data(), total.data());
          CHECK(same_bits(total, wanted));
        }
      }
}

// Every half, by the definition of the format.
void halves_decode_to_what_ieee_754_says() {
  for (const Isa with : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512})
    for (int bits = 0; with <= isa() && bits < 1 << 16; ++bits) {
      const Bytes in = bytes_of({bits & 255, bits >> 8});
      Bytes eight;
      for (int i = 0; i < 8; ++i) eight.insert(eight.end(), in.begin(), in.end());
      const int exponent = bits >> 10 & 31, fraction = bits & 1023;
      const float size = exponent == 0    ? std::ldexp(static_cast<float>(fraction), -24)
                         : exponent == 31 ? (fraction ? kNaN : kInfinite)
                                          : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
      for (const float x : {decoded(kRules[1], in, 1, with)[0], decoded(kRules[1], eight, 8, with)[7]}) {
        CHECK(std::isnan(size) ? std::isnan(x) : x == (bits >> 15 ? -size : size));
        CHECK(std::isnan(size) || std::signbit(x) == (bits >> 15 == 1));
        if (!std::isfinite(x)) continue;
        CHECK(encoded(kRules[1], {x}, with) == in && encoded(kRules[2], {x}, with) == in);
      }
    }
}

void rounding_goes_to_the_nearest_even_and_stops_at_the_largest() {
  const CodecRule half = kRules[1], brain = kRules[3];
  CHECK(encoded(half, {2049.0f, 2051.0f}, isa()) == bytes_of({0x00, 0x68, 0x02, 0x68}));
  CHECK(encoded(half, {0x1p-25f, 0x3p-25f}, isa()) == bytes_of({0, 0, 2, 0}));
  CHECK(encoded(half, {65520.0f, -kInfinite}, isa()) == bytes_of({0xff, 0x7b, 0xff, 0xfb}));
  CHECK(encoded(brain, {257.0f, 259.0f}, isa()) == bytes_of({0x80, 0x43, 0x82, 0x43}));
  CHECK(encoded(brain, {kInfinite, -3.4e38f}, isa()) == bytes_of({0x7f, 0x7f, 0x7f, 0xff}));
}

void levels_follow_their_scale() {
  const Bytes one = bytes_of({0, 0, 0x80, 0x3f});
  Bytes int8 = one, int4 = one;
  for (const int level : {127, 0, 2, 254, 129}) int8.push_back(static_cast<std::byte>(level));
  for (const int level : {0x97, 0x02, 0x0f}) int4.push_back(static_cast<std::byte>(level));
  CHECK(encoded(kRules[5], {127, 0.5f, 1.5f, -2.5f, -127}, isa()) == int8);
  CHECK(encoded(kRules[6], {7, -7, 1.5f, -0.5f, -1}, isa()) == int4);
  CHECK(decoded(kRules[6], int4, 5) == (std::vector<float>{7, -7, 2, 0, -1}));
  CHECK(encoded(kRules[5], {0.0f, 0x1p-126f}, isa()) == Bytes(6));
}

void a_nan_is_zero_among_levels_and_stays_one_among_floats() {
  CHECK(decoded(kRules[5], encoded(kRules[5], {kNaN, 127.0f}, isa()), 2) == (std::vector<float>{0, 127}));
  CHECK(decoded(kRules[6], encoded(kRules[6], {kNaN, 7.0f}, isa()), 2) == (std::vector<float>{0, 7}));
  for (const std::size_t rule : {0, 1, 2, 3, 4})
    CHECK(std::isnan(decoded(kRules[rule], encoded(kRules[rule], {kNaN}, isa()), 1)[0]));
}

void an_infinity_takes_the_outermost_level_and_every_level_is_finite() {
  for (const std::size_t rule : {5, 6}) {
    const Bytes packed = encoded(kRules[rule], {kInfinite, -kInfinite, 0}, isa());
    const std::vector<float> x = decoded(kRules[rule], packed, 3);
    CHECK(x[0] > 3.4028e38f && std::isfinite(x[0]) && x[1] == -x[0] && x[2] == 0.0f);
  }
}

void one_bit_is_the_sign() {
  const CodecRule rule = kRules[7];
  const Bytes packed = encoded(rule, {1, -1, 0, 2, -2, -3, -4, 5, 1e-45f}, isa());
  CHECK(packed == bytes_of({0b10001001, 1}));
  const std::vector<float> x = decoded(rule, packed, 9);
  for (const std::size_t i : {0, 3, 7, 8}) CHECK(x[i] == kAmplitude);
  for (const std::size_t i : {1, 2, 4, 5, 6}) CHECK(x[i] == -kAmplitude);
}

void the_mean_of_many_draws_is_the_weight() {
  for (const std::size_t rule : {2, 4}) {
    const float step = rule == 2 ? 0x1p-10f : 0x1p-7f, x = 1.0f + 0.25f * step;
    int up = 0;
    for (std::uint64_t stream = 0; stream < 20'000; ++stream)
      up += decoded(kRules[rule], encoded(kRules[rule], {x}, isa(), mix64(stream)), 1)[0] > x;
    CHECK(std::abs(up - 5'000) < 5 * 61);  // five standard errors
  }
}

void the_lowest_draw_moves_all_but_what_is_on_the_grid() {
  constexpr std::uint64_t kLowest = 0 - 0x9e3779b97f4a7c15ULL;  // mix64 of it is 0
  for (const std::size_t rule : {2, 4}) {
    const float above = rule == 2 ? 1.0f + 0x1p-10f : 1.0f + 0x1p-7f;
    const Bytes stays = encoded(kRules[rule], {1.0f}, isa(), kLowest);
    CHECK(decoded(kRules[rule], stays, 1)[0] == 1.0f);
    const Bytes moved = encoded(kRules[rule], {1.0f + 0x1p-23f}, isa(), kLowest);
    CHECK(decoded(kRules[rule], moved, 1)[0] == above);
  }
}

// At an odd address and between sentinels, which must survive.
void unaligned_bytes_are_read_and_nothing_beside_them_is_written() {
  for (const CodecRule& rule : kRules)
    for (const std::size_t dim : kDims) {
      const std::vector<float> x = row(dim, 3, false);
      const std::size_t bytes = codec_bytes(rule, dim);
      Bytes room(bytes + 2, std::byte{0xa5});
      const CodecKernels kernels = codec_kernels(rule.kind);
      kernels.encode(rule, dim, x.data(), 7, room.data() + 1);
      CHECK(room.front() == std::byte{0xa5} && room.back() == std::byte{0xa5});
      std::vector<float> y(dim + 1, kAmplitude);
      kernels.decode(rule, dim, room.data() + 1, y.data());
      CHECK(y.back() == kAmplitude);
      y.pop_back();
      CHECK(same_bits(y, decoded(rule, encoded(rule, x, isa()), dim)));
    }
}

}  // namespace

int main() {
  every_instruction_set_gives_the_same_bits();
  halves_decode_to_what_ieee_754_says();
  rounding_goes_to_the_nearest_even_and_stops_at_the_largest();
  levels_follow_their_scale();
  a_nan_is_zero_among_levels_and_stays_one_among_floats();
  an_infinity_takes_the_outermost_level_and_every_level_is_finite();
  one_bit_is_the_sign();
  the_mean_of_many_draws_is_the_weight();
  the_lowest_draw_moves_all_but_what_is_on_the_grid();
  unaligned_bytes_are_read_and_nothing_beside_them_is_written();
}
