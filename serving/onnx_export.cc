#include "serving/onnx_export.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "learner/initial_values.h"
#include "serving/onnx_writer.h"

namespace sluice {
namespace {

using Node = RecipeNode;
using Op = Node::Op;

constexpr std::size_t kMostBytes = 1'900'000'000;  // a protocol buffer ends at 2^31

std::int64_t signed_size(std::size_t size) {
  return static_cast<std::int64_t>(size);
}

Error too_large(std::size_t bytes) {
  return stop_error("it would be " + std::to_string(bytes / 1'000'000) +
                    " MB, and an ONNX file holds less than 2 GB: export the towers alone");
}

// ---- towers

// Adds the towers of one embedding set.
class TowersWriter {
 public:
  TowersWriter(OnnxGraph& graph, const Towers& towers, const std::string& x)
      : graph_(graph), towers_(towers), x_(x) {}

  // The name of a tower's logit, f32 [n].
  std::string logit(std::size_t tower) {
    const Towers::Logit& of = towers_.logit(tower);
    std::string h = x_;
    const std::size_t layers = of.is_deep ? towers_.hidden().size() + 1 : 1;
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const bool is_last = layer + 1 == layers;
      const bool is_rounded = towers_.is_bf16() && !is_last;
      if (is_rounded) h = rounded(h);
      const std::string weight = add(tower, layer, ".weight", is_rounded);
      const std::string bias = add(tower, layer, ".bias", false);
      h = graph_.node("Gemm", {h, weight, bias}, {OnnxAttribute::integer("transB", 1)});
      if (!is_last) h = graph_.node("Relu", {h});
    }
    h = graph_.node("Squeeze", {h, one_axis()});
    return of.is_fm ? graph_.node("Add", {h, inner_products()}) : h;
  }

 private:
  std::string one_axis() { return graph_.constant<std::int64_t>("#axis 1", {1}); }
  // To bf16 and back.
  std::string rounded(const std::string& value) {
    return graph_.cast(graph_.cast(value, OnnxType::bf16), OnnxType::f32);
  }
  std::string add(std::size_t tower, std::size_t layer, const std::string& kind, bool is_rounded) {
    const std::string end = "." + std::to_string(layer) + kind;
    for (const Towers::Array& array : towers_.arrays()) {
      if (array.tower != tower || !array.name.ends_with(end)) continue;
      const std::vector<float> values = Towers::read(array, towers_.parameters());
      OnnxGraph::Shape shape;
      for (const std::uint64_t size : array.shape()) shape.push_back(signed_size(size));
      const std::string name = graph_.constant<float>(array.name, shape, values);
      return is_rounded ? rounded(name) : name;
    }
    SLUICE_CHECK(false);
  }
  // ½ · (|Σ_i v_i|² − Σ_i |v_i|²).
  std::string inner_products() {
    const Towers::Inputs& inputs = towers_.inputs();
    std::vector<std::int64_t> columns;
    for (const std::size_t begin : inputs.vectors) {
      for (std::size_t d = 0; d < inputs.dim; ++d) columns.push_back(signed_size(begin + d));
    }
    const std::string picked =
        graph_.constant<std::int64_t>("#columns of " + x_, {signed_size(columns.size())}, columns);
    const std::string shape = graph_.constant<std::int64_t>(
        "#vectors of " + x_, {0, signed_size(inputs.vectors.size()), signed_size(inputs.dim)});
    const std::string both_axes = graph_.constant<std::int64_t>("#axes 1 and 2", {1, 2});
    const std::string gathered =
        graph_.node("Gather", {x_, picked}, {OnnxAttribute::integer("axis", 1)});
    const std::string v = graph_.node("Reshape", {gathered, shape});
    const OnnxAttribute flat = OnnxAttribute::integer("keepdims", 0);
    const std::string sum = graph_.node("ReduceSum", {v, one_axis()}, {flat});
    const std::string square = graph_.node("ReduceSumSquare", {sum, one_axis()}, {flat});
    const std::string squares = graph_.node("ReduceSumSquare", {v, both_axes}, {flat});
    return graph_.node(
        "Mul", {graph_.node("Sub", {square, squares}), graph_.scalar<float>("#half", 0.5F)});
  }

  OnnxGraph& graph_;
  const Towers& towers_;
  const std::string x_;
};

// ---- rates

const char* name_of(Op op) {
  switch (op) {
    case Op::label:
      return "a label";
    case Op::log:
      return "log";
    case Op::divide:
      return "division";
    case Op::softplus:
      return "softplus";
    case Op::bce:
      return "bce";
    default:
      return "this operation";
  }
}

// The rates in double, as learner/node_values.h has them: 1 − p by a formula of its own, and ratios
// by the logs, so that two small numbers are never divided.
class RatesWriter {
 public:
  RatesWriter(OnnxGraph& graph, const Recipe& recipe, const std::vector<std::string>& logits)
      : graph_(graph), recipe_(recipe), logits_(logits) {}

  Status add(const std::string& name, std::uint16_t node) {
    SLUICE_ASSIGN(const std::string p, number(node));
    graph_.node("Cast", {p}, name,
                {OnnxAttribute::integer("to", static_cast<std::int64_t>(OnnxType::f32))});
    graph_.output(name, OnnxType::f32, {});
    return {};
  }

 private:
  std::string f64(double value) {
    return graph_.scalar<double>("#f64 " + std::to_string(std::bit_cast<std::uint64_t>(value)),
                                 value);
  }
  std::string two(const char* operation, const std::string& a, const std::string& b) {
    return graph_.node(operation, {a, b});
  }

  // A real, or p of a rate: f64 [n].
  Result<std::string> number(std::uint16_t index) {
    const Node& node = recipe_.nodes[index];
    switch (node.op) {
      case Op::number:
      case Op::constant:
        return f64(node.number);
      case Op::logit:
        return graph_.cast(logits_[node.a], OnnxType::f64);
      case Op::value:
      case Op::stop_real:
      case Op::stop_rate:
        return number(node.a);
      case Op::negate:
        return unary("Neg", node.a);
      case Op::absolute:
        return unary("Abs", node.a);
      case Op::sigmoid:
        return unary("Sigmoid", node.a);
      case Op::square:
        return binary("Mul", node.a, node.a);
      case Op::add:
        return binary("Add", node.a, node.b);
      case Op::subtract:
        return binary("Sub", node.a, node.b);
      case Op::multiply:
      case Op::product:
        return binary("Mul", node.a, node.b);
      case Op::min:
        return binary("Min", node.a, node.b);
      case Op::max:
        return binary("Max", node.a, node.b);
      case Op::complement:
        return complement(node.a);
      case Op::mix:
        return mix(node, false);
      case Op::ratio: {
        SLUICE_ASSIGN(const std::string a, log(node.a));
        SLUICE_ASSIGN(const std::string b, log(node.b));
        return graph_.node("Exp", {two("Min", two("Sub", a, b), f64(0))});
      }
      default:
        return stop_error(std::string("its rates use ") + name_of(node.op) +
                          ", which this export does not write");
    }
  }
  Result<std::string> unary(const char* operation, std::uint16_t a) {
    SLUICE_ASSIGN(const std::string x, number(a));
    return graph_.node(operation, {x});
  }
  Result<std::string> binary(const char* operation, std::uint16_t a, std::uint16_t b) {
    SLUICE_ASSIGN(const std::string x, number(a));
    SLUICE_ASSIGN(const std::string y, number(b));
    return two(operation, x, y);
  }
  // weight·a + (1 − weight)·b, or the same of 1 − a and 1 − b.
  Result<std::string> mix(const Node& node, bool of_complements) {
    const auto part = [&](std::uint16_t of) {
      return of_complements ? complement(of) : number(of);
    };
    SLUICE_ASSIGN(const std::string a, part(node.a));
    SLUICE_ASSIGN(const std::string b, part(node.b));
    SLUICE_ASSIGN(const std::string weight, number(node.c));
    SLUICE_ASSIGN(const std::string rest, complement(node.c));
    return two("Add", two("Mul", weight, a), two("Mul", rest, b));
  }
  // 1 − p of a rate.
  Result<std::string> complement(std::uint16_t index) {
    const Node& node = recipe_.nodes[index];
    switch (node.op) {
      case Op::sigmoid: {
        SLUICE_ASSIGN(const std::string x, number(node.a));
        return graph_.node("Sigmoid", {graph_.node("Neg", {x})});
      }
      case Op::complement:
        return number(node.a);
      case Op::product: {  // (1 − a) + a·(1 − b)
        SLUICE_ASSIGN(const std::string not_a, complement(node.a));
        SLUICE_ASSIGN(const std::string a, number(node.a));
        SLUICE_ASSIGN(const std::string not_b, complement(node.b));
        return two("Add", not_a, two("Mul", a, not_b));
      }
      case Op::mix:
        return mix(node, true);
      case Op::stop_rate:
        return complement(node.a);
      default: {
        SLUICE_ASSIGN(const std::string p, number(index));
        return two("Sub", f64(1), p);
      }
    }
  }
  // log p of a rate: of a sigmoid min(x, 0) − log(1 + e^−|x|).
  Result<std::string> log(std::uint16_t index) {
    const Node& node = recipe_.nodes[index];
    if (node.op == Op::stop_rate) return log(node.a);
    if (node.op == Op::product) {
      SLUICE_ASSIGN(const std::string a, log(node.a));
      SLUICE_ASSIGN(const std::string b, log(node.b));
      return two("Add", a, b);
    }
    if (node.op == Op::sigmoid) {
      SLUICE_ASSIGN(const std::string x, number(node.a));
      const std::string e = graph_.node("Exp", {graph_.node("Neg", {graph_.node("Abs", {x})})});
      return two("Sub", two("Min", x, f64(0)), graph_.node("Log", {two("Add", f64(1), e)}));
    }
    SLUICE_ASSIGN(const std::string p, number(index));
    return graph_.node("Log", {two("Max", p, f64(1e-300))});
  }

  OnnxGraph& graph_;
  const Recipe& recipe_;
  const std::vector<std::string>& logits_;
};

// From the inputs of each embedding set to the rates.
Result<std::string> finish(OnnxGraph& graph, const ScoringModel& model,
                           const std::vector<std::string>& inputs) {
  std::vector<TowersWriter> towers;
  for (std::size_t set = 0; set < inputs.size(); ++set) {
    towers.emplace_back(graph, model.sets()[set].towers, inputs[set]);
  }
  std::vector<std::string> logits;
  for (const TowerPlace& place : model.places()) {
    logits.push_back(towers[place.set].logit(place.tower));
  }
  const Recipe& recipe = model.schema().recipe();
  RatesWriter rates(graph, recipe, logits);
  SLUICE_TRY(rates.add("pctr", recipe.pctr));
  SLUICE_TRY(rates.add("pcvr", recipe.pcvr));
  SLUICE_TRY(rates.add("pctcvr", recipe.pctcvr));
  std::string file = graph.model("sluice", {{"schema", model.schema().json().dump()}});
  if (file.size() > kMostBytes) return too_large(file.size());
  return file;
}

std::string set_input(const ScoringModel& model, std::size_t set) {
  const auto& names = model.schema().recipe().embedding_sets;
  return names.size() == 1 ? "inputs" : "inputs." + names[set];
}

// ---- rows

// The rows of one embedding set.
class RowsWriter {
 public:
  RowsWriter(OnnxGraph& graph, std::size_t dim) : graph_(graph), dim_(dim) {
    std::vector<std::uint64_t> numbers;
    for (std::size_t j = 0; j < dim; ++j) numbers.push_back(j);
    columns_ = graph.constant<std::uint64_t>("#columns", {signed_size(dim)}, numbers);
    last_axis_ = graph.constant<std::int64_t>("#axis -1", {-1});
  }
  const std::string& last_axis() const { return last_axis_; }

  void add_table(const ServedTable& table, std::uint64_t seed) {
    std::vector<std::pair<std::uint64_t, const float*>> order;
    table.for_each([&](std::uint64_t key, const float* row) { order.emplace_back(key, row); });
    std::sort(order.begin(), order.end());
    std::vector<std::int64_t> keys, numbers;
    std::vector<float> values(dim_);  // row 0 stands for all that are not there
    for (const auto& [key, row] : order) {
      keys.push_back(static_cast<std::int64_t>(key));
      numbers.push_back(signed_size(keys.size()));
      values.insert(values.end(), row, row + dim_);
    }
    if (keys.empty()) {  // which no runtime need take: a key whose row is the one that is not there
      keys.push_back(0);
      numbers.push_back(0);
    }
    const OnnxGraph::Shape shape = {signed_size(keys.size())};
    const std::int64_t none = 0;
    encoders_.push_back(
        {OnnxAttribute::tensor("keys_tensor", OnnxGraph::tensor<std::int64_t>("", shape, keys)),
         OnnxAttribute::tensor("values_tensor",
                               OnnxGraph::tensor<std::int64_t>("", shape, numbers)),
         OnnxAttribute::tensor("default_tensor",
                               OnnxGraph::tensor<std::int64_t>("", {1}, {&none, 1}))});
    rows_.push_back(graph_.constant<float>(
        table.name() + ".rows", {signed_size(values.size() / dim_), signed_size(dim_)}, values));
    // initial_values.h: bits = mix64(mix64(stream + key) + j).
    streams_.push_back(graph_.scalar<std::uint64_t>(table.name() + ".stream",
                                                    hash64("embedding." + table.name(), seed)));
  }

  // The weighted sum of a feature's rows, f32 [n, dim].
  std::string pooled(const std::string& feature, std::size_t table) {
    const std::string number =
        graph_.node("LabelEncoder", {feature + ".keys"}, rows_[table] + " of " + feature,
                    encoders_[table], "ai.onnx.ml");
    const std::string there = graph_.node("Gather", {rows_[table], number});
    const std::string is_absent =
        graph_.node("Equal", {number, graph_.scalar<std::int64_t>("#none", 0)});
    const std::string row = graph_.node("Where", {graph_.node("Unsqueeze", {is_absent, last_axis_}),
                                                  initial(feature, table), there});
    const std::string weights = graph_.node("Unsqueeze", {feature + ".weights", last_axis_});
    return graph_.node(
        "ReduceSum",
        {graph_.node("Mul", {weights, row}), graph_.constant<std::int64_t>("#axis 1", {1})},
        {OnnxAttribute::integer("keepdims", 0)});
  }

 private:
  std::string u64(const std::string& name, std::uint64_t value) {
    return graph_.scalar<std::uint64_t>(name, value);
  }
  // Sums and products of 64-bit integers that wrap are the same with a sign and without, and
  // runtimes have them with one.
  std::string wrapping(const char* operation, const std::string& a, const std::string& b) {
    const std::string result =
        graph_.node(operation, {graph_.cast(a, OnnxType::i64), graph_.cast(b, OnnxType::i64)});
    return graph_.cast(result, OnnxType::u64);
  }
  std::string shifted(const std::string& x, std::uint64_t bits) {
    return graph_.node("BitShift", {x, u64("#bits " + std::to_string(bits), bits)},
                       {OnnxAttribute::text("direction", "RIGHT")});
  }
  std::string mix64(std::string x) {
    x = wrapping("Add", x, u64("#mix 0", 0x9e3779b97f4a7c15));
    x = graph_.node("BitwiseXor", {x, shifted(x, 30)});
    x = wrapping("Mul", x, u64("#mix 1", 0xbf58476d1ce4e5b9));
    x = graph_.node("BitwiseXor", {x, shifted(x, 27)});
    x = wrapping("Mul", x, u64("#mix 2", 0x94d049bb133111eb));
    return graph_.node("BitwiseXor", {x, shifted(x, 31)});
  }
  // [n, k, dim]
  std::string initial(const std::string& feature, std::size_t table) {
    const std::string key = graph_.cast(feature + ".keys", OnnxType::u64);
    const std::string start = mix64(wrapping("Add", key, streams_[table]));
    const std::string each = graph_.node("Unsqueeze", {start, last_axis_});
    const std::string bits = mix64(wrapping("Add", each, columns_));
    const std::string upper = graph_.cast(shifted(bits, 40), OnnxType::f64);  // below 2^24
    // t / 2^24 = upper / 2^23 + (2^-24 − 1), exact as each step of it is.
    const std::string t =
        graph_.node("Add", {graph_.node("Mul", {upper, graph_.scalar<double>("#2^-23", 0x1p-23)}),
                            graph_.scalar<double>("#2^-24 - 1", 0x1p-24 - 1)});
    return graph_.cast(
        graph_.node("Mul",
                    {t, graph_.scalar<double>("#range", kRowStandardDeviation * std::sqrt(3.0))}),
        OnnxType::f32);
  }

  OnnxGraph& graph_;
  std::size_t dim_;
  std::vector<std::vector<OnnxAttribute>> encoders_;
  std::vector<std::string> rows_, streams_;  // by table
  std::string columns_, last_axis_;
};

// The features in the order of the towers' columns: those of the context first.
std::vector<const Field*> fields_by_column(const Schema& schema) {
  std::vector<const Field*> fields;
  for (const bool is_context : {true, false}) {
    std::vector<const Field*> some;
    for (const Field& field : schema.fields()) {
      if (field.is_context == is_context) some.push_back(&field);
    }
    std::sort(some.begin(), some.end(),
              [](const Field* a, const Field* b) { return a->column < b->column; });
    fields.insert(fields.end(), some.begin(), some.end());
  }
  return fields;
}

std::size_t row_bytes(const ScoringModel& model) {
  std::size_t bytes = 0;
  for (const ScoringModel::Set& set : model.sets()) {
    for (const ServedTable& table : set.tables) {
      bytes += table.rows() * (16 + model.schema().dim() * sizeof(float));
    }
  }
  return bytes;
}

}  // namespace

Result<std::string> export_onnx_towers(const ScoringModel& model) {
  OnnxGraph graph;
  std::vector<std::string> inputs;
  for (std::size_t set = 0; set < model.sets().size(); ++set) {
    inputs.push_back(set_input(model, set));
    graph.input(inputs.back(), OnnxType::f32, {signed_size(model.schema().inputs().all())});
  }
  return finish(graph, model, inputs);
}

Result<std::string> export_onnx(const ScoringModel& model) {
  if (row_bytes(model) > kMostBytes) return too_large(row_bytes(model));
  const Schema& schema = model.schema();
  OnnxGraph graph;
  for (const Field& field : schema.fields()) {
    const std::string& name = field.feature.name;
    if (field.feature.is_dense()) {
      if (name == "pctr" || name == "pcvr" || name == "pctcvr") {
        return stop_error("its feature " + name + " has the name of an output");
      }
      graph.input(name, OnnxType::f32, {});
    } else {
      graph.input(name + ".keys", OnnxType::i64, {-1});
      graph.input(name + ".weights", OnnxType::f32, {-1});
    }
  }
  std::vector<std::string> inputs;
  std::optional<RowsWriter> rows;
  for (std::size_t set = 0; set < model.sets().size(); ++set) {
    rows.emplace(graph, schema.dim());
    for (const ServedTable& table : model.sets()[set].tables) {
      rows->add_table(table, schema.model().seed);
    }
    std::vector<std::string> parts;
    for (const Field* const field : fields_by_column(schema)) {
      const std::string& name = field->feature.name;
      parts.push_back(field->feature.is_dense() ? graph.node("Unsqueeze", {name, rows->last_axis()})
                                                : rows->pooled(name, field->table));
    }
    inputs.push_back(graph.node("Concat", parts, "#" + set_input(model, set),
                                {OnnxAttribute::integer("axis", 1)}));
  }
  return finish(graph, model, inputs);
}

}  // namespace sluice
