#include "cli/cli.h"

int main(int argc, char** argv) { return finchkv::cli::run(argc, argv); }
