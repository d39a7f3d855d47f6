/* parallel.c - several mixers that read the same tokens side by side, as attention and a state space model do in one layer of Falcon-H1
 * (Zuo et al. 2025, arXiv 2507.22448) and Hymba (Dong et al. 2024, arXiv 2411.13676):
 *
 *     y = sum_i mixer_i(x)
 *
 * It remembers what they remember. */
#include "nn/mixer.h"

typedef struct parallel_config {
  const mn_value *mixers;
  mn_mixer_list list;
} parallel_config;

static const mn_field fields[] = {
    MN_FIELD_VALUE(parallel_config, mixers, "a list of mixers whose outputs are added up: [{type: attention}, {type: mamba2}]"),
    MN_FIELD_END};

static mn_tensor *apply(mn_scope *s, const void *config, mn_tensor *x) {
  const parallel_config *c = config;
  mn_tensor *y = NULL;
  for (int i = 0; i < c->list.n; i++) {
    mn_tensor *one = mn_mixer_apply(mn_scope_in(s, "mixers.%d", i), &c->list.items[i], x);
    y = y ? mn_add(mn_scope_graph(s), y, one) : one;
  }
  return y;
}

static const char *not_causal(const void *config) {
  const parallel_config *c = config;
  const char *why = NULL;
  for (int i = 0; i < c->list.n && !why; i++)
    if (c->list.items[i].def->not_causal) why = c->list.items[i].def->not_causal(c->list.items[i].config);
  return why;
}

const mn_mixer_def mn_mixer_parallel = {
    .name = "parallel",
    .kind = "state",
    .summary = "several mixers side by side, whose outputs are added up",
    .paper = "Zuo et al. 2025, arXiv 2507.22448; Dong et al. 2024, arXiv 2411.13676",
    .config_size = sizeof(parallel_config),
    .fields = fields,
    .apply = apply,
    .not_causal = not_causal,
    .list = offsetof(parallel_config, list),
    .list_key = "mixers",
};
