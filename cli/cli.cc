#include "cli/cli.h"

#include <cstdio>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>

#include <fmt/format.h>

#include "cli/open_files.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

constexpr char kAbout[] =
    "finchkv keeps what a language model has read: it reads a document once under the guidance of a prompt,\n"
    "keeps the few key/value entries that the prompt needs, and answers from them in milliseconds.";

constexpr char kExamples[] = R"(Examples:
  finchkv ask --model m.gguf --store ./kv --doc book.txt --prompt "Who built the tower?"
                              reads the book, stores what it kept, answers; the same again is found, not read
  finchkv compress --model m.gguf --store ./kv --doc book.txt --prompt "Who built the tower?" --ratio 32
                              reads and stores without answering, and prints the entry's id
  finchkv ls --store ./kv     what is stored
  finchkv show 3fa9 --store ./kv
                              one entry and where in the document its kept entries lie

Run `finchkv VERB --help` for a verb's options. Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 corrupt.)";

/// CLI11's own, less the brackets: an option is its name and what it takes; defaults and limits stand in its text.
class HelpFormatter : public CLI::Formatter {
 public:
  HelpFormatter() { column_width(30); }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_type_size() == 0) return "";
    std::string text = option->get_type_name();
    if (const auto check = text.find(':'); check != std::string::npos) text.resize(check);
    return text.empty() ? text : " " + text;
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    const std::string standard = option->get_default_str();
    std::string text = option->get_description();
    if (!standard.empty()) text += fmt::format(" (default: {})", standard);
    if (option->get_required() && !option->get_positional()) text += " (needed)";
    return text;
  }
};

/// Adds verbs under a heading of the overview.
void add_group(CLI::App& app, Session& session, const std::string& heading,
               std::initializer_list<void (*)(CLI::App&, Session&)> adders) {
  const auto all = [](const CLI::App*) { return true; };
  const std::size_t before = app.get_subcommands(all).size();
  for (const auto add : adders) add(app, session);
  const auto verbs = app.get_subcommands(all);
  for (std::size_t i = before; i < verbs.size(); ++i) verbs[i]->group(heading);
}

void add_verbs(CLI::App& app, Session& session) {
  add_group(app, session, "Reading and answering", {add_ask});
  add_group(app, session, "What is stored", {add_ls, add_show, add_stats, add_marks, add_rm});
  add_group(app, session, "Between stores", {add_copy, add_transfer, add_backup});
  add_group(app, session, "Running a store", {add_config, add_key, add_verify, add_maintenance, add_doctor});
  add_group(app, session, "And", {add_model, add_completion});
}

std::string help_hint(const CLI::App& app) {
  std::string words = "finchkv";
  for (auto chosen = app.get_subcommands(); !chosen.empty(); chosen = chosen.front()->get_subcommands()) {
    words.append(" ").append(chosen.front()->get_name());
  }
  return words + " --help";
}

int parse_and_run(int argc, const char* const* argv) {
  raise_open_file_limit();
  Session session{.start = std::chrono::steady_clock::now(), .action = {}};
  CLI::App app(kAbout, "finchkv");
  app.set_version_flag("--version", "finchkv " FINCHKV_VERSION);
  app.require_subcommand(0, 1);
  app.formatter(std::make_shared<HelpFormatter>());
  add_verbs(app, session);
  app.footer(kExamples);  // after the verbs, which would inherit it
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
    print_error(fmt::format("{}; see `{}`", error.what(), help_hint(app)));
    return kExitUsage;
  }
  if (!session.action) {
    print(app.help());
    return finish(Status::ok());
  }
  return finish(session.action());
}

}  // namespace

int run(int argc, const char* const* argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
  } catch (const std::exception& error) {
    print_error(fmt::format("a bug in finchkv: {}", error.what()));
  }
  return kExitFailed;
}

}  // namespace finchkv::cli
