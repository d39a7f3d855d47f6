/* teacher.c - see teacher.h. */
#include "objective/teacher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static mn_status check(const char *dir, const mn_model *student, const mn_model *m, const mn_params *p, const char *tokenizer) {
  const int64_t its = m->config.vocab_size, own = student->config.vocab_size;
  if (!its != !own)
    return mn_fail(MN_ERR_CONFIG, "objective.teacher: %s is a model of type %s, which %s, and the model that is trained, of type %s, %s",
                   dir, m->def->name, its ? "has a vocabulary" : "has none", student->def->name, own ? "has a vocabulary" : "has none");
  if (its != own)
    return mn_fail(MN_ERR_CONFIG,
                   "objective.teacher: %s chooses among %lld tokens, and the model that is trained among %lld: give this training its "
                   "tokenizer (tokenizer: {type: file, file: %s/tokenizer.json})",
                   dir, (long long)its, (long long)own, dir);
  if (*tokenizer && *p->origin.tokenizer && strcmp(tokenizer, p->origin.tokenizer) != 0)
    return mn_fail(MN_ERR_CONFIG,
                   "objective.teacher: %s was trained with another tokenizer: give this training that one (tokenizer: {type: file, file: "
                   "%s/tokenizer.json})",
                   dir, dir);
  return MN_OK;
}

mn_status mn_teachers_open(const mn_objectives *o, const mn_model *student, mn_backend *b, const char *tokenizer, mn_teachers *out) {
  *out = (mn_teachers){0};
  for (int k = 0; k < o->n; k++) {
    const char *dir = o->list[k].def->teacher ? o->list[k].def->teacher(o->list[k].config) : NULL;
    if (!dir) continue;
    MN_TRY(mn_context(mn_model_load_dir(dir, b, MN_F32, &out->model[k], &out->params[k]), "objective.teacher"));
    MN_TRY(check(dir, student, out->model[k], out->params[k], tokenizer));
  }
  return MN_OK;
}

mn_status mn_teachers_hash(const mn_teachers *t, char hash[MN_HASH_HEX]) {
  for (int k = 0; k < MN_OBJECTIVES; k++) {
    char both[2 * MN_HASH_HEX], weights[MN_HASH_HEX];
    if (!t->model[k]) continue;
    MN_TRY(mn_model_fingerprint(t->model[k], t->params[k], weights));
    const int n = snprintf(both, sizeof both, "%s %s", hash, weights);
    mn_content_hash(both, (size_t)n, hash);
  }
  return MN_OK;
}

void mn_teachers_close(mn_teachers *t) {
  for (int k = 0; k < MN_OBJECTIVES; k++) {
    mn_params_free(t->params[k]);
    mn_model_free(t->model[k]);
  }
  *t = (mn_teachers){0};
}

void mn_teachers_bind(const mn_teachers *t, const mn_judged *j, mn_plan *plan) {
  for (int k = 0; k < MN_OBJECTIVES; k++)
    if (j->teacher[k]) (void)mn_params_bind(t->params[k], j->teacher[k], plan); /* what stays unbound is named by the run */
}
