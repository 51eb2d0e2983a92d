// Event logs to measure the join by, with the labels that they must give.
//
//   joiner_logs --out DIR [--impressions N] [--span SECONDS] [--seed N] [--partitions N]
//               [--click-windows SECONDS...] [--skewed]
//
// Impressions of 20 features are spread evenly over the span. 4 % are clicked (after 40 s in the
// median), one click in a hundred comes twice, 0.1 % of the impressions are clicked after more than
// half an hour; 2 % of the clicked ones are bought, some after more than a day. Each record reaches
// its log up to 10 s after its event time. With --skewed one user has 30 % of all impressions, and
// the last partition has nothing. The same arguments give the same bytes.
//
// Prints one JSON line: {"impressions", "clicks", "purchases", "bytes",
// "labels": [{"click_window_s", "y", "z"}]}; conversion windows are 24 h.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/hash.h"
#include "base/time.h"

namespace sluice::bench {
namespace {

constexpr TimeMs kBegin = 1'760'000'000'000;
constexpr DurationMs kDay = 86'400'000;
constexpr DurationMs kHour = 3'600'000;
constexpr double kDisorderMs = 9'990;
constexpr std::uint64_t kUsers = 200'000;
constexpr std::uint64_t kItems = 50'000;
constexpr std::array<std::uint64_t, 20> kValues = {
    2, 3, 5, 8, 10, 12, 20, 24, 31, 50, 64, 90, 100, 200, 365, 500, 900, 1000, 5000, 9999};

struct Arguments {
  std::string out;
  std::uint64_t impressions = 2'000'000;
  std::uint64_t span_s = 7'200;
  std::uint64_t seed = 1;
  std::uint32_t partitions = 4;
  std::vector<std::uint64_t> click_windows_s = {720, 10'800};
  bool is_skewed = false;
};

// Counter-based: what is drawn for an impression depends on nothing but its number.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t number) : state_(mix64(mix64(seed) + number)) {}
  std::uint64_t bits() { return mix64(state_++); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  std::uint64_t below(std::uint64_t bound) {
    return static_cast<std::uint64_t>(uniform() * static_cast<double>(bound));
  }
  // Small numbers more often: the density falls with the root.
  std::uint64_t skewed(std::uint64_t bound, int power) {
    return static_cast<std::uint64_t>(std::pow(uniform(), power) * static_cast<double>(bound));
  }
  // exp of a normal value: `median` in ms, `spread` of its logarithm.
  DurationMs delay(double median, double spread) {
    const double normal =
        std::sqrt(-2 * std::log(1 - uniform())) * std::cos(2 * 3.141592653589793 * uniform());
    return static_cast<DurationMs>(median * std::exp(spread * normal)) + 1;
  }

 private:
  std::uint64_t state_;
};

struct Journey {
  TimeMs time = 0;
  std::uint64_t user = 0;
  std::uint64_t item = 0;
  std::vector<TimeMs> clicks;  // ascending
  std::optional<TimeMs> purchase;
};

class Generator {
 public:
  explicit Generator(const Arguments& arguments) : arguments_(arguments) {}

  Journey journey(std::uint64_t number) const {
    Random random(arguments_.seed, 4 * number);
    Journey journey;
    const std::uint64_t span_ms = arguments_.span_s * 1000;
    journey.time = kBegin + static_cast<TimeMs>((static_cast<double>(number) + random.uniform()) *
                                                static_cast<double>(span_ms) /
                                                static_cast<double>(arguments_.impressions));
    journey.user = random.skewed(kUsers, 2);
    if (arguments_.is_skewed && mix64(number) % 10 < 3) journey.user = kUsers;
    journey.item = random.skewed(kItems, 3);
    const double fate = random.uniform();
    if (fate < 0.04) {
      const DurationMs delay = std::min<DurationMs>(random.delay(40'000, 1.5), 1'700'000);
      journey.clicks.push_back(journey.time + delay);
      if (random.uniform() < 0.01) {
        journey.clicks.push_back(journey.clicks[0] + 1 + static_cast<TimeMs>(random.below(60'000)));
      }
      const double purchase = random.uniform();
      if (purchase < 0.02) {
        const DurationMs after = std::min<DurationMs>(random.delay(200'000, 2.5), kDay - 60'000);
        journey.purchase = journey.clicks[0] + after;
      } else if (purchase < 0.0205) {
        journey.purchase = journey.clicks[0] + kDay + static_cast<TimeMs>(random.below(kHour));
      }
    } else if (fate < 0.041) {
      journey.clicks.push_back(journey.time + kHour / 2 +
                               static_cast<TimeMs>(random.below(kHour / 2)));
    }
    return journey;
  }

  std::string impression(std::uint64_t number) const {
    const Journey journey = this->journey(number);
    Random random(arguments_.seed, 4 * number + 1);
    std::string line =
        "{\"ts\":" + std::to_string(journey.time) + people(number, journey) + ",\"features\":{";
    for (std::size_t feature = 0; feature < kValues.size(); ++feature) {
      line += (feature == 0 ? "\"c" : ",\"c") + std::to_string(feature) +
              "\":" + std::to_string(random.skewed(kValues[feature], 2));
    }
    return line + "}}\n";
  }

  std::string follow_up(char kind, std::uint64_t number, std::size_t index, TimeMs time) const {
    return "{\"event_id\":\"" + std::string(1, kind) + std::to_string(2 * number + index) +
           "\",\"ts\":" + std::to_string(time) + people(number, journey(number)) + "}\n";
  }

  std::uint32_t partition(const Journey& journey) const {
    const std::uint32_t used =
        arguments_.is_skewed ? std::max(1U, arguments_.partitions - 1) : arguments_.partitions;
    return static_cast<std::uint32_t>(mix64(journey.user) % used);
  }

 private:
  std::string people(std::uint64_t number, const Journey& journey) const {
    std::array<char, 32> id{};
    std::snprintf(id.data(), id.size(), "%016llx",
                  static_cast<unsigned long long>(mix64(arguments_.seed ^ mix64(number))));
    return ",\"impression_id\":\"" + std::string(id.data()) + "\",\"user_id\":\"u" +
           std::to_string(journey.user) + "\",\"item_id\":\"i" + std::to_string(journey.item) +
           "\"";
  }

  const Arguments& arguments_;
};

// One record, before it is written: where it goes and when it gets there.
struct Arrival {
  double at = 0;
  TimeMs time = 0;
  std::uint64_t number = 0;
  std::uint32_t partition = 0;
  std::uint32_t index = 0;  // of several clicks
};

class LogWriter {
 public:
  LogWriter(const Arguments& arguments, const Generator& generator)
      : arguments_(arguments), generator_(generator) {}

  std::uint64_t bytes() const { return bytes_; }

  bool write(const char* stream, std::vector<Arrival> arrivals) {
    const std::filesystem::path folder = std::filesystem::path(arguments_.out) / stream;
    std::filesystem::create_directories(folder);
    using File = std::unique_ptr<std::FILE, decltype(&std::fclose)>;
    std::vector<File> files;
    for (std::uint32_t number = 0; number < arguments_.partitions; ++number) {
      std::string name = std::to_string(number);
      name = std::string(5 - name.size(), '0') + name + ".jsonl";
      files.emplace_back(std::fopen((folder / name).c_str(), "wb"), &std::fclose);
      if (files.back() == nullptr) return false;
    }
    std::sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) {
      return a.at != b.at ? a.at < b.at : a.number < b.number;
    });
    for (const Arrival& arrival : arrivals) {
      const std::string line = stream[0] == 'i' ? generator_.impression(arrival.number)
                                                : generator_.follow_up(stream[0], arrival.number,
                                                                       arrival.index, arrival.time);
      bytes_ += line.size();
      if (std::fwrite(line.data(), 1, line.size(), files[arrival.partition].get()) != line.size()) {
        return false;
      }
    }
    return true;
  }

 private:
  const Arguments& arguments_;
  const Generator& generator_;
  std::uint64_t bytes_ = 0;
};

struct Labels {
  std::uint64_t y = 0;
  std::uint64_t z = 0;
};

void count_labels(const Journey& journey, DurationMs click_window, Labels& labels) {
  if (journey.clicks.empty() || journey.clicks[0] >= journey.time + click_window) return;
  ++labels.y;
  if (journey.purchase && *journey.purchase < journey.clicks[0] + kDay) ++labels.z;
}

int run(const Arguments& arguments) {
  const Generator generator(arguments);
  std::vector<Arrival> impressions, clicks, purchases;
  std::vector<Labels> labels(arguments.click_windows_s.size());
  for (std::uint64_t number = 0; number < arguments.impressions; ++number) {
    const Journey journey = generator.journey(number);
    Random random(arguments.seed, 4 * number + 2);
    const auto arrival = [&](TimeMs time, std::uint32_t index) {
      return Arrival{static_cast<double>(time) + random.uniform() * kDisorderMs, time, number,
                     generator.partition(journey), index};
    };
    impressions.push_back(arrival(journey.time, 0));
    for (std::uint32_t index = 0; index < journey.clicks.size(); ++index) {
      clicks.push_back(arrival(journey.clicks[index], index));
    }
    if (journey.purchase) purchases.push_back(arrival(*journey.purchase, 0));
    for (std::size_t index = 0; index < labels.size(); ++index) {
      count_labels(journey, static_cast<DurationMs>(arguments.click_windows_s[index]) * 1000,
                   labels[index]);
    }
  }
  const std::size_t counts[] = {impressions.size(), clicks.size(), purchases.size()};
  LogWriter writer(arguments, generator);
  if (!writer.write("impressions", std::move(impressions)) ||
      !writer.write("clicks", std::move(clicks)) ||
      !writer.write("purchases", std::move(purchases))) {
    std::fprintf(stderr, "cannot write the logs to %s\n", arguments.out.c_str());
    return EXIT_FAILURE;
  }
  std::printf(
      "{\"impressions\": %zu, \"clicks\": %zu, \"purchases\": %zu, \"bytes\": %llu, "
      "\"labels\": [",
      counts[0], counts[1], counts[2], static_cast<unsigned long long>(writer.bytes()));
  for (std::size_t index = 0; index < labels.size(); ++index) {
    std::printf("%s{\"click_window_s\": %llu, \"y\": %llu, \"z\": %llu}", index == 0 ? "" : ", ",
                static_cast<unsigned long long>(arguments.click_windows_s[index]),
                static_cast<unsigned long long>(labels[index].y),
                static_cast<unsigned long long>(labels[index].z));
  }
  std::printf("]}\n");
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) {
  sluice::bench::Arguments arguments;
  CLI::App app("event logs to measure the join by");
  app.add_option("--out", arguments.out)->required();
  app.add_option("--impressions", arguments.impressions)->check(CLI::PositiveNumber);
  app.add_option("--span", arguments.span_s, "seconds of event time")->check(CLI::PositiveNumber);
  app.add_option("--seed", arguments.seed);
  app.add_option("--partitions", arguments.partitions)->check(CLI::Range(1, 1000));
  app.add_option("--click-windows", arguments.click_windows_s, "labels are counted for each");
  app.add_flag("--skewed", arguments.is_skewed, "one user with 30 %, a partition with nothing");
  CLI11_PARSE(app, argc, argv);
  return sluice::bench::run(arguments);
}
