// The synthetic shop itself: who comes, what is shown, and how likely it is clicked and purchased.
//
// Logits of the rates, with c the item's category:
//   a = bias + user + taste(user, c) + item + context + position + trend(c, day)     pCTR = σ(a)
//   b = bias + user + taste(user, c) + item + context                                pCVR = σ(b)
// Taste is a product of latent vectors plus a bonus for the user's interests. Most of a's terms
// come back in b, so clicked impressions are those that would rather be purchased: pCVR over all
// impressions is far below pCVR over clicked ones (the selection bias of a model trained on
// clicks). The biases are set so that the average pCTR is 4 % and pCVR averages 1.5 % over clicks.
//
// Of an action (ShopOptions::has_actions), which is many times as likely as a purchase:
//   P(action | click) = σ(max(b, 0.6·b + 0.9))
//   P(purchase | click, no action) = σ(b − 1.6), above 0: some purchases come without one
//   P(purchase | click, action) is what is left of pCVR, which stays as it is.
//
// Everything is a pure function of the options; const methods may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "app/shop_options.h"
#include "app/shop_random.h"

namespace sluice {

inline constexpr std::size_t kCategories = 16;
inline constexpr double kMeanCtr = 0.04;
inline constexpr double kMeanCvr = 0.015;
inline constexpr double kDayMs = 86'400'000.0;

struct Logits {
  double ctr = 0;
  double cvr = 0;
};

struct Rates {
  double pctr = 0;
  double pcvr = 0;  // given a click
  // Of an action given a click, and of a purchase given a click with one and without.
  double paction = 0;
  double pcvr_acted = 0;
  double pcvr_unacted = 0;
};

struct ShopUser {
  struct Brand {
    std::uint32_t brand = 0;
    double weight = 0;  // in (0, 1)
  };

  std::string id;
  std::uint32_t partition = 0;
  Logits own;
  std::array<Logits, kCategories> taste;
  std::array<Brand, 2> brands;  // that the user comes back to; weight 0: none
  std::string json;             // the value of "features.user"
};

struct ShopItem {
  std::uint32_t category = 0;
  std::uint32_t brand = 0;
  Logits own;
  std::int64_t price = 0;  // hundredths
  std::string json;        // the value of "features.item"
};

struct ShopContext {
  Logits own;
  std::array<double, kCategories> trend;  // added to the CTR logit
  std::string json;                       // the value of "features.context"
};

class ShopModel {
 public:
  explicit ShopModel(const ShopOptions& options);

  std::uint64_t pick_user(Random& random) const;
  // Popularity is long-tailed, and moves on through the catalogue day by day.
  std::uint64_t pick_item(Random& random, TimeMs time) const;

  ShopUser user(std::uint64_t index) const;
  ShopContext context(Random& random, TimeMs time) const;
  const ShopItem& item(std::uint64_t index) const { return items_[index]; }

  Rates rates(const ShopUser& user, const ShopContext& context, const ShopItem& item,
              std::uint32_t position) const;

 private:
  class UserDrawing;
  static constexpr std::size_t kTasteDimensions = 4;
  static constexpr std::size_t kSegments = 8;
  static constexpr std::size_t kBrands = 40;
  using Taste = std::array<double, kTasteDimensions>;

  void draw_items();
  void calibrate();
  Logits logits(const ShopUser& user, const ShopContext& context, const ShopItem& item,
                std::uint32_t position) const;
  double trend(std::uint64_t category, double day) const;

  ShopOptions options_;
  Logits bias_;
  std::array<Logits, kCategories> categories_;
  std::array<double, kCategories> category_prices_{};  // median, in money
  std::array<Taste, kCategories> category_tastes_{};
  std::array<Logits, kSegments> segments_;
  std::array<Taste, kSegments> segment_tastes_{};
  std::array<Logits, kBrands> brands_;
  std::vector<ShopItem> items_;
};

}  // namespace sluice
