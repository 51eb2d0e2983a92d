// The production stages without threads, in any rhythm: source → intakes → join → commits, with
// crashes in between. What app/ does in one rhythm, tests do here in random ones.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "ingest/decoder.h"
#include "ingest/intake.h"
#include "ingest/source.h"
#include "joiner/join.h"
#include "oracle.h"
#include "store/key_value.h"

namespace sluice {

// Counter-based random numbers: equal everywhere for one seed.
class TestRandom {
 public:
  explicit TestRandom(std::uint64_t seed) : seed_(mix64(seed)) {}
  std::uint64_t below(std::uint64_t bound) { return mix64(seed_ + count_++) % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t seed_;
  std::uint64_t count_ = 0;
};

// Logs in memory, every one at its end.
class MemorySource final : public Source {
 public:
  MemorySource(std::uint32_t partitions, std::map<StreamPartition, std::vector<Record>> logs)
      : partitions_(partitions), logs_(std::move(logs)) {}

  Result<std::uint32_t> partitions() override { return partitions_; }
  Result<Position> first_position(StreamPartition) override { return Position{0}; }
  Result<Position> end_position(StreamPartition where) override;
  Status seek(StreamPartition where, Position position) override;
  Result<ReadResult> read(StreamPartition where, std::size_t max_records, DurationMs) override;
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override;
  std::optional<EndConfirmation> confirmed_end(StreamPartition) override { return std::nullopt; }
  std::string describe(StreamPartition where, Position position) const override;

 private:
  std::uint32_t partitions_;
  std::map<StreamPartition, std::vector<Record>> logs_;
  std::map<StreamPartition, Position> positions_;
};

// How the stages are driven; all of it must leave the outcome as it is.
struct Rhythm {
  std::uint64_t seed = 0;
  std::size_t max_read = 1'000;     // records a read, at most
  std::uint64_t commit_one_in = 3;  // steps
  std::uint64_t crash_one_in = 0;   // steps; 0: never
  bool hesitates = false;           // the frontier often stays behind the watermarks
  bool trims = false;               // the sample log is cut behind the reader
  bool quiets = false;  // partitions are declared quiet at random: which records come after that
                        // does depend on the rhythm
};

// Errors of the stages end the test program: none is expected here.
class Stages {
 public:
  // Called after each commit with the samples it added to the log.
  using OnCommit = std::function<void(const Stages&, const std::vector<Sample>&)>;

  // All are borrowed. `decoder` as the config says, with or without features.
  Stages(const Config& config, Source& source, Decoder& decoder, KeyValueStore& store,
         const Rhythm& rhythm);

  // Reads all logs to their ends, closes the join and commits. The samples, as read from the log.
  std::vector<Sample> run(const OnCommit& on_commit);

  Join& join() { return *join_; }
  // What the intake has taken so far, as the position after it; whether it was all.
  Position read_up_to(StreamPartition where) const;
  bool is_at_end(StreamPartition where) const;

 private:
  struct Lane {
    Intake intake;
    Position read_up_to;
    bool is_at_end = false;
  };

  void start();
  void read(Lane& lane);
  void advance();
  void commit(const OnCommit& on_commit);
  std::vector<IntakeState> states() const;

  const Config& config_;
  Source& source_;
  Decoder& decoder_;
  KeyValueStore& store_;
  Rhythm rhythm_;
  TestRandom random_;
  std::uint32_t partitions_ = 0;
  std::unique_ptr<Join> join_;
  std::vector<Lane> lanes_;  // stream-major
  std::vector<Sample> samples_;
};

// Every record of the source's logs as `parse` reads it. Errors end the test program.
OracleLogs read_facts(Source& source, std::uint32_t partitions,
                      const std::function<OracleRecord(Stream, const Record&)>& parse,
                      std::size_t streams = kStreamsWithoutActions);

// A dead letter as the store holds it (docs/formats.md).
struct StoredDeadLetter {
  TimeMs wall_ms = 0;
  OracleRefusal refusal;
  std::string detail;
  std::string bytes;
};
std::vector<StoredDeadLetter> read_dead_letters(KeyValueStore& store);

std::size_t count_keys(KeyValueStore& store, Space space);

// One line a field, for messages.
std::string to_string(const Sample& sample);

// What differs between what was made and what the oracle expects; empty where nothing does.
std::string difference(const std::vector<Sample>& samples, const std::vector<Sample>& expected);
std::string difference(const JoinCounters& counters, const OracleResult& expected);

}  // namespace sluice
