// recsys.table._core: arrays in, arrays out, the GIL released. recsys/table/native.py has checked
// every dtype, length and memory order before a call arrives here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "table.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace recsys::table;

namespace {

using KeyArray = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatsIn = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using SecondsIn = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using SecondsOut = nb::ndarray<std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MaskOut = nb::ndarray<bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewKeys = nb::ndarray<nb::numpy, std::uint64_t, nb::ndim<1>>;

Keys span_of(const KeyArray& keys) { return {keys.data(), keys.size()}; }

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

}  // namespace

NB_MODULE(_core, m) {
  // Tables that live until the interpreter ends are no leak.
  nb::set_leak_warnings(false);
  nb::enum_<Optimizer>(m, "Optimizer")
      .value("SGD", Optimizer::kSgd)
      .value("ADAGRAD", Optimizer::kAdagrad)
      .value("ROW_WISE_ADAGRAD", Optimizer::kRowWiseAdagrad);

  nb::class_<Slice>(m, "Slice")
      .def("__init__",
           [](Slice* self, std::size_t dim, Optimizer optimizer, float learning_rate,
              float initial_accumulator, float low, float width, std::uint64_t seed) {
             new (self) Slice{dim, optimizer, learning_rate, initial_accumulator, low, width, seed};
           },
           nb::kw_only(), "dim"_a, "optimizer"_a, "learning_rate"_a, "initial_accumulator"_a,
           "low"_a, "width"_a, "seed"_a);

  nb::class_<Table>(m, "Table")
      .def(nb::init<std::vector<Slice>, bool, std::size_t>(), nb::kw_only(), "slices"_a,
           "missing_reads_initial"_a, "threads"_a)
      .def("lookup", [](const Table& t, KeyArray keys, FloatsOut weights) {
        without_gil([&] { t.lookup(span_of(keys), weights.data()); });
      })
      .def("contains", [](const Table& t, KeyArray keys, MaskOut mask) {
        without_gil([&] { t.contains(span_of(keys), mask.data()); });
      })
      .def("learn", [](Table& t, KeyArray keys, FloatsIn gradients, std::uint32_t event_time_s) {
        return without_gil([&] { return t.learn(span_of(keys), gradients.data(), event_time_s); });
      })
      .def("assign", [](Table& t, KeyArray keys, FloatsIn weights) {
        without_gil([&] { t.assign(span_of(keys), weights.data()); });
      })
      .def("erase", [](Table& t, KeyArray keys) {
        return without_gil([&] { return t.erase(span_of(keys)); });
      })
      .def("export_rows",
           [](const Table& t, KeyArray keys, FloatsOut weights, FloatsOut state, SecondsOut seen) {
             return without_gil([&] {
               return t.export_rows(span_of(keys), weights.data(), state.data(), seen.data());
             });
           })
      .def("import_rows",
           [](Table& t, KeyArray keys, FloatsIn weights, FloatsIn state, SecondsIn seen) {
             without_gil([&] {
               t.import_rows(span_of(keys), weights.data(), state.data(), seen.data());
             });
           })
      .def("keys", [](const Table& t) { return to_numpy(without_gil([&] { return t.keys(); })); })
      .def("drain_touched",
           [](Table& t) { return to_numpy(without_gil([&] { return t.drain_touched(); })); })
      .def("clear", [](Table& t) { without_gil([&] { t.clear(); }); })
      .def("memory",
           [](const Table& t) {
             const Memory memory = without_gil([&] { return t.memory(); });
             return std::make_tuple(memory.live, memory.reserved, memory.index);
           })
      .def("__len__", [](const Table& t) { return without_gil([&] { return t.size(); }); });
}
