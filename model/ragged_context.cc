#include "model/ragged_context.h"

#include <fmt/format.h>

namespace finchkv::model {

Status RaggedContext::attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k,
                             const kernels::Tensor& v, const kernels::Tensor& out) {
  touched_ = true;
  std::int64_t first = 0;
  for (Member& member : members_) {
    if (first + member.rows > q.dim(0)) break;
    const auto rows = [&, at = first](const kernels::Tensor& t) { return t.slice(0, at, member.rows); };
    first += member.rows;
    if (!member.failure.is_ok()) continue;
    Status done = member.context->attend(layer, rows(q), rows(k), rows(v), rows(out));
    if (done.code() == StatusCode::kResourceExhausted) return done;
    member.failure = std::move(done);
  }
  if (first != q.dim(0)) {
    return Status::internal(fmt::format("a pass of {} rows was given to members with {} or more", q.dim(0), first));
  }
  return Status::ok();
}

}  // namespace finchkv::model
