// Reading a batch: whole rows, sums over bags, presence, row numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "row_store.h"
#include "workers.h"

namespace recsys::table {

// Below this, sharing the work among threads costs more than it gains.
inline constexpr std::size_t kManyKeys = 8192;

// Bag b is keys offsets[b] to offsets[b + 1]; `scale`, if any, multiplies its sum.
struct Bags {
  std::span<const std::int64_t> offsets;
  const float* scale;

  std::size_t size() const noexcept { return offsets.size() - 1; }
  std::vector<std::uint32_t> of_each_key() const {
    std::vector<std::uint32_t> bag_of(static_cast<std::size_t>(offsets.back()));
    for (std::size_t bag = 0; bag < size(); ++bag)
      std::fill(bag_of.begin() + offsets[bag], bag_of.begin() + offsets[bag + 1],
                static_cast<std::uint32_t>(bag));
    return bag_of;
  }
};

// Any number of threads at once, beside one writer.
class Lookups {
 public:
  Lookups(const RowStore& store, Workers& workers) : store_(store), workers_(workers) {}

  void lookup(Keys keys, float* out) const {
    const std::size_t dim = store_.layout().dim();
    split(keys.size(), [&](std::size_t first, std::size_t last) {
      for (std::size_t begin = first; begin < last; begin += kKeysPerRead) {
        const Keys part = keys.subspan(begin, std::min(kKeysPerRead, last - begin));
        float* to = out + begin * dim;
        store_.read(
            part, [&](const Probe& found) { store_.prefetch_weights(found); },
            [&](std::size_t at, const Probe& found) {
              store_.read_block(part.subspan(at, found.n), found, to + at * dim);
            },
            [&](std::size_t at, std::uint32_t row) { store_.read_one(part[at], row, to + at * dim); });
      }
    });
  }

  void lookup_bags(Keys keys, Bags bags, float* out) const {
    const std::vector<std::uint32_t> bag_of = bags.of_each_key();
    const std::size_t parts = keys.size() < kManyKeys ? 1 : workers_.parts();
    workers_.run(parts, [&](std::size_t part) {
      const std::size_t last = bags.size() * (part + 1) / parts;
      for (std::size_t bag = bags.size() * part / parts; bag < last;) {
        // Whole bags, so that a read that has to be repeated starts from zeros.
        std::size_t end = bag + 1;
        while (end < last && bags.offsets[end + 1] - bags.offsets[bag] <= std::int64_t{kKeysPerRead}) ++end;
        sum_bags(keys, bags, bag, end, bag_of.data(), out);
        bag = end;
      }
    });
  }

  void contains(Keys keys, bool* mask) const {
    store_.read(
        keys, [](const Probe&) {},
        [&](std::size_t at, const Probe& found) {
          for (std::size_t i = 0; i < found.n; ++i) mask[at + i] = found.row[i] != kNoRow;
        },
        [&](std::size_t at, std::uint32_t row) { mask[at] = row != kNoRow; });
  }

  // The number of each key's row, -1 where it has none.
  void row_numbers(Keys keys, std::int64_t* rows) const {
    split(keys.size(), [&](std::size_t first, std::size_t last) {
      const Keys part = keys.subspan(first, last - first);
      store_.read(
          part, [](const Probe&) {},
          [&](std::size_t at, const Probe& found) {
            // Sign extension turns kNoRow into -1; a table holds fewer than 2^31 rows by contract.
            for (std::size_t i = 0; i < found.n; ++i)
              rows[first + at + i] = static_cast<std::int32_t>(found.row[i]);
          },
          [&](std::size_t at, std::uint32_t row) { rows[first + at] = static_cast<std::int32_t>(row); });
    });
  }

  // Copies whole rows. Returns the first missing key, in which case the arrays are half filled.
  std::optional<std::uint64_t> export_rows(Keys keys, RowsOut out) const {
    std::vector<std::uint8_t> is_missing(keys.size());
    const auto copy = [&](std::size_t at, std::uint32_t row) {
      is_missing[at] = row == kNoRow;
      if (row != kNoRow) store_.copy_out(row, at, out);
    };
    store_.read(
        keys, [&](const Probe& found) { store_.prefetch_weights(found); },
        [&](std::size_t at, const Probe& found) {
          for (std::size_t i = 0; i < found.n; ++i) copy(at + i, found.row[i]);
        },
        copy);
    const auto first = std::find(is_missing.begin(), is_missing.end(), 1);
    if (first == is_missing.end()) return std::nullopt;
    return keys[static_cast<std::size_t>(first - is_missing.begin())];
  }

 private:
  static constexpr std::size_t kKeysPerRead = 4096;

  // work(first, last) over ranges of keys, side by side where there are many.
  template <typename Work>
  void split(std::size_t size, Work&& work) const {
    const std::size_t parts = size < kManyKeys ? 1 : workers_.parts();
    workers_.run(parts, [&](std::size_t part) { work(size * part / parts, size * (part + 1) / parts); });
  }

  // The sums of bags [bag, end), from zeros.
  void sum_bags(Keys keys, const Bags& bags, std::size_t bag, std::size_t end, const std::uint32_t* bag_of,
                float* out) const {
    const std::size_t dim = store_.layout().dim();
    const auto first = static_cast<std::size_t>(bags.offsets[bag]);
    const Keys part = keys.subspan(first, static_cast<std::size_t>(bags.offsets[end]) - first);
    std::fill(out + bag * dim, out + end * dim, 0.0f);
    std::vector<float> again;  // the rows, where they had to be read one by one: each maybe more than once
    store_.read(
        part, [&](const Probe& found) { store_.prefetch_weights(found); },
        [&](std::size_t at, const Probe& found) {
          store_.add_block(part.subspan(at, found.n), found, bag_of + first + at, out);
        },
        [&](std::size_t at, std::uint32_t row) {
          again.resize(part.size() * dim);
          store_.read_one(part[at], row, again.data() + at * dim);
        });
    if (!again.empty()) {
      std::fill(out + bag * dim, out + end * dim, 0.0f);
      for (std::size_t at = 0; at < part.size(); ++at)
        for (std::size_t d = 0; d < dim; ++d) out[bag_of[first + at] * dim + d] += again[at * dim + d];
    }
    if (bags.scale != nullptr)
      store_.kernels().scale_rows(out + bag * dim, bags.scale + bag, end - bag, dim, out + bag * dim);
  }

  const RowStore& store_;
  Workers& workers_;
};

}  // namespace recsys::table
