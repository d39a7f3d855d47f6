/* model_dir.c - see model_dir.h. */
#include "model/model_dir.h"

#include "base/output.h"
#include "format/json.h"
#include "format/seal.h"

#include <stdlib.h>

enum { CONFIG, TOKENIZER, WEIGHTS, N_FILES };
static const char *const names[N_FILES] = {"config.json", "tokenizer.json", "model.safetensors"};

typedef struct saving {
  char *path[N_FILES];
  mn_file_stamp *stamp[N_FILES];
  bool was_there[N_FILES];
  int written; /* so many of them, in their order */
} saving;

static mn_status begin(const char *dir, mn_model_dir *there, saving *s) {
  mn_file_stamp *stamps[N_FILES] = {&there->config, &there->tokenizer, &there->weights};
  *s = (saving){0};
  for (int i = 0; i < N_FILES; i++) {
    s->stamp[i] = stamps[i];
    if (!(s->path[i] = mn_path_join(dir, names[i]))) return MN_ERR_MEMORY;
  }
  return MN_OK;
}

static void end(saving *s) {
  for (int i = 0; i < N_FILES; i++) free(s->path[i]);
}

mn_status mn_model_dir_look(const char *dir, mn_model_dir *there) {
  saving s;
  *there = (mn_model_dir){0};
  mn_status status = begin(dir, there, &s);
  for (int i = 0; i < N_FILES && status == MN_OK; i++) *s.stamp[i] = mn_file_stamp_of(s.path[i]);
  end(&s);
  return status;
}

static mn_status write_files(const mn_model *m, const mn_params *p, const mn_tokenizer *tok, mn_arena *arena, saving *s) {
  const mn_value *root = mn_model_to_config(arena, m);
  mn_origin origin = p->origin;
  if (!root) return MN_ERR_MEMORY;
  MN_TRY(mn_value_hash(root, origin.config));
  MN_TRY(mn_json_write_over(s->path[CONFIG], root, s->stamp[CONFIG]));
  s->written = TOKENIZER;
  if (tok) MN_TRY(mn_tokenizer_save_over(tok, s->path[TOKENIZER], s->stamp[TOKENIZER]));
  s->written = WEIGHTS;
  return mn_params_save_as(p, &origin, s->path[WEIGHTS], s->stamp[WEIGHTS]);
}

/* A file that somebody has changed since it was written is his. */
static void take_back(saving *s) {
  const mn_kept_message why = mn_message_keep();
  for (int i = 0; i < s->written; i++) {
    if (s->was_there[i] || !s->stamp[i]->exists || mn_file_changed(s->path[i], s->stamp[i])) continue;
    if (mn_file_remove(s->path[i]) == MN_OK) *s->stamp[i] = (mn_file_stamp){0};
  }
  mn_message_restore(&why);
}

mn_status mn_model_dir_save(const char *dir, const mn_model *m, const mn_params *p, const mn_tokenizer *tok, mn_model_dir *there) {
  saving s;
  int made = 0;
  mn_arena *arena = mn_arena_new();
  mn_status status = begin(dir, there, &s);
  if (!arena) status = MN_ERR_MEMORY;
  for (int i = 0; i < N_FILES && status == MN_OK; i++) s.was_there[i] = s.stamp[i]->exists;
  if (status == MN_OK) status = mn_make_dirs_counted(dir, &made);
  if (status == MN_OK) status = write_files(m, p, tok, arena, &s);
  if (status != MN_OK) take_back(&s);
  if (status != MN_OK) mn_output_unmake_dirs(dir, made);
  end(&s);
  mn_arena_free(arena);
  return status;
}

mn_status mn_model_save_dir(const mn_model *m, const mn_params *p, const char *dir) {
  mn_model_dir there;
  if (!*dir) return mn_fail(MN_ERR_ARG, "the name of the model's directory is empty");
  MN_TRY(mn_model_dir_look(dir, &there));
  return mn_model_dir_save(dir, m, p, NULL, &there);
}
