#include "kernels/cuda/linear.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/e4m3.h"

namespace finchkv::kernels::cuda {
namespace {

constexpr std::size_t kSliceBytes = std::size_t{64} << 20;  // of f32 rows on their way
constexpr std::int64_t kRowsPerTask = 16;

}  // namespace

std::size_t CudaLinear::bytes() const {
  const auto values = static_cast<std::size_t>(out_ * in_);
  if (rounded_) return values + static_cast<std::size_t>(out_) * sizeof(float);
  return values * element_size(weights_.type());
}

WeightView CudaLinear::view() const {
  if (rounded_) return {rounded_.get(), static_cast<const float*>(scales_.get()), out_, in_};
  return {weights_.data(), nullptr, out_, in_};
}

Result<bool> CudaLinear::round_to_8_bits(Runtime& rt) {
  if (!takes_e4m3(in_, out_) || !quantise_rows_takes(weights_)) return false;
  FINCHKV_ASSIGN_OR_RETURN(rounded_, rt.allocate(static_cast<std::size_t>(out_ * in_)));
  FINCHKV_ASSIGN_OR_RETURN(scales_, rt.allocate(static_cast<std::size_t>(out_) * sizeof(float)));
  quantise_rows(rt, weights_, static_cast<std::uint8_t*>(rounded_.get()), static_cast<float*>(scales_.get()));
  weights_ = {};
  return true;
}

void CudaLinear::multiply(Runtime& rt, Gemm* gemm, const Tensor& x, const Tensor& y, bool accumulate) const {
  if (x.type() == ElementType::kF32) return gemm_f32(rt, x, weights_, y, accumulate);
  if (few_rows_takes(x, view())) return few_rows(rt, x, view(), y, accumulate);
  if (!rounded_) return gemm->multiply(rt, x, weights_, y, accumulate);
  const std::int64_t n = x.dim(0);
  const auto narrow_x = rt.scratch(static_cast<std::size_t>(n * in_));
  const auto x_scales = rt.scratch(static_cast<std::size_t>(n) * sizeof(float));
  if (narrow_x == nullptr || x_scales == nullptr) return;
  quantise_rows(rt, x, static_cast<std::uint8_t*>(narrow_x.get()), static_cast<float*>(x_scales.get()));
  gemm->multiply(rt, {narrow_x.get(), static_cast<const float*>(x_scales.get()), n, in_},
                 {rounded_.get(), static_cast<const float*>(scales_.get()), out_, in_}, y, accumulate);
}

void CudaLinear::multiply_swiglu(Runtime& rt, Gemm* gemm, const Tensor& x, const Tensor& y) const {
  if (few_rows_takes(x, view())) return few_rows_swiglu(rt, x, view(), y);
  const std::int64_t n = x.dim(0);
  const auto memory = rt.scratch(static_cast<std::size_t>(n * out_) * element_size(x.type()));
  if (memory == nullptr) return;
  const Tensor product(memory, x.type(), {n, out_});
  multiply(rt, gemm, x, product, false);
  swiglu(rt, product, y);
}

Result<Tensor> upload_rows(Runtime& rt, ThreadPool& pool, std::initializer_list<const LinearSource*> sources,
                           ElementType type) {
  const std::int64_t in = (*sources.begin())->in;
  std::int64_t out = 0;
  for (const LinearSource* s : sources) out += s->out;
  const auto values = static_cast<std::size_t>(in) * static_cast<std::size_t>(out);
  FINCHKV_ASSIGN_OR_RETURN(const auto memory, rt.allocate(values * element_size(type)));
  const Tensor all(memory, type, {out, in});
  const auto row_bytes = static_cast<std::size_t>(in) * sizeof(float);
  const auto slice_rows =
      static_cast<std::int64_t>(std::max<std::size_t>(1, kSliceBytes / std::max<std::size_t>(row_bytes, 1)));
  std::vector<float> host(static_cast<std::size_t>(std::min(slice_rows, out)) * static_cast<std::size_t>(in));
  FINCHKV_ASSIGN_OR_RETURN(const auto wide, rt.allocate(type == ElementType::kF32 ? 0 : host.size() * sizeof(float)));
  std::int64_t row = 0;
  for (const LinearSource* s : sources) {
    for (std::int64_t first = 0; first < s->out; first += slice_rows) {
      const std::int64_t count = std::min(slice_rows, s->out - first);
      pool.run((count + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t i, int) {
        const std::int64_t at = i * kRowsPerTask;
        s->rows(first + at, std::min(kRowsPerTask, count - at), host.data() + at * in);
      });
      const Tensor to = all.slice(0, row, count);
      const auto bytes = static_cast<std::size_t>(count) * row_bytes;
      if (type == ElementType::kF32) {
        rt.upload(host.data(), to.data(), bytes);
      } else {
        rt.upload(host.data(), wide.get(), bytes);
        narrow(rt, static_cast<const float*>(wide.get()), to.data(), count * in);
      }
      row += count;
    }
  }
  if (rt.failed()) return rt.synchronize();
  return all;
}

}  // namespace finchkv::kernels::cuda
