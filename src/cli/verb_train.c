/* verb_train.c - `mneme train`: a recipe in, a trained model out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "cli/train_view.h"
#include "train/out_dir.h"

static void print_result(const mn_cli *cli, const mn_train_result *r) {
  char a[16], b[16], c[16], d[16];
  const mn_evaluation *v = &r->validation;
  if (r->already_done) mn_print("already trained: %lld steps, nothing to do\n", (long long)r->steps);
  else
    mn_print("%lld steps, %s %s, %s parameters, %s %s/s, %sB at most\n", (long long)r->steps, mn_human_count((double)r->tokens, a), r->unit,
             mn_human_count((double)r->parameters, b), mn_human_count(r->tokens_per_second, c), r->unit,
             mn_human_count((double)r->peak_bytes, d));
  if (!r->already_done && isfinite(r->loss)) mn_print("loss %.4f at the last step\n", r->loss);
  else if (!r->already_done) mn_print("the last step asked for nothing and has no loss\n");
  if (v->batches) mn_print("validation: loss %.4f", v->loss);
  for (int i = 0; v->batches && i < v->n_metrics; i++)
    mn_print(v->metrics[i].def && v->metrics[i].def->form == MN_METRIC_EXP ? ", %s %.3f" : ", %s %.4f", v->metrics[i].name,
             v->metrics[i].value);
  if (v->batches && isfinite(v->bits_per_byte)) mn_print(", %.4f bits per byte", v->bits_per_byte);
  if (v->batches && v->score.examples) mn_print(", accuracy %.4f", mn_task_acc(&v->score));
  if (v->batches) mn_print("\n");
  mn_print("model: %s/model.safetensors\n", cli->out_dir);
}

static json_t *result_json(const mn_cli *cli, const mn_recipe *recipe, const mn_train_result *r) {
  return json_pack("{s:o,s:I,s:o,s:I,s:I,s:s,s:I,s:o,s:o,s:o,s:o,s:I,s:b}", "name", mn_cli_text(recipe->name), "run", (json_int_t)r->run,
                   "out_dir", mn_cli_text(cli->out_dir), "steps", (json_int_t)r->steps, "tokens", (json_int_t)r->tokens, "unit", r->unit,
                   "parameters", (json_int_t)r->parameters, "loss", r->already_done ? json_null() : mn_cli_number(r->loss), "validation",
                   mn_evaluation_json(&r->validation), "seconds", mn_cli_number(r->seconds), "tokens_per_second",
                   mn_cli_number(r->tokens_per_second), "peak_bytes", (json_int_t)r->peak_bytes, "already_done", r->already_done);
}

static mn_status train(mn_cli *cli, const mn_recipe *recipe) {
  mn_train_view view = {.cli = cli, .label = recipe->name};
  mn_train_options o = {.out_dir = cli->out_dir,
                        .resume = mn_cli_given(cli, "resume"),
                        .threads = cli->threads,
                        .db_path = mn_cli_get(cli, "db"),
                        .watch = {mn_cli_stop_flag(), mn_train_view_data, &view},
                        .event = mn_train_view_event};
  mn_train_result r;
  mn_status status = mn_train(recipe, &o, &r);
  mn_train_view_end(&view);
  MN_TRY(status);
  if (cli->json) return mn_cli_json(cli, result_json(cli, recipe, &r));
  print_result(cli, &r);
  return MN_OK;
}

static mn_status print_keys(const mn_cli *cli) {
  static const char *const forms[] = {"text", "markdown", NULL}; /* in the order of mn_help_form */
  int form = 0;
  MN_TRY(mn_cli_choice(cli, "keys", forms, &form));
  mn_text t = {0};
  mn_recipe_help((mn_help_form)form, &t);
  mn_status status = mn_text_status(&t);
  if (status == MN_OK) mn_print_bytes(t.data, t.len);
  mn_text_free(&t);
  return status;
}

/* The settings say nothing of train.from, in no spelling. */
static mn_status check_from(const char *const *set, int n) {
  mn_arena *arena = mn_arena_new();
  const mn_value *map = arena ? mn_value_map(arena, 0, NULL, NULL) : NULL;
  mn_status status = map ? MN_OK : MN_ERR_MEMORY;
  for (int i = 0; status == MN_OK && i < n; i++) status = mn_value_set(arena, map, set[i], &map);
  const mn_value *train = status == MN_OK ? mn_value_get(map, "train") : NULL;
  if (train && train->kind == MN_MAP && mn_value_get(train, "from"))
    status = mn_fail(MN_ERR_CONFIG, "--from and --set train.from are two names for one; leave one out");
  mn_arena_free(arena);
  return status;
}

/* --from DIR is the key train.from, so that the run says what it began with. */
static mn_status add_from(const mn_cli *cli, char **from, const char ***set, int *n) {
  *from = mn_format("train.from=%s", mn_cli_get(cli, "from"));
  const char **more = *from ? mn_realloc(*set, (size_t)(*n + 1) * sizeof *more) : NULL;
  if (!more) return MN_ERR_MEMORY;
  *set = more;
  more[(*n)++] = *from;
  return MN_OK;
}

static mn_status run(mn_cli *cli) {
  if (mn_cli_given(cli, "keys")) {
    MN_TRY(mn_cli_only(cli, false, "a training, and --keys only prints", "out set seed threads resume from db json"));
    if (cli->n_args) return mn_fail(MN_ERR_CONFIG, "train --keys only prints: leave out %s", cli->args[0]);
    return print_keys(cli);
  }
  if (!cli->out_dir) return mn_fail(MN_ERR_CONFIG, "train needs --out DIR: where the trained model goes");
  char *kept = NULL;
  if (cli->n_args == 0) { /* the run's own recipe */
    if (!mn_cli_given(cli, "resume")) return mn_fail(MN_ERR_CONFIG, "train needs a recipe: `mneme train recipes/quick.yaml --out DIR`");
    kept = mn_path_join(cli->out_dir, "recipe.json");
    if (!kept) return MN_ERR_MEMORY;
    if (!mn_file_exists(kept)) {
      mn_status status = mn_fail(MN_ERR_CONFIG, "%s: there is no run to resume; name its recipe to begin one", cli->out_dir);
      free(kept);
      return status;
    }
  }
  if (cli->n_args && !mn_cli_given(cli, "resume")) MN_TRY(mn_out_dir_spares(cli->out_dir, cli->args[0]));
  const char **set = NULL;
  int n = 0;
  mn_recipe *recipe = NULL;
  mn_status status = mn_train_settings(cli, &set, &n);
  char *from = NULL;
  if (status == MN_OK && mn_cli_get(cli, "from")) status = check_from(set, n);
  if (status == MN_OK && mn_cli_get(cli, "from")) status = add_from(cli, &from, &set, &n);
  if (status == MN_OK) status = mn_recipe_read(kept ? kept : cli->args[0], set, n, &recipe);
  if (status == MN_OK) status = train(cli, recipe);
  mn_recipe_free(recipe);
  free(set);
  free(from);
  free(kept);
  return status;
}

static const mn_option options[] = {{"resume", NULL, NULL, "go on from the newest checkpoint in DIR, to the same bits", 0},
                                    {"from", "DIR", NULL, "a new run that begins with the weights of a trained model", 0},
                                    {"db", "FILE", NULL, "the run database ($MNEME_HOME/runs.db or ./runs/mneme.db unless given)", 0},
                                    {"keys", "FORM", NULL, "print every key of a recipe as text or markdown, and end", 0},
                                    {0}};
static const char *const examples[] = {
    "mneme train recipes/quick.yaml --out runs/quick",
    "mneme train recipes/quick.yaml --set train.steps=2000 --set train.optimizer.lr=5e-4 --out runs/longer",
    "mneme train --resume --out runs/longer",

    "mneme train --keys text", NULL};
const mn_verb mn_verb_train = {
    .name = "train",
    .purpose = MN_VERB_TRAIN,
    .summary = "train a model from a recipe",
    .usage = "RECIPE.yaml --out DIR [options]",
    .about = "DIR receives the trained model (model.safetensors, config.json, tokenizer.json), the whole recipe with every default "
             "spelled out (recipe.json), metrics.jsonl and checkpoints. Interrupt it at any time: a clean end saves a checkpoint, and "
             "after a kill the last one counts; --resume goes on to the same bits as if nothing had happened.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET | MN_CLI_OUT,
    .min_args = 0,
    .max_args = 1,
    .run = run};
