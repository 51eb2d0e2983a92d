#include "app/snapshot_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

std::optional<std::string> gate_refusal(const GateConfig& gate, const ordered_json& manifest,
                                        const ordered_json& latest) {
  return sluice::gate_refusal(gate, manifest, latest, false);
}

ordered_json manifest(double auc, double calibration, std::uint64_t positives = 1000) {
  const ordered_json task = {{"positives", positives}, {"auc", auc}, {"calibration", calibration}};
  return {{"window_metrics", {{"ctr", task}, {"ctcvr", task}}}};
}

TEST(SnapshotGate, HoldsNothingBackByDefault) {
  EXPECT_EQ(gate_refusal({}, manifest(0, 100), manifest(1, 1)), std::nullopt);
}

TEST(SnapshotGate, JudgesTheDropAgainstLatest) {
  GateConfig gate;
  gate.max_auc_drop = 0.05;
  EXPECT_EQ(gate_refusal(gate, manifest(0.76, 1), manifest(0.80, 1)), std::nullopt);
  EXPECT_EQ(gate_refusal(gate, manifest(0.90, 1), manifest(0.80, 1)), std::nullopt);
  const auto refusal = gate_refusal(gate, manifest(0.74, 1), manifest(0.80, 1));
  ASSERT_TRUE(refusal);
  EXPECT_THAT(*refusal, HasSubstr("ctr AUC fell from 0.8000 to 0.7400"));
  EXPECT_EQ(gate_refusal(gate, manifest(0.5, 1), ordered_json()), std::nullopt);
}

TEST(SnapshotGate, JudgesTheCalibrationByItself) {
  GateConfig gate;
  gate.calibration_min = 0.8;
  gate.calibration_max = 1.25;
  for (const double fine : {0.8, 1.0, 1.25}) {
    EXPECT_EQ(gate_refusal(gate, manifest(0.5, fine), {}), std::nullopt) << fine;
  }
  EXPECT_THAT(gate_refusal(gate, manifest(0.5, 0.79), {}).value_or(""), HasSubstr("below"));
  EXPECT_THAT(gate_refusal(gate, manifest(0.5, 1.26), {}).value_or(""), HasSubstr("above"));
}

TEST(SnapshotGate, DoesNotJudgeFewPositivesOrWhatIsUndefined) {
  GateConfig gate;
  gate.max_auc_drop = 0;
  gate.calibration_min = 1;
  EXPECT_EQ(gate_refusal(gate, manifest(0.1, 0.1, 99), manifest(0.9, 1)), std::nullopt);
  ordered_json undefined = manifest(0.1, 0.1);
  for (const char* task : {"ctr", "ctcvr"}) {
    undefined["window_metrics"][task]["auc"] = undefined["window_metrics"][task]["calibration"] =
        ordered_json();
  }
  EXPECT_EQ(gate_refusal(gate, undefined, manifest(0.9, 1)), std::nullopt);
}

// Else a quiet minute after a bad hour would put the bad hour's model into use.
TEST(SnapshotGate, WhatCannotBeJudgedIsDecidedAsTheOneBefore) {
  GateConfig gate;
  gate.calibration_max = 2;
  const ordered_json few = manifest(0.5, 1, 99);
  EXPECT_EQ(sluice::gate_refusal(gate, few, {}, false), std::nullopt);
  EXPECT_THAT(sluice::gate_refusal(gate, few, {}, true).value_or(""), HasSubstr("too few"));
  EXPECT_EQ(sluice::gate_refusal(gate, manifest(0.5, 1), {}, true), std::nullopt);
  EXPECT_EQ(sluice::gate_refusal({}, few, {}, true), std::nullopt);  // no gate, no candidates
}

// Else a first model's AUC of a few samples would be what all later ones are measured by.
TEST(SnapshotGate, ComparesWithAWindowOfEnoughPositivesOnly) {
  GateConfig gate;
  gate.max_auc_drop = 0.05;
  EXPECT_EQ(gate_refusal(gate, manifest(0.75, 1), manifest(1, 1, 99)), std::nullopt);
  EXPECT_NE(gate_refusal(gate, manifest(0.75, 1), manifest(1, 1, 100)), std::nullopt);
}

// A burst that spoils clicks alone shows in CTCVR too, but not the other way round.
TEST(SnapshotGate, LooksAtBothTasks) {
  GateConfig gate;
  gate.max_auc_drop = 0.05;
  ordered_json worse = manifest(0.8, 1);
  worse["window_metrics"]["ctcvr"]["auc"] = 0.7;
  EXPECT_THAT(gate_refusal(gate, worse, manifest(0.8, 1)).value_or(""), HasSubstr("ctcvr AUC"));
}

}  // namespace
}  // namespace sluice
