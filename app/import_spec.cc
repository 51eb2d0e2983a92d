#include "app/import_spec.h"

namespace sluice {
namespace {

using Kind = ColumnSpec::Kind;

std::string numbered(const char* prefix, int number) {
  return prefix + std::to_string(number);
}

void add_ids(TableSpec& spec, std::initializer_list<const char*> columns) {
  for (const char* column : columns) spec.features.push_back({column, Kind::id, ""});
}

}  // namespace

// The numbers lie in [0, 1], so that logarithmic buckets have to be fine.
TableSpec aliexpress_spec() {
  TableSpec spec;
  spec.name = "aliexpress";
  spec.roles.click = "click";
  spec.roles.conversion = "conversion";
  spec.roles.user = "search_id";
  for (int n = 1; n <= 16; ++n) {
    spec.features.push_back({numbered("categorical_", n), Kind::id, ""});
  }
  for (int n = 1; n <= 63; ++n) {
    spec.features.push_back({numbered("numerical_", n), Kind::number, "\"log:32\""});
  }
  return spec;
}

// Not among the features: what is known only after the label is (attribution, conversion_id,
// click_pos, click_nb).
TableSpec criteo_attribution_spec() {
  TableSpec spec;
  spec.name = "criteo_attribution";
  spec.dialect = {'\t', false};
  spec.header = TableSpec::Header::optional;
  spec.columns = {"timestamp",
                  "uid",
                  "campaign",
                  "conversion",
                  "conversion_timestamp",
                  "conversion_id",
                  "attribution",
                  "click",
                  "click_pos",
                  "click_nb",
                  "cost",
                  "cpo",
                  "time_since_last_click"};
  for (int n = 1; n <= 9; ++n) spec.columns.push_back(numbered("cat", n));
  spec.roles.click = "click";
  spec.roles.conversion = "conversion";
  spec.roles.time = "timestamp";
  spec.roles.conversion_time = "conversion_timestamp";
  spec.roles.unit = TimeUnit::seconds_from_start;
  spec.roles.user = "uid";
  spec.roles.item = "campaign";
  spec.roles.missing = "-1";
  add_ids(spec, {"campaign"});
  for (int n = 1; n <= 9; ++n) add_ids(spec, {numbered("cat", n).c_str()});
  const std::string cents = "[1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]";
  const std::string shares = "[0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]";
  spec.features.push_back({"cost", Kind::number, cents});
  spec.features.push_back({"cpo", Kind::number, shares});
  spec.features.push_back({"time_since_last_click", Kind::number, "\"log:2\""});
  return spec;
}

// Rows are clicks. Not among the features: the amount and the delay, which are known after the
// sale.
TableSpec criteo_search_spec() {
  TableSpec spec;
  spec.name = "criteo_search";
  spec.dialect = {'\t', false};
  spec.header = TableSpec::Header::optional;
  spec.columns = {"Sale",
                  "SalesAmountInEuro",
                  "time_delay_for_conversion",
                  "click_timestamp",
                  "nb_clicks_1week",
                  "product_price",
                  "product_age_group",
                  "device_type",
                  "audience_id",
                  "product_gender",
                  "product_brand"};
  for (int n = 1; n <= 7; ++n) spec.columns.push_back(numbered("product_category_", n));
  for (const char* name :
       {"product_country", "product_id", "product_title", "partner_id", "user_id"}) {
    spec.columns.push_back(name);
  }
  spec.roles.conversion = "Sale";
  spec.roles.time = "click_timestamp";
  spec.roles.unit = TimeUnit::seconds;
  spec.roles.user = "user_id";
  spec.roles.item = "product_id";
  spec.roles.missing = "-1";
  spec.roles.list_separator = ' ';
  spec.conversion_delay = "time_delay_for_conversion";
  spec.is_clicked_at_once = true;
  add_ids(spec, {"product_age_group", "device_type", "audience_id", "product_gender",
                 "product_brand", "product_country", "product_id", "partner_id", "user_id"});
  for (int n = 1; n <= 7; ++n) add_ids(spec, {numbered("product_category_", n).c_str()});
  spec.features.push_back({"product_title", Kind::list, ""});
  spec.features.push_back({"nb_clicks_1week", Kind::number, "\"log:4\""});
  spec.features.push_back({"product_price", Kind::number, "\"log:4\""});
  return spec;
}

TableSpec csv_spec(const CsvColumns& columns) {
  TableSpec spec;
  spec.name = "csv";
  spec.dialect = {columns.delimiter, true};
  spec.header = columns.has_header ? TableSpec::Header::required : TableSpec::Header::absent;
  spec.roles = columns;
  return spec;
}

}  // namespace sluice
