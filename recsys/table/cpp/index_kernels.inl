// The three steps of a look-up, each over one block of keys. Included once for each instruction set.

// `used` is read first: beside a writer, a key that has left its slot must not be taken for one that is used
// again. The loads stay in this order because the first acquires.
inline std::uint32_t match(const Bucket& bucket, std::uint64_t key) noexcept {
  const std::uint32_t used = __atomic_load_n(&bucket.used, __ATOMIC_ACQUIRE);
#ifdef RECSYS_AVX512
  const __m512i line = _mm512_load_si512(&bucket);
  return _mm512_cmpeq_epi64_mask(line, _mm512_set1_epi64(static_cast<long long>(key))) & used;
#else
  std::uint32_t equal = 0;
  for (std::uint32_t s = 0; s < kSlotsPerBucket; ++s)
    equal |= static_cast<std::uint32_t>(bucket.keys[s] == key) << s;
  return equal & used;
#endif
}

// Where the keys of a block may be. Fetches nothing yet.
inline void place_keys(const IndexView& index, const std::uint64_t* keys, Probe& probe) noexcept {
  for (std::size_t i = 0; i < probe.n; ++i) {
    const std::uint64_t hash = mix64(keys[i]);
    probe.first[i] = index.place(first_half(hash));
    probe.second[i] = index.place(second_half(hash));
  }
}

// Compares the keys of a block with their first buckets, and meanwhile sends for the first buckets of a later
// block, one by one: a burst would fill the queue to memory and hold up the comparing. What is in a bucket is
// a coin toss for the branch predictor, so nothing branches on it.
inline void probe_first(const IndexView& index, const std::uint64_t* keys, Probe& probe,
                        const Probe& next) noexcept {
  std::size_t pending = 0;
  for (std::size_t i = 0; i < probe.n; ++i) {
    __builtin_prefetch(index.buckets + next.first[i], 0, kToL2);
    const Bucket& bucket = index.buckets[probe.first[i]];
    const std::uint32_t found = match(bucket, keys[i]);
    const std::uint32_t row = bucket.rows[std::countr_zero(found | kNoSlot)];
    const std::uint32_t is_missing = found == 0;
    probe.row[i] = row | (0 - is_missing);
    probe.pending[pending] = static_cast<std::uint8_t>(i);
    pending += is_missing;
  }
  for (std::size_t p = 0; p < pending; ++p)
    __builtin_prefetch(index.buckets + probe.second[probe.pending[p]], 0, kToL2);
  probe.n_pending = pending;
}

inline void probe_second(const IndexView& index, const std::uint64_t* keys, Probe& probe) noexcept {
  for (std::size_t p = 0; p < probe.n_pending; ++p) {
    const std::size_t i = probe.pending[p];
    const Bucket& bucket = index.buckets[probe.second[i]];
    const std::uint32_t found = match(bucket, keys[i]);
    const std::uint32_t row = bucket.rows[std::countr_zero(found | kNoSlot)];
    probe.row[i] = row | (0 - static_cast<std::uint32_t>(found == 0));
  }
}
