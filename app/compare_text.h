// A comparison for people: tables for a terminal, and the same as CSV.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace sluice {

// `comparison`: of make_comparison(). Several tables: for each rate every model's metrics, then
// their differences to the baseline's with intervals.
std::string comparison_tables(const nlohmann::ordered_json& comparison);

// One line a model (or mean over its seeds) and metric:
// model,seeds,metric,value,low,high,difference,difference_low,difference_high. Undefined: empty.
std::string comparison_csv(const nlohmann::ordered_json& comparison);

}  // namespace sluice
