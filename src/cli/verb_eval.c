/* verb_eval.c - `mneme eval`: a trained model on held-out text, on any text, or on a memory task. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/eval_source.h"
#include "cli/eval_tasks.h"
#include "cli/model_options.h"
#include "format/json.h"

/* ---- what to evaluate on ---- */

static mn_status in_segments(mn_eval_run *e, mn_data_config *data) {
  return mn_eval_on_source(e, &(mn_source_config){data->task ? &mn_source_task : &mn_source_text, data, data->seed});
}

/* {name: NAME, key: value, ...}: what --set changes in a task's settings. */
static mn_status task_settings(mn_eval_run *e, const mn_value *map, const mn_value **out) {
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
  bool stream = strcmp(name, "stream") == 0, verbatim = strcmp(name, "verbatim") == 0;
  const mn_task_def *def = mn_task_find(name);
  bool text = def && def->sample_text, ids = def && !def->sample_text;
  MN_TRY(mn_cli_only(cli, false, "text: --data, or what the recipe held out", "carry"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "soft-targets"), "text: --data, or what the recipe held out", "batches"));
  MN_TRY(mn_cli_only(cli, !ids && !stream && !verbatim, "tasks of text", "lengths vary new-tokens depths"));
  MN_TRY(mn_cli_only(cli, !ids, "tasks of text, --task stream and --task verbatim", "plot"));
  MN_TRY(mn_cli_only(cli, !ids && !text && !verbatim, "--task stream", "tokens restart-at"));
  MN_TRY(mn_cli_only(cli, !stream, "tasks of single examples", "examples"));
  MN_TRY(mn_cli_only(cli, !text && !stream && !verbatim, "tasks of token ids", "stream"));
  return mn_cli_only(cli, verbatim || (ids && !mn_cli_given(cli, "stream")),
                     "text, --task verbatim, and tasks of token ids in whole segments", "batch");
}

/* Text and streams go through a session, whole segments of token ids do not need one. */
static mn_status on_task_settings(mn_eval_run *e, const char *name, const mn_value *settings) {
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
  if (strcmp(name, "verbatim") == 0) return mn_eval_view_verbatim(&view, settings);
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

static mn_status on_task(mn_eval_run *e, const char *name) {
  const mn_value *settings = NULL, *word = mn_value_text(e->arena, name);
  const mn_value *map = mn_value_map(e->arena, 1, (const char *const[]){"name"}, &word);
  MN_TRY(map ? task_settings(e, map, &settings) : MN_ERR_MEMORY);
  return on_task_settings(e, name, settings);
}

static mn_status on_files(mn_eval_run *e) {
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

static mn_status on_held_out(mn_eval_run *e) {
  if (!e->recipe)
    return mn_fail(MN_ERR_CONFIG, "%s has no recipe.json that says what was held out; give --data FILE or --task NAME",
                   mn_cli_get(e->cli, "model"));
  e->held_out = !e->last->data.task;
  if (!mn_source_is_tokens(&e->last->source)) {
    e->what = "the recipe's data";
    return mn_eval_on_source(e, &e->last->source);
  }
  mn_data_config data = e->last->data;
  if (e->carry) data.order = MN_ORDER_SEQUENTIAL;
  e->what = data.task ? "the recipe's task" : "the recipe's held-out text";
  if (!data.task) return in_segments(e, &data);
  const char *name = mn_value_get(data.task, "name")->as.text;
  const mn_task_def *def = mn_task_find(name);
  bool through_session = def && (def->sample_text || mn_cli_given(e->cli, "stream"));
  MN_TRY(check_task_options(e->cli, name));
  if (e->cli->n_set) MN_TRY(task_settings(e, data.task, &data.task)); /* another length, say */
  if (through_session) return on_task_settings(e, name, data.task);
  MN_TRY(mn_cli_only(e->cli, false, "a task that --task names; the recipe's has the recipe's length", "seq-len"));
  if (e->cli->seed_given) {
    char *seed = mn_arena_format(e->arena, "seed=%llu", (unsigned long long)e->cli->seed);
    MN_TRY(seed ? mn_value_set(e->arena, data.task, seed, &data.task) : MN_ERR_MEMORY);
  }
  return in_segments(e, &data);
}

static mn_status read_options(mn_eval_run *e) {
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
  const bool lengths = mn_cli_given(cli, "lengths");
  if (!task) MN_TRY(mn_cli_only(cli, false, "tasks, and this is text", "vary depths new-tokens stream tokens restart-at"));
  if (!task) MN_TRY(mn_cli_only(cli, made || lengths, "tasks, data of examples, and --lengths of a text", "examples"));
  if (!task) MN_TRY(mn_cli_only(cli, lengths, "tasks, and --lengths of a text", "plot seed"));
  MN_TRY(mn_cli_only(cli, !made, "text and tasks of text", "lengths"));
  MN_TRY(mn_cli_only(cli, lengths && !task, "--lengths of a text", "judged"));
  if (lengths && !task) {
    MN_TRY(mn_cli_only(cli, false, "text in segments, and not for --lengths", "batches carry soft-targets"));
    MN_TRY(mn_eval_contexts_options(e));
  }
  MN_TRY(mn_cli_only(cli, e->carry || task || lengths, "what goes on from segment to segment: --carry, --lengths, or a task", "cache"));
  MN_TRY(mn_cli_only(cli, made, "data of pairs", "answers"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "answers"), "whole answers: --answers", "beams"));
  MN_TRY(mn_cli_only(cli, made, "data of a world to act in (rollouts)", "act"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "act"), "acting: --act", "ask"));
  MN_TRY(mn_cli_only(cli, !mn_cli_given(cli, "act"), "judging rows, and not for --act",
                     "batch batches carry examples forget seq-len answers "
                     "soft-targets"));
  MN_TRY(
      mn_cli_only(cli, !mn_cli_given(cli, "answers"), "what is read in segments, and not for --answers", "carry forget batches seq-len"));
  MN_TRY(mn_cli_only(cli, !mn_cli_given(cli, "examples"), "all there is, and not for --examples", "batches"));
  MN_TRY(mn_cli_only(cli, mn_cli_given(cli, "soft-targets"), "--soft-targets", "top"));
  MN_TRY(mn_cli_only(cli, !mn_cli_given(cli, "soft-targets"), "judging; soft targets are of rows that begin anew",
                     "carry forget answers task"));
  if (cli->n_set && !task) return mn_fail(MN_ERR_CONFIG, "--set changes a task's settings; give --task NAME");
  if (mn_cli_given(cli, "task") && mn_cli_given(cli, "data")) return mn_fail(MN_ERR_CONFIG, "--task and --data: give one of them");
  return MN_OK;
}

/* recipe.json says what was held out: it must be of the training that the weights are from. */
static mn_status check_recipe(mn_eval_run *e) {
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
  mn_eval_run e = {.cli = cli, .arena = mn_arena_new(), .examples = 512};
  const char *dir = mn_cli_get(cli, "model"), *task = mn_cli_get(cli, "task");
  mn_status status = !e.arena ? MN_ERR_MEMORY : dir ? MN_OK : mn_fail(MN_ERR_CONFIG, "eval needs --model MODEL: " MN_CLI_MODEL);
  if (status == MN_OK) status = read_options(&e);
  if (status == MN_OK) status = mn_cli_open(cli, dir, &e.bundle);
  if (status == MN_OK) status = check_recipe(&e);
  if (status == MN_OK) status = task ? on_task(&e, task) : mn_cli_given(cli, "data") ? on_files(&e) : on_held_out(&e);
  mn_bundle_close(&e.bundle);
  mn_recipe_free(e.recipe);
  mn_arena_free(e.arena);
  return status;
}

static const mn_option options[] = {
    {"model", "MODEL", NULL, MN_CLI_MODEL, 0},
    {"data", "FILE", NULL, "a text to measure perplexity on; may be repeated (what the recipe held out unless given)", MN_OPTION_REPEATS},
    {"task", "NAME", NULL,
     "a memory task instead: mqar, niah_mini, passkey, niah_single_1 ... stream or verbatim (what the recipe trained on unless given); --set "
     "KEY=VALUE changes its settings",
     0},
    {"lengths", "LIST", NULL,
     "such as 256,1024,4096. Text: what so many tokens before are worth to the same last ones. Tasks of text: prompt and answer in so "
     "many tokens of the model: rows of a grid",
     0},
    {"judged", "N", NULL, "text with --lengths: the last N tokens count (half of the shortest length, at most 256)", 0},
    {"vary", "KEY=LIST", NULL, "tasks of text: the rows are values of a setting instead, such as garbage=0,100,500", 0},
    {"depths", "N", "1", "tasks of text: columns of the grid, needles at N depths from 0 to 100 %", 0},
    {"new-tokens", "N", NULL, "tasks of text: the longest answer (10, or the task's setting new_tokens)", 0},
    {"stream", NULL, NULL, "tasks of token ids: also token by token, saved and restored on the way; both forms must agree", 0},
    {"tokens", "N", NULL, "stream: its length (10000000)", 0},
    {"restart-at", "N", NULL, "stream: crash test, go on from a saved file at this token", 0},
    {"plot", "FILE", NULL,
     "text: loss by length; tasks of text: heat map; stream: recall against distance; verbatim: surprisal (.svg or .png); may be repeated",
     MN_OPTION_REPEATS | MN_OPTION_PICTURE},
    {"seq-len", "T", NULL, "tokens of a segment (as trained)", 0},
    {"batch", "B", NULL, "segments at once (as trained)", 0},
    {"batches", "N", "0", "text and data of examples: at most N batches; 0: all", 0},
    {"examples", "N", NULL,
     "how many examples: of tasks and --answers 512, of tasks of text 50, 20 in each cell of a grid, places of a text with --lengths 20, "
     "--stream 128, verbatim 230, else all",
     0},
    {"answers", NULL, NULL, "pairs: how many answers are right as a whole, said token by token while looking at the source", 0},
    {"beams", "N", "1", "answers: beginnings that are kept; 1: greedy", 0},
    {"act", "N", NULL, "rollouts: acts in their world through a session, in N episodes that nobody has seen", 0},
    {"ask", "P", "1", "act: the return that is asked for, from chance (0) to who knows the world (1)", 0},
    {"soft-targets", "FILE", NULL,
     "instead: what the model says of the text it was trained on (or --data), for a student: a file for data: {type: tensors}",
     MN_OPTION_OUTPUT},
    {"top", "N", "8", "soft targets: so many likeliest tokens of each place", 0},
    {"carry", NULL, NULL, "text: read in B long streams whose state goes on from segment to segment", 0},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    MN_EXACT_OPTION,
    MN_CACHE_OPTION,
    {"forget", NULL, NULL, "past the end of a cache (max_context) forget the oldest tokens", 0},
    {0}};
static const char *const examples[] = {
    "mneme eval --model runs/quick",
    "mneme eval --model runs/quick --data data/books/moby-dick.txt --carry",
    "mneme eval --model runs/quick --data data/books/moby-dick.txt --lengths 128,512,2048,8192 --plot past.svg",
    "mneme eval --model runs/mqar --task mqar --set vocab_size=64 --set len=128 --set kv=16",
    "mneme eval --model runs/quick --task passkey --lengths 512,1024,4096 --depths 11 --plot passkey.svg",
    "mneme eval --model runs/mqar --task mqar --set vocab_size=64 --stream",
    "mneme eval --model runs/needles --task stream --tokens 1000000",
    "mneme eval --model runs/quick --task verbatim --set 'delays=[26,99,435]' --plot lists.svg",
    NULL};
const mn_verb mn_verb_eval = {
    .name = "eval",
    .purpose = MN_VERB_USE,
    .summary = "perplexity on text, accuracy on memory tasks",
    .usage = "--model MODEL [--data FILE | --task NAME] [options]",
    .about =
        "Text is read in segments, each from a fresh state, or with --carry in long streams; the figures are the loss per token, "
        "perplexity, and bits per byte, which compare across tokenizers. With --lengths the same tokens of a text, at places spread over it, "
        "are said after ever more of what stands before them: what a longer past is worth. Tasks of token ids report the accuracy of the "
        "likeliest token; in tasks "
        "of text the model reads the prompt as a stream and goes on greedily; the task stream asks for needles up to millions of "
        "tokens back in one pass at "
        "constant memory; the task verbatim asks how much less a list of words surprises when it comes again. With --json each result of "
        "the last three, and of --stream, is one line. docs/tasks.md describes every task.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_BACKEND | MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 0,
    .max_args = 0,
    .run = run};
