/* main.c - the door of the `mneme` program; the frame is cli.h, a verb is a file verb_<name>.c. */
#include "cli/cli.h"

int main(int argc, char **argv) { return mn_cli_main(argc, argv, mn_verbs, mn_n_verbs); }
