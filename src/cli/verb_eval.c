/* verb_eval.c - `mneme eval`: a trained model on held-out text, on any text, or on a memory task. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/train_view.h"
#include "model/bundle.h"
#include "stream/session.h"

typedef struct evaluation {
  mn_cli *cli;
  mn_arena *arena;
  mn_bundle bundle;
  mn_recipe *recipe; /* of the training; NULL: the directory has none */
  int64_t batch, seq_len, batches, examples;
  mn_dtype compute;
  bool carry;
  const char *what; /* "held-out text of the recipe", the file, the task */
} evaluation;

/* ---- text, and tasks of token ids: whole segments ---- */

static mn_status print_segments(evaluation *e, const mn_corpus *corpus, const mn_evaluation *r) {
  char hex[33], tokens[16];
  const mn_task *task = mn_corpus_task(corpus);
  MN_TRY(mn_model_fingerprint(e->bundle.model, e->bundle.params, hex));
  double low = 0, high = 0;
  if (r->score.examples) mn_wilson_interval((int64_t)llround(mn_task_acc(&r->score) * (double)r->score.positions), r->score.positions, &low, &high);
  if (e->cli->json) {
    json_t *j = mn_evaluation_json(r);
    json_object_update_new(j, json_pack("{s:s,s:s,s:I,s:I,s:b,s:s,s:I}", "model", mn_cli_get(e->cli, "model"), "on", e->what, "seq_len",
                                        (json_int_t)e->seq_len, "batch", (json_int_t)e->batch, "carry_state", e->carry, "fingerprint", hex,
                                        "parameters", (json_int_t)mn_params_count(e->bundle.params)));
    if (task) json_object_set_new(j, "task", json_string(task->def->name));
    if (r->score.examples) json_object_set_new(j, "accuracy_interval", json_pack("[f,f]", low, high));
    return mn_cli_json(e->cli, j);
  }
  printf("%s: %s targets in segments of %lld%s\n", e->what, mn_human_count((double)r->tokens, tokens), (long long)e->seq_len,
         e->carry ? ", state carried from one to the next" : ", each from a fresh state");
  printf("loss %.4f nats per token, perplexity %.4f\n", r->loss, r->perplexity);
  if (isfinite(r->bits_per_byte)) printf("%.4f bits per byte of text\n", r->bits_per_byte);
  if (r->score.examples)
    printf("accuracy %.4f (95 %%: %.4f to %.4f), whole examples %.4f, of %lld examples\n", mn_task_acc(&r->score), low, high, mn_task_seq_acc(&r->score),
           (long long)r->score.examples);
  return MN_OK;
}

static mn_status in_segments(evaluation *e, const mn_data_config *data) {
  mn_train_view view = {.cli = e->cli, .label = "eval"};
  mn_corpus *corpus = NULL;
  mn_evaluator *evaluator = NULL;
  mn_evaluation r;
  mn_status status = mn_corpus_open(data, e->bundle.tokenizer, mn_train_view_data, &view, &corpus);
  mn_train_view_end(&view);
  if (status == MN_OK && mn_corpus_task(corpus) && mn_corpus_task(corpus)->seq_len) e->seq_len = mn_corpus_task(corpus)->seq_len;
  if (status == MN_OK && mn_corpus_vocab_size(corpus) > e->bundle.model->config.vocab_size)
    status = mn_fail(MN_ERR_CONFIG, "%s has token ids up to %lld, but the model was trained for %lld", e->what,
                     (long long)mn_corpus_vocab_size(corpus) - 1, (long long)e->bundle.model->config.vocab_size);
  mn_evaluator_config how = {e->batch, e->seq_len, e->compute, e->carry};
  int split = data->task ? MN_SPLIT_TEST : MN_SPLIT_VALIDATION;
  int64_t batches = data->task ? (e->examples + e->batch - 1) / e->batch : e->batches;
  if (status == MN_OK) status = mn_corpus_check(corpus, split, e->batch, e->seq_len);
  if (status == MN_OK) status = mn_evaluator_new(e->bundle.model, e->bundle.params, corpus, &how, &evaluator);
  if (status == MN_OK) status = mn_evaluate(evaluator, split, batches, mn_cli_stop_flag(), &r);
  if (status == MN_OK) status = print_segments(e, corpus, &r);
  mn_evaluator_free(evaluator);
  mn_corpus_close(corpus);
  return status;
}

/* ---- tasks of text: the model reads the prompt and goes on greedily ---- */

static size_t count_tokens(void *ctx, const char *text, size_t n) {
  mn_ids ids = {0};
  size_t count = mn_encoder_add(ctx, text, n, 0, &ids) == MN_OK ? ids.len : n;
  mn_ids_free(&ids);
  return count;
}

static mn_status answer(evaluation *e, mn_session *session, const mn_task_text *sample, mn_text *out, int64_t *prompt_tokens) {
  const mn_tokenizer *tok = e->bundle.tokenizer;
  mn_ids prompt = {0}, expected = {0}, made = {0};
  const float *logits = NULL;
  int64_t vocab_size = mn_session_vocab_size(session);
  mn_status status = mn_tokenizer_encode(tok, sample->prompt, strlen(sample->prompt), 0, &prompt);
  if (status == MN_OK) status = mn_tokenizer_encode(tok, sample->answer, strlen(sample->answer), 0, &expected);
  if (status == MN_OK) status = mn_session_reset(session);
  if (status == MN_OK) status = mn_session_feed(session, prompt.data, (int64_t)prompt.len, &logits);
  *prompt_tokens = (int64_t)prompt.len;
  for (size_t i = 0; i < expected.len + 8 && status == MN_OK; i++) { /* room for a different split of the same text */
    int32_t best = 0;
    for (int64_t k = 1; k < vocab_size; k++)
      if (logits[k] > logits[best]) best = (int32_t)k;
    if (best == mn_tokenizer_eos(tok)) break;
    size_t bytes;
    if (mn_tokenizer_token(tok, best, &bytes)) status = mn_ids_add(&made, best);
    if (status == MN_OK) status = mn_session_feed(session, &best, 1, &logits);
  }
  if (status == MN_OK) status = mn_tokenizer_decode(tok, made.data, made.len, true, out);
  mn_ids_free(&prompt);
  mn_ids_free(&expected);
  mn_ids_free(&made);
  return status;
}

static mn_status run_texts(evaluation *e, const mn_task *task, mn_session *session) {
  double sum = 0, tokens = 0;
  int64_t right = 0, n = 0;
  mn_progress *progress = mn_progress_new(e->cli, task->def->name, "examples", e->examples);
  mn_status status = MN_OK;
  for (; n < e->examples && status == MN_OK && !mn_cli_interrupted(); n++) {
    mn_task_text sample;
    mn_text output = {0};
    int64_t length = 0;
    status = mn_task_sample_text(task, MN_SPLIT_TEST, (uint64_t)n, &sample);
    if (status != MN_OK) break;
    status = answer(e, session, &sample, &output, &length);
    double score = status == MN_OK ? mn_task_score_text(task, &sample, output.data ? output.data : "") : 0;
    sum += score;
    right += score >= 1;
    tokens += (double)length;
    mn_text_free(&output);
    mn_task_text_free(&sample);
    mn_progress_fields(progress, "score %.3f", sum / (double)(n + 1));
    mn_progress_update(progress, n + 1);
  }
  mn_progress_free(progress);
  MN_TRY(status);
  if (n == 0) return mn_fail(MN_ERR_CANCELLED, "interrupted before the first example");
  double low, high, mean = sum / (double)n;
  mn_wilson_interval(right, n, &low, &high);
  if (e->cli->json)
    return mn_cli_json(e->cli, json_pack("{s:s,s:s,s:I,s:f,s:f,s:[f,f],s:f,s:I}", "model", mn_cli_get(e->cli, "model"), "task", task->def->name,
                                         "examples", (json_int_t)n, "score", mean, "accuracy", (double)right / (double)n, "accuracy_interval", low, high,
                                         "mean_prompt_tokens", tokens / (double)n, "parameters", (json_int_t)mn_params_count(e->bundle.params)));
  printf("%s: score %.4f, right %.4f (95 %%: %.4f to %.4f), of %lld examples of %.0f tokens\n", task->def->name, mean, (double)right / (double)n, low, high,
         (long long)n, tokens / (double)n);
  return MN_OK;
}

static mn_status by_generation(evaluation *e, const char *name, const mn_value *settings) {
  mn_task *task = NULL;
  mn_session *session = NULL;
  mn_encoder *enc = NULL;
  mn_session_config how = {.batch = 1, .prefill = e->seq_len, .compute = e->compute};
  mn_status status = mn_task_open(name, settings, &task);
  if (status == MN_OK && e->cli->seed_given) task->seed = e->cli->seed;
  if (status == MN_OK) status = mn_bundle_need_tokenizer(&e->bundle, mn_cli_get(e->cli, "model"));
  if (status == MN_OK) status = mn_encoder_new(e->bundle.tokenizer, &enc);
  if (status == MN_OK) mn_task_count_with(task, count_tokens, enc);
  if (status == MN_OK) status = mn_session_new(e->bundle.model, e->bundle.params, &how, &session);
  if (status == MN_OK) status = run_texts(e, task, session);
  mn_session_free(session);
  mn_encoder_free(enc);
  mn_task_close(task);
  return status;
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

static mn_status on_task(evaluation *e, const char *name) {
  const mn_value *settings = NULL;
  MN_TRY(task_settings(e, name, &settings));
  mn_task *task; /* refuses an unknown name and wrong settings */
  MN_TRY(mn_task_open(name, settings, &task));
  bool text = task->def->sample_text != NULL;
  mn_task_close(task);
  e->what = name;
  if (text) return by_generation(e, name, settings);
  mn_data_config data;
  mn_config_defaults(mn_data_fields, &data);
  data.task = settings;
  if (e->cli->seed_given) data.seed = (int64_t)e->cli->seed;
  return in_segments(e, &data);
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
    return mn_fail(MN_ERR_CONFIG, "%s has no recipe.json that says what was held out; give --data FILE or --task NAME", mn_cli_get(e->cli, "model"));
  mn_data_config data = e->recipe->data;
  if (e->carry) data.order = MN_ORDER_SEQUENTIAL;
  e->what = data.task ? "the recipe's task" : "the recipe's held-out text";
  if (!data.task) return in_segments(e, &data);
  const mn_value *name = mn_value_get(data.task, "name");
  const mn_task_def *def = mn_task_find(name->as.text);
  return def && def->sample_text ? by_generation(e, name->as.text, data.task) : in_segments(e, &data);
}

static mn_status read_options(evaluation *e) {
  static const char *const precisions[] = {"f32", "bf16", NULL};
  const mn_cli *cli = e->cli;
  int precision = 0;
  char *path = mn_path_join(mn_cli_get(cli, "model"), "recipe.json");
  if (!path) return MN_ERR_MEMORY;
  mn_status status = mn_file_exists(path) ? mn_recipe_read(path, NULL, 0, &e->recipe) : MN_OK;
  free(path);
  MN_TRY(status);
  e->batch = e->recipe ? e->recipe->train.batch : 8;
  e->seq_len = e->recipe ? e->recipe->train.seq_len : 256;
  e->carry = mn_cli_given(cli, "carry") || (e->recipe && e->recipe->train.carry_state && !mn_cli_given(cli, "task"));
  MN_TRY(mn_cli_int(cli, "batch", 1, 65536, &e->batch));
  MN_TRY(mn_cli_int(cli, "seq-len", 1, 1 << 24, &e->seq_len));
  MN_TRY(mn_cli_int(cli, "batches", 0, INT64_MAX, &e->batches));
  MN_TRY(mn_cli_int(cli, "examples", 1, 1 << 30, &e->examples));
  MN_TRY(mn_cli_choice(cli, "precision", precisions, &precision));
  e->compute = precision ? MN_BF16 : MN_F32;
  if (cli->n_set && !mn_cli_given(cli, "task")) return mn_fail(MN_ERR_CONFIG, "--set changes a task's settings; give --task NAME");
  if (mn_cli_given(cli, "task") && mn_cli_given(cli, "data")) return mn_fail(MN_ERR_CONFIG, "--task and --data: give one of them");
  return MN_OK;
}

static mn_status run(mn_cli *cli) {
  evaluation e = {.cli = cli, .arena = mn_arena_new()};
  const char *dir = mn_cli_get(cli, "model"), *task = mn_cli_get(cli, "task");
  mn_status status = !e.arena ? MN_ERR_MEMORY : dir ? MN_OK : mn_fail(MN_ERR_CONFIG, "eval needs --model DIR: what mneme train --out made");
  if (status == MN_OK) status = read_options(&e);
  if (status == MN_OK) status = mn_bundle_open(dir, cli->threads, &e.bundle);
  if (status == MN_OK) status = task ? on_task(&e, task) : mn_cli_given(cli, "data") ? on_files(&e) : on_held_out(&e);
  mn_bundle_close(&e.bundle);
  mn_recipe_free(e.recipe);
  mn_arena_free(e.arena);
  return status;
}

static const mn_option options[] = {
    {"model", "DIR", NULL, "the trained model: the directory that mneme train --out made", 0},
    {"data", "FILE", NULL, "a text to measure perplexity on; may be repeated (what the recipe held out unless given)", MN_OPTION_REPEATS},
    {"task", "NAME", NULL, "a memory task instead: mqar, passkey, niah ...; --set KEY=VALUE changes its settings", 0},
    {"seq-len", "T", NULL, "tokens of a segment (as trained)", 0},
    {"batch", "B", NULL, "segments at once (as trained)", 0},
    {"batches", "N", "0", "text: at most N batches; 0: all", 0},
    {"examples", "N", "512", "task: how many examples", 0},
    {"carry", NULL, NULL, "text: read in B long streams whose state goes on from segment to segment", 0},
    {"precision", "WORD", "f32", "f32 or bf16", 0},
    {0}};
static const char *const examples[] = {"mneme eval --model runs/quick", "mneme eval --model runs/quick --data data/books/moby-dick.txt --carry",
                                       "mneme eval --model runs/mqar --task mqar --set len=128 --set kv=16",
                                       "mneme eval --model runs/quick --task passkey --set garbage=400 --examples 50", NULL};
const mn_verb mn_verb_eval = {
    .name = "eval",
    .purpose = MN_VERB_USE,
    .summary = "perplexity on text, accuracy on memory tasks",
    .usage = "--model DIR [--data FILE | --task NAME] [options]",
    .about = "Text is read in segments, each from a fresh state, or with --carry in long streams; the figures are the loss per token, "
             "perplexity, and bits per byte, which compare across tokenizers. Tasks of token ids report the accuracy of the likeliest token; in tasks "
             "of text the model reads the prompt and goes on greedily.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET,
    .min_args = 0,
    .max_args = 0,
    .run = run};
