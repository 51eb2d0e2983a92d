#include "app/shop_model.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>

#include "app/shop_text.h"

namespace sluice {
namespace {

// Purposes of random sequences. Pages have theirs in shop_events.cc.
enum ModelPurpose : std::uint64_t { kTables = 1, kItems, kUsers, kTrends, kCalibration };

constexpr std::array<std::string_view, kCategories> kCategoryNames = {
    "audio",  "bags",  "bikes", "books",  "camping", "cameras", "games", "garden",
    "health", "lamps", "pets",  "phones", "shoes",   "sports",  "tools", "toys"};

struct Trait {
  std::string_view name;
  Logits own;
};
constexpr std::array<Trait, 4> kDevices = {{{"phone", {0.2, -0.7}},
                                            {"app", {0.4, 0.4}},
                                            {"desktop", {-0.2, 0.9}},
                                            {"tablet", {-0.3, 0.0}}}};
constexpr std::array<Trait, 3> kSurfaces = {
    {{"search", {0.4, 0.7}}, {"home", {-0.3, -0.2}}, {"mail", {0.0, -0.6}}}};
constexpr std::array<Trait, 8> kCountries = {{{"DE", {0.0, 0.1}},
                                              {"FR", {0.1, 0.0}},
                                              {"IT", {0.2, -0.1}},
                                              {"ES", {0.1, -0.2}},
                                              {"NL", {-0.1, 0.2}},
                                              {"PL", {-0.2, -0.1}},
                                              {"SE", {-0.1, 0.1}},
                                              {"PT", {0.0, -0.2}}}};

double sigmoid(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

Logits operator+(Logits a, Logits b) {
  return {a.ctr + b.ctr, a.cvr + b.cvr};
}

// A CTR effect and a CVR effect of the same standard deviation that share most of it.
Logits correlated(Random& random, double deviation) {
  const double ctr = random.normal();
  return {deviation * ctr, deviation * (0.7 * ctr + 0.7 * random.normal())};
}

// Index in [0, count), low ones more often: density ~ index^(1/power - 1).
std::uint64_t long_tailed(Random& random, std::uint64_t count, int power) {
  double u = 1.0;
  const double draw = random.uniform();
  for (int i = 0; i < power; ++i) u *= draw;
  return static_cast<std::uint64_t>(u * static_cast<double>(count));
}

// The bias at which mean(weight · σ(bias + logit)) / mean(weight) is `target`.
double solve_bias(const std::vector<double>& logits, const std::vector<double>& weights,
                  double target) {
  double total = 0;
  for (const double weight : weights) total += weight;
  double low = -20.0;
  double high = 20.0;
  for (int step = 0; step < 40; ++step) {
    const double middle = 0.5 * (low + high);
    double sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) sum += weights[i] * sigmoid(middle + logits[i]);
    (sum < target * total ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

// Of an age of 18 to 80; most clicks and purchases around 40.
Logits age_effect(int age) {
  const double distance = (age - 40) / 20.0;
  return {0.15 - 0.15 * distance * distance, 0.2 - 0.2 * distance * distance};
}

}  // namespace

ShopModel::ShopModel(const ShopOptions& options) : options_(options) {
  Random random(options.seed, kTables, 0);
  for (std::size_t c = 0; c < kCategories; ++c) {
    categories_[c] = correlated(random, 0.5);
    category_prices_[c] = random.lognormal(40.0, 0.7);
    for (double& value : category_tastes_[c]) value = random.normal();
  }
  for (std::size_t s = 0; s < kSegments; ++s) {
    segments_[s] = correlated(random, 0.3);
    for (double& value : segment_tastes_[s]) value = random.normal();
  }
  for (Logits& brand : brands_) brand = correlated(random, 0.3);
  draw_items();
  calibrate();
}

void ShopModel::draw_items() {
  items_.resize(options_.items);
  for (std::uint64_t index = 0; index < options_.items; ++index) {
    Random random(options_.seed, kItems, index);
    ShopItem& item = items_[index];
    item.category = static_cast<std::uint32_t>(long_tailed(random, kCategories, 2));
    item.brand = static_cast<std::uint32_t>(long_tailed(random, kBrands, 2));
    const double price_deviation = random.normal();
    const auto cents = static_cast<std::uint64_t>(100.0 * category_prices_[item.category] *
                                                  std::exp(0.6 * price_deviation));
    const auto quality_hundredths =
        static_cast<std::int64_t>(std::round(100.0 * std::clamp(random.normal(), -3.0, 3.0)));
    const double quality = static_cast<double>(quality_hundredths) / 100.0;
    item.own =
        categories_[item.category] + brands_[item.brand] + correlated(random, 0.15) +
        Logits{0.5 * quality - 0.35 * price_deviation, 0.5 * quality - 0.35 * price_deviation};

    std::string& json = item.json;
    json = "{\"category\":\"";
    json += kCategoryNames[item.category];
    json += "\",\"brand\":";
    append_number(json, item.brand);
    json += ",\"price\":";
    item.price = static_cast<std::int64_t>(cents);
    append_hundredths(json, item.price);
    // Some sellers send no quality, some an explicit null.
    const double form = random.uniform();
    if (form < 0.95) {
      json += ",\"quality\":";
      if (form < 0.9) {
        append_hundredths(json, quality_hundredths);
      } else {
        json += "null";
      }
    }
    json += '}';
  }
}

void ShopModel::calibrate() {
  constexpr std::size_t kPages = 2'000;
  constexpr std::size_t kOfPage = 10;
  std::vector<double> ctr;
  std::vector<double> cvr;
  Random random(options_.seed, kCalibration, 0);
  for (std::size_t i = 0; i < kPages; ++i) {
    const TimeMs time = options_.start + static_cast<DurationMs>(
                                             random.uniform() * static_cast<double>(options_.span));
    const ShopUser who = user(pick_user(random));
    const ShopContext where = context(random, time);
    for (std::size_t k = 0; k < kOfPage; ++k) {
      const auto position = static_cast<std::uint32_t>(random.below(options_.page));
      const Logits of = logits(who, where, items_[pick_item(random, time)], position);
      ctr.push_back(of.ctr);
      cvr.push_back(of.cvr);
    }
  }
  bias_.ctr = solve_bias(ctr, std::vector<double>(ctr.size(), 1.0), kMeanCtr);
  std::vector<double> clicks;
  for (const double logit : ctr) clicks.push_back(sigmoid(bias_.ctr + logit));
  bias_.cvr = solve_bias(cvr, clicks, kMeanCvr);
}

std::uint64_t ShopModel::pick_user(Random& random) const {
  return long_tailed(random, options_.users, 2);
}

std::uint64_t ShopModel::pick_item(Random& random, TimeMs time) const {
  const double day = static_cast<double>(time - options_.start) / kDayMs;
  const auto moved = static_cast<std::uint64_t>(0.02 * day * static_cast<double>(options_.items));
  return (long_tailed(random, options_.items, 3) + moved) % options_.items;
}

// One user being drawn: what the user is, and what of it is written into the features.
class ShopModel::UserDrawing {
 public:
  UserDrawing(const ShopModel& model, std::uint64_t index)
      : model_(model), random_(model.options_.seed, kUsers, index) {
    user_.id = "u";
    append_number(user_.id, index);
    const auto* id_bytes = reinterpret_cast<const Bytef*>(user_.id.data());
    user_.partition = static_cast<std::uint32_t>(
        crc32(0, id_bytes, static_cast<uInt>(user_.id.size())) % model.options_.partitions);
  }

  ShopUser draw() {
    user_.json = "{\"segment\":";
    const std::uint64_t segment = random_.below(kSegments);
    append_number(user_.json, segment);
    const Trait& country = kCountries[long_tailed(random_, kCountries.size(), 2)];
    user_.json += ",\"country\":\"";
    user_.json += country.name;
    user_.json += '"';
    user_.own = model_.segments_[segment] + country.own + correlated(random_, 0.15);
    draw_age();
    draw_taste(segment);
    draw_brands();
    user_.json += '}';
    return std::move(user_);
  }

 private:
  // Not all users tell it, and some clients write that as null.
  void draw_age() {
    const int age = 18 + static_cast<int>(random_.below(62));
    user_.own = user_.own + age_effect(age);
    const double form = random_.uniform();
    if (form >= 0.9) return;
    user_.json += ",\"age\":";
    if (form < 0.8) {
      append_number(user_.json, age);
    } else {
      user_.json += "null";
    }
  }

  // Known of it are up to four categories, mostly those that are liked best.
  void draw_taste(std::uint64_t segment) {
    Taste taste;
    for (std::size_t d = 0; d < kTasteDimensions; ++d) {
      taste[d] = 0.8 * model_.segment_tastes_[segment][d] + 0.6 * random_.normal();
    }
    std::array<double, kCategories> liking;
    std::array<std::uint32_t, kCategories> order;
    for (std::uint32_t c = 0; c < kCategories; ++c) {
      double product = 0;
      for (std::size_t d = 0; d < kTasteDimensions; ++d) {
        product += taste[d] * model_.category_tastes_[c][d];
      }
      user_.taste[c] = {0.25 * product, 0.25 * product};
      liking[c] = product + random_.normal();
      order[c] = c;
    }
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return liking[a] > liking[b]; });
    const std::uint64_t known = random_.below(5);
    for (std::uint64_t i = 0; i < known; ++i) {
      user_.taste[order[i]] = user_.taste[order[i]] + Logits{0.7, 0.7};
      user_.json += i == 0 ? ",\"interests\":[\"" : ",\"";
      user_.json += kCategoryNames[order[i]];
      user_.json += '"';
    }
    if (known > 0) user_.json += ']';
  }

  void draw_brands() {
    const std::uint64_t known = random_.below(user_.brands.size() + 1);
    for (std::uint64_t i = 0; i < known; ++i) {
      ShopUser::Brand& liked = user_.brands[i];
      liked.brand = static_cast<std::uint32_t>(long_tailed(random_, kBrands, 2));
      if (i > 0 && liked.brand == user_.brands[0].brand) liked.brand = (liked.brand + 1) % kBrands;
      const auto hundredths = static_cast<std::int64_t>(20 + random_.below(80));
      liked.weight = static_cast<double>(hundredths) / 100.0;
      user_.json += i == 0 ? ",\"brands\":{\"" : ",\"";
      append_number(user_.json, liked.brand);
      user_.json += "\":";
      append_hundredths(user_.json, hundredths);
    }
    if (known > 0) user_.json += '}';
  }

  const ShopModel& model_;
  Random random_;
  ShopUser user_;
};

ShopUser ShopModel::user(std::uint64_t index) const {
  return UserDrawing(*this, index).draw();
}

double ShopModel::trend(std::uint64_t category, double day) const {
  // A value for each whole day, a straight line between two of them.
  const double whole = std::floor(day);
  const auto at = [&](double of_day) {
    const auto index = static_cast<std::uint64_t>(of_day) * kCategories + category;
    return 0.4 * Random(options_.seed, kTrends, index).normal();
  };
  return at(whole) + (day - whole) * (at(whole + 1) - at(whole));
}

ShopContext ShopModel::context(Random& random, TimeMs time) const {
  ShopContext context;
  const Trait& device = kDevices[long_tailed(random, kDevices.size(), 2)];
  const Trait& surface = kSurfaces[random.below(kSurfaces.size())];
  const std::uint64_t hour = static_cast<std::uint64_t>(floor_to(time, 3'600'000) / 3'600'000 % 24);
  const double evening = std::cos(2.0 * std::numbers::pi * (static_cast<double>(hour) - 20) / 24);
  context.own = device.own + surface.own + Logits{0.15 * evening, 0.2 * evening};
  const double day = static_cast<double>(time - options_.start) / kDayMs;
  for (std::size_t c = 0; c < kCategories; ++c) context.trend[c] = trend(c, day);
  context.json = "{\"device\":\"";
  context.json += device.name;
  context.json += "\",\"surface\":\"";
  context.json += surface.name;
  context.json += "\",\"hour\":";
  append_number(context.json, hour);
  context.json += '}';
  return context;
}

Logits ShopModel::logits(const ShopUser& user, const ShopContext& context, const ShopItem& item,
                         std::uint32_t position) const {
  Logits sum = bias_ + user.own + user.taste[item.category] + context.own + item.own;
  for (const ShopUser::Brand& liked : user.brands) {
    if (liked.brand == item.brand) sum = sum + Logits{liked.weight, liked.weight};
  }
  sum.ctr += context.trend[item.category] - 0.55 * std::log1p(position);
  return sum;
}

Rates ShopModel::rates(const ShopUser& user, const ShopContext& context, const ShopItem& item,
                       std::uint32_t position) const {
  const Logits of = logits(user, context, item, position);
  Rates rates;
  rates.pctr = sigmoid(of.ctr);
  rates.pcvr = sigmoid(of.cvr);
  // The action is not less likely than the purchase, and the purchase not more without it: so what
  // is left for purchases with an action is a rate.
  rates.paction = sigmoid(std::max(of.cvr, 0.6 * of.cvr + 0.9));
  rates.pcvr_unacted = sigmoid(of.cvr - 1.6);
  rates.pcvr_acted = (rates.pcvr - (1.0 - rates.paction) * rates.pcvr_unacted) / rates.paction;
  return rates;
}

}  // namespace sluice
