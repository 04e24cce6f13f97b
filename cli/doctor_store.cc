#include "cli/doctor_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <system_error>

#include <fmt/format.h>

#include "cache_store/settings.h"
#include "cache_store/store_directory.h"
#include "cli/entry_text.h"
#include "cli/output.h"
#include "cli/settings_text.h"
#include "cli/units.h"

namespace finchkv::cli {
namespace {

namespace fs = std::filesystem;

using cache_store::StoreReport;

void check_permissions(Findings& findings, const std::string& directory) {
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0) {
    findings.bad("permissions", directory + " cannot be looked at");
  } else if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    findings.bad("permissions",
                 fmt::format("{} is open to other users (mode {:o}): what was read can be rebuilt from it; "
                             "chmod 700 it",
                             directory, info.st_mode & 07777U));
  } else if (::access(directory.c_str(), R_OK | W_OK | X_OK) != 0) {
    findings.bad("permissions", fmt::format("{} cannot be written by this user", directory));
  } else {
    findings.good("permissions", "only this user reads " + directory);
  }
}

void check_format(Findings& findings, const std::string& directory) {
  const auto format = cache_store::format_of(directory);
  if (!format.is_ok()) return findings.bad("format", format.status().message());
  findings.good("format", *format == cache_store::kStoreFormat ? fmt::format("format {}, the current one", *format)
                                                               : fmt::format("format {}: the next writer makes it {}",
                                                                             *format, cache_store::kStoreFormat));
}

void check_writer(Findings& findings, const std::string& directory) {
  const auto writer = cache_store::writer_of(directory);
  if (!writer.is_ok()) return findings.bad("writer", writer.status().message());
  findings.good("writer", *writer ? "open for writing in " + **writer : "nobody has it open for writing");
}

void check_settings(Findings& findings, const cache_store::StoreSettings& settings) {
  if (const Status valid = settings.validate(); !valid.is_ok()) return findings.bad("settings", valid.message());
  std::string text;
  for (const auto& [name, value] : settings_figures(settings)) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, value);
  }
  findings.good("settings", text);
}

/// Room for what the limit allows, where there is one.
void check_space(Findings& findings, const std::string& directory, const StoreReport& report) {
  constexpr std::uint64_t kLow = 1'000'000'000;
  std::error_code error;
  const fs::space_info space = fs::space(directory, error);
  if (error) return findings.bad("disk space", fmt::format("{}: {}", directory, error.message()));
  const std::uint64_t limit = report.settings.max_bytes;
  const std::uint64_t used = report.total.stored_bytes;
  const std::string free = fmt::format("{} are free at {}", format_bytes(space.available), directory);
  if (space.available < kLow && (limit == 0 || used < limit)) {
    findings.bad("disk space", "only " + free);
  } else if (limit > used && limit - used > space.available) {
    findings.bad("disk space",
                 fmt::format("{}, but the store may still grow by {}: lower --max-bytes, now {}, with `finchkv config`",
                             free, format_bytes(limit - used), size_text(limit)));
  } else {
    findings.good("disk space",
                  limit == 0 ? free + ", and the store has no limit (`finchkv config --max-bytes`)" : free);
  }
}

void check_sums(Findings& findings, const StoreReport& report) {
  const std::string what = fmt::format("{}, {} on disk", plural(report.total.entries, "entry", "entries"),
                                       format_bytes(report.total.disk_bytes));
  if (report.total.unreadable > 0) {
    findings.bad("store", fmt::format("{}, {} unreadable or in quarantine: run `finchkv verify`", what,
                                      report.total.unreadable));
  } else {
    findings.good("store", what);
  }
}

/// This tenant's entries read whole: all of them, or some drawn by lot.
void check_digests(Findings& findings, cache_store::Store& store, bool deep) {
  constexpr std::size_t kSample = 16;
  auto listing = list_all(store);
  if (!listing.is_ok()) return findings.bad("digests", listing.status().message());
  auto& entries = listing->entries;
  const std::size_t all = entries.size();
  if (!deep && all > kSample) {
    std::mt19937 random(std::random_device{}());
    std::shuffle(entries.begin(), entries.end(), random);
    entries.resize(kSample);
  }
  std::size_t checked = 0;
  std::string first;
  std::size_t wrong = 0;
  for (const auto& entry : entries) {
    const Status status = store.verify(entry.id);
    if (status.code() == StatusCode::kNotFound) continue;  // it went meanwhile
    ++checked;
    if (!status.is_ok() && wrong++ == 0) first = status.message();
  }
  const std::string what = checked == all ? fmt::format("all {}", plural(all, "entry", "entries"))
                                          : fmt::format("{} of {} entries", checked, format_count(all));
  if (wrong > 0) {
    findings.bad("digests", fmt::format("{} of {} read: {}", wrong, checked, first));
  } else {
    findings.good("digests", what + (checked < all ? " read and sound (--deep reads all)" : " read and sound"));
  }
}

}  // namespace

void check_store(Findings& findings, const StoreOptions& options, bool deep) {
  const auto directory = store_directory(options);
  if (!directory.is_ok()) return findings.bad("store", directory.status().message());
  const auto open = open_for_reading(options);
  if (!open.is_ok()) return findings.bad("store", open.status().message());
  const auto report = open->host->report();
  if (!report.is_ok()) return findings.bad("store", report.status().message());
  check_sums(findings, *report);
  check_format(findings, *directory);
  check_writer(findings, *directory);
  check_permissions(findings, *directory);
  check_settings(findings, report->settings);
  check_space(findings, *directory, *report);
  check_digests(findings, *open->store, deep);
}

}  // namespace finchkv::cli
