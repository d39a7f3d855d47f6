/* sampling_options.c - see sampling_options.h. */
#include "cli/sampling_options.h"

mn_status mn_cli_sampling(const mn_cli *cli, mn_sampling *c) {
  mn_config_defaults(mn_sampling_fields, c);
  MN_TRY(mn_cli_float(cli, "temperature", 0, 100, &c->temperature));
  MN_TRY(mn_cli_int(cli, "top-k", 0, 1 << 26, &c->top_k));
  MN_TRY(mn_cli_float(cli, "top-p", 0, 1, &c->top_p));
  MN_TRY(mn_cli_float(cli, "min-p", 0, 1, &c->min_p));
  MN_TRY(mn_cli_float(cli, "repetition-penalty", 0.01, 100, &c->repetition_penalty));
  if (cli->seed_given) c->seed = (int64_t)cli->seed;
  bool drawn = c->temperature > 0;
  if (!drawn && cli->seed_given) mn_cli_note(cli, "--seed changes nothing at temperature 0: nothing is drawn");
  return mn_cli_only(cli, drawn, "a temperature above 0; at 0 the likeliest token is taken", "top-k top-p min-p");
}
