// recsys.table._core: arrays in, arrays out, the GIL released. recsys/table/native.py has checked
// every dtype, length and memory order before a call arrives here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <tuple>

#include "table.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace recsys::table;

namespace {

template <typename Value>
using Vector = nb::ndarray<Value, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename Value>
using Matrix = nb::ndarray<Value, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using KeyArray = Vector<const std::uint64_t>;
using Rates = Vector<const float>;
using FloatsIn = Matrix<const float>;
using FloatsOut = Matrix<float>;
using WordsIn = Vector<const std::uint32_t>;
using WordsOut = Vector<std::uint32_t>;
using Offsets = Vector<const std::int64_t>;
using Scale = std::optional<Vector<const float>>;
using NewKeys = nb::ndarray<nb::numpy, std::uint64_t, nb::ndim<1>>;

Keys span_of(const KeyArray& keys) { return {keys.data(), keys.size()}; }

Bags bags_of(const Offsets& offsets, const Scale& scale) {
  return {{offsets.data(), offsets.size()}, scale ? scale->data() : nullptr};
}

template <typename Call>
auto without_gil(Call&& call) {
  const nb::gil_scoped_release released;
  return call();
}

NewKeys to_numpy(std::vector<std::uint64_t>&& keys) {
  auto* owned = new std::vector<std::uint64_t>(std::move(keys));
  nb::capsule owner(owned, [](void* p) noexcept {
    delete static_cast<std::vector<std::uint64_t>*>(p);
  });
  return NewKeys(owned->data(), {owned->size()}, owner);
}

using AdmissionTuple = std::tuple<int, std::uint32_t, std::uint32_t, std::uint32_t, std::uint64_t, double,
                                  bool, std::uint64_t>;

KeyRules rules_of(const AdmissionTuple& admission, std::uint32_t max_idle_s, std::uint32_t max_skew_s,
                  const WordsIn& by_feature, std::optional<std::uint64_t> max_rows, int policy,
                  std::uint32_t exponent) {
  const auto& [kind, threshold, width, depth, window, probability, linear, seed] = admission;
  KeyRules rules;
  rules.admission = {static_cast<AdmissionRule::Kind>(kind), threshold, width, depth, window, probability,
                     linear, seed};
  rules.expiry = Expiry(max_idle_s, max_skew_s,
                        std::vector<std::uint32_t>(by_feature.data(), by_feature.data() + by_feature.size()));
  rules.is_bounded = max_rows.has_value();
  if (max_rows) rules.max_rows = *max_rows;
  rules.policy = static_cast<Score>(policy);
  rules.policy_exponent = exponent;
  return rules;
}

// Kinds arrive as their places in the Python modules' lists, which are those of the enums.
void bind_settings(nb::module_& m) {
  nb::class_<Slice>(m, "Slice")
      .def("__init__",
           [](Slice* self, std::size_t dim, int optimizer, std::array<float, 8> numbers, int codec,
              float amplitude, bool stochastic, int clip, float clip_limit, float low, float width,
              std::uint64_t seed) {
             new (self) Slice{dim,
                              {static_cast<Optimizer>(optimizer), numbers},
                              {static_cast<Codec>(codec), amplitude, stochastic},
                              static_cast<Clip>(clip),
                              clip_limit,
                              low,
                              width,
                              seed};
           },
           nb::kw_only(), "dim"_a, "optimizer"_a, "numbers"_a, "codec"_a, "amplitude"_a, "stochastic"_a,
           "clip"_a, "clip_limit"_a, "low"_a, "width"_a, "seed"_a);
}

void bind_reading(nb::class_<Table>& table) {
  table
      .def("lookup", [](const Table& t, KeyArray keys, FloatsOut out) {
        without_gil([&] { t.lookup(span_of(keys), out.data()); });
      })
      .def("lookup_bags",
           [](const Table& t, KeyArray keys, Offsets offsets, Scale scale, FloatsOut out) {
             without_gil([&] { t.lookup_bags(span_of(keys), bags_of(offsets, scale), out.data()); });
           },
           nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("contains", [](const Table& t, KeyArray keys, Vector<bool> mask) {
        without_gil([&] { t.contains(span_of(keys), mask.data()); });
      })
      .def("row_numbers", [](const Table& t, KeyArray keys, Vector<std::int64_t> rows) {
        without_gil([&] { t.row_numbers(span_of(keys), rows.data()); });
      })
      .def("export_rows",
           [](const Table& t, KeyArray keys, FloatsOut weights, FloatsOut state, WordsOut seen, WordsOut count) {
             return without_gil([&] {
               return t.export_rows(span_of(keys), {weights.data(), state.data(), seen.data(), count.data()});
             });
           })
      .def("scan",
           [](const Table& t, std::uint32_t cursor, Vector<std::uint64_t> keys, FloatsOut weights,
              FloatsOut state, WordsOut seen, WordsOut count) {
             return without_gil([&] {
               return t.scan(cursor, keys.size(), keys.data(),
                             {weights.data(), state.data(), seen.data(), count.data()});
             });
           })
      .def("keys", [](const Table& t) { return to_numpy(without_gil([&] { return t.keys(); })); })
      .def("memory",
           [](const Table& t) {
             const Memory m = without_gil([&] { return t.memory(); });
             return std::make_tuple(m.live, m.reserved, m.index, m.filter, m.changes);
           })
      .def("__len__", [](const Table& t) { return t.size(); });
}

void bind_writing(nb::class_<Table>& table) {
  table
      .def("learn",
           [](Table& t, KeyArray keys, FloatsIn gradients, std::uint32_t event_time_s, Rates rates) {
             return without_gil([&] {
               return t.learn(span_of(keys), gradients.data(), event_time_s, rates.data());
             });
           })
      .def("learn_bags",
           [](Table& t, KeyArray keys, Offsets offsets, Scale scale, FloatsIn gradients,
              std::uint32_t event_time_s, Rates rates) {
             return without_gil([&] {
               return t.learn_bags(span_of(keys), bags_of(offsets, scale), gradients.data(), event_time_s,
                                   rates.data());
             });
           },
           nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg())
      .def("admit",
           [](Table& t, KeyArray keys, std::uint32_t event_time_s, Rates rates, Vector<std::int64_t> rows) {
             without_gil([&] { t.admit(span_of(keys), event_time_s, rates.data(), rows.data()); });
           })
      .def("assign", [](Table& t, KeyArray keys, FloatsIn weights, Rates rates) {
        without_gil([&] { t.assign(span_of(keys), weights.data(), rates.data()); });
      })
      .def("import_rows",
           [](Table& t, KeyArray keys, FloatsIn weights, FloatsIn state, WordsIn seen, WordsIn count,
              Rates rates) {
             without_gil([&] {
               t.import_rows(span_of(keys), {weights.data(), state.data(), seen.data(), count.data()},
                             rates.data());
             });
           })
      .def("erase", [](Table& t, KeyArray keys) {
        return without_gil([&] { return t.erase(span_of(keys)); });
      })
      .def("sweep", [](Table& t, std::size_t max_rows) {
        return without_gil([&] { return t.sweep(max_rows); });
      })
      .def("compact", [](Table& t) { without_gil([&] { t.compact(); }); })
      .def("clear", [](Table& t) { without_gil([&] { t.clear(); }); });
}

void bind_books(nb::class_<Table>& table) {
  table.def("follow", [](Table& t) { return t.follow(); })
      .def("unfollow", [](Table& t, std::uint64_t follower) { return t.unfollow(follower); })
      .def("drain",
           [](Table& t, std::uint64_t follower) -> std::optional<std::pair<NewKeys, NewKeys>> {
             auto changes = without_gil([&] { return t.drain(follower); });
             if (!changes) return std::nullopt;
             return std::pair{to_numpy(std::move(changes->first)), to_numpy(std::move(changes->second))};
           })
      .def_prop_ro("clock_s", [](Table& t) -> std::optional<std::uint32_t> {
        return t.with_map([](KeyMap& map) { return map.clock(); });
      })
      .def("counters", [](Table& t) {
        return t.with_map([](KeyMap& map) {
          const KeyCounters& c = map.counters();
          return std::vector<std::uint64_t>{c.admitted, c.filtered, c.expired, c.evicted, c.dropped_gradients};
        });
      })
      .def("admission_counters", [](Table& t) {
        return t.with_map([](KeyMap& map) {
          const auto counters = map.filter().counters();
          return std::vector<std::uint64_t>(counters.begin(), counters.end());
        });
      })
      .def("admission_cells", [](Table& t, Matrix<std::uint16_t> cells) {
        return t.with_map([&](KeyMap& map) { return map.filter().save_cells({cells.data(), cells.size()}); });
      })
      .def("restore_ledger",
           [](Table& t, std::optional<std::uint32_t> clock_s, std::array<std::uint64_t, 5> counters,
              Matrix<const std::uint16_t> cells, KeyArray admission_counters) {
             return t.with_map([&](KeyMap& map) {
               map.clock() = clock_s;
               map.counters() = {counters[0], counters[1], counters[2], counters[3], counters[4]};
               return map.filter().restore({cells.data(), cells.size()},
                                           {admission_counters.data(), admission_counters.size()});
             });
           },
           nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace

NB_MODULE(_core, m) {
  // Tables that live until the interpreter ends are no leak.
  nb::set_leak_warnings(false);
  m.def("isa", [] {
    switch (isa()) {
      case Isa::kAvx512: return "avx512";
      case Isa::kAvx2: return "avx2";
      case Isa::kPortable: break;
    }
    return "portable";
  });
  bind_settings(m);
  nb::class_<Table> table(m, "Table");
  table.def("__init__",
            [](Table* self, std::vector<Slice> slices, const AdmissionTuple& admission,
               std::uint32_t max_idle_s, std::uint32_t max_skew_s, WordsIn by_feature,
               std::optional<std::uint64_t> max_rows, int policy, std::uint32_t exponent,
               bool missing_reads_initial, int nonfinite, std::size_t threads) {
              new (self) Table(std::move(slices),
                               rules_of(admission, max_idle_s, max_skew_s, by_feature, max_rows, policy, exponent),
                               missing_reads_initial, static_cast<Nonfinite>(nonfinite), threads);
            },
            nb::kw_only(), "slices"_a, "admission"_a, "max_idle_s"_a, "max_skew_s"_a, "by_feature"_a,
            "max_rows"_a.none(), "policy"_a, "exponent"_a, "missing_reads_initial"_a, "nonfinite"_a,
            "threads"_a);
  bind_reading(table);
  bind_writing(table);
  bind_books(table);
}
