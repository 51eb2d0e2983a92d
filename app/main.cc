// The command line of sluice: verbs, --help and exit codes.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "app/verbs.h"

int main(int argc, char** argv) {
  CLI::App root{"Sluice learns conversion rates from live event streams."};
  root.require_subcommand(1);
  root.set_version_flag("--version", SLUICE_VERSION);
  int exit_code = 0;
  sluice::add_run_and_replay(root, exit_code);
  sluice::add_score(root, exit_code);
  sluice::add_snapshot(root, exit_code);
  sluice::add_check(root, exit_code);
  sluice::add_generate(root, exit_code);
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
