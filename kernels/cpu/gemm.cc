#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <dnnl.hpp>
#include <new>

#include <fmt/format.h>

#include "base/kvset.h"

namespace finchkv::kernels::cpu {
namespace {

const dnnl::engine& engine() {
  static const dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

dnnl::memory::data_type dnnl_type(ElementType t) {
  return t == ElementType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

// Debian's oneDNN runs on OpenMP. Each worker is one thread of our pool and must stay one: the setting is per thread,
// and the caller's own is put back because the thread may belong to a program that uses OpenMP itself.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~SingleThreaded() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

// What one worker needs to run: memory objects whose handles are set before each call, and its scratchpad.
struct Slot {
  explicit Slot(const dnnl::matmul::primitive_desc& pd)
      : stream(engine()),
        a(pd.src_desc(), engine(), nullptr),
        b(pd.weights_desc(), engine(), nullptr),
        c(pd.dst_desc(), engine(), nullptr),
        scratch_bytes(pd.scratchpad_desc().get_size()),
        scratch(pd.scratchpad_desc(), engine(), scratch_bytes.as<void>()) {}
  dnnl::stream stream;
  dnnl::memory a, b, c;
  AlignedBuffer scratch_bytes;
  dnnl::memory scratch;
};

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes) { ensure(bytes); }

void AlignedBuffer::ensure(std::size_t bytes) {
  if (bytes <= size && data) return;
  data = allocate_shared_bytes(bytes);
  if (!data) throw std::bad_alloc();
  size = bytes;
}

struct Gemm::Impl {
  Shape shape;
  dnnl::matmul::primitive_desc pd;
  dnnl::matmul primitive;
  std::vector<std::unique_ptr<Slot>> slots;
};

Gemm::Gemm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gemm::~Gemm() = default;
const Gemm::Shape& Gemm::shape() const { return impl_->shape; }
std::size_t Gemm::packed_bytes() const { return impl_->pd.weights_desc().get_size(); }

Result<std::unique_ptr<Gemm>> Gemm::create(const Shape& s, int n_workers, const Gemm* like) {
  using dnnl::memory;
  try {
    const SingleThreaded single;  // oneDNN plans for the threads it sees
    const memory::desc a({s.m, s.k}, dnnl_type(s.type), memory::dims{s.lda, 1});
    const memory::desc b = like != nullptr ? like->impl_->pd.weights_desc()
                                           : memory::desc({s.k, s.n}, dnnl_type(s.type), memory::format_tag::any);
    const memory::desc c({s.m, s.n}, memory::data_type::f32, memory::dims{s.ldc, 1});
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (s.accumulate) {
      dnnl::post_ops ops;
      ops.append_sum(1.0F);
      attr.set_post_ops(ops);
    }
    auto impl = std::make_unique<Impl>();
    impl->shape = s;
    impl->pd = dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attr, engine());
    impl->primitive = dnnl::matmul(impl->pd);
    impl->slots.resize(static_cast<std::size_t>(n_workers));
    return std::unique_ptr<Gemm>(new Gemm(std::move(impl)));
  } catch (const dnnl::error& e) {
    return Status::internal(
        fmt::format("oneDNN cannot multiply [{} x {}] by [{} x {}]: {}", s.m, s.k, s.k, s.n, e.what()));
  } catch (const std::bad_alloc&) {
    return Status::resource_exhausted("no memory for oneDNN's scratchpads");
  }
}

void Gemm::pack(const void* plain, std::int64_t row_stride, std::int64_t column_stride, void* packed) const {
  const SingleThreaded single;
  const Shape& s = impl_->shape;
  const dnnl::memory::desc from({s.k, s.n}, dnnl_type(s.type), dnnl::memory::dims{row_stride, column_stride});
  dnnl::memory src(from, engine(), const_cast<void*>(plain));
  dnnl::memory dst(impl_->pd.weights_desc(), engine(), packed);
  dnnl::stream stream(engine());
  dnnl::reorder(src, dst).execute(stream, src, dst);
  stream.wait();
}

void Gemm::run(int worker, const void* a, const void* packed_b, float* c) const {
  const SingleThreaded single;
  auto& own = impl_->slots[static_cast<std::size_t>(worker)];
  if (!own) own = std::make_unique<Slot>(impl_->pd);  // many threads times many shapes: only what is used
  Slot& slot = *own;
  dnnl_memory_set_data_handle(slot.a.get(), const_cast<void*>(a));
  dnnl_memory_set_data_handle(slot.b.get(), const_cast<void*>(packed_b));
  dnnl_memory_set_data_handle(slot.c.get(), c);
  // The C call takes its arguments as an array; the C++ one would build a hash map for every tile.
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, slot.a.get()},
                                  {DNNL_ARG_WEIGHTS, slot.b.get()},
                                  {DNNL_ARG_DST, slot.c.get()},
                                  {DNNL_ARG_SCRATCHPAD, slot.scratch.get()}};
  const dnnl_status_t status = dnnl_primitive_execute(impl_->primitive.get(), slot.stream.get(), 4, args);
  assert(status == dnnl_success);
  static_cast<void>(status);
}

}  // namespace finchkv::kernels::cpu
