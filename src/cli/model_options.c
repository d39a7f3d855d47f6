/* model_options.c - see model_options.h. */
#include "cli/model_options.h"

mn_status mn_cli_open(const mn_cli *cli, const char *path, mn_bundle *out) {
  int64_t context = 0;
  MN_TRY(mn_bundle_open(path, cli->backend, cli->threads, out));
  if (mn_cli_given(cli, "exact")) MN_TRY(mn_context(mn_params_keep_exact(out->params), "--exact"));
  if (mn_cli_given(cli, "cache")) {
    static const char *const names[] = {"f32", "bf16", "f16", "q8", NULL};
    static const mn_dtype types[] = {MN_F32, MN_BF16, MN_F16, MN_Q8_0};
    int chosen = 0;
    MN_TRY(mn_cli_choice(cli, "cache", names, &chosen));
    out->params->cache = types[chosen];
  }
  if (mn_cli_given(cli, "context")) MN_TRY(mn_cli_int(cli, "context", 1, INT32_MAX, &context));
  if (context && mn_bundle_limit(out, context) != MN_OK)
    return mn_fail(MN_ERR_CONFIG, "--context %lld has no effect: no cache of this model holds more tokens", (long long)context);
  return MN_OK;
}
