// Hashes of a model's pieces, added up modulo 2^128: what a model holds as one number that does not
// depend on the order of its rows, and that follows a row's change by one subtraction and one
// addition. docs/formats.md and docs/learner.md have the bytes that are hashed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/hash.h"
#include "learner/embedding_table.h"
#include "store/tensors.h"

namespace sluice {

class DigestSum {
 public:
  void add(const Digest& hash) {
    sum_.low += hash.low;
    sum_.high += hash.high + (sum_.low < hash.low ? 1 : 0);
  }
  void subtract(const Digest& hash) {
    const std::uint64_t borrow = sum_.low < hash.low ? 1 : 0;
    sum_.low -= hash.low;
    sum_.high -= hash.high + borrow;
  }
  const Digest& value() const { return sum_; }

 private:
  Digest sum_;
};

// One piece to be hashed: `kind` and `name` keep equal bytes of different pieces apart.
class Piece {
 public:
  Piece(char kind, std::string_view name) {
    ByteWriter out(bytes_);
    out.u8(static_cast<std::uint8_t>(kind));
    out.text(name);
  }
  ByteWriter writer() { return ByteWriter(bytes_); }
  void floats(std::span<const float> values) {
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  Digest hash() const { return hash128(bytes_); }

 private:
  std::string bytes_;
};

// Hashes rows of one table. One thread at a time.
class RowHasher {
 public:
  // `table`: its full name, EmbeddingTable::name().
  explicit RowHasher(std::string_view table);

  // Of key and weights: what weights_digest() adds up.
  Digest weights(std::uint64_t key, std::span<const float> weights);
  // Of all that training keeps of a row, its last batch and slots too: `floats` values.
  Digest state(const EmbeddingRow& row, std::size_t floats);

 private:
  std::string bytes_;  // kind and name, then the row's
  std::size_t prefix_;
};

// Of one array of a tower: its values in row-major order.
Digest tower_array_hash(std::string_view name, std::span<const float> weights);

// The sum over all rows and arrays of a model's weights as tensors (a full snapshot's, or one put
// together from its chain). Of what is no such array nothing is counted.
Result<Digest> weights_digest(const Tensors& tensors);

}  // namespace sluice
