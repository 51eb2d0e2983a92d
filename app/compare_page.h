// A comparison as one page of HTML that needs no network: tables, curves over time, the configs'
// differences. Curves are drawn by Chart.js (MIT licence), which is part of the page.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace sluice {

// `comparison`: of make_comparison(). It is in the page too, as the element with id "comparison".
std::string comparison_page(const nlohmann::ordered_json& comparison);

// Files that the build puts into the program (CMakeLists.txt, "sluice_embed").
extern const std::string_view kComparePageHtml;  // app/compare_page.html
extern const std::string_view kChartJs;          // Chart.js, minified

}  // namespace sluice
