// Kernels of codecs.h, compiled once for each instruction set: plain loops that the compiler
// vectorises. Rounding is done with integers and exact products, so every build gives the same bits,
// also where the processor flushes subnormals.

constexpr std::uint32_t kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;

template <class Value>
inline Value loaded(const std::byte* from) noexcept {
  Value value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Value>
inline void store(std::byte* to, Value value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

template <bool kAdd>
inline void put(float& to, float value) noexcept {
  to = kAdd ? to + value : value;
}

// Calls column(i) for i < count. Short rows get loops of constant length: a vector wider than the row
// would leave it to the scalar tail.
template <class Column>
inline void each(std::size_t count, Column column) noexcept {
  if (count == 16) {
#pragma GCC unroll 1  // unrolled first, it would not be vectorised
    for (std::size_t i = 0; i < 16; ++i) column(i);
  } else if (count == 8) {
#pragma GCC unroll 1
    for (std::size_t i = 0; i < 8; ++i) column(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) column(i);
  }
}

// 24 bits: what is rounded goes away from zero when they are below its fraction times 2^24.
inline std::uint32_t draw(std::uint64_t stream, std::size_t column) noexcept {
  return static_cast<std::uint32_t>(mix64(stream + column) >> 40);
}

inline void encode_fp32(const CodecRule&, std::size_t dim, const float* x, std::uint64_t,
                        std::byte* out) noexcept {
  std::memcpy(out, x, dim * sizeof(float));
}

template <bool kAdd>
inline void decode_fp32(const CodecRule&, std::size_t dim, const std::byte* __restrict in,
                        float* __restrict x) noexcept {
  each(dim, [=](std::size_t i) { put<kAdd>(x[i], loaded<float>(in + 4 * i)); });
}

// |x| = t * 2^(exponent - 137), with t in [1024, 2048), or below 1024 where halves are subnormal: an
// integer t is on the grid, and adding it to the exponent's bits carries into them as it should.
template <bool kStochastic>
inline std::uint16_t half_of(float x, std::uint32_t random) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x), magnitude = bits & kMagnitude;
  const std::uint32_t finite = std::min(magnitude, 0x477fe000u);  // 65504
  const std::uint32_t exponent = std::max(finite >> 23, 113u);
  const float t = std::bit_cast<float>(finite) * std::bit_cast<float>((264u - exponent) << 23);
  std::uint32_t steps;
  if constexpr (kStochastic) {
    const auto whole = static_cast<std::int32_t>(t);
    const auto fraction = static_cast<std::int32_t>((t - static_cast<float>(whole)) * 0x1p24f);
    steps = static_cast<std::uint32_t>(whole) + (random < static_cast<std::uint32_t>(fraction) ? 1u : 0u);
  } else {
    steps = std::bit_cast<std::uint32_t>(t + 0x1p23f) & 0x7fffffu;  // the sum rounds to an integer
  }
  // A NaN was cut to the largest half; all its bits then make a NaN again.
  const std::uint32_t half = (((exponent - 113u) << 10) + steps) | (magnitude > kInfinity ? 0x7fffu : 0u);
  return static_cast<std::uint16_t>(half | (bits >> 16 & 0x8000u));
}

template <bool kStochastic>
inline std::uint16_t brain_of(float x, std::uint32_t random) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x), magnitude = bits & kMagnitude;
  const std::uint32_t away = kStochastic ? (random < (magnitude & 0xffffu) << 8 ? 1u : 0u)
                                         : (magnitude & 0xffffu) + (magnitude >> 16 & 1u) > 0x8000u;
  const std::uint32_t brain =
      std::min((magnitude >> 16) + away, 0x7f7fu) | (magnitude > kInfinity ? 0x7fffu : 0u);
  return static_cast<std::uint16_t>(brain | (bits >> 16 & 0x8000u));
}

inline void encode_fp16(const CodecRule& rule, std::size_t dim, const float* __restrict x,
                        std::uint64_t stream, std::byte* __restrict out) noexcept {
  if (rule.stochastic)
    for (std::size_t i = 0; i < dim; ++i) store(out + 2 * i, half_of<true>(x[i], draw(stream, i)));
  else
    for (std::size_t i = 0; i < dim; ++i) store(out + 2 * i, half_of<false>(x[i], 0));
}

inline void encode_bf16(const CodecRule& rule, std::size_t dim, const float* __restrict x,
                        std::uint64_t stream, std::byte* __restrict out) noexcept {
  if (rule.stochastic)
    for (std::size_t i = 0; i < dim; ++i) store(out + 2 * i, brain_of<true>(x[i], draw(stream, i)));
  else
    for (std::size_t i = 0; i < dim; ++i) store(out + 2 * i, brain_of<false>(x[i], 0));
}

inline float float_of_half(std::uint32_t half) noexcept {
  const std::uint32_t magnitude = (half & 0x7fffu) << 13;
  std::uint32_t bits = magnitude + (112u << 23) + (magnitude >= 0x7c00u << 13 ? 112u << 23 : 0u);
  // A subnormal half is what lies above 2^-14 once its bits stand behind that exponent.
  const float small = std::bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f;
  bits = magnitude < 1u << 23 ? std::bit_cast<std::uint32_t>(small) : bits;
  return std::bit_cast<float>(bits | (half & 0x8000u) << 16);
}

template <bool kAdd>
inline void decode_fp16(const CodecRule&, std::size_t dim, const std::byte* __restrict in,
                        float* __restrict x) noexcept {
  std::size_t i = 0;
#if defined(RECSYS_CODEC_F16C)  // over twice as fast as the plain loop
  for (; i + 8 <= dim; i += 8) {
    const __m256 eight = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i)));
    _mm256_storeu_ps(x + i, kAdd ? _mm256_add_ps(_mm256_loadu_ps(x + i), eight) : eight);
  }
#endif
  for (; i < dim; ++i) put<kAdd>(x[i], float_of_half(loaded<std::uint16_t>(in + 2 * i)));
}

template <bool kAdd>
inline void decode_bf16(const CodecRule&, std::size_t dim, const std::byte* __restrict in,
                        float* __restrict x) noexcept {
  each(dim, [=](std::size_t i) {
    put<kAdd>(x[i], std::bit_cast<float>(std::uint32_t{loaded<std::uint16_t>(in + 2 * i)} << 16));
  });
}

// Step between two levels. 0 where it would be subnormal; capped so that the outermost level is finite.
template <int kLevels>
inline float scale_of(std::size_t dim, const float* x) noexcept {
  constexpr float kCap = kLevels == 127 ? 0x1.020406p121f : 0x1.249248p125f;
  std::uint32_t largest = 0;  // bits of magnitudes are ordered as the magnitudes are
  for (std::size_t i = 0; i < dim; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[i]) & kMagnitude;
    largest = std::max(largest, magnitude > kInfinity ? 0u : magnitude);
  }
  const float scale = std::bit_cast<float>(largest) / static_cast<float>(kLevels);
  return scale < 0x1p-126f ? 0.0f : std::min(scale, kCap);
}

// The nearest level, the even one of two, in two's complement; only the low byte means anything.
template <int kLevels>
inline std::uint32_t level_of(float x, float divisor) noexcept {
  constexpr auto kTop = static_cast<float>(kLevels);
  float level = x / divisor;
  level = level > kTop ? kTop : level;
  level = level < -kTop ? -kTop : level;
  // The sum rounds to an integer. The mask makes a NaN level 0.
  return std::bit_cast<std::uint32_t>(level + 0x1.8p23f) & (0u - static_cast<std::uint32_t>(x == x));
}

// With a scale of 0 every |x| is far below a half, so dividing by 1 gives level 0.
inline float divisor_of(float scale) noexcept { return scale > 0.0f ? scale : 1.0f; }

inline void encode_int8(const CodecRule&, std::size_t dim, const float* __restrict x, std::uint64_t,
                        std::byte* __restrict out) noexcept {
  const float scale = scale_of<127>(dim, x), divisor = divisor_of(scale);
  store(out, scale);
  each(dim, [=](std::size_t i) { out[4 + i] = static_cast<std::byte>(level_of<127>(x[i], divisor)); });
}

inline void encode_int4(const CodecRule&, std::size_t dim, const float* __restrict x, std::uint64_t,
                        std::byte* __restrict out) noexcept {
  const float scale = scale_of<7>(dim, x), divisor = divisor_of(scale);
  store(out, scale);
  each(dim / 2, [=](std::size_t pair) {
    const std::uint32_t low = level_of<7>(x[2 * pair], divisor), high = level_of<7>(x[2 * pair + 1], divisor);
    out[4 + pair] = static_cast<std::byte>((low & 15u) | high << 4);
  });
  if (dim % 2) out[4 + dim / 2] = static_cast<std::byte>(level_of<7>(x[dim - 1], divisor) & 15u);
}

template <bool kAdd>
inline void decode_int8(const CodecRule&, std::size_t dim, const std::byte* __restrict in,
                        float* __restrict x) noexcept {
  const auto scale = loaded<float>(in);
  each(dim, [=](std::size_t i) {
    put<kAdd>(x[i], static_cast<float>(loaded<std::int8_t>(in + 4 + i)) * scale);
  });
}

// Level number `at` of eight: its nibble is shifted to the top, and back with its sign.
template <bool kAdd>
inline void put_level(float& to, std::uint32_t eight, unsigned at, float scale) noexcept {
  const auto level = static_cast<std::int32_t>(eight << (28 - 4 * at)) >> 28;
  put<kAdd>(to, static_cast<float>(level) * scale);
}

template <bool kAdd>
inline void decode_int4(const CodecRule&, std::size_t dim, const std::byte* __restrict in,
                        float* __restrict x) noexcept {
  const auto scale = loaded<float>(in);
  const std::byte* packed = in + 4;
  std::size_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const auto eight = loaded<std::uint32_t>(packed + i / 2);
#pragma GCC unroll 1
    for (unsigned at = 0; at < 8; ++at) put_level<kAdd>(x[i + at], eight, at, scale);
  }
  for (; i < dim; ++i) put_level<kAdd>(x[i], loaded<std::uint8_t>(packed + i / 2), i % 2, scale);
}

inline void encode_one_bit(const CodecRule&, std::size_t dim, const float* __restrict x, std::uint64_t,
                           std::byte* __restrict out) noexcept {
  for (std::size_t begin = 0; begin < dim; begin += 8) {
    unsigned byte = 0;
    for (std::size_t i = begin; i < std::min(begin + 8, dim); ++i)
      byte |= (x[i] > 0.0f ? 1u : 0u) << (i - begin);
    out[begin / 8] = static_cast<std::byte>(byte);
  }
}

template <bool kAdd>
inline void put_sign(float& to, std::uint32_t eight, unsigned at, float amplitude) noexcept {
  const std::uint32_t minus = (~eight >> at) << 31;
  put<kAdd>(to, std::bit_cast<float>(std::bit_cast<std::uint32_t>(amplitude) ^ minus));
}

template <bool kAdd>
inline void decode_one_bit(const CodecRule& rule, std::size_t dim, const std::byte* __restrict in,
                           float* __restrict x) noexcept {
  const float amplitude = rule.amplitude;
  std::size_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const std::uint32_t eight = loaded<std::uint8_t>(in + i / 8);
#pragma GCC unroll 1
    for (unsigned at = 0; at < 8; ++at) put_sign<kAdd>(x[i + at], eight, at, amplitude);
  }
  for (; i < dim; ++i)
    put_sign<kAdd>(x[i], loaded<std::uint8_t>(in + i / 8), i % 8, amplitude);
}

inline CodecKernels kernels_of(Codec codec) noexcept {
  switch (codec) {
    case Codec::kFp32: return {encode_fp32, decode_fp32<false>, decode_fp32<true>};
    case Codec::kFp16: return {encode_fp16, decode_fp16<false>, decode_fp16<true>};
    case Codec::kBf16: return {encode_bf16, decode_bf16<false>, decode_bf16<true>};
    case Codec::kInt8Row: return {encode_int8, decode_int8<false>, decode_int8<true>};
    case Codec::kInt4Row: return {encode_int4, decode_int4<false>, decode_int4<true>};
    case Codec::kOneBit: return {encode_one_bit, decode_one_bit<false>, decode_one_bit<true>};
  }
  return {encode_fp32, decode_fp32<false>, decode_fp32<true>};
}
