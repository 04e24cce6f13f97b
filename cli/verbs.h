// The verbs of the command: each adds its subcommand and options, and sets the session's action when it was given.
#pragma once

#include <chrono>
#include <functional>

#include <CLI/CLI.hpp>

#include "base/status.h"

namespace finchkv::cli {

/// One run of the command.
struct Session {
  std::chrono::steady_clock::time_point start;  ///< when argument parsing began
  std::function<Status()> action;               ///< what the chosen verb does
};

void add_ask(CLI::App& app, Session& session);  ///< ask and compress
void add_ls(CLI::App& app, Session& session);
void add_show(CLI::App& app, Session& session);
void add_stats(CLI::App& app, Session& session);
void add_rm(CLI::App& app, Session& session);
void add_marks(CLI::App& app, Session& session);     ///< label, pin, unpin, expire
void add_copy(CLI::App& app, Session& session);      ///< copy, warm
void add_transfer(CLI::App& app, Session& session);  ///< export, import
void add_backup(CLI::App& app, Session& session);    ///< backup, restore
void add_verify(CLI::App& app, Session& session);
void add_maintenance(CLI::App& app, Session& session);  ///< gc, scrub
void add_config(CLI::App& app, Session& session);
void add_key(CLI::App& app, Session& session);
void add_model(CLI::App& app, Session& session);  ///< model, tokenize
void add_doctor(CLI::App& app, Session& session);
void add_completion(CLI::App& app, Session& session);

}  // namespace finchkv::cli
