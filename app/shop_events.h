// One page of the shop and all that follows from it: impressions, clicks, actions and purchases as
// records with their lines, when each arrives, and the true rates.
//
// A page is a pure function of the options and its number. Pages come in the order of their times,
// and nothing of a page happens or arrives before page_time(): a log can be written up to the time
// of the page that is drawn next.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/shop_model.h"
#include "app/shop_options.h"
#include "base/micros.h"
#include "base/time.h"
#include "config/config.h"

namespace sluice {

// A record as it will lie in the log of its stream and partition.
struct ShopRecord {
  Stream stream = Stream::impressions;
  std::uint32_t partition = 0;
  TimeMs time = 0;                    // event time
  TimeMs arrival = 0;                 // the log is in the order of arrivals
  std::uint64_t subject = 0;          // number of the impression that the record names
  std::uint32_t subject_records = 0;  // of the page that name it, this one included
  bool is_malformed = false;
  Micros value = 0;  // of a purchase (ShopOptions::has_values)
  std::string line;  // one JSON object (or what damage has left of it) and the line's end
};

struct ShopImpression {
  std::string id;
  Rates rates;
  bool clicked = false;    // inside the click window
  bool purchased = false;  // inside the conversion window of such a click
  bool acted = false;      // inside the action window of such a click (ShopOptions::has_actions)
};

struct ShopPage {
  std::uint32_t partition = 0;
  std::vector<ShopImpression> impressions;
  std::vector<ShopRecord> records;
};

class ShopEvents {
 public:
  // Both outlive the object.
  ShopEvents(const ShopOptions& options, const ShopModel& model)
      : options_(options), model_(model) {}

  std::uint64_t pages() const { return (options_.impressions + options_.page - 1) / options_.page; }
  TimeMs page_time(std::uint64_t page) const;
  // Overwrites `out`, whose memory is used again.
  void draw(std::uint64_t page, ShopPage& out) const;

 private:
  class Drawing;

  const ShopOptions& options_;
  const ShopModel& model_;
};

}  // namespace sluice
