/* origin.c - see origin.h. */
#include "model/origin.h"

#include "format/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mn_status mn_origin_write(const mn_origin *o, mn_st_writer *w) {
  char step[32], tokens[32];
  snprintf(step, sizeof step, "%lld", (long long)o->step);
  snprintf(tokens, sizeof tokens, "%lld", (long long)o->tokens);
  const char *const pairs[][2] = {
      {"config", o->config},         {"tokenizer", o->tokenizer},  {"recipe", o->recipe},           {"data", o->data},
      {"run", o->run ? o->run : ""}, {"step", o->run ? step : ""}, {"tokens", o->run ? tokens : ""}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (*pairs[i][1]) MN_TRY(mn_st_writer_meta(w, pairs[i][0], pairs[i][1]));
  return MN_OK;
}

static void take(const mn_st *st, const char *key, char hex[33]) {
  const char *text = mn_st_meta(st, key);
  snprintf(hex, 33, "%s", text ? text : "");
}

void mn_origin_read(const mn_st *st, mn_origin *o) {
  *o = (mn_origin){.run = mn_st_meta(st, "run")};
  const char *format = mn_st_meta(st, "format"), *step = mn_st_meta(st, "step"), *tokens = mn_st_meta(st, "tokens");
  if (!format || strncmp(format, "mneme", 5) != 0) { /* in files of others these keys mean other things */
    o->run = NULL;
    return;
  }
  take(st, "config", o->config);
  take(st, "tokenizer", o->tokenizer);
  take(st, "recipe", o->recipe);
  take(st, "data", o->data);
  if (step) o->step = strtoll(step, NULL, 10);
  if (tokens) o->tokens = strtoll(tokens, NULL, 10);
}

mn_status mn_origin_check_config(const mn_origin *o, const char *weights, const char *config, const mn_value *root, bool sealed) {
  char hex[33];
  if (!o->config[0]) return MN_OK;
  MN_TRY(mn_value_hash(root, hex));
  if (!strcmp(hex, o->config)) return MN_OK;
  if (sealed)
    return mn_fail(MN_ERR_CONFIG, "%s is not the one that %s was saved with: the two are of different models; copy both from one directory",
                   config, weights);
  mn_log_write(MN_LOG_WARN, "%s differs from the one that %s was saved with, and has no checksum: edited by hand, it is used as it is",
               config, weights);
  return MN_OK;
}

mn_status mn_origin_check_tokenizer(const mn_origin *o, const char *weights, const char *path, const char *hash) {
  if (!o->tokenizer[0] || !strcmp(o->tokenizer, hash)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG,
                 "%s is not the tokenizer that %s was trained with: it is damaged, or of another model; copy both from one directory", path,
                 weights);
}
