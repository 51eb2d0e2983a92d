#include "store/tensors.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace sluice {
namespace {

using ::testing::HasSubstr;

// 8 bytes length, the header as it stands, the data.
std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

Tensors small_tensors() {
  return {{"a", Tensor::of<float>({2}, {1.5F, -2.0F})},
          {"b", Tensor::of<std::uint8_t>({3}, {1, 2, 3})},
          {"c", Tensor::of<std::int64_t>({1}, {-7})}};
}

TEST(Tensors, BytesAreThoseOfTheFormat) {
  const std::string header = R"({"c":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
                             R"("b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})";
  std::string padded = header;
  while (padded.size() % 8 != 0) padded += ' ';
  const std::string data("\xf9\xff\xff\xff\xff\xff\xff\xff\0\0\xc0\x3f\0\0\0\xc0\1\2\3", 19);
  EXPECT_EQ(encode_tensors(small_tensors()), file_of(padded, data));
}

TEST(Tensors, EveryTypeComesBackWithItsBits) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensors tensors = {
      {"f32", Tensor::of<float>({2, 2}, {0.0F, -0.0F, nan, 1e-45F})},
      {"f64", Tensor::of<double>({1, 3}, {1e308, -1e-308, 0.1})},
      {"i64", Tensor::of<std::int64_t>({2}, {std::numeric_limits<std::int64_t>::min(), 5})},
      {"u64", Tensor::of<std::uint64_t>({1}, {std::numeric_limits<std::uint64_t>::max()})},
      {"u8", Tensor::of<std::uint8_t>({5}, {0, 1, 2, 3, 255})},
      {"scalar", Tensor::of<double>({}, {3.0})},
      {"empty", Tensor::of<float>({0, 18}, {})},
      {"größe", Tensor::of<std::uint8_t>({1}, {9})}};
  const auto decoded = decode_tensors(encode_tensors(tensors));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, tensors);
  EXPECT_EQ(*decoded->at("u64").values<std::uint64_t>(),
            std::vector{std::numeric_limits<std::uint64_t>::max()});
  EXPECT_EQ(decoded->at("scalar").elements(), 1u);
  EXPECT_TRUE(decoded->at("empty").values<float>()->empty());
  const auto wrong = decoded->at("u64").values<double>();
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr("U64, not F64"));
}

TEST(Tensors, NoTensorsAtAll) {
  const auto decoded = decode_tensors(encode_tensors({}));
  ASSERT_TRUE(decoded);
  EXPECT_TRUE(decoded->empty());
}

TEST(Tensors, ArraysLieAlignedToTheirElements) {
  const std::string bytes = encode_tensors(small_tensors());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  EXPECT_EQ((8 + header_bytes) % 8, 0u);
}

TEST(Tensors, FilesOfOtherProgramsWithMetadataAndAnotherOrder) {
  const auto decoded = decode_tensors(file_of(
      R"({"__metadata__":{"format":"np"},"b":{"data_offsets":[1,3],"dtype":"U8","shape":[2]},)"
      R"("a":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}}    )",
      "xyz"));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->at("a").bytes, "x");
  EXPECT_EQ(decoded->at("b").bytes, "yz");
}

RC_GTEST_PROP(Tensors, DecodedEqualsEncoded, ()) {
  Tensors tensors;
  const int count = *rc::gen::inRange(0, 6);
  for (int i = 0; i < count; ++i) {
    const auto rows = *rc::gen::inRange<std::uint64_t>(0, 5);
    const auto columns = *rc::gen::inRange<std::uint64_t>(0, 5);
    const std::string name = *rc::gen::string<std::string>();
    const auto floats =
        *rc::gen::container<std::vector<float>>(rows * columns, rc::gen::arbitrary<float>());
    const auto bytes = *rc::gen::container<std::vector<std::uint8_t>>(
        rows * columns, rc::gen::arbitrary<std::uint8_t>());
    // Names that are no UTF-8 cannot be written; generated texts are cut to ASCII.
    std::string ascii;
    for (const char c : name) ascii += static_cast<char>(c & 0x7f);
    tensors[ascii] = *rc::gen::arbitrary<bool>() ? Tensor::of<float>({rows, columns}, floats)
                                                 : Tensor::of<std::uint8_t>({rows, columns}, bytes);
  }
  const std::string bytes = encode_tensors(tensors);
  const auto decoded = decode_tensors(bytes);
  RC_ASSERT(decoded.has_value());
  RC_ASSERT(*decoded == tensors);
  RC_ASSERT(encode_tensors(*decoded) == bytes);
}

TEST(Tensors, EveryCutIsRefused) {
  const std::string bytes = encode_tensors(small_tensors());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_tensors(std::string_view(bytes).substr(0, size))) << size;
  }
  EXPECT_FALSE(decode_tensors(bytes + "x"));
}

// What a flipped bit leaves is refused or accounts for every byte; that arrays themselves changed
// is for the checksums of the folder to find.
TEST(Tensors, EveryFlippedBitIsRefusedOrConsistent) {
  const std::string bytes = encode_tensors(small_tensors());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto decoded = decode_tensors(flipped);
    if (!decoded) {
      ++refused;
      EXPECT_LT(bit / 8, 8 + header_bytes) << "no header, so there is nothing to refuse";
      continue;
    }
    std::size_t total = 0;
    for (const auto& [name, tensor] : *decoded) {
      EXPECT_EQ(tensor.bytes.size(), tensor.elements() * element_bytes(tensor.type));
      total += tensor.bytes.size();
    }
    EXPECT_EQ(total, bytes.size() - 8 - header_bytes);
    if (bit / 8 < 8) ADD_FAILURE() << "a wrong header length was accepted, bit " << bit;
  }
  EXPECT_GT(refused, 8u * 8u);
}

struct BadFile {
  const char* what;
  std::string header;
  std::string data;
  const char* message;
};

std::string entry(const std::string& name, const std::string& type, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" +
         offsets + "}";
}

TEST(Tensors, DamageIsRefusedWithItsReason) {
  const std::vector<BadFile> files = {
      {"overlap",
       "{" + entry("a", "U8", "[2]", "[0,2]") + "," + entry("b", "U8", "[2]", "[1,3]") + "}", "xyz",
       "overlaps"},
      {"the same bytes twice",
       "{" + entry("a", "U8", "[2]", "[0,2]") + "," + entry("b", "U8", "[2]", "[0,2]") + "}", "xy",
       "overlaps"},
      {"gap", "{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("b", "U8", "[1]", "[2,3]") + "}",
       "xyz", "gap"},
      {"gap at the front", "{" + entry("a", "U8", "[2]", "[1,3]") + "}", "xyz", "gap"},
      {"rest", "{" + entry("a", "U8", "[2]", "[0,2]") + "}", "xyz", "at the end"},
      {"cut", "{" + entry("a", "U8", "[4]", "[0,4]") + "}", "xyz", "cut"},
      {"wrong size", "{" + entry("a", "F32", "[1]", "[0,3]") + "}", "xyz", "does not fit"},
      {"product that wraps to 0", "{" + entry("a", "F64", "[4294967296,4294967296]", "[0,0]") + "}",
       "", "does not fit"},
      {"backwards", "{" + entry("a", "U8", "[2]", "[2,0]") + "}", "xy", "offsets"},
      {"negative", "{" + entry("a", "U8", "[-1]", "[0,1]") + "}", "x", "shape"},
      {"fraction", "{" + entry("a", "U8", "[1.0]", "[0,1]") + "}", "x", "shape"},
      {"too large a number", "{" + entry("a", "U8", "[1]", "[0,99999999999999999999]") + "}", "x",
       "offsets"},
      {"three offsets", "{" + entry("a", "U8", "[1]", "[0,1,1]") + "}", "x", "offsets"},
      {"unknown type", "{" + entry("a", "F13", "[1]", "[0,1]") + "}", "x", "unknown type"},
      {"type without an end",
       R"({"a":{"dtype":)" + std::string(300'000, '[') + std::string(300'000, ']') +
           R"(,"shape":[1],"data_offsets":[0,1]}})",
       "x", "unknown type array"},
      {"twice",
       "{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("a", "U8", "[1]", "[0,1]") + "}", "x",
       "twice"},
      {"key twice", R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x",
       "twice"},
      {"missing key", R"({"a":{"dtype":"U8","shape":[1]}})", "x", "exactly"},
      {"further key", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", "x",
       "exactly"},
      {"no object", "[1]", "", "'{'"},
      {"leading space", " {}", "", "'{'"},
      {"no JSON", "{\"a\"", "", "no JSON object"},
      {"text behind", "{} x", "", "no JSON object"},
      {"bad UTF-8", "{" + entry("a\xff", "U8", "[1]", "[0,1]") + "}", "x", "UTF-8"},
      {"cut UTF-8", "{" + entry("a\xc3", "U8", "[1]", "[0,1]") + "}", "x", "UTF-8"},
      {"deep", "{" + std::string(100'000, '['), "", "no JSON object"},
  };
  for (const BadFile& file : files) {
    const auto decoded = decode_tensors(file_of(file.header, file.data));
    ASSERT_FALSE(decoded) << file.what;
    EXPECT_THAT(decoded.error().message, HasSubstr(file.message)) << file.what;
    EXPECT_EQ(decoded.error().message.find('\n'), std::string::npos) << file.what;
  }
}

TEST(Tensors, HeaderLengthBeyondTheFileIsRefused) {
  for (const std::uint64_t size : {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
    bytes += "{}";
    EXPECT_FALSE(decode_tensors(bytes)) << size;
  }
}

TEST(TensorsDeathTest, WrongUseStops) {
  EXPECT_DEATH((void)Tensor::of<float>({3}, {1.0F}), "values.size");
  Tensor torn = Tensor::of<float>({1}, {1.0F});
  torn.bytes.pop_back();
  EXPECT_DEATH((void)encode_tensors({{"torn", torn}}), "bytes.size");
  EXPECT_DEATH((void)encode_tensors({{"\xff", Tensor::of<float>({1}, {1.0F})}}), "UTF-8");
  EXPECT_DEATH((void)encode_tensors({{"__metadata__", Tensor::of<float>({1}, {1.0F})}}),
               "kMetadata");
}

}  // namespace
}  // namespace sluice
