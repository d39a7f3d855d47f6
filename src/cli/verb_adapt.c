/* verb_adapt.c - `mneme adapt`: a trained model becomes another one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/nearest.h"
#include "base/shell.h"
#include "cli/train_view.h"
#include "format/json.h"
#include "checkpoint/bundle.h"
#include "model/model_dir.h"
#include "run/merge.h"
#include "train/linearize.h"
#include "train/out_dir.h"

/* ---- linearize ---- */

/* All values of an option that repeats; free() the list. */
static mn_status values_of(const mn_cli *cli, const char *name, const char *const **list, int *n) {
  *n = 0;
  while (mn_cli_nth(cli, name, *n)) ++*n;
  const char **all = mn_alloc((size_t)(*n + 1) * sizeof *all);
  for (int i = 0; all && i < *n; i++) all[i] = mn_cli_nth(cli, name, i);
  *list = all;
  return all ? MN_OK : MN_ERR_MEMORY;
}

static mn_status check_assignments(const char *option, const char *const *list, int n) {
  for (int i = 0; i < n; i++)
    if (!strchr(list[i], '=') || *list[i] == '=') return mn_fail(MN_ERR_CONFIG, "--%s %s: must be KEY=VALUE", option, list[i]);
  return MN_OK;
}

static mn_status begin(const mn_cli *cli) {
  mn_linearize_config c = {.teacher = cli->args[1],
                           .out_dir = cli->out_dir,
                           .layers = mn_cli_get(cli, "layers"),
                           .set = cli->set,
                           .n_set = cli->n_set,
                           .seed = cli->seed_given ? cli->seed : 1};
  struct {
    const char *name;
    const char *const **list;
    int *n;
  } lists[] = {
      {"data", &c.data, &c.n_data}, {"mixer", &c.mixer, &c.n_mixer}, {"match", &c.match, &c.n_match}, {"tune", &c.tune, &c.n_tune}};
  mn_status status = mn_cli_int(cli, "match-steps", 1, 1000000000000, &c.match_steps);
  if (status == MN_OK) status = mn_cli_int(cli, "tune-steps", 1, 1000000000000, &c.tune_steps);
  if (status == MN_OK) status = mn_cli_int(cli, "rank", 1, 65536, &c.rank);
  for (int i = 0; i < 4 && status == MN_OK; i++) {
    status = values_of(cli, lists[i].name, lists[i].list, lists[i].n);
    if (status == MN_OK && i) status = check_assignments(lists[i].name, *lists[i].list, *lists[i].n);
  }
  if (status == MN_OK) status = mn_linearize_begin(&c);
  for (int i = 0; i < 4; i++) free((void *)(uintptr_t)*lists[i].list);
  return status;
}

/* One of the two trainings, from where it stands. */
static mn_status train(mn_cli *cli, const char *word, bool resume) {
  char *file = mn_format("%s/%s.json", cli->out_dir, word), *dir = mn_path_join(cli->out_dir, word);
  mn_recipe *recipe = NULL;
  mn_train_result r;
  mn_status status = file && dir ? mn_dir_need_real(dir) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_recipe_read(file, NULL, 0, &recipe);
  if (status == MN_OK) {
    mn_train_view view = {.cli = cli, .label = word};
    mn_train_options o = {.out_dir = dir,
                          .resume = resume,
                          .threads = cli->threads,
                          .db_path = mn_cli_get(cli, "db"),
                          .watch = {mn_cli_stop_flag(), mn_train_view_data, &view},
                          .event = mn_train_view_event};
    status = mn_train(recipe, &o, &r);
    mn_train_view_end(&view);
  }
  mn_recipe_free(recipe);
  free(file);
  free(dir);
  if (status == MN_ERR_CANCELLED) {
    char *why = mn_strdup(mn_message()), *out = mn_shell_path(cli->out_dir);
    mn_fail(status, "%s; of the linearization: mneme adapt linearize --resume --out %s", why ? why : "interrupted", out ? out : "DIR");
    free(why);
    free(out);
    return status;
  }
  return mn_context(status, "%s", word);
}

static const char *percent(double x, char buf[16]) {
  if (isfinite(x)) snprintf(buf, 16, "%.1f %%", 100 * x);
  else snprintf(buf, 16, "-");
  return buf;
}

static void print_layers(const mn_cli *cli, const mn_linearized *l) {
  char a[16], b[16], c[16], d[16];
  mn_print("layer  mixer       not matched at first  then     alpha   state of a stream, before and after\n");
  for (int i = 0; i < l->n; i++) {
    const mn_linearized_layer *x = &l->layers[i];
    char alpha[16] = "-";
    if (isfinite(x->alpha)) snprintf(alpha, sizeof alpha, "%.3f", x->alpha);
    mn_print("%5d  %-10s  %20s  %-7s  %-6s  %sB, %sB\n", i, x->mixer, percent(x->before, a), percent(x->after, b), alpha,
             mn_human_count((double)x->state_before, c), mn_human_count((double)x->state_after, d));
  }
  if (isfinite(l->loss)) mn_print("loss on held-out data: %.4f, and the teacher's %.4f\n", l->loss, l->teacher_loss);
  mn_print("%d matrices merged\nmodel: %s/model.safetensors\n", l->merged, cli->out_dir);
}

static json_t *linearized_json(const mn_cli *cli, const mn_linearized *l) {
  json_t *layers = json_array();
  for (int i = 0; i < l->n; i++) {
    const mn_linearized_layer *x = &l->layers[i];
    json_array_append_new(layers, json_pack("{s:i,s:s,s:b,s:o,s:o,s:o,s:o,s:I,s:I}", "layer", i, "mixer", x->mixer, "converted",
                                            x->converted, "match_before", mn_cli_number(x->before), "match_after", mn_cli_number(x->after),
                                            "alpha", mn_cli_number(x->alpha), "meta", mn_cli_number(x->meta), "state_before",
                                            (json_int_t)x->state_before, "state_after", (json_int_t)x->state_after));
  }
  return json_pack("{s:o,s:i,s:o,s:o,s:o}", "out_dir", mn_cli_text(cli->out_dir), "merged", l->merged, "teacher_loss",
                   mn_cli_number(l->teacher_loss), "loss", mn_cli_number(l->loss), "layers", layers);
}

static mn_status finish(mn_cli *cli) {
  const mn_watch watch = {.stop = mn_cli_stop_flag()};
  mn_arena *arena = mn_arena_new();
  mn_linearized l;
  mn_status status = arena ? mn_linearize_end(cli->out_dir, cli->threads, &watch, arena, &l) : MN_ERR_MEMORY;
  if (status == MN_OK && cli->json) status = mn_cli_json(cli, linearized_json(cli, &l));
  else if (status == MN_OK) print_layers(cli, &l);
  mn_arena_free(arena);
  return status;
}

/* A linearization that was killed before its second recipe left the first. */
static mn_status free_for_recipes(const char *dir) {
  MN_TRY(mn_out_dir_fresh(dir));
  char *first = mn_path_join(dir, "match.json");
  mn_status status = first ? mn_out_dir_own_json(first) : MN_ERR_MEMORY;
  free(first);
  return status;
}

static mn_status linearize_in(mn_cli *cli, bool resume) {
  char *recipe = mn_path_join(cli->out_dir, "tune.json");
  const bool there = recipe && mn_file_exists(recipe);
  free(recipe);
  if (there && !resume)
    return mn_fail(MN_ERR_CONFIG, "%s holds a linearization already: --resume goes on with it; choose another --out for a new one",
                   cli->out_dir);
  if (!there && resume)
    return mn_fail(MN_ERR_CONFIG, "%s: there is no linearization to resume; name its teacher to begin one", cli->out_dir);
  if (!resume) MN_TRY(free_for_recipes(cli->out_dir));
  if (!resume) MN_TRY(begin(cli));
  if (mn_cli_given(cli, "recipes-only") && cli->json)
    return mn_cli_json(cli, json_pack("{s:o,s:[s,s]}", "out_dir", mn_cli_text(cli->out_dir), "recipes", "match.json", "tune.json"));
  if (mn_cli_given(cli, "recipes-only")) {
    mn_print("recipes: %s/match.json, %s/tune.json; --resume trains by them\n", cli->out_dir, cli->out_dir);
    return MN_OK;
  }
  MN_TRY(train(cli, "match", resume));
  MN_TRY(train(cli, "tune", resume));
  return finish(cli);
}

static mn_status linearize(mn_cli *cli) {
  const bool resume = mn_cli_given(cli, "resume");
  if (resume && cli->n_args > 1)
    return mn_fail(MN_ERR_CONFIG, "adapt linearize --resume goes on with the recipes in --out: leave out %s", cli->args[1]);
  if (resume)
    MN_TRY(mn_cli_only(cli, false, "a new linearization, and --resume goes on with its recipes",
                       "layers mixer data match-steps tune-steps rank match tune set seed recipes-only"));
  if (!resume && cli->n_args < 2)
    return mn_fail(MN_ERR_CONFIG, "adapt linearize needs a teacher: `mneme adapt linearize runs/big --out runs/lizard`");
  mn_out_dir *dir = NULL;
  mn_status status = mn_out_dir_open(cli->out_dir, resume, &dir);
  if (status == MN_OK) status = linearize_in(cli, resume);
  mn_out_dir_close(dir);
  return status;
}

/* ---- merge ---- */
static mn_status merge_in(mn_cli *cli) {
  mn_bundle b = {0};
  mn_model *model = NULL;
  mn_params *params = NULL;
  mn_model_dir there; /* what comes there while the model is read is not replaced */
  int merged = 0;
  mn_status status = mn_model_dir_look(cli->out_dir, &there);
  if (status == MN_OK) status = mn_out_dir_fresh(cli->out_dir);
  if (status == MN_OK) status = mn_bundle_open(cli->args[1], NULL, cli->threads, &b);
  if (status == MN_OK) status = mn_context(mn_merge_linear(b.model, b.params, &model, &params, &merged), "%s", cli->args[1]);
  if (status == MN_OK) {
    params->origin = b.params->origin;
    params->origin.recipe[0] = 0; /* which made another model of this */
    status = mn_model_dir_save(cli->out_dir, model, params, b.tokenizer, &there);
  }
  if (status == MN_OK && cli->json)
    status = mn_cli_json(cli, json_pack("{s:o,s:i}", "out_dir", mn_cli_text(cli->out_dir), "merged", merged));
  else if (status == MN_OK) mn_print("%d matrices merged\nmodel: %s/model.safetensors\n", merged, cli->out_dir);
  mn_params_free(params);
  mn_model_free(model);
  mn_bundle_close(&b);
  return status;
}

static mn_status merge(mn_cli *cli) {
  MN_TRY(mn_cli_only(cli, false, "adapt linearize",
                     "layers mixer data match-steps tune-steps rank match tune set seed recipes-only resume db"));
  if (cli->n_args < 2) return mn_fail(MN_ERR_CONFIG, "adapt merge needs a model: `mneme adapt merge runs/lora --out runs/merged`");
  mn_out_dir *dir = NULL;
  mn_status status = mn_out_dir_open(cli->out_dir, false, &dir);
  if (status == MN_OK) status = merge_in(cli);
  mn_out_dir_close(dir);
  return status;
}

static mn_status run(mn_cli *cli) {
  static const char *const actions[] = {"linearize", "merge", NULL};
  int action = 0;
  while (actions[action] && strcmp(actions[action], cli->args[0]) != 0) action++;
  if (!actions[action]) {
    const char *near = mn_nearest(cli->args[0], actions, 2);
    return mn_fail(MN_ERR_CONFIG, "adapt: '%s' is not one of linearize, merge%s%s%s", cli->args[0], near ? "; did you mean " : "",
                   near ? near : "", near ? "?" : "");
  }
  if (!cli->out_dir) return mn_fail(MN_ERR_CONFIG, "adapt %s needs --out DIR: where the new model goes", actions[action]);
  return action ? merge(cli) : linearize(cli);
}

static const mn_option options[] = {
    {"layers", "WHICH", "all", "linearize: the blocks that are converted, such as 0,2-3; the others stay as they are", 0},
    {"mixer", "KEY=VALUE", NULL, "linearize: a key of the mixer lizard, such as window=64 or window_rope=true", MN_OPTION_REPEATS},
    {"data", "FILE", NULL, "linearize: text to train on in place of what the teacher was trained on", MN_OPTION_REPEATS},
    {"match-steps", "N", "1000", "linearize: steps in which each mixer learns to say what its attention says", 0},
    {"tune-steps", "N", "1000", "linearize: steps in which the whole learns its data again", 0},
    {"rank", "R", "8", "linearize: of the matrices that are trained beside q, k and v in those steps", 0},
    {"match", "KEY=VALUE", NULL, "linearize: a key of the first recipe alone, such as train.optimizer.lr=3e-3", MN_OPTION_REPEATS},
    {"tune", "KEY=VALUE", NULL, "linearize: a key of the second recipe alone", MN_OPTION_REPEATS},
    {"recipes-only", NULL, NULL, "linearize: write the two recipes and end; --resume trains by them", 0},
    {"resume", NULL, NULL, "linearize: go on where it was interrupted, to the same bits", 0},
    {"db", "FILE", NULL, "the run database ($MNEME_HOME/runs.db or ./runs/mneme.db unless given)", 0},
    {0}};
static const char *const examples[] = {
    "mneme adapt linearize runs/attention --out runs/fixed",
    "mneme adapt linearize runs/attention --layers 0 --mixer window=32 --mixer window_rope=true --mixer norm=joint --out runs/hybrid",
    "mneme adapt linearize --resume --out runs/fixed", "mneme adapt merge runs/fixed/tune --out runs/merged", NULL};
const mn_verb mn_verb_adapt = {
    .name = "adapt",
    .purpose = MN_VERB_TRAIN,
    .summary = "turn a trained model into another one",
    .usage = "linearize TEACHER --out DIR [options]   or   adapt merge MODEL --out DIR",
    .about =
        "linearize makes of a trained decoder of softmax attention one with Lizard in place of attention, whose state has a fixed size: "
        "first each Lizard mixer learns to say what the attention beside it says (the teacher does not move), then the whole learns "
        "its data again by matrices of low rank beside q, k and v, which are merged. Both are ordinary trainings, by DIR/match.json and "
        "DIR/tune.json into DIR/match and DIR/tune; DIR receives the model and linearize.json, which says what became of each layer. "
        "Interrupt it at any time; --resume goes on.\n"
        "merge makes one matrix of each projection that a linear policy (lora, low_rank, grouped, masked) made of several.",
    .options = options,
    .examples = examples,
    .common = MN_CLI_THREADS | MN_CLI_SEED | MN_CLI_SET | MN_CLI_OUT,
    .min_args = 1,
    .max_args = 2,
    .run = run};
