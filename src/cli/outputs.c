/* outputs.c - what the command line says is written, looked at before the verb runs: it can be written, no two outputs are one
 * file, and none of them is something that the verb reads. And pictures, when it has run. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/output.h"
#include "cli/cli.h"
#include "format/plot.h"

static bool is_output(const mn_cli_value *v) { return v->option->flags & MN_OPTION_OUTPUT; }

/* --session-in and --session-out, --state-in and --state-out: what is read is whole in memory when it is replaced. */
static bool goes_on(const mn_option *in, const mn_option *out) {
  const char *a = strrchr(in->name, '-'), *b = strrchr(out->name, '-');
  return a && b && !strcmp(a, "-in") && !strcmp(b, "-out") && a - in->name == b - out->name &&
         !strncmp(in->name, out->name, (size_t)(a - in->name));
}

/* Is it one of the files that make a directory a model (Mneme's, or Hugging Face's)? Others in it, such as sessions, may be replaced. */
static bool of_a_model(const char *path) {
  static const char *const names[] = {"config.json",
                                      "recipe.json",
                                      "tokenizer.json",
                                      "metrics.jsonl",
                                      "model.safetensors",
                                      "linearize.json",
                                      "vocab.json",
                                      "vocab.txt",
                                      "merges.txt",
                                      "tokenizer.model",
                                      "model-*-of-*.safetensors",
                                      "model.safetensors.index.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "generation_config.json",
                                      "chat_template.jinja",
                                      "chat_template.json",
                                      "match.json",
                                      "tune.json"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (fnmatch(names[i], mn_path_base(path), 0) == 0) return mn_file_exists(path);
  return false;
}

/* Does an option's value name a file or a directory? */
static bool is_path(const mn_option *o) {
  static const char *const words[] = {"FILE", "DIR", "PATH", "MODEL", "FOLDER"};
  for (size_t i = 0; o->metavar && i < sizeof words / sizeof *words; i++)
    if (!strcmp(o->metavar, words[i])) return true;
  return false;
}

/* A name for a message that says what replaces what. */
static mn_status refuse(const mn_cli_value *v, const char *read) {
  return mn_fail(MN_ERR_CONFIG, "--%s %s: it would take the place of %s, which is read; give another name", v->option->name, v->text, read);
}

/* One file of a model is read, and what is written would be another of it. */
static mn_status refuse_part(const mn_cli_value *v, const char *read) {
  return mn_fail(MN_ERR_CONFIG, "--%s %s: it would take the place of a file of the model that %s belongs to; give another name",
                 v->option->name, v->text, read);
}

/* Against one word of the command line that may be a file or a directory. */
static mn_status spare(const mn_cli_value *v, const char *word) {
  mn_file_info info;
  if (!word || !*word || strlen(word) > 4096 || mn_file_stat(word, &info) != MN_OK || !info.exists) return MN_OK;
  if (!info.is_dir && mn_file_same(v->text, word)) return refuse(v, word);
  if (!of_a_model(v->text) || (!info.is_dir && !of_a_model(word))) return MN_OK;
  char *dir = mn_path_dir(v->text), *read = info.is_dir ? mn_strdup(word) : mn_path_dir(word);
  const mn_status status = !dir || !read              ? MN_ERR_MEMORY
                           : !mn_file_same(dir, read) ? MN_OK
                           : info.is_dir              ? refuse(v, mn_path_base(v->text))
                                                      : refuse_part(v, word);
  free(dir);
  free(read);
  return status;
}

static mn_status spare_all(const mn_cli *cli, const mn_cli_value *v) {
  for (int i = 0; i < cli->n_args; i++) MN_TRY(spare(v, cli->args[i]));
  for (int i = 0; i < cli->n_values; i++) {
    const mn_cli_value *other = &cli->values[i];
    if (other != v && is_path(other->option) && !is_output(other) && !goes_on(other->option, v->option)) MN_TRY(spare(v, other->text));
  }
  return MN_OK;
}

/* Where a text, frames or a log are a stream, "-" is the process's own. Other files are read more than once, or are written whole and put in
 * place: they are no stream, nor a file of that name that nobody asked for. */
static mn_status refuse_stream(const mn_cli_value *v) {
  const char *name = v->option->name, *metavar = v->option->metavar ? v->option->metavar : "";
  if (!is_path(v->option) || (v->option->flags & MN_OPTION_STREAM) || strcmp(v->text, "-") != 0) return MN_OK;
  const bool written = (v->option->flags & MN_OPTION_OUTPUT) || !strcmp(name, "out");
  const char *kind = !strcmp(metavar, "DIR") || !strcmp(metavar, "FOLDER") ? "directory" : !strcmp(metavar, "MODEL") ? "model" : "file";
  if (written)
    return mn_fail(MN_ERR_CONFIG, "--%s -: it does not go to standard output; give the name of a %s ('./-' for one that is called so)",
                   name, kind);
  return mn_fail(MN_ERR_CONFIG, "--%s -: it is no standard input or output; give the name of a %s ('./-' for one that is called so)", name,
                 kind);
}

mn_status mn_cli_try_outputs(const mn_cli *cli) {
  for (int i = 0; i < cli->n_values; i++) {
    const mn_cli_value *v = &cli->values[i];
    MN_TRY(refuse_stream(v));
    if (v->option->flags & MN_OPTION_APPENDS) MN_TRY(spare_all(cli, v));
    if (!is_output(v)) continue;
    for (int j = 0; j < i; j++)
      if (is_output(&cli->values[j]) && mn_file_same(cli->values[j].text, v->text))
        return mn_fail(MN_ERR_CONFIG, "--%s and --%s both name %s; give one another name", cli->values[j].option->name, v->option->name,
                       v->text);
    if ((v->option->flags & MN_OPTION_PICTURE) == MN_OPTION_PICTURE) MN_TRY(mn_plot_check_name(v->text));
    MN_TRY(spare_all(cli, v));
    MN_TRY(mn_context(mn_output_try(v->text, 0), "--%s", v->option->name));
  }
  return MN_OK;
}

mn_status mn_cli_draw(const mn_cli *cli, const mn_plot *plot) {
  const char *path;
  for (int i = 0; (path = mn_cli_nth(cli, "plot", i)); i++) {
    MN_TRY(mn_plot_write(plot, path));
    mn_cli_note(cli, "wrote %s", path);
  }
  return MN_OK;
}
