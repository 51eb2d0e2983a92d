// The command line of sluice: verbs, --help and exit codes.
#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>

#include "app/verbs.h"

int main(int argc, char** argv) {
  CLI::App root{"Sluice learns conversion rates from live event streams."};
  root.require_subcommand(1);
  root.set_version_flag("--version", SLUICE_VERSION);
  int exit_code = 0;
  sluice::add_run_and_replay(root, exit_code);
  sluice::add_score(root, exit_code);
  sluice::add_serve(root, exit_code);
  sluice::add_snapshot(root, exit_code);
  sluice::add_check(root, exit_code);
  sluice::add_compare(root, exit_code);
  sluice::add_generate(root, exit_code);
  sluice::add_import(root, exit_code);
  sluice::add_dead_letters(root, exit_code);
  sluice::add_trace(root, exit_code);
  const auto is_verb = [&root](const std::string& name) {
    return !root.get_subcommands([&](CLI::App* verb) { return verb->get_name() == name; }).empty();
  };
  if (argc > 1 && argv[1][0] != '-' && !is_verb(argv[1])) {
    std::fprintf(stderr, "sluice: there is no verb '%s'; sluice --help lists them\n", argv[1]);
    return 2;
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return root.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sluice: bug: an exception reached the command line: %s\n", error.what());
    return 1;
  }
  return exit_code;
}
