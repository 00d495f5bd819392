// What a look-up does with the rows of one block. Included once for each instruction set.
// A fixed width lets the compiler keep a row in registers; rows of other widths take the loop.

template <std::size_t kDim>
inline void copy_fixed(const std::byte* weights, const std::uint32_t* rows, std::size_t n, float* out) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    if (rows[i] == kNoRow) continue;
    const float* row = reinterpret_cast<const float*>(weights) + std::size_t{rows[i]} * kDim;
    std::memcpy(out + i * kDim, row, kDim * sizeof(float));
  }
}

inline void copy_rows(const std::byte* weights, std::size_t dim, const std::uint32_t* rows, std::size_t n,
                      float* out) noexcept {
  switch (dim) {
    case 8: return copy_fixed<8>(weights, rows, n, out);
    case 16: return copy_fixed<16>(weights, rows, n, out);
    case 32: return copy_fixed<32>(weights, rows, n, out);
    case 64: return copy_fixed<64>(weights, rows, n, out);
    default: break;
  }
  for (std::size_t i = 0; i < n; ++i) {
    if (rows[i] == kNoRow) continue;
    const float* row = reinterpret_cast<const float*>(weights) + std::size_t{rows[i]} * dim;
    std::memcpy(out + i * dim, row, dim * sizeof(float));
  }
}

template <std::size_t kDim>
inline void add_fixed(float* __restrict sum, const float* __restrict row) noexcept {
  for (std::size_t d = 0; d < kDim; ++d) sum[d] += row[d];
}

inline void add_row(float* __restrict sum, const float* __restrict row, std::size_t dim) noexcept {
  switch (dim) {
    case 8: return add_fixed<8>(sum, row);
    case 16: return add_fixed<16>(sum, row);
    case 32: return add_fixed<32>(sum, row);
    case 64: return add_fixed<64>(sum, row);
    default: break;
  }
  for (std::size_t d = 0; d < dim; ++d) sum[d] += row[d];
}

// Adds row i to the sum at `out + bag[i] * dim`.
inline void add_rows(const std::byte* weights, std::size_t dim, const std::uint32_t* rows,
                     const std::uint32_t* bag, std::size_t n, float* out) noexcept {
  for (std::size_t i = 0; i < n; ++i)
    if (rows[i] != kNoRow)
      add_row(out + std::size_t{bag[i]} * dim, reinterpret_cast<const float*>(weights) + std::size_t{rows[i]} * dim,
              dim);
}

// sum = rows of `from` named by `order`, in that order.
inline void gather_sum(const float* from, std::size_t dim, const std::uint32_t* order, std::size_t n,
                       float* __restrict sum) noexcept {
  const float* first = from + std::size_t{order[0]} * dim;
  for (std::size_t d = 0; d < dim; ++d) sum[d] = first[d];
  for (std::size_t i = 1; i < n; ++i) add_row(sum, from + std::size_t{order[i]} * dim, dim);
}

// Largest absolute value by bit pattern: NaN and infinities are larger than all numbers.
inline std::uint32_t largest_bits(const float* x, std::size_t n) noexcept {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

inline void scale_rows(const float* from, const float* scale, std::size_t n, std::size_t dim,
                       float* out) noexcept {
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t d = 0; d < dim; ++d) out[i * dim + d] = from[i * dim + d] * scale[i];
}
