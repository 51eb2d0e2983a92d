// The keys of [serving].
#include <algorithm>

#include "config/key_list.h"
#include "config/schema_units.h"

namespace sluice {
namespace {

bool is_address(const std::string& text) {
  return !text.empty() && text.size() <= 253 && text.find_first_of(" /\t\n") == std::string::npos;
}

// Of a snapshot's alias (store/published_folder.h), or none.
bool is_alias_or_empty(const std::string& text) {
  return text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

bool is_variable_or_empty(const std::string& text) {
  return text.find_first_of("= \t\n") == std::string::npos;
}

void add_network(KeyList<Config, ServingConfig Config::*>& serving) {
  serving.text("address", &ServingConfig::address, "an IP address or a host's name",
               "Where `sluice serve` listens; \"0.0.0.0\" is every interface of the machine, which "
               "wants a token or a network that is closed.",
               is_address);
  serving.count("port", &ServingConfig::port, {0, 65'535}, "port",
                "0: any that is free; a line on standard output says which.");
  serving.count("threads", &ServingConfig::threads, {0, 1'024}, "threads",
                "Requests that are answered at the same time; 0: four a core. A connection that "
                "waits for its next request holds no thread.");
  serving.count("max_connections", &ServingConfig::max_connections, {1, 100'000}, "connections",
                "What comes beyond so many open ones is closed at once.");
  serving.size("max_body_bytes", &ServingConfig::max_body_bytes, {kKiB, kGiB},
               "A longer request, unpacked, is refused with 413.");
  serving.count("max_rows", &ServingConfig::max_rows, {1, 1e6}, "impressions",
                "A request with more is refused with 413.");
  serving.duration("request_timeout", &ServingConfig::request_timeout, {1, kHour}, "steady time",
                   "For a request's bytes to come in, and again for its answer to be taken.");
  serving.duration("idle_timeout", &ServingConfig::idle_timeout, {1, 24 * kHour}, "steady time",
                   "A connection without a request for so long after an answer is closed; a new "
                   "one's first must begin within request_timeout.");
  serving.duration("drain_timeout", &ServingConfig::drain_timeout, {1, kHour}, "steady time",
                   "After SIGTERM requests that were begun are answered, for so long at most.");
}

void add_safety(KeyList<Config, ServingConfig Config::*>& serving) {
  serving.text("token_env", &ServingConfig::token_env, "\"\" or the name of a variable",
               "The environment's variable that holds the token which every request but health "
               "must carry, as in \"Authorization: Bearer TOKEN\".",
               is_variable_or_empty);
  serving.text(
      "token_file", &ServingConfig::token_file, "\"\" or a file's path",
      "The same, from a file's first line, in place of token_env; without both there is no "
      "token.",
      is_any_text);
  serving.text("certificate", &ServingConfig::certificate, "\"\" or a file's path",
               "TLS: the certificate's chain, in PEM; goes with key. Empty: plain HTTP.",
               is_any_text);
  serving.text("key", &ServingConfig::key, "\"\" or a file's path",
               "TLS: the certificate's private key, in PEM, without a passphrase.", is_any_text);
}

}  // namespace

void add_serving_keys(std::vector<Key<Config>>& keys) {
  KeyList serving(keys, "serving", KeyGroup::operational, &Config::serving);
  add_network(serving);
  serving.duration("poll_interval", &ServingConfig::poll_interval, {1, kHour}, "steady time",
                   "How often LATEST, or the alias, is looked at.");
  serving.count("versions", &ServingConfig::versions, {1, 1'000}, "snapshots",
                "So many of a model are held in memory: the one that is served, and those that "
                "were served or asked for last; with 1 there is still a place for one that is "
                "asked for.");
  serving.text("alias", &ServingConfig::alias, "\"\" or 1 to 64 letters, digits, '_' or '-'",
               "What is served: the snapshot that this alias names; empty: that of LATEST.",
               is_alias_or_empty);
  add_safety(serving);
  serving.text("log_predictions", &ServingConfig::log_predictions, "\"\" or a file's path",
               "A JSON line a row that was served; `sluice score --compare` reads it. Empty: none.",
               is_any_text);
  serving.size("log_size", &ServingConfig::log_size, {64 * kKiB, 1'024 * kGiB},
               "When the file is as long it becomes FILE.1, in the place of the one before.");
}

}  // namespace sluice
