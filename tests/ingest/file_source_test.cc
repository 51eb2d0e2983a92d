#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "ingest/source.h"
#include "tests/store/temporary_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr StreamPartition kClickLog{Stream::clicks, 0};

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string gzip(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string in = text;
  std::string out(deflateBound(&stream, in.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

// "" for plain, ".zst", ".gz".
std::string packed(const std::string& text, const std::string& ending) {
  if (ending == ".zst") return zstd(text);
  if (ending == ".gz") return gzip(text);
  return text;
}

Position at(std::uint64_t segment, std::uint64_t offset) {
  return segment << 40 | offset;
}

class FileSourceTest : public ::testing::Test {
 protected:
  FileSourceTest() {
    config_.source.root = folder_.path().string();
    for (const char* name : kStreamNames) fs::create_directories(folder_.path() / name);
    // Every stream needs its partition; the tests write the clicks.
    for (const char* name : {"impressions", "purchases"}) {
      write(std::string(name) + "/00000.jsonl", "");
    }
  }

  void write(const std::string& name, const std::string& bytes, bool appends = false) {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    std::ofstream out(path, std::ios::binary | (appends ? std::ios::app : std::ios::trunc));
    out << bytes;
    out.close();
    ASSERT_TRUE(out.good());
  }
  void append(const std::string& name, const std::string& bytes) { write(name, bytes, true); }

  std::unique_ptr<Source> open() {
    auto source = open_file_source(config_);
    EXPECT_TRUE(source.has_value());
    return *std::move(source);
  }
  std::unique_ptr<Source> open_at(Position position) {
    auto source = open();
    const Status status = source->seek(kClickLog, position);
    EXPECT_TRUE(status.has_value());
    return source;
  }
  static ReadResult read(Source& source, std::size_t max_records = 100) {
    auto result = source.read(kClickLog, max_records, 0);
    EXPECT_TRUE(result.has_value()) << result.error().message;
    return result ? *std::move(result) : ReadResult{};
  }
  // To the end; checks that the records follow each other without a gap.
  static std::vector<Record> read_all(Source& source, std::size_t max_records = 100) {
    std::vector<Record> records;
    while (true) {
      ReadResult result = read(source, max_records);
      EXPECT_LE(result.records.size(), max_records);
      EXPECT_TRUE(result.records.empty() || !result.at_end);
      for (Record& record : result.records) {
        if (!records.empty()) {
          EXPECT_LE(records.back().next, record.position);
        }
        EXPECT_LT(record.position, record.next);
        records.push_back(std::move(record));
      }
      if (result.at_end || result.records.empty()) return records;
    }
  }
  static std::vector<std::string> texts(const std::vector<Record>& records) {
    std::vector<std::string> texts;
    for (const Record& record : records) texts.push_back(record.bytes);
    return texts;
  }
  // The error that reading to the end comes to; empty where there is none.
  static std::string read_error(Source& source) {
    while (true) {
      const auto result = source.read(kClickLog, 100, 0);
      if (!result) return result.error().message;
      if (result->at_end) return {};
    }
  }
  using Texts = std::vector<std::string>;

  TemporaryFolder folder_;
  Config config_;
};

// ---- one file, in each of its forms

class FileForms : public FileSourceTest, public ::testing::WithParamInterface<std::string> {
 protected:
  const std::string ending_ = GetParam();
  const std::string name_ = "clicks/00000.jsonl" + ending_;
};
INSTANTIATE_TEST_SUITE_P(All, FileForms, ::testing::Values("", ".zst", ".gz"),
                         [](const auto& form) {
                           return form.param.empty() ? "plain" : form.param.substr(1);
                         });

TEST_P(FileForms, ReadsLinesWithTheirPositions) {
  write(name_, packed("one\n\nthree 3\nx\n", ending_));
  for (const std::size_t max_records : {1u, 2u, 100u}) {
    const auto source = open_at(0);
    EXPECT_EQ(source->partitions().value(), 1u);
    EXPECT_EQ(source->first_position(kClickLog).value(), 0u);
    const auto records = read_all(*source, max_records);
    EXPECT_EQ(texts(records), (Texts{"one", "", "three 3", "x"}));
    const std::vector<Position> positions = {0, 4, 5, 13};
    for (std::size_t index = 0; index < 4; ++index) {
      EXPECT_EQ(records[index].position, positions[index]);
      if (index > 0) {
        EXPECT_EQ(records[index - 1].next, positions[index]);
      }
      EXPECT_FALSE(records[index].log_time.has_value());
    }
    EXPECT_GE(records[3].next, 15u);
  }
}

TEST_P(FileForms, GoesOnAtEveryPosition) {
  std::string text;
  Texts lines;
  for (int line = 0; line < 40; ++line) {
    lines.push_back(std::string(static_cast<std::size_t>(line) % 7, 'a') + std::to_string(line));
    text += lines.back() + "\n";
  }
  write(name_, packed(text, ending_));
  const auto whole = read_all(*open_at(0));
  ASSERT_EQ(texts(whole), lines);
  for (std::size_t index = 0; index < whole.size(); ++index) {
    const auto source = open_at(whole[index].position);  // as after a restart
    const auto rest = read_all(*source);
    ASSERT_EQ(rest.size(), whole.size() - index);
    for (std::size_t later = 0; later < rest.size(); ++later) {
      EXPECT_EQ(rest[later].position, whole[index + later].position);
      EXPECT_EQ(rest[later].bytes, whole[index + later].bytes);
    }
    const auto again = source->record_at(kClickLog, whole[index].position);
    ASSERT_TRUE(again.has_value() && again->has_value());
    EXPECT_EQ((*again)->bytes, lines[index]);
    EXPECT_EQ((*again)->position, whole[index].position);
  }
  EXPECT_TRUE(read_all(*open_at(whole.back().next)).empty());
}

TEST_P(FileForms, TheEndIsWhereItSays) {
  write(name_, packed("one\ntwo\n", ending_));
  const auto source = open_at(0);
  const Position end = source->end_position(kClickLog).value();
  read_all(*source);
  EXPECT_EQ(read(*source).at_end, end);
  EXPECT_EQ(read(*source).at_end, end);
  const auto restarted = open_at(end);
  const ReadResult nothing = read(*restarted);
  EXPECT_TRUE(nothing.records.empty());
  EXPECT_EQ(nothing.at_end, end);
}

TEST_P(FileForms, AnEmptyFileIsAnEmptyLog) {
  for (const std::string& bytes : {std::string(), packed("", ending_)}) {
    write(name_, bytes);
    const auto source = open_at(0);
    const ReadResult nothing = read(*source);
    EXPECT_TRUE(nothing.records.empty());
    EXPECT_EQ(nothing.at_end, source->end_position(kClickLog).value());
  }
}

TEST_P(FileForms, OfALineThatIsTooLongOnlyTheBeginIsKept) {
  config_.streams.max_record_bytes = 10;
  const std::string exact(10, 'a');
  const std::string large(3'000'000, 'b');
  write(name_, packed(exact + "\n" + exact + "c\n" + large + "\nnext\n", ending_));
  const auto records = read_all(*open_at(0));
  EXPECT_EQ(texts(records), (Texts{exact, exact + "c", std::string(11, 'b'), "next"}));
  EXPECT_LT(records[2].bytes.capacity(), 1'000u);
  EXPECT_EQ(records[2].position, 23u);
  EXPECT_EQ(records[3].position, 3'000'024u);
  EXPECT_EQ(read_all(*open_at(3'000'024))[0].bytes, "next");
}

TEST_P(FileForms, LinesAcrossBufferEndsAreWhole) {
  // The reader's buffer is far smaller than the text.
  std::string text;
  Texts lines;
  for (int line = 0; line < 9'000; ++line) {
    lines.push_back(std::string(static_cast<std::size_t>(line * 37 % 101), 'x'));
    text += lines.back() + "\n";
  }
  lines.emplace_back(400'000, 'y');
  text += lines.back() + "\n";
  write(name_, packed(text, ending_));
  EXPECT_EQ(texts(read_all(*open_at(0), 1'000)), lines);
}

TEST_P(FileForms, ACarriageReturnIsLeftToTheParser) {
  write(name_, packed("{}\r\n\r\n", ending_));
  const auto records = read_all(*open_at(0));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].bytes, "{}\r");
  EXPECT_EQ(records[1].position, 4u);
}

TEST_P(FileForms, AShorterFileThanWhatWasReadIsAnError) {
  write(name_, packed("one\n", ending_));
  EXPECT_THAT(read_error(*open_at(100)), HasSubstr("is shorter than what was read"));
  const auto record = open()->record_at(kClickLog, 100);
  EXPECT_FALSE(record.has_value());
}

// ---- compressed files that are damaged

class CompressedForms : public FileForms {};
INSTANTIATE_TEST_SUITE_P(All, CompressedForms, ::testing::Values(".zst", ".gz"),
                         [](const auto& form) { return form.param.substr(1); });

TEST_P(CompressedForms, SeveralFramesAreOneText) {
  write(name_, packed("one\ntw", ending_) + packed("", ending_) + packed("o\n", ending_));
  EXPECT_EQ(texts(read_all(*open_at(0))), (Texts{"one", "two"}));
}

TEST_P(CompressedForms, CutAnywhereItIsAnErrorThatNamesTheFile) {
  std::string text;
  for (int line = 0; line < 300; ++line) text += std::to_string(line * line) + "\n";
  const std::string whole = packed(text, ending_);
  for (std::size_t size = 1; size < whole.size(); size += 1 + size / 16) {
    write(name_, whole.substr(0, size));
    const std::string error = read_error(*open_at(0));
    EXPECT_THAT(error, HasSubstr("00000.jsonl" + ending_)) << size << " of " << whole.size();
    EXPECT_THAT(error, HasSubstr("cut short")) << size;
  }
  write(name_, whole.substr(0, whole.size() - 1));
  EXPECT_THAT(read_error(*open_at(0)), HasSubstr("cut short"));
}

TEST_P(CompressedForms, SomethingElseIsAnErrorThatNamesTheFile) {
  for (const std::string& bytes : {std::string("{\"ts\":1700000000000}\n"), std::string(100, '\0'),
                                   packed("one\n", ending_) + "more"}) {
    write(name_, bytes);
    const std::string error = read_error(*open_at(0));
    EXPECT_THAT(error, HasSubstr("00000.jsonl" + ending_));
  }
}

TEST_P(CompressedForms, ALastLineWithoutAnEndIsARecord) {
  write(name_, packed("one\ntwo", ending_));
  const auto source = open_at(0);
  EXPECT_EQ(texts(read_all(*source)), (Texts{"one", "two"}));
  EXPECT_FALSE(source->unfinished(kClickLog)->has_value());
  const auto last = source->record_at(kClickLog, 4);
  ASSERT_TRUE(last.has_value() && last->has_value());
  EXPECT_EQ((*last)->bytes, "two");
}

// ---- files that grow

TEST_F(FileSourceTest, SeesWhatIsAddedToAPlainFile) {
  write("clicks/00000.jsonl", "one\n");
  const auto source = open_at(0);
  EXPECT_EQ(texts(read_all(*source)), Texts{"one"});
  append("clicks/00000.jsonl", "two\nthr");
  EXPECT_EQ(texts(read_all(*source)), Texts{"two"});
  EXPECT_EQ(read(*source).at_end, 8u);
  append("clicks/00000.jsonl", "ee\n");
  const auto rest = read_all(*source);
  ASSERT_EQ(texts(rest), Texts{"three"});
  EXPECT_EQ(rest[0].position, 8u);
  EXPECT_EQ(rest[0].next, 14u);
}

TEST_F(FileSourceTest, AnUnfinishedLastLineWaits) {
  write("clicks/00000.jsonl", "one\ntwo");
  const auto source = open_at(0);
  EXPECT_FALSE(source->unfinished(kClickLog)->has_value());  // nothing was read yet
  EXPECT_EQ(texts(read_all(*source)), Texts{"one"});
  EXPECT_EQ(read(*source).at_end, 4u);
  const auto last = source->unfinished(kClickLog);
  ASSERT_TRUE(last.has_value() && last->has_value());
  EXPECT_EQ((*last)->bytes, "two");
  EXPECT_EQ((*last)->position, 4u);
  EXPECT_EQ((*last)->next, 7u);
  EXPECT_FALSE(source->unfinished(kClickLog)->has_value());  // given once
  EXPECT_EQ(read(*source).at_end, 7u);
}

TEST_F(FileSourceTest, NothingIsUnfinishedAtALinesEnd) {
  write("clicks/00000.jsonl", "one\n");
  const auto source = open_at(0);
  read_all(*source);
  EXPECT_FALSE(source->unfinished(kClickLog)->has_value());
}

// ---- segments

TEST_F(FileSourceTest, SegmentsAreReadInNumericOrder) {
  write("clicks/00000/10.jsonl", "e\n");
  write("clicks/00000/2.jsonl.zst", zstd("b\nc\n"));
  write("clicks/00000/003.jsonl.gz", gzip("d\n"));
  write("clicks/00000/0.jsonl", "a\n");
  write("clicks/00000/notes.txt", "not a segment\n");
  write("clicks/00000/4.jsonl.tmp", "being written\n");
  const auto source = open_at(0);
  EXPECT_EQ(source->partitions().value(), 1u);
  const auto records = read_all(*source, 2);
  EXPECT_EQ(texts(records), (Texts{"a", "b", "c", "d", "e"}));
  const std::vector<Position> positions = {at(0, 0), at(2, 0), at(2, 2), at(3, 0), at(10, 0)};
  for (std::size_t index = 0; index < positions.size(); ++index) {
    EXPECT_EQ(records[index].position, positions[index]);
    const auto rest = read_all(*open_at(positions[index]));
    EXPECT_EQ(rest.size(), positions.size() - index);
    EXPECT_EQ(rest[0].bytes, records[index].bytes);
    EXPECT_EQ((*source->record_at(kClickLog, positions[index]))->bytes, records[index].bytes);
    // Going on after a record begins with the one that follows, also across segments.
    const auto after = read_all(*open_at(records[index].next));
    EXPECT_EQ(after.size(), positions.size() - index - 1);
  }
  EXPECT_EQ(source->end_position(kClickLog).value(), at(10, 2));
}

TEST_F(FileSourceTest, AnUnfinishedLineBeforeANextSegmentIsARecord) {
  write("clicks/00000/0.jsonl", "a\nb");
  write("clicks/00000/1.jsonl", "c\nd");
  const auto source = open_at(0);
  EXPECT_EQ(texts(read_all(*source)), (Texts{"a", "b", "c"}));
  EXPECT_EQ((*source->unfinished(kClickLog))->bytes, "d");
}

TEST_F(FileSourceTest, NewSegmentsAreSeenWhileReading) {
  for (const std::string ending : {"", ".zst", ".gz"}) {
    fs::remove_all(folder_.path() / "clicks/00000");
    fs::create_directories(folder_.path() / "clicks/00000");
    const auto source = open_at(0);
    EXPECT_EQ(source->first_position(kClickLog).value(), 0u);
    EXPECT_EQ(read(*source).at_end, 0u);  // a partition without segments is empty
    write("clicks/00000/5.jsonl" + ending, packed("a\n", ending));
    EXPECT_EQ(texts(read_all(*source)), Texts{"a"});
    const Position end = source->end_position(kClickLog).value();
    EXPECT_EQ(read(*source).at_end, end);
    const auto restarted = open_at(end);
    if (ending.empty()) append("clicks/00000/5.jsonl", "more\n");
    write("clicks/00000/6.jsonl" + ending, packed("b\n", ending));
    const Texts added = ending.empty() ? Texts{"more", "b"} : Texts{"b"};
    EXPECT_EQ(texts(read_all(*source)), added) << ending;
    EXPECT_EQ(texts(read_all(*restarted)), added) << ending;
  }
}

TEST_F(FileSourceTest, ARemovedSegmentThatWasNotReadIsALostRange) {
  write("clicks/00000/3.jsonl", "a\n");
  write("clicks/00000/4.jsonl", "b\n");
  const Status lost = open()->seek(kClickLog, at(2, 7));
  ASSERT_FALSE(lost.has_value());
  EXPECT_THAT(lost.error().message, HasSubstr("lost"));
  EXPECT_THAT(lost.error().message, HasSubstr("3.jsonl"));
  EXPECT_FALSE((*open()->record_at(kClickLog, at(2, 7))).has_value());
  EXPECT_EQ(texts(read_all(*open_at(0))), (Texts{"a", "b"}));  // a first start
  EXPECT_EQ(open()->first_position(kClickLog).value(), at(3, 0));
}

TEST_F(FileSourceTest, ASegmentThatIsGoneWhileItWasReadIsALostRange) {
  write("clicks/00000/3.jsonl", "a\n");
  write("clicks/00000/5.jsonl", "b\n");
  for (const Position begun : {at(4, 0), at(4, 7)}) {
    const Status lost = open()->seek(kClickLog, begun);
    ASSERT_FALSE(lost.has_value());
    EXPECT_THAT(lost.error().message, HasSubstr("lost"));
    EXPECT_THAT(lost.error().message, HasSubstr("segment 4"));
  }
  // Numbers may leave gaps: nothing tells that there was one before the first look.
  EXPECT_EQ(texts(read_all(*open_at(0))), (Texts{"a", "b"}));
}

TEST_F(FileSourceTest, OneReadOfLongRecordsGivesNoMoreThanAMebibyteAndOneRecord) {
  const std::string line(700'000, 'x');
  std::string log;
  for (int n = 0; n < 5; ++n) log += line + "\n";
  write("clicks/00000.jsonl", log);
  config_.streams.max_record_bytes = 800'000;
  const auto source = open_at(0);
  std::size_t read_records = 0;
  while (read_records < 5) {
    const ReadResult result = read(*source);
    EXPECT_LE(result.records.size(), 2u);
    ASSERT_FALSE(result.records.empty());
    read_records += result.records.size();
  }
  EXPECT_TRUE(read(*source).at_end.has_value());
}

TEST_F(FileSourceTest, TwoSegmentsOfOneNumberAreAnError) {
  write("clicks/00000/1.jsonl", "a\n");
  write("clicks/00000/01.jsonl.gz", gzip("a\n"));
  const Status status = open()->seek(kClickLog, 0);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().kind, ErrorKind::usage);
  EXPECT_THAT(status.error().message, HasSubstr("one number"));
}

// ---- partitions

TEST_F(FileSourceTest, PartitionsMustBeThere) {
  const auto partitions_error = [this] {
    const auto count = open()->partitions();
    return count ? std::string() : count.error().message;
  };
  EXPECT_THAT(partitions_error(), HasSubstr("clicks holds no partition"));
  write("clicks/00001.jsonl", "");
  EXPECT_THAT(partitions_error(), HasSubstr("has no partition 0 although it has 1"));
  write("clicks/00000.jsonl", "");
  EXPECT_THAT(partitions_error(), HasSubstr("all streams need the same number"));
  write("impressions/1.jsonl.zst", zstd(""));
  write("purchases/00001/0.jsonl", "");
  EXPECT_EQ(open()->partitions().value(), 2u);
  config_.streams.topic[3] = "actions";
  EXPECT_THAT(partitions_error(), HasSubstr("actions"));
  write("actions/0.jsonl", "");
  EXPECT_THAT(partitions_error(), HasSubstr("all streams need the same number"));
  write("actions/1.jsonl", "");
  EXPECT_EQ(open()->partitions().value(), 2u);
  write("clicks/0.jsonl.gz", gzip(""));
  EXPECT_THAT(partitions_error(), HasSubstr("one partition twice"));
  fs::remove_all(folder_.path() / "clicks");
  EXPECT_THAT(partitions_error(), HasSubstr("clicks"));
}

TEST_F(FileSourceTest, PartitionsAreReadIndependently) {
  write("clicks/00000.jsonl", "a\nb\n");
  write("clicks/00001.jsonl", "c\n");
  const auto source = open_at(0);
  const StreamPartition second{Stream::clicks, 1};
  ASSERT_TRUE(source->seek(second, 0).has_value());
  EXPECT_EQ(texts(read(*source, 1).records), Texts{"a"});
  EXPECT_EQ(texts(source->read(second, 10, 0)->records), Texts{"c"});
  EXPECT_EQ(texts(read(*source, 1).records), Texts{"b"});
  EXPECT_THAT(source->describe(second, at(0, 4711)), HasSubstr("4711"));
}

TEST_F(FileSourceTest, AFileThatCannotBeReadIsAnErrorThatNamesIt) {
  write("clicks/00000.jsonl", "a\n");
  const auto source = open_at(0);
  fs::remove(folder_.path() / "clicks/00000.jsonl");
  EXPECT_THAT(read_error(*source), HasSubstr("00000.jsonl"));
}

TEST_F(FileSourceTest, NothingIsDeclaredQuiet) {
  write("clicks/00000.jsonl", "");
  const auto source = open_at(0);
  read(*source);
  EXPECT_FALSE(source->confirmed_end(kClickLog).has_value());
}

}  // namespace
}  // namespace sluice
