// Three of the four edges under the simulator: clock, source and store. (The fourth, the file
// system, is tests/store/crash_file_system.h.) All are used by one thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "ingest/source.h"
#include "store/key_value.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/shop_log.h"

namespace sluice::simulation {

// True time, and what the process reads of it.
class SimulatedClock final : public Clock {
 public:
  explicit SimulatedClock(TimeMs begin) : truth(begin) {}
  TimeMs wall_ms() override { return truth + wall_offset; }
  DurationMs steady_ms() override { return steady; }
  void sleep_ms(DurationMs duration) override { pass(duration); }
  void pass(DurationMs duration) {
    truth += duration;
    steady += duration;
  }

  TimeMs truth;
  DurationMs wall_offset = 0;  // by how much the wall clock is wrong
  DurationMs steady = 5'000;
};

// The logs as a broker or a folder shows them: each record from its arrival on.
class SimulatedSource final : public Source {
 public:
  SimulatedSource(const Plan& plan, const ShopLog& log, SimulatedClock& clock, FaultCounts& counts);

  // ---- what the simulator does with it

  // No more faults; and everything of a fixed log is there at once.
  void calm() { is_calm_ = true; }
  // All that is written so far, and what comes later, is there from now on.
  void reveal_all() { is_all_revealed_ = true; }
  bool is_all_revealed() const { return is_all_revealed_ || clock_.truth >= log_.last_arrival; }
  // A replay has pinned the ends: growing logs grow.
  void grow() { has_grown_ = true; }
  bool has_grown() const { return has_grown_; }
  void lose_before(StreamPartition where, Position position);
  // A new process knows no positions and no confirmations.
  void forget();
  // Requests and answers of confirmed ends are under way; called between the steps.
  void poll();
  // The reader was given every record before it.
  Position read_up_to(StreamPartition where) const;

  // ---- Source

  Result<std::uint32_t> partitions() override;
  Result<Position> first_position(StreamPartition where) override;
  Result<Position> end_position(StreamPartition where) override;
  Status seek(StreamPartition where, Position position) override;
  Result<ReadResult> read(StreamPartition where, std::size_t max_records,
                          DurationMs wait_ms) override;
  Result<std::optional<Record>> unfinished(StreamPartition where) override;
  Result<std::optional<Record>> record_at(StreamPartition where, Position position) override;
  std::uint64_t connection_epoch() const override { return epoch_; }
  std::optional<EndConfirmation> confirmed_end(StreamPartition where) override;
  std::string describe(StreamPartition where, Position position) const override;

 private:
  // What is there of a log now.
  struct Extent {
    std::size_t count = 0;  // whole records
    std::size_t bytes = 0;  // of the next line
    Position end = 0;
  };
  struct Asked {
    EndConfirmation confirmation;  // as of the request
    DurationMs due_steady = 0;
  };
  struct Reading {
    std::optional<Position> position;  // of the next record
    Position lost_before = 0;          // retention has removed what lies before
    std::deque<Asked> asked;
    std::optional<EndConfirmation> confirmed;
  };

  Extent extent(StreamPartition where) const;
  std::optional<Record> unfinished_of(StreamPartition where, const Extent& extent) const;
  bool is_fault(std::uint64_t one_in, Fault fault);
  Status fail_start();
  bool is_disconnected() const { return !is_calm_ && clock_.steady < disconnected_until_; }
  void connect_again();

  const Plan& plan_;
  const ShopLog& log_;
  SimulatedClock& clock_;
  FaultCounts& counts_;
  Random random_;
  Random questions_;  // of record_at(): how often it is called changes nothing else
  std::map<StreamPartition, Reading> readings_;
  bool is_calm_ = false;
  bool is_all_revealed_ = false;
  bool has_grown_ = false;
  DurationMs disconnected_until_ = 0;  // steady time; 0: nothing is broken
  std::uint64_t epoch_ = 0;            // grows when a broken connection is there again
};

// A store that survives the process, with exact crash semantics: what commit() acknowledged is
// there; of a commit that fails all or nothing is there after the restart, and until then every
// later one fails too.
class SimulatedStore final : public KeyValueStore {
 public:
  // The commit after so many fails; whether it is there afterwards is `is_kept`.
  void fail_after(std::uint64_t commits, bool is_kept);
  // The process that had the store open has ended.
  void restart();
  bool has_failed() const { return has_failed_; }
  bool is_kept() const { return is_kept_; }  // the commit that failed will be there

  // Called when a commit has become durable: before the caller of commit() knows, or at restart().
  std::function<void()> on_durable;
  // Called while a commit is under way: what another thread might do then.
  std::function<void()> on_commit;

  Status commit(const WriteBatch& batch) override;
  Result<std::optional<std::string>> get(Space space, std::string_view key) override;
  Status scan(Space space, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override;
  std::uint64_t disk_bytes() override { return 0; }

 private:
  std::unique_ptr<KeyValueStore> store_ = make_memory_store();
  std::optional<std::uint64_t> left_;
  bool is_kept_ = false;
  bool has_failed_ = false;
  std::optional<WriteBatch> in_doubt_;
};

}  // namespace sluice::simulation
