/* model_options.c - see model_options.h. */
#include "cli/model_options.h"

#include "format/config.h"

/* Caches end after n tokens: what a stream keeps is made whole when it begins, and a context that nobody fills costs as much as a full one. */
static bool limit_mixer(const mn_mixer *m, int64_t n) {
  if (!m->def) return false;
  const mn_field *f = mn_field_find(m->def->fields, "max_context");
  char *config = m->config;
  bool any = f && mn_field_int(f, config) > n;
  if (any && f->size == sizeof(int)) *(int *)(void *)(config + f->offset) = (int)n;
  else if (any) *(int64_t *)(void *)(config + f->offset) = n;
  if (m->def->base) any = limit_mixer((const mn_mixer *)(const void *)(config + m->def->base), n) || any;
  const mn_mixer_list *list = m->def->list ? (const mn_mixer_list *)(const void *)(config + m->def->list) : NULL;
  for (int i = 0; list && i < list->n; i++) any = limit_mixer(&list->items[i], n) || any;
  return any;
}

static mn_status limit_context(mn_model *m, int64_t n) {
  bool any = false;
  for (; m; m = m->base)
    for (int i = 0; i < m->stack.n; i++) any = limit_mixer(&m->stack.blocks[i].mixer, n) || any;
  return any ? MN_OK : mn_fail(MN_ERR_CONFIG, "--context %lld has no effect: no cache of this model holds more tokens", (long long)n);
}

mn_status mn_cli_open(const mn_cli *cli, const char *path, mn_bundle *out) {
  int64_t context = 0;
  MN_TRY(mn_bundle_open(path, cli->backend, cli->threads, out));
  if (mn_cli_given(cli, "exact")) MN_TRY(mn_context(mn_params_keep_exact(out->params), "--exact"));
  if (mn_cli_given(cli, "context")) MN_TRY(mn_cli_int(cli, "context", 1, INT32_MAX, &context));
  return context ? limit_context(out->model, context) : MN_OK;
}
