#include "rows.h"

#include "check.h"

using namespace recsys::table;

namespace {

void a_row_keeps_its_address_while_others_come() {
  RowStore rows(3);
  const std::uint32_t first = rows.acquire();
  const float* address = rows.values(first);
  rows.values(first)[2] = 4.0f;
  for (std::uint32_t i = 0; i < 5 * RowStore::kRowsPerSlab; ++i) rows.acquire();
  CHECK(rows.values(first) == address && address[2] == 4.0f);
}

void rows_do_not_overlap() {
  RowStore rows(2);
  for (std::uint32_t i = 0; i < 2 * RowStore::kRowsPerSlab; ++i) {
    float* row = rows.values(rows.acquire());
    row[0] = row[1] = static_cast<float>(i);
  }
  for (std::uint32_t i = 0; i < 2 * RowStore::kRowsPerSlab; ++i)
    CHECK(rows.values(i)[0] == static_cast<float>(i) && rows.values(i)[1] == static_cast<float>(i));
}

void released_rows_come_back_newest_first_before_memory_grows() {
  RowStore rows(1);
  for (std::uint32_t i = 0; i < RowStore::kRowsPerSlab; ++i) rows.acquire();
  const std::size_t reserved = rows.bytes_reserved();
  rows.release(7);
  rows.release(9);
  CHECK(rows.acquire() == 9 && rows.acquire() == 7);
  CHECK(rows.bytes_reserved() == reserved);
  rows.acquire();
  CHECK(rows.bytes_reserved() == 2 * reserved);
}

}  // namespace

int main() {
  a_row_keeps_its_address_while_others_come();
  rows_do_not_overlap();
  released_rows_come_back_newest_first_before_memory_grows();
}
