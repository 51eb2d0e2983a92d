// Repairs of a record's text that need no guess: the time in another unit or shifted, a field under
// another name. All else of the text stays byte for byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace sluice {

struct Repair {
  struct Rename {
    std::string from;  // a path: "a.b" is b inside a
    std::string to;    // its new name in the same object
  };
  std::vector<Rename> renames;    // in this order; before the time
  std::string time_field = "ts";  // a path, as it is after the renames
  // The time becomes ⌊time · numerator / denominator⌋ + shift.
  std::uint64_t numerator = 1;
  std::uint64_t denominator = 1;
  DurationMs shift = 0;
  bool changes_time = false;
};

struct RepairedRecord {
  std::string text;
  std::vector<std::string> edits;  // what was done, for people; empty: nothing
};

// "from=to".
Result<Repair::Rename> parse_rename(const std::string& text);
// "1000" or "1/1000".
Status parse_scale(const std::string& text, Repair& repair);

// A rename whose field is absent, or whose new name is there, does nothing. Where the record is no
// JSON object, or its time is to be changed and is no decimal number: an error that says so, which
// concerns this record only.
Result<RepairedRecord> repair_record(const Repair& repair, std::string_view record);

}  // namespace sluice
