// The bare matrix products of the bench network's training step, by oneDNN: what the products alone
// would allow. Look-ups, activations, loss and optimizers are not in it, and nor is any change of
// layout: each product is given its operands as it is fastest with them.
//
//   roofline_bench [--threads N] [--precision f32|bf16]      as bench/serve.h says
//
// Several threads share the rows of a batch and wait for nobody; each keeps its own weight
// gradients.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <omp.h>
#include <CLI/CLI.hpp>
#include <dnnl.hpp>

#include "bench/serve.h"

namespace {

using SteadyClock = std::chrono::steady_clock;
using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

constexpr double kTrialSeconds = 0.01;
constexpr int kTrials = 3;
constexpr double kHopeless = 4;  // the first run, not yet warm, over the best so far

// C[m, n] = A[m, k] · B[k, n], for each of `copies` pairs of operands.
struct Shape {
  dnnl::memory::dim m, n, k;
  int copies;
};

// 360 inputs; the towers' first layers are one product of 400 columns, then 200 -> 80 in each. The
// logit layers are left out: they are 0.05 % of the work.
std::vector<Shape> shapes_of(dnnl::memory::dim rows) {
  return {
      {rows, 400, 360, 1}, {rows, 80, 200, 2},  // forward
      {rows, 360, 400, 1}, {rows, 200, 80, 2},  // gradients of the inputs
      {360, 400, rows, 1}, {200, 80, rows, 2},  // gradients of the weights
  };
}

// One way to have oneDNN compute a product.
struct Way {
  enum class Kind { matmul, inner_product, weight_gradient };
  Kind kind;
  Tag a;     // ab or ba (stored transposed), of the [m, k] operand
  Tag b;     // ab, ba or any (packed), of the [k, n] operand
  Type out;  // f32, or bf16 too where the operands are
};

class Product {
 public:
  // None where oneDNN does not offer this way, or with its slow reference code only.
  static std::optional<Product> make(const dnnl::engine& engine, const Shape& shape, Type type,
                                     const Way& way) try {
    Product product(engine);
    if (way.kind == Way::Kind::matmul) product.make_matmul(shape, type, way);
    if (way.kind == Way::Kind::inner_product) product.make_inner(shape, type, way);
    if (way.kind == Way::Kind::weight_gradient) product.make_gradient(shape, type, way);
    if (product.is_reference_) return std::nullopt;
    return product;
  } catch (const dnnl::error&) {
    return std::nullopt;
  }

  void run(dnnl::stream& stream) const { primitive_.execute(stream, arguments_); }

 private:
  explicit Product(const dnnl::engine& engine) : engine_(engine) {}

  void make_matmul(const Shape& shape, Type type, const Way& way) {
    const dnnl::matmul::desc desc({{shape.m, shape.k}, type, way.a},
                                  {{shape.k, shape.n}, type, way.b},
                                  {{shape.m, shape.n}, way.out, Tag::ab});
    const dnnl::matmul::primitive_desc chosen(desc, own_scratch(), engine_);
    primitive_ = dnnl::matmul(chosen);
    operand(DNNL_ARG_SRC, chosen.src_desc());
    operand(DNNL_ARG_WEIGHTS, chosen.weights_desc());
    operand(DNNL_ARG_DST, chosen.dst_desc());
    operand(DNNL_ARG_SCRATCHPAD, chosen.scratchpad_desc());
    is_reference_ = is_reference(chosen);
  }

  // Inner products name their weights [n, k].
  void make_inner(const Shape& shape, Type type, const Way& way) {
    const Tag weights = way.b == Tag::ab ? Tag::ba : way.b == Tag::ba ? Tag::ab : Tag::any;
    const dnnl::inner_product_forward::desc desc(
        dnnl::prop_kind::forward_inference, {{shape.m, shape.k}, type, way.a},
        {{shape.n, shape.k}, type, weights}, {{shape.m, shape.n}, way.out, Tag::ab});
    const dnnl::inner_product_forward::primitive_desc chosen(desc, own_scratch(), engine_);
    primitive_ = dnnl::inner_product_forward(chosen);
    operand(DNNL_ARG_SRC, chosen.src_desc());
    operand(DNNL_ARG_WEIGHTS, chosen.weights_desc());
    operand(DNNL_ARG_DST, chosen.dst_desc());
    operand(DNNL_ARG_SCRATCHPAD, chosen.scratchpad_desc());
    is_reference_ = is_reference(chosen);
  }

  // The same as C = Xᵀ · dZ with X [k, m] and dZ [k, n].
  void make_gradient(const Shape& shape, Type type, const Way& way) {
    const dnnl::memory::desc src({shape.k, shape.m}, type, Tag::ab);
    const dnnl::memory::desc diff_dst({shape.k, shape.n}, type, Tag::ab);
    const dnnl::memory::desc diff_weights({shape.n, shape.m}, way.out, way.b);
    const dnnl::inner_product_forward::desc forward(dnnl::prop_kind::forward_training, src,
                                                    {{shape.n, shape.m}, type, Tag::any}, diff_dst);
    const dnnl::inner_product_forward::primitive_desc hint(forward, engine_);
    const dnnl::inner_product_backward_weights::desc desc(src, diff_weights, diff_dst);
    const dnnl::inner_product_backward_weights::primitive_desc chosen(desc, own_scratch(), engine_,
                                                                      hint);
    primitive_ = dnnl::inner_product_backward_weights(chosen);
    operand(DNNL_ARG_SRC, chosen.src_desc());
    operand(DNNL_ARG_DIFF_WEIGHTS, chosen.diff_weights_desc());
    operand(DNNL_ARG_DIFF_DST, chosen.diff_dst_desc());
    operand(DNNL_ARG_SCRATCHPAD, chosen.scratchpad_desc());
    is_reference_ = is_reference(chosen);
  }

  static bool is_reference(const dnnl::primitive_desc_base& chosen) {
    return std::string(chosen.impl_info_str()).find("ref") != std::string::npos;
  }

  static dnnl::primitive_attr own_scratch() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return attributes;
  }

  // Memory whose bytes are 0x3c: about 0.01 in f32 and bf16, in whatever layout; no denormals.
  void operand(int name, const dnnl::memory::desc& desc) {
    dnnl::memory memory(desc, engine_);
    if (desc.get_size() > 0) {
      std::fill_n(static_cast<char*>(memory.get_data_handle()), desc.get_size(), 0x3c);
    }
    arguments_[name] = memory;
  }

  dnnl::engine engine_;
  dnnl::primitive primitive_;
  bool is_reference_ = false;
  std::unordered_map<int, dnnl::memory> arguments_;
};

// Seconds of one run, the best of a few trials; of one run alone where that is no match for
// `limit`.
double seconds_of(const Product& product, dnnl::stream& stream, double limit) {
  const SteadyClock::time_point start = SteadyClock::now();
  product.run(stream);
  const std::chrono::duration<double> first = SteadyClock::now() - start;
  double best = first.count();
  if (best > kHopeless * limit) return best;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::size_t runs = 0;
    const SteadyClock::time_point begin = SteadyClock::now();
    std::chrono::duration<double> elapsed{};
    do {
      product.run(stream);
      ++runs;
      elapsed = SteadyClock::now() - begin;
    } while (elapsed.count() < kTrialSeconds);
    best = std::min(best, elapsed.count() / static_cast<double>(runs));
  }
  return best;
}

std::vector<Way> all_ways(Type type) {
  std::vector<Way> ways;
  for (const Type out : {Type::f32, Type::bf16}) {
    if (out == Type::bf16 && type == Type::f32) continue;
    for (const Tag b : {Tag::ab, Tag::ba, Tag::any}) {
      for (const Tag a : {Tag::ab, Tag::ba}) {
        ways.push_back({Way::Kind::matmul, a, b, out});
        ways.push_back({Way::Kind::inner_product, a, b, out});
      }
      ways.push_back({Way::Kind::weight_gradient, Tag::ab, b, out});
    }
  }
  return ways;
}

Way fastest_way(const dnnl::engine& engine, const Shape& shape, Type type) {
  dnnl::stream stream(engine);
  std::optional<Way> best;
  double best_seconds = 1;
  for (const Way& way : all_ways(type)) {
    const std::optional<Product> product = Product::make(engine, shape, type, way);
    if (!product) continue;
    const double seconds = seconds_of(*product, stream, best_seconds);
    if (!best || seconds < best_seconds) {
      best = way;
      best_seconds = seconds;
    }
  }
  return best.value();
}

// The step's products for so many rows, with memory of its own for every operand.
std::vector<Product> make_step(const dnnl::engine& engine, const std::vector<Shape>& shapes,
                               const std::vector<Way>& ways, Type type) {
  std::vector<Product> step;
  for (std::size_t n = 0; n < shapes.size(); ++n) {
    for (int copy = 0; copy < shapes[n].copies; ++copy) {
      step.push_back(Product::make(engine, shapes[n], type, ways[n]).value());
    }
  }
  return step;
}

class Roofline {
 public:
  Roofline(Type type, std::size_t threads)
      : type_(type), threads_(threads), engine_(dnnl::engine::kind::cpu, 0) {}

  sluice::bench::Slice run(std::size_t batch, double seconds) {
    const auto rows = static_cast<dnnl::memory::dim>(batch / threads_);
    const auto [found, is_new] = steps_.try_emplace(batch);
    if (is_new) {
      const std::vector<Shape> shapes = shapes_of(rows);
      std::vector<Way> ways;
      for (const Shape& shape : shapes) ways.push_back(fastest_way(engine_, shape, type_));
      for (std::size_t t = 0; t < threads_; ++t) {
        found->second.push_back(make_step(engine_, shapes, ways, type_));
      }
    }
    std::vector<double> rates(threads_);
    std::vector<std::thread> others;
    for (std::size_t t = 1; t < threads_; ++t) {
      others.emplace_back([&, t] { rates[t] = repeat(found->second[t], rows, seconds); });
    }
    rates[0] = repeat(found->second[0], rows, seconds);
    for (std::thread& other : others) other.join();
    double rate = 0;
    for (const double of_thread : rates) rate += of_thread;
    return {static_cast<std::size_t>(rate * seconds), seconds, {}};
  }

 private:
  // Rows a second.
  double repeat(const std::vector<Product>& step, dnnl::memory::dim rows, double seconds) const {
    omp_set_num_threads(1);  // holds for this thread alone
    dnnl::stream stream(engine_);
    std::size_t steps = 0;
    const SteadyClock::time_point begin = SteadyClock::now();
    std::chrono::duration<double> elapsed{};
    do {
      for (const Product& product : step) product.run(stream);
      ++steps;
      elapsed = SteadyClock::now() - begin;
    } while (elapsed.count() < seconds);
    return static_cast<double>(steps) * static_cast<double>(rows) / elapsed.count();
  }

  Type type_;
  std::size_t threads_;
  dnnl::engine engine_;
  std::map<std::size_t, std::vector<std::vector<Product>>> steps_;  // by batch, then thread
};

const char* isa_name() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx2:
      return "avx2";
    case dnnl::cpu_isa::avx512_core:
      return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "avx512_core_amx";
    default:
      return "other";
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t threads = 1;
  std::string precision = "f32";
  CLI::App app("Matrix products alone");
  app.add_option("--threads", threads)->check(CLI::Range(1, 64));
  app.add_option("--precision", precision)->check(CLI::IsMember({"f32", "bf16"}));
  CLI11_PARSE(app, argc, argv);

  omp_set_num_threads(1);
  const dnnl_version_t* const version = dnnl_version();
  std::printf("{\"isa\": \"%s\", \"onednn\": \"%d.%d.%d\"}\n", isa_name(), version->major,
              version->minor, version->patch);
  std::fflush(stdout);
  Roofline roofline(precision == "bf16" ? Type::bf16 : Type::f32, threads);
  return sluice::bench::serve(
      [&](std::size_t batch, double seconds) { return roofline.run(batch, seconds); });
}
