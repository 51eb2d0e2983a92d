// The command line's verbs. Each function adds one subcommand to `root`; when it is chosen its
// callback does the work and sets the exit code: 0 done, 1 failure while running, 2 wrong usage or
// config.
#pragma once

namespace CLI {
class App;
}

namespace sluice {

void add_run_and_replay(CLI::App& root, int& exit_code);
void add_score(CLI::App& root, int& exit_code);
void add_serve(CLI::App& root, int& exit_code);
void add_snapshot(CLI::App& root, int& exit_code);
void add_check(CLI::App& root, int& exit_code);
void add_compare(CLI::App& root, int& exit_code);
void add_generate(CLI::App& root, int& exit_code);
void add_import(CLI::App& root, int& exit_code);
void add_dead_letters(CLI::App& root, int& exit_code);
void add_trace(CLI::App& root, int& exit_code);

}  // namespace sluice
