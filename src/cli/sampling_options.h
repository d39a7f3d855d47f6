/* sampling_options.h - how tokens are drawn, as options of the verbs that draw them. */
#ifndef MN_SAMPLING_OPTIONS_H
#define MN_SAMPLING_OPTIONS_H

#include "cli/cli.h"
#include "run/sampler.h"

/* The rows of a verb's table that mn_cli_sampling reads; with MN_CLI_SEED. */
#define MN_SAMPLING_OPTIONS(temperature)                                                                                                   \
  {"temperature", "X", temperature, "spread of the draw; 0: always the likeliest token", 0},                                               \
      {"top-k", "N", "0", "draw from the k likeliest tokens; 0: from all", 0},                                                             \
      {"top-p", "X", "1", "draw from the smallest set of tokens with this probability; 1: from all", 0},                                   \
      {"min-p", "X", "0", "leave out tokens below this fraction of the best one's probability", 0}, {                                      \
    "repetition-penalty", "X", "1", "makes recent tokens less likely; 1: off", 0                                                           \
  }

mn_status mn_cli_sampling(const mn_cli *cli, mn_sampling *out);

#endif
