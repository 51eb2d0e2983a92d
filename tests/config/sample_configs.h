// Configs that several tests use.
#pragma once

#include <map>
#include <set>
#include <string>

namespace sluice {

// Which keys an optimizer has, written down a second time.
inline bool has_optimizer_key(const std::string& optimizer, const std::string& key) {
  static const std::map<std::string, std::set<std::string>> own = {
      {"adam", {"beta1", "beta2", "epsilon"}},
      {"adagrad", {"epsilon", "initial_accumulator"}},
      {"rowwise_adagrad", {"epsilon", "initial_accumulator"}},
      {"ftrl", {"ftrl_beta", "l1"}},
      {"sgd", {"momentum"}},
  };
  static const std::set<std::string> all = {"optimizer", "learning_rate", "l2", "warmup_steps",
                                            "clip_norm"};
  return all.contains(key) || own.at(optimizer).contains(key);
}

// The least that loads.
inline constexpr const char* kSmallToml = R"([source]
root = "logs"
[features]
country = { path = "features.user.country" }
)";

inline constexpr const char* kExpediaToml = R"(
[source]
type = "files"
root = "../data/expedia"

[streams]
max_out_of_orderness = "10 s"
impressions = { topic = "impressions" }
clicks      = { topic = "clicks" }
purchases   = { topic = "purchases" }

[join]
attribution       = "impression_id"
click_window      = "30 min"
conversion_window = "24 h"
tick              = "1 s"

[features]
site            = { path = "features.user.site",             type = "id" }
country         = { path = "features.user.country",          type = "id" }
hist_starrating = { path = "features.user.hist_starrating",  type = "number", buckets = "log:8" }
hist_adr_usd    = { path = "features.user.hist_adr_usd",     type = "number", buckets = "log:8" }
destination     = { path = "features.query.destination",     type = "id" }
length_of_stay  = { path = "features.query.length_of_stay",  type = "id" }
booking_window  = { path = "features.query.booking_window",  type = "id" }
adults          = { path = "features.query.adults",          type = "id" }
children        = { path = "features.query.children",        type = "id" }
rooms           = { path = "features.query.rooms",           type = "id" }
saturday_night  = { path = "features.query.saturday_night",  type = "id" }
affinity        = { path = "features.query.affinity",        type = "number", buckets = "log:8" }
distance        = { path = "features.query.distance",        type = "number", buckets = "log:8" }
random_order    = { path = "features.query.random_order",    type = "id" }
item_country    = { path = "features.item.country",          type = "id" }
stars           = { path = "features.item.stars",            type = "id" }
review          = { path = "features.item.review",           type = "number", buckets = "log:8" }
brand           = { path = "features.item.brand",            type = "id" }
location1       = { path = "features.item.location1",        type = "number", buckets = "log:8" }
location2       = { path = "features.item.location2",        type = "number", buckets = "log:8" }
log_hist_price  = { path = "features.item.log_hist_price",   type = "number", buckets = "log:8" }
price_usd       = { path = "features.item.price_usd",        type = "number", buckets = "log:8" }
promotion       = { path = "features.item.promotion",        type = "id" }
position        = { path = "features.position",              type = "id" }
cheaper_at      = { path = "features.cheaper_at",            type = "ids" }
dearer_at       = { path = "features.dearer_at",             type = "ids" }

[model]
recipe        = "esmm"
embedding_dim = 18
hidden        = [360, 200, 80]
seed          = 7

[training]
batch_size = 32
dense      = { optimizer = "adam", learning_rate = 1e-3 }
embeddings = { optimizer = "adam", learning_rate = 3e-3 }

[snapshots]
every = "30 d"
keep  = 4
)";

}  // namespace sluice
