#include "app/kill_points.h"

#include <csignal>
#include <cstdlib>

#include <gtest/gtest.h>

namespace sluice {
namespace {

std::unique_ptr<KillPoints> kill_at(const char* target) {
  ::setenv("SLUICE_KILL_AT", target, 1);
  auto points = KillPoints::from_environment({"/data", {}, {}});
  ::unsetenv("SLUICE_KILL_AT");
  EXPECT_TRUE(points) << points.error().message;
  return points ? *std::move(points) : nullptr;
}

// As of two models that write at the same time.
void overlap(KillPoints& points) {
  const auto first = points.enter("checkpoint.rename");
  const auto second = points.enter("checkpoint.rename");
  points.leave("checkpoint.rename", *second);
  points.leave("checkpoint.rename", *first);
}

TEST(KillPointsDeathTest, EachPassingIsMetThoughOthersAreInTheSameStep) {
  for (const char* target : {"checkpoint.rename:before:1", "checkpoint.rename:after:1",
                             "checkpoint.rename:before:2", "checkpoint.rename:after:2"}) {
    const auto points = kill_at(target);
    EXPECT_EXIT(overlap(*points), ::testing::KilledBySignal(SIGKILL), "") << target;
  }
  overlap(*kill_at("checkpoint.rename:after:3"));
  overlap(*kill_at("store.commit:after:1"));
}

}  // namespace
}  // namespace sluice
