/* chat_sessions.c - see chat_sessions.h. */
#include "cli/chat_sessions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/output.h"
#include "cli/chat_dialogue.h"
#include "format/safetensors.h"

static const char ending[] = ".safetensors";

mn_status mn_chat_path(const char *folder, const char *name, char **out) {
  *out = NULL;
  const char *fault = *name ? mn_name_fault(name) : "is empty";
  if (fault) return mn_fail(MN_ERR_CONFIG, "the name of a session, '%.80s', %s", name, fault);
  char *path = mn_path_join(folder, name);
  if (path) *out = mn_alloc(strlen(path) + sizeof ending);
  if (*out) strcpy(*out, path), strcat(*out, ending);
  free(path);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

char *mn_chat_name(const char *path) {
  const char *base = mn_path_base(path);
  const size_t n = strlen(base), cut = sizeof ending - 1;
  return mn_format("%.*s", (int)(n > cut && !strcmp(base + n - cut, ending) ? n - cut : n), base);
}

static mn_status make_folder(const char *folder) {
  MN_TRY(mn_dir_need_real(folder));
  return mn_make_dirs(folder);
}

mn_status mn_chat_open(const char *folder, const char *name, bool fresh, uint64_t bytes, mn_session_file *out) {
  char *path, what[300];
  *out = (mn_session_file){0};
  MN_TRY(mn_chat_path(folder, name, &path));
  snprintf(what, sizeof what, "session %s", name);
  mn_status status = make_folder(folder);
  if (status == MN_OK) status = mn_session_file_open(path, what, out);
  if (status == MN_OK && fresh && out->stamp.exists)
    status = mn_fail(MN_ERR_CONFIG, "%s is there: choose another name, or remove the file; session %s would be overwritten", path, name);
  if (status == MN_OK) status = mn_output_try(path, bytes);
  if (status != MN_OK) mn_session_file_close(out);
  free(path);
  return status;
}

/* A dialogue with its text, without the model; *is false: the file is of another kind. */
static mn_status look_dialogue(const char *path, bool *is, int64_t *turns) {
  mn_st *st;
  mn_dialogue said = {0};
  mn_text note = {0};
  MN_TRY(mn_st_open(path, &st));
  const char *format = mn_st_meta(st, "format"), *text = mn_st_meta(st, "note");
  *is = format && !strncmp(format, "mneme conversation", 18);
  if (*is && text) mn_text_add(&note, text);
  mn_status status = *is ? mn_dialogue_read(path, &note, INT64_MAX, &said) : MN_OK;
  *turns = said.n;
  mn_dialogue_free(&said);
  mn_text_free(&note);
  mn_st_close(st);
  return status;
}

/* How many turns a file holds, or where it has none (-1) how many tokens. */
static mn_status look(const char *path, mn_session *s, int64_t *turns, int64_t *tokens) {
  bool is;
  *turns = -1, *tokens = 0;
  MN_TRY(look_dialogue(path, &is, turns));
  if (is) return MN_OK;
  *turns = -1;
  if (!s) return mn_fail(MN_ERR_FORMAT, "%s holds no dialogue in a template's form", path);
  MN_TRY(mn_session_load(s, path));
  *tokens = mn_session_position(s);
  return mn_session_has_turns(s) ? mn_session_turns(s, 0, turns) : MN_OK;
}

/* One of them: what it holds, or why it cannot be read. */
static void list_one(const mn_cli *cli, const char *path, const char *name, mn_session *s, json_t *all) {
  int64_t turns, tokens;
  const mn_status status = look(path, s, &turns, &tokens);
  const char *why = status == MN_OK ? NULL : mn_message();
  if (cli->json) {
    json_t *j = json_pack("{s:o}", "session", mn_cli_text(name));
    if (why) json_object_set_new(j, "fault", mn_cli_text(why));
    else if (turns >= 0) json_object_set_new(j, "turns", json_integer((json_int_t)turns));
    else json_object_set_new(j, "tokens", json_integer((json_int_t)tokens));
    json_array_append_new(all, j);
  } else if (why) {
    mn_print("%s: %s\n", name, why);
  } else if (turns >= 0) {
    mn_print("%s: %lld turns\n", name, (long long)turns);
  } else {
    mn_print("%s: %lld tokens\n", name, (long long)tokens);
  }
}

mn_status mn_chat_list(mn_cli *cli, const char *folder, mn_session *s) {
  char **names = NULL;
  size_t n = 0, found = 0;
  mn_path_kind kind;
  MN_TRY(mn_path_look(folder, &kind));
  if (kind != MN_PATH_NONE) MN_TRY(mn_dir_list(folder, &names, &n));
  json_t *all = json_array();
  for (size_t i = 0; i < n && !mn_cli_interrupted(); i++) {
    const size_t length = strlen(names[i]), at = length > sizeof ending - 1 ? length - (sizeof ending - 1) : 0;
    if (!at || strcmp(names[i] + at, ending) != 0 || names[i][0] == '.') continue;
    char *path = mn_path_join(folder, names[i]);
    names[i][at] = 0;
    if (path) list_one(cli, path, names[i], s, all);
    free(path);
    found++;
  }
  mn_dir_list_free(names, n);
  if (cli->json) return mn_cli_json(cli, json_pack("{s:o}", "sessions", all));
  json_decref(all);
  if (!found) mn_cli_note(cli, "%s holds no session yet: --session NAME begins one", folder);
  return MN_OK;
}
