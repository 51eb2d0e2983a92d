// The published tables whose columns have one value each, as data: which column is what.
#pragma once

#include <string>
#include <vector>

#include "app/csv_reader.h"
#include "app/import_options.h"

namespace sluice {

struct ColumnSpec {
  enum class Kind { id, list, number };
  std::string column;
  Kind kind = Kind::id;
  std::string buckets;  // of a number, as TOML
};

struct TableSpec {
  enum class Header { required, optional, absent };

  std::string name;
  CsvDialect dialect;
  Header header = Header::required;
  std::vector<std::string> columns;  // where there is no header
  CsvColumns roles;
  std::string conversion_delay;      // seconds from the click
  bool is_clicked_at_once = false;   // the table has the click's time only: the impression's too
  std::vector<ColumnSpec> features;  // none: all columns without a role
};

TableSpec aliexpress_spec();
TableSpec criteo_attribution_spec();
TableSpec criteo_search_spec();
TableSpec csv_spec(const CsvColumns& columns);

}  // namespace sluice
