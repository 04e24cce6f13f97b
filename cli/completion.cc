// completion bash: a script for the shell, made from the verbs and options there are.

#include <fmt/format.h>

#include "cli/output.h"
#include "cli/verbs.h"

namespace finchkv::cli {
namespace {

/// A verb's options, and, as for `key`, the words that may follow it with their options.
std::string words_of(const CLI::App& verb) {
  std::string words;
  for (const CLI::App* inner : verb.get_subcommands([](const CLI::App*) { return true; })) {
    words += fmt::format("{}{} {}", words.empty() ? "" : " ", inner->get_name(), words_of(*inner));
  }
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) words += fmt::format("{}--{}", words.empty() ? "" : " ", name);
  }
  return words;
}

std::string bash_completion(const CLI::App& app) {
  std::string verbs;
  std::string cases;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    verbs += fmt::format("{}{}", verbs.empty() ? "" : " ", verb->get_name());
    cases += fmt::format("    {}) words='{}' ;;\n", verb->get_name(), words_of(*verb));
  }
  return fmt::format(R"(# finchkv completion for bash: source <(finchkv completion bash)
_finchkv() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{} --help --version' -- "$word"))
    return
  fi
  # -o default completes file names, where no word of the verb fits
  [[ $word == -* || ( "$COMP_CWORD" -eq 2 && ${{COMP_WORDS[1]}} == key ) ]] || return
  case ${{COMP_WORDS[1]}} in
{}    *) return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _finchkv finchkv
)",
                     verbs, cases);
}

}  // namespace

void add_completion(CLI::App& app, Session& session) {
  CLI::App* verb = app.add_subcommand("completion", "Print a completion script for the shell");
  verb->add_option("shell", "The shell: bash")->check(CLI::IsMember({"bash"}))->required()->type_name("SHELL");
  verb->footer("Example:\n  source <(finchkv completion bash)");
  verb->callback([&session, &app] {
    session.action = [&app] {
      print(bash_completion(app));
      return Status::ok();
    };
  });
}

}  // namespace finchkv::cli
