#include "model/gguf.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/mapped_file.h"
#include "model/gguf_parse.h"

namespace finchkv::model {
namespace {

/// What a name of the form PREFIX-00001-of-00003.gguf says.
struct SplitName {
  std::string prefix;
  std::uint32_t number = 0;  // from 1
  std::uint32_t count = 0;

  [[nodiscard]] std::string part(std::uint32_t n) const {
    return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, n, count);
  }
};

std::optional<SplitName> parse_split_name(std::string_view path) {
  constexpr std::string_view kForm = "-00000-of-00000.gguf";
  if (path.size() < kForm.size()) return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kForm.size());
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kForm[i] == '0' ? !digit : tail[i] != kForm[i]) return std::nullopt;
  }
  SplitName name{std::string(path.substr(0, path.size() - kForm.size())), 0, 0};
  std::from_chars(tail.data() + 1, tail.data() + 6, name.number);
  std::from_chars(tail.data() + 10, tail.data() + 15, name.count);
  if (name.number == 0 || name.number > name.count) return std::nullopt;
  return name;
}

std::optional<std::uint64_t> number_of(const GgufPart& part, std::string_view key) {
  const GgufValue* value = part.find(key);
  return value == nullptr ? std::nullopt : value->as_u64();
}

/// That part `number` of `count` says the same of itself.
Status check_split(const GgufPart& part, const std::string& path, std::uint32_t number, std::uint32_t count) {
  const auto says_count = number_of(part, "split.count");
  const auto says_no = number_of(part, "split.no");
  if (!says_count && !says_no && count == 1) return Status::ok();
  if (says_count != count) {
    return Status::corrupt(fmt::format("{}: its name says that there are {} parts, its split.count {}", path, count,
                                       says_count ? fmt::format("says {}", *says_count) : "is missing"));
  }
  if (says_no != number - 1) {
    return Status::corrupt(fmt::format("{}: as part {} its split.no must be {}, but it {}", path, number, number - 1,
                                       says_no ? fmt::format("says {}", *says_no) : "is missing"));
  }
  return Status::ok();
}

}  // namespace

struct GgufFile::Impl {
  std::vector<MappedFile> files;  // empty when parsed from the caller's memory
  std::vector<std::string> paths;
  GgufPart first;                    // metadata; its tensors move to `tensors`
  std::vector<GgufTensor> tensors;   // of all parts, in order
  std::vector<std::size_t> by_name;  // indices into tensors, sorted by name

  void take_tensors(GgufPart& part) {
    std::move(part.tensors.begin(), part.tensors.end(), std::back_inserter(tensors));
    part.tensors.clear();
  }

  Status index_tensors() {
    by_name.resize(tensors.size());
    std::iota(by_name.begin(), by_name.end(), std::size_t{0});
    const auto name = [&](std::size_t i) { return tensors[i].name; };
    std::ranges::sort(by_name, {}, name);
    const auto twice = std::ranges::adjacent_find(by_name, {}, name);
    if (twice == by_name.end()) return Status::ok();
    return Status::corrupt(fmt::format("{}: has the tensor {} twice{}", paths[0], quoted(name(*twice)),
                                       paths.size() > 1 ? fmt::format(" (in its {} parts)", paths.size()) : ""));
  }

  Status open_other_parts(const SplitName& split) {
    for (std::uint32_t number = 2; number <= split.count; ++number) {
      const std::string path = split.part(number);
      auto file = MappedFile::open(path);
      if (!file.is_ok()) {
        return {file.status().code(), fmt::format("part {} of {} of the model {} cannot be used: {}", number,
                                                  split.count, paths[0], file.status().message())};
      }
      FINCHKV_ASSIGN_OR_RETURN(GgufPart part, parse_gguf(file->bytes(), path));
      FINCHKV_RETURN_IF_ERROR(check_split(part, path, number, split.count));
      take_tensors(part);
      files.push_back(*std::move(file));
      paths.push_back(path);
    }
    const auto total = number_of(first, "split.tensors.count");
    if (total && *total != tensors.size()) {
      return Status::corrupt(fmt::format("{}: its split.tensors.count says {}, but the {} parts hold {} tensors",
                                         paths[0], *total, split.count, tensors.size()));
    }
    return Status::ok();
  }
};

GgufFile::GgufFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GgufFile::~GgufFile() = default;

Result<std::shared_ptr<const GgufFile>> GgufFile::open(const std::string& path) {
  const auto split = parse_split_name(path);
  if (split && split->number != 1) {
    return Status::invalid_argument(fmt::format("{}: is part {} of {}; name the first part instead, {}", path,
                                                split->number, split->count, split->part(1)));
  }
  auto impl = std::make_unique<Impl>();
  FINCHKV_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  FINCHKV_ASSIGN_OR_RETURN(impl->first, parse_gguf(file.bytes(), path));
  impl->files.push_back(std::move(file));
  impl->paths.push_back(path);
  impl->take_tensors(impl->first);
  if (split) {
    FINCHKV_RETURN_IF_ERROR(check_split(impl->first, path, 1, split->count));
    FINCHKV_RETURN_IF_ERROR(impl->open_other_parts(*split));
  } else if (const auto count = number_of(impl->first, "split.count"); count.value_or(1) > 1) {
    return Status::invalid_argument(
        fmt::format("{}: is one of {} parts but not named so; parts are found by names that end in "
                    "-00001-of-{:05}.gguf, rename them",
                    path, *count, *count));
  }
  FINCHKV_RETURN_IF_ERROR(impl->index_tensors());
  return std::shared_ptr<const GgufFile>(new GgufFile(std::move(impl)));
}

Result<std::shared_ptr<const GgufFile>> GgufFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  auto impl = std::make_unique<Impl>();
  FINCHKV_ASSIGN_OR_RETURN(impl->first, parse_gguf(bytes, name));
  if (const auto count = number_of(impl->first, "split.count"); count.value_or(1) > 1) {
    return Status::invalid_argument(fmt::format(
        "{}: is one of {} parts, which cannot be read from memory; open the first part's file", name, *count));
  }
  impl->paths.push_back(name);
  impl->take_tensors(impl->first);
  FINCHKV_RETURN_IF_ERROR(impl->index_tensors());
  return std::shared_ptr<const GgufFile>(new GgufFile(std::move(impl)));
}

const std::string& GgufFile::path() const { return impl_->paths[0]; }
const std::vector<std::string>& GgufFile::part_paths() const { return impl_->paths; }
const std::vector<GgufTensor>& GgufFile::tensors() const { return impl_->tensors; }

std::vector<std::string_view> GgufFile::keys() const {
  std::vector<std::string_view> out;
  out.reserve(impl_->first.values.size());
  for (const GgufValue& v : impl_->first.values) out.push_back(v.key);
  return out;
}

std::optional<std::uint64_t> GgufFile::get_u64(std::string_view key) const { return number_of(impl_->first, key); }
std::optional<double> GgufFile::get_f64(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_f64();
}
std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_bool();
}
std::optional<std::string_view> GgufFile::get_string(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_string();
}
std::optional<std::vector<std::string_view>> GgufFile::get_strings(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_strings();
}
std::optional<std::vector<float>> GgufFile::get_floats(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_floats();
}
std::optional<std::vector<std::int64_t>> GgufFile::get_ints(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? std::nullopt : v->as_ints();
}

std::string GgufFile::describe(std::string_view key) const {
  const GgufValue* v = impl_->first.find(key);
  return v == nullptr ? fmt::format("{} is not set", printable(key)) : v->describe();
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto name_of = [&](std::size_t i) { return impl_->tensors[i].name; };
  const auto it = std::ranges::lower_bound(impl_->by_name, name, {}, name_of);
  return it != impl_->by_name.end() && name_of(*it) == name ? &impl_->tensors[*it] : nullptr;
}

std::uint64_t GgufTensor::elements() const {
  return std::accumulate(dims.begin(), dims.end(), std::uint64_t{1}, std::multiplies<>());
}

}  // namespace finchkv::model
