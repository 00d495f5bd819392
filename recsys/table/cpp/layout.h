// What the columns of a row are: how they start, how they are stored and how a gradient changes them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "codecs.h"
#include "hashing.h"
#include "optimizers.h"

namespace recsys::table {

struct Slice {
  std::size_t dim;
  Rule rule;
  CodecRule codec;
  Clip clip;
  float clip_limit;
  float low;            // initial weights are low + width * u, u in [0, 1)
  float width;          // 0 for a constant
  std::uint64_t seed;   // of this slice's initial weights and of its rounding
  // Set by Layout: the functions of its kinds, and where it begins among weights, bytes and states.
  Update update = nullptr;
  CodecKernels kernels{};
  std::size_t weight_at = 0;
  std::size_t byte_at = 0;
  std::size_t state_at = 0;
};

// Immutable once built. `rates` holds the learning rate of each slice at the running step.
class Layout {
 public:
  explicit Layout(std::vector<Slice> slices) : slices_(std::move(slices)) {
    for (Slice& slice : slices_) {
      slice.update = update_for(slice.rule.kind);
      slice.kernels = codec_kernels(slice.codec.kind);
      slice.weight_at = dim_;
      slice.byte_at = bytes_;
      slice.state_at = state_dim_;
      dim_ += slice.dim;
      bytes_ += codec_bytes(slice.codec, slice.dim);
      state_dim_ += recsys::table::state_dim(slice.rule, slice.dim);
      is_plain_ = is_plain_ && slice.codec.kind == Codec::kFp32;
    }
  }

  std::size_t dim() const noexcept { return dim_; }
  std::size_t state_dim() const noexcept { return state_dim_; }
  std::size_t bytes() const noexcept { return bytes_; }
  std::size_t slices() const noexcept { return slices_.size(); }
  bool is_plain() const noexcept { return is_plain_; }  // stored as the floats themselves

  // Draws are hashes of (slice seed, key, column): the order of arrival cannot change them.
  void initial_weights(std::uint64_t key, float* weights) const noexcept {
    for (const Slice& slice : slices_) {
      float* w = weights + slice.weight_at;
      if (slice.width == 0.0f) {
        std::fill_n(w, slice.dim, slice.low);
        continue;
      }
      const std::uint64_t stream = mix64(slice.seed ^ key);
      for (std::size_t i = 0; i < slice.dim; ++i) {
        const float u = static_cast<float>(mix64(stream + i) >> 40) * 0x1p-24f;
        w[i] = slice.low + slice.width * u;
      }
    }
  }

  // `weights` are the row's initial weights as they read once stored.
  void initial_state(const float* weights, const float* rates, float* state) const noexcept {
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      const Slice& slice = slices_[s];
      recsys::table::initial_state(slice.rule, slice.dim, rates[s], weights + slice.weight_at,
                                   state + slice.state_at);
    }
  }

  // After weights were assigned: FTRL's weights follow from its state, so its state must begin anew from them.
  void follow_weights(const std::byte* stored, const float* rates, float* state,
                      float* scratch) const noexcept {
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      const Slice& slice = slices_[s];
      if (slice.rule.kind != Optimizer::kFtrl && slice.rule.kind != Optimizer::kGroupFtrl) continue;
      slice.kernels.decode(slice.codec, slice.dim, stored + slice.byte_at, scratch);
      recsys::table::initial_state(slice.rule, slice.dim, rates[s], scratch, state + slice.state_at);
    }
  }

  // `count` tells one rounding of a key's row from the next.
  void encode(std::uint64_t key, std::uint32_t count, const float* weights,
              std::byte* stored) const noexcept {
    if (is_plain_) {
      std::memcpy(stored, weights, bytes_);
      return;
    }
    for (const Slice& slice : slices_)
      slice.kernels.encode(slice.codec, slice.dim, weights + slice.weight_at,
                           mix64(mix64(slice.seed ^ key) + count), stored + slice.byte_at);
  }

  void decode(const std::byte* stored, float* weights) const noexcept {
    if (is_plain_) {
      std::memcpy(weights, stored, bytes_);
      return;
    }
    for (const Slice& slice : slices_)
      slice.kernels.decode(slice.codec, slice.dim, stored + slice.byte_at, weights + slice.weight_at);
  }

  void decode_add(const std::byte* stored, float* sum) const noexcept {
    for (const Slice& slice : slices_)
      slice.kernels.decode_add(slice.codec, slice.dim, stored + slice.byte_at, sum + slice.weight_at);
  }

  // What a new row of this key would read as.
  void initial_as_stored(std::uint64_t key, float* weights) const {
    initial_weights(key, weights);
    if (is_plain_) return;
    std::vector<std::byte> stored(bytes_);
    encode(key, 0, weights, stored.data());
    decode(stored.data(), weights);
  }

  // One step along `gradient`, which is clipped in place. `scratch` has room for a row's weights.
  void step(std::uint64_t key, std::uint32_t count, const float* rates, float* gradient, std::byte* stored,
            float* state, float* scratch) const noexcept {
    float* weights = is_plain_ ? reinterpret_cast<float*>(stored) : scratch;
    if (!is_plain_) decode(stored, weights);
    for (std::size_t s = 0; s < slices_.size(); ++s) {
      const Slice& slice = slices_[s];
      float* g = gradient + slice.weight_at;
      if (slice.clip != Clip::kNone) clip(slice.clip, slice.clip_limit, slice.dim, g);
      slice.update(slice.rule, rates[s], slice.dim, weights + slice.weight_at, state + slice.state_at, g);
    }
    if (!is_plain_) encode(key, count, weights, stored);
  }

 private:
  std::vector<Slice> slices_;
  std::size_t dim_ = 0;
  std::size_t bytes_ = 0;
  std::size_t state_dim_ = 0;
  bool is_plain_ = true;
};

}  // namespace recsys::table
