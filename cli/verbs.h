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
void add_verify(CLI::App& app, Session& session);
void add_maintenance(CLI::App& app, Session& session);  ///< rm, gc, stats
void add_transfer(CLI::App& app, Session& session);     ///< export, import, and backup, restore by name
void add_model(CLI::App& app, Session& session);        ///< model, tokenize
void add_doctor(CLI::App& app, Session& session);
void add_completion(CLI::App& app, Session& session);

}  // namespace finchkv::cli
