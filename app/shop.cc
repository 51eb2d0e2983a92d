#include "app/shop.h"

#include <string>
#include <string_view>
#include <vector>

#include "app/shop_events.h"
#include "app/shop_files.h"
#include "app/shop_model.h"
#include "app/shop_text.h"

namespace sluice {
namespace {

constexpr std::string_view kTruth = "truth";
constexpr std::string_view kShopExpected = "expected.json";
constexpr std::string_view kShopConfig = "shop.toml";
constexpr std::uint64_t kProgressPages = 256;

// The true rates of every impression, one file a partition.
class TruthFiles {
 public:
  static Result<TruthFiles> create(FileSystem& files, const fs::path& root,
                                   const ShopOptions& options) {
    TruthFiles truth;
    truth.has_actions_ = options.has_actions;
    SLUICE_TRY(files.create_directories(root / kTruth));
    for (std::uint32_t p = 0; p < options.partitions; ++p) {
      SLUICE_ASSIGN(TextFile file,
                    TextFile::create(files, root / kTruth / (file_number(p) + ".csv"),
                                     ShopOptions::Compression::none));
      SLUICE_TRY(file.append(std::string("impression_id,pctr,pcvr") +
                             (options.has_actions ? ",paction,pcvr_acted,pcvr_unacted" : "") +
                             "\n"));
      truth.files_.push_back(std::move(file));
    }
    return truth;
  }

  Status add(const ShopPage& page) {
    lines_.clear();
    for (const ShopImpression& impression : page.impressions) {
      const Rates& rates = impression.rates;
      lines_ += impression.id;
      add_rate(rates.pctr);
      add_rate(rates.pcvr);
      if (has_actions_) {
        for (const double rate : {rates.paction, rates.pcvr_acted, rates.pcvr_unacted}) {
          add_rate(rate);
        }
      }
      lines_ += '\n';
    }
    return files_[page.partition].append(lines_);
  }

  Status close() {
    for (TextFile& file : files_) SLUICE_TRY(file.close());
    return {};
  }

 private:
  void add_rate(double rate) {
    lines_ += ',';
    append_rate(lines_, rate);
  }

  bool has_actions_ = false;
  std::vector<TextFile> files_;
  std::string lines_;
};

Status prepare_folder(FileSystem& files, const fs::path& folder, bool overwrite) {
  SLUICE_TRY(files.create_directories(folder));
  SLUICE_ASSIGN(const auto names, files.list(folder));
  if (!names.empty() && !overwrite) {
    return usage_error(
        folder.string() +
        " is not empty: name another folder, or pass --force to replace the shop in it");
  }
  // The mark of a whole shop goes first, and comes last.
  SLUICE_TRY(files.remove_all(folder / kShopExpected));
  SLUICE_TRY(files.remove_all(folder / kShopConfig));
  SLUICE_TRY(files.remove_all(folder / kTruth));
  for (const char* stream : kStreamNames) SLUICE_TRY(files.remove_all(folder / stream));
  return {};
}

}  // namespace

Result<ShopSummary> generate_shop(const ShopOptions& options, const fs::path& folder,
                                  bool overwrite, FileSystem& files, const ShopProgress& progress) {
  SLUICE_TRY(check_options(options));
  SLUICE_TRY(prepare_folder(files, folder, overwrite));
  const ShopModel model(options);
  const ShopEvents events(options, model);
  ShopExpected expected(options);
  const auto on_written = [&expected](const ShopRecord& record, ShopVerdict verdict) {
    expected.add_record(record, verdict);
  };
  SLUICE_ASSIGN(ShopLogs logs, ShopLogs::create(files, folder, options, on_written));
  SLUICE_ASSIGN(TruthFiles truth, TruthFiles::create(files, folder, options));

  ShopPage page;
  for (std::uint64_t number = 0; number < events.pages(); ++number) {
    SLUICE_TRY(logs.write_until(events.page_time(number)));
    events.draw(number, page);
    SLUICE_TRY(truth.add(page));
    for (const ShopImpression& impression : page.impressions) expected.add_truth(impression);
    for (ShopRecord& record : page.records) logs.add(std::move(record));
    if (number % kProgressPages == 0) progress(number * options.page);
  }
  SLUICE_TRY(logs.finish());
  SLUICE_TRY(truth.close());
  SLUICE_TRY(write_text(files, folder / kShopConfig, shop_config(options)));
  SLUICE_TRY(write_text(files, folder / kShopExpected, expected.json().dump(2) + "\n"));
  progress(options.impressions);
  return ShopSummary{expected.counts(), expected.true_rates()};
}

}  // namespace sluice
