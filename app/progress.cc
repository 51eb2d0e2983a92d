#include "app/progress.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <spdlog/spdlog.h>
#include <unistd.h>

namespace sluice {
namespace {

constexpr DurationMs kLineMs = 10'000;  // between log lines
constexpr DurationMs kRedrawMs = 200;

std::string short_count(double value) {
  std::array<char, 32> text{};
  if (value >= 1e6) {
    std::snprintf(text.data(), text.size(), "%.1f M", value / 1e6);
  } else if (value >= 1e3) {
    std::snprintf(text.data(), text.size(), "%.1f k", value / 1e3);
  } else {
    std::snprintf(text.data(), text.size(), "%.0f", value);
  }
  return text.data();
}

// In days where it is days, else to the second.
std::string behind(DurationMs lag) {
  constexpr DurationMs kDay = 86'400'000;
  const DurationMs unit = lag >= 2 * kDay ? kDay : 1000;
  return format_duration(std::max<DurationMs>(0, lag) / unit * unit);
}

// A short one to the millisecond.
std::string fresh(DurationMs freshness) {
  constexpr DurationMs kShort = 10'000;
  return freshness < kShort ? format_duration(freshness) : behind(freshness);
}

std::string short_time(double seconds) {
  const auto whole = static_cast<long>(seconds);
  std::array<char, 32> text{};
  if (whole >= 3600) {
    std::snprintf(text.data(), text.size(), "%ld:%02ld h", whole / 3600, whole / 60 % 60);
  } else {
    std::snprintf(text.data(), text.size(), "%ld:%02ld min", whole / 60, whole % 60);
  }
  return text.data();
}

}  // namespace

std::uint64_t events_of(const JoinCounters& counters) {
  std::uint64_t sum = 0;
  for (std::size_t stream = 0; stream < kStreams; ++stream) {
    sum += counters.read(static_cast<Stream>(stream));
  }
  return sum;
}

std::string status_line(const ServiceStatus& status) {
  const JoinStatus& join = status.join;
  std::string text;
  if (join.lag_records) text += "lag " + std::to_string(*join.lag_records) + " records, ";
  if (join.watermark > kTimeMin && join.watermark < kTimeMax) {
    text += "event time " + format_time(join.watermark) + " (" +
            behind(status.wall_ms - join.watermark) + " behind, held by " +
            to_string(join.slowest) + ")";
  } else {
    text += join.watermark >= kTimeMax
                ? std::string("event time is over")
                : "no event time yet, waiting for " + to_string(join.slowest);
  }
  if (join.quiet_partitions > 0) {
    text += ", " + std::to_string(join.quiet_partitions) + " partitions quiet";
  }
  text += "; " + std::to_string(events_of(join.counters)) + " events, " +
          std::to_string(join.open_impressions) + " impressions open, " +
          std::to_string(join.samples) + " samples, " + std::to_string(status.trained) + " learned";
  for (std::size_t index = 0; index < kRefusals; ++index) {
    const auto reason = static_cast<Refusal>(index);
    const std::uint64_t count = join.counters.refused_for(reason);
    if (count > 0) text += ", " + std::to_string(count) + " " + to_string(reason);
  }
  if (join.unsent_dead_letters > 0) {
    text += ", " + std::to_string(join.unsent_dead_letters) + " dead letters not yet sent";
  }
  if (join.last_commit_wall_ms > 0) {
    text += "; last commit " + format_time(join.last_commit_wall_ms);
  }
  if (status.freshness) {
    text +=
        "; freshness " + fresh(status.freshness->median) + ", p99 " + fresh(status.freshness->p99);
  }
  if (status.last_snapshot) text += ", snapshot " + std::to_string(*status.last_snapshot);
  return text;
}

Progress::Progress(bool is_live, DurationMs now_ms, Freshness* freshness)
    : is_live_(is_live),
      freshness_(freshness),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      begin_ms_(now_ms),
      last_ms_(now_ms) {}

void Progress::show(const ServiceStatus& status, DurationMs now_ms) {
  if (!has_begun_) {
    begin_events_ = events_of(status.join.counters);
    has_begun_ = true;
  }
  const bool is_bar = is_terminal_ && !is_live_;
  if (now_ms - last_ms_ < (is_bar ? kRedrawMs : kLineMs)) return;
  last_ms_ = now_ms;
  if (!is_bar) {
    ServiceStatus shown = status;
    if (freshness_ != nullptr) shown.freshness = freshness_->take_recent();
    spdlog::info(status_line(shown));
    return;
  }
  std::fprintf(stderr, "\r%s\x1b[K", bar(status, now_ms).c_str());
  has_drawn_ = true;
}

std::string Progress::bar(const ServiceStatus& status, DurationMs now_ms) {
  const double seconds = static_cast<double>(now_ms - begin_ms_) / 1e3;
  const double rate = static_cast<double>(events_of(status.join.counters) - begin_events_) /
                      std::max(seconds, 1e-3);
  // The learner may be behind the join: both have to come to the end.
  const double learned = status.join.samples == 0 ? 1.0
                                                  : static_cast<double>(status.trained) /
                                                        static_cast<double>(status.join.samples);
  std::string text;
  if (status.join.fraction_read) {
    const double fraction =
        std::clamp(*status.join.fraction_read * std::min(1.0, learned), 0.0, 1.0);
    constexpr int kWidth = 24;
    const int filled = static_cast<int>(fraction * kWidth);
    text = "[" + std::string(static_cast<std::size_t>(filled), '=') +
           std::string(static_cast<std::size_t>(kWidth - filled), ' ') + "] " +
           std::to_string(static_cast<int>(fraction * 100)) + " %";
    if (fraction > 0.01) text += ", " + short_time(seconds * (1 - fraction) / fraction) + " left";
    text += ", ";
  }
  return text + short_count(rate) + " events/s, " +
         short_count(static_cast<double>(status.join.samples)) + " samples, " +
         short_count(static_cast<double>(status.trained)) + " learned";
}

void Progress::end() {
  if (has_drawn_) std::fprintf(stderr, "\r\x1b[K");
}

}  // namespace sluice
