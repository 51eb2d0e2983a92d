#include "app/record_repair.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

Repair repair_of(const std::vector<std::string>& renames, const std::string& scale,
                 DurationMs shift = 0) {
  Repair repair;
  for (const std::string& rename : renames) repair.renames.push_back(parse_rename(rename).value());
  if (!scale.empty()) {
    EXPECT_TRUE(parse_scale(scale, repair));
  }
  repair.shift = shift;
  if (shift != 0) repair.changes_time = true;
  return repair;
}

std::string repaired(const Repair& repair, const std::string& record) {
  const auto result = repair_record(repair, record);
  return result ? result->text : "error: " + result.error().message;
}

TEST(RecordRepairTest, TimesAreScaledExactly) {
  const Repair seconds = repair_of({}, "1000");
  EXPECT_EQ(repaired(seconds, R"({"ts":1351970209})"), R"({"ts":1351970209000})");
  EXPECT_EQ(repaired(seconds, R"({"ts":1351970209.884})"), R"({"ts":1351970209884})");
  EXPECT_EQ(repaired(seconds, R"({"ts":1351970209.8849})"), R"({"ts":1351970209884})");
  EXPECT_EQ(repaired(seconds, R"({"ts":-0.0001})"), R"({"ts":-1})") << "towards the past";
  EXPECT_EQ(repaired(seconds, R"({"ts":"1351970209"})"), R"({"ts":1351970209000})");
  const Repair micros = repair_of({}, "1/1000");
  EXPECT_EQ(repaired(micros, R"({"ts":1351970209884999})"), R"({"ts":1351970209884})");
  EXPECT_EQ(repaired(repair_of({}, "1"), R"({"ts":"7"})"), R"({"ts":7})");
}

TEST(RecordRepairTest, TimesAreShiftedAfterScaling) {
  EXPECT_EQ(repaired(repair_of({}, "1000", -500), R"({"ts":2})"), R"({"ts":1500})");
  EXPECT_EQ(repaired(repair_of({}, "", 3'600'000), R"({"ts":5})"), R"({"ts":3600005})");
}

TEST(RecordRepairTest, WhatIsNoTimeIsToldAndNotGuessed) {
  const Repair seconds = repair_of({}, "1000");
  for (const char* record :
       {R"({"ts":null})", R"({"ts":"soon"})", R"({"ts":1e9})", R"({"ts":[1]})", R"({"ts":""})",
        R"({"ts":true})", R"({"tz":1})", R"({"ts":99999999999999999999999})", "[1]", "7", "", "{",
        R"({"ts":1}{"ts":1})", "\xff", R"({"ts":922337203685477580.7})"}) {
    EXPECT_FALSE(repair_record(seconds, record)) << record;
  }
}

TEST(RecordRepairTest, FieldsGetOtherNamesInTheirObject) {
  EXPECT_EQ(repaired(repair_of({"time=ts"}, ""), R"( { "a":"time", "time" : 1 , "b":2} )"),
            R"( { "a":"time", "ts" : 1 , "b":2} )");
  EXPECT_EQ(repaired(repair_of({"user.name=id"}, ""), R"({"name":1,"user":{"x":[{}],"name":2}})"),
            R"({"name":1,"user":{"x":[{}],"id":2}})");
  // Absent, or the name is taken: nothing.
  EXPECT_EQ(repaired(repair_of({"time=ts"}, ""), R"({"a":1})"), R"({"a":1})");
  EXPECT_EQ(repaired(repair_of({"time=ts"}, ""), R"({"time":1,"ts":2})"), R"({"time":1,"ts":2})");
  EXPECT_EQ(repaired(repair_of({"a.b=c"}, ""), R"({"a":[{"b":1}]})"), R"({"a":[{"b":1}]})");
  EXPECT_EQ(
      repaired(repair_of({"time=ts", "id=impression_id"}, "1000"), R"({"id":"7","time":2.5})"),
      R"({"impression_id":"7","ts":2500})");
}

TEST(RecordRepairTest, AllElseStaysByteForByte) {
  const std::string record =
      R"({"x":1.10,"big":123456789012345678901234567890,"s":"a\"}{,\u00e9\\","deep":{"ts":9,"l":[1, {"ts":8}]},"ts":5,"ts":6})";
  std::string expected = record;
  expected.replace(expected.find(R"("ts":5)"), 6, R"("ts":5000)");
  EXPECT_EQ(repaired(repair_of({}, "1000"), record), expected) << "the first one counts";
  EXPECT_EQ(repaired(repair_of({"\u00e9=e"}, ""), R"({"\u00e9":1})"), R"({"e":1})")
      << "a key may be written with escapes";
  Repair inside = repair_of({}, "2");
  inside.time_field = "deep.ts";
  expected = record;
  expected.replace(expected.find(R"("ts":9)"), 6, R"("ts":18)");
  EXPECT_EQ(repaired(inside, record), expected);
}

TEST(RecordRepairTest, OptionsThatCannotBeAreUsageErrors) {
  Repair repair;
  for (const char* text : {"", "0", "-1", "1.5", "1/0", "/", "1000000000000", "x"}) {
    const Status parsed = parse_scale(text, repair);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind, ErrorKind::usage);
  }
  for (const char* text : {"", "a", "=b", "a=", "a=b.c"}) EXPECT_FALSE(parse_rename(text)) << text;
}

}  // namespace
}  // namespace sluice
