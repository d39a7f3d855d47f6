/* verb_task.c - `mneme task`: the memory tasks, and samples of them for any program. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/bundle.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "format/safetensors.h"
#include "task/task.h"

/* ---- what a task's samples are ---- */
typedef enum sample_kind { IDS, LABELLED, SPAN, TEXT } sample_kind;
static const char *const kind_names[] = {"token ids", "token ids, a class", "token ids, a span", "text"};

static sample_kind kind_of(const mn_task_def *def) {
  return def->sample_text ? TEXT : def->sample_label ? LABELLED : def->sample_span ? SPAN : IDS;
}

/* One sample, or of token ids so many: rows of T, and beside them what is asked for. */
typedef struct drawn {
  int32_t *input;  /* [n, T] */
  int32_t *target; /* [n, T], [n] or [n, 2] */
  int32_t *length; /* [n]; T where a sample has none of its own */
  mn_task_text text;
} drawn;

static int64_t targets_of(const mn_task *task) { /* of a sample */
  const sample_kind kind = kind_of(task->def);
  return kind == IDS ? task->seq_len : kind == SPAN ? 2 : 1;
}

static void drawn_free(drawn *d) {
  free(d->input);
  free(d->target);
  free(d->length);
  mn_task_text_free(&d->text);
}

static mn_status drawn_new(const mn_task *task, int64_t n, drawn *d) {
  *d = (drawn){0};
  if (kind_of(task->def) == TEXT) return MN_OK;
  const mn_shape rows = MN_SHAPE(n, task->seq_len);
  if (!mn_shape_holds(&rows, MN_I32))
    return mn_fail(MN_ERR_CONFIG, "--count: so many samples of %" PRId64 " tokens are too many", task->seq_len);
  d->input = mn_calloc((size_t)n * (size_t)task->seq_len, sizeof *d->input);
  d->target = mn_calloc((size_t)n * (size_t)targets_of(task), sizeof *d->target);
  d->length = mn_calloc((size_t)n, sizeof *d->length);
  if (d->input && d->target && d->length) return MN_OK;
  drawn_free(d);
  *d = (drawn){0};
  return MN_ERR_MEMORY;
}

/* Sample `index` to row i. */
static mn_status draw(const mn_task *task, int split, int64_t index, int64_t i, drawn *d) {
  int32_t *input = d->input + i * task->seq_len, *target = d->target + i * targets_of(task);
  switch (kind_of(task->def)) {
  case TEXT:
    mn_task_text_free(&d->text);
    return mn_task_sample_text(task, split, (uint64_t)index, &d->text);
  case LABELLED:
    return mn_task_sample_label(task, split, (uint64_t)index, input, &d->length[i], target);
  case SPAN:
    return mn_task_sample_span(task, split, (uint64_t)index, input, &d->length[i], target);
  case IDS:
    d->length[i] = (int32_t)task->seq_len;
    return mn_task_sample(task, split, (uint64_t)index, input, target);
  }
  return MN_OK;
}

/* ---- which samples ---- */
static const char *const splits[] = {"train", "validation", "test", NULL};

typedef struct wanted {
  mn_task *task;
  mn_tokenizer *tok; /* texts are as long as it says; NULL: bytes */
  const mn_value *settings;
  int split;
  int64_t first, count;
  const char *path; /* NULL: shown */
} wanted;

static size_t count_tokens(void *ctx, const char *text, size_t n) {
  mn_ids ids = {0};
  const mn_status status = mn_tokenizer_encode(ctx, text, n, 0, &ids);
  const size_t count = status == MN_OK ? ids.len : n; /* a text that has no tokens counts its bytes, as `mneme eval` has it */
  mn_ids_free(&ids);
  return count;
}

static json_t *numbers(const int32_t *x, int64_t n) {
  json_t *list = json_array();
  for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_integer(x[i]));
  return list;
}

static json_t *to_json(const mn_value *v) {
  mn_text text = {0};
  json_t *out = mn_value_to_json(v, 0, &text) == MN_OK ? json_loads(text.data, JSON_DECODE_ANY, NULL) : NULL;
  mn_text_free(&text);
  return out ? out : json_null();
}

static json_t *settings_of(const mn_task *task) {
  mn_arena *arena = mn_arena_new();
  const mn_value *v = arena ? mn_config_to_value(arena, &(mn_config_part){task->def->fields, task->config}, 1) : NULL;
  json_t *out = v ? to_json(v) : json_null();
  if (arena) mn_arena_free(arena);
  return out;
}

/* Row i of what was drawn, which is sample `index`. */
static json_t *line_of(const wanted *w, const drawn *d, int64_t i, int64_t index) {
  const int32_t *input = d->input + i * w->task->seq_len, *target = d->target + i * targets_of(w->task);
  const sample_kind kind = kind_of(w->task->def);
  json_t *line = json_pack("{s:I}", "index", (json_int_t)index);
  if (kind == TEXT) {
    json_t *answers = json_array();
    for (int k = 0; k < d->text.n_answers; k++) json_array_append_new(answers, mn_cli_text(d->text.answers[k]));
    json_object_set_new(line, "prompt", mn_cli_text(d->text.prompt));
    json_object_set_new(line, "answer", mn_cli_text(d->text.answer));
    json_object_set_new(line, "answers", answers);
    return line;
  }
  json_object_set_new(line, "input", numbers(input, d->length[i]));
  if (kind == LABELLED) json_object_set_new(line, "label", json_integer(target[0]));
  else json_object_set_new(line, kind == SPAN ? "span" : "target", numbers(target, targets_of(w->task)));
  return line;
}

/* ---- for people ---- */
static void show_ids(const mn_task *task, const drawn *d) {
  const int width = mn_cli_columns(stdout);
  const bool each = kind_of(task->def) == IDS;
  int column = 0;
  for (int64_t t = 0; t < d->length[0]; t++) {
    char item[32];
    const int n = each && d->target[t] != MN_IGNORE ? snprintf(item, sizeof item, "%d>%d", d->input[t], d->target[t])
                                                    : snprintf(item, sizeof item, "%d", d->input[t]);
    if (column && column + 1 + n > width - 2) column = 0, mn_print("\n");
    mn_print("%s%s", column ? " " : "  ", item);
    column += n + (column ? 1 : 2);
  }
  mn_print("\n");
}

static void show(const wanted *w, const drawn *d, int64_t index) {
  const sample_kind kind = kind_of(w->task->def);
  int64_t asked = 0;
  for (int64_t t = 0; kind == IDS && t < w->task->seq_len; t++) asked += d->target[t] != MN_IGNORE;
  if (index > w->first) mn_print("\n");
  mn_print("sample %" PRId64 " of split %s", index, splits[w->split]);
  if (kind == TEXT) {
    const size_t n = strlen(d->text.prompt), tokens = w->tok ? count_tokens(w->tok, d->text.prompt, n) : n;
    mn_print(": a prompt of %zu %s\n", tokens, w->tok ? "tokens" : "bytes");
    mn_print_model_text(d->text.prompt, n);
    mn_print("\n  what follows: '%s'\n", d->text.answer);
    for (int k = 0; k < d->text.n_answers; k++) mn_print("  looked for: '%s'\n", d->text.answers[k]);
    return;
  }
  mn_print(": %d tokens", d->length[0]);
  if (kind == IDS) mn_print(", %" PRId64 " asked for (a>b: behind a, b is)\n", asked);
  else if (kind == LABELLED) mn_print(", class %d of %" PRId64 "\n", d->target[0], w->task->n_classes);
  else mn_print(", the answer at %d to %d\n", d->target[0], d->target[1]);
  show_ids(w->task, d);
}

static mn_status print(mn_cli *cli, const wanted *w) {
  drawn d;
  MN_TRY(drawn_new(w->task, 1, &d));
  mn_status status = MN_OK;
  for (int64_t i = 0; i < w->count && status == MN_OK; i++) {
    status = mn_stop_check("drawing samples");
    if (status == MN_OK) status = draw(w->task, w->split, w->first + i, 0, &d);
    if (status != MN_OK) break;
    if (cli->json) mn_cli_json_line(cli, line_of(w, &d, 0, w->first + i));
    else show(w, &d, w->first + i);
  }
  drawn_free(&d);
  return status;
}

/* ---- into a file ---- */
static mn_status write_lines(const wanted *w, mn_progress *progress) {
  drawn d;
  mn_file_writer *file = NULL;
  MN_TRY(drawn_new(w->task, 1, &d));
  mn_status status = mn_file_writer_open(w->path, &file);
  for (int64_t i = 0; i < w->count && status == MN_OK; i++) {
    status = mn_stop_check("drawing samples");
    if (status == MN_OK) status = draw(w->task, w->split, w->first + i, 0, &d);
    if (status != MN_OK) break;
    json_t *line = line_of(w, &d, 0, w->first + i);
    char *text = json_dumps(line, JSON_COMPACT);
    json_decref(line);
    status = text ? mn_file_writer_append(file, text, strlen(text)) : MN_ERR_MEMORY;
    if (status == MN_OK) status = mn_file_writer_append(file, "\n", 1);
    free(text);
    mn_progress_update(progress, i + 1);
  }
  drawn_free(&d);
  if (status == MN_OK) return mn_file_writer_commit(file);
  mn_file_writer_abort(file);
  return status;
}

static mn_status add_meta(mn_st_writer *w, const wanted *x) {
  char number[32];
  json_t *settings = settings_of(x->task);
  char *text = json_dumps(settings, JSON_COMPACT | JSON_ENCODE_ANY);
  json_decref(settings);
  mn_status status = text ? mn_st_writer_meta(w, "settings", text) : MN_ERR_MEMORY;
  free(text);
  MN_TRY(status);
  MN_TRY(mn_st_writer_meta(w, "task", x->task->def->name));
  MN_TRY(mn_st_writer_meta(w, "split", splits[x->split]));
  snprintf(number, sizeof number, "%" PRIu64, x->task->seed);
  MN_TRY(mn_st_writer_meta(w, "seed", number));
  snprintf(number, sizeof number, "%" PRId64, x->first);
  return mn_st_writer_meta(w, "first", number);
}

static mn_status write_tensors(const wanted *w, mn_progress *progress) {
  const mn_task *task = w->task;
  const sample_kind kind = kind_of(task->def);
  drawn d;
  MN_TRY(drawn_new(task, w->count, &d));
  mn_st_writer *st = mn_st_writer_new();
  mn_status status = st ? add_meta(st, w) : MN_ERR_MEMORY;
  for (int64_t i = 0; i < w->count && status == MN_OK; i++) {
    status = mn_stop_check("drawing samples");
    if (status == MN_OK) status = draw(task, w->split, w->first + i, i, &d);
    mn_progress_update(progress, i + 1);
  }
  const mn_shape rows = MN_SHAPE(w->count, task->seq_len), each = MN_SHAPE(w->count), pairs = MN_SHAPE(w->count, 2);
  if (status == MN_OK) status = mn_st_writer_add(st, "input", MN_I32, &rows, d.input);
  if (status == MN_OK && kind != IDS) status = mn_st_writer_add(st, "length", MN_I32, &each, d.length);
  if (status == MN_OK)
    status = mn_st_writer_add(st,
                              kind == IDS    ? "target"
                              : kind == SPAN ? "span"
                                             : "label",
                              MN_I32,
                              kind == IDS    ? &rows
                              : kind == SPAN ? &pairs
                                             : &each,
                              d.target);
  if (status == MN_OK) status = mn_st_writer_save(st, w->path);
  mn_st_writer_free(st);
  drawn_free(&d);
  return status;
}

static bool ends_in(const char *path, const char *suffix) {
  const size_t n = strlen(path), m = strlen(suffix);
  return n > m && !strcmp(path + n - m, suffix);
}

static mn_status write_file(mn_cli *cli, const wanted *w) {
  const bool lines = ends_in(w->path, ".jsonl"), tensors = ends_in(w->path, ".safetensors");
  if (!lines && !tensors)
    return mn_fail(MN_ERR_CONFIG, "--output %s: a name that ends in .jsonl (a line of JSON for each sample) or .safetensors (token ids)",
                   w->path);
  if (tensors && kind_of(w->task->def) == TEXT)
    return mn_fail(MN_ERR_CONFIG, "--output %s: samples of %s are text; give it a name that ends in .jsonl", w->path, w->task->def->name);
  mn_progress *progress = mn_progress_new(cli, w->task->def->name, "samples", w->count);
  const mn_status status = lines ? write_lines(w, progress) : write_tensors(w, progress);
  mn_progress_free(progress);
  MN_TRY(status);
  if (cli->json)
    return mn_cli_json(cli, json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "task", w->task->def->name, "split", splits[w->split], "seed",
                                      (json_int_t)w->task->seed, "first", (json_int_t)w->first, "samples", (json_int_t)w->count, "settings",
                                      settings_of(w->task), "file", mn_cli_text(w->path)));
  mn_print("%" PRId64 " samples of %s, split %s: %s\n", w->count, w->task->def->name, splits[w->split], w->path);
  return MN_OK;
}

/* ---- the verb ---- */
static mn_status list(mn_cli *cli) {
  json_t *all = json_array();
  for (int i = 0; mn_task_at(i); i++) {
    const mn_task_def *def = mn_task_at(i);
    if (cli->json)
      json_array_append_new(all, json_pack("{s:s,s:s,s:s}", "name", def->name, "samples", kind_names[kind_of(def)], "help", def->help));
    else mn_print("%-20s  %-18s  %s\n", def->name, kind_names[kind_of(def)], def->help);
  }
  if (cli->json) return mn_cli_json(cli, json_pack("{s:o}", "tasks", all));
  json_decref(all);
  return MN_OK;
}

static mn_status settings_given(mn_cli *cli, mn_arena *arena, const mn_value **out) {
  const mn_value *settings = NULL;
  for (int i = 0; i < cli->n_set; i++) MN_TRY(mn_value_set(arena, settings, cli->set[i], &settings));
  if (cli->seed_given) {
    const char *seed = mn_arena_format(arena, "seed=%" PRIu64, cli->seed);
    if (!seed) return MN_ERR_MEMORY;
    MN_TRY(mn_value_set(arena, settings, seed, &settings));
  }
  *out = settings;
  return MN_OK;
}

static mn_status work(mn_cli *cli, wanted *w) {
  const char *model = mn_cli_get(cli, "tokenizer");
  MN_TRY(mn_task_open(cli->args[0], w->settings, &w->task));
  if (model && kind_of(w->task->def) != TEXT)
    return mn_fail(MN_ERR_CONFIG, "--tokenizer has no effect here: samples of %s are token ids, not text", w->task->def->name);
  if (model) {
    MN_TRY(mn_bundle_tokenizer_of(model, &w->tok));
    mn_task_count_with(w->task, count_tokens, w->tok);
  }
  if (w->path) return write_file(cli, w);
  if (!cli->json) {
    mn_text help = {0};
    mn_config_help(w->task->def->fields, MN_HELP_TEXT, &help);
    const mn_status status = mn_text_status(&help);
    if (status == MN_OK) {
      mn_print("%s: %s\n\nSettings (--set KEY=VALUE)\n", w->task->def->name, w->task->def->help);
      mn_print_bytes(help.data, help.len);
      mn_print("\n");
    }
    mn_text_free(&help);
    MN_TRY(status);
  }
  return print(cli, w);
}

static mn_status run(mn_cli *cli) {
  enum { WRITTEN = 1000 };
  wanted w = {.count = 1, .path = mn_cli_get(cli, "output")};
  if (!cli->n_args) {
    MN_TRY(mn_cli_only(cli, false, "samples of the task that is named", "split count first output tokenizer set seed"));
    return list(cli);
  }
  if (w.path) w.count = WRITTEN;
  MN_TRY(mn_cli_choice(cli, "split", splits, &w.split));
  MN_TRY(mn_cli_int(cli, "count", 1, INT32_MAX, &w.count));
  MN_TRY(mn_cli_int(cli, "first", 0, INT64_MAX - INT32_MAX, &w.first));
  mn_arena *arena = mn_arena_new();
  if (!arena) return MN_ERR_MEMORY;
  mn_status status = settings_given(cli, arena, &w.settings);
  if (status == MN_OK) status = work(cli, &w);
  mn_task_close(w.task);
  mn_tokenizer_free(w.tok);
  mn_arena_free(arena);
  return status;
}

static const mn_option options[] = {
    {"split", "NAME", "train", "train, validation or test: no sample of one is of another", 0},
    {"count", "N", NULL, "so many samples (1; with --output 1000)", 0},
    {"first", "I", "0", "the number of the first: sample I is the same whatever comes before it", 0},
    {"output", "FILE", NULL,
     "into a .jsonl, a line for each, or a .safetensors: input [N,T], target [N,T] with -100 where nothing is asked", MN_OPTION_OUTPUT},
    {"tokenizer", "MODEL", NULL, "lengths of texts are in this model's tokens, not bytes", 0},
    {0}};
static const char *const examples[] = {"mneme task", "mneme task mqar --set len=64 --set kv=8",
                                       "mneme task mqar --count 10000 --output mqar.safetensors",
                                       "mneme task niah_single_1 --set len=2048 --split test --count 50 --output needles.jsonl", NULL};
const mn_verb mn_verb_task = {
    .name = "task",
    .purpose = MN_VERB_LOOK,
    .summary = "the memory tasks: what they ask, and samples of them, for any program",
    .usage = "[NAME] [options]",
    .about =
        "Without NAME, a list of the tasks. With it, what can be set, and a sample. Samples are functions of task, settings, split, seed and "
        "number: what a training or `mneme eval` draws here is what stands in the file.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_SEED | MN_CLI_SET,
    .min_args = 0,
    .max_args = 1,
    .run = run};
