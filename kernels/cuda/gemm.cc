#include "kernels/cuda/gemm.h"

#include <cublasLt.h>

#include <map>
#include <tuple>

#include <fmt/format.h>

#include "kernels/cuda/shared_library.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // NVIDIA's advice for Hopper
constexpr std::size_t kMaxPlans = 4096;

// The functions of cuBLASLt that are used: what each is called here, and in the library.
// clang-format off
#define FINCHKV_CUBLASLT_FUNCTIONS(of)                     \
  of(create, cublasLtCreate)                               \
  of(destroy, cublasLtDestroy)                             \
  of(matmul, cublasLtMatmul)                               \
  of(desc_create, cublasLtMatmulDescCreate)                \
  of(desc_destroy, cublasLtMatmulDescDestroy)              \
  of(desc_set, cublasLtMatmulDescSetAttribute)             \
  of(layout_create, cublasLtMatrixLayoutCreate)            \
  of(layout_destroy, cublasLtMatrixLayoutDestroy)          \
  of(preference_create, cublasLtMatmulPreferenceCreate)    \
  of(preference_destroy, cublasLtMatmulPreferenceDestroy)  \
  of(preference_set, cublasLtMatmulPreferenceSetAttribute) \
  of(heuristic, cublasLtMatmulAlgoGetHeuristic)            \
  of(words, cublasLtGetStatusString)
// clang-format on

// Found at run time.
struct Lt {
#define FINCHKV_FIELD(name, function) decltype(&(function)) name = nullptr;
  FINCHKV_CUBLASLT_FUNCTIONS(FINCHKV_FIELD)
#undef FINCHKV_FIELD
};

template <typename F>
Status find(void* library, const char* name, F& function) {
  FINCHKV_ASSIGN_OR_RETURN(void* const address, find_function(library, name));
  function = reinterpret_cast<F>(address);
  return Status::ok();
}

Result<Lt> load() {
  FINCHKV_ASSIGN_OR_RETURN(void* const library, open_library("libcublasLt.so.13"));
  Lt lt;
#define FINCHKV_FIND(name, function) FINCHKV_RETURN_IF_ERROR(find(library, #function, lt.name));
  FINCHKV_CUBLASLT_FUNCTIONS(FINCHKV_FIND)
#undef FINCHKV_FIND
  return lt;
}

// What decides a plan.
struct Shape {
  std::int64_t n, out, in, x_stride, y_stride;
  ElementType y_type;
  bool accumulate, rounded;
  [[nodiscard]] auto key() const { return std::tie(n, out, in, x_stride, y_stride, y_type, accumulate, rounded); }
  bool operator<(const Shape& other) const { return key() < other.key(); }
};

// cuBLASLt is column-major: y^T [out, n] = (W^T)^T x^T, so W is its transposed A and x its B.
struct Plan {
  explicit Plan(const Lt& functions) : lt(&functions) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {w, x, y})
      if (layout != nullptr) static_cast<void>(lt->layout_destroy(layout));
    if (operation != nullptr) static_cast<void>(lt->desc_destroy(operation));
  }
  const Lt* lt;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

}  // namespace

struct Gemm::Impl {
  explicit Impl(const Lt& functions) : lt(functions) {}
  ~Impl() {
    plans.clear();
    if (handle != nullptr) static_cast<void>(lt.destroy(handle));
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  [[nodiscard]] Status status(cublasStatus_t code, const char* what) const {
    if (code == CUBLAS_STATUS_SUCCESS) return Status::ok();
    return Status::internal(fmt::format("cuBLASLt failed at {}: {}", what, lt.words(code)));
  }
  Status make(const Shape& s, Plan& plan) const;
  Result<const Plan*> plan_for(const Shape& s);
  void run(Runtime& rt, const Shape& s, const void* x, const void* x_scales, const void* w, const void* w_scales,
           const Tensor& y);

  Lt lt;
  cublasLtHandle_t handle = nullptr;
  std::shared_ptr<void> workspace;
  std::map<Shape, std::unique_ptr<Plan>> plans;
};

Gemm::Gemm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gemm::~Gemm() = default;

Result<std::unique_ptr<Gemm>> Gemm::create(Runtime& rt) {
  FINCHKV_ASSIGN_OR_RETURN(const Lt lt, load());
  auto impl = std::make_unique<Impl>(lt);
  FINCHKV_RETURN_IF_ERROR(impl->status(lt.create(&impl->handle), "starting"));
  FINCHKV_ASSIGN_OR_RETURN(impl->workspace, rt.allocate(kWorkspaceBytes));
  return std::unique_ptr<Gemm>(new Gemm(std::move(impl)));
}

Status Gemm::Impl::make(const Shape& s, Plan& plan) const {
  const auto rows = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const cudaDataType_t y_type = s.y_type == ElementType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
  const cublasOperation_t transposed = CUBLAS_OP_T;
  FINCHKV_RETURN_IF_ERROR(status(lt.desc_create(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product"));
  FINCHKV_RETURN_IF_ERROR(
      status(lt.desc_set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)), "a product"));
  const cudaDataType_t type = s.rounded ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  if (s.rounded) {
    // One scale a row of W and of x: as exact as 8 bits get, and on Hopper nearly as fast as one scale for all.
    const std::int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    // The heuristic wants to see the scales' addresses; run() sets those of the call.
    const void* some_scales = workspace.get();
    for (const auto which : {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER})
      FINCHKV_RETURN_IF_ERROR(
          status(lt.desc_set(plan.operation, which, &some_scales, sizeof(some_scales)), "scales of 8-bit rows"));
    const std::int8_t fast = 1;
    FINCHKV_RETURN_IF_ERROR(
        status(lt.desc_set(plan.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)), "8-bit products"));
    for (const auto which : {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE})
      FINCHKV_RETURN_IF_ERROR(status(lt.desc_set(plan.operation, which, &mode, sizeof(mode)), "scales of 8-bit rows"));
  }
  FINCHKV_RETURN_IF_ERROR(status(lt.layout_create(&plan.w, type, rows(s.in), rows(s.out), s.in), "a product"));
  FINCHKV_RETURN_IF_ERROR(status(lt.layout_create(&plan.x, type, rows(s.in), rows(s.n), s.x_stride), "a product"));
  FINCHKV_RETURN_IF_ERROR(status(lt.layout_create(&plan.y, y_type, rows(s.out), rows(s.n), s.y_stride), "a product"));
  cublasLtMatmulPreference_t preference = nullptr;
  FINCHKV_RETURN_IF_ERROR(status(lt.preference_create(&preference), "a product"));
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  Status chosen = status(lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                           sizeof(kWorkspaceBytes)),
                         "a product");
  if (chosen.is_ok()) {
    chosen = status(lt.heuristic(handle, plan.operation, plan.w, plan.x, plan.y, plan.y, preference, 1, &found, &count),
                    "choosing an algorithm");
  }
  static_cast<void>(lt.preference_destroy(preference));
  FINCHKV_RETURN_IF_ERROR(chosen);
  if (count == 0) {
    return Status::unsupported(
        fmt::format("cuBLASLt has no algorithm for a product of {} x {} x {}", s.n, s.out, s.in));
  }
  plan.algorithm = found.algo;
  return Status::ok();
}

Result<const Plan*> Gemm::Impl::plan_for(const Shape& s) {
  if (const auto found = plans.find(s); found != plans.end()) return found->second.get();
  if (plans.size() >= kMaxPlans) plans.clear();  // one shape per length of text: they cannot grow for ever
  auto plan = std::make_unique<Plan>(lt);
  FINCHKV_RETURN_IF_ERROR(make(s, *plan));
  return plans.emplace(s, std::move(plan)).first->second.get();
}

void Gemm::Impl::run(Runtime& rt, const Shape& s, const void* x, const void* x_scales, const void* w,
                     const void* w_scales, const Tensor& y) {
  if (s.n == 0) return;
  const auto plan = plan_for(s);
  if (!plan.is_ok()) return rt.keep(plan.status());
  const Plan& p = **plan;
  if (s.rounded) {
    cublasStatus_t set = lt.desc_set(p.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w_scales, sizeof(w_scales));
    if (set == CUBLAS_STATUS_SUCCESS)
      set = lt.desc_set(p.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x_scales, sizeof(x_scales));
    if (set != CUBLAS_STATUS_SUCCESS) return rt.keep(status(set, "scales of 8-bit rows"));
  }
  const float one = 1.0F, beta = s.accumulate ? 1.0F : 0.0F;
  const cublasStatus_t code = lt.matmul(handle, p.operation, &one, w, p.w, x, p.x, &beta, y.data(), p.y, y.data(), p.y,
                                        &p.algorithm, workspace.get(), kWorkspaceBytes, rt.stream());
  if (code != CUBLAS_STATUS_SUCCESS) rt.keep(status(code, "a product"));
}

void Gemm::multiply(Runtime& rt, const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate) {
  impl_->run(rt, {x.dim(0), w.dim(0), w.dim(1), x.stride(0), y.stride(0), y.type(), accumulate, false}, x.data(),
             nullptr, w.data(), nullptr, y);
}

void Gemm::multiply(Runtime& rt, const Rounded& x, const Rounded& w, const Tensor& y, bool accumulate) {
  impl_->run(rt, {x.rows, w.rows, x.width, x.width, y.stride(0), y.type(), accumulate, true}, x.data, x.scales, w.data,
             w.scales, y);
}

}  // namespace finchkv::kernels::cuda
