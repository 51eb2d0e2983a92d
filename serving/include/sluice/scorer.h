// Scores impressions inside another program, by the snapshots that Sluice publishes:
//
//   std::string error;
//   auto scorer = sluice::scorer::Scorer::open("sluice-data", {}, error);
//   if (scorer == nullptr) ...                                 // `error` says why
//   for (const auto& score : scorer->score(impressions)) ...   // JSON texts
//
// The bits of a score are those of `sluice score`, and of training with the same weights; they do
// not depend on the other impressions of a call. The library is `sluice::scorer` of the CMake
// package `sluice`. It reads files, opens no socket, starts no thread, writes nothing, and throws
// nothing but std::bad_alloc. It is for a CPU of the level x86-64-v3 (AVX2) or above.
//
// Needs C++17; nothing but the standard library.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#if defined(__GNUC__)
#define SLUICE_SCORER_API __attribute__((visibility("default")))
#else
#define SLUICE_SCORER_API
#endif

namespace sluice::scorer {

struct Options {
  std::string model;           // which one, where a data folder has several; empty: the only one
  std::string alias;           // the snapshot that this alias names; empty: what LATEST names
  std::uint64_t sequence = 0;  // this snapshot and no other; 0: by alias or LATEST
};

struct Score {
  std::string error;  // why the impression has no score; empty: it has one
  std::string impression_id;
  double pctr = 0;    // of a click
  double pcvr = 0;    // of a purchase, once clicked
  double pctcvr = 0;  // of both
};

class SLUICE_SCORER_API Scorer {
 public:
  // `where` is a data folder, a model's folder, a folder of snapshots, or one snapshot's. The
  // snapshot is read and checked whole: sizes, checksums, shapes. Null where that fails; then
  // `error` says why.
  static std::unique_ptr<Scorer> open(const std::string& where, const Options& options,
                                      std::string& error);
  ~Scorer();
  Scorer(const Scorer&) = delete;
  Scorer& operator=(const Scorer&) = delete;

  // One score for each impression (a JSON object as in the impressions stream), in their order.
  // Any number of threads at a time, also while another one reloads: a call is scored by one
  // snapshot from its first impression to its last.
  std::vector<Score> score(const std::vector<std::string>& impressions) const;

  enum class Reloaded {
    unchanged,  // there is no other snapshot
    changed,    // calls that begin from now on are scored by it
    failed,     // `error` says why; the snapshot from before goes on serving
  };
  // Looks whether the alias or LATEST names another snapshot by now. What a delta has in common
  // with the snapshot in use is shared with it. Any thread; one reloads at a time.
  Reloaded reload(std::string& error);

  // The sequence number of the last sample that the snapshot in use has learned.
  std::uint64_t sequence() const;

 private:
  struct Impl;
  explicit Scorer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::scorer
