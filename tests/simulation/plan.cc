#include "tests/simulation/plan.h"

#include <sstream>

namespace sluice::simulation {
namespace {

// A kind that is off in some seeds.
std::uint64_t rate(Random& random, std::initializer_list<std::int64_t> values) {
  return random.one_in(3) ? 0 : static_cast<std::uint64_t>(random.pick(values));
}

Shape draw_shape(Random& random, Mode mode) {
  Shape shape;
  const auto pick = [&](std::initializer_list<std::int64_t> values) {
    return static_cast<std::uint64_t>(random.pick(values));
  };
  shape.partitions = static_cast<std::uint32_t>(random.between(1, 4));
  shape.impressions = pick({60, 200, 400, 700, 1'000, 1'800});
  shape.span = random.pick({20'000, 120'000, 600'000, 3'600'000});
  shape.users = pick({3, 20, 200});
  shape.items = pick({3, 20, 100});
  shape.clicks = pick({50, 200, 500});
  shape.purchases = pick({100, 400, 800});
  shape.repeats = pick({0, 50, 200});
  shape.duplicates = pick({0, 30, 100});
  shape.orphans = pick({0, 30, 100});
  shape.malformed = pick({0, 20, 100});
  shape.nonsense_times = pick({0, 0, 10});
  shape.wrong_partitions = pick({0, 0, 20});
  shape.odd_features = pick({0, 50});
  shape.too_disordered = pick({0, 20, 100});
  shape.ahead = pick({0, 0, 20});
  shape.silent = pick({0, 0, 150, 400});
  shape.has_bursts = random.one_in(3);
  shape.is_like_files = random.one_in(3);
  shape.has_gaps = !shape.is_like_files && random.one_in(2);
  // A line without an end keeps its partition from being quiet.
  shape.has_unfinished = shape.is_like_files && random.one_in(mode == Mode::live ? 6 : 2);
  shape.has_log_times = random.one_in(3);
  shape.has_broker_times =
      shape.has_log_times && !shape.is_like_files && mode == Mode::live && random.one_in(2);
  shape.has_number_ids = random.one_in(3);
  return shape;
}

std::vector<FeatureConfig> draw_features(Random& random) {
  using Type = FeatureConfig::Type;
  std::vector<FeatureConfig> features;
  features.push_back({"item", "features.item", Type::id, "item", 0, {}});
  FeatureConfig price{"price", "features.price", Type::number, "price", 0, {}};
  if (random.one_in(3)) price.log_buckets = 3;
  if (random.one_in(3)) price.edges = {0, 5, 20};
  if (price.log_buckets != 0) price.edges.clear();
  features.push_back(price);
  if (random.one_in(2)) {
    features.push_back(
        {"tags", "features.tags", Type::ids, random.one_in(2) ? "item" : "tags", 0, {}});
  }
  return features;
}

Config draw_config(Random& random, const Shape& shape) {
  Config config;
  const DurationMs span = shape.span;
  config.source.type = shape.is_like_files ? SourceConfig::Type::files : SourceConfig::Type::kafka;
  config.source.root = config.source.brokers = "simulated";
  config.source.max_delay = random.pick({0, span / 200, span / 50, span / 10}) + 1;
  for (std::size_t stream = 0; stream < kStreamsWithoutActions; ++stream) {
    config.streams.max_out_of_orderness[stream] =
        random.pick({0, span / 500, span / 100, span / 20});
  }
  config.streams.max_ahead = random.pick({0, span / 50, 3'600'000});
  config.streams.max_record_bytes = 600;
  if (shape.has_log_times && !shape.has_broker_times) config.streams.log_time = "written";
  config.join.attribution = random.one_in(2) ? JoinConfig::Attribution::user_item
                                             : JoinConfig::Attribution::impression_id;
  config.join.purchase_label = random.one_in(2) ? JoinConfig::PurchaseLabel::at_close
                                                : JoinConfig::PurchaseLabel::at_purchase;
  config.join.click_window = random.pick({1, span / 300, span / 40, span / 10, span / 3}) + 1;
  config.join.conversion_window = random.pick({1, span / 100, span / 20, span / 3, span * 2}) + 1;
  config.join.tick = random.pick({1, span / 5'000 + 1, span / 300, span / 40, 1'000});
  config.join.clock_skew = random.pick({0, 0, 1, span / 1'000, span / 100});
  config.features = draw_features(random);
  config.model.embedding_dim = static_cast<std::uint64_t>(random.pick({1, 4}));
  config.model.hidden =
      random.one_in(2) ? std::vector<std::uint64_t>{8, 4} : std::vector<std::uint64_t>{6};
  config.model.seed = random.next() >> 1;
  config.training.batch_size = static_cast<std::uint64_t>(random.pick({1, 7, 32, 64, 200}));
  if (config.training.batch_size == 1) config.training.batch_size += 4;
  if (random.one_in(2)) {
    config.training.batch_span = random.pick({span / 100, span / 20, span / 5}) + 1;
  }
  draw_lane(random, config);
  config.snapshots.every = random.pick({span / 20, span / 6, span / 2, span * 3}) + 1;
  config.checkpoints.keep = 2;
  config.training.threads = 1;
  return config;
}

Rates draw_rates(Random& random, std::uint64_t turns) {
  Rates rates;
  const auto steps = static_cast<std::int64_t>(turns);
  rates.process_crash = rate(random, {steps / 20 + 2, steps / 4 + 2, steps});
  rates.machine_crash = rate(random, {steps / 20 + 2, steps / 4 + 2, steps});
  rates.stop = rate(random, {steps / 10 + 2, steps});
  rates.file_error = rate(random, {1, 2, 4});
  rates.commit_error = rate(random, {1, 2, 4});
  rates.damaged_checkpoint = rate(random, {3, 10});
  rates.start_error = rate(random, {5, 20});
  rates.config_change = rate(random, {1, 2});
  rates.retention = rate(random, {1, 3});
  rates.learner_inside_commit = rate(random, {2, 10});
  rates.join_inside_write = rate(random, {5, 50});
  rates.read_error = rate(random, {10, 100});
  rates.disconnect = rate(random, {100, 400});
  rates.short_read = rate(random, {2, 10});
  rates.empty_read = rate(random, {3, 20});
  rates.wall_step = rate(random, {50, 200});
  rates.stall = rate(random, {50, 200});
  return rates;
}

// A sequence of its own, as the other draws were there before it.
void draw_actions(Random& random, Plan& plan) {
  if (!random.one_in(2)) return;
  const DurationMs span = plan.shape.span;
  StreamsConfig& streams = plan.config.streams;
  constexpr auto kActions = static_cast<std::size_t>(Stream::actions);
  streams.topic[kActions] = "actions";
  streams.max_out_of_orderness[kActions] =
      plan.may_be_late_quiet ? random.pick({span / 10, span / 4})
                             : random.pick({0, span / 500, span / 100, span / 20});
  plan.shape.actions = static_cast<std::uint64_t>(random.pick({200, 500, 800}));
  JoinConfig& join = plan.config.join;
  join.action_window =
      random.pick({1, span / 300, span / 100, span / 20, span / 3, join.conversion_window}) + 1;
  if (random.one_in(2)) join.action_label = JoinConfig::ActionLabel::at_close;
}

// How products are computed: nothing else of a run depends on it.
void draw_products(Random& random, Config& config) {
  if (random.one_in(3)) config.model.precision = ModelConfig::Precision::bf16;
  if (!random.one_in(2)) return;
  for (FeatureConfig& feature : config.features) {
    if (feature.name == "item" || random.one_in(2)) feature.group = "context";
  }
}

}  // namespace

const char* to_string(Mode mode) {
  constexpr std::array<const char*, 4> kNames = {"replay", "staged", "growing", "live"};
  return kNames.at(static_cast<std::size_t>(mode));
}

void draw_operational(Random& random, Config& config) {
  config.source.read_records = static_cast<std::uint64_t>(random.pick({1, 5, 30, 200, 1'000}));
  config.source.max_queued_bytes =
      static_cast<std::uint64_t>(random.pick({1'000, 20'000, 200'000, 64 << 20}));
  config.source.idle_after = random.pick({30, 200, 2'000, 20'000});
  if (random.one_in(8)) config.source.idle_after.reset();
  config.store.commit_interval = random.pick({1, 200, 5'000, 60'000});
  config.store.commit_records = static_cast<std::uint64_t>(random.pick({1, 20, 150, 1'000}));
  config.store.max_learner_lag = static_cast<std::uint64_t>(random.pick({1, 50, 400, 100'000}));
  config.checkpoints.every = static_cast<std::uint64_t>(random.pick({1, 40, 150, 100'000}));
  config.checkpoints.interval = random.pick({500, 20'000, 600'000});
  config.checkpoints.keep = static_cast<std::uint64_t>(random.between(2, 4));
  config.snapshots.keep = static_cast<std::uint64_t>(random.between(1, 4));
}

void draw_lane(Random& random, Config& config) {
  config.training.lane = static_cast<std::uint64_t>(random.pick({1, 40, 90, 4'096}));
}

Plan draw_plan(std::uint64_t seed) {
  Plan plan;
  plan.seed = seed;
  Random random(seed, 1);
  plan.mode = static_cast<Mode>(random.pick({0, 1, 2, 3, 3, 3}));
  plan.shape = draw_shape(random, plan.mode);
  plan.config = draw_config(random, plan.shape);
  draw_operational(random, plan.config);
  plan.turns = static_cast<std::uint64_t>(random.pick({150, 400, 800}));
  plan.rates = draw_rates(random, plan.turns);
  plan.lives = static_cast<std::uint64_t>(random.between(2, 12));
  plan.has_predictions = !random.one_in(5);
  if (plan.mode == Mode::live && random.one_in(4)) {
    plan.may_be_late_quiet = true;
    plan.shape.too_delayed = static_cast<std::uint64_t>(random.pick({20, 100, 300}));
    plan.rates.may_step_forward = random.one_in(2);
    // What comes too late for its quiet partition must not be late by its own log.
    const DurationMs span = plan.shape.span;
    plan.config.source.max_delay = random.pick({1, span / 500, span / 100}) + 1;
    plan.config.streams.max_out_of_orderness = {random.pick({span / 500, span / 100}),
                                                random.pick({span / 10, span / 4}),
                                                random.pick({span / 10, span / 4}), 0};
    plan.config.source.idle_after = random.pick({30, 200, span / 200 + 30});
  }
  if (plan.mode != Mode::live) plan.rates.may_step_forward = true;
  Random questions(seed, 7);
  plan.rates.question_error = rate(questions, {2, 6});
  Random products(seed, 8);
  draw_products(products, plan.config);
  Random clicks(seed, 9);
  if (clicks.one_in(2)) plan.config.join.attributed_click = JoinConfig::AttributedClick::last;
  Random values(seed, 10);
  if (values.one_in(3)) {
    plan.config.join.purchase_label = JoinConfig::PurchaseLabel::at_close;
    plan.config.join.purchase_value = JoinConfig::PurchaseValue::sum;
  }
  Random actions(seed, 12);
  draw_actions(actions, plan);
  Random snapshots(seed, 13);
  plan.config.snapshots.full_every = static_cast<std::uint64_t>(snapshots.pick({1, 1, 2, 3, 7}));
  plan.writes_beside = !snapshots.one_in(4);
  plan.rows_at_once = static_cast<std::uint64_t>(snapshots.pick({1, 1, 20, 32'768}));
  return plan;
}

std::string describe(const Plan& plan) {
  const Shape& shape = plan.shape;
  const Config& config = plan.config;
  const Rates& rates = plan.rates;
  std::ostringstream out;
  out << "seed " << plan.seed << ": " << to_string(plan.mode) << " of " << shape.impressions
      << " impressions over " << shape.span << " ms in " << shape.partitions << " partitions"
      << (shape.is_like_files ? ", like files" : "") << (shape.has_gaps ? ", with gaps" : "")
      << (shape.has_unfinished ? ", unfinished lines" : "")
      << (shape.has_log_times ? ", log times" : "") << (shape.has_bursts ? ", bursts" : "")
      << (plan.may_be_late_quiet ? ", may be late after quiet" : "") << "\n  users " << shape.users
      << " items " << shape.items << "; of 1,000: clicks " << shape.clicks << " purchases "
      << shape.purchases << " actions " << shape.actions << " repeats " << shape.repeats
      << " duplicates " << shape.duplicates << " orphans " << shape.orphans << " malformed "
      << shape.malformed << " too disordered " << shape.too_disordered << " ahead " << shape.ahead
      << " too delayed " << shape.too_delayed << " silent " << shape.silent << "\n";
  for (const KeyGroup group : {KeyGroup::join, KeyGroup::learner, KeyGroup::operational}) {
    out << " ";
    for (const auto& [key, value] : semantic_keys(config, group)) {
      out << " " << key << "=" << value;
    }
    out << "\n";
  }
  out << "  about " << plan.turns << " turns, " << plan.lives << " lives; one in: process crash "
      << rates.process_crash << ", machine crash " << rates.machine_crash << ", stop " << rates.stop
      << ", file error " << rates.file_error << ", commit error " << rates.commit_error
      << ", read error " << rates.read_error << ", disconnect " << rates.disconnect
      << ", question error " << rates.question_error << ", wall step " << rates.wall_step
      << ", stall " << rates.stall << "\n";
  return out.str();
}

}  // namespace sluice::simulation
