// RaggedContext: one pass for the rows of several documents, of any lengths.
//
// The pass's tokens are the members' tokens one after the other. Products and norms treat every row alike; each
// member's rows of q, k, v and of the output go to its own context. In f32 a member's results do not depend on its
// company. Contexts stay their owners'.
#pragma once

#include <cstdint>
#include <vector>

#include "model/transformer.h"

namespace finchkv::model {

class RaggedContext final : public AttentionContext {
 public:
  struct Member {
    AttentionContext* context = nullptr;
    std::int64_t rows = 0;
    Status failure = {};  ///< its own; the others go on
  };
  explicit RaggedContext(std::vector<Member> members) : members_(std::move(members)) {}

  /// resource_exhausted from a member fails the pass: the same could befall the next one. Any other failure is the
  /// member's, whose rows count no more. internal when the pass has another number of rows than the members.
  Status attend(std::int64_t layer, const kernels::Tensor& q, const kernels::Tensor& k, const kernels::Tensor& v,
                const kernels::Tensor& out) override;

  [[nodiscard]] const std::vector<Member>& members() const { return members_; }
  /// Whether any member has seen any layer: if not, a pass that failed left all contexts as they were.
  [[nodiscard]] bool touched() const { return touched_; }

 private:
  std::vector<Member> members_;
  bool touched_ = false;
};

}  // namespace finchkv::model
