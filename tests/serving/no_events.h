// For who does not look at what becomes of a model's versions.
#pragma once

#include <string>

#include "serving/model_versions.h"

namespace sluice {

class NoEvents final : public VersionEvents {
  void on_current(const std::string&, const ModelVersion&) override {}
  void on_look_error(const std::string&) override {}
  void on_load_error(const std::string&, const std::string&) override {}
  void on_held(const std::string&, std::size_t) override {}
};

}  // namespace sluice
