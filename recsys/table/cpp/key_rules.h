// What is known of a row besides its weights, and who may have one.
#pragma once

#include <cstdint>

#include "admission.h"
#include "retention.h"

namespace recsys::table {

struct RowMeta {
  std::uint64_t key;
  std::uint32_t last_seen_s;
  std::uint32_t count;
  std::uint32_t noted_in;    // the change log's period in which it was noted last; kFreeRow: no key has it
  std::uint32_t batch_slot;  // its place in the running batch, if that place says so too
};
static_assert(sizeof(RowMeta) == 24);

struct KeyRules {
  AdmissionRule admission;
  Expiry expiry{};
  std::uint64_t max_rows = 0x7FFFFFFE;  // row numbers fit 31 bits
  bool is_bounded = false;
  Score policy = Score::kLru;
  std::uint32_t policy_exponent = 1;
};

struct KeyCounters {
  std::uint64_t admitted = 0, filtered = 0, expired = 0, evicted = 0, dropped_gradients = 0;
};

}  // namespace recsys::table
