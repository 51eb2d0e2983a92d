// A verb as it is typed, in this process: what it printed and its exit code.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace sluice {

struct TypedVerb {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// `add` gives the command line its verbs, whose exit code goes to the int.
inline TypedVerb type_verb(const std::function<void(CLI::App&, int&)>& add,
                           const std::vector<std::string>& words) {
  CLI::App root;
  TypedVerb typed;
  add(root, typed.exit_code);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  root.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  std::fflush(nullptr);
  typed.out = ::testing::internal::GetCapturedStdout();
  typed.err = ::testing::internal::GetCapturedStderr();
  return typed;
}

}  // namespace sluice
