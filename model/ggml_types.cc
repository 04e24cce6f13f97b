// Names and block sizes of ggml's tensor types, by their number in the file: one table behind gguf.h and dequant.h.
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "model/dequant.h"
#include "model/gguf.h"

namespace finchkv::model {
namespace {

struct TypeInfo {
  std::uint32_t number;
  std::string_view name;
  GgmlBlock block;  // zero: known by name only
};

constexpr std::array kTypes = {
    TypeInfo{0, "F32", {1, 4}},       TypeInfo{1, "F16", {1, 2}},
    TypeInfo{2, "Q4_0", {32, 18}},    TypeInfo{3, "Q4_1", {32, 20}},
    TypeInfo{6, "Q5_0", {32, 22}},    TypeInfo{7, "Q5_1", {32, 24}},
    TypeInfo{8, "Q8_0", {32, 34}},    TypeInfo{9, "Q8_1", {32, 36}},
    TypeInfo{10, "Q2_K", {256, 84}},  TypeInfo{11, "Q3_K", {256, 110}},
    TypeInfo{12, "Q4_K", {256, 144}}, TypeInfo{13, "Q5_K", {256, 176}},
    TypeInfo{14, "Q6_K", {256, 210}}, TypeInfo{15, "Q8_K", {256, 292}},
    TypeInfo{16, "IQ2_XXS", {}},      TypeInfo{17, "IQ2_XS", {}},
    TypeInfo{18, "IQ3_XXS", {}},      TypeInfo{19, "IQ1_S", {}},
    TypeInfo{20, "IQ4_NL", {32, 18}}, TypeInfo{21, "IQ3_S", {}},
    TypeInfo{22, "IQ2_S", {}},        TypeInfo{23, "IQ4_XS", {256, 136}},
    TypeInfo{24, "I8", {}},           TypeInfo{25, "I16", {}},
    TypeInfo{26, "I32", {}},          TypeInfo{27, "I64", {}},
    TypeInfo{28, "F64", {}},          TypeInfo{29, "IQ1_M", {}},
    TypeInfo{30, "BF16", {1, 2}},     TypeInfo{34, "TQ1_0", {}},
    TypeInfo{35, "TQ2_0", {}},        TypeInfo{39, "MXFP4", {}},
};

const TypeInfo* find(std::uint32_t number) {
  for (const TypeInfo& t : kTypes) {
    if (t.number == number) return &t;
  }
  return nullptr;
}

}  // namespace

std::string ggml_type_name(std::uint32_t type) {
  const TypeInfo* info = find(type);
  return info != nullptr ? std::string(info->name) : fmt::format("type {}", type);
}

GgmlBlock ggml_block(GgmlType type) {
  const TypeInfo* info = find(static_cast<std::uint32_t>(type));
  return info != nullptr ? info->block : GgmlBlock{};
}

}  // namespace finchkv::model
