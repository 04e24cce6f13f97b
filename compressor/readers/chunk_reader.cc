// chunks: Finch's loop (TACL 2024, section 3): [chunk ; prompt] behind what was kept so far, a choice per layer, the
// next chunk. whole: the same with the document as its only chunk.
#include <algorithm>
#include <vector>

#include "compressor/chunk_context.h"
#include "compressor/readers/readers.h"

namespace finchkv::compressor {
namespace {

class ChunkReader final : public Reader {
 public:
  ChunkReader(std::string_view name, bool one_pass) : name_(name), one_pass_(one_pass) {}
  std::string_view name() const override { return name_; }
  bool one_pass() const override { return one_pass_; }

  Result<ReadResult> read(const Plan& plan, model::Transformer& model, const Progress& progress) const override {
    FINCHKV_ASSIGN_OR_RETURN(ChunkContext context, ChunkContext::create(plan, model));
    ReadResult result;
    const auto n = static_cast<std::int64_t>(plan.document.size());
    std::vector<model::TokenId> tokens;
    for (std::int64_t start = 0; start < n; start += plan.chunk) {
      const std::int64_t size = std::min(plan.chunk, n - start);
      const auto chunk = plan.document.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(size));
      tokens.assign(chunk.begin(), chunk.end());
      tokens.insert(tokens.end(), plan.prompt.begin(), plan.prompt.end());
      FINCHKV_RETURN_IF_ERROR(context.begin_chunk(start, size));
      FINCHKV_ASSIGN_OR_RETURN([[maybe_unused]] const auto logits,
                               model.forward(tokens, context, model::LogitRows::kNone));
      context.end_chunk();
      result.kept_after_each_chunk.push_back(context.kept());
      if (progress && !progress(start + size, n)) return Status::unavailable("reading the document was stopped");
    }
    FINCHKV_ASSIGN_OR_RETURN(result.set, context.take_set());
    return result;
  }

 private:
  std::string_view name_;
  bool one_pass_;
};

}  // namespace

const Reader& chunk_reader() {
  static const ChunkReader reader("chunks", false);
  return reader;
}

const Reader& whole_reader() {
  static const ChunkReader reader("whole", true);
  return reader;
}

}  // namespace finchkv::compressor
