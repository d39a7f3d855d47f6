/* verb_eval.c - `mneme eval`: a trained model on held-out text, on any text, or on a memory task. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/eval_tasks.h"
#include "cli/train_view.h"
#include "eval/answers.h"
#include "eval/soft_targets.h"
#include "format/json.h"
#include "model/bundle.h"
#include "objective/teacher.h"

typedef struct evaluation {
  mn_cli *cli;
  mn_arena *arena;
  mn_bundle bundle;
  mn_recipe *recipe;        /* of the training; NULL: the directory has none */
  const mn_recipe *last;    /* of its last stage */
  mn_objectives objectives; /* the recipe's, or next_token */
  int64_t batch, seq_len, batches, examples;
  mn_dtype compute;
  bool carry, held_out; /* held_out: what the recipe names, as the training had it */
  const char *what;     /* "held-out text of the recipe", the file, the task */
} evaluation;

/* ---- text, and tasks of token ids: whole segments ---- */

static mn_status print_segments(evaluation *e, const mn_source *source, const mn_evaluation *r) {
  char hex[33], tokens[16];
  const mn_task *task = mn_task_of_source(source);
  MN_TRY(mn_model_fingerprint(e->bundle.model, e->bundle.params, hex));
  double low = 0, high = 0;
  if (r->score.examples)
    mn_wilson_interval((int64_t)llround(mn_task_acc(&r->score) * (double)r->score.positions), r->score.positions, &low, &high);
  if (e->cli->json) {
    json_t *j = mn_evaluation_json(r);
    json_object_update_new(j,
                           json_pack("{s:o,s:o,s:I,s:I,s:b,s:s,s:I}", "model", mn_cli_text(mn_cli_get(e->cli, "model")), "on",
                                     mn_cli_text(e->what), "seq_len", (json_int_t)e->seq_len, "batch", (json_int_t)e->batch, "carry_state",
                                     e->carry, "fingerprint", hex, "parameters", (json_int_t)mn_params_count(e->bundle.params)));
    if (task) json_object_set_new(j, "task", json_string(task->def->name));
    if (r->score.examples) json_object_set_new(j, "accuracy_interval", json_pack("[f,f]", low, high));
    return mn_cli_json(e->cli, j);
  }
  if (!mn_source_corpus(source))
    mn_print("%s: %s %s\n", e->what, mn_human_count((double)r->tokens, tokens),
             mn_objectives_usual(&e->objectives) ? "targets" : "examples");
  else
    mn_print("%s: %s targets in segments of %lld%s\n", e->what, mn_human_count((double)r->tokens, tokens), (long long)e->seq_len,
             e->carry ? ", state carried from one to the next" : ", each from a fresh state");
  mn_print("loss %.4f%s", r->loss, mn_objectives_usual(&e->objectives) ? " nats per token" : "");
  for (int i = 0; i < r->n_metrics; i++) mn_print(", %s %.4f", r->metrics[i].name, r->metrics[i].value);
  mn_print("\n");
  if (isfinite(r->bits_per_byte)) mn_print("%.4f bits per byte of text\n", r->bits_per_byte);
  if (r->score.examples)
    mn_print("accuracy %.4f (95 %%: %.4f to %.4f), whole examples %.4f, of %lld examples\n", mn_task_acc(&r->score), low, high,
             mn_task_seq_acc(&r->score), (long long)r->score.examples);
  return MN_OK;
}

/* What was never looked at, where the data says so; else what training looks at on the way. */
static int split_of(const evaluation *e, const mn_source *source) {
  if (mn_task_of_source(source)) return MN_SPLIT_TEST;
  if (mn_source_corpus(source)) return MN_SPLIT_VALIDATION;
  return mn_source_check(source, MN_SPLIT_TEST, e->batch, e->seq_len) == MN_OK ? MN_SPLIT_TEST : MN_SPLIT_VALIDATION;
}

/* A changed file changes what was held out, and what a source works out of its training part (means, deviations). */
static mn_status check_data(const evaluation *e, const mn_source *source, const mn_teachers *teachers) {
  const char *trained = e->bundle.params->origin.data;
  char now[MN_HASH_HEX];
  mn_source_hash(source, now);
  MN_TRY(mn_teachers_hash(teachers, now));
  if (!e->held_out || !*trained || !strcmp(trained, now)) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s is not what the model was trained on: a file of `data`, or a teacher, has changed since; put it back%s",
                 e->what, mn_source_is_tokens(&e->last->source) ? ", or give --data FILE" : "");
}

static mn_status open_teachers(const evaluation *e, mn_teachers *out) {
  return mn_teachers_open(&e->objectives, e->bundle.model, e->bundle.params->backend, e->bundle.params->origin.tokenizer, out);
}

/* The recipe's objective needs what a text has not (soft targets of a file): a text is judged by its next tokens then, if it can be. */
static mn_status by_next_token(evaluation *e, const mn_source *source, const mn_batch *layout) {
  mn_objectives plain;
  char *why = mn_strdup(mn_message());
  mn_status status = why ? mn_objectives_parse(e->arena, NULL, "objective", &plain) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    status = mn_objectives_match(&plain, NULL, e->bundle.model, source, layout);
    if (status != MN_OK) status = mn_fail(status, "%s", why); /* the first says what is wrong */
    else mn_cli_note(e->cli, "judged by the next token: %s", why);
  }
  if (status == MN_OK) e->objectives = plain;
  free(why);
  return status;
}

static mn_status evaluate_source(evaluation *e, mn_source *source, mn_evaluation *r) {
  const mn_model *m = e->bundle.model;
  if (source->seq_len && mn_cli_given(e->cli, "seq-len") && e->seq_len != source->seq_len)
    return mn_fail(MN_ERR_CONFIG, "--seq-len %lld: rows of this data have %lld places", (long long)e->seq_len, (long long)source->seq_len);
  if (source->seq_len) e->seq_len = source->seq_len;
  if (source->vocab_size > m->config.vocab_size)
    return mn_fail(MN_ERR_CONFIG, "%s has token ids up to %lld, but the model was trained for %lld", e->what,
                   (long long)source->vocab_size - 1, (long long)m->config.vocab_size);
  mn_evaluator_config how = {.batch = e->batch,
                             .seq_len = e->seq_len,
                             .compute = e->compute,
                             .carry_state = e->carry,
                             .forget = mn_cli_given(e->cli, "forget"),
                             .seed = e->recipe ? (uint64_t)e->last->seed : 1};
  int split = split_of(e, source);
  bool endless = mn_source_steps(source, split, e->batch, e->seq_len) == INT64_MAX;
  bool some = endless || mn_cli_given(e->cli, "examples");
  int64_t batches = some ? (e->examples + e->batch - 1) / e->batch : e->batches;
  mn_batch layout;
  mn_evaluator *evaluator = NULL;
  MN_TRY(mn_source_check(source, split, e->batch, e->seq_len));
  MN_TRY(mn_batch_new(source, e->batch, e->seq_len, &layout));
  mn_status status = mn_objectives_match(&e->objectives, NULL, m, source, &layout);
  if (status != MN_OK && mn_cli_given(e->cli, "data")) status = by_next_token(e, source, &layout);
  mn_batch_free(&layout);
  mn_teachers teachers = {0};
  if (status == MN_OK) status = open_teachers(e, &teachers);
  how.teachers = &teachers;
  if (status == MN_OK) status = check_data(e, source, &teachers);
  if (status == MN_OK) status = mn_evaluator_new(m, e->bundle.params, source, &e->objectives, &how, &evaluator);
  if (status == MN_OK) status = mn_evaluate(evaluator, split, batches, &(mn_watch){.stop = mn_cli_stop_flag()}, r);
  mn_evaluator_free(evaluator);
  mn_teachers_close(&teachers);
  return status;
}

/* Whole answers, token by token. */
static mn_status answer(evaluation *e, mn_source *source) {
  mn_answers r;
  mn_answers_config c = {.split = split_of(e, source),
                         .examples = e->examples,
                         .batch = mn_cli_given(e->cli, "batch") ? e->batch : 0,
                         .beams = 1,
                         .length_penalty = 0.6,
                         .compute = e->compute,
                         .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  MN_TRY(mn_cli_int(e->cli, "beams", 1, 256, &c.beams));
  c.watch.ctx = mn_progress_new(e->cli, "answers", "examples", c.examples);
  mn_status status = mn_eval_answers(e->bundle.model, e->bundle.params, source, &c, &r);
  mn_progress_free(c.watch.ctx);
  MN_TRY(status);
  const double part = r.examples ? (double)r.right / (double)r.examples : (double)NAN;
  if (e->cli->json)
    return mn_cli_json(e->cli, json_pack("{s:s,s:o,s:I,s:I,s:I,s:[f,f]}", "metric", "exact", "value", mn_cli_number(part), "examples",
                                         (json_int_t)r.examples, "right", (json_int_t)r.right, "beams", (json_int_t)c.beams, "interval",
                                         r.low, r.high));
  mn_print("%s: %" PRId64 " of %" PRId64 " answers are right as a whole: %.4f (95 %%: %.3f to %.3f), %s\n", e->what, r.right, r.examples,
           part, r.low, r.high, c.beams > 1 ? "by beams" : "greedy");
  return MN_OK;
}

/* What the model says of its training data, into a file. */
static mn_status keep_soft_targets(evaluation *e, mn_source *source) {
  const char *path = mn_cli_get(e->cli, "soft-targets");
  mn_soft_targets_config c = {.batch = e->batch,
                              .seq_len = source->seq_len ? source->seq_len : e->seq_len,
                              .batches = e->batches,
                              .compute = e->compute,
                              .tokenizer = e->bundle.params->origin.tokenizer,
                              .watch = {mn_cli_stop_flag(), mn_progress_told, NULL}};
  int64_t rows = 0, batches;
  MN_TRY(mn_cli_int(e->cli, "top", 1, 4096, &c.top));
  batches = mn_soft_targets_batches(source, &c);
  if (batches < 0) return mn_fail(MN_ERR_CONFIG, "--soft-targets: examples of a task are made without end; give --batches N");
  c.watch.ctx = mn_progress_new(e->cli, "soft targets", "batches", batches);
  mn_status status = mn_soft_targets_write(e->bundle.model, e->bundle.params, source, &c, path, &rows);
  mn_progress_free(c.watch.ctx);
  MN_TRY(status);
  if (e->cli->json)
    return mn_cli_json(e->cli, json_pack("{s:o,s:I,s:I,s:I}", "soft_targets", mn_cli_text(path), "rows", (json_int_t)rows, "seq_len",
                                         (json_int_t)c.seq_len, "top", (json_int_t)c.top));
  mn_print("%s: the %" PRId64 " likeliest tokens at each of %" PRId64 " places of %" PRId64 " rows, and what was read\n", path, c.top,
           c.seq_len, rows);
  return MN_OK;
}

static mn_status on_source(evaluation *e, const mn_source_config *config) {
  mn_train_view view = {.cli = e->cli, .label = "eval"};
  mn_source *source = NULL;
  mn_evaluation r;
  mn_status status = mn_source_open(config, e->bundle.tokenizer, &(mn_watch){mn_cli_stop_flag(), mn_train_view_data, &view}, &source);
  mn_train_view_end(&view);
  const bool answers = mn_cli_given(e->cli, "answers"), soft = mn_cli_given(e->cli, "soft-targets");
  if (status == MN_OK && (answers || soft)) {
    mn_teachers teachers;
    status = open_teachers(e, &teachers);
    if (status == MN_OK) status = check_data(e, source, &teachers);
    mn_teachers_close(&teachers);
    if (status == MN_OK) status = answers ? answer(e, source) : keep_soft_targets(e, source);
    mn_source_close(source);
    return status;
  }
  if (status == MN_OK) status = evaluate_source(e, source, &r);
  if (status == MN_OK && r.forgot) mn_cli_note(e->cli, "rows were longer than the model holds: their oldest tokens were forgotten");
  if (status == MN_OK) status = print_segments(e, source, &r);
  mn_source_close(source);
  return status;
}

static mn_status in_segments(evaluation *e, mn_data_config *data) {
  return on_source(e, &(mn_source_config){data->task ? &mn_source_task : &mn_source_text, data, data->seed});
}

/* ---- what to evaluate on ---- */

/* {name: NAME, key: value, ...} from --task and --set. */
static mn_status task_settings(evaluation *e, const char *name, const mn_value **out) {
  const mn_value *word = mn_value_text(e->arena, name), *map = mn_value_map(e->arena, 1, (const char *const[]){"name"}, &word);
  const mn_value *root = mn_value_map(e->arena, 1, (const char *const[]){"task"}, &map);
  if (!root) return MN_ERR_MEMORY;
  for (int i = 0; i < e->cli->n_set; i++) {
    const char *s = e->cli->set[i];
    char *full = strncmp(s, "task.", 5) == 0 ? mn_arena_strdup(e->arena, s) : mn_arena_format(e->arena, "task.%s", s);
    if (!full) return MN_ERR_MEMORY;
    MN_TRY(mn_value_set(e->arena, root, full, &root));
  }
  *out = mn_value_get(root, "task");
  return MN_OK;
}

/* Every task has its own options; one that would be passed over is a mistake. An unknown task is refused later, by name. */
static mn_status check_task_options(const mn_cli *cli, const char *name) {
  bool stream = strcmp(name, "stream") == 0;
  const mn_task_def *def = mn_task_find(name);
  bool text = def && def->sample_text, ids = def && !def->sample_text;
  MN_TRY(mn_cli_only(cli, false, "text: --data, or what the recipe held out", "carry"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "soft-targets"), "text: --data, or what the recipe held out", "batches"));
  MN_TRY(mn_cli_only(cli, !ids && !stream, "tasks of text", "lengths vary new-tokens depths"));
  MN_TRY(mn_cli_only(cli, !ids, "tasks of text and --task stream", "plot"));
  MN_TRY(mn_cli_only(cli, !ids && !text, "--task stream", "tokens restart-at"));
  MN_TRY(mn_cli_only(cli, !stream, "tasks of single examples", "examples"));
  MN_TRY(mn_cli_only(cli, !text && !stream, "tasks of token ids", "stream"));
  return mn_cli_only(cli, ids && !mn_cli_given(cli, "stream"), "text, and tasks of token ids in whole segments", "batch");
}

/* Text and streams go through a session, whole segments of token ids do not need one. */
static mn_status on_task_settings(evaluation *e, const char *name, const mn_value *settings) {
  mn_eval_view view = {.cli = e->cli,
                       .arena = e->arena,
                       .bundle = &e->bundle,
                       .compute = e->compute,
                       .forget = mn_cli_given(e->cli, "forget"),
                       .prefill = e->seq_len,
                       .examples = mn_cli_given(e->cli, "examples") ? e->examples : 0};
  bool stream = strcmp(name, "stream") == 0;
  MN_TRY(check_task_options(e->cli, name));
  e->what = name;
  if (stream) return mn_eval_view_needles(&view, settings);
  mn_task *task; /* refuses an unknown name and wrong settings */
  MN_TRY(mn_task_open(name, settings, &task));
  bool text = task->def->sample_text != NULL;
  if (!text && mn_cli_given(e->cli, "seq-len") && e->seq_len != task->seq_len) {
    mn_status status =
        mn_fail(MN_ERR_CONFIG, "--seq-len %lld: the examples of this task have %lld tokens; its settings (--set) change that",
                (long long)e->seq_len, (long long)task->seq_len);
    mn_task_close(task);
    return status;
  }
  mn_task_close(task);
  if (text) return mn_eval_view_text(&view, name, settings);
  if (mn_cli_given(e->cli, "stream")) return mn_eval_view_parity(&view, name, settings);
  mn_data_config data;
  mn_config_defaults(mn_data_fields, &data);
  data.task = settings;
  if (e->cli->seed_given) data.seed = (int64_t)e->cli->seed;
  return in_segments(e, &data);
}

static mn_status on_task(evaluation *e, const char *name) {
  const mn_value *settings = NULL;
  MN_TRY(task_settings(e, name, &settings));
  return on_task_settings(e, name, settings);
}

static mn_status on_files(evaluation *e) {
  mn_data_config data;
  mn_config_defaults(mn_data_fields, &data);
  int n = 0;
  while (mn_cli_nth(e->cli, "data", n)) n++;
  const char **files = mn_arena_alloc(e->arena, (size_t)n * sizeof *files);
  if (!files) return MN_ERR_MEMORY;
  for (int i = 0; i < n; i++) files[i] = mn_cli_nth(e->cli, "data", i);
  data.files = data.validation_files = (mn_strings){files, n};
  data.order = e->carry ? MN_ORDER_SEQUENTIAL : MN_ORDER_SHUFFLED;
  MN_TRY(mn_bundle_need_tokenizer(&e->bundle, mn_cli_get(e->cli, "model")));
  e->what = n == 1 ? files[0] : "the files";
  return in_segments(e, &data);
}

static mn_status on_held_out(evaluation *e) {
  if (!e->recipe)
    return mn_fail(MN_ERR_CONFIG, "%s has no recipe.json that says what was held out; give --data FILE or --task NAME",
                   mn_cli_get(e->cli, "model"));
  e->held_out = !e->last->data.task;
  if (!mn_source_is_tokens(&e->last->source)) {
    e->what = "the recipe's data";
    return on_source(e, &e->last->source);
  }
  mn_data_config data = e->last->data;
  if (e->carry) data.order = MN_ORDER_SEQUENTIAL;
  e->what = data.task ? "the recipe's task" : "the recipe's held-out text";
  if (!data.task) return in_segments(e, &data);
  const char *name = mn_value_get(data.task, "name")->as.text;
  const mn_task_def *def = mn_task_find(name);
  bool through_session = def && (def->sample_text || mn_cli_given(e->cli, "stream"));
  MN_TRY(check_task_options(e->cli, name));
  if (through_session) return on_task_settings(e, name, data.task);
  MN_TRY(mn_cli_only(e->cli, false, "a task that --task names; the recipe's has the recipe's length", "seq-len"));
  if (e->cli->seed_given) {
    char *seed = mn_arena_format(e->arena, "seed=%llu", (unsigned long long)e->cli->seed);
    MN_TRY(seed ? mn_value_set(e->arena, data.task, seed, &data.task) : MN_ERR_MEMORY);
  }
  return in_segments(e, &data);
}

static mn_status read_options(evaluation *e) {
  const mn_cli *cli = e->cli;
  char *path = mn_path_join(mn_cli_get(cli, "model"), "recipe.json");
  if (!path) return MN_ERR_MEMORY;
  mn_status status = mn_file_exists(path) ? mn_recipe_read(path, NULL, 0, &e->recipe) : MN_OK;
  free(path);
  MN_TRY(status);
  if (e->recipe) e->last = e->recipe->n_stages ? e->recipe->stages[e->recipe->n_stages - 1].recipe : e->recipe;
  if (e->last) e->objectives = e->last->objectives;
  else MN_TRY(mn_objectives_parse(e->arena, NULL, "objective", &e->objectives));
  e->batch = e->recipe ? e->last->train.batch : 8;
  e->seq_len = e->recipe ? e->last->train.seq_len : 256;
  e->carry = mn_cli_given(cli, "carry") || (e->recipe && e->last->train.carry_state && !mn_cli_given(cli, "task"));
  MN_TRY(mn_cli_int(cli, "batch", 1, 65536, &e->batch));
  MN_TRY(mn_cli_int(cli, "seq-len", 1, 1 << 24, &e->seq_len));
  MN_TRY(mn_cli_int(cli, "batches", 0, INT64_MAX, &e->batches));
  MN_TRY(mn_cli_int(cli, "examples", 1, 1 << 30, &e->examples));
  MN_TRY(mn_cli_precision(cli, "precision", false, &e->compute));
  bool task = mn_cli_given(cli, "task") || (!mn_cli_given(cli, "data") && e->recipe && e->last->data.task);
  const bool made = !mn_cli_given(cli, "data") && e->recipe && !mn_source_is_tokens(&e->last->source); /* of examples, not of text */
  if (!task)
    MN_TRY(mn_cli_only(cli, false, "tasks, and this is text", "lengths vary depths new-tokens stream tokens restart-at plot seed"));
  if (!task) MN_TRY(mn_cli_only(cli, made, "tasks and data of examples, and this is text", "examples"));
  MN_TRY(mn_cli_only(cli, made, "data of pairs", "answers"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "answers"), "whole answers: --answers", "beams"));
  MN_TRY(
      mn_cli_only(cli, !mn_cli_given(cli, "answers"), "what is read in segments, and not for --answers", "carry forget batches seq-len"));
  MN_TRY(mn_cli_only(cli, !mn_cli_given(cli, "examples"), "all there is, and not for --examples", "batches"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "soft-targets"), "--soft-targets", "top"));
  MN_TRY(mn_cli_only(cli, !mn_cli_given(cli, "soft-targets"), "judging; soft targets are of rows that begin anew",
                     "carry forget answers task"));
  if (cli->n_set && !mn_cli_given(cli, "task")) return mn_fail(MN_ERR_CONFIG, "--set changes a task's settings; give --task NAME");
  if (mn_cli_given(cli, "task") && mn_cli_given(cli, "data")) return mn_fail(MN_ERR_CONFIG, "--task and --data: give one of them");
  return MN_OK;
}

/* recipe.json says what was held out: it must be of the training that the weights are from. */
static mn_status check_recipe(evaluation *e) {
  const char *dir = mn_cli_get(e->cli, "model"), *trained = e->bundle.params->origin.recipe;
  char *path = mn_path_join(dir, "recipe.json"), hex[MN_HASH_HEX];
  const mn_value *root = NULL;
  mn_status status = path ? MN_OK : MN_ERR_MEMORY;
  if (status == MN_OK && e->recipe && *trained) {
    status = mn_json_read(e->arena, path, &root);
    if (status == MN_OK) status = mn_recipe_hash(root, hex);
    if (status == MN_OK && strcmp(hex, trained) != 0)
      status =
          mn_fail(MN_ERR_CONFIG,
                  "%s is not the recipe that %s/model.safetensors was trained by, so it does not say what was held out: copy both from one "
                  "directory, or take it away and give --data FILE or --task NAME",
                  path, dir);
  }
  free(path);
  return status;
}

static mn_status run(mn_cli *cli) {
  evaluation e = {.cli = cli, .arena = mn_arena_new(), .examples = 512};
  const char *dir = mn_cli_get(cli, "model"), *task = mn_cli_get(cli, "task");
  mn_status status = !e.arena ? MN_ERR_MEMORY : dir ? MN_OK : mn_fail(MN_ERR_CONFIG, "eval needs --model DIR: what mneme train --out made");
  if (status == MN_OK) status = read_options(&e);
  if (status == MN_OK) status = mn_bundle_open(dir, cli->backend, cli->threads, &e.bundle);
  if (status == MN_OK) status = check_recipe(&e);
  if (status == MN_OK) status = task ? on_task(&e, task) : mn_cli_given(cli, "data") ? on_files(&e) : on_held_out(&e);
  mn_bundle_close(&e.bundle);
  mn_recipe_free(e.recipe);
  mn_arena_free(e.arena);
  return status;
}

static const mn_option options[] = {
    {"model", "DIR", NULL, "the trained model: the directory that mneme train --out made", 0},
    {"data", "FILE", NULL, "a text to measure perplexity on; may be repeated (what the recipe held out unless given)", MN_OPTION_REPEATS},
    {"task", "NAME", NULL,
     "a memory task instead: mqar, niah_mini, passkey, niah_single_1 ... or stream; --set KEY=VALUE changes its settings", 0},
    {"lengths", "LIST", NULL, "tasks of text: prompt and answer in so many tokens of the model, such as 256,1024,4096: rows of a grid", 0},
    {"vary", "KEY=LIST", NULL, "tasks of text: the rows are values of a setting instead, such as garbage=0,100,500", 0},
    {"depths", "N", "1", "tasks of text: columns of the grid, needles at N depths from 0 to 100 %", 0},
    {"new-tokens", "N", NULL, "tasks of text: the longest answer (10, or the task's setting new_tokens)", 0},
    {"stream", NULL, NULL, "tasks of token ids: also token by token, saved and restored on the way; both forms must agree", 0},
    {"tokens", "N", NULL, "stream: its length (10000000)", 0},
    {"restart-at", "N", NULL, "stream: crash test, go on from a saved file at this token", 0},
    {"plot", "FILE", NULL, "tasks of text: heat map; stream: recall against distance (.svg or .png); may be repeated",
     MN_OPTION_REPEATS | MN_OPTION_PICTURE},
    {"seq-len", "T", NULL, "tokens of a segment (as trained)", 0},
    {"batch", "B", NULL, "segments at once (as trained)", 0},
    {"batches", "N", "0", "text and data of examples: at most N batches; 0: all", 0},
    {"examples", "N", NULL,
     "how many examples: of tasks and --answers 512, of tasks of text 50, 20 in each cell of a grid, --stream 128, else all", 0},
    {"answers", NULL, NULL, "pairs: how many answers are right as a whole, said token by token while looking at the source", 0},
    {"beams", "N", "1", "answers: beginnings that are kept; 1: greedy", 0},
    {"soft-targets", "FILE", NULL,
     "instead: what the model says of the text it was trained on (or --data), for a student: a file for data: {type: tensors}",
     MN_OPTION_OUTPUT},
    {"top", "N", "8", "soft targets: so many likeliest tokens of each place", 0},
    {"carry", NULL, NULL, "text: read in B long streams whose state goes on from segment to segment", 0},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {0}};
static const char *const examples[] = {
    "mneme eval --model runs/quick",
    "mneme eval --model runs/quick --data data/books/moby-dick.txt --carry",
    "mneme eval --model runs/mqar --task mqar --set vocab_size=64 --set len=128 --set kv=16",
    "mneme eval --model runs/quick --task passkey --lengths 512,1024,4096 --depths 11 --plot passkey.svg",
    "mneme eval --model runs/mqar --task mqar --set vocab_size=64 --stream",
    "mneme eval --model runs/needles --task stream --tokens 1000000",
    NULL};
const mn_verb mn_verb_eval = {
    .name = "eval",
    .purpose = MN_VERB_USE,
    .summary = "perplexity on text, accuracy on memory tasks",
    .usage = "--model DIR [--data FILE | --task NAME] [options]",
    .about = "Text is read in segments, each from a fresh state, or with --carry in long streams; the figures are the loss per token, "
             "perplexity, and bits per byte, which compare across tokenizers. Tasks of token ids report the accuracy of the likeliest "
             "token; in tasks "
             "of text the model reads the prompt as a stream and goes on greedily; the task stream asks for needles up to millions of "
             "tokens back in one pass at "
             "constant memory. With --json each result of the last two, and of --stream, is one line. docs/tasks.md describes every task.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 0,
    .max_args = 0,
    .run = run};
