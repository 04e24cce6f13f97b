// chunks: Finch's loop (TACL 2024, section 3): [chunk ; prompt] behind what was kept so far, a choice per layer, the
// next chunk. whole: the same with the document as its only chunk.
#include <algorithm>
#include <utility>
#include <vector>

#include "compressor/chunk_context.h"
#include "compressor/readers/readers.h"

namespace finchkv::compressor {
namespace {

class ChunkReading final : public Reading {
 public:
  ChunkReading(const Plan& plan, ChunkContext context) : plan_(plan), context_(std::move(context)) {}

  std::int64_t next_rows() const override {
    const std::int64_t size = next_size();
    return size == 0 ? 0 : size + static_cast<std::int64_t>(plan_.prompt.size());
  }
  Status begin_part(const ReadScratch& scratch, std::vector<model::TokenId>& tokens) override {
    size_ = next_size();
    const auto chunk = plan_.document.subspan(static_cast<std::size_t>(read_), static_cast<std::size_t>(size_));
    tokens.insert(tokens.end(), chunk.begin(), chunk.end());
    tokens.insert(tokens.end(), plan_.prompt.begin(), plan_.prompt.end());
    return context_.begin_chunk(read_, size_, scratch);
  }
  model::AttentionContext& context() override { return context_; }
  void end_part() override {
    context_.end_chunk();
    read_ += size_;
    kept_after_each_chunk_.push_back(context_.kept());
  }
  void restart() override {
    context_.restart();
    read_ = 0;
    kept_after_each_chunk_.clear();
  }
  std::int64_t tokens_read() const override { return read_; }
  Result<ReadResult> finish() override {
    ReadResult result;
    FINCHKV_ASSIGN_OR_RETURN(result.set, context_.take_set());
    result.kept_after_each_chunk = std::move(kept_after_each_chunk_);
    return result;
  }

 private:
  [[nodiscard]] std::int64_t next_size() const {
    return std::min(plan_.chunk, static_cast<std::int64_t>(plan_.document.size()) - read_);
  }

  Plan plan_;
  ChunkContext context_;
  std::int64_t read_ = 0;  // tokens
  std::int64_t size_ = 0;  // of the chunk that was begun
  std::vector<std::int64_t> kept_after_each_chunk_;
};

class ChunkReader final : public Reader {
 public:
  ChunkReader(std::string_view name, bool one_pass) : name_(name), one_pass_(one_pass) {}
  std::string_view name() const override { return name_; }
  bool one_pass() const override { return one_pass_; }
  std::int64_t most_rows(const Plan& plan) const override {
    return plan.chunk + static_cast<std::int64_t>(plan.prompt.size());
  }
  std::size_t state_bytes(const Plan& plan, const model::Transformer& model) const override {
    return ChunkContext::state_bytes(plan, model);
  }
  ReadScratch::Needs scratch_needs(const Plan& plan, const model::Transformer& model) const override {
    return ChunkContext::scratch_needs(plan, model);
  }
  Result<std::unique_ptr<Reading>> start(const Plan& plan, const model::Transformer& model) const override {
    FINCHKV_ASSIGN_OR_RETURN(ChunkContext context, ChunkContext::create(plan, model));
    return std::unique_ptr<Reading>(std::make_unique<ChunkReading>(plan, std::move(context)));
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
