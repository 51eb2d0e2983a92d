// sluice dead-letters list, show, export: refused records, as the data folder keeps them.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "app/dead_letters.h"
#include "app/report_error.h"
#include "app/text_table.h"
#include "app/verbs.h"
#include "config/load.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

struct DeadLetterArguments {
  std::string data_dir = "sluice-data";
  std::vector<std::string> reasons, streams;
  std::string since, detail;
  std::uint64_t limit = 50;
  std::uint64_t number = 0;
  bool json = false;
  bool raw = false;
  // export
  std::string config;
  std::vector<std::string> overrides;
  std::string out;
  std::vector<std::string> renames;
  std::string scale_time, shift_time, time_field;
  bool merge = false;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::size_t terminal_width() {
  winsize size{};
  const bool is_known =
      isatty(STDOUT_FILENO) == 1 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : std::string_view::npos;
}

// ---- the filters

template <class Value, std::size_t count, class Name>
Status read_names(const std::vector<std::string>& names, const char* option, Name name_of,
                  std::set<Value>& values) {
  for (const std::string& name : names) {
    std::string known;
    bool is_known = false;
    for (std::size_t index = 0; index < count; ++index) {
      known += known.empty() ? "" : ", ";
      known += name_of(index);
      if (name != name_of(index)) continue;
      values.insert(static_cast<Value>(index));
      is_known = true;
    }
    if (is_known) continue;
    return usage_error(std::string(option) + ": '" + name + "' is none of " + known);
  }
  return {};
}

Result<DeadLetterFilter> read_filter(const DeadLetterArguments& arguments) {
  DeadLetterFilter filter;
  filter.detail = arguments.detail;
  SLUICE_TRY((read_names<Refusal, kRefusals>(
      arguments.reasons, "--reason",
      [](std::size_t index) { return to_string(static_cast<Refusal>(index)); }, filter.reasons)));
  SLUICE_TRY((read_names<Stream, kStreams>(
      arguments.streams, "--stream", [](std::size_t index) { return kStreamNames[index]; },
      filter.streams)));
  if (arguments.since.empty()) return filter;
  if (const auto ago = parse_duration(arguments.since)) {
    SystemClock clock;
    filter.since = clock.wall_ms() - *ago;
  } else if (const auto time = parse_time(arguments.since)) {
    filter.since = *time;
  } else {
    return usage_error("--since: '" + arguments.since +
                       "' is neither a time as in 2013-06-30T12:00:00Z nor a duration before now "
                       "as in \"2 h\"");
  }
  return filter;
}

// ---- list

// By reason: how many are kept, and how many the lineage has refused in all.
Json summary_json(const DeadLetterFolder& folder, const std::map<Refusal, std::uint64_t>& kept,
                  std::uint64_t shown, std::uint64_t matching) {
  const JoinProgress& progress = folder.progress();
  Json reasons = Json::object();
  for (std::size_t index = 0; index < kRefusals; ++index) {
    const auto reason = static_cast<Refusal>(index);
    const std::uint64_t refused = progress.counters.refused_for(reason);
    if (refused == 0) continue;
    const auto found = kept.find(reason);
    reasons[to_string(reason)] = {{"kept", found == kept.end() ? 0 : found->second},
                                  {"refused", refused}};
  }
  return {{"reasons", reasons},
          {"kept", progress.next_dead_letter - progress.first_dead_letter},
          {"trimmed", progress.trimmed_dead_letters},
          {"sent_before", progress.sent_dead_letters},
          {"trimmed_unsent", progress.trimmed_unsent_dead_letters},
          {"matching", matching},
          {"shown", shown}};
}

std::string summary_text(const Json& summary) {
  std::vector<std::vector<std::string>> rows = {{"reason", "kept", "refused in all"}};
  for (const auto& [reason, counts] : summary["reasons"].items()) {
    const bool is_kept =
        reason != to_string(Refusal::repeat) && reason != to_string(Refusal::duplicate);
    rows.push_back({reason, is_kept ? counts["kept"].dump() : "never", counts["refused"].dump()});
  }
  std::string text = "\n" + text_table(rows) + "\n" + summary["shown"].dump() + " of " +
                     summary["matching"].dump() + " shown, newest first";
  if (summary["shown"] != summary["matching"]) text += " (--limit 0 shows all)";
  text += "; " + summary["kept"].dump() + " kept, " + summary["trimmed"].dump() + " trimmed\n";
  if (summary["trimmed_unsent"] != 0) {
    text += summary["trimmed_unsent"].dump() + " were trimmed before dead_letters.topic had them\n";
  }
  return text;
}

Result<int> list(const DeadLetterArguments& arguments) {
  SLUICE_ASSIGN(const DeadLetterFilter filter, read_filter(arguments));
  SLUICE_ASSIGN(const DeadLetterFolder folder, DeadLetterFolder::open(arguments.data_dir));
  std::map<Refusal, std::uint64_t> kept;
  std::deque<DeadLetter> newest;
  std::uint64_t matching = 0;
  SLUICE_TRY(folder.read({}, [&](DeadLetter letter) {
    ++kept[letter.record.reason];
    if (!filter.allows(letter)) return true;
    ++matching;
    if (!arguments.json) letter.record.bytes.clear();
    newest.push_front(std::move(letter));
    if (arguments.limit > 0 && newest.size() > arguments.limit) newest.pop_back();
    return true;
  }));
  const Json summary = summary_json(folder, kept, newest.size(), matching);
  if (arguments.json) {
    Json letters = Json::array();
    for (const DeadLetter& letter : newest) letters.push_back(dead_letter_json(letter, false));
    print(dump({{"dead_letters", letters}, {"summary", summary}}));
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"number", "refused at", "where", "position", "reason", "detail"}};
  for (const DeadLetter& letter : newest) {
    const RefusedRecord& record = letter.record;
    rows.push_back({std::to_string(letter.number), format_time(letter.wall_ms),
                    to_string(record.where), std::to_string(record.position),
                    to_string(record.reason), record.detail});
  }
  if (rows.size() > 1) print(text_table(rows, terminal_width()));
  print(rows.size() > 1 ? summary_text(summary) : summary_text(summary).substr(1));
  return 0;
}

// ---- show

Result<int> show(const DeadLetterArguments& arguments) {
  SLUICE_ASSIGN(const DeadLetterFolder folder, DeadLetterFolder::open(arguments.data_dir));
  SLUICE_ASSIGN(const auto letter, folder.find(arguments.number));
  if (!letter) {
    const JoinProgress& progress = folder.progress();
    return stop_error("there is no dead letter " + std::to_string(arguments.number) + " in " +
                      arguments.data_dir +
                      (progress.first_dead_letter == progress.next_dead_letter
                           ? ": it keeps none"
                           : ": it keeps " + std::to_string(progress.first_dead_letter) + " to " +
                                 std::to_string(progress.next_dead_letter - 1)));
  }
  if (arguments.raw) {
    print(letter->record.bytes);
    return 0;
  }
  const Json json = dead_letter_json(*letter, true);
  if (arguments.json) {
    print(dump(json));
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : json.items()) {
    if (key == "text" || key == "hex") continue;
    rows.push_back({key, value.is_string() ? one_line(value.get<std::string>()) : value.dump()});
  }
  // What is no printable text is shown as one_line() shows it; --raw gives the bytes.
  const bool is_text = json.contains("text");
  print(text_table(rows) + "\n" +
        (is_text ? one_line(json["text"].get<std::string>())
                 : "(no UTF-8; in hexadecimal) " + json["hex"].get<std::string>()) +
        "\n");
  return 0;
}

// ---- export

Result<Repair> read_repair(const DeadLetterArguments& arguments, const Config* config) {
  Repair repair;
  for (const std::string& text : arguments.renames) {
    SLUICE_ASSIGN(Repair::Rename rename, parse_rename(text));
    repair.renames.push_back(std::move(rename));
  }
  if (config != nullptr) repair.time_field = config->streams.ts;
  if (!arguments.time_field.empty()) repair.time_field = arguments.time_field;
  if (!arguments.scale_time.empty()) SLUICE_TRY(parse_scale(arguments.scale_time, repair));
  if (!arguments.shift_time.empty()) {
    const bool is_back = arguments.shift_time.front() == '-';
    const auto shift = parse_duration(std::string_view(arguments.shift_time).substr(is_back));
    if (!shift) return usage_error("--shift-time: " + shift.error().message);
    repair.shift = is_back ? -*shift : *shift;
    repair.changes_time = true;
  }
  return repair;
}

// As one word of a shell.
std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char letter : text) word += letter == '\'' ? "'\\''" : std::string(1, letter);
  return word + "'";
}

// A setting's value.
std::string toml_text(const std::string& text) {
  std::string value = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') value += '\\';
    value += letter;
  }
  return value + "\"";
}

std::string export_text(const DeadLetterExportSummary& summary,
                        const DeadLetterArguments& arguments, const DeadLetterExport& options) {
  std::string text = std::to_string(summary.written) + " dead letters written to " + arguments.out +
                     ", " + std::to_string(summary.repaired) + " of them changed";
  if (summary.moved > 0) {
    text += ", " + std::to_string(summary.moved) + " moved to where they are not late";
  }
  if (options.merges) text += ", among " + std::to_string(summary.copied) + " other records";
  text += " (origins.jsonl says where from)\n";
  if (summary.unrepairable > 0) {
    text += std::to_string(summary.unrepairable) +
            " cannot be used as they are: unrepairable.jsonl says why\n";
  }
  text += "In the lineage that refused them they would be late. Replay them into a new one:\n";
  text += "  sluice replay " + (arguments.config.empty() ? "CONFIG" : quoted(arguments.config)) +
          " --data-dir NEW";
  for (const std::string& setting : arguments.overrides) text += " --set " + quoted(setting);
  text +=
      " --set 'source.type=\"files\"' --set " + quoted("source.root=" + toml_text(arguments.out));
  if (options.config != nullptr && !options.config->dead_letters.topic.empty()) {
    text += " --set 'dead_letters.topic=\"\"'";
  }
  text += "\n";
  if (!options.merges) {
    text +=
        "These logs hold the dead letters alone; with CONFIG and --merge they hold all "
        "records, the repaired ones in their places.\n";
  }
  return text;
}

Result<int> export_logs(const DeadLetterArguments& arguments) {
  DeadLetterExport options;
  options.out = arguments.out;
  SLUICE_ASSIGN(options.filter, read_filter(arguments));
  Config config;
  if (!arguments.config.empty()) {
    SLUICE_ASSIGN(config, load_config_or_error(arguments.config, arguments.overrides));
    options.config = &config;
  } else if (arguments.merge || !arguments.overrides.empty()) {
    return usage_error(std::string(arguments.merge ? "--merge" : "--set") +
                       " needs CONFIG, which says where the logs are");
  }
  options.merges = arguments.merge;
  SLUICE_ASSIGN(options.repair, read_repair(arguments, options.config));
  SLUICE_ASSIGN(const DeadLetterFolder folder, DeadLetterFolder::open(arguments.data_dir));
  RealFileSystem files;
  SystemClock clock;
  SLUICE_ASSIGN(const DeadLetterExportSummary summary,
                export_dead_letters(folder, options, files, clock));
  if (arguments.json) {
    print(dump({{"written", summary.written},
                {"repaired", summary.repaired},
                {"moved", summary.moved},
                {"unrepairable", summary.unrepairable},
                {"copied", summary.copied}}));
  } else {
    print(export_text(summary, arguments, options));
  }
  return 0;
}

// ---- the command line

using Action = Result<int> (*)(const DeadLetterArguments&);

CLI::App* add_action(CLI::App& group, const char* name, const char* description,
                     const std::shared_ptr<DeadLetterArguments>& arguments, Action action,
                     int& exit_code) {
  CLI::App* verb = group.add_subcommand(name, description);
  verb->add_option("--data-dir", arguments->data_dir, "The data folder; a service may be using it")
      ->capture_default_str();
  verb->add_flag("--json", arguments->json, "Prints JSON");
  verb->callback([arguments, action, &exit_code] {
    const Result<int> outcome = action(*arguments);
    exit_code = outcome ? *outcome : report_error(outcome.error());
  });
  return verb;
}

void add_filters(CLI::App& verb, DeadLetterArguments& arguments) {
  verb.add_option("--reason", arguments.reasons, "Only of this reason; may be repeated")
      ->allow_extra_args(false);
  verb.add_option("--stream", arguments.streams, "Only of this stream; may be repeated")
      ->allow_extra_args(false);
  verb.add_option("--since", arguments.since,
                  "Only those refused since a TIME, or since a duration before now, like \"2 h\"");
  verb.add_option("--detail", arguments.detail, "Only those whose detail holds this TEXT");
}

void add_export_options(CLI::App& verb, DeadLetterArguments& arguments) {
  verb.add_option("CONFIG", arguments.config,
                  "With it: its names of topics and fields, and each record is judged by it");
  verb.add_option("--set", arguments.overrides,
                  "section.key=value: any key of the config; may be repeated")
      ->allow_extra_args(false);
  verb.add_option("--out", arguments.out, "The folder to write; absent or empty")
      ->type_name("DIR")
      ->required();
  verb.add_flag("--merge", arguments.merge,
                "Writes the whole logs of CONFIG's source, the dead letters in their places");
  verb.add_option("--rename-field", arguments.renames,
                  "from=to: gives a field another name; user.name=id renames name inside user; may "
                  "be repeated")
      ->allow_extra_args(false);
  verb.add_option(
      "--scale-time", arguments.scale_time,
      "Multiplies the time: 1000 makes milliseconds of seconds, 1/1000 of microseconds");
  verb.add_option("--shift-time", arguments.shift_time,
                  "Adds a duration to the time, like \"1 h\" or \"-90 min\"");
  verb.add_option("--time-field", arguments.time_field,
                  "The field that holds the time [streams.ts of CONFIG, else ts]");
  verb.footer(
      "Writes <topic>/<partition>.jsonl, a root for source.root. The lineage that refused these "
      "records\nhas gone on: in it they would be late. Replay them into a new data folder.\n"
      "All else of a record stays byte for byte. What is no JSON object, or would be refused again "
      "as\nmalformed, goes to unrepairable.jsonl; origins.jsonl says where each line came from.\n"
      "Examples:\n"
      "  sluice dead-letters export --out bad --reason malformed\n"
      "  sluice dead-letters export shop.toml --out repaired --merge --detail not_before \\\n"
      "    --scale-time 1000\n"
      "  sluice replay shop.toml --data-dir new --set 'source.root=\"repaired\"'\n");
}

}  // namespace

void add_dead_letters(CLI::App& root, int& exit_code) {
  CLI::App* group =
      root.add_subcommand("dead-letters", "Looks at refused records, repairs and exports them");
  group->require_subcommand(1);
  const auto arguments = std::make_shared<DeadLetterArguments>();
  CLI::App* list_verb = add_action(*group, "list", "A line a refused record, the newest first",
                                   arguments, list, exit_code);
  add_filters(*list_verb, *arguments);
  list_verb->add_option("--limit", arguments->limit, "Shows so many, the newest; 0: all")
      ->capture_default_str();
  list_verb->footer(
      "Examples:\n"
      "  sluice dead-letters list --data-dir live --reason malformed --since \"1 h\"\n"
      "  sluice dead-letters list --limit 0 --json\n"
      "Kept are those of all reasons but duplicate and repeat, for dead_letters.keep.\n");
  CLI::App* show_verb = add_action(*group, "show", "All about one, with the record's bytes",
                                   arguments, show, exit_code);
  show_verb->add_option("NUMBER", arguments->number, "As list shows it")->required();
  show_verb->add_flag("--raw", arguments->raw, "Writes the record's bytes and nothing else");
  CLI::App* export_verb =
      add_action(*group, "export", "Writes refused records as logs, to be replayed", arguments,
                 export_logs, exit_code);
  add_filters(*export_verb, *arguments);
  add_export_options(*export_verb, *arguments);
}

}  // namespace sluice
