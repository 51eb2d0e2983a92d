#include "app/shop.h"

namespace sluice {
namespace {

constexpr const char* kHead =
    R"(# The synthetic shop beside this file, replayed:  sluice replay shop.toml

[source]
type = "files"
root = "."          # relative to this file

)";

constexpr const char* kLearner = R"(
[features]
user      = { path = "user_id",                     type = "id" }
segment   = { path = "features.user.segment",       type = "id" }
country   = { path = "features.user.country",       type = "id" }
age       = { path = "features.user.age",           type = "number", buckets = [25, 35, 45, 55, 65] }
interests = { path = "features.user.interests",     type = "ids", table = "category" }
brands    = { path = "features.user.brands",        type = "weighted_ids", table = "brand" }
device    = { path = "features.context.device",     type = "id" }
surface   = { path = "features.context.surface",    type = "id" }
hour      = { path = "features.context.hour",       type = "id" }
item      = { path = "item_id",                     type = "id" }
category  = { path = "features.item.category",      type = "id", table = "category" }
brand     = { path = "features.item.brand",         type = "id", table = "brand" }
price     = { path = "features.item.price",         type = "number", buckets = "log:4" }
quality   = { path = "features.item.quality",       type = "number" }
position  = { path = "features.position",           type = "id" }

[model]
recipe        = "esmm"
embedding_dim = 18
hidden        = [64, 32]
seed          = 1

[training]
batch_size = 256
dense      = { optimizer = "adam", learning_rate = 3e-3 }
embeddings = { optimizer = "adam", learning_rate = 3e-3 }

[snapshots]
every = "6 h"       # of event time
keep  = 4
)";

}  // namespace

std::string shop_config(const ShopOptions& options) {
  std::string text = kHead;
  text += "[streams]\nmax_out_of_orderness = \"" + format_duration(options.max_out_of_orderness);
  text += "\"\n";
  if (options.has_actions) text += "actions = { topic = \"actions\" }\n";
  text += "\n[join]\nattribution       = \"impression_id\"\nclick_window      = \"" +
          format_duration(options.click_window);
  text += "\"\nconversion_window = \"" + format_duration(options.conversion_window) + "\"\n";
  if (options.has_actions) {
    text += "action_window     = \"" + format_duration(options.action_window) + "\"\n";
  }
  if (options.has_values) {
    text += "purchase_label    = \"at_close\"\npurchase_value    = \"sum\"    # of all purchases\n";
  }
  return text + kLearner;
}

}  // namespace sluice
