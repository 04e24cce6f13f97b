#include "kernels/cuda/attention_cudnn.h"

#include <map>
#include <stdexcept>
#include <tuple>
#include <unordered_map>

#include <fmt/format.h>

#include "kernels/cuda/shared_library.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING  // cuDNN is opened at run time, as the other libraries are
#define CUDNN_FRONTEND_SKIP_JSON_LIB           // nothing here writes graphs down, and half of compiling was that
#include <cudnn_frontend.h>

// The frontend finds cuDNN's functions through this.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}  // namespace cudnn_frontend

namespace finchkv::kernels::cuda {
namespace {

namespace fe = cudnn_frontend;

constexpr std::size_t kMaxPlans = 1024;
enum Uid : std::int64_t { kQ = 1, kK, kV, kOut, kLse };

struct Shape {
  std::int64_t n, total, heads, kv_heads, d;
  std::int64_t q_row, q_head, k_head, k_row, v_head, v_row, out_row, out_head, lse_row;
  float scale;
  [[nodiscard]] auto key() const {
    return std::tie(n, total, heads, kv_heads, d, q_row, q_head, k_head, k_row, v_head, v_row, out_row, out_head,
                    lse_row, scale);
  }
  bool operator<(const Shape& other) const { return key() < other.key(); }
};

struct Plan {
  fe::graph::Graph graph;
  std::size_t workspace_bytes = 0;
};

Status told(fe::error_t error, const char* what) {
  if (error.is_good()) return Status::ok();
  return Status::unsupported(fmt::format("cuDNN cannot do this attention ({}): {}", what, error.get_message()));
}

}  // namespace

struct CudnnAttention::Impl {
  ~Impl() {
    plans.clear();
    if (handle != nullptr) static_cast<void>(fe::detail::destroy_handle(handle));
  }
  Result<Plan*> plan_for(const Shape& s);
  Status make(const Shape& s, Plan& plan) const;

  cudnnHandle_t handle = nullptr;
  std::string version;
  std::map<Shape, std::unique_ptr<Plan>> plans;
};

CudnnAttention::CudnnAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CudnnAttention::~CudnnAttention() = default;
const std::string& CudnnAttention::version() const { return impl_->version; }

Result<std::unique_ptr<CudnnAttention>> CudnnAttention::create(Runtime& rt) {
  FINCHKV_ASSIGN_OR_RETURN(fe::cudnn_dlhandle, open_library("libcudnn.so.9"));
  auto impl = std::make_unique<Impl>();
  try {
    if (fe::detail::create_handle(&impl->handle) != CUDNN_STATUS_SUCCESS) {
      return Status::unavailable("cuDNN did not start on this GPU");
    }
    if (fe::detail::set_stream(impl->handle, rt.stream()) != CUDNN_STATUS_SUCCESS) {
      return Status::unavailable("cuDNN did not take the stream");
    }
    const auto number = fe::detail::get_backend_version();
    impl->version = fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
  } catch (const std::exception& e) {
    return Status::unavailable(fmt::format("cuDNN cannot be used: {}", e.what()));
  }
  return std::unique_ptr<CudnnAttention>(new CudnnAttention(std::move(impl)));
}

bool CudnnAttention::takes(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out) const {
  const std::int64_t d = q.dim(2);
  if (q.type() != ElementType::kBF16 || d % 8 != 0 || d > 128) return false;
  for (const Tensor* t : {&q, &k, &v, &out}) {
    const bool aligned = reinterpret_cast<std::uintptr_t>(t->data()) % 16 == 0;
    if (!aligned || t->stride(0) % 8 != 0 || t->stride(1) % 8 != 0) return false;
  }
  return true;
}

Status CudnnAttention::Impl::make(const Shape& s, Plan& plan) const {
  using Dims = std::vector<std::int64_t>;
  fe::graph::Graph& g = plan.graph;
  g.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto tensor = [&](Uid uid, const char* name, std::int64_t heads, std::int64_t rows, std::int64_t head_stride,
                          std::int64_t row_stride) {
    return g.tensor(fe::graph::Tensor_attributes()
                        .set_name(name)
                        .set_uid(uid)
                        .set_dim(Dims{1, heads, rows, s.d})
                        .set_stride(Dims{heads * rows * s.d, head_stride, row_stride, 1}));
  };
  const auto q = tensor(kQ, "q", s.heads, s.n, s.q_head, s.q_row);
  const auto k = tensor(kK, "k", s.kv_heads, s.total, s.k_head, s.k_row);
  const auto v = tensor(kV, "v", s.kv_heads, s.total, s.v_head, s.v_row);
  auto options = fe::graph::SDPA_attributes()
                     .set_name("attention")
                     .set_generate_stats(s.lse_row != 0)
                     .set_attn_scale(s.scale)
                     .set_causal_mask_bottom_right(true);
  auto [out, stats] = g.sdpa(q, k, v, options);
  out->set_output(true)
      .set_uid(kOut)
      .set_dim(Dims{1, s.heads, s.n, s.d})
      .set_stride(Dims{s.heads * s.n * s.d, s.out_head, s.out_row, 1});
  if (s.lse_row != 0) {
    stats->set_output(true)
        .set_uid(kLse)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim(Dims{1, s.heads, s.n, 1})
        .set_stride(Dims{s.n * s.lse_row, 1, s.lse_row, 1});
  }
  FINCHKV_RETURN_IF_ERROR(told(g.build(handle, {fe::HeurMode_t::A}), "building"));
  std::int64_t bytes = 0;
  FINCHKV_RETURN_IF_ERROR(told(g.get_workspace_size(bytes), "its working memory"));
  plan.workspace_bytes = static_cast<std::size_t>(bytes);
  return Status::ok();
}

Result<Plan*> CudnnAttention::Impl::plan_for(const Shape& s) {
  if (const auto found = plans.find(s); found != plans.end()) {
    if (found->second == nullptr) return Status::unsupported("cuDNN refused this shape before");
    return found->second.get();
  }
  if (plans.size() >= kMaxPlans) plans.clear();
  auto plan = std::make_unique<Plan>();
  Status made = make(s, *plan);
  if (!made.is_ok()) {
    plans.emplace(s, nullptr);
    return made;
  }
  return plans.emplace(s, std::move(plan)).first->second.get();
}

Status CudnnAttention::run(Runtime& rt, const Tensor& q, const Tensor& k, const Tensor& v, float scale,
                           const Tensor& out, const Tensor& lse) {
  try {
    const Shape shape{q.dim(0),      k.dim(1),
                      q.dim(1),      k.dim(0),
                      q.dim(2),      q.stride(0),
                      q.stride(1),   k.stride(0),
                      k.stride(1),   v.stride(0),
                      v.stride(1),   out.stride(0),
                      out.stride(1), lse.empty() ? 0 : lse.stride(0),
                      scale};
    FINCHKV_ASSIGN_OR_RETURN(Plan* const plan, impl_->plan_for(shape));
    FINCHKV_ASSIGN_OR_RETURN(const std::shared_ptr<void> workspace, rt.allocate(plan->workspace_bytes));
    std::unordered_map<std::int64_t, void*> pack = {{kQ, q.data()}, {kK, k.data()}, {kV, v.data()}, {kOut, out.data()}};
    if (!lse.empty()) pack.emplace(kLse, lse.data());
    return told(plan->graph.execute(impl_->handle, pack, workspace.get()), "running");
  } catch (const std::exception& e) {
    return Status::unavailable(fmt::format("cuDNN failed: {}", e.what()));
  }
}

}  // namespace finchkv::kernels::cuda
