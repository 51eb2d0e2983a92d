#include "app/compare_page.h"

#include "base/check.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// Inside a script element no "<" may stand that could end it.
std::string script_json(const Json& json) {
  std::string text;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

std::string comparison_page(const Json& comparison) {
  std::string page;
  std::string_view rest = kComparePageHtml;
  const auto put = [&](std::string_view mark, std::string_view text) {
    const auto place = rest.find(mark);
    SLUICE_CHECK(place != std::string_view::npos);
    page += rest.substr(0, place);
    page += text;
    rest.remove_prefix(place + mark.size());
  };
  put("@COMPARISON@", script_json(comparison));
  put("@CHART_JS@", kChartJs);
  page += rest;
  return page;
}

}  // namespace sluice
