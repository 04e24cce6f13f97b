#include "model/model.h"

#include <cstring>

#include <fmt/format.h>

#include "model/fingerprint.h"

namespace finchkv::model {

Result<std::unique_ptr<Model>> Model::open(const std::string& path, const ModelOptions& options) {
  std::unique_ptr<Model> m(new Model());
  FINCHKV_ASSIGN_OR_RETURN(m->file_, GgufFile::open(path));
  FINCHKV_ASSIGN_OR_RETURN(m->config_, ModelConfig::from_gguf(*m->file_));
  FINCHKV_ASSIGN_OR_RETURN(m->tokenizer_, Tokenizer::from_gguf(*m->file_));
  // A matrix padded beyond the vocabulary is usual; a vocabulary beyond the matrix has tokens without an embedding.
  if (m->tokenizer_->vocab_size() > m->config_.vocab) {
    return Status::corrupt(fmt::format("{}: the vocabulary has {} tokens but the embedding only {} rows", path,
                                       m->tokenizer_->vocab_size(), m->config_.vocab));
  }
  m->template_ = recognise_chat_template(*m->file_);
  if (const auto raw = from_hex(m->tokenizer_->fingerprint()); raw && raw->size() == m->tokenizer_fingerprint_.size()) {
    std::memcpy(m->tokenizer_fingerprint_.data(), raw->data(), raw->size());
  }
  m->model_fingerprint_ = finchkv::model::model_fingerprint(m->config_, *m->tokenizer_);
  ThreadPool pool(options.threads);
  FINCHKV_ASSIGN_OR_RETURN(m->weights_fingerprint_, finchkv::model::weights_fingerprint(
                                                        m->file_->part_paths(), options.fingerprint_memory, pool));
  return m;
}

Status Model::load_weights(std::shared_ptr<kernels::Device> device) {
  FINCHKV_ASSIGN_OR_RETURN(transformer_, replica(std::move(device)));
  return Status::ok();
}

Result<std::unique_ptr<Transformer>> Model::replica(std::shared_ptr<kernels::Device> device) const {
  return Transformer::load(file_, config_, std::move(device));
}

}  // namespace finchkv::model
