#include "pages.h"

#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "check.h"

using namespace recsys::table;

namespace {

constexpr std::size_t kStep = Pages::kStep;

bool all_bytes_are(const Pages& pages, std::size_t begin, std::size_t end, int value) {
  for (std::size_t i = begin; i < end; ++i)
    if (pages.data()[i] != std::byte(value)) return false;
  return true;
}

std::size_t resident_pages(const Pages& pages) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> is_resident(pages.bytes() / page);
  CHECK(mincore(pages.data(), pages.bytes(), is_resident.data()) == 0);
  std::size_t n = 0;
  for (const unsigned char flags : is_resident) n += flags & 1;
  return n;
}

void growing_moves_nothing_and_new_bytes_are_zero() {
  Pages pages;
  CHECK(pages.data() == nullptr && pages.bytes() == 0);
  pages.ensure(1);
  const std::byte* const at = pages.data();
  std::memset(pages.data(), 7, pages.bytes());
  for (std::size_t wanted : {kStep, kStep + 1, 3 * kStep, 2 * kStep, 9 * kStep}) {
    const std::size_t before = pages.bytes();
    pages.ensure(wanted);
    CHECK(pages.data() == at && pages.bytes() >= wanted && pages.bytes() >= before);
    CHECK(pages.bytes() <= (wanted + kStep - 1) / kStep * kStep + kStep || pages.bytes() == before);
    CHECK(all_bytes_are(pages, 0, kStep, 7) && all_bytes_are(pages, before, pages.bytes(), 0));
  }
}

void released_bytes_read_as_zero_again_and_their_memory_is_gone() {
  Pages pages;
  pages.ensure(4 * kStep);
  std::memset(pages.data(), 7, pages.bytes());
  const std::size_t full = resident_pages(pages);
  const std::size_t begin = kStep + 100, end = 3 * kStep - 100;
  pages.release(begin, end);
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  CHECK(all_bytes_are(pages, 0, begin, 7) && all_bytes_are(pages, end, pages.bytes(), 7));
  CHECK(resident_pages(pages) == full - (2 * kStep / page - 2));
  CHECK(all_bytes_are(pages, kStep + page, 3 * kStep - page, 0));
  std::memset(pages.data() + begin, 8, end - begin);
  CHECK(all_bytes_are(pages, begin, end, 8));
  pages.release(5, 5);
  pages.release(page, page - 1);
  CHECK(all_bytes_are(pages, 0, begin, 7));
}

void moved_pages_keep_their_bytes() {
  Pages first;
  first.ensure(10);
  first.data()[9] = std::byte(3);
  const std::byte* const at = first.data();
  Pages second(std::move(first));
  CHECK(second.data() == at && second.data()[9] == std::byte(3));
  second = Pages();
  CHECK(second.data() == nullptr && second.bytes() == 0);
}

void more_than_the_machine_has_is_refused() {
  Pages pages;
  pages.ensure(1);
  pages.data()[0] = std::byte(5);
  bool is_refused = false;
  try {
    pages.ensure(std::numeric_limits<std::size_t>::max() / 4);
  } catch (const std::bad_alloc&) {
    is_refused = true;
  }
  CHECK(is_refused && pages.bytes() == kStep && pages.data()[0] == std::byte(5));
}

}  // namespace

int main() {
  growing_moves_nothing_and_new_bytes_are_zero();
  released_bytes_read_as_zero_again_and_their_memory_is_gone();
  moved_pages_keep_their_bytes();
  more_than_the_machine_has_is_refused();
}
