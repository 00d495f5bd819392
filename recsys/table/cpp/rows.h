// Rows of equal length in slabs that never move, recycled through a last-in-first-out free-list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

namespace recsys::table {

// Not synchronised. A row's address is good until the row is released.
class RowStore {
 public:
  static constexpr std::uint32_t kRowsPerSlab = 4096;

  explicit RowStore(std::size_t floats_per_row) : floats_per_row_(floats_per_row) {}

  // A row that nobody holds; its values are whatever was there. Throws std::length_error at 2^32 rows.
  std::uint32_t acquire() {
    if (!free_.empty()) {
      const std::uint32_t row = free_.back();
      free_.pop_back();
      return row;
    }
    if (issued_ == slabs_.size() * kRowsPerSlab) add_slab();
    return issued_++;
  }

  void release(std::uint32_t row) { free_.push_back(row); }

  float* values(std::uint32_t row) noexcept {
    return slabs_[row / kRowsPerSlab].values.get() + (row % kRowsPerSlab) * floats_per_row_;
  }
  const float* values(std::uint32_t row) const noexcept {
    return slabs_[row / kRowsPerSlab].values.get() + (row % kRowsPerSlab) * floats_per_row_;
  }

  // The drain period in which the row was last marked as touched; 0 is never.
  std::uint32_t& touched_in(std::uint32_t row) noexcept {
    return slabs_[row / kRowsPerSlab].touched_in[row % kRowsPerSlab];
  }

  std::size_t bytes_per_row() const noexcept {
    return floats_per_row_ * sizeof(float) + sizeof(std::uint32_t);
  }
  std::size_t bytes_reserved() const noexcept {
    return slabs_.size() * kRowsPerSlab * bytes_per_row();
  }

 private:
  struct Slab {
    std::unique_ptr<float[]> values;
    std::unique_ptr<std::uint32_t[]> touched_in;
  };

  void add_slab() {
    // The last number is the index's mark for an empty slot.
    if (slabs_.size() == (std::size_t{1} << 32) / kRowsPerSlab - 1)
      throw std::length_error("a table holds fewer than 2^32 rows");
    slabs_.push_back({std::unique_ptr<float[]>(new float[kRowsPerSlab * floats_per_row_]),
                      std::make_unique<std::uint32_t[]>(kRowsPerSlab)});
  }

  std::size_t floats_per_row_;
  std::vector<Slab> slabs_;
  std::vector<std::uint32_t> free_;
  std::uint32_t issued_ = 0;
};

}  // namespace recsys::table
